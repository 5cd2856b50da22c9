//! What the store holds, as gauges that are worked out when somebody scrapes.
//!
//! Owns: the age of the oldest mark (an age that is written down is wrong a moment later), the
//! entities and the dead letters. Never here: a read of the file; all of it is in memory.

use std::fmt;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::engine::Shown;
use crate::clock::Clock;
use crate::metrics::Metrics;

struct Gauges {
    shown: Arc<Shown>,
    clock: Arc<dyn Clock>,
}

pub(super) fn register(metrics: &Metrics, shown: Arc<Shown>, clock: Arc<dyn Clock>) {
    let gauges = Box::new(Gauges { shown, clock });
    metrics.register(|registry| {
        registry
            .sub_registry_with_prefix("store")
            .register_collector(gauges);
    });
}

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self
            .shown
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let now = self.clock.now();
        let age = stats
            .oldest_mark
            .map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        for (name, help, value) in [
            (
                "oldest_mark_age_seconds",
                "How long the oldest entity to look at has waited; 0 when none waits",
                age,
            ),
            (
                "live_entities",
                "Entities that exist for consumers",
                stats.live_entities as f64,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let help = "Items that gave up and are kept, by where they come from";
        let mut letters =
            encoder.encode_descriptor("dead_letters", help, None, MetricType::Gauge)?;
        for (source, count) in ["notification", "fetch", "sink"]
            .into_iter()
            .zip(stats.dead_letters)
        {
            let labels = [("source", source)];
            ConstGauge::new(count as f64).encode(letters.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
