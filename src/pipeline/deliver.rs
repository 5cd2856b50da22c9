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

mod breaker;
mod lanes;
mod metrics;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::breaker::{Breaker, Gate};
use self::lanes::{Entry, Lanes, WINDOW, WINDOW_BYTES};
pub use self::metrics::DeliveryMetrics;
use self::metrics::{AttemptLabels, SinkLabel};
use crate::api::EntityKey;
use crate::clock::{Clock, Ticks};
use crate::publish::{Class, Sink, SinkStatus, Verdict};
use crate::settings::{BackoffPolicy, DeliverySettings, SinkSettings};
use crate::state::{EventsGone, Revision, Sequence, SinkCommit, State, StateError, StoredEvent};

/// Events of different entities on their way at a time.
const IN_FLIGHT: usize = 16;
/// A commit is due after so many changes…
const COMMIT_CHANGES: usize = 100;
/// …or this long after the first.
const COMMIT_DELAY: Duration = Duration::from_millis(200);
/// A store that is full or busy is asked again after this.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Replayed dead letters are looked for at least this often.
const LOOK_FOR_REPLAYS: Duration = Duration::from_secs(10);
/// No attempt waits longer than this for its turn.
const LONGEST_BACKOFF: Duration = Duration::from_mins(10);
/// A sink that was not well is asked again after this at the latest.
const LONGEST_NOT_WELL: Duration = Duration::from_mins(1);
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

/// One event was tried.
struct Sent {
    key: EntityKey,
    started: Ticks,
    result: Result<Option<(Revision, Verdict)>, StateError>,
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

    fn send(&self, key: EntityKey, entry: Entry) -> BoxFuture<'static, Sent> {
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
    fn judge(&mut self, sent: Sent) -> Result<(), StateError> {
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

    /// Starts a commit if one is due and none is on its way.
    fn start_commit(&mut self, now: Ticks, at_once: bool) {
        // A window full behind slow answers: their events are parked once they are slow.
        let jammed = !self.lanes.has_room() && !self.breaker.is_open();
        if self.lanes.changes() > 0 || jammed {
            self.changed.get_or_insert(now);
        }
        if self.commit.is_some() || !(at_once || self.commit_due().is_some_and(|at| at <= now)) {
            return;
        }
        self.changed = None;
        if let Some(commit) = self.lanes.take_commit(!self.breaker.is_open(), now) {
            self.commit = Some(self.write(commit));
        }
    }

    fn commit_due(&self) -> Option<Ticks> {
        let since = self.changed?;
        let full = self.lanes.changes() >= COMMIT_CHANGES;
        Some(if full {
            since
        } else {
            since.after(COMMIT_DELAY)
        })
    }

    /// Writes a commit, until the store takes it.
    fn write(&self, commit: SinkCommit) -> BoxFuture<'static, Result<(), StateError>> {
        let state = self.deliverer.state.clone();
        let clock = self.deliverer.clock.clone();
        let name = self.deliverer.settings.name.clone();
        Box::pin(async move {
            loop {
                match state.commit_sink(&name, commit.clone()).await {
                    Err(StateError::Full(_) | StateError::Busy(_)) => {
                        clock.sleep(STORE_RETRY).await;
                    }
                    other => return other,
                }
            }
        })
    }

    /// Takes in dead letters that were replayed. Only between commits: what is about to be
    /// released is still in the store.
    async fn look_for_replays(&mut self, now: Ticks) -> Result<(), StateError> {
        if now < self.look || self.commit.is_some() || self.lanes.changes() > 0 {
            return Ok(());
        }
        self.look = now.after(LOOK_FOR_REPLAYS);
        match self
            .deliverer
            .state
            .sink(&self.deliverer.settings.name)
            .await
        {
            Ok(position) => position
                .parked
                .iter()
                .for_each(|parked| self.lanes.adopt(parked)),
            Err(StateError::Full(_) | StateError::Busy(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
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
