//! The walk of a resync: over what consumers have, then over the provider's lists.
//!
//! Owns: which entities are marked, in pages that wait for each other, and how a list is read.
//! Never here: when a resync begins or whether it is the last one; a removal.

use std::time::Duration;

use super::{ResyncProgress, Step};
use crate::api::{EntityKey, NotificationType};
use crate::pipeline::{Pipeline, children, marks};
use crate::provider::{Answer, ListItem, Read, ReadError};
use crate::state::{ChangeKind, MarkClass, StateError};

/// Entities marked in one step.
const PAGE: usize = 500;
/// The next page waits while more resync marks than this wait to be read.
const WAITING: u64 = 2_000;
/// How often a full backlog is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Waits after a list read that failed: first and longest.
const LIST_FIRST: Duration = Duration::from_secs(2);
const LIST_LONGEST: Duration = Duration::from_mins(5);

impl Pipeline {
    /// Marks what consumers have.
    pub(super) async fn mark_known(&self, progress: &mut ResyncProgress) -> Result<(), StateError> {
        while let Step::Known(after) = &progress.step {
            let page = match self.state.list(None, after.as_ref(), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    self.store_trouble("list what is known", error).await?;
                    continue;
                }
            };
            let keys: Vec<EntityKey> = page
                .items
                .into_iter()
                .map(|event| event.key)
                .filter(|key| progress.kinds.contains(&key.kind()))
                .collect();
            self.mark_page(progress, keys).await?;
            progress.step = match page.next {
                Some(next) => Step::Known(Some(next)),
                None => Step::Lists(None),
            };
            self.note(progress).await?;
        }
        Ok(())
    }

    /// Marks what the lists have and consumers have not.
    pub(super) async fn walk_lists(&self, progress: &mut ResyncProgress) -> Result<(), StateError> {
        let done = match &progress.step {
            Step::Lists(done) => done.clone(),
            Step::Known(_) => None,
        };
        let below = progress
            .kinds
            .iter()
            .any(|kind| !matches!(kind, NotificationType::Booking | NotificationType::Supplier));
        for supplier in self.listed(&mut progress.refused, &Read::Suppliers).await? {
            let resumed = done.as_ref().filter(|(done, _)| *done >= supplier.id);
            let after = match resumed {
                Some((done, Some(product))) if *done == supplier.id => Some(product.clone()),
                Some(_) => continue,
                None => None,
            };
            if after.is_none() {
                let keys = self
                    .unknown(progress, NotificationType::Supplier, &[&supplier.id])
                    .await?;
                self.mark_page(progress, keys).await?;
            }
            if below {
                self.walk_products(progress, &supplier.id, after).await?;
            }
            progress.step = Step::Lists(Some((supplier.id, None)));
            self.note(progress).await?;
        }
        Ok(())
    }

    async fn walk_products(
        &self,
        progress: &mut ResyncProgress,
        supplier: &str,
        after: Option<String>,
    ) -> Result<(), StateError> {
        let read = Read::Products {
            supplier: supplier.to_owned(),
        };
        // A binding's own read lists its rates; without bindings they are listed here.
        let bindings = progress.kinds.contains(&NotificationType::ChannelBinding);
        let rates = !bindings
            && [
                NotificationType::Rate,
                NotificationType::Availability,
                NotificationType::PriceSchedule,
            ]
            .iter()
            .any(|kind| progress.kinds.contains(kind));
        for product in self.listed(&mut progress.refused, &read).await? {
            if after.as_ref().is_some_and(|after| product.id <= *after) {
                continue;
            }
            let ids = [supplier, product.id.as_str()];
            let mut keys = self
                .unknown(progress, NotificationType::Product, &ids)
                .await?;
            keys.extend(
                self.unknown(progress, NotificationType::ChannelBinding, &ids)
                    .await?,
            );
            if rates {
                keys.extend(self.unknown_rates(progress, supplier, &product.id).await?);
            }
            let marked = !keys.is_empty();
            self.mark_page(progress, keys).await?;
            progress.step = Step::Lists(Some((supplier.to_owned(), Some(product.id))));
            if marked || rates {
                self.note(progress).await?;
            }
        }
        Ok(())
    }

    async fn unknown_rates(
        &self,
        progress: &mut ResyncProgress,
        supplier: &str,
        product: &str,
    ) -> Result<Vec<EntityKey>, StateError> {
        let read = Read::Rates {
            supplier: supplier.to_owned(),
            product: product.to_owned(),
        };
        let mut keys = Vec::new();
        for rate in self.listed(&mut progress.refused, &read).await? {
            let ids = [supplier, product, rate.id.as_str()];
            keys.extend(self.unknown(progress, NotificationType::Rate, &ids).await?);
            keys.extend(
                self.unknown(progress, NotificationType::PriceSchedule, &ids)
                    .await?,
            );
            if children::reserved(rate.data.get()) {
                keys.extend(
                    self.unknown(progress, NotificationType::Availability, &ids)
                        .await?,
                );
            }
        }
        Ok(keys)
    }

    /// The key, if its type is covered and consumers do not have it.
    async fn unknown(
        &self,
        progress: &ResyncProgress,
        kind: NotificationType,
        ids: &[&str],
    ) -> Result<Vec<EntityKey>, StateError> {
        let Ok(key) = EntityKey::new(kind, ids) else {
            return Ok(Vec::new());
        };
        if !progress.kinds.contains(&kind) {
            return Ok(Vec::new());
        }
        let newest = loop {
            match self.state.entity(&key).await {
                Ok(newest) => break newest,
                Err(error) => self.store_trouble("look up what is known", error).await?,
            }
        };
        let known = newest.is_some_and(|event| event.change != ChangeKind::Removed);
        Ok(if known { Vec::new() } else { vec![key] })
    }

    /// A list of the provider, sorted by id. What does not exist is an empty list: whatever was
    /// known below it is marked already.
    async fn listed(
        &self,
        refused: &mut Option<String>,
        read: &Read,
    ) -> Result<Vec<ListItem>, StateError> {
        let mut wait = LIST_FIRST;
        loop {
            self.pause
                .passed(self.reads.as_ref(), &self.budget, &self.clock)
                .await;
            self.budget.permit(&self.clock).await.spend();
            let after = match self
                .budget
                .read(self.reads.as_ref(), read, &self.clock)
                .await
            {
                Ok(Answer::Many(mut items)) => {
                    items.sort_unstable_by(|one, other| one.id.cmp(&other.id));
                    return Ok(items);
                }
                Ok(Answer::One(_)) | Err(ReadError::Gone { .. }) => return Ok(Vec::new()),
                Err(error @ ReadError::Unauthorized { status }) => {
                    self.refused(status).await;
                    if self.pause.refused().is_none() {
                        return Ok(skipped(refused, read, error.to_string()));
                    }
                    None
                }
                Err(ReadError::Refused { reason }) => return Ok(skipped(refused, read, reason)),
                Err(ReadError::Retry { reason, after }) => {
                    tracing::info!(reason, "the resync waits for the provider");
                    after
                }
            };
            self.clock
                .sleep(wait.max(after.unwrap_or_default()).min(LIST_LONGEST))
                .await;
            wait = wait.saturating_mul(2).min(LIST_LONGEST);
        }
    }

    /// Marks, once the marks of earlier pages are mostly read.
    async fn mark_page(
        &self,
        progress: &mut ResyncProgress,
        keys: Vec<EntityKey>,
    ) -> Result<(), StateError> {
        for page in keys.chunks(PAGE) {
            while self.state.stats().resync_marks > WAITING {
                self.clock.sleep(LOOK_AGAIN).await;
            }
            while let Err(error) = self
                .state
                .mark(marks(page.iter().cloned(), MarkClass::Resync))
                .await
            {
                self.store_trouble("mark for the resync", error).await?;
            }
            progress.marked += page.len() as u64;
            self.metrics.resync_marks.inc_by(page.len() as u64);
        }
        Ok(())
    }
}

/// A list that the provider refuses is left out, and said to be.
fn skipped(refused: &mut Option<String>, read: &Read, reason: String) -> Vec<ListItem> {
    tracing::warn!(
        ?read,
        reason,
        "the resync skips a list that the provider refuses"
    );
    *refused = Some(reason);
    Vec::new()
}
