//! The metric registry of a process and the conventions all metrics follow.
//!
//! Owns: the prefix `bellhop_`, base units (seconds, bytes), shared buckets, and the text that
//! `/metrics` answers. Each module defines its own metrics struct and registers it here once.
//!
//! Never here: a label whose values are not a small fixed set (no entity, URL, object name or
//! error text), and no value that comes from an unverified body.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The process's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty registry with the prefix `bellhop`.
    pub fn new() -> Self {
        Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("bellhop"))),
        }
    }

    /// Lets a module register its metrics. Names carry no `_total`: the encoder adds it.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The exposition text in Prometheus' own format 0.0.4, which every tool reads. It differs from
    /// OpenMetrics in that a counter is described under its full name, and has no end mark.
    pub fn encode_plain(&self) -> String {
        let text = self.encode();
        let counters: std::collections::HashSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
            .collect();
        let mut plain = String::with_capacity(text.len() + 64 * counters.len());
        for line in text
            .lines()
            .filter(|line| *line != "# EOF" && !line.starts_with("# UNIT "))
        {
            let described = line
                .strip_prefix("# HELP ")
                .or_else(|| line.strip_prefix("# TYPE "))
                .and_then(|rest| rest.split_once(' '));
            match described {
                Some((name, rest)) if counters.contains(name) => {
                    plain.push_str(&line[..7]);
                    plain.push_str(name);
                    plain.push_str("_total ");
                    plain.push_str(rest);
                }
                _ => plain.push_str(line),
            }
            plain.push('\n');
        }
        plain
    }

    /// The exposition text, OpenMetrics 1.0.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A histogram of seconds with buckets from 0.5 ms to 60 s: accepts, calls out, deliveries.
pub fn seconds_histogram() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ])
}
