//! What a sink's deliverer makes durable, and what it takes in from the store again.
//!
//! Owns: when a commit of cursor, parked events and dead letters is due and that there is one at a
//! time; looking for replayed dead letters between commits. Never here: what is in a commit; that
//! is [`super::lanes`]'s.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{COMMIT_DELAY, Run, STORE_RETRY};
use crate::clock::Ticks;
use crate::state::{SinkCommit, StateError};

/// A commit is due after so many changes…
const COMMIT_CHANGES: usize = 100;
/// Replayed dead letters are looked for at least this often.
pub(super) const LOOK_FOR_REPLAYS: Duration = Duration::from_secs(10);

impl Run {
    /// Starts a commit if one is due and none is on its way.
    pub(super) fn start_commit(&mut self, now: Ticks, at_once: bool) {
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

    pub(super) fn commit_due(&self) -> Option<Ticks> {
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
    pub(super) async fn look_for_replays(&mut self, now: Ticks) -> Result<(), StateError> {
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
}
