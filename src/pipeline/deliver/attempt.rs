//! One attempt to send one event, and what its answer leads to.
//!
//! Owns: the consequence of each [`Verdict`] for the event's lane, the breaker, the status and the
//! metrics, and how long a failed event waits. Never here: which event goes next; a commit.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::lanes::Entry;
use super::metrics::AttemptLabels;
use super::{Run, STORE_RETRY};
use crate::api::EntityKey;
use crate::clock::Ticks;
use crate::publish::{Class, Verdict};
use crate::settings::{BackoffPolicy, DeliverySettings};
use crate::state::{Revision, StateError};

/// No attempt waits longer than this for its turn.
const LONGEST_BACKOFF: Duration = Duration::from_mins(10);
/// A sink that was not well is asked again after this at the latest.
const LONGEST_NOT_WELL: Duration = Duration::from_mins(1);

/// One event was tried.
pub(super) struct Sent {
    key: EntityKey,
    started: Ticks,
    result: Result<Option<(Revision, Verdict)>, StateError>,
}

impl Run {
    pub(super) fn send(&self, key: EntityKey, entry: Entry) -> BoxFuture<'static, Sent> {
        let state = self.deliverer.state.clone();
        let clock = self.deliverer.clock.clone();
        let sink = self.deliverer.sink.clone();
        let limit = self.deliverer.settings.delivery.timeout;
        Box::pin(async move {
            let started = clock.ticks();
            let event = match entry.event {
                Some(event) => Ok(Some(event)),
                None => state
                    .event(entry.sequence)
                    .await
                    .map(|found| found.map(Arc::new)),
            };
            let result = match event {
                Ok(Some(event)) => {
                    let verdict = tokio::select! {
                        biased;
                        verdict = sink.send(&event) => verdict,
                        () = clock.sleep(limit) => Verdict::NotWell {
                            class: Class::Timeout,
                            retry_after: None,
                        },
                    };
                    Ok(Some((event.revision, verdict)))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            Sent {
                key,
                started,
                result,
            }
        })
    }

    /// Draws the consequences of one answer.
    pub(super) fn judge(&mut self, sent: Sent) -> Result<(), StateError> {
        let Sent {
            key,
            started,
            result,
        } = sent;
        let now = self.deliverer.clock.ticks();
        let (revision, verdict) = match result {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                let superseded = &self.deliverer.metrics.superseded;
                superseded.get_or_create(&self.deliverer.label()).inc();
                self.lanes.finish(&key, None);
                return Ok(());
            }
            Err(StateError::Full(_) | StateError::Busy(_)) => {
                self.lanes.fail(&key, false, |_| now.after(STORE_RETRY));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.count(verdict.class(), now.since(started));
        let delivery = self.deliverer.settings.delivery.clone();
        let wait = |limit: Duration| {
            let delivery = &delivery;
            move |failures: u32| now.after(backoff(delivery, failures, fastrand::f64()).min(limit))
        };
        match verdict {
            Verdict::Delivered => {
                let convicted = self.lanes.convict(&key, started);
                self.lanes.finish(&key, Some(revision));
                self.well(started);
                for (other, attempts) in convicted {
                    // One more than `retry` + 1: a single outage never buries anything.
                    if attempts > delivery.retry.saturating_add(1) && !self.lanes.is_sending(&other)
                    {
                        let reason =
                            format!("the sink failed on it {attempts} times while it took others");
                        self.bury(&other, reason);
                    }
                }
            }
            Verdict::NotWell { class, retry_after } => {
                self.lanes.fail(&key, false, wait(LONGEST_NOT_WELL));
                if class.may_be_the_event() && retry_after.is_none() {
                    self.lanes.suspect(&key, now);
                } else {
                    self.lanes.acquit();
                }
                if self
                    .breaker
                    .failure(&key, now, retry_after, fastrand::f64())
                {
                    tracing::warn!(
                        sink = self.deliverer.settings.name,
                        class = class.as_str(),
                        "the sink is not well: nothing is lost, it is probed until it is well again"
                    );
                    self.turn(false);
                }
            }
            Verdict::Refused { reason, .. } => {
                self.bury(&key, reason);
                self.well(started);
            }
            Verdict::Failed { reason, .. } => {
                let attempts = self.lanes.fail(&key, true, wait(LONGEST_BACKOFF));
                if attempts > delivery.retry {
                    self.bury(&key, format!("{reason}, {attempts} times"));
                }
                self.well(started);
            }
        }
        Ok(())
    }

    fn well(&mut self, started: Ticks) {
        if self.breaker.success(started) {
            tracing::info!(
                sink = self.deliverer.settings.name,
                "the sink is well again"
            );
            self.lanes.wake_innocent();
            self.turn(true);
        } else if !self.breaker.is_open() && self.deliverer.status.borrow().since.is_none() {
            self.turn(true);
        }
    }

    fn turn(&self, well: bool) {
        let now = self.deliverer.clock.now();
        self.deliverer.status.send_modify(|status| {
            status.well = well;
            status.since = Some(now);
        });
        let open = &self.deliverer.metrics.breaker_open;
        open.get_or_create(&self.deliverer.label())
            .set(i64::from(!well));
    }

    fn bury(&mut self, key: &EntityKey, reason: String) {
        tracing::warn!(
            sink = self.deliverer.settings.name,
            entity = %key,
            reason,
            "an event became a dead letter"
        );
        self.lanes.bury(key, reason);
        let dead_letters = &self.deliverer.metrics.dead_letters;
        dead_letters.get_or_create(&self.deliverer.label()).inc();
        self.deliverer
            .status
            .send_modify(|status| status.dead_letters += 1);
    }

    fn count(&self, class: Class, took: Duration) {
        let metrics = &self.deliverer.metrics;
        let labels = AttemptLabels {
            sink: self.deliverer.settings.name.clone(),
            class: class.as_str(),
        };
        metrics.attempts.get_or_create(&labels).inc();
        metrics
            .duration
            .get_or_create(&self.deliverer.label())
            .observe(took.as_secs_f64());
        if class != Class::Delivered {
            self.deliverer
                .status
                .send_modify(|status| status.last_error = Some(class));
        }
    }
}

/// How long the failed head of a lane waits: the delivery spec's delay, give or take a fifth.
/// `failures` starts at 1; `jitter` is in 0..1.
fn backoff(delivery: &DeliverySettings, failures: u32, jitter: f64) -> Duration {
    let step = match delivery.backoff_policy {
        BackoffPolicy::Exponential => 1_u32 << failures.saturating_sub(1).min(20),
        BackoffPolicy::Linear => failures,
    };
    delivery
        .backoff_delay
        .saturating_mul(step)
        .min(LONGEST_BACKOFF)
        .mul_f64(0.8 + 0.4 * jitter)
}
