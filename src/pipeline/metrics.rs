//! What the pipeline counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::{Metrics, seconds_histogram};

/// Entity type and outcome: 7 × 9.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FetchLabels {
    pub(super) entity: &'static str,
    pub(super) outcome: &'static str,
}

/// Entity type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EventLabels {
    pub(super) entity: &'static str,
}

/// The pipeline's metrics.
#[derive(Debug, Clone)]
pub(super) struct PipelineMetrics {
    /// Settled fetches.
    pub(super) fetches: Family<FetchLabels, Counter>,
    /// Committed events.
    pub(super) events: Family<EventLabels, Counter>,
    /// Waits for a permit.
    pub(super) budget_wait: Histogram,
    /// From claim to settlement.
    pub(super) work: Histogram,
    /// From the oldest notification behind a mark to the commit of its event.
    pub(super) lag: Histogram,
    /// Settlements that changed nothing, because the claim was taken over.
    pub(super) stale: Counter,
    /// Settlements or claims that the store could not do for the moment.
    pub(super) store_retries: Counter,
    /// 1 while the provider refuses the credentials.
    pub(super) paused: Gauge,
    /// Removals that the guard holds back.
    pub(super) removals_held: Gauge,
    /// Entities marked by the resync.
    pub(super) resync_marks: Counter,
    /// Completed resyncs.
    pub(super) resyncs: Counter,
}

impl PipelineMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            fetches: Family::default(),
            events: Family::default(),
            budget_wait: seconds_histogram(),
            work: seconds_histogram(),
            lag: seconds_histogram(),
            stale: Counter::default(),
            store_retries: Counter::default(),
            paused: Gauge::default(),
            removals_held: Gauge::default(),
            resync_marks: Counter::default(),
            resyncs: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "pipeline_fetches",
                "Settled fetches by entity type and outcome",
                own.fetches.clone(),
            );
            registry.register(
                "pipeline_events",
                "Events committed to the outbox, by entity type",
                own.events.clone(),
            );
            registry.register(
                "pipeline_budget_wait_seconds",
                "Wait for the request budget",
                own.budget_wait.clone(),
            );
            registry.register(
                "pipeline_work_seconds",
                "From the claim of an entity to its settlement",
                own.work.clone(),
            );
            registry.register(
                "pipeline_commit_lag_seconds",
                "From the oldest notification behind a mark to the commit of its event",
                own.lag.clone(),
            );
            registry.register(
                "pipeline_stale_claims",
                "Settlements refused because the claim was taken over",
                own.stale.clone(),
            );
            registry.register(
                "pipeline_store_retries",
                "Calls to the store that were tried again",
                own.store_retries.clone(),
            );
            registry.register(
                "pipeline_credentials_refused",
                "1 while the provider refuses the credentials and fetching is paused",
                own.paused.clone(),
            );
            registry.register(
                "pipeline_removals_held",
                "Removals that the guard holds back",
                own.removals_held.clone(),
            );
            registry.register(
                "pipeline_resync_marks",
                "Entities marked by the resync",
                own.resync_marks.clone(),
            );
            registry.register("pipeline_resyncs", "Completed resyncs", own.resyncs.clone());
        });
        own
    }
}
