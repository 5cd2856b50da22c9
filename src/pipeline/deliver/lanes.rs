//! What one sink has still to get: a lane for each entity, and the place that may be committed.
//!
//! Owns: order within an entity (a lane sends one event at a time, oldest first), which lane goes
//! next, what is parked durably, and the cursor. Pure: no IO, no clock of its own.
//!
//! What can never happen here: an event sent before an older one of its entity; a cursor beyond
//! an event that is neither delivered nor parked nor buried nor superseded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::api::EntityKey;
use crate::clock::Ticks;
use crate::planted::{Bug, planted};
use crate::state::{Parked, Sequence, SinkCommit, StoredEvent};

/// Events read and not yet done, at most; beyond, nothing more is read.
pub(super) const WINDOW: usize = 256;
/// Their data, in bytes, at most (one event may be larger).
pub(super) const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// Parked events at most; beyond, the cursor waits.
const PARKED: usize = 1024;
/// A stuck entity keeps so many events; of more, the oldest but the first is superseded.
const STUCK_EVENTS: usize = 16;
/// An answer that takes longer no longer holds up the cursor: its event is parked meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// One event of a lane.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) sequence: Sequence,
    /// `None` once it is parked: read again when its turn comes.
    pub(super) event: Option<Arc<StoredEvent>>,
    /// Kept apart: durably, or with the next commit.
    parked: bool,
}

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Entry>,
    /// The head is being sent, since then.
    sending: Option<Ticks>,
    /// The head failed: not before then.
    waits: Option<Ticks>,
    /// Attempts of the head that count.
    attempts: u32,
    /// Failures of the head in a row, counted or not.
    failures: u32,
    /// When the head failed in a way that counts only if the sink turns out to be well.
    suspect: Option<Ticks>,
    /// When it was last tried, as a running number.
    tried: u64,
}

impl Lane {
    /// Its head failed before, or is kept apart: what comes later waits behind it.
    fn is_stuck(&self) -> bool {
        self.failures > 0 || self.queue.front().is_some_and(|head| head.parked)
    }
}

fn size(event: &StoredEvent) -> usize {
    event.data.as_ref().map_or(0, Vec::len)
}

/// All lanes of one sink.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_key: BTreeMap<EntityKey, Lane>,
    /// Heads that may go, oldest first.
    ready: BTreeSet<(Sequence, EntityKey)>,
    /// Lanes whose head failed, by when it may go again.
    waiting: BTreeSet<(Ticks, EntityKey)>,
    suspects: BTreeSet<EntityKey>,
    /// Read, not done, not parked.
    open: BTreeMap<Sequence, EntityKey>,
    parked: BTreeMap<Sequence, EntityKey>,
    last_read: Sequence,
    committed: Sequence,
    bytes: usize,
    tries: u64,
    superseded: u64,
    /// Of the next commit.
    next: SinkCommit,
    delivered: BTreeMap<EntityKey, u64>,
    changes: usize,
}

impl Lanes {
    /// From where the sink stands.
    pub(super) fn new(cursor: Sequence) -> Self {
        Self {
            last_read: cursor,
            committed: cursor,
            ..Self::default()
        }
    }

    pub(super) const fn last_read(&self) -> Sequence {
        self.last_read
    }

    /// Where the newest commit put the cursor.
    pub(super) const fn committed(&self) -> Sequence {
        self.committed
    }

    /// How many events are kept apart.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Whether more events may be read.
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < WINDOW && self.bytes < WINDOW_BYTES
    }

    /// How many events were passed over since the last question because a newer one of their
    /// stuck entity waits behind them.
    pub(super) fn take_superseded(&mut self) -> u64 {
        std::mem::take(&mut self.superseded)
    }

    /// Takes in an event that was read after [`Self::last_read`]; `wanted` by the types filter.
    pub(super) fn read(&mut self, event: StoredEvent, wanted: bool) {
        self.last_read = self.last_read.max(event.sequence);
        if !wanted || self.parked.contains_key(&event.sequence) {
            self.changes += 1;
            return;
        }
        let (sequence, key) = (event.sequence, event.key.clone());
        self.bytes += size(&event);
        self.open.insert(sequence, key.clone());
        let entry = Entry {
            sequence,
            event: Some(Arc::new(event)),
            parked: false,
        };
        self.append(key, entry);
    }

    /// Nothing is kept between [`Self::last_read`] and `sequence`.
    pub(super) fn skip_to(&mut self, sequence: Sequence) {
        if sequence > self.last_read {
            self.last_read = sequence;
            self.changes += 1;
        }
    }

    /// Takes in what is parked durably: after a start, and when a dead letter was replayed.
    pub(super) fn adopt(&mut self, parked: &Parked) {
        if self.parked.contains_key(&parked.sequence) || self.open.contains_key(&parked.sequence) {
            return;
        }
        self.parked.insert(parked.sequence, parked.key.clone());
        let lane = self.by_key.entry(parked.key.clone()).or_default();
        if lane.queue.is_empty() {
            lane.attempts = parked.attempts;
        }
        let entry = Entry {
            sequence: parked.sequence,
            event: None,
            parked: true,
        };
        self.append(parked.key.clone(), entry);
    }

    fn append(&mut self, key: EntityKey, entry: Entry) {
        self.unready(&key);
        let lane = self.by_key.entry(key.clone()).or_default();
        let stuck = lane.is_stuck();
        let busy = usize::from(lane.sending.is_some());
        let mut at = lane
            .queue
            .partition_point(|other| other.sequence < entry.sequence);
        if stuck && planted(Bug::ParkedOvertaken) {
            at = 0;
        }
        lane.queue.insert(at.max(busy), entry);
        if stuck
            && lane.queue.len() > STUCK_EVENTS
            && let Some(old) = lane.queue.remove(1)
        {
            self.superseded += 1;
            self.done(&old);
        }
        self.reready(&key);
    }

    /// Takes a lane out of the two queues, before it changes.
    fn unready(&mut self, key: &EntityKey) {
        if let Some(lane) = self.by_key.get(key) {
            if let Some(head) = lane.queue.front() {
                self.ready.remove(&(head.sequence, key.clone()));
            }
            if let Some(until) = lane.waits {
                self.waiting.remove(&(until, key.clone()));
            }
        }
    }

    /// Puts it back where it belongs now.
    fn reready(&mut self, key: &EntityKey) {
        let Some(lane) = self.by_key.get(key) else {
            return;
        };
        let Some(head) = lane.queue.front() else {
            self.by_key.remove(key);
            return;
        };
        if lane.sending.is_some() {
            return;
        }
        match lane.waits {
            Some(until) => self.waiting.insert((until, key.clone())),
            None => self.ready.insert((head.sequence, key.clone())),
        };
    }

    /// When the first waiting lane may go again.
    pub(super) fn next_due(&self) -> Option<Ticks> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// Lanes whose wait is over may go.
    pub(super) fn wake(&mut self, now: Ticks) {
        while let Some((until, key)) = self.waiting.first().cloned() {
            if until > now {
                return;
            }
            self.unready(&key);
            if let Some(lane) = self.by_key.get_mut(&key) {
                lane.waits = None;
            }
            self.reready(&key);
        }
    }

    /// The lane to send from next: the oldest head that may go.
    pub(super) fn next_ready(&self) -> Option<EntityKey> {
        self.ready.first().map(|(_, key)| key.clone())
    }

    /// The lane to probe with: one that fits, oldest first; with `any`, else the one that was
    /// tried longest ago, also when it should still wait.
    pub(super) fn next_probe(
        &self,
        any: bool,
        fits: impl Fn(&EntityKey) -> bool,
    ) -> Option<EntityKey> {
        let fresh = self.ready.iter().find(|(_, key)| fits(key));
        if let Some((_, key)) = fresh {
            return Some(key.clone());
        }
        if !any {
            return None;
        }
        let ready = self.ready.iter().map(|(_, key)| key);
        let waiting = self.waiting.iter().map(|(_, key)| key);
        ready
            .chain(waiting)
            .min_by_key(|key| self.by_key.get(*key).map_or(0, |lane| lane.tried))
            .cloned()
    }

    /// Marks the lane's head as being sent and gives it out.
    pub(super) fn start(&mut self, key: &EntityKey, now: Ticks) -> Option<Entry> {
        self.unready(key);
        self.tries += 1;
        let lane = self.by_key.get_mut(key)?;
        lane.sending = Some(now);
        lane.waits = None;
        lane.tried = self.tries;
        lane.queue.front().cloned()
    }

    /// The head is done: delivered (with its revision), or no longer kept.
    pub(super) fn finish(&mut self, key: &EntityKey, revision: Option<u64>) {
        if let Some(revision) = revision {
            let newest = self.delivered.entry(key.clone()).or_default();
            *newest = revision.max(*newest);
        }
        self.pop(key);
    }

    /// The head is a dead letter.
    pub(super) fn bury(&mut self, key: &EntityKey, reason: String) {
        let lane = self.by_key.get(key);
        if let Some((lane, head)) = lane.and_then(|lane| Some((lane, lane.queue.front()?))) {
            let letter = Parked {
                sequence: head.sequence,
                key: key.clone(),
                attempts: lane.attempts,
            };
            self.next.bury.push((letter, reason));
        }
        self.pop(key);
    }

    fn pop(&mut self, key: &EntityKey) {
        self.unready(key);
        self.suspects.remove(key);
        if let Some(lane) = self.by_key.get_mut(key) {
            let head = lane.queue.pop_front();
            *lane = Lane {
                queue: std::mem::take(&mut lane.queue),
                tried: lane.tried,
                ..Lane::default()
            };
            if let Some(head) = head {
                self.done(&head);
            }
        }
        self.reready(key);
    }

    fn done(&mut self, entry: &Entry) {
        self.changes += 1;
        self.open.remove(&entry.sequence);
        self.bytes -= entry.event.as_deref().map_or(0, size);
        if self.parked.remove(&entry.sequence).is_some() {
            let gone = |park: &Parked| park.sequence != entry.sequence;
            self.next.park.retain(gone);
            self.next.release.push(entry.sequence);
        }
    }

    /// The head failed and may go again after `wait`. `counts`: an attempt is used up.
    /// Gives the attempts so far.
    pub(super) fn fail(
        &mut self,
        key: &EntityKey,
        counts: bool,
        until: impl Fn(u32) -> Ticks,
    ) -> u32 {
        self.unready(key);
        let mut attempts = 0;
        if let Some(lane) = self.by_key.get_mut(key) {
            lane.sending = None;
            lane.failures += 1;
            lane.waits = Some(until(lane.failures));
            lane.attempts += u32::from(counts);
            attempts = lane.attempts;
        }
        self.changes += 1;
        if counts {
            self.note_attempts(key);
        }
        self.reready(key);
        attempts
    }

    /// The head failed in a way that counts only if the sink takes another entity's event next.
    /// Others that were under suspicion no longer are: it seems to be the sink.
    pub(super) fn suspect(&mut self, key: &EntityKey, now: Ticks) {
        self.acquit();
        if let Some(lane) = self.by_key.get_mut(key) {
            lane.suspect = Some(now);
            self.suspects.insert(key.clone());
        }
    }

    /// It is the sink: no single event is under suspicion.
    pub(super) fn acquit(&mut self) {
        for key in std::mem::take(&mut self.suspects) {
            if let Some(lane) = self.by_key.get_mut(&key) {
                lane.suspect = None;
            }
        }
    }

    /// The sink is well again: who only waited for that may go at once. One attempt may have
    /// been counted wrongly, when an outage hit this entity last.
    pub(super) fn wake_innocent(&mut self) {
        let waiting: Vec<EntityKey> = self.waiting.iter().map(|(_, key)| key.clone()).collect();
        for key in waiting {
            self.unready(&key);
            if let Some(lane) = self.by_key.get_mut(&key)
                && lane.attempts <= 1
            {
                lane.waits = None;
            }
            self.reready(&key);
        }
    }

    /// The sink took an event of `key` sent at `started`: what failed before that and was laid to
    /// the sink was the event's own fault. Gives the entities with their attempts so far.
    pub(super) fn convict(&mut self, key: &EntityKey, started: Ticks) -> Vec<(EntityKey, u32)> {
        let guilty: Vec<EntityKey> = self
            .suspects
            .iter()
            .filter(|other| *other != key)
            .filter(|other| {
                let lane = self.by_key.get(*other);
                lane.is_some_and(|lane| lane.suspect.is_some_and(|at| at <= started))
            })
            .cloned()
            .collect();
        let mut counted = Vec::with_capacity(guilty.len());
        for other in guilty {
            self.suspects.remove(&other);
            if let Some(lane) = self.by_key.get_mut(&other) {
                lane.suspect = None;
                lane.attempts += 1;
                counted.push((other.clone(), lane.attempts));
            }
            self.note_attempts(&other);
        }
        counted
    }

    /// Whether the lane's head is being sent right now.
    pub(super) fn is_sending(&self, key: &EntityKey) -> bool {
        self.by_key
            .get(key)
            .is_some_and(|lane| lane.sending.is_some())
    }

    /// Attempts of a parked event are durable: a restart does not begin to count anew.
    fn note_attempts(&mut self, key: &EntityKey) {
        let Some(lane) = self.by_key.get(key) else {
            return;
        };
        let Some(head) = lane.queue.front().filter(|head| head.parked) else {
            return;
        };
        let parked = Parked {
            sequence: head.sequence,
            key: key.clone(),
            attempts: lane.attempts,
        };
        self.next
            .park
            .retain(|other| other.sequence != parked.sequence);
        self.next.park.push(parked);
        self.changes += 1;
    }

    /// Changes since the last commit was taken.
    pub(super) const fn changes(&self) -> usize {
        self.changes
    }

    /// The next commit; `None` when it would say nothing. With `well`, entities that are stuck are
    /// parked so that the cursor can move on; while the sink as a whole is not well, all wait.
    pub(super) fn take_commit(&mut self, well: bool, now: Ticks) -> Option<SinkCommit> {
        if well {
            self.park_stuck(now);
        }
        let cursor = self.cursor();
        let moved = cursor > self.committed;
        let mut commit = std::mem::take(&mut self.next);
        commit.delivered = std::mem::take(&mut self.delivered).into_iter().collect();
        self.changes = 0;
        let says = moved
            || !(commit.park.is_empty()
                && commit.release.is_empty()
                && commit.bury.is_empty()
                && commit.delivered.is_empty());
        commit.cursor = cursor.max(self.committed);
        self.committed = commit.cursor;
        says.then_some(commit)
    }

    /// Every event up to here is delivered, parked, buried or superseded.
    fn cursor(&self) -> Sequence {
        if planted(Bug::CursorBeforeDelivery) {
            return self.last_read;
        }
        let first = self.open.first_key_value();
        first.map_or(self.last_read, |(sequence, _)| sequence - 1)
    }

    /// Parks from the front of the window while its entities are stuck.
    fn park_stuck(&mut self, now: Ticks) {
        while self.parked.len() < PARKED {
            let Some((&sequence, key)) = self.open.first_key_value() else {
                return;
            };
            let key = key.clone();
            let Some(lane) = self.by_key.get_mut(&key) else {
                return;
            };
            let slow = lane.sending.is_some_and(|since| now.since(since) >= SLOW);
            if !(lane.is_stuck() || slow) {
                return;
            }
            let Some(at) = lane
                .queue
                .iter()
                .position(|entry| entry.sequence == sequence)
            else {
                return;
            };
            let attempts = if at == 0 { lane.attempts } else { 0 };
            let entry = &mut lane.queue[at];
            entry.parked = true;
            let event = entry.event.take();
            self.bytes -= event.map_or(0, |event| size(&event));
            self.open.remove(&sequence);
            self.parked.insert(sequence, key.clone());
            self.next.park.push(Parked {
                sequence,
                key,
                attempts,
            });
        }
    }
}
