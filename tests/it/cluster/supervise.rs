//! Foreign programs that never outlive the tests, however those end: panic, Ctrl-C or kill -9.
//!
//! Each runs under a small shell script that watches a pipe. The kernel closes our end when this
//! process is gone; no destructor, signal handler or death signal (which Linux ties to a *thread*,
//! and each test has one of its own) is relied on. The script has its own process group, so that
//! Ctrl-C reaches it only through that pipe.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running program; dropping it stops it.
pub struct Supervised {
    script: Child,
    log: PathBuf,
}

impl Supervised {
    /// Starts a program. What it prints goes to `folder/NAME.log`; the folder goes when it is
    /// stopped.
    pub fn start(folder: &Path, name: &str, program: &Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let environment = program.get_envs();
        let script = Command::new("sh")
            .args(["-c", include_str!("supervise.sh"), "supervise"])
            .args([folder, &log])
            .arg(program.get_program())
            .args(program.get_args())
            .envs(environment.filter_map(|(name, value)| Some((name, value?))))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { script, log }
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends the program itself a signal, such as `-TERM`.
    pub fn signal(&self, name: &str) {
        let file = self.log.with_extension("log.pid");
        let number = || {
            let text = std::fs::read_to_string(&file).ok()?;
            text.trim().parse::<u32>().ok()
        };
        // The script writes it down as soon as it has started the program.
        let pid = std::iter::repeat_with(number)
            .inspect(|_| std::thread::sleep(std::time::Duration::from_millis(5)))
            .take(2_000)
            .find_map(|pid| pid)
            .unwrap();
        let sent = Command::new("kill").args([name, &pid.to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.script.try_wait().unwrap()
    }

    /// The last lines of its log, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.status()?;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        Some(format!("{} {status}:\n{last}", self.log.display()))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Runs only as a child of the test below.
#[test]
#[ignore = "the process that another test kills"]
fn owner() {
    let folder = std::env::var_os("BELLHOP_SUPERVISE_TEST").unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "echo $$ >\"$0/pid\"; exec sleep 1000"])
        .arg(&folder);
    let _program = Supervised::start(Path::new(&folder), "shell", &shell);
    std::thread::sleep(std::time::Duration::from_secs(1000));
}

#[test]
fn what_was_started_dies_with_a_killed_test_process() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("inner");
    std::fs::create_dir(&folder).unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "cluster::supervise::owner"])
        .env("BELLHOP_SUPERVISE_TEST", &folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = super::eventually("the program runs", || {
        let pid = std::fs::read_to_string(folder.join("pid")).ok()?;
        pid.trim().parse::<u32>().ok()
    });
    assert!(runs(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    super::eventually("program and folder are gone", || {
        (!runs(pid) && !folder.exists()).then_some(())
    });
}

fn runs(pid: u32) -> bool {
    let found = Command::new("kill")
        .args(["-0", &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    found.unwrap().success()
}
