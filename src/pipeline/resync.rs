//! The resync: a full comparison with the provider, which finds what was never notified.
//!
//! Owns: when one is due, its progress (kept in the store, so that a restart goes on where it
//! was), and which entities it marks. It only marks; the workers read.
//!
//! First everything that consumers have is marked, in key order: that finds changes, and what the
//! provider's lists lack, which is then read singly. Then the lists are walked for what is not
//! known yet. Marks are made in pages, and a page waits until the one before has drained.
//!
//! Never here: a removal, and a mark that goes before a notification.

mod walk;

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::{Either, select};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Pipeline, lock};
use crate::api::{EntityKey, NotificationType};
use crate::clock::{Ticks, UnixMillis};
use crate::state::StateError;

/// Facts in the store.
const FACT_ALIVE: &str = "pipeline.alive";
const FACT_LAST: &str = "resync.last";
const FACT_PROGRESS: &str = "resync.progress";
const FACT_REQUESTED: &str = "resync.requested";

/// How often the process notes that it is alive.
const ALIVE: Duration = Duration::from_secs(20);
/// A process that was down for longer may have missed notifications beyond their last retry.
const DOWN: Duration = Duration::from_mins(1);
/// How long the very first resync waits for the rules to be made.
const FIRST: Duration = Duration::from_secs(10);
/// Requests come one per type: those within this long share a resync.
const GATHER: Duration = Duration::from_secs(1);

/// How far a resync is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResyncProgress {
    /// Why it was begun.
    pub reason: String,
    /// When.
    pub started: UnixMillis,
    /// The entity types that it covers.
    pub kinds: Vec<NotificationType>,
    /// Entities marked so far.
    pub marked: u64,
    /// A list that the provider refuses, and why: what only it would have shown is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Where it is.
    step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    /// Marking what consumers have, after this key.
    Known(Option<EntityKey>),
    /// Walking the lists, after this supplier's product (`None`: at its beginning).
    Lists(Option<(String, Option<String>)>),
}

/// What the resync says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResyncStatus {
    /// The one that is running.
    pub running: Option<ResyncProgress>,
    /// When the last complete one over all covered types began.
    pub last: Option<UnixMillis>,
    /// Why the newest one was not complete: a list that the provider refuses.
    pub incomplete: Option<String>,
}

/// A resync that was asked for and has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Requested {
    reason: String,
    kinds: Vec<NotificationType>,
}

/// What the loop shares with who asks.
#[derive(Debug, Default)]
pub(super) struct Shared {
    status: Mutex<ResyncStatus>,
    asked: Notify,
    /// Held while the fact of what was asked for is read and written.
    requested: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn status(&self) -> ResyncStatus {
        lock(&self.status).clone()
    }
}

impl Pipeline {
    /// Asks for a resync of some types (empty: all that are covered). Durable when it returns:
    /// a restart does not forget it. One that is running is finished first.
    ///
    /// # Errors
    /// The store's; then nothing was asked for.
    pub async fn request_resync(
        &self,
        kinds: &[NotificationType],
        reason: &str,
    ) -> Result<(), StateError> {
        let _alone = self.resync.requested.lock().await;
        let mut kinds = if kinds.is_empty() {
            self.covered.clone()
        } else {
            super::reads::covered(kinds)
        };
        if let Some(before) = self.read_fact::<Requested>(FACT_REQUESTED).await? {
            kinds.extend(before.kinds);
        }
        kinds.sort_unstable();
        kinds.dedup();
        let requested = Requested {
            reason: reason.to_owned(),
            kinds,
        };
        self.write_fact(FACT_REQUESTED, Some(&requested)).await?;
        self.resync.asked.notify_one();
        Ok(())
    }

    /// The resync loop: runs until it is dropped or the store fails for good.
    ///
    /// # Errors
    /// [`StateError::Failed`]: the process must end and open the store again.
    pub async fn resync(&self) -> Result<(), StateError> {
        // Looked at before this process notes that it is alive.
        let down = self.down_before_start().await?;
        let alive = std::pin::pin!(self.stay_alive());
        let run = std::pin::pin!(self.run_resyncs(down));
        match select(alive, run).await {
            Either::Left((result, _)) | Either::Right((result, _)) => result,
        }
    }

    /// Notes every 20 s that the process is alive.
    async fn stay_alive(&self) -> Result<(), StateError> {
        loop {
            if let Err(error) = self.write_fact(FACT_ALIVE, Some(&self.clock.now())).await {
                self.store_trouble("note that it is alive", error).await?;
            }
            self.clock.sleep(ALIVE).await;
        }
    }

    /// Why what came meanwhile may have been missed; `None` when the process was hardly down.
    async fn down_before_start(&self) -> Result<Option<&'static str>, StateError> {
        let now = self.clock.now();
        let alive = self.read_fact::<UnixMillis>(FACT_ALIVE).await?;
        Ok(match alive {
            None => Some("nobody knows how long the process was down"),
            Some(alive) if now.since(alive) > DOWN || alive > now.after(DOWN) => {
                Some("the process was down for more than a minute")
            }
            Some(_) => None,
        })
    }

    /// Why a resync is due whatever happened since; `None` when the last one is recent enough.
    async fn overdue(&self) -> Result<Option<&'static str>, StateError> {
        let now = self.clock.now();
        let last = self.read_fact::<UnixMillis>(FACT_LAST).await?;
        lock(&self.resync.status).last = last;
        Ok(match last {
            None => Some("none was ever completed"),
            // A time in the future was written by a wrong clock: it tells nothing.
            Some(last) if last > now.after(DOWN) => Some("the last one is in the future"),
            Some(last) if now.since(last) > self.settings.fetch.resync_interval => {
                Some("the last one is older than the interval")
            }
            Some(_) => None,
        })
    }

    async fn run_resyncs(&self, down: Option<&'static str>) -> Result<(), StateError> {
        let interval = self.settings.fetch.resync_interval;
        // One that was interrupted goes on; what began before the process was down cannot have
        // seen what happened meanwhile.
        if let Some(progress) = self.read_fact::<ResyncProgress>(FACT_PROGRESS).await? {
            self.run(progress).await?;
        }
        let due = self.overdue().await?.or(down);
        // Monotonic time from here on; what is left of the interval comes from the last one.
        let last = lock(&self.resync.status).last;
        let age = last.map_or(interval, |last| self.clock.now().since(last).min(interval));
        let mut next = self.clock.ticks().after(interval.saturating_sub(age));
        if let Some(reason) = due {
            if last.is_none() {
                // Rules that are about to be made ask for a resync too: one does for both.
                self.asked_or(self.clock.ticks().after(FIRST)).await;
                self.clock.sleep(GATHER).await;
            }
            next = self.clock.ticks().after(interval);
            self.take_request().await?;
            self.begin(reason, self.covered.clone()).await?;
        }
        loop {
            if let Some(requested) = self.take_request().await? {
                self.begin(&requested.reason, requested.kinds).await?;
                continue;
            }
            if self.clock.ticks() >= next {
                next = self.clock.ticks().after(interval);
                self.begin("interval", self.covered.clone()).await?;
                continue;
            }
            if self.asked_or(next).await {
                self.clock.sleep(GATHER).await;
            }
        }
    }

    /// Waits for a request, or until `next`; `true` when there is one.
    async fn asked_or(&self, next: Ticks) -> bool {
        let asked = std::pin::pin!(self.resync.asked.notified());
        let sleep = self.clock.sleep(next.since(self.clock.ticks()));
        matches!(select(asked, sleep).await, Either::Left(_))
    }

    async fn take_request(&self) -> Result<Option<Requested>, StateError> {
        let _alone = self.resync.requested.lock().await;
        // It becomes the progress first: a crash between the two begins it twice, never not.
        let Some(requested) = self.read_fact::<Requested>(FACT_REQUESTED).await? else {
            return Ok(None);
        };
        self.write_fact(
            FACT_PROGRESS,
            Some(&self.fresh(&requested.reason, &requested.kinds)),
        )
        .await?;
        self.write_fact::<Requested>(FACT_REQUESTED, None).await?;
        Ok(Some(requested))
    }

    fn fresh(&self, reason: &str, kinds: &[NotificationType]) -> ResyncProgress {
        ResyncProgress {
            reason: reason.to_owned(),
            started: self.clock.now(),
            kinds: kinds.to_vec(),
            marked: 0,
            refused: None,
            step: Step::Known(None),
        }
    }

    async fn begin(&self, reason: &str, kinds: Vec<NotificationType>) -> Result<(), StateError> {
        tracing::info!(reason, "resync begins");
        self.run(self.fresh(reason, &kinds)).await
    }

    /// Runs a resync from where it is to its end.
    async fn run(&self, mut progress: ResyncProgress) -> Result<(), StateError> {
        self.note(&progress).await?;
        self.mark_known(&mut progress).await?;
        if progress
            .kinds
            .iter()
            .any(|kind| *kind != NotificationType::Booking)
        {
            self.walk_lists(&mut progress).await?;
        }
        let whole = self
            .covered
            .iter()
            .all(|kind| progress.kinds.contains(kind));
        lock(&self.resync.status)
            .incomplete
            .clone_from(&progress.refused);
        if whole && progress.refused.is_none() {
            self.write_fact(FACT_LAST, Some(&progress.started)).await?;
            lock(&self.resync.status).last = Some(progress.started);
        }
        self.write_fact::<ResyncProgress>(FACT_PROGRESS, None)
            .await?;
        lock(&self.resync.status).running = None;
        self.metrics.resyncs.inc();
        tracing::info!(
            reason = progress.reason,
            marked = progress.marked,
            "resync marked everything"
        );
        Ok(())
    }

    async fn note(&self, progress: &ResyncProgress) -> Result<(), StateError> {
        self.write_fact(FACT_PROGRESS, Some(progress)).await?;
        lock(&self.resync.status).running = Some(progress.clone());
        Ok(())
    }

    /// A fact that cannot be read (a newer program wrote it) counts as missing.
    async fn read_fact<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        loop {
            match self.state.fact(name).await {
                Ok(bytes) => {
                    return Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
                }
                Err(error) => self.store_trouble("read a fact", error).await?,
            }
        }
    }

    async fn write_fact<T: Serialize>(
        &self,
        name: &str,
        value: Option<&T>,
    ) -> Result<(), StateError> {
        let bytes = value.map(|value| {
            serde_json::to_vec(value).expect("facts have only string keys and finite numbers")
        });
        while let Err(error) = self.state.put_fact(name, bytes.clone()).await {
            self.store_trouble("write a fact", error).await?;
        }
        Ok(())
    }
}
