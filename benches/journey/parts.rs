//! The parts of a run, and what they share.
//!
//! Owns: their order, and the folder that they work in. Never here: a measurement.

mod accept;
mod burst;
mod consume;
mod memory;
mod operator;
mod steady;
mod store;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::answered::Answered;
use crate::arguments::argument;
use crate::plot::Axis;
use crate::process::{Core, Process};
use crate::report::Report;
use crate::roles::text;
use crate::stores::Stores;

/// One part.
pub struct Part {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&mut Run) -> Result<(), String>,
}

/// All parts in order.
pub const PARTS: &[Part] = &[
    Part {
        name: "accept",
        about: "durable accept at 1, 16, 64, 256 connections against bare axum and raw fsync",
        run: accept::run,
    },
    Part {
        name: "store",
        about: "accept, start and size as the store grows to a million entities",
        run: store::run,
    },
    Part {
        name: "memory",
        about: "idle, and with 100,000 entities at 1,000 notifications a second",
        run: memory::run,
    },
    Part {
        name: "burst",
        about: "10,000 notifications for one entity within a second",
        run: burst::run,
    },
    Part {
        name: "consumer",
        about: "from notification to consumer at 500 a second",
        run: consume::run,
    },
    Part {
        name: "steady",
        about: "ten minutes at half load: latency and growth",
        run: steady::run,
    },
    Part {
        name: "operator",
        about: "the operator on a real API server: 1,000 subscriptions, and 10,000",
        run: operator::run,
    },
];

/// What parts share.
pub struct Run {
    pub quick: bool,
    pub stores: Stores,
    pub work: PathBuf,
    pub report: Report,
}

impl Run {
    /// An empty folder to work in.
    pub fn clean(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&self.work)
    }

    /// The full run's number, or the quick one's.
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// A load: who is sent what.
pub struct Shot {
    pub address: SocketAddr,
    pub connections: usize,
    pub seconds: f64,
    /// `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// Names entities: `random=…` or `from=…`.
    pub names: Vec<String>,
    pub at_most: Option<u64>,
}

impl Shot {
    /// As arguments of a role.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            argument("address", self.address),
            argument("connections", self.connections),
            argument("seconds", self.seconds),
        ];
        arguments.extend(self.names.iter().cloned());
        arguments.extend(self.rate.map(|rate| argument("rate", rate)));
        arguments.extend(self.at_most.map(|most| argument("at-most", most)));
        arguments
    }

    /// Starts it, without waiting.
    pub fn start(&self) -> Result<Process, String> {
        Process::role("load", Core::Load, &self.arguments()).map_err(text)
    }

    /// Sends it, and waits for what came of it: each answer must be a 200.
    pub fn fire(&self) -> Result<Answered, String> {
        finished(self.start()?)
    }
}

/// What a started load found.
pub fn finished(load: Process) -> Result<Answered, String> {
    let answered = read(load)?;
    if answered.other > 0 {
        return Err(format!(
            "{} of {} answers were no 200",
            answered.other,
            answered.other + answered.ok
        ));
    }
    Ok(answered)
}

/// The one line of a load or a consumer, and its end.
fn read(mut process: Process) -> Result<Answered, String> {
    let line = process.line().map_err(text)?;
    let answered = serde_json::from_str(&line).map_err(text)?;
    process.end().map_err(text)?;
    Ok(answered)
}

/// Microseconds of CPU per answer.
pub fn cpu_micros(
    before: std::time::Duration,
    after: std::time::Duration,
    answered: &Answered,
) -> f64 {
    after.saturating_sub(before).as_secs_f64() * 1e6 / answered.ok.max(1) as f64
}

/// Starts a consumer that also sends the load, and waits for what it found.
pub fn consume(
    shot: &Shot,
    feed: SocketAddr,
    begin: Option<SocketAddr>,
    after: f64,
) -> Result<Answered, String> {
    let mut arguments = shot.arguments();
    arguments.push(argument("feed", feed));
    arguments.push(argument("after", after));
    arguments.extend(begin.map(|provider| argument("begin", provider)));
    read(Process::role("consumer", Core::Load, &arguments).map_err(text)?)
}

/// The quantiles that are plotted, evenly.
pub fn quantiles() -> Axis {
    let places = [
        0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0,
    ];
    let label = |quantile: f64| match quantile {
        q if q >= 1.0 => "max".to_owned(),
        q => format!("p{}", (q * 1_000_000.0).round() / 10_000.0),
    };
    Axis::Places(
        places
            .iter()
            .map(|&quantile| (quantile, label(quantile)))
            .collect(),
    )
}

/// The points of a latency line.
pub fn tail(answered: &Answered) -> Vec<(f64, f64)> {
    let Axis::Places(places) = quantiles() else {
        return Vec::new();
    };
    places
        .iter()
        .map(|(quantile, _)| (*quantile, answered.quantile(*quantile)))
        .collect()
}
