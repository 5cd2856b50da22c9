//! One sink's deliverer: committed events go out, in order for each entity, at least once.
//!
//! Owns: reading the outbox after the sink's cursor, what may be in flight at a time, what each
//! [`Verdict`] leads to, and the durable commits of cursor, parked events and dead letters.
//!
//! - *Not well* (see [`Class`]): the breaker opens, one event at a time probes, at most a minute
//!   apart, nothing is buried, no attempt counts. One exception keeps a single event that a sink
//!   chokes on from being retried for ever: when the sink takes another entity's event right after
//!   such a failure, the failure was the event's own and counts; it is buried when one more of
//!   these than `retry` + 1 came together.
//! - *Stuck* (an entity whose event failed while the sink takes others): its events are parked
//!   durably, so that the cursor moves on and nothing overtakes them.
//! - *No longer kept*: superseded by a newer event of its entity, which follows on its own.
//!
//! Several deliverers share nothing: a hanging sink holds up no other.
//!
//! Never here: a task of its own, a clock other than the injected one (a test's scheduler drives
//! it), a delivery that counts before the sink said so, an event sent before an older one of its
//! entity was delivered, buried or superseded.

mod attempt;
mod breaker;
mod commits;
mod lanes;
mod metrics;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::attempt::Sent;
use self::breaker::{Breaker, Gate};
use self::commits::LOOK_FOR_REPLAYS;
use self::lanes::{Lanes, WINDOW, WINDOW_BYTES};
pub use self::metrics::DeliveryMetrics;
use self::metrics::SinkLabel;
use crate::api::EntityKey;
use crate::clock::{Clock, Ticks};
use crate::publish::{Sink, SinkStatus};
use crate::settings::SinkSettings;
use crate::state::{EventsGone, Sequence, State, StateError, StoredEvent};

/// Events of different entities on their way at a time.
const IN_FLIGHT: usize = 16;
/// A commit is due this long after the first change that it would take.
const COMMIT_DELAY: Duration = Duration::from_millis(200);
/// A store that is full or busy is asked again after this.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// What is in flight at shutdown may take this long to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Delivers to one sink.
pub struct Deliverer {
    settings: SinkSettings,
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    sink: Arc<dyn Sink>,
    metrics: DeliveryMetrics,
    status: watch::Sender<SinkStatus>,
    nudge: Arc<Notify>,
}

impl Deliverer {
    /// A deliverer that has not begun. `settings.uri` and files are the sink's own business.
    pub fn new(
        settings: &SinkSettings,
        state: Arc<dyn State>,
        clock: Arc<dyn Clock>,
        sink: Arc<dyn Sink>,
        metrics: &DeliveryMetrics,
    ) -> Self {
        let status = SinkStatus {
            name: settings.name.clone(),
            well: true,
            since: None,
            last_error: None,
            behind: 0,
            parked: 0,
            dead_letters: 0,
        };
        Self {
            settings: settings.clone(),
            state,
            clock,
            sink,
            metrics: metrics.clone(),
            status: watch::Sender::new(status),
            nudge: Arc::default(),
        }
    }

    /// Where the sink stands, always current.
    pub fn status(&self) -> watch::Receiver<SinkStatus> {
        self.status.subscribe()
    }

    /// Notify it after [`State::replay`], so that the replayed event goes out at once; without
    /// that it is found within ten seconds.
    pub fn nudge(&self) -> Arc<Notify> {
        self.nudge.clone()
    }

    /// Delivers until `stop` is cancelled; then lets what is in flight end, for ten seconds at
    /// most, and commits.
    ///
    /// # Errors
    /// When the store failed for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), String> {
        let name = self.settings.name.clone();
        let told = |error: StateError| format!("delivery to sink `{name}`: {error}");
        let position = self
            .patient(|| self.state.sink(&self.settings.name))
            .await
            .map_err(told)?;
        let mut lanes = Lanes::new(position.cursor);
        for parked in &position.parked {
            lanes.adopt(parked);
        }
        let run = Run {
            lanes,
            breaker: Breaker::new(self.settings.delivery.backoff_delay),
            sends: FuturesUnordered::new(),
            commit: None,
            changed: None,
            look: self.clock.ticks().after(LOOK_FOR_REPLAYS),
            head: self.state.head(),
            catching_up: false,
            deliverer: self,
        };
        run.run(stop).await.map_err(told)
    }

    /// Asks the store until it answers; gives up only when it failed for good.
    async fn patient<T, F>(&self, ask: impl Fn() -> F) -> Result<T, StateError>
    where
        F: Future<Output = Result<T, StateError>>,
    {
        loop {
            match ask().await {
                Err(StateError::Full(_) | StateError::Busy(_)) => {
                    self.clock.sleep(STORE_RETRY).await;
                }
                other => return other,
            }
        }
    }

    fn label(&self) -> SinkLabel {
        SinkLabel {
            sink: self.settings.name.clone(),
        }
    }
}

struct Run {
    deliverer: Deliverer,
    lanes: Lanes,
    breaker: Breaker,
    sends: FuturesUnordered<BoxFuture<'static, Sent>>,
    commit: Option<BoxFuture<'static, Result<(), StateError>>>,
    /// When the first change came that no commit has taken.
    changed: Option<Ticks>,
    /// When to look for replayed dead letters.
    look: Ticks,
    head: watch::Receiver<Sequence>,
    /// It reads over removals that are no longer kept; that was said.
    catching_up: bool,
}

impl Run {
    async fn run(mut self, stop: CancellationToken) -> Result<(), StateError> {
        let mut drain: Option<Ticks> = None;
        let nudge = self.deliverer.nudge.clone();
        loop {
            let now = self.deliverer.clock.ticks();
            if drain.is_none() {
                self.look_for_replays(now).await?;
                self.fill().await?;
                self.dispatch(now);
            } else if drain.is_some_and(|until| now >= until) {
                self.sends.clear();
            }
            self.start_commit(now, drain.is_some());
            self.show();
            if drain.is_some() && self.sends.is_empty() && self.commit.is_none() {
                return Ok(());
            }
            let clock = self.deliverer.clock.clone();
            // While it drains, what turns out to be slow is parked.
            let drained = drain
                .filter(|until| *until > now)
                .map(|until| until.min(now.after(STORE_RETRY)));
            let timer = self.next_timer(now).into_iter().chain(drained).min();
            tokio::select! {
                biased;
                Some(sent) = self.sends.next(), if !self.sends.is_empty() => self.judge(sent)?,
                result = ended(&mut self.commit) => {
                    self.commit = None;
                    result?;
                }
                () = stop.cancelled(), if drain.is_none() => {
                    let limit = self.deliverer.settings.delivery.timeout.min(DRAIN);
                    drain = Some(clock.ticks().after(limit));
                }
                () = nudge.notified(), if drain.is_none() => self.look = Ticks(0),
                Ok(()) = self.head.changed(), if drain.is_none() && self.lanes.has_room() => {}
                () = sleep_until(&*clock, now, timer) => {}
            }
        }
    }

    /// Reads events while there is room and there are any.
    async fn fill(&mut self) -> Result<(), StateError> {
        while self.lanes.has_room() {
            let head = *self.head.borrow_and_update();
            let after = self.lanes.last_read();
            if head <= after {
                return Ok(());
            }
            let state = &self.deliverer.state;
            let read = state.events(after, WINDOW / 2, WINDOW_BYTES / 2);
            let events = match read.await {
                Ok(Ok(events)) => events,
                Ok(Err(EventsGone::Expired)) => self.catch_up(after).await?,
                Ok(Err(EventsGone::AheadOfHead)) => {
                    return Err(StateError::Failed(format!(
                        "the cursor {after} of a sink is ahead of the newest event {head}"
                    )));
                }
                Err(StateError::Full(_) | StateError::Busy(_)) => {
                    self.deliverer.clock.sleep(STORE_RETRY).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if events.is_empty() {
                self.lanes.skip_to(head);
            }
            for event in events {
                let wanted = self.wants(&event.key);
                self.lanes.read(event, wanted);
            }
        }
        Ok(())
    }

    fn wants(&self, key: &EntityKey) -> bool {
        let types = &self.deliverer.settings.types;
        types.is_empty() || types.contains(&key.kind())
    }

    /// Removals after its place are no longer kept: it gets what is there, in order, like anything
    /// else. A sink that has got nothing yet misses nothing by that.
    async fn catch_up(&mut self, after: Sequence) -> Result<Vec<StoredEvent>, StateError> {
        if !std::mem::replace(&mut self.catching_up, true) && after > 0 {
            tracing::warn!(
                sink = self.deliverer.settings.name,
                "the sink was away for longer than removals are kept: it gets the newest state of \
                 all entities, but may still hold some that are gone; let it list the feed's \
                 /v1/entities"
            );
        }
        let state = &self.deliverer.state;
        self.deliverer
            .patient(|| state.kept(after, WINDOW / 2, WINDOW_BYTES / 2))
            .await
    }

    /// Starts what may be sent now.
    fn dispatch(&mut self, now: Ticks) {
        self.lanes.wake(now);
        while self.sends.len() < IN_FLIGHT {
            let breaker = &self.breaker;
            let fresh = |key: &EntityKey| !breaker.failed(key);
            let key = match breaker.gate(now) {
                Gate::Closed => self.lanes.next_ready(),
                // One at a time: what is still in flight may tell.
                _ if !self.sends.is_empty() => None,
                Gate::Probe => self.lanes.next_probe(true, fresh),
                Gate::Witness => self.lanes.next_probe(false, fresh),
                Gate::Shut => None,
            };
            let Some((key, entry)) =
                key.and_then(|key| Some((key.clone(), self.lanes.start(&key, now)?)))
            else {
                return;
            };
            self.sends.push(self.send(key, entry));
        }
    }

    /// Brings status and gauges up to date.
    fn show(&mut self) {
        let behind = self.head.borrow().saturating_sub(self.lanes.committed());
        let parked = self.lanes.parked() as u64;
        self.deliverer.status.send_if_modified(|status| {
            let changed = (status.behind, status.parked) != (behind, parked);
            (status.behind, status.parked) = (behind, parked);
            changed
        });
        let label = self.deliverer.label();
        let metrics = &self.deliverer.metrics;
        metrics.behind.get_or_create(&label).set(behind as i64);
        metrics.parked.get_or_create(&label).set(parked as i64);
        let superseded = self.lanes.take_superseded();
        metrics.superseded.get_or_create(&label).inc_by(superseded);
    }

    /// When something is to be done that nobody announces.
    fn next_timer(&self, now: Ticks) -> Option<Ticks> {
        let commit = self.commit_due().filter(|_| self.commit.is_none());
        let probe = self.breaker.next().filter(|at| *at > now);
        let lane = self.lanes.next_due();
        let look = self.look.max(now.after(COMMIT_DELAY));
        [commit, probe, lane, Some(look)]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Waits for the commit on its way; for ever when there is none.
async fn ended(
    commit: &mut Option<BoxFuture<'static, Result<(), StateError>>>,
) -> Result<(), StateError> {
    match commit {
        Some(commit) => commit.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(clock: &dyn Clock, now: Ticks, until: Option<Ticks>) {
    match until {
        Some(until) => clock.sleep(until.since(now)).await,
        None => std::future::pending().await,
    }
}
