//! The cluster that a run starts: it has no way out, takes newer images, and ends with the run,
//! whatever ends that. Oracle: the kernel's interfaces, routes, processes and control groups,
//! containerd's list of images, and the folder of the cluster.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cluster::{Cluster, holder, inside, make_pods_image, project, up};
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
    let before = control_groups();
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
    let groups = &control_groups() - &before;
    let while_it_runs = std::panic::catch_unwind(|| {
        there_is_no_way_out();
        newer_images_are_taken();
    });
    run.kill().unwrap();
    run.wait().unwrap();
    eventually("the cluster is gone", 60, || {
        let left = [Path::new(&process), folder.as_path()].into_iter();
        let left = left.chain(groups.iter().map(PathBuf::as_path));
        let left: Vec<&Path> = left.filter(|path| path.exists()).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(format!("{left:?}"))
    });
    assert!(!groups.is_empty(), "it had no control groups of its own");
    if let Err(panic) = while_it_runs {
        std::panic::resume_unwind(panic);
    }
}

/// The control groups at the top of every hierarchy that the kernel has; those of pods are below.
fn control_groups() -> BTreeSet<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let folder = words.next()?;
        words.next()?.starts_with("cgroup").then_some(folder)
    });
    let entries = hierarchies.flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten());
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).collect()
}

/// Before the first pod there are the loopback and the node's bridge; pods are joined to another one.
fn there_is_no_way_out() {
    let up = inside("ip -brief link show up").fine();
    let names = up.lines().filter_map(|line| line.split_whitespace().next());
    let strange =
        |name: &&str| !["lo", "node0", "cni0"].contains(name) && !name.starts_with("veth");
    assert_eq!(names.clone().find(strange), None, "{up}");
    assert!(names.clone().any(|name| name == "node0"), "{up}");
    for family in ["-4", "-6"] {
        let default = inside(&format!("ip {family} route show table all default")).fine();
        assert!(!default.contains("default dev"), "{default}");
        assert!(!default.contains(" via "), "{default}");
    }
    // An address for documents, which is nobody's.
    let way = inside("ip route get 198.51.100.1");
    assert!(!way.well, "{}", way.out);
}

/// A second `up` does not start anything, but pods get what it is given: else a run on a cluster
/// that runs already would test the image of the day before.
fn newer_images_are_taken() {
    let there = || inside("ctr --namespace k8s.io images ls name==localhost/pods:e2e").fine();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("pods.tar");
    // Another one of the same name: it holds the time when it was built.
    make_pods_image(&image);
    let before = there();
    assert!(before.contains("localhost/pods:e2e"), "{before}");
    up(&image);
    assert_ne!(there(), before);
}
