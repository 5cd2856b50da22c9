//! What the load and the consumer found, on its way from their process to the bench.
//!
//! Owns: the one line of JSON. Never here: a mean; latencies are told by quantile.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The quantiles that are kept: what is plotted and what has a target.
const QUANTILES: [f64; 15] = [
    0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0,
];

/// See the module documentation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// Answers with status 200, or events that came.
    pub ok: u64,
    /// All others, or notifications without an event.
    pub other: u64,
    /// From first to last.
    pub seconds: f64,
    /// Quantile and latency in milliseconds.
    pub latency: Vec<(f64, f64)>,
    /// Consumer only: the last version it saw.
    pub last_version: Option<u64>,
}

impl Answered {
    /// From a histogram of microseconds.
    pub fn new(ok: u64, other: u64, elapsed: Duration, latency: &Histogram<u64>) -> Self {
        let millis = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            ok,
            other,
            seconds: elapsed.as_secs_f64(),
            latency: QUANTILES.iter().map(|&q| (q, millis(q))).collect(),
            last_version: None,
        }
    }

    /// 200s per second.
    pub fn rate(&self) -> f64 {
        self.ok as f64 / self.seconds
    }

    /// A quantile of the latency, in milliseconds.
    pub fn quantile(&self, quantile: f64) -> f64 {
        self.latency
            .iter()
            .find(|(kept, _)| *kept >= quantile)
            .map_or(f64::NAN, |(_, millis)| *millis)
    }

    /// For the process that waits for it.
    pub fn print(&self) -> Result<(), String> {
        let line = serde_json::to_string(self).map_err(|error| error.to_string())?;
        println!("{line}");
        Ok(())
    }
}

/// Microseconds up to two minutes, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds are in order")
}
