//! The provider's notifications: written once, delivered late, more than once, or not at all.
//!
//! Owns: the retries, on the answers that the provider retries on, and the note of what was
//! acknowledged: from then on the change is owed to every consumer.
//!
//! Never here: an acknowledgement that was not answered with 200.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::api::EntityKey;
use bellhop::clock::{Clock, UnixMillis};
use bellhop::state::{Accepted, Notification, State};

use super::schedule::World;
use super::sim::Owner;

impl World {
    /// Notifications of an entity, written now; some never are.
    pub fn tell(self: &Arc<Self>, key: &EntityKey, removed: bool) {
        let sim = &self.sim;
        if sim.percent(8) {
            sim.note(13, || format!("nobody is told of {key}"));
            return;
        }
        let number = self.notifications.fetch_add(1, Ordering::Relaxed) + 1;
        let machine = if self.plan.future_machine && sim.percent(40) {
            3_600_000
        } else {
            0
        };
        let written = sim.ticks().0;
        let timestamp = UnixMillis(self.provider.now().0 + machine).as_secs();
        let notification = Notification {
            rule: key.kind(),
            key: Some(key.clone()),
            removed,
            sum: (number << 8).to_be_bytes().repeat(4),
            timestamp: UnixMillis::from_secs(timestamp),
            received: UnixMillis(0),
            body: bytes::Bytes::new(),
            traceparent: None,
        };
        let copies = if sim.percent(30) { 2 + sim.below(2) } else { 1 };
        for _ in 0..copies {
            self.senders.fetch_add(1, Ordering::Relaxed);
            let (world, notification) = (self.clone(), notification.clone());
            sim.spawn(Owner::World, async move {
                world.send(number, written, notification).await;
                world.senders.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Delivers one copy as the provider does: three more attempts, on retriable answers only.
    async fn send(&self, number: u64, written: u64, notification: Notification) {
        let sim = &self.sim;
        let delay = match sim.below(100) {
            draw if draw < self.plan.late => 60_000 + sim.below(540_000),
            draw if draw % 2 == 0 => sim.below(100),
            _ => sim.below(8_000),
        };
        sim.sleep_ms(delay).await;
        let key = notification.key.clone().expect("all name one");
        for attempt in 0..4 {
            let answer = self.deliver(&notification).await;
            sim.note(14, || {
                format!("notification {number} of {key}, attempt {attempt} -> {answer:?}")
            });
            match answer {
                Some(200) => {
                    self.truth(|truth| {
                        if let Some(entity) = truth.entities.get_mut(&key) {
                            entity.acknowledged.push(written);
                        }
                    });
                    return;
                }
                Some(_) => sim.sleep_ms([3_000, 20_000, 120_000, 0][attempt]).await,
                None => return,
            }
        }
    }

    /// The status of the answer; `None` when the connection broke or nothing came in time.
    async fn deliver(&self, notification: &Notification) -> Option<u16> {
        let disk = self.disk()?;
        let notification = Notification {
            received: self.sim.now(),
            ..notification.clone()
        };
        tokio::select! {
            biased;
            accepted = disk.accept(notification) => Some(match accepted {
                Ok(Accepted::Replayed) => 401,
                Ok(Accepted::BacklogFull) => 429,
                Ok(_) => 200,
                Err(_) => 503,
            }),
            () = disk.died() => None,
            () = self.sim.sleep(Duration::from_mins(1)) => None,
        }
    }
}
