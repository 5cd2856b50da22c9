//! Which of several operators may write: leader election by a Lease, and the right that every
//! write asks for first.
//!
//! Owns: the timing (lease 10 s, renewed every 2 s, given up after 6 s without success), and
//! [`Leadership`], the only way to learn that a write may start. A write may start only while its
//! time limit and one second more of the lease are left, so that no write of an old leader is still
//! on its way when a new one can have begun.
//!
//! Never here: a write to anything but the Lease; a right that comes back after it was lost (the
//! process ends instead).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::timeout;

use super::metrics::ControllerMetrics;
use crate::clock::{Clock, Ticks};

/// How long others leave the lease alone after it was renewed.
const LEASE: Duration = Duration::from_secs(10);

/// How long a leader that cannot renew goes on trying.
const RENEW_DEADLINE: Duration = Duration::from_secs(6);

/// How often a leader renews and a candidate tries.
const RETRY: Duration = Duration::from_secs(2);

/// How long one call about the lease may take: two tries fit into the renew deadline.
const CALL: Duration = Duration::from_secs(2);

/// What must be left of the lease beyond a write's own time limit.
const MARGIN: Duration = Duration::from_secs(1);

/// The right to write, as of now.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Right {
    /// Without leader election.
    Always,
    /// Until this moment, unless it is renewed.
    Until(Ticks),
    /// Never again.
    Lost,
}

/// This process may not write (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this operator is not the leader any more; another one goes on")]
pub struct NotLeader;

/// What every write to Kubernetes and to the provider asks first. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    right: watch::Receiver<Right>,
    clock: Arc<dyn Clock>,
    /// Keeps the channel open where nobody renews.
    _always: Option<Arc<watch::Sender<Right>>>,
}

impl Leadership {
    /// Without leader election: for an operator that is known to be alone.
    pub fn alone(clock: Arc<dyn Clock>) -> Self {
        let (sender, right) = watch::channel(Right::Always);
        Self {
            right,
            clock,
            _always: Some(Arc::new(sender)),
        }
    }

    /// Returns when a write that takes at most `limit` may start. The caller must stop waiting for
    /// the write's answer after `limit`.
    ///
    /// # Errors
    /// When the lease is lost.
    pub async fn permit(&self, limit: Duration) -> Result<(), NotLeader> {
        let mut right = self.right.clone();
        loop {
            let now = *right.borrow_and_update();
            let end = match now {
                Right::Always => return Ok(()),
                Right::Lost => return Err(NotLeader),
                Right::Until(end) => end,
            };
            let clock = self.clock.ticks();
            if clock.after(limit + MARGIN) <= end {
                return Ok(());
            }
            // Too little is left: the next renewal decides.
            tokio::select! {
                changed = right.changed() => changed.map_err(|_| NotLeader)?,
                () = self.clock.sleep(end.since(clock)) => return Err(NotLeader),
            }
        }
    }
}

/// Why a call about the lease came to nothing.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("another operator holds the lease")]
    Taken,
    #[error("no answer in 2 s")]
    Slow,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What a candidate has seen of the lease, and since when it has not moved.
struct Seen {
    version: Option<String>,
    since: Ticks,
}

/// A candidate for the lease, then its holder.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    right: watch::Sender<Right>,
    seen: Option<Seen>,
    held: Option<Lease>,
    clock: Arc<dyn Clock>,
    metrics: ControllerMetrics,
}

impl Election {
    /// A candidate for the lease `name` in `namespace`. `client` must not be guarded by the
    /// leadership that this makes. `identity` must be this process's own.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        clock: Arc<dyn Clock>,
        metrics: ControllerMetrics,
    ) -> (Self, Leadership) {
        let (sender, right) = watch::channel(Right::Lost);
        let election = Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            right: sender,
            seen: None,
            held: None,
            clock: clock.clone(),
            metrics,
        };
        let leadership = Leadership {
            right,
            clock,
            _always: None,
        };
        (election, leadership)
    }

    /// Returns when the lease is ours. Dropping it is safe.
    pub async fn acquire(&mut self) {
        loop {
            let begun = self.clock.ticks();
            match limited(self.try_acquire()).await {
                Ok(lease) => {
                    self.held = Some(lease);
                    self.right.send_replace(Right::Until(begun.after(LEASE)));
                    self.metrics.leading(true);
                    tracing::info!(lease = %self.name, "this operator leads");
                    return;
                }
                Err(Trouble::Taken) => {}
                Err(error) => {
                    tracing::warn!(%error, lease = %self.name, "cannot try for the lease");
                }
            }
            self.clock.sleep(RETRY).await;
        }
    }

    async fn try_acquire(&mut self) -> Result<Lease, Trouble> {
        let Some(found) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            let params = PostParams::default();
            return written(self.leases.create(&params, &lease).await);
        };
        if !self.may_take(&found) {
            return Err(Trouble::Taken);
        }
        let lease = Lease {
            spec: Some(self.spec(found.spec.as_ref())),
            ..found
        };
        let name = self.name.clone();
        let params = PostParams::default();
        written(self.leases.replace(&name, &params, &lease).await)
    }

    /// Whether the lease is free: released, ours, or not renewed for as long as its holder said,
    /// by our own clock.
    fn may_take(&mut self, found: &Lease) -> bool {
        let spec = found.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        if holder.is_none_or(|holder| holder.is_empty() || holder == self.identity) {
            return true;
        }
        let version = found.metadata.resource_version.clone();
        let now = self.clock.ticks();
        match &self.seen {
            Some(seen) if seen.version == version => {
                let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
                let lasts = seconds.and_then(|seconds| u64::try_from(seconds).ok());
                now.since(seen.since) >= lasts.map_or(LEASE, Duration::from_secs)
            }
            _ => {
                self.seen = Some(Seen {
                    version,
                    since: now,
                });
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = |spec: &LeaseSpec| spec.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.and_then(|spec| spec.lease_transitions);
        let (acquired, transitions) = match before {
            Some(spec) if ours(spec) => (spec.acquire_time.clone(), transitions),
            Some(_) => (now.clone(), Some(transitions.unwrap_or(0) + 1)),
            None => (now.clone(), Some(0)),
        };
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: now,
            lease_transitions: transitions,
            ..LeaseSpec::default()
        }
    }

    /// Keeps the lease; returns only when it is lost, and why. Dropping it is safe.
    pub async fn hold(&mut self) -> String {
        let mut renewed = self.clock.ticks();
        let mut next = renewed.after(RETRY);
        loop {
            let now = self.clock.ticks();
            self.clock.sleep(next.since(now)).await;
            let begun = self.clock.ticks();
            next = begun.after(RETRY);
            let why = match limited(self.renew()).await {
                Ok(lease) => {
                    self.held = Some(lease);
                    renewed = begun;
                    self.right.send_replace(Right::Until(begun.after(LEASE)));
                    continue;
                }
                Err(error @ Trouble::Taken) => error.to_string(),
                Err(error) => {
                    tracing::warn!(%error, lease = %self.name, "cannot renew the lease");
                    if self.clock.ticks().since(renewed) < RENEW_DEADLINE {
                        continue;
                    }
                    format!("it could not be renewed for 6 s: {error}")
                }
            };
            self.right.send_replace(Right::Lost);
            self.metrics.leading(false);
            return format!("lost the lease {}: {why}", self.name);
        }
    }

    async fn renew(&mut self) -> Result<Lease, Trouble> {
        // Our own version, or after an unclear write whatever is there, if it still is ours.
        let held = match self.held.take() {
            Some(held) => held,
            None => self.leases.get(&self.name).await?,
        };
        let spec = held.spec.as_ref();
        if spec.and_then(|spec| spec.holder_identity.as_deref()) != Some(&self.identity) {
            return Err(Trouble::Taken);
        }
        let spec = Some(self.spec(spec));
        let lease = Lease { spec, ..held };
        // A conflict: our own lost write may have moved it. It is read before the next try, which
        // then knows whether it is still ours.
        let params = PostParams::default();
        Ok(self.leases.replace(&self.name, &params, &lease).await?)
    }

    /// Gives the lease back, so that another operator need not wait for its end. Nothing may be
    /// written after this.
    pub async fn release(mut self) {
        self.right.send_replace(Right::Lost);
        self.metrics.leading(false);
        let released = limited(async {
            let held = match self.held.take() {
                Some(held) => held,
                None => self.leases.get(&self.name).await?,
            };
            let mut spec = held.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Err(Trouble::Taken);
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            let lease = Lease {
                spec: Some(spec),
                ..held
            };
            Ok(self
                .leases
                .replace(&self.name, &PostParams::default(), &lease)
                .await?)
        });
        if let Err(error) = released.await {
            tracing::warn!(%error, lease = %self.name, "cannot give the lease back; others wait for its end");
        }
    }
}

/// A conflict means that somebody was faster.
fn written(result: Result<Lease, kube::Error>) -> Result<Lease, Trouble> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Trouble::Taken),
        result => Ok(result?),
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    timeout(CALL, call).await.unwrap_or(Err(Trouble::Slow))
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const STEP: Duration = Duration::from_millis(100);

    fn leadership(clock: &Arc<ByHand>) -> (watch::Sender<Right>, Leadership) {
        let (sender, right) = watch::channel(Right::Until(clock.ticks().after(LEASE)));
        let leadership = Leadership {
            right,
            clock: clock.clone(),
            _always: None,
        };
        (sender, leadership)
    }

    fn asking(leadership: &Leadership) -> tokio::task::JoinHandle<Result<(), NotLeader>> {
        let leadership = leadership.clone();
        tokio::spawn(async move { leadership.permit(LIMIT).await })
    }

    #[tokio::test]
    async fn a_write_starts_only_with_its_limit_and_a_second_left() {
        let clock = ByHand::new();
        let (sender, leadership) = leadership(&clock);
        assert_eq!(leadership.permit(LIMIT).await, Ok(()));
        clock.advance(Duration::from_secs(4), STEP).await;
        assert_eq!(leadership.permit(LIMIT).await, Ok(()), "6 s are left");
        clock.advance(Duration::from_millis(1), STEP).await;
        let asked = asking(&leadership);
        clock.advance(Duration::from_secs(1), STEP).await;
        assert!(!asked.is_finished(), "it waits for the next renewal");
        sender.send_replace(Right::Until(clock.ticks().after(LEASE)));
        assert_eq!(asked.await.expect("no panic"), Ok(()));
    }

    #[tokio::test]
    async fn without_a_renewal_no_write_starts_any_more() {
        let clock = ByHand::new();
        let (sender, leadership) = leadership(&clock);
        clock.advance(LIMIT, STEP).await;
        let asked = asking(&leadership);
        clock.advance(Duration::from_millis(4_900), STEP).await;
        assert!(!asked.is_finished(), "as long as it could come back");
        clock.advance(Duration::from_millis(100), STEP).await;
        assert_eq!(asked.await.expect("no panic"), Err(NotLeader));
        sender.send_replace(Right::Lost);
        assert_eq!(leadership.permit(Duration::ZERO).await, Err(NotLeader));
    }
}
