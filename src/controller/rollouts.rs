//! Which subscriptions have their pods replaced now: a few at a time, so that a new image that does
//! not work reaches the others slowly, and somebody sees it before it has reached all.
//!
//! Owns: the slots, and who waits for one. Slots are not written down: the next operator finds out
//! whose pods are not through ([`Rollouts::resume`]). Never here: a first start, which replaces
//! nothing; a slot that is held for ever: a rollout that comes to no end gives it up after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fleet::Key;
use crate::clock::{Clock, Ticks};

/// How long a rollout that does not end holds its slot.
const PATIENCE: Duration = Duration::from_mins(10);

/// How soon after its begin a rollout may be found to be through: by then the watch shows the pod
/// that goes.
const SETTLING: Duration = Duration::from_secs(5);

/// A rollout that goes on.
struct Running {
    begun: Ticks,
    /// The digest of the template that it leads to.
    to: String,
}

#[derive(Default)]
struct Inner {
    running: BTreeMap<Key, Running>,
    waiting: BTreeSet<Key>,
}

/// See the module.
pub struct Rollouts {
    limit: usize,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

impl Rollouts {
    /// At most `limit` at a time.
    pub fn new(limit: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            limit: limit.max(1),
            clock,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a subscription's pods may be replaced by those of this template now; if not, it waits
    /// for a slot.
    pub fn begin(&self, key: &Key, to: &str) -> bool {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        if !inner.running.contains_key(key) && inner.running.len() >= self.limit {
            inner.waiting.insert(key.clone());
            return false;
        }
        inner.waiting.remove(key);
        match inner.running.get(key) {
            // One that is begun again and again, since it is refused, gets no more time by that.
            Some(running) if running.to == to => {}
            _ => {
                let to = to.to_owned();
                inner
                    .running
                    .insert(key.clone(), Running { begun: now, to });
            }
        }
        true
    }

    /// After a start: this one is not through that a former operator has begun. It holds a slot like
    /// any other, if there is one left: the former operator may have had a higher limit, and what
    /// never gets ready must not keep all others waiting.
    pub fn resume(&self, key: &Key, to: &str) {
        if self.lock().running.len() < self.limit {
            self.begin(key, to);
        }
    }

    /// Whether it waits for a slot, and there is one.
    pub fn may_begin(&self, key: &Key) -> bool {
        let inner = self.lock();
        inner.running.len() < self.limit && inner.waiting.contains(key)
    }

    /// It does not wait any more: there is nothing to replace. What it had begun keeps its slot.
    pub fn leave(&self, key: &Key) {
        self.lock().waiting.remove(key);
    }

    /// It is gone, or kept off for now.
    pub fn forget(&self, key: &Key) {
        let mut inner = self.lock();
        inner.running.remove(key);
        inner.waiting.remove(key);
    }

    /// Frees the slots of those that `settled` says are through, and of those that hold theirs for
    /// too long, which `given_up` hears of. Returns who may begin.
    pub fn free(&self, settled: impl Fn(&Key) -> bool, given_up: impl Fn(&Key)) -> Vec<Key> {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        inner.running.retain(|key, running| {
            let age = now.since(running.begun);
            let goes_on = age < SETTLING || !settled(key);
            if goes_on && age >= PATIENCE {
                given_up(key);
                return false;
            }
            goes_on
        });
        let free = self.limit.saturating_sub(inner.running.len());
        inner.waiting.iter().take(free).cloned().collect()
    }

    /// How many go on, and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.running.len(), inner.waiting.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::ByHand;
    use super::*;

    fn key(name: &str) -> Key {
        Key {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_few_at_a_time_and_none_for_ever() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(2, clock.clone());
        assert!(rollouts.begin(&key("a"), "new") && rollouts.begin(&key("b"), "new"));
        assert!(!rollouts.begin(&key("c"), "new"));
        assert!(rollouts.begin(&key("a"), "new"), "the one it has");
        assert!(!rollouts.may_begin(&key("c")), "both slots are taken");
        let step = Duration::from_secs(1);
        let given_up = Mutex::new(Vec::new());
        let free = |settled: &dyn Fn(&Key) -> bool| {
            rollouts.free(settled, |key| {
                given_up.lock().expect("no panic").push(key.clone());
            })
        };
        // What seems to be through at once has not begun.
        assert_eq!(free(&|_| true), []);
        clock.advance(Duration::from_secs(6), step).await;
        assert_eq!(free(&|_| false), []);
        assert_eq!(free(&|one| *one == key("b")), [key("c")]);
        assert!(given_up.lock().expect("no panic").is_empty());
        assert!(rollouts.may_begin(&key("c")) && !rollouts.may_begin(&key("b")));
        assert!(rollouts.begin(&key("c"), "new"));
        assert_eq!(rollouts.counts(), (2, 0));
        assert!(!rollouts.begin(&key("d"), "new") && !rollouts.begin(&key("e"), "new"));
        rollouts.leave(&key("e"));
        assert_eq!(rollouts.counts(), (2, 1));
        clock.advance(Duration::from_mins(9), step).await;
        assert!(rollouts.begin(&key("a"), "new"), "still the one it has");
        clock.advance(Duration::from_mins(1), step).await;
        assert_eq!(free(&|_| false), [key("d")]);
        assert_eq!(*given_up.lock().expect("no panic"), [key("a"), key("c")]);
        rollouts.forget(&key("d"));
        assert_eq!(rollouts.counts(), (0, 0));
    }

    #[tokio::test]
    async fn what_a_former_operator_has_begun_holds_a_slot() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(2, clock.clone());
        for name in ["a", "b", "c"] {
            rollouts.resume(&key(name), "old");
        }
        assert_eq!(rollouts.counts(), (2, 0), "no more than there are");
        assert!(!rollouts.begin(&key("d"), "new"));
        assert!(rollouts.begin(&key("a"), "new"), "in the slot that it has");
        let step = Duration::from_secs(1);
        clock.advance(Duration::from_secs(6), step).await;
        assert_eq!(rollouts.free(|one| *one == key("b"), |_| {}), [key("d")]);
    }

    #[tokio::test]
    async fn another_change_has_time_of_its_own_and_nothing_to_change_waits_for_nothing() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(1, clock.clone());
        let step = Duration::from_secs(10);
        let given_up = || {
            let found = Mutex::new(Vec::new());
            rollouts.free(
                |_| false,
                |key| found.lock().expect("no panic").push(key.clone()),
            );
            found.into_inner().expect("no panic")
        };
        assert!(rollouts.begin(&key("a"), "one"));
        clock.advance(Duration::from_mins(9), step).await;
        assert!(rollouts.begin(&key("a"), "two"));
        clock.advance(Duration::from_mins(9), step).await;
        assert_eq!(given_up(), []);
        assert!(!rollouts.begin(&key("b"), "one"));
        // Its change was taken back.
        rollouts.leave(&key("b"));
        clock.advance(Duration::from_mins(1), step).await;
        assert_eq!(given_up(), [key("a")]);
        assert!(!rollouts.may_begin(&key("b")));
        assert_eq!(rollouts.counts(), (0, 0));
    }
}
