//! A state engine in memory, as small as the contract allows: what the tests of `publish` need of
//! it, with knobs that a real store turns only after days (retention) or at a crash.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::UnixMillis;
use bellhop::state::{
    Accepted, ChangeKind, Claim, DeadLetter, EntityPage, Epoch, EventAttributes, EventsGone,
    MarkClass, NewMark, Notification, Parked, Sequence, Settled, Settlement, SinkCommit,
    SinkPosition, State, StateError, Stats, StoredEvent,
};
use tokio::sync::watch;

pub struct Memory {
    epoch: Epoch,
    head: watch::Sender<Sequence>,
    pub inner: Mutex<Inner>,
}

#[derive(Default)]
pub struct Inner {
    pub events: BTreeMap<Sequence, StoredEvent>,
    newest: BTreeMap<EntityKey, Sequence>,
    /// Events up to here are no longer complete.
    pub oldest: Sequence,
    pub sinks: BTreeMap<String, SinkPosition>,
    pub buried: Vec<(String, Parked, String)>,
    pub delivered: Vec<(EntityKey, u64)>,
    pub commits: usize,
    pub marks: Vec<NewMark>,
    /// Commits fail with this while it is set.
    pub trouble: Option<StateError>,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            epoch: Epoch("00000000000000ab".into()),
            head: watch::Sender::new(0),
            inner: Mutex::default(),
        }
    }

    pub fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Publishes a change; `None` is a removal. Gives the event.
    pub fn publish(&self, key: &str, data: Option<&str>) -> StoredEvent {
        let key: EntityKey = key.parse().unwrap();
        let mut inner = self.lock();
        let before = inner.newest.get(&key).and_then(|at| inner.events.get(at));
        let revision = before.map_or(1_767_323_045_678, |event| event.revision + 1);
        let change = match (data, before) {
            (None, _) => ChangeKind::Removed,
            (Some(_), Some(old)) if old.change != ChangeKind::Removed => ChangeKind::Updated,
            _ => ChangeKind::Created,
        };
        let event = StoredEvent {
            sequence: *self.head.borrow() + 1,
            key: key.clone(),
            revision,
            change,
            time: UnixMillis(revision as i64),
            data: data.map(|text| text.as_bytes().to_vec()),
            attributes: EventAttributes {
                notified: Some(UnixMillis(1_767_323_040_000)),
                retrieved: Some("2026-01-02T03:04:05.6Z".into()),
                ..EventAttributes::default()
            },
        };
        inner.newest.insert(key, event.sequence);
        inner.events.insert(event.sequence, event.clone());
        drop(inner);
        self.head.send_replace(event.sequence);
        event
    }

    /// Superseded events and removals up to `sequence` are forgotten.
    pub fn forget(&self, sequence: Sequence) {
        let mut inner = self.lock();
        let Inner {
            events,
            newest,
            oldest,
            ..
        } = &mut *inner;
        events.retain(|at, event| {
            *at > sequence || newest[&event.key] == *at && event.change != ChangeKind::Removed
        });
        *oldest = sequence;
    }

    pub fn position(&self, sink: &str) -> SinkPosition {
        self.lock().sinks.get(sink).cloned().unwrap_or_default()
    }
}

fn not_here<T>() -> Result<T, StateError> {
    Err(StateError::Failed(
        "the tests of publish do not need it".into(),
    ))
}

#[async_trait]
impl State for Memory {
    fn epoch(&self) -> &Epoch {
        &self.epoch
    }
    async fn accept(&self, _: Notification) -> Result<Accepted, StateError> {
        not_here()
    }
    async fn mark(&self, marks: Vec<NewMark>) -> Result<(), StateError> {
        self.lock().marks.extend(marks);
        Ok(())
    }
    async fn claim(&self, _: MarkClass) -> Result<Option<Claim>, StateError> {
        not_here()
    }
    async fn claimable(&self) {}
    async fn settle(&self, _: &Claim, _: Settlement) -> Result<Settled, StateError> {
        not_here()
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
        let inner = self.lock();
        let mut items: Vec<StoredEvent> = inner
            .newest
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .filter(|(key, _)| kind.is_none_or(|kind| key.kind() == kind))
            .filter_map(|(_, at)| inner.events.get(at))
            .filter(|event| event.change != ChangeKind::Removed)
            .take(limit + 1)
            .cloned()
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| last.key.clone());
        Ok(EntityPage { items, next })
    }
    async fn known(&self, _: NotificationType, _: &[&str]) -> Result<Vec<EntityKey>, StateError> {
        not_here()
    }
    async fn entity(&self, key: &EntityKey) -> Result<Option<StoredEvent>, StateError> {
        let inner = self.lock();
        let at = inner.newest.get(key);
        Ok(at.and_then(|at| inner.events.get(at)).cloned())
    }
    async fn events(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Result<Vec<StoredEvent>, EventsGone>, StateError> {
        if after < self.lock().oldest {
            return Ok(Err(EventsGone::Expired));
        }
        if after > *self.head.borrow() {
            return Ok(Err(EventsGone::AheadOfHead));
        }
        self.kept(after, limit, bytes).await.map(Ok)
    }
    async fn kept(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, StateError> {
        let inner = self.lock();
        let mut left = bytes;
        let mut found: Vec<StoredEvent> = Vec::new();
        for event in inner
            .events
            .range(after + 1..)
            .map(|(_, event)| event)
            .take(limit)
        {
            let size = event.data.as_ref().map_or(0, Vec::len);
            if !found.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            found.push(event.clone());
        }
        Ok(found)
    }
    async fn event(&self, sequence: Sequence) -> Result<Option<StoredEvent>, StateError> {
        Ok(self.lock().events.get(&sequence).cloned())
    }
    async fn oldest(&self) -> Result<Sequence, StateError> {
        Ok(self.lock().oldest)
    }
    async fn sink(&self, name: &str) -> Result<SinkPosition, StateError> {
        Ok(self.position(name))
    }
    async fn commit_sink(&self, name: &str, commit: SinkCommit) -> Result<(), StateError> {
        let mut inner = self.lock();
        if let Some(error) = &inner.trouble {
            return Err(error.clone());
        }
        inner.commits += 1;
        inner.delivered.extend(commit.delivered);
        let buried = commit.bury.into_iter();
        inner
            .buried
            .extend(buried.map(|(parked, why)| (name.to_owned(), parked, why)));
        let sink = inner.sinks.entry(name.to_owned()).or_default();
        assert!(commit.cursor >= sink.cursor, "a cursor went back");
        sink.cursor = commit.cursor;
        for parked in commit.park {
            sink.parked
                .retain(|other| other.sequence != parked.sequence);
            sink.parked.push(parked);
        }
        sink.parked
            .retain(|other| !commit.release.contains(&other.sequence));
        sink.parked.sort_by_key(|parked| parked.sequence);
        Ok(())
    }
    async fn dead_letters(&self, _: u64, _: usize) -> Result<Vec<DeadLetter>, StateError> {
        not_here()
    }
    async fn replay(&self, _: u64, _: bool) -> Result<bool, StateError> {
        not_here()
    }
    async fn fact(&self, _: &str) -> Result<Option<Vec<u8>>, StateError> {
        not_here()
    }
    async fn put_fact(&self, _: &str, _: Option<Vec<u8>>) -> Result<(), StateError> {
        not_here()
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
}
