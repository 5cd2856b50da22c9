//! What the operator counts. Labels are small fixed sets: verbs, outcomes, reasons; never a name.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::{Metrics, seconds_histogram};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// What the operator counts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    reconciles: Family<OutcomeLabels, Counter>,
    reconcile_seconds: Histogram,
    errors: Family<ReasonLabels, Counter>,
    waiting: Gauge,
    running: Gauge,
    leading: Gauge,
    subscriptions: Gauge,
    receivers_wanted: Gauge,
    not_ready: Family<ReasonLabels, Gauge>,
    undecodable: Gauge,
    watch_errors: Family<KindLabels, Counter>,
    rotation_gap: Histogram,
    receiver_answers: Family<OutcomeLabels, Counter>,
    rollouts_running: Gauge,
    rollouts_waiting: Gauge,
    rollouts_given_up: Counter,
}

impl ControllerMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(seconds_histogram),
            reconciles: Family::default(),
            reconcile_seconds: seconds_histogram(),
            errors: Family::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            leading: Gauge::default(),
            subscriptions: Gauge::default(),
            receivers_wanted: Gauge::default(),
            not_ready: Family::default(),
            undecodable: Gauge::default(),
            watch_errors: Family::default(),
            rotation_gap: seconds_histogram(),
            receiver_answers: Family::default(),
            rollouts_running: Gauge::default(),
            rollouts_waiting: Gauge::default(),
            rollouts_given_up: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "kubernetes_requests",
                "Requests to the API server, by verb and how they ended",
                own.calls.clone(),
            );
            registry.register(
                "kubernetes_request_duration_seconds",
                "Time of a request to the API server until its answer began",
                own.call_seconds.clone(),
            );
            registry.register(
                "operator_reconciles",
                "Reconciles, by outcome; unchanged ones made no call",
                own.reconciles.clone(),
            );
            registry.register(
                "operator_reconcile_duration_seconds",
                "Time of a reconcile that did something",
                own.reconcile_seconds.clone(),
            );
            registry.register(
                "operator_reconcile_errors",
                "Reconciles that will be tried again, by reason",
                own.errors.clone(),
            );
            registry.register(
                "operator_queue_waiting",
                "Subscriptions that wait to be reconciled now",
                own.waiting.clone(),
            );
            registry.register(
                "operator_queue_running",
                "Subscriptions that are being reconciled",
                own.running.clone(),
            );
            registry.register(
                "operator_leader",
                "1 while this operator holds the lease",
                own.leading.clone(),
            );
            registry.register(
                "operator_subscriptions",
                "Subscriptions that this operator knows",
                own.subscriptions.clone(),
            );
            registry.register(
                "operator_receivers_wanted",
                "Subscriptions that this operator runs receivers for",
                own.receivers_wanted.clone(),
            );
            registry.register(
                "operator_subscriptions_not_ready",
                "Subscriptions whose condition Ready is not true, by its reason",
                own.not_ready.clone(),
            );
            registry.register(
                "operator_undecodable_subscriptions",
                "Subscriptions that this version cannot read",
                own.undecodable.clone(),
            );
            registry.register(
                "operator_watch_errors",
                "Watches that broke and were begun again, by kind",
                own.watch_errors.clone(),
            );
            registry.register(
                "operator_rotation_gap_seconds",
                "Time without a live rule while a key was rotated",
                own.rotation_gap.clone(),
            );
            registry.register(
                "operator_receiver_answers",
                "Receivers that were asked how they are, by what came of it",
                own.receiver_answers.clone(),
            );
            registry.register(
                "operator_rollouts_running",
                "Subscriptions whose receivers are being replaced",
                own.rollouts_running.clone(),
            );
            registry.register(
                "operator_rollouts_waiting",
                "Subscriptions whose receivers wait to be replaced",
                own.rollouts_waiting.clone(),
            );
            registry.register(
                "operator_rollouts_given_up",
                "Rollouts that came to no end within ten minutes",
                own.rollouts_given_up.clone(),
            );
        });
        own
    }

    pub(super) fn called(&self, verb: &'static str, outcome: &'static str, took: Duration) {
        self.calls
            .get_or_create(&CallLabels { verb, outcome })
            .inc();
        if verb != "watch" {
            let took = took.as_secs_f64();
            let labels = VerbLabels { verb };
            self.call_seconds.get_or_create(&labels).observe(took);
        }
    }

    pub(super) fn reconciled(&self, outcome: &'static str, took: Option<Duration>) {
        self.reconciles
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
        if let Some(took) = took {
            self.reconcile_seconds.observe(took.as_secs_f64());
        }
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn queue(&self, waiting: usize, running: usize) {
        self.waiting.set(waiting as i64);
        self.running.set(running as i64);
    }

    pub(super) fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    pub(super) fn known(&self, subscriptions: usize, undecodable: usize) {
        self.subscriptions.set(subscriptions as i64);
        self.undecodable.set(undecodable as i64);
    }

    pub(super) fn receivers_wanted(&self, subscriptions: usize) {
        self.receivers_wanted.set(subscriptions as i64);
    }

    /// By reason. What is not named is none.
    pub(super) fn not_ready(&self, counts: &BTreeMap<&'static str, i64>) {
        self.not_ready.clear();
        for (reason, count) in counts {
            let labels = ReasonLabels { reason };
            self.not_ready.get_or_create(&labels).set(*count);
        }
    }

    pub(super) fn rollout_given_up(&self) {
        self.rollouts_given_up.inc();
    }

    pub(super) fn watch_broke(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabels { kind }).inc();
    }

    pub(super) fn asked_receiver(&self, outcome: &'static str) {
        self.receiver_answers
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    pub(super) fn rollouts(&self, (running, waiting): (usize, usize)) {
        self.rollouts_running.set(running as i64);
        self.rollouts_waiting.set(waiting as i64);
    }

    pub(super) fn rotated(&self, gap: Duration) {
        self.rotation_gap.observe(gap.as_secs_f64());
    }
}
