//! How many consumers wait at the feed at a time.
//!
//! Owns: the bound, and who makes room: a watcher that has not taken anything for a minute (its
//! connection hangs) loses its place to one that comes, and ends when it wakes.
//!
//! Never here: events held for a slow consumer. Each reads from the store at its own pace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use crate::clock::Ticks;

/// Heartbeats come every 15 s: who takes none for so long is not reading.
const STALLED: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(super) struct Watchers {
    most: usize,
    gauge: Gauge,
    now: Mutex<(u64, BTreeMap<u64, Ticks>)>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    watchers: Arc<Watchers>,
    number: u64,
}

impl Watchers {
    pub(super) fn new(most: usize, gauge: Gauge) -> Self {
        Self {
            most,
            gauge,
            now: Mutex::default(),
        }
    }

    /// A place, if there is one.
    pub(super) fn enter(self: &Arc<Self>, at: Ticks) -> Option<Place> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, places) = &mut *now;
        if places.len() >= self.most {
            let stalled = places.iter().min_by_key(|(_, taken)| **taken);
            let (&number, _) = stalled.filter(|(_, taken)| at.since(**taken) >= STALLED)?;
            places.remove(&number);
        }
        *last += 1;
        places.insert(*last, at);
        self.gauge.set(places.len() as i64);
        Some(Place {
            watchers: self.clone(),
            number: *last,
        })
    }
}

impl Place {
    /// The consumer took something. `false` when the place is lost.
    pub(super) fn keep(&self, at: Ticks) -> bool {
        let mut now = self
            .watchers
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        now.1
            .get_mut(&self.number)
            .map(|taken| *taken = at)
            .is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut now = self
            .watchers
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        now.1.remove(&self.number);
        self.watchers.gauge.set(now.1.len() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stalls_loses_the_place_to_one_who_comes() {
        let watchers = Arc::new(Watchers::new(2, Gauge::default()));
        let slow = watchers.enter(Ticks(0)).unwrap();
        let quick = watchers.enter(Ticks(0)).unwrap();
        assert!(watchers.enter(Ticks(59_999)).is_none());
        assert!(quick.keep(Ticks(50_000)));
        let new = watchers.enter(Ticks(60_000)).unwrap();
        assert!(!slow.keep(Ticks(60_001)));
        assert!(quick.keep(Ticks(60_001)) && new.keep(Ticks(60_001)));
        drop(new);
        assert!(watchers.enter(Ticks(60_002)).is_some());
    }
}
