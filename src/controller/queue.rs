//! Which subscription is worked on when.
//!
//! Owns: one pass at a time per subscription, a bounded number at a time over all (not counting those
//! that only wait for receivers, which have a bound of their own), the delay until the next one, and back-off with jitter per subscription. A subscription that is asked for while
//! it is worked on gets another pass right after.
//!
//! Never here: what a pass does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::metrics::ControllerMetrics;
use crate::clock::{Clock, Ticks};

/// The first delay after a pass that ended in trouble.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest one.
const LAST_RETRY: Duration = Duration::from_mins(5);

/// So many passes at most wait beside those that work.
const MOST_PARKED: usize = 1_000;

/// When to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When somebody asks.
    WhenAsked,
    /// After this time, or when somebody asks.
    After(Duration),
    /// Nothing was done, since nothing changed: what was said before holds.
    AsBefore,
    /// After this time, and it was nobody's fault.
    Soon(Duration),
    /// Something went wrong: with growing delay, but not before this time.
    Retry {
        /// What the other side asked for.
        at_least: Duration,
    },
}

/// Asks for passes. Cheap to clone.
#[derive(Debug)]
pub struct Asker<K>(mpsc::UnboundedSender<K>);

impl<K> Clone for Asker<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Asker<K> {
    /// A pass now, or right after the one that is running.
    pub fn ask(&self, key: K) {
        // Nobody listens any more: the process is ending.
        let _ = self.0.send(key);
    }
}

/// Where passes are that only wait for somebody else: they take no place from those that work. Cheap
/// to clone.
#[derive(Debug, Clone, Default)]
pub struct Parking(Arc<Parked>);

#[derive(Debug, Default)]
struct Parked {
    count: AtomicUsize,
    changed: Notify,
}

/// A pass that waits, until this is dropped.
#[derive(Debug)]
pub struct Place(Parking);

impl Parking {
    /// A pass waits from now on.
    pub fn enter(&self) -> Place {
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.changed.notify_one();
        Place(self.clone())
    }

    fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed).min(MOST_PARKED)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.0.changed.notify_one();
    }
}

#[derive(Default)]
struct Slot {
    /// When the last pass wanted to come back.
    due: Option<Ticks>,
    waiting: bool,
    running: bool,
    again: bool,
    failures: u32,
}

/// The queue; see the module.
pub struct Queue<K> {
    asked: mpsc::UnboundedReceiver<K>,
    slots: HashMap<K, Slot>,
    /// What waits for its time: the `due` of slots that are neither waiting nor running.
    delays: BTreeSet<(Ticks, K)>,
    ready: VecDeque<K>,
    limit: usize,
    parking: Parking,
    clock: Arc<dyn Clock>,
    metrics: ControllerMetrics,
}

impl<K: Clone + Ord + Hash + Send + 'static> Queue<K> {
    /// A queue that works on at most `limit` keys at a time.
    pub fn new(
        limit: usize,
        clock: Arc<dyn Clock>,
        metrics: ControllerMetrics,
    ) -> (Self, Asker<K>) {
        let (sender, asked) = mpsc::unbounded_channel();
        let queue = Self {
            asked,
            slots: HashMap::new(),
            delays: BTreeSet::new(),
            ready: VecDeque::new(),
            limit: limit.max(1),
            parking: Parking::default(),
            clock,
            metrics,
        };
        (queue, Asker(sender))
    }

    /// For passes that wait.
    pub fn parking(&self) -> Parking {
        self.parking.clone()
    }

    /// Works until `token` is cancelled, then waits for the passes that are running; dropped, it
    /// breaks them off. `work` is told
    /// whether the time has come that the last pass asked for, and says when to come back; `None`
    /// for a key that is gone.
    pub async fn run<F, W>(mut self, token: CancellationToken, work: W)
    where
        W: Fn(K, bool) -> F,
        F: Future<Output = Option<Next>> + Send + 'static,
    {
        let mut running: JoinSet<Option<Next>> = JoinSet::new();
        let mut keys: HashMap<Id, K> = HashMap::new();
        loop {
            while running.len() < self.limit + self.parking.count() {
                let Some(key) = self.ready.pop_front() else {
                    break;
                };
                let slot = self.slots.entry(key.clone()).or_default();
                (slot.waiting, slot.running) = (false, true);
                let due = slot.due.is_some_and(|due| due <= self.clock.ticks());
                let pass = running.spawn(work(key.clone(), due));
                keys.insert(pass.id(), key);
            }
            self.metrics.queue(self.ready.len(), running.len());
            let first = self.delays.first().map(|(due, _)| *due);
            let clock = self.clock.clone();
            let first_due = async move {
                match first {
                    Some(due) => clock.sleep(due.since(clock.ticks())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                Some(ended) = running.join_next_with_id() => {
                    let (id, next) = match ended {
                        Ok((id, next)) => (id, Ok(next)),
                        Err(error) => (error.id(), Err(error)),
                    };
                    if let Some(key) = keys.remove(&id) {
                        self.finished(key, next);
                    }
                }
                Some(key) = self.asked.recv() => self.ask(key),
                () = self.parking.0.changed.notified() => {}
                () = first_due => {
                    if let Some((_, key)) = self.delays.pop_first() {
                        self.ask(key);
                    }
                }
            }
        }
        while running.join_next().await.is_some() {}
    }

    fn ask(&mut self, key: K) {
        let slot = self.slots.entry(key.clone()).or_default();
        if let Some(due) = slot.due {
            self.delays.remove(&(due, key.clone()));
        }
        if slot.running {
            slot.again = true;
        } else if !slot.waiting {
            slot.waiting = true;
            self.ready.push_back(key);
        }
    }

    fn finished(&mut self, key: K, next: Result<Option<Next>, JoinError>) {
        let next = next.unwrap_or_else(|error| {
            // One broken object must not stop the others; it comes again, ever more rarely.
            tracing::error!(%error, "a pass panicked");
            self.metrics.failed("panic");
            Some(Next::Retry {
                at_least: Duration::ZERO,
            })
        });
        let slot = self.slots.entry(key.clone()).or_default();
        slot.running = false;
        let again = std::mem::take(&mut slot.again);
        let Some(next) = next else {
            self.slots.remove(&key);
            if again {
                self.ask(key);
            }
            return;
        };
        let now = self.clock.ticks();
        slot.due = match next {
            Next::WhenAsked => {
                slot.failures = 0;
                None
            }
            Next::After(delay) => {
                slot.failures = 0;
                Some(now.after(delay))
            }
            Next::AsBefore => slot.due,
            Next::Soon(delay) => Some(now.after(delay)),
            Next::Retry { at_least } => {
                slot.failures = slot.failures.saturating_add(1);
                Some(now.after(backoff(slot.failures).max(at_least)))
            }
        };
        if again {
            self.ask(key);
        } else if let Some(due) = slot.due {
            self.delays.insert((due, key));
        }
    }
}

/// 1 s, 2 s, 4 s … 5 min, a fifth of jitter around it, so that many do not come back in step.
fn backoff(failures: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LAST_RETRY).mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::super::by_hand::ByHand;
    use super::*;
    use crate::metrics::Metrics;

    const MS: Duration = Duration::from_millis(1);

    fn queue(limit: usize, clock: &Arc<ByHand>) -> (Queue<u32>, Asker<u32>) {
        let metrics = ControllerMetrics::new(&Metrics::new());
        Queue::new(limit, clock.clone(), metrics)
    }

    #[tokio::test]
    async fn a_pass_that_only_waits_takes_no_place() {
        let clock = ByHand::new();
        let (queue, asker) = queue(1, &clock);
        let (parking, token) = (queue.parking(), CancellationToken::new());
        let ended: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (notes, time) = (ended.clone(), clock.clone());
        let work = move |key: u32, _| {
            let (ended, clock, parking) = (notes.clone(), time.clone(), parking.clone());
            async move {
                let seconds = if key == 0 { 60 } else { 1 };
                let place = (key == 0).then(|| parking.enter());
                clock.sleep(Duration::from_secs(seconds)).await;
                drop(place);
                ended.lock().unwrap().push(key);
                Some(Next::WhenAsked)
            }
        };
        for key in 0..3 {
            asker.ask(key);
        }
        let running = tokio::spawn(queue.run(token.clone(), work));
        clock.advance(Duration::from_millis(1_500), 100 * MS).await;
        assert_eq!(*ended.lock().unwrap(), [1], "one at a time still");
        clock.advance(Duration::from_secs(10), 100 * MS).await;
        assert_eq!(*ended.lock().unwrap(), [1, 2]);
        clock.advance(Duration::from_mins(1), 100 * MS).await;
        assert_eq!(*ended.lock().unwrap(), [1, 2, 0]);
        token.cancel();
        running.await.expect("no panic");
    }

    #[tokio::test]
    async fn one_pass_at_a_time_per_key_and_a_bounded_number_over_all() {
        let clock = ByHand::new();
        let (queue, asker) = queue(3, &clock);
        let seen: Arc<Mutex<(Vec<u32>, usize)>> = Arc::default();
        let token = CancellationToken::new();
        for key in 0..9 {
            asker.ask(key);
            asker.ask(key);
        }
        let (notes, time) = (seen.clone(), clock.clone());
        let work = move |key: u32, _| {
            let (seen, clock) = (notes.clone(), time.clone());
            async move {
                {
                    let mut seen = seen.lock().unwrap();
                    assert!(!seen.0.contains(&key), "two passes over {key} at a time");
                    seen.0.push(key);
                    assert!(seen.0.len() <= 3);
                }
                clock.sleep(Duration::from_secs(1)).await;
                let mut seen = seen.lock().unwrap();
                seen.0.retain(|one| *one != key);
                seen.1 += 1;
                Some(Next::WhenAsked)
            }
        };
        let running = tokio::spawn(queue.run(token.clone(), work));
        clock.advance(Duration::from_millis(500), 100 * MS).await;
        asker.ask(0); // while it is worked on
        clock.advance(Duration::from_secs(20), 100 * MS).await;
        token.cancel();
        running.await.expect("no panic");
        // Nine, and once more those three that had begun when they were asked for again.
        assert_eq!(seen.lock().unwrap().1, 12);
    }

    #[tokio::test]
    async fn trouble_comes_back_ever_later_however_often_somebody_asks() {
        let clock = ByHand::new();
        let (queue, asker) = queue(1, &clock);
        let times: Arc<Mutex<Vec<Ticks>>> = Arc::default();
        let token = CancellationToken::new();
        let (notes, time) = (times.clone(), clock.clone());
        let work = move |_: u32, due: bool| {
            let spurious = !due && !notes.lock().unwrap().is_empty();
            if !spurious {
                notes.lock().unwrap().push(time.ticks());
            }
            async move {
                Some(if spurious {
                    Next::AsBefore
                } else {
                    Next::Retry {
                        at_least: Duration::ZERO,
                    }
                })
            }
        };
        asker.ask(1);
        let running = tokio::spawn(queue.run(token.clone(), work));
        for _ in 0..3_600 {
            // As the watch does it that shows our own status.
            asker.ask(1);
            clock.advance(Duration::from_secs(1), 100 * MS).await;
        }
        token.cancel();
        running.await.expect("no panic");
        let times = times.lock().unwrap();
        let gaps: Vec<Duration> = times.windows(2).map(|two| two[1].since(two[0])).collect();
        assert!(gaps.len() > 12, "{gaps:?}");
        for (at, gap) in gaps.iter().enumerate() {
            let ideal = Duration::from_secs(1 << at.min(20)).min(LAST_RETRY);
            assert!(*gap >= ideal.mul_f64(0.79), "{at}: {gap:?}");
            assert!(*gap <= ideal.mul_f64(1.21) + 200 * MS, "{at}: {gap:?}");
        }
        // All that failed together must not come back together.
        let longest: BTreeSet<&Duration> = gaps[12..].iter().collect();
        assert!(longest.len() > 1, "{gaps:?}");
    }

    #[tokio::test]
    async fn a_pass_that_panics_does_not_stop_the_others() {
        let clock = ByHand::new();
        let (queue, asker) = queue(1, &clock);
        let worked: Arc<Mutex<Vec<u32>>> = Arc::default();
        let notes = worked.clone();
        let work = move |key: u32, _| {
            notes.lock().unwrap().push(key);
            async move {
                assert!(key != 1, "a pass that fails by panicking");
                Some(Next::WhenAsked)
            }
        };
        asker.ask(1);
        asker.ask(2);
        let token = CancellationToken::new();
        let running = tokio::spawn(queue.run(token.clone(), work));
        clock.advance(Duration::from_secs(2), 100 * MS).await;
        token.cancel();
        running.await.expect("no panic");
        assert_eq!(*worked.lock().unwrap(), [1, 2, 1], "and it is tried again");
    }
}
