//! What the engine measures of itself.
//!
//! Never here: a label, a number that only a scan of the store could give.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Metrics;

/// Metrics of the engine.
#[derive(Debug, Clone)]
pub(super) struct Writes {
    pub(super) commit_seconds: Histogram,
    pub(super) batch: Histogram,
    checkpoint_seconds: Histogram,
    pub(super) wal_bytes: Gauge,
    pub(super) used_bytes: Gauge,
    pub(super) limit_bytes: Gauge,
    pub(super) marks: Gauge,
    pub(super) full: Counter,
    pub(super) dropped: Counter,
}

impl Writes {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let sizes = || Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]);
        let writes = Self {
            commit_seconds: crate::metrics::seconds_histogram(),
            batch: sizes(),
            checkpoint_seconds: crate::metrics::seconds_histogram(),
            wal_bytes: Gauge::default(),
            used_bytes: Gauge::default(),
            limit_bytes: Gauge::default(),
            marks: Gauge::default(),
            full: Counter::default(),
            dropped: Counter::default(),
        };
        metrics.register(|registry| {
            let store = registry.sub_registry_with_prefix("store");
            store.register(
                "commit_seconds",
                "Time of one durable commit",
                writes.commit_seconds.clone(),
            );
            store.register(
                "commit_calls",
                "Calls that shared one commit",
                writes.batch.clone(),
            );
            store.register(
                "checkpoint_seconds",
                "Time of one checkpoint beside the writer",
                writes.checkpoint_seconds.clone(),
            );
            store.register(
                "wal_bytes",
                "Bytes of the write-ahead log in use",
                writes.wal_bytes.clone(),
            );
            store.register(
                "used_bytes",
                "Bytes of the store in use",
                writes.used_bytes.clone(),
            );
            store.register(
                "limit_bytes",
                "Bytes that the store may use",
                writes.limit_bytes.clone(),
            );
            store.register("marks", "Entities to look at", writes.marks.clone());
            store.register("full", "Commits that found no space", writes.full.clone());
            store.register(
                "dead_letters_dropped",
                "Dead letters dropped before their time, for lack of space",
                writes.dropped.clone(),
            );
        });
        writes
    }

    pub(super) fn observe_checkpoint(&self, took: Duration) {
        self.checkpoint_seconds.observe(took.as_secs_f64());
    }
}
