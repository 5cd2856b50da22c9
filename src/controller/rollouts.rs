//! Which subscriptions have their pods replaced now: a few at a time, so that a new image that does
//! not work takes no more receivers out of service than there are slots.
//!
//! Owns: the slots, and who waits for one. Whoever had a receiver that was ready keeps the slot until
//! it has one again, as with `maxUnavailable` elsewhere in Kubernetes. Slots are not written down: the
//! next operator finds out whose pods are not through ([`Rollouts::resume`]), but not whether they
//! ever were ready; those give their slot up after a while.
//!
//! Never here: a first start, which replaces nothing; a slot for a receiver that is not ready anyway:
//! it has nothing to lose, and must not keep others waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fleet::Key;
use crate::clock::{Clock, Ticks};

/// After how long a rollout is said not to end.
const PATIENCE: Duration = Duration::from_mins(10);

/// How soon after its begin a rollout may be found to be through: by then the watch shows the pod
/// that goes.
const SETTLING: Duration = Duration::from_secs(5);

/// A rollout that goes on.
struct Running {
    begun: Ticks,
    /// The digest of the template that it leads to.
    to: String,
    /// Its receiver was ready before.
    was_ready: bool,
    /// It was said that it does not end.
    told: bool,
}

#[derive(Default)]
struct Inner {
    running: BTreeMap<Key, Running>,
    waiting: BTreeSet<Key>,
}

impl Inner {
    fn start(&mut self, key: &Key, begun: Ticks, to: &str, was_ready: bool) {
        let running = Running {
            begun,
            to: to.to_owned(),
            was_ready,
            told: false,
        };
        self.running.insert(key.clone(), running);
    }
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
    /// for a slot. `ready`: there is a receiver that would be taken out of service.
    pub fn begin(&self, key: &Key, to: &str, ready: bool) -> bool {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        let full = inner.running.len() >= self.limit;
        if let Some(running) = inner.running.get_mut(key) {
            // One that is begun again and again, since it is refused, gets no more time by that.
            if running.to != to {
                (running.begun, running.told) = (now, false);
                to.clone_into(&mut running.to);
            }
        } else if ready && full {
            inner.waiting.insert(key.clone());
            return false;
        } else if ready {
            inner.start(key, now, to, true);
        }
        inner.waiting.remove(key);
        true
    }

    /// After a start: this one is not through that a former operator has begun. It holds a slot like
    /// any other, if there is one left: the former operator may have had a higher limit.
    pub fn resume(&self, key: &Key, to: &str) {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        if inner.running.len() < self.limit {
            inner.start(key, now, to, false);
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

    /// Frees the slots of those that `settled` says are through. `stuck` hears once of each that comes
    /// to no end. Returns who may begin.
    pub fn free(&self, settled: impl Fn(&Key) -> bool, stuck: impl Fn(&Key)) -> Vec<Key> {
        let now = self.clock.ticks();
        let mut inner = self.lock();
        inner.running.retain(|key, running| {
            let age = now.since(running.begun);
            if age >= SETTLING && settled(key) {
                return false;
            }
            if age < PATIENCE {
                return true;
            }
            if !running.told {
                running.told = true;
                stuck(key);
            }
            running.was_ready
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

    const STEP: Duration = Duration::from_secs(10);

    fn key(name: &str) -> Key {
        Key {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        }
    }

    /// Who may begin, and of whom it was said that they come to no end.
    fn free(rollouts: &Rollouts, settled: &[&str]) -> (Vec<Key>, Vec<Key>) {
        let stuck = Mutex::new(Vec::new());
        let next = rollouts.free(
            |one| settled.iter().any(|name| *one == key(name)),
            |one| stuck.lock().expect("no panic").push(one.clone()),
        );
        (next, stuck.into_inner().expect("no panic"))
    }

    #[tokio::test]
    async fn a_few_at_a_time_and_what_does_not_end_stops_the_others() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(2, clock.clone());
        let begin = |name| rollouts.begin(&key(name), "new", true);
        assert!(begin("a") && begin("b"));
        assert!(!begin("c"));
        assert!(begin("a"), "the one it has");
        assert!(!rollouts.may_begin(&key("c")), "both slots are taken");
        // What seems to be through at once has not begun.
        assert_eq!(free(&rollouts, &["a", "b"]), (vec![], vec![]));
        clock.advance(STEP, STEP).await;
        assert_eq!(free(&rollouts, &[]), (vec![], vec![]));
        assert_eq!(free(&rollouts, &["b"]), (vec![key("c")], vec![]));
        assert!(rollouts.may_begin(&key("c")) && !rollouts.may_begin(&key("b")));
        assert!(begin("c"));
        assert_eq!(rollouts.counts(), (2, 0));
        assert!(!begin("d") && !begin("e"));
        rollouts.leave(&key("e"));
        assert_eq!(rollouts.counts(), (2, 1));
        clock.advance(Duration::from_mins(10), STEP).await;
        assert_eq!(free(&rollouts, &[]), (vec![], vec![key("a"), key("c")]));
        clock
            .advance(Duration::from_hours(10), Duration::from_mins(10))
            .await;
        assert_eq!(free(&rollouts, &[]), (vec![], vec![]), "said once");
        assert!(!begin("d"), "no more than there are slots");
        assert_eq!(free(&rollouts, &["a"]), (vec![key("d")], vec![]));
        rollouts.forget(&key("c"));
        assert_eq!(rollouts.counts(), (0, 1));
    }

    #[tokio::test]
    async fn who_has_nothing_to_lose_needs_no_slot() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(1, clock.clone());
        assert!(rollouts.begin(&key("never ready"), "new", false));
        assert_eq!(rollouts.counts(), (0, 0));
        assert!(rollouts.begin(&key("a"), "new", true));
        assert!(!rollouts.begin(&key("b"), "new", true));
        assert!(
            rollouts.begin(&key("b"), "new", false),
            "not ready any more"
        );
        assert_eq!(rollouts.counts(), (1, 0));
    }

    #[tokio::test]
    async fn what_a_former_operator_has_begun_holds_a_slot_for_a_while() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(2, clock.clone());
        for name in ["a", "b", "c"] {
            rollouts.resume(&key(name), "old");
        }
        assert_eq!(rollouts.counts(), (2, 0), "no more than there are");
        assert!(!rollouts.begin(&key("d"), "new", true));
        let mends = rollouts.begin(&key("a"), "new", false);
        assert!(mends, "in the slot that it has");
        clock.advance(STEP, STEP).await;
        assert_eq!(free(&rollouts, &["b"]), (vec![key("d")], vec![]));
        clock.advance(Duration::from_mins(10), STEP).await;
        assert_eq!(free(&rollouts, &[]), (vec![key("d")], vec![key("a")]));
        assert_eq!(rollouts.counts(), (0, 1), "perhaps it never was ready");
    }

    #[tokio::test]
    async fn another_change_has_time_of_its_own_and_nothing_to_change_waits_for_nothing() {
        let clock = ByHand::new();
        let rollouts = Rollouts::new(1, clock.clone());
        assert!(rollouts.begin(&key("a"), "one", true));
        clock.advance(Duration::from_mins(9), STEP).await;
        assert!(rollouts.begin(&key("a"), "two", false));
        clock.advance(Duration::from_mins(9), STEP).await;
        assert_eq!(free(&rollouts, &[]), (vec![], vec![]));
        assert!(!rollouts.begin(&key("b"), "one", true));
        // Its change was taken back.
        rollouts.leave(&key("b"));
        clock.advance(Duration::from_mins(1), STEP).await;
        assert_eq!(free(&rollouts, &[]), (vec![], vec![key("a")]));
        assert!(!rollouts.may_begin(&key("b")));
        assert_eq!(rollouts.counts(), (1, 0));
    }
}
