//! What the numbers were measured on.
//!
//! Owns: the description of the machine that stands beside every result, and the latency of its
//! `fdatasync`, which bounds everything that is durable. Never here: a number that was not read or
//! measured in this run.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;

/// Syncs that make up the latency of one.
const SYNCS: usize = 300;

/// See the module documentation.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    pub file_system: String,
    /// One-minute load average before the run: well below 1, or the numbers are noise.
    pub load_before: f64,
    pub fdatasync_p50_ms: f64,
    pub fdatasync_p99_ms: f64,
    pub date: String,
    pub commit: String,
    pub pinned: bool,
}

impl Machine {
    /// Looks around; `folder` is where the stores will be.
    pub fn look(folder: &Path, pinned: bool) -> std::io::Result<Self> {
        let (fdatasync_p50_ms, fdatasync_p99_ms) = sync_latency(folder)?;
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse::<f64>().ok())
                .map_or(0.0, |kib| kib / f64::from(1 << 20)),
            kernel: read("/proc/sys/kernel/osrelease"),
            file_system: file_system(folder),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0),
            fdatasync_p50_ms,
            fdatasync_p99_ms,
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            commit: commit(),
            pinned,
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The first `name : value` of a file in `/proc`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the file system with the longest mount point above `folder`.
fn file_system(folder: &Path) -> String {
    let Ok(folder) = folder.canonicalize() else {
        return "unknown".to_owned();
    };
    read("/proc/mounts")
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        })
        .filter(|(place, _)| folder.starts_with(place))
        .max_by_key(|(place, _)| place.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        Command::new("git")
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // What a run writes itself does not make its sources different.
    let changed = git(&[
        "status",
        "--porcelain",
        "--",
        "src",
        "benches",
        "Cargo.lock",
    ]);
    match changed.as_deref() {
        Some("") => commit,
        _ => format!("{commit} with local changes"),
    }
}

/// Median and p99 of appending 4 KiB and syncing, in milliseconds.
fn sync_latency(folder: &Path) -> std::io::Result<(f64, f64)> {
    let path = folder.join("sync-latency");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        took.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    drop(file);
    fs::remove_file(path)?;
    took.sort_by(f64::total_cmp);
    Ok((took[SYNCS / 2], took[SYNCS * 99 / 100]))
}
