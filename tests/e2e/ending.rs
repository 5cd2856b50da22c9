//! That a cluster which a run started ends with it, whatever ends the run. Oracle: the kernel's list
//! of processes, and the folder of the cluster.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::cluster::{Cluster, holder, project};
use crate::kubectl::eventually;

/// In the environment of a run that only holds a cluster.
pub const HOLD: &str = "E2E_HOLD";

/// What it says once the cluster is there.
const HELD: &str = "holding a cluster";

/// Starts a cluster and waits to be killed.
pub fn hold() -> ExitCode {
    match Cluster::start() {
        Ok(_cluster) => {
            println!("{HELD}");
            loop {
                std::thread::park();
            }
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Only where no cluster runs: there is one at a time.
pub fn a_killed_run_leaves_nothing() {
    let mut run = Command::new(std::env::current_exe().unwrap());
    let mut run = run.env(HOLD, "yes").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let said: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| line != HELD)
        .collect();
    let folder = project("target/cluster");
    let holder = holder().unwrap_or_else(|_| panic!("no cluster is held: {said:?}"));
    let process = format!("/proc/{holder}");
    assert!(Path::new(&process).exists(), "it runs");
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the cluster is gone", 60, || {
        let left = [Path::new(&process), folder.as_path()];
        let left: Vec<&Path> = left.into_iter().filter(|path| path.exists()).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(format!("{left:?}"))
    });
}
