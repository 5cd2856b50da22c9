//! What the numbers were measured on.
//!
//! Owns: the description of the machine that stands beside every result, and the latency of its
//! `fdatasync`, which bounds everything that is durable. Never here: a number that was not read or
//! measured in this run.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

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

/// Milliseconds that writing 4 KiB and syncing takes.
fn synced(file: &mut File) -> std::io::Result<f64> {
    let started = Instant::now();
    file.write_all(&[0x5a; 4096])?;
    file.sync_data()?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// Median and p99 of appending 4 KiB and syncing, in milliseconds.
fn sync_latency(folder: &Path) -> std::io::Result<(f64, f64)> {
    let path = folder.join("sync-latency");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        took.push(synced(&mut file)?);
    }
    drop(file);
    fs::remove_file(path)?;
    took.sort_by(f64::total_cmp);
    Ok((took[SYNCS / 2], took[SYNCS * 99 / 100]))
}

/// A file beside the stores, a block of which is written over and synced ten times a second while
/// something else is measured: a stall that it shows as well is the disk's.
pub struct Witness {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<f64>>>,
}

impl Witness {
    const PAUSE: Duration = Duration::from_millis(100);

    pub fn start(folder: &Path) -> Self {
        let path = folder.join("sync-witness");
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut file = File::create(&path)?;
            let mut took = Vec::new();
            while !seen.load(Ordering::Relaxed) {
                file.rewind()?;
                took.push(synced(&mut file)?);
                thread::sleep(Self::PAUSE);
            }
            fs::remove_file(path)?;
            Ok(took)
        });
        Self { ended, thread }
    }

    /// The p99 and the highest of what a sync took, in milliseconds.
    pub fn end(self) -> Result<(f64, f64), String> {
        self.ended.store(true, Ordering::Relaxed);
        let took = self
            .thread
            .join()
            .map_err(|_| "the witness of the disk died")?;
        let mut took = took.map_err(|error| format!("cannot watch the disk: {error}"))?;
        took.sort_by(f64::total_cmp);
        let highest = *took.last().ok_or("the witness of the disk saw no sync")?;
        Ok((took[took.len() * 99 / 100], highest))
    }
}
