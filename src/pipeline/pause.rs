//! The pause after the provider refused the credentials.
//!
//! Owns: whether fetching is paused, and the way out: credentials are read anew, and one small
//! read shows whether the provider takes them. Marks stay as they are meanwhile. A 403 may be about
//! one entity only (a booking of somebody else): the same small read tells, before all pause.
//!
//! Never here: a decision about an entity, or more than one probe at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::budget::Budget;
use crate::clock::{Clock, Ticks};
use crate::provider::{Read, ReadError, Reads};

/// The first wait before a probe; doubles up to [`LONGEST`] while nothing changes.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait between two probes with the same credentials.
const LONGEST: Duration = Duration::from_mins(5);
/// Credentials are read anew this often: a changed Secret is noticed within this time.
const RELOAD: Duration = Duration::from_secs(10);
/// For so long after the provider took the credentials, a 403 is about its entity.
const TRUSTED: Duration = Duration::from_secs(10);

/// Whether the provider takes our credentials.
#[derive(Debug, Default)]
pub(super) struct Pause {
    /// The status that the provider refused us with; 0 while it does not.
    refused: AtomicU16,
    /// Held while somebody probes; until when a probe's good answer counts.
    probing: tokio::sync::Mutex<Ticks>,
}

impl Pause {
    /// The provider refused us.
    pub(super) fn begin(&self, status: u16) {
        if self.refused.swap(status, Ordering::AcqRel) == 0 {
            tracing::error!(
                status,
                "the provider refuses the credentials: fetching pauses until they change; \
                 put valid keys into the credentials Secret"
            );
        }
    }

    /// The status we are refused with.
    pub(super) fn refused(&self) -> Option<u16> {
        match self.refused.load(Ordering::Acquire) {
            0 => None,
            status => Some(status),
        }
    }

    /// Whether a 403 is about the credentials, and not about the entity that was asked for.
    pub(super) async fn is_for_all(
        &self,
        reads: &dyn Reads,
        budget: &Budget,
        clock: &Arc<dyn Clock>,
    ) -> bool {
        let mut trusted = self.probing.lock().await;
        if clock.ticks() < *trusted {
            return false;
        }
        budget.permit(clock).await.spend();
        match budget.read(reads, &Read::Suppliers, clock).await {
            Err(ReadError::Unauthorized { .. }) => true,
            Ok(_) => {
                *trusted = clock.ticks().after(TRUSTED);
                false
            }
            // A provider that is not well says nothing about the credentials.
            Err(_) => false,
        }
    }

    /// Returns when fetching is not paused. Whoever waits first probes for all.
    pub(super) async fn passed(&self, reads: &dyn Reads, budget: &Budget, clock: &Arc<dyn Clock>) {
        if self.refused().is_none() {
            return;
        }
        let _probing = self.probing.lock().await;
        let mut wait = FIRST;
        let mut waited = Duration::ZERO;
        while self.refused().is_some() {
            let step = RELOAD.min(wait.saturating_sub(waited));
            clock.sleep(step).await;
            waited += step;
            if !reads.reload_credentials().await && waited < wait {
                continue;
            }
            budget.permit(clock).await.spend();
            match reads.read(&Read::Suppliers).await {
                Err(ReadError::Unauthorized { status }) => {
                    self.refused.store(status, Ordering::Release);
                    wait = wait.saturating_mul(2).min(LONGEST);
                    waited = Duration::ZERO;
                }
                // A provider that is not well says nothing about the credentials.
                Err(ReadError::Retry { after, .. }) => {
                    wait = FIRST.max(after.unwrap_or_default()).min(LONGEST);
                    waited = Duration::ZERO;
                }
                Ok(_) | Err(ReadError::Gone { .. } | ReadError::Refused { .. }) => {
                    self.refused.store(0, Ordering::Release);
                    tracing::info!("the provider takes the credentials: fetching goes on");
                }
            }
        }
    }
}
