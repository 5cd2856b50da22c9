//! A clock for unit tests: it stands still until it is told to go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Ticks, UnixMillis};

/// See the module.
pub struct ByHand(watch::Sender<u64>);

impl ByHand {
    /// At zero.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(0)))
    }

    /// Lets time pass, in steps that let sleepers wake one after another.
    pub async fn advance(&self, duration: Duration, step: Duration) {
        let end = self.ticks().after(duration);
        while self.ticks() < end {
            let left = end.since(self.ticks());
            let by = u64::try_from(step.min(left).as_millis()).expect("a short time");
            self.0.send_modify(|now| *now += by);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[async_trait::async_trait]
impl Clock for ByHand {
    fn now(&self) -> UnixMillis {
        UnixMillis(i64::try_from(*self.0.borrow()).expect("a short time"))
    }

    fn ticks(&self) -> Ticks {
        Ticks(*self.0.borrow())
    }

    async fn sleep(&self, duration: Duration) {
        let end = self.ticks().after(duration).0;
        let mut now = self.0.subscribe();
        // The sender lives in `self`.
        let _ = now.wait_for(|now| *now >= end).await;
    }
}
