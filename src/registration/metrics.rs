//! Counters and gauges of registration. Labels: the seven types, the action names, two outcomes,
//! the six phases.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::report::{Phase, Report};
use crate::api::NotificationType;
use crate::metrics::Metrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    r#type: &'static str,
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// What registration counts.
#[derive(Debug, Clone)]
pub struct RegistrationMetrics {
    actions: Family<ActionLabels, Counter>,
    drift: Family<TypeLabels, Counter>,
    /// `None` where many subscriptions share these metrics: the last pass of one of them says
    /// nothing of the others.
    rules: Option<Family<PhaseLabels, Gauge>>,
    passes: Counter,
}

impl RegistrationMetrics {
    /// Registers them, for a process with one subscription.
    pub fn new(metrics: &Metrics) -> Self {
        Self::register(metrics, Some(Family::default()))
    }

    /// Registers them, for a process with many subscriptions, which share them.
    pub fn shared(metrics: &Metrics) -> Self {
        Self::register(metrics, None)
    }

    fn register(metrics: &Metrics, rules: Option<Family<PhaseLabels, Gauge>>) -> Self {
        let own = Self {
            actions: Family::default(),
            drift: Family::default(),
            rules,
            passes: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "registration_actions",
                "Steps taken on rules at the provider, by type, action and outcome",
                own.actions.clone(),
            );
            registry.register(
                "registration_drift",
                "Passes that found a registered rule other than wanted, by type",
                own.drift.clone(),
            );
            if let Some(rules) = &own.rules {
                registry.register(
                    "registration_rules",
                    "Rules by phase, as of the last pass",
                    rules.clone(),
                );
            }
            registry.register(
                "registration_passes",
                "Passes over all rules",
                own.passes.clone(),
            );
        });
        own
    }

    pub(super) fn did(&self, kind: NotificationType, action: &'static str, done: bool) {
        self.actions
            .get_or_create(&ActionLabels {
                r#type: kind.segment(),
                action,
                outcome: if done { "ok" } else { "failed" },
            })
            .inc();
    }

    pub(super) fn drifted(&self, kind: NotificationType) {
        self.drift
            .get_or_create(&TypeLabels {
                r#type: kind.segment(),
            })
            .inc();
    }

    pub(super) fn passed(&self, report: &Report) {
        self.passes.inc();
        let Some(rules) = &self.rules else {
            return;
        };
        for phase in Phase::ALL {
            let count = report.rules.values().filter(|rule| rule.phase == phase);
            rules
                .get_or_create(&PhaseLabels {
                    phase: phase.as_str(),
                })
                .set(i64::try_from(count.count()).unwrap_or(i64::MAX));
        }
    }
}
