//! The processes of a run, each on a core of its own, and what the kernel says of them.
//!
//! Owns: starting, pinning and ending them; CPU time, memory and bytes written from `/proc`.
//! Never here: a process that outlives the bench (each ends with its standard input, or is
//! killed when its handle is dropped).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Who runs where: with two cores or more, the server shares its own with nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// Load, provider and consumer.
    Load = 0,
    /// What is measured.
    Server = 1,
}

/// Whether processes can be pinned here; said in the results.
pub fn can_pin() -> bool {
    static ABLE: OnceLock<bool> = OnceLock::new();
    *ABLE.get_or_init(|| {
        [Core::Load, Core::Server].iter().all(|core| {
            Command::new("taskset")
                .args(["-c", &(*core as usize).to_string(), "true"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
    })
}

fn pinned(core: Core, program: &Path) -> Command {
    if can_pin() {
        let mut command = Command::new("taskset");
        command
            .arg("-c")
            .arg((core as usize).to_string())
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A running process.
pub struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
    name: String,
}

impl Process {
    /// This program again, in another role. Arguments are `name=value`.
    pub fn role(role: &str, core: Core, arguments: &[String]) -> io::Result<Self> {
        let mut command = pinned(core, &std::env::current_exe()?);
        command.arg(format!("role:{role}")).args(arguments);
        Self::start(role, command)
    }

    /// The same on whichever core is free.
    pub fn anywhere(role: &str, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(format!("role:{role}")).args(arguments);
        Self::start(role, command)
    }

    /// Another program, its log going to a file.
    pub fn program(
        program: &Path,
        core: Core,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: &Path,
    ) -> io::Result<Self> {
        let mut command = pinned(core, program);
        command.args(arguments).stderr(File::create(log)?);
        Self::start(&program.display().to_string(), command)
    }

    /// Another program as it is described, on whichever core is free, its log going to a file.
    pub fn described(mut command: Command, log: &Path) -> io::Result<Self> {
        command.stderr(File::create(log)?);
        let name = command.get_program().display().to_string();
        Self::start(&name, command)
    }

    fn start(name: &str, mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self {
            child,
            lines,
            name: name.to_owned(),
        })
    }

    /// What the kernel calls it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!("`{}` ended too early", self.name)));
        }
        Ok(line.trim().to_owned())
    }

    /// The address that a server role prints when it listens.
    pub fn address(&mut self) -> io::Result<SocketAddr> {
        let line = self.line()?;
        line.parse()
            .map_err(|_| io::Error::other(format!("`{}` printed `{line}`, no address", self.name)))
    }

    /// Ends a role by closing its standard input, and waits.
    pub fn end(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Ends a program with SIGTERM, and waits.
    pub fn terminate(mut self) -> io::Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()?;
        self.wait()
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn wait(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + Duration::from_mins(2);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > give_up {
                return Err(io::Error::other(format!("`{}` does not end", self.name)));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name, in parentheses, may hold anything; what follows it does not.
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = after
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<u64>().ok())
            .sum();
        // USER_HZ is 100 on every Linux that Rust runs on.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Bytes that it caused to be written to the disk so far.
    pub fn written(&self) -> io::Result<u64> {
        let io = fs::read_to_string(format!("/proc/{}/io", self.pid()))?;
        number(&io, "write_bytes:").ok_or_else(|| io::Error::other("no write_bytes in /proc/…/io"))
    }

    /// Memory right now.
    pub fn memory(&self) -> io::Result<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let mib = |name| {
            number(&rollup, name)
                .map(|kib| kib as f64 / 1024.0)
                .ok_or_else(|| io::Error::other(format!("no `{name}` in /proc/…/smaps_rollup")))
        };
        Ok(Memory {
            rss: mib("Rss:")?,
            anonymous: mib("Anonymous:")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or this is the way out after a failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident, the program's own pages included.
    pub rss: f64,
    /// Of these, what no file is behind: heap and stacks.
    pub anonymous: f64,
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
