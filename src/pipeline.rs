//! From a mark to a committed event: what to read, how, and what the answer means.
//!
//! Owns: the workers (claim, read, decide, settle), the request budget, the pause when the
//! credentials are refused, the removal guard, and the resync. `pipeline/deliver.rs` owns the way
//! from the outbox to a sink.
//!
//! # How a mark becomes an event
//! A worker waits for a permit of the budget, claims the due entity that is oldest, makes exactly
//! one request, decides what the answer means (`commit`), adds the children that it makes
//! necessary (`children`), and settles all of it in one step. A worker that loses its claim or
//! its process has written nothing.
//!
//! # What never happens here
//! - A claim that is dropped without a settlement, or a mark that is cleared after a failed read.
//! - A removal on one signal, or because a list lacks something.
//! - A decision on the wall clock of this machine about how long ago something was, but for the
//!   removals of an earlier run, which no other clock can date (`guard`).
//! - A task or timer of its own: all waiting is on `State`, `Reads` and `Clock`, so that a test
//!   that owns these three owns every interleaving.

mod budget;
mod canonical;
mod children;
mod commit;
pub mod deliver;
mod guard;
mod memo;
mod metrics;
mod pause;
mod reads;
mod removals;
mod resync;
mod window;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::api::{EntityKey, NotificationType};
use crate::clock::{Clock, Ticks};
use crate::metrics::Metrics;
use crate::planted::{Bug, planted};
use crate::provider::{Answer, ReadError, Reads};
use crate::settings::FetchSettings;
use crate::state::{
    Claim, MarkAfter, MarkClass, NewMark, Outcome, Settled, Settlement, State, StateError,
};

use budget::Budget;
use commit::Context;
use guard::Guard;
use memo::Stamp;
use metrics::{EventLabels, FetchLabels, PipelineMetrics};
use pause::Pause;

pub use resync::{ResyncProgress, ResyncStatus};

/// Workers that an assembly should run: four for each read that may begin in a second, so that
/// answers which take seconds neither stop the others nor leave the budget unspent. Bodies in
/// flight are bounded apart from that, by the client.
pub fn workers(requests_per_second: u32) -> usize {
    (4 * requests_per_second as usize).clamp(16, 64)
}

/// How long to wait before a call that the store could not do is tried again.
const STORE_AGAIN: Duration = Duration::from_millis(500);
/// How often a settlement is tried again before the claim is left to its lease.
const SETTLE_ATTEMPTS: u32 = 20;

/// What the pipeline of one subscription is told.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// `spec.fetch`.
    pub fetch: FetchSettings,
    /// The subscribed types.
    pub subscribed: Vec<NotificationType>,
    /// How long a booking is kept after its last travel date.
    pub retain_bookings: Duration,
}

impl PipelineSettings {
    /// The pipeline's part of the settings file.
    pub fn from_settings(settings: &crate::settings::Settings) -> Self {
        Self {
            fetch: settings.fetch.clone(),
            subscribed: settings
                .notifications
                .iter()
                .map(|notification| notification.kind)
                .collect(),
            retain_bookings: settings.store.retain_bookings,
        }
    }
}

/// What the pipeline says about itself, for `/status` and conditions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// The status that the provider refuses our credentials with; fetching is paused meanwhile.
    pub credentials_refused: Option<u16>,
    /// Removals that the guard holds back until confirmed or agreed upon for an hour.
    pub removals_held: usize,
    /// The resync.
    pub resync: ResyncStatus,
}

/// The way from marks to committed events, of one subscription.
pub struct Pipeline {
    settings: PipelineSettings,
    covered: Vec<NotificationType>,
    state: Arc<dyn State>,
    reads: Arc<dyn Reads>,
    clock: Arc<dyn Clock>,
    budget: Budget,
    pause: Pause,
    guard: Mutex<Guard>,
    /// The guard counts what was removed before this run.
    recalled: OnceCell<()>,
    /// What an earlier run held back is held again.
    held_again: OnceCell<()>,
    /// One note of what is held back at a time, so that the newest is the last.
    noting: tokio::sync::Mutex<()>,
    /// The reads on their way, by claim.
    in_flight: Mutex<BTreeMap<u64, EntityKey>>,
    random: Mutex<fastrand::Rng>,
    /// Names this run in notes that carry monotonic time.
    run: u64,
    metrics: PipelineMetrics,
    resync: resync::Shared,
    /// The store had no room for the newest event.
    full: AtomicBool,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipeline {
    /// A pipeline that does nothing until its loops are run. `seed` must be another one in each
    /// run of the process: it tells this run's notes from those of the one before.
    pub fn new(
        settings: PipelineSettings,
        state: Arc<dyn State>,
        reads: Arc<dyn Reads>,
        clock: Arc<dyn Clock>,
        seed: u64,
        metrics: &Metrics,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            covered: reads::covered(&settings.subscribed),
            budget: Budget::new(settings.fetch.requests_per_second),
            pause: Pause::default(),
            guard: Mutex::new(Guard::new(settings.fetch.removal_guard_percent)),
            recalled: OnceCell::new(),
            held_again: OnceCell::new(),
            noting: tokio::sync::Mutex::default(),
            in_flight: Mutex::default(),
            run: random.u64(..),
            random: Mutex::new(random),
            metrics: PipelineMetrics::new(metrics),
            resync: resync::Shared::default(),
            full: AtomicBool::new(false),
            settings,
            state,
            reads,
            clock,
        }
    }

    /// One worker: runs until it is dropped or the store fails for good. Run [`workers`] of them.
    ///
    /// # Errors
    /// [`StateError::Failed`]: the process must end and open the store again.
    pub async fn work(&self) -> Result<(), StateError> {
        self.hold_again().await?;
        loop {
            self.pause
                .passed(self.reads.as_ref(), &self.budget, &self.clock)
                .await;
            self.metrics
                .paused
                .set(i64::from(self.pause.refused().is_some()));
            self.state.claimable().await;
            let waiting = self.clock.ticks();
            let permit = self.budget.permit(&self.clock).await;
            self.metrics
                .budget_wait
                .observe(self.clock.ticks().since(waiting).as_secs_f64());
            if self.pause.refused().is_some() {
                continue;
            }
            match self.state.claim(permit.prefer).await {
                Ok(Some(claim)) => {
                    permit.spend();
                    lock(&self.in_flight).insert(claim.id, claim.key.clone());
                    let done = self.one(&claim).await;
                    lock(&self.in_flight).remove(&claim.id);
                    done?;
                }
                Ok(None) => {}
                Err(error) => self.store_trouble("claim", error).await?,
            }
        }
    }

    /// What the pipeline says about itself.
    pub fn status(&self) -> PipelineStatus {
        PipelineStatus {
            credentials_refused: self.pause.refused(),
            removals_held: lock(&self.guard).held(),
            resync: self.resync.status(),
        }
    }

    /// Reads, decides, settles.
    async fn one(&self, claim: &Claim) -> Result<(), StateError> {
        let fetched = self.clock.now();
        let started = self.clock.ticks();
        let window = window::from_today(fetched, self.settings.fetch.availability_horizon_days);
        let read = reads::read_of(&claim.key, window);
        let answer = self.budget.read(self.reads.as_ref(), &read, &self.clock);
        let answer = answer.await;
        if let Err(ReadError::Unauthorized { status }) = &answer {
            self.refused(*status).await;
        }
        if removals::is_signal(&answer) {
            self.recall_removals().await?;
        }
        let context = Context {
            fetched,
            started,
            now: Stamp {
                run: self.run,
                ticks: self.clock.ticks().0,
            },
            window,
            removal_confirmation: self.settings.fetch.removal_confirmation,
            retain_bookings: self.settings.retain_bookings,
            jitter: lock(&self.random).f64(),
        };
        let mut settlement = self.decide(claim, &answer, &context);
        let children = loop {
            let state = self.state.as_ref();
            let in_flight = self.in_flight(claim);
            let children =
                children::children_of(state, &self.covered, claim, &answer, &settlement, in_flight);
            match children.await {
                Ok(children) => break children,
                Err(error) => self.store_trouble("look up children", error).await?,
            }
        };
        let late = if planted(Bug::ChildrenAfterCommit) {
            children
        } else {
            settlement.children = children;
            Vec::new()
        };
        self.note_held().await;
        let settled = self.settle(claim, settlement, &context).await?;
        if !late.is_empty() && settled {
            while let Err(error) = self.state.mark(late.clone()).await {
                self.store_trouble("mark children", error).await?;
            }
        }
        Ok(())
    }

    /// For what has children, the entities of which another read is on its way. What such a read
    /// found may be older than the answer that asks for this.
    fn in_flight(&self, claim: &Claim) -> Vec<EntityKey> {
        let has_children = matches!(
            claim.key.kind(),
            NotificationType::ChannelBinding | NotificationType::Rate
        );
        if !has_children {
            return Vec::new();
        }
        let in_flight = lock(&self.in_flight);
        let others = in_flight.iter().filter(|(id, _)| **id != claim.id);
        others.map(|(_, key)| key.clone()).collect()
    }

    /// The provider refused a read: 401 is about the credentials, 403 may be about one entity.
    async fn refused(&self, status: u16) {
        let (reads, clock) = (self.reads.as_ref(), &self.clock);
        if status == 401 || self.pause.is_for_all(reads, &self.budget, clock).await {
            self.pause.begin(status);
            self.metrics.paused.set(1);
        }
    }

    fn decide(
        &self,
        claim: &Claim,
        answer: &Result<Answer, ReadError>,
        context: &Context,
    ) -> Settlement {
        let live = self.state.stats().live_entities;
        let mut guard = lock(&self.guard);
        let held = guard.held();
        let now = Ticks(context.now.ticks);
        let decision = commit::decide(claim, answer, context, &mut |first| {
            guard.admit(&claim.key, first, now, live)
        });
        // A read that failed says nothing.
        if !matches!(decision.settlement.outcome, Outcome::Held | Outcome::Failed) {
            guard.release(&claim.key);
        }
        if held == 0 && guard.held() > 0 {
            removals::tell();
        }
        self.show_held(guard.held());
        if let Some(reason) = &decision.reason {
            tracing::debug!(entity = %claim.key, outcome = decision.settlement.outcome.as_str(), reason, "not published");
        }
        decision.settlement
    }

    /// Settles, and tries again while the store is full or busy. `true` when it was committed.
    async fn settle(
        &self,
        claim: &Claim,
        mut settlement: Settlement,
        context: &Context,
    ) -> Result<bool, StateError> {
        let removed = settlement.outcome == Outcome::Removed;
        for _ in 0..SETTLE_ATTEMPTS {
            let outcome = settlement.outcome;
            match self.state.settle(claim, settlement.clone()).await {
                Ok(Settled::Committed(published)) => {
                    self.count(claim, outcome, published.is_some(), context.started);
                    if published.is_some() && self.full.swap(false, Ordering::Relaxed) {
                        tracing::info!("the store has room for events again");
                    }
                    if removed && outcome != Outcome::Removed {
                        lock(&self.guard).withdraw(&claim.key);
                    }
                    return Ok(true);
                }
                Ok(Settled::Stale) => {
                    self.metrics.stale.inc();
                    break;
                }
                Err(StateError::Full(reason)) => {
                    self.tell_full(claim, &reason);
                    settlement = without_room(settlement);
                    self.metrics.store_retries.inc();
                    self.clock.sleep(STORE_AGAIN).await;
                }
                Err(error) => self.store_trouble("settle", error).await?,
            }
        }
        if removed {
            lock(&self.guard).withdraw(&claim.key);
        }
        Ok(false)
    }

    /// Said once: workers try again many times a second for as long as it is full.
    fn tell_full(&self, claim: &Claim, reason: &str) {
        if self.full.swap(true, Ordering::Relaxed) {
            tracing::debug!(entity = %claim.key, reason, "still no room for an event");
        } else {
            tracing::warn!(entity = %claim.key, reason, "the store has no room for events; marks stay until there is some");
        }
    }

    fn count(&self, claim: &Claim, outcome: Outcome, published: bool, started: Ticks) {
        let entity = claim.key.kind().segment();
        let labels = FetchLabels {
            entity,
            outcome: outcome.as_str(),
        };
        self.metrics.fetches.get_or_create(&labels).inc();
        self.metrics
            .work
            .observe(self.clock.ticks().since(started).as_secs_f64());
        if !published {
            return;
        }
        self.metrics
            .events
            .get_or_create(&EventLabels { entity })
            .inc();
        if claim.notified.is_some() {
            self.metrics
                .lag
                .observe(self.clock.now().since(claim.since).as_secs_f64());
        }
    }

    /// Waits out a store that is full or busy; gives the error back when it failed for good.
    async fn store_trouble(
        &self,
        doing: &'static str,
        error: StateError,
    ) -> Result<(), StateError> {
        if let StateError::Failed(_) = error {
            return Err(error);
        }
        tracing::warn!(%error, doing, "the store cannot do it for the moment; trying again");
        self.metrics.store_retries.inc();
        self.clock.sleep(STORE_AGAIN).await;
        Ok(())
    }
}

/// What is still worth settling when there is no room for an event: the read is made again later.
fn without_room(settlement: Settlement) -> Settlement {
    Settlement {
        outcome: Outcome::Failed,
        confirms: false,
        event: None,
        memo: None,
        mark: MarkAfter::Retry(Duration::from_secs(30)),
        children: Vec::new(),
        dead_letter: None,
        forget_after: None,
        forget: false,
        ..settlement
    }
}

fn marks(keys: impl IntoIterator<Item = EntityKey>, class: MarkClass) -> Vec<NewMark> {
    let mark = |key| NewMark {
        key,
        class,
        noticed: None,
        urgent: false,
    };
    keys.into_iter().map(mark).collect()
}
