//! The request budget of the reseller API, shared by all that reads.
//!
//! Owns: who may ask next. A worker takes a permit *before* it claims, so that a notification
//! that comes in while the budget is spent goes before a resync mark that waited longer; each
//! tenth permit prefers the resync, which therefore never starves. Waiting is in order of arrival.
//! When the provider asks for patience (`Retry-After`), nobody asks for that long: its limits are
//! those of the channel, not of an entity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Ticks};
use crate::provider::budget::TokenBucket;
use crate::provider::{Answer, Read, ReadError, Reads};
use crate::state::MarkClass;

/// Of so many permits, one prefers the resync.
const RESYNC_SHARE: u64 = 10;
/// Patience that the provider may ask of all at once; after it, somebody looks again.
const LONGEST_HOLD: Duration = Duration::from_mins(5);

/// After a pause so many may go at once: a tenth of a second's. With more of them, the first second
/// after it would see twice the rate that the provider was promised.
const fn burst(per_second: u32) -> u32 {
    per_second / 10
}

/// Hands out permits at the rate of the subscription.
#[derive(Debug)]
pub(super) struct Budget {
    bucket: tokio::sync::Mutex<Bucket>,
    /// Permits that were given back unused.
    spare: AtomicU64,
    /// No permit before this tick.
    held: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    tokens: TokenBucket,
    given: u64,
}

/// The right to make one request. Dropped unused, it goes back.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    budget: &'a Budget,
    /// Which marks should be worked on with it.
    pub prefer: MarkClass,
    used: bool,
}

impl Budget {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            bucket: tokio::sync::Mutex::new(Bucket {
                tokens: TokenBucket::new(per_second, burst(per_second)),
                given: 0,
            }),
            spare: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Makes a request, with a permit that is spent. When the provider asks for patience, there is no
    /// further permit for this long, at most five minutes.
    pub(super) async fn read(
        &self,
        reads: &dyn Reads,
        read: &Read,
        clock: &Arc<dyn Clock>,
    ) -> Result<Answer, ReadError> {
        let answer = reads.read(read).await;
        if let Err(ReadError::Retry {
            after: Some(wait), ..
        }) = &answer
        {
            self.hold(*wait, clock.ticks());
        }
        answer
    }

    fn hold(&self, wait: Duration, now: Ticks) {
        let until = now.after(wait.min(LONGEST_HOLD));
        self.held.fetch_max(until.0, Ordering::AcqRel);
    }

    /// Waits for a permit.
    pub(super) async fn permit(&self, clock: &Arc<dyn Clock>) -> Permit<'_> {
        let mut bucket = self.bucket.lock().await;
        loop {
            let held = Ticks(self.held.load(Ordering::Acquire)).since(clock.ticks());
            if !held.is_zero() {
                clock.sleep(held).await;
                continue;
            }
            if self.take_spare() {
                break;
            }
            match bucket.tokens.take(clock.ticks()) {
                Ok(()) => break,
                Err(wait) => clock.sleep(wait).await,
            }
        }
        bucket.given = bucket.given.wrapping_add(1);
        let prefer = if bucket.given.is_multiple_of(RESYNC_SHARE) {
            MarkClass::Resync
        } else {
            MarkClass::Notification
        };
        Permit {
            budget: self,
            prefer,
            used: false,
        }
    }

    fn take_spare(&self) -> bool {
        self.spare
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |spare| {
                spare.checked_sub(1)
            })
            .is_ok()
    }
}

impl Permit<'_> {
    /// A request was made with it.
    pub(super) fn spend(mut self) {
        self.used = true;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.budget.spare.fetch_add(1, Ordering::AcqRel);
        }
    }
}
