//! What the removal guard asks of the store and of a person.
//!
//! Owns: the count that begins with the removals of earlier runs, the note of what is held back (so
//! that a restart hides nothing from a person), and the confirmation.
//!
//! Never here: whether a removal is let through; that is [`super::guard`]'s.

use super::{Pipeline, guard, lock, marks};
use crate::api::EntityKey;
use crate::provider::{Answer, ReadError};
use crate::state::{MarkClass, NewMark, StateError};

/// The fact that holds the keys of removals held back, as a JSON list.
const FACT_HELD: &str = "removals-held";

impl Pipeline {
    /// A person says that the removals which the guard holds back are meant: they are looked at
    /// again at once and let through if the provider still says so.
    ///
    /// # Errors
    /// The store's; the confirmation counts all the same, at each entity's next look.
    pub async fn confirm_removals(&self) -> Result<usize, StateError> {
        let held = lock(&self.guard).confirm(self.clock.ticks());
        let count = held.len();
        self.show_held(0);
        tracing::info!(
            count,
            "the removals held back are confirmed; they are looked at again"
        );
        self.state.mark(urgent(held)).await?;
        self.note_held().await;
        Ok(count)
    }

    /// Shows again, and looks again at, what an earlier run held back: a restart is no reason for
    /// a person not to see it.
    pub(super) async fn hold_again(&self) -> Result<(), StateError> {
        loop {
            let held = self.held_again.get_or_try_init(async || {
                let noted = self.state.fact(FACT_HELD).await?.unwrap_or_default();
                let noted: Vec<String> = serde_json::from_slice(&noted).unwrap_or_default();
                let keys: Vec<EntityKey> =
                    noted.iter().filter_map(|key| key.parse().ok()).collect();
                if !keys.is_empty() {
                    self.state.mark(urgent(keys.clone())).await?;
                    tell();
                    self.show_held(keys.len());
                    lock(&self.guard).hold_again(keys);
                }
                Ok(())
            });
            match held.await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.store_trouble("look again at held removals", error)
                        .await?;
                }
            }
        }
    }

    /// Notes in the store what is held back. Without it nothing is lost but the sight of them
    /// between a restart and each entity's next look.
    pub(super) async fn note_held(&self) {
        if lock(&self.guard).unnoted().is_none() {
            return;
        }
        let _one = self.noting.lock().await;
        let Some(keys) = lock(&self.guard).unnoted() else {
            return;
        };
        let texts: Vec<&str> = keys.iter().map(EntityKey::as_str).collect();
        let note = (!texts.is_empty()).then(|| serde_json::json!(texts).to_string().into_bytes());
        match self.state.put_fact(FACT_HELD, note).await {
            Ok(()) => lock(&self.guard).note(keys),
            Err(error) => tracing::debug!(%error, "cannot note which removals are held back"),
        }
    }

    /// Entities whose removal is held back, in key order after `after`, at most `limit`.
    pub fn removals_held(&self, after: Option<&EntityKey>, limit: usize) -> Vec<EntityKey> {
        lock(&self.guard).held_after(after, limit)
    }

    pub(super) fn show_held(&self, held: usize) {
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        self.metrics.removals_held.set(held);
    }

    /// Has the guard count the removals of the runs before this one, before it judges its first.
    pub(super) async fn recall_removals(&self) -> Result<(), StateError> {
        loop {
            let recalled = self.recalled.get_or_try_init(async || {
                let recent = guard::recent_removals(self.state.as_ref(), self.clock.now()).await?;
                lock(&self.guard).recall(recent, self.clock.ticks());
                Ok(())
            });
            match recalled.await {
                Ok(()) => return Ok(()),
                Err(error) => self.store_trouble("count the removals", error).await?,
            }
        }
    }
}

/// Whether an answer is a signal of a removal.
pub(super) fn is_signal(answer: &Result<Answer, ReadError>) -> bool {
    match answer {
        Ok(Answer::Many(items)) => items.is_empty(),
        Err(ReadError::Gone { .. }) => true,
        _ => false,
    }
}

/// Marks that somebody waits for.
fn urgent(keys: Vec<EntityKey>) -> Vec<NewMark> {
    let mut marks = marks(keys, MarkClass::Notification);
    for mark in &mut marks {
        mark.urgent = true;
    }
    marks
}

/// Says that the guard has begun to hold removals back.
pub(super) fn tell() {
    tracing::warn!(
        "more vanishes at once than fetch.removalGuard allows: removals are held back; GET /removals on the admin port shows them, POST /removals/confirm lets them through"
    );
}
