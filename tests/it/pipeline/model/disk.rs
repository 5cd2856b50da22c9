//! The state engine of the model: the real [`Store`] on a database in memory, behind pauses.
//!
//! Owns: where a call may be held up (before and after it takes effect), which calls are refused
//! for the moment, the crash around a durable write, and what survives it: what was committed.
//!
//! Never here: an answer of its own about marks, entities or events.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::{Clock, Ticks, UnixMillis};
use bellhop::state::embedded::{Options, Store};
use bellhop::state::{
    Accepted, Claim, DeadLetter, EntityPage, Epoch, EventsGone, MarkClass, NewMark, Notification,
    Sequence, Settled, Settlement, SinkCommit, SinkPosition, State, StateError, Stats, StoredEvent,
};
use rusqlite::Connection;
use tokio::sync::watch;

use super::sim::Sim;

pub struct Disk {
    sim: Arc<Sim>,
    epoch: Epoch,
    store: Mutex<Option<Store>>,
    head: watch::Sender<Sequence>,
    due: watch::Sender<Option<Ticks>>,
    died: watch::Sender<bool>,
    /// Calls that are refused for the moment, in a thousand.
    busy: u64,
}

impl Disk {
    pub fn open(sim: &Arc<Sim>, connection: Connection, options: Options, busy: u64) -> Arc<Self> {
        let mut store = Store::open(connection, options, sim.now(), sim.ticks())
            .expect("a store opens after every crash");
        Arc::new(Self {
            sim: sim.clone(),
            epoch: store.epoch().clone(),
            head: watch::Sender::new(store.stats().head),
            due: watch::Sender::new(store.next_due()),
            died: watch::Sender::new(false),
            store: Mutex::new(Some(store)),
            busy,
        })
    }

    /// The machine lost all that was in memory; what was committed stays.
    pub fn lose_memory(&self) -> Connection {
        self.died.send_replace(true);
        let store = self.lock().take().expect("crashes once");
        store.into_connection()
    }

    /// Returns when the process died.
    pub async fn died(&self) {
        let mut died = self.died.subscribe();
        let _ = died.wait_for(|died| *died).await;
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Store) -> T) -> Option<T> {
        self.lock().as_mut().map(look)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Store>> {
        self.store.lock().unwrap()
    }

    fn refused(&self) -> Result<(), StateError> {
        if !self.sim.is_calm() && self.sim.below(1000) < self.busy {
            return Err(if self.sim.percent(30) {
                StateError::Full("the model says so".into())
            } else {
                StateError::Busy("the model says so".into())
            });
        }
        Ok(())
    }

    /// One durable step.
    async fn write<T: std::fmt::Debug>(
        &self,
        name: &'static str,
        step: impl FnOnce(&mut Store, UnixMillis, Ticks) -> Result<T, StateError> + Send,
    ) -> Result<T, StateError> {
        self.sim.pause().await;
        self.refused()?;
        let dies = self.sim.next_write_kills();
        let before = dies && self.sim.percent(50);
        let answer = (!before)
            .then(|| {
                let (now, ticks) = (self.sim.now(), self.sim.ticks());
                self.lock().as_mut().map(|store| step(store, now, ticks))
            })
            .flatten();
        if dies {
            self.sim.note(1, || {
                let when = if before { "before" } else { "after" };
                format!("CRASH {when} the write of `{name}`")
            });
            self.sim.crash();
        }
        let Some(answer) = answer.filter(|_| !dies) else {
            return std::future::pending().await;
        };
        self.sim.note(2, || match &answer {
            Ok(value) => format!("store: {name} -> {value:?}"),
            Err(error) => format!("store: {name} -> {error}"),
        });
        if let Err(StateError::Failed(why)) = &answer {
            self.sim.fail(format!("the store failed: {why}"));
        }
        self.show();
        self.sim.pause().await;
        answer
    }

    async fn look<T>(
        &self,
        look: impl FnOnce(&mut Store, Ticks) -> Result<T, StateError> + Send,
    ) -> Result<T, StateError>
    where
        T: Send,
    {
        self.sim.pause().await;
        self.refused()?;
        let ticks = self.sim.ticks();
        let answer = self.lock().as_mut().map(|store| look(store, ticks));
        let Some(answer) = answer else {
            return std::future::pending().await;
        };
        if let Err(StateError::Failed(why)) = &answer {
            self.sim.fail(format!("the store failed: {why}"));
        }
        self.sim.pause().await;
        answer
    }

    fn show(&self) {
        if let Some(store) = self.lock().as_mut() {
            let (due, head) = (store.next_due(), store.stats().head);
            self.due.send_if_modified(|shown| {
                let other = *shown != due;
                *shown = due;
                other
            });
            self.head.send_if_modified(|shown| {
                let other = *shown != head;
                *shown = head;
                other
            });
        }
    }
}

#[async_trait]
impl State for Disk {
    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    async fn accept(&self, notification: Notification) -> Result<Accepted, StateError> {
        self.write("accept", |store, now, ticks| {
            store
                .accept_batch(&[notification], now, ticks)
                .map(|accepted| accepted[0])
        })
        .await
    }

    async fn mark(&self, marks: Vec<NewMark>) -> Result<(), StateError> {
        self.write("mark", |store, now, ticks| store.mark(&marks, now, ticks))
            .await
    }

    async fn claim(&self, prefer: MarkClass) -> Result<Option<Claim>, StateError> {
        let claim = self.look(|store, ticks| store.claim(prefer, ticks)).await?;
        if let Some(claim) = &claim {
            self.sim.note(3, || format!("claim {}", claim.key));
        }
        self.show();
        Ok(claim)
    }

    async fn claimable(&self) {
        let mut due = self.due.subscribe();
        loop {
            let next = *due.borrow_and_update();
            let wait = next.map_or(Duration::MAX, |next| next.since(self.sim.ticks()));
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                _ = due.changed() => {}
                () = self.sim.sleep(wait), if next.is_some() => return,
            }
        }
    }

    async fn settle(&self, claim: &Claim, settlement: Settlement) -> Result<Settled, StateError> {
        self.sim.note(4, || {
            format!(
                "settle {} as {} {:?}{}",
                claim.key,
                settlement.outcome.as_str(),
                settlement.mark,
                settlement
                    .event
                    .as_ref()
                    .map_or(String::new(), |event| format!(
                        " publishing {:?} {}",
                        event.change,
                        String::from_utf8_lossy(event.data.as_deref().unwrap_or_default())
                    )),
            )
        });
        self.write("settle", |store, now, ticks| {
            store.settle(claim, &settlement, now, ticks)
        })
        .await
    }

    fn head(&self) -> watch::Receiver<Sequence> {
        self.head.subscribe()
    }

    async fn list(
        &self,
        kind: Option<NotificationType>,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Result<EntityPage, StateError> {
        self.look(|store, _| store.reader().list(kind, after, limit))
            .await
    }

    async fn known(
        &self,
        kind: NotificationType,
        above: &[&str],
    ) -> Result<Vec<EntityKey>, StateError> {
        self.look(|store, _| store.reader().known(kind, above))
            .await
    }

    async fn entity(&self, key: &EntityKey) -> Result<Option<StoredEvent>, StateError> {
        self.look(|store, _| store.reader().entity(key)).await
    }

    async fn events(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Result<Vec<StoredEvent>, EventsGone>, StateError> {
        self.look(|store, _| store.reader().events(after, limit, bytes))
            .await
    }

    async fn kept(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, StateError> {
        self.look(|store, _| store.reader().kept(after, limit, bytes))
            .await
    }

    async fn event(&self, sequence: Sequence) -> Result<Option<StoredEvent>, StateError> {
        self.look(|store, _| store.reader().event(sequence)).await
    }

    async fn oldest(&self) -> Result<Sequence, StateError> {
        self.look(|store, _| store.reader().oldest()).await
    }

    async fn sink(&self, name: &str) -> Result<SinkPosition, StateError> {
        self.look(|store, _| store.reader().sink(name)).await
    }

    async fn commit_sink(&self, name: &str, commit: SinkCommit) -> Result<(), StateError> {
        self.write("commit_sink", |store, now, ticks| {
            store.commit_sink(name, &commit, now, ticks)
        })
        .await
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, StateError> {
        self.look(|store, _| store.reader().dead_letters(after, limit))
            .await
    }

    async fn replay(&self, id: u64, exact: bool) -> Result<bool, StateError> {
        self.write("replay", |store, now, ticks| {
            store.replay(id, exact, now, ticks)
        })
        .await
    }

    async fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.look(|store, _| store.reader().fact(name)).await
    }

    async fn put_fact(&self, name: &str, value: Option<Vec<u8>>) -> Result<(), StateError> {
        self.write("put_fact", |store, now, ticks| {
            store.put_fact(name, value.as_deref(), now, ticks)
        })
        .await
    }

    fn stats(&self) -> Stats {
        self.with(Store::stats).unwrap_or_default()
    }
}
