//! Tests of `state`: the contract, against any engine (`contract`), and what only the embedded
//! one can show (`embedded`, and with a small quota `full`).
//!
//! The oracle is the contract's text in `src/state.rs`; expected values are written out here.

mod contract;
mod embedded;
mod full;
mod late;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::{Clock, Ticks, UnixMillis};
use bellhop::state::{
    ChangeKind, EventAttributes, MarkAfter, NewEvent, Notification, Outcome, Settlement,
};
use tokio::sync::watch;

/// 2026-01-02T03:04:05Z.
pub const START: i64 = 1_767_323_045_000;

/// A clock that a test moves.
pub struct ManualClock {
    now: Mutex<UnixMillis>,
    ticks: watch::Sender<Ticks>,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            now: Mutex::new(UnixMillis(START)),
            ticks: watch::Sender::new(Ticks(1_000)),
        })
    }

    /// Both clocks go on.
    pub fn advance(&self, by: Duration) {
        let now = self.now().after(by);
        *self.now.lock().unwrap() = now;
        let ticks = self.ticks().after(by);
        self.ticks.send_replace(ticks);
    }

    /// The wall clock jumps.
    pub fn step(&self, millis: i64) {
        self.now.lock().unwrap().0 += millis;
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        *self.now.lock().unwrap()
    }

    fn ticks(&self) -> Ticks {
        *self.ticks.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.ticks().after(duration);
        let mut ticks = self.ticks.subscribe();
        ticks.wait_for(|ticks| *ticks >= until).await.unwrap();
    }
}

pub fn booking(id: &str) -> EntityKey {
    EntityKey::new(NotificationType::Booking, &[id]).unwrap()
}

/// A notification about `key` with a sum of its own, stamped and received now.
pub fn notification(key: &EntityKey, sum: u64, now: UnixMillis) -> Notification {
    let mut digest = vec![0; 32];
    digest[..8].copy_from_slice(&sum.to_le_bytes());
    Notification {
        rule: key.kind(),
        key: Some(key.clone()),
        removed: false,
        sum: digest,
        timestamp: UnixMillis::from_secs(now.as_secs()),
        received: now,
        body: bytes::Bytes::new(),
        traceparent: None,
    }
}

/// A settlement that publishes `data` and clears the mark.
pub fn publish(clock: &dyn Clock, data: &str) -> Settlement {
    Settlement {
        event: Some(NewEvent {
            change: ChangeKind::Updated,
            data: Some(data.as_bytes().to_vec()),
            attributes: EventAttributes::default(),
        }),
        outcome: Outcome::Changed,
        ..unchanged(clock)
    }
}

/// A settlement that publishes a removal.
pub fn remove(clock: &dyn Clock) -> Settlement {
    Settlement {
        event: Some(NewEvent {
            change: ChangeKind::Removed,
            data: None,
            attributes: EventAttributes::default(),
        }),
        outcome: Outcome::Removed,
        ..unchanged(clock)
    }
}

/// A settlement that found nothing new.
pub fn unchanged(clock: &dyn Clock) -> Settlement {
    Settlement {
        outcome: Outcome::Unchanged,
        fetched: clock.now(),
        started: clock.ticks(),
        confirms: true,
        event: None,
        memo: None,
        mark: MarkAfter::Clear,
        children: Vec::new(),
        dead_letter: None,
        forget_after: None,
        forget: false,
    }
}
