//! The breaker of one sink: whether the sink is well, and when to ask it again.
//!
//! Owns: opening at the first sign that the sink is not well, probing with growing intervals, and
//! the fair question "is it the sink, or this one event?": a few *other* entities may probe at
//! once, so that one event that a sink chokes on holds up nobody else.
//!
//! Never here: what is sent, or what becomes of it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::EntityKey;
use crate::clock::Ticks;

/// Probes are never further apart, unless the sink itself asks for it.
const LONGEST_INTERVAL: Duration = Duration::from_mins(1);
/// So many different entities must fail before only the interval decides.
const WITNESSES: usize = 3;

/// One sink's breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    first_interval: Duration,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Ticks,
    interval: Duration,
    next: Ticks,
    /// The sink asked for time: nobody probes before `next`.
    asked: bool,
    failed: BTreeSet<EntityKey>,
}

/// Who may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Anyone.
    Closed,
    /// One event, of any entity.
    Probe,
    /// One event, of an entity that did not fail yet.
    Witness,
    /// Nobody.
    Shut,
}

impl Breaker {
    pub(super) fn new(first_interval: Duration) -> Self {
        Self {
            first_interval: first_interval.clamp(Duration::from_millis(100), LONGEST_INTERVAL),
            open: None,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn gate(&self, now: Ticks) -> Gate {
        match &self.open {
            None => Gate::Closed,
            Some(open) if now >= open.next => Gate::Probe,
            Some(open) if !open.asked && open.failed.len() < WITNESSES => Gate::Witness,
            Some(_) => Gate::Shut,
        }
    }

    /// Whether this entity failed since the breaker opened.
    pub(super) fn failed(&self, key: &EntityKey) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.failed.contains(key))
    }

    /// When the next probe is due.
    pub(super) fn next(&self) -> Option<Ticks> {
        self.open.as_ref().map(|open| open.next)
    }

    /// The sink took, or understood, an event that was sent at `started`. `true` when that closed
    /// the breaker: what was sent before the trouble began proves nothing.
    pub(super) fn success(&mut self, started: Ticks) -> bool {
        let closes = self.open.as_ref().is_some_and(|open| started >= open.since);
        if closes {
            self.open = None;
        }
        closes
    }

    /// The sink was not well. `jitter` is in 0..1. `true` when that opened the breaker.
    pub(super) fn failure(
        &mut self,
        key: &EntityKey,
        now: Ticks,
        retry_after: Option<Duration>,
        jitter: f64,
    ) -> bool {
        let opens = self.open.is_none();
        let open = self.open.get_or_insert_with(|| Open {
            since: now,
            interval: self.first_interval,
            next: now,
            asked: false,
            failed: BTreeSet::new(),
        });
        // Failures of what was still in flight belong to the interval that runs already.
        let probe = opens || now >= open.next;
        if open.failed.len() < WITNESSES {
            open.failed.insert(key.clone());
        }
        if probe {
            let wait = open.interval.mul_f64(1.0 - jitter * 0.2);
            open.next = now.after(wait.max(Duration::from_millis(1)));
            open.interval = (open.interval * 2).min(LONGEST_INTERVAL);
            open.asked = false;
        }
        if let Some(wait) = retry_after {
            open.next = open.next.max(now.after(wait));
            open.asked = true;
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> EntityKey {
        format!("booking/{id}").parse().unwrap()
    }

    #[test]
    fn probes_grow_to_a_minute_and_never_stop() {
        let mut breaker = Breaker::new(Duration::from_secs(1));
        let mut now = Ticks(0);
        let mut waits = Vec::new();
        for id in ["a", "b", "c"] {
            breaker.failure(&key(id), now, None, 0.0);
        }
        for _ in 0..9 {
            assert_eq!(breaker.gate(now), Gate::Shut);
            let next = breaker.next().unwrap();
            waits.push(next.since(now).as_secs());
            now = next;
            assert_eq!(breaker.gate(now), Gate::Probe);
            assert!(!breaker.failure(&key("a"), now, None, 0.0));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(breaker.success(now));
        assert_eq!(breaker.gate(now), Gate::Closed);
    }

    #[test]
    fn another_entity_may_ask_at_once_unless_the_sink_asked_for_time() {
        let mut breaker = Breaker::new(Duration::from_secs(1));
        assert!(breaker.failure(&key("a"), Ticks(5), None, 0.0));
        assert_eq!(breaker.gate(Ticks(5)), Gate::Witness);
        assert!(breaker.failed(&key("a")) && !breaker.failed(&key("b")));
        breaker.failure(&key("b"), Ticks(6), Some(Duration::from_secs(90)), 0.0);
        assert_eq!(breaker.gate(Ticks(60_000)), Gate::Shut);
        assert_eq!(breaker.gate(Ticks(90_006)), Gate::Probe);
    }

    #[test]
    fn a_success_that_began_before_the_trouble_proves_nothing() {
        let mut breaker = Breaker::new(Duration::from_secs(1));
        breaker.failure(&key("a"), Ticks(100), None, 0.0);
        assert!(!breaker.success(Ticks(99)));
        assert!(breaker.is_open());
        assert!(breaker.success(Ticks(100)));
    }
}
