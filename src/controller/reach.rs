//! Whether a subscription's URL is reachable: what the probes have found so far.
//!
//! Owns: who is probed with which key, the reason that the condition Reachable then has, and
//! whether rules must wait for it (`reachability: Require`). The probes themselves, and how often
//! they are sent, are [`crate::registration::probe`]'s.
//!
//! Never here: a wait for a probe within a pass; a live rule that is disabled because a probe
//! failed (what holds, holds only what is not live yet); a rule that goes live with `Require` when
//! nobody probes.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::fleet::Key;
use crate::api::v1alpha1::{Reachability, WebhookSubscription};
use crate::api::{Condition, ConditionType, Reason};
use crate::clock::Clock;
use crate::registration::probe::Prober;
use crate::registration::probe::rounds::{Rounds, Subject};
use crate::registration::{DesiredRules, Mode};
use crate::secrets::Secret;

/// What is known of one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// What the condition Reachable says.
    pub reason: Reason,
    /// Nothing may go live until the URL is reachable.
    pub holds: bool,
}

/// See the module.
pub struct Reach {
    rounds: Option<Arc<Rounds>>,
}

impl Reach {
    /// Probes with this prober; `None`: nobody probes.
    pub fn new(prober: Option<Prober>, clock: Arc<dyn Clock>) -> Self {
        Self {
            rounds: prober.map(|prober| Arc::new(Rounds::new(prober, clock))),
        }
    }

    /// Has the URL probed from now on, as the spec says, and tells what is known.
    pub fn look(
        &self,
        key: &Key,
        subscription: &WebhookSubscription,
        desired: &DesiredRules,
        probe: Option<&Secret>,
    ) -> Looked {
        let wanted = subscription.spec.registration.reachability;
        if !probes(desired.mode, wanted) {
            self.forget(key);
            return Looked {
                reason: Reason::ProbeOff,
                holds: false,
            };
        }
        let before = found_before(subscription);
        // All rules of a subscription share host and path prefix: one of them stands for all.
        let kind = desired.rules.keys().next();
        let reason = match (&self.rounds, kind, probe) {
            (Some(rounds), Some(kind), Some(probe)) => {
                let subject = Subject {
                    rule_url: desired.rule_url(*kind),
                    key: probe.clone(),
                };
                rounds.want(&key.to_string(), subject, before)
            }
            _ => before.unwrap_or(Reason::ProbePending),
        };
        Looked {
            reason,
            holds: wanted == Reachability::Require && reason != Reason::Reachable,
        }
    }

    /// What is known of one that is probed.
    pub fn shown(&self, key: &Key) -> Option<Reason> {
        self.rounds.as_ref()?.shown(&key.to_string())
    }

    /// Has it probed at once.
    pub fn again(&self, key: &Key) {
        if let Some(rounds) = &self.rounds {
            rounds.again(&key.to_string());
        }
    }

    /// Has it probed no more.
    pub fn forget(&self, key: &Key) {
        if let Some(rounds) = &self.rounds {
            rounds.forget(&key.to_string());
        }
    }

    /// Sends the probes until `token` is cancelled; `changed` hears of each subscription whose URL
    /// is believed to be something else. A vital task.
    ///
    /// # Errors
    /// When the probes cannot go on.
    pub async fn run(
        &self,
        changed: impl Fn(Key) + Send + Sync,
        token: CancellationToken,
    ) -> Result<(), String> {
        let Some(rounds) = &self.rounds else {
            token.cancelled().await;
            return Ok(());
        };
        let named = |id: &str| {
            if let Some((namespace, name)) = id.split_once('/') {
                changed(Key {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                });
            }
        };
        rounds.clone().run(named, token).await
    }
}

/// Whether a URL is probed. An observer writes no Secret, so its receivers have no key.
pub fn probes(mode: Mode, wanted: Reachability) -> bool {
    mode == Mode::Manage && wanted != Reachability::Off
}

/// What a probe of this spec's URL found, as far as the status tells. What was found for another
/// generation of the spec may be about another URL.
pub fn found_before(subscription: &WebhookSubscription) -> Option<Reason> {
    let status = subscription.status.as_ref()?;
    let said = status.condition(ConditionType::Reachable)?;
    let reason = Reason::parse(&said.reason)?;
    let kind = Condition::of(reason).kind;
    let of_probe = kind == ConditionType::Reachable && reason != Reason::ProbeOff;
    let of_this = said.observed_generation == subscription.metadata.generation;
    (of_probe && of_this).then_some(reason)
}
