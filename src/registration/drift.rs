//! The loop: a pass at once, then one per interval, sooner after trouble or when asked.
//!
//! Owns: when a pass runs, and the newest report. Never here: what a pass does; two passes at once.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::execute::Executor;
use super::plan::DesiredRules;
use super::report::Report;
use crate::clock::{Clock, UnixMillis};

/// The first delay after a pass that ended in trouble; it doubles up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// The newest pass, for `/status` and conditions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// What it found and did.
    pub report: Report,
    /// `7/7`.
    pub registered: String,
    /// When the next one is due.
    pub next_check: UnixMillis,
}

/// The loop that keeps rules right.
pub struct DriftCheck {
    executor: Executor,
    clock: Arc<dyn Clock>,
    desired: watch::Receiver<Arc<DesiredRules>>,
    interval: Duration,
    asked: Arc<Notify>,
    status: watch::Sender<Option<Arc<Status>>>,
}

/// Asks for a pass, and shows the newest one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    asked: Arc<Notify>,
    status: watch::Receiver<Option<Arc<Status>>>,
}

impl Handle {
    /// A pass soon, also while one is running: then another one after it.
    pub fn check_now(&self) {
        self.asked.notify_one();
    }

    /// The newest pass; `None` before the first one has ended.
    pub fn status(&self) -> Option<Arc<Status>> {
        self.status.borrow().clone()
    }

    /// Tells of each pass.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Status>>> {
        self.status.clone()
    }
}

impl DriftCheck {
    /// A loop over `executor`; `interval` is `registration.driftCheckInterval`. A new value in
    /// `desired` ends the running pass and starts another.
    pub fn new(
        executor: Executor,
        clock: Arc<dyn Clock>,
        desired: watch::Receiver<Arc<DesiredRules>>,
        interval: Duration,
    ) -> (Self, Handle) {
        let asked = Arc::new(Notify::new());
        let (status, newest) = watch::channel(None);
        let handle = Handle {
            asked: asked.clone(),
            status: newest,
        };
        let own = Self {
            executor,
            clock,
            desired,
            interval,
            asked,
            status,
        };
        (own, handle)
    }

    /// Runs until `token` is cancelled. A pass may be dropped at any await: the next one, also one
    /// of another process, goes on from what is there.
    pub async fn run(mut self, token: CancellationToken) {
        let mut troubles = 0;
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let report = tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = changed(&mut self.desired) => continue,
                report = self.executor.reconcile(&desired) => report,
            };
            troubles = if report.should_retry() {
                troubles + 1
            } else {
                0
            };
            let delay = self.delay(troubles, report.retry_after);
            self.publish(report, delay);
            tokio::select! {
                () = token.cancelled() => return,
                () = changed(&mut self.desired) => {}
                () = self.asked.notified() => {}
                () = self.clock.sleep(delay) => {}
            }
        }
    }

    /// The interval, or after trouble a delay that doubles up to it; never sooner than the provider
    /// asks.
    fn delay(&self, troubles: u32, retry_after: Option<Duration>) -> Duration {
        let base = match troubles.checked_sub(1) {
            None => self.interval,
            Some(doublings) => FIRST_RETRY
                .saturating_mul(2_u32.saturating_pow(doublings))
                .min(self.interval),
        };
        // A provider that asks for more than a day is not obeyed beyond it.
        let asked = retry_after
            .unwrap_or_default()
            .min(Duration::from_hours(24));
        jittered(base).max(asked)
    }

    fn publish(&self, report: Report, delay: Duration) {
        let verdict = report.verdict();
        if report.is_complete() {
            tracing::debug!(registered = %report.registered(), "registration checked");
        } else {
            tracing::warn!(
                registered = %report.registered(),
                reason = verdict.reason.as_str(),
                next_check_seconds = delay.as_secs(),
                "registration incomplete: {}", verdict.message
            );
        }
        self.status.send_replace(Some(Arc::new(Status {
            registered: report.registered(),
            next_check: self.clock.now().after(delay),
            report,
        })));
    }
}

/// Another value is wanted. Never returns once nobody can want one any more.
async fn changed(desired: &mut watch::Receiver<Arc<DesiredRules>>) {
    if desired.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The interval with a tenth of jitter, so that many subscriptions do not ask in step.
pub fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
