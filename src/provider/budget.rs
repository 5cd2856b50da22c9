//! The request budget: a token bucket over monotonic time.
//!
//! Owns: the arithmetic, in whole thousandths of a token, so that no rounding error adds up.
//! Never here: wall time (a stepping clock must neither stop requests nor let a burst through).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Ticks};

/// Thousandths in one token. With time in milliseconds, each millisecond adds exactly `per_second`
/// of them.
const TOKEN: u64 = 1000;

/// Lets `per_second` requests a second through, and up to `burst` at once after a pause.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: u64,
    capacity: u64,
    /// Thousandths of a token at `as_of`.
    level: u64,
    /// `None` until the first take: a bucket starts full, at whatever time that is.
    as_of: Option<Ticks>,
}

impl TokenBucket {
    /// A full bucket. Both numbers are at least 1; a 0 is taken as 1, since a bucket that never
    /// lets anything through would stall its caller for ever.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let full = u64::from(burst.max(1)) * TOKEN;
        Self {
            per_second: u64::from(per_second.max(1)),
            // A started token is kept on top: cut off at `full`, each take that comes a part of a
            // millisecond late would lose that part, and the rate would never be reached.
            capacity: full + TOKEN - 1,
            level: full,
            as_of: None,
        }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// How long to wait before the next token is there, 1 ms at least; nothing is taken. Somebody
    /// else may be quicker: ask again after the wait.
    pub fn take(&mut self, now: Ticks) -> Result<(), Duration> {
        self.refill(now);
        match self.level.checked_sub(TOKEN) {
            Some(rest) => {
                self.level = rest;
                Ok(())
            }
            None => Err(Duration::from_millis(
                (TOKEN - self.level).div_ceil(self.per_second),
            )),
        }
    }

    /// How many requests would be let through at `now`.
    pub fn available(&mut self, now: Ticks) -> u64 {
        self.refill(now);
        self.level / TOKEN
    }

    fn refill(&mut self, now: Ticks) {
        if let Some(as_of) = self.as_of {
            // A caller with an older reading of the clock must not make later time count twice.
            if now <= as_of {
                return;
            }
            let gained = (now.0 - as_of.0).saturating_mul(self.per_second);
            self.level = self.level.saturating_add(gained).min(self.capacity);
        }
        self.as_of = Some(now);
    }
}

/// Takes one token of a shared bucket, waiting for it on `clock` if need be.
pub async fn pace(bucket: &Mutex<TokenBucket>, clock: &dyn Clock) {
    loop {
        let taken = bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(clock.ticks());
        match taken {
            Ok(()) => return,
            Err(wait) => clock.sleep(wait).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks at every millisecond of `span` and counts what is let through.
    fn taken(bucket: &mut TokenBucket, from: u64, span: u64) -> u64 {
        (from..from + span)
            .filter(|ms| bucket.take(Ticks(*ms)).is_ok())
            .count() as u64
    }

    #[test]
    fn a_full_bucket_lets_its_burst_through_and_then_its_rate() {
        let mut bucket = TokenBucket::new(5, 3);
        let start = Ticks(70_000);
        assert_eq!(bucket.available(start), 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(start), Ok(()));
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(200)));
        // The wait it names is enough, and one millisecond less is not.
        assert_eq!(bucket.take(Ticks(70_199)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(Ticks(70_200)), Ok(()));
        assert_eq!(taken(&mut bucket, 70_201, 10_000), 50);
    }

    #[test]
    fn rates_that_do_not_divide_a_second_lose_nothing_over_time() {
        for rate in [1_u32, 3, 7, 10, 333, 999, 1000] {
            let mut bucket = TokenBucket::new(rate, 1);
            // The one that the bucket starts with, and the rate for each of 60 seconds.
            assert_eq!(
                taken(&mut bucket, 0, 60_001),
                1 + u64::from(rate) * 60,
                "{rate}/s"
            );
        }
    }

    #[test]
    fn a_pause_fills_no_more_than_the_burst() {
        let mut bucket = TokenBucket::new(1000, 10);
        assert_eq!(bucket.take(Ticks(0)), Ok(()));
        assert_eq!(bucket.available(Ticks(u64::MAX)), 10);
    }

    #[test]
    fn an_older_reading_of_the_clock_adds_nothing() {
        let mut bucket = TokenBucket::new(10, 1);
        assert_eq!(bucket.take(Ticks(1_000)), Ok(()));
        assert!(bucket.take(Ticks(500)).is_err());
        assert!(bucket.take(Ticks(1_050)).is_err());
        assert_eq!(bucket.take(Ticks(1_100)), Ok(()));
    }

    #[test]
    fn zero_is_taken_as_one() {
        let mut bucket = TokenBucket::new(0, 0);
        assert_eq!(bucket.take(Ticks(0)), Ok(()));
        assert_eq!(bucket.take(Ticks(0)), Err(Duration::from_secs(1)));
    }
}
