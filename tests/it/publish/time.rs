//! A clock that moves only when the test says so, and jumps to where the next sleeper wakes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bellhop::clock::{Clock, Ticks, UnixMillis};
use tokio::sync::oneshot;

#[derive(Default)]
pub struct TestClock(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    now: u64,
    number: u64,
    sleepers: BTreeMap<(u64, u64), oneshot::Sender<()>>,
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_767_323_045_000 + self.ticks().0 as i64)
    }
    fn ticks(&self) -> Ticks {
        Ticks(self.0.lock().unwrap().now)
    }
    async fn sleep(&self, duration: Duration) {
        let wakes = {
            let mut inner = self.0.lock().unwrap();
            let until = inner.now + duration.as_millis() as u64;
            inner.number += 1;
            let key = (until, inner.number);
            let (sender, receiver) = oneshot::channel();
            inner.sleepers.insert(key, sender);
            receiver
        };
        let _ = wakes.await;
    }
}

impl TestClock {
    /// To the next sleeper that is still there, at most to `limit`. `false`: none wakes by then.
    fn step(&self, limit: u64) -> bool {
        let mut inner = self.0.lock().unwrap();
        inner.sleepers.retain(|_, sender| !sender.is_closed());
        let first = inner.sleepers.first_key_value();
        let until = first.map_or(u64::MAX, |((until, _), _)| *until);
        if until > limit {
            inner.now = limit;
            return false;
        }
        inner.now = inner.now.max(until);
        let later = inner.sleepers.split_off(&(until + 1, 0));
        for (_, sender) in std::mem::replace(&mut inner.sleepers, later) {
            let _ = sender.send(());
        }
        true
    }

    /// Runs everything else until it waits for time, moves time on, and so on, for at most
    /// `span`, or until `done`. Gives whether it became `done`.
    pub async fn run(&self, span: Duration, done: impl Fn() -> bool) -> bool {
        let limit = self.ticks().0 + span.as_millis() as u64;
        loop {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            if done() {
                return true;
            }
            if !self.step(limit) && self.ticks().0 >= limit {
                return done();
            }
        }
    }
}
