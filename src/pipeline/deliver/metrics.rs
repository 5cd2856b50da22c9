//! What all deliverers of a process count.
//!
//! Never here: a label beside the sink's name (a small set, from the settings) and the class of an
//! answer (a small fixed set).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use crate::metrics::{Metrics, seconds_histogram};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SinkLabel {
    pub(super) sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AttemptLabels {
    pub(super) sink: String,
    pub(super) class: &'static str,
}

/// The metrics of all deliverers of a process: made once, shared by cloning.
#[derive(Debug, Clone)]
pub struct DeliveryMetrics {
    pub(super) attempts: Family<AttemptLabels, Counter>,
    pub(super) duration: Family<SinkLabel, Histogram, fn() -> Histogram>,
    pub(super) breaker_open: Family<SinkLabel, Gauge>,
    pub(super) behind: Family<SinkLabel, Gauge>,
    pub(super) parked: Family<SinkLabel, Gauge>,
    pub(super) dead_letters: Family<SinkLabel, Counter>,
    pub(super) superseded: Family<SinkLabel, Counter>,
}

impl DeliveryMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            attempts: Family::default(),
            duration: Family::new_with_constructor(seconds_histogram),
            breaker_open: Family::default(),
            behind: Family::default(),
            parked: Family::default(),
            dead_letters: Family::default(),
            superseded: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "sink_deliveries",
                "Attempts to send an event to a sink, by the class of the answer",
                own.attempts.clone(),
            );
            registry.register_with_unit(
                "sink_delivery_duration",
                "Time from sending an event to the sink's answer",
                Unit::Seconds,
                own.duration.clone(),
            );
            registry.register(
                "sink_breaker_open",
                "1 while the sink is not well and only probed",
                own.breaker_open.clone(),
            );
            registry.register(
                "sink_behind_events",
                "Places between the sink's cursor and the newest event",
                own.behind.clone(),
            );
            registry.register(
                "sink_parked_events",
                "Events kept apart because their entity is stuck at the sink",
                own.parked.clone(),
            );
            registry.register(
                "sink_dead_letters",
                "Events that the sink refused or that used up their attempts",
                own.dead_letters.clone(),
            );
            registry.register(
                "sink_superseded_events",
                "Events not sent because a newer one of their entity follows",
                own.superseded.clone(),
            );
        });
        own
    }
}
