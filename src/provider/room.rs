//! Room for answers in memory: one cap for all bodies that are being read or understood.
//!
//! Owns: the accounting. Bodies grow while they are read, so two of them could each hold half of
//! the cap and wait for the other half for ever. Hence two pools: `shared`, from which everybody
//! takes, and a lane that only one body at a time may enter and that is as large as the largest
//! answer. Who is in the lane can always finish, and whoever finishes gives all of it back.
//!
//! Never here: more than the cap in use (or one largest answer, if the cap is smaller than that).

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The cap shared by all bodies of a client.
#[derive(Debug)]
pub(super) struct BodyRoom {
    shared: Arc<Semaphore>,
    lane: Arc<Semaphore>,
    in_flight: Gauge,
}

/// What one body holds; given back on drop.
#[derive(Debug)]
pub(super) struct Room {
    of: Arc<BodyRoom>,
    bytes: usize,
    shared: Option<OwnedSemaphorePermit>,
    lane: Option<OwnedSemaphorePermit>,
}

impl BodyRoom {
    /// Room for `cap` bytes in all, of which `largest` are the lane.
    pub(super) fn new(cap: usize, largest: usize, in_flight: Gauge) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Semaphore::new(cap.saturating_sub(largest))),
            lane: Arc::new(Semaphore::new(1)),
            in_flight,
        })
    }

    /// An empty holding.
    pub(super) fn enter(self: &Arc<Self>) -> Room {
        Room {
            of: Arc::clone(self),
            bytes: 0,
            shared: None,
            lane: None,
        }
    }
}

impl Room {
    /// Waits until this body may hold `bytes` in all; never more than the largest answer.
    pub(super) async fn grow_to(&mut self, bytes: usize) {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return;
        }
        if self.lane.is_none() {
            let wanted = u32::try_from(more).unwrap_or(u32::MAX);
            tokio::select! {
                biased;
                permit = Arc::clone(&self.of.shared).acquire_many_owned(wanted) => {
                    let permit = permit.expect("the semaphore is never closed");
                    match &mut self.shared {
                        Some(held) => held.merge(permit),
                        none => *none = Some(permit),
                    }
                }
                permit = Arc::clone(&self.of.lane).acquire_owned() => {
                    self.lane = Some(permit.expect("the semaphore is never closed"));
                }
            }
        }
        self.bytes = bytes;
        self.of.in_flight.inc_by(more as i64);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.in_flight.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const CAP: usize = 64;
    const LARGEST: usize = 32;

    #[tokio::test]
    async fn bodies_that_all_want_to_grow_finish_and_never_pass_the_cap() {
        let gauge = Gauge::default();
        let room = BodyRoom::new(CAP, LARGEST, gauge.clone());
        let mut bodies = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (room, gauge) = (Arc::clone(&room), gauge.clone());
            bodies.spawn(async move {
                let mut held = room.enter();
                for bytes in (8..=LARGEST).step_by(8) {
                    held.grow_to(bytes).await;
                    assert!(gauge.get() <= CAP as i64, "{} in flight", gauge.get());
                    tokio::task::yield_now().await;
                }
            });
        }
        let all = async { while bodies.join_next().await.transpose().unwrap().is_some() {} };
        tokio::time::timeout(Duration::from_secs(10), all)
            .await
            .expect("no deadlock");
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn a_body_waits_while_the_shared_pool_and_the_lane_are_taken() {
        let room = BodyRoom::new(CAP, LARGEST, Gauge::default());
        let (mut first, mut second, mut third) = (room.enter(), room.enter(), room.enter());
        first.grow_to(32).await; // all that is shared
        second.grow_to(32).await; // the lane
        let waiting = tokio::time::timeout(Duration::from_millis(20), third.grow_to(1)).await;
        assert!(waiting.is_err(), "there was no room");
        drop(first);
        third.grow_to(1).await;
        drop(second);
    }

    #[tokio::test]
    async fn a_cap_below_the_largest_answer_lets_one_body_through_at_a_time() {
        let room = BodyRoom::new(1, LARGEST, Gauge::default());
        let mut first = room.enter();
        first.grow_to(LARGEST).await;
        let mut second = room.enter();
        let waiting = tokio::time::timeout(Duration::from_millis(20), second.grow_to(1)).await;
        assert!(waiting.is_err());
        drop(first);
        second.grow_to(LARGEST).await;
    }
}
