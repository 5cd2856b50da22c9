//! How often known signatures may come again.
//!
//! Owns: one token bucket per rule, and which signatures found it empty. Never here: a word about a
//! signature that comes for the first time; more memory than [`MAX_REPEATED`] signatures.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Ticks;
use crate::provider::budget::TokenBucket;

/// Signatures that are remembered as repeated, per rule.
const MAX_REPEATED: usize = 256;

/// The repeats of one rule.
pub(super) struct Repeats(Mutex<Inner>);

struct Inner {
    bucket: TokenBucket,
    sums: Vec<Vec<u8>>,
    next: usize,
}

impl Repeats {
    /// `per_second` for long, `burst` at once.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self(Mutex::new(Inner {
            bucket: TokenBucket::new(per_second, burst),
            sums: Vec::new(),
            next: 0,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this signature is known to repeat and the bucket is empty: not worth the store.
    pub(super) fn exhausted(&self, sum: &[u8], now: Ticks) -> bool {
        let mut repeats = self.lock();
        repeats.sums.iter().any(|known| known == sum) && repeats.bucket.available(now) == 0
    }

    /// Counts a repeat against the bucket; `false` when it was empty. Only signatures that found it
    /// empty are remembered: as long as nobody floods, there is nothing to compare with.
    pub(super) fn take(&self, sum: &[u8], now: Ticks) -> bool {
        let repeats = &mut *self.lock();
        if repeats.bucket.take(now).is_ok() {
            return true;
        }
        let slot = repeats.next % MAX_REPEATED;
        repeats.next = slot + 1;
        if slot < repeats.sums.len() {
            sum.clone_into(&mut repeats.sums[slot]);
        } else {
            repeats.sums.push(sum.to_vec());
        }
        false
    }
}
