//! The marks in memory: by entity, by due time, and the claims on them.
//!
//! Owns: generations, claims, leases, the order of work and `minInterval`. The rows behind the
//! marks are written by the store when a transaction ends: [`Marks::touched`] says which.
//!
//! Never here: IO. All of this can be built again from the rows; what cannot be (generations,
//! claims) is void after a restart, which makes every mark dirty and unclaimed.

mod behind;
mod by_key;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::EntityKey;
use crate::clock::{Ticks, UnixMillis};
use crate::planted::{Bug, planted};
use crate::state::MarkClass;

use behind::Row;
use by_key::ByKey;

pub(super) use behind::Behind;

/// Claim ids are unique within the process, so that a claim on a store that was reopened
/// meanwhile can never fit again.
static NEXT_CLAIM: AtomicU64 = AtomicU64::new(1);

/// Marks that were made together lie together: rows of about 250 bytes in pages of 4 KiB. A mask.
const NEIGHBOURS: u32 = 15;

/// A claim that is out: on which mark, and as of which of its generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Out {
    slot: u32,
    generation: u64,
}

/// "This entity changed."
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) key: EntityKey,
    pub(super) id: u64,
    /// Checksum of its row, when it has one.
    pub(super) row: Option<i64>,
    pub(super) generation: u64,
    pub(super) behind: Behind,
    /// What came in while it was claimed.
    newer: Option<Box<Behind>>,
    pub(super) attempts: u32,
    due: Ticks,
    /// The same for the row: a time of day, and the wait it was made from.
    pub(super) due_at: UnixMillis,
    pub(super) delay: Duration,
    pub(super) patient: bool,
    claim: Option<NonZeroU64>,
    touched: bool,
    /// Its row is [`Row::Late`], and it is in the queue of those.
    late: bool,
}

impl Mark {
    /// All that is behind it, claimed or newer: what its row must say.
    pub(super) fn all_behind(&self) -> Behind {
        let mut all = self.behind.clone();
        if let Some(newer) = &self.newer {
            all.absorb((**newer).clone());
        }
        all
    }
}

/// How a claimed mark goes on.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    Clear,
    Retry(Duration),
    Again(Duration),
}

/// Place in a queue.
type Place = (Ticks, u64, u32);

#[derive(Debug, Default)]
pub(super) struct Marks {
    by_key: ByKey,
    /// Boxed: a table that doubles must not leave holes of its old size behind.
    slots: Vec<Option<Box<Mark>>>,
    free: Vec<u32>,
    queues: [BTreeSet<Place>; 2],
    claims: HashMap<u64, Out>,
    leases: VecDeque<(Ticks, u64)>,
    /// How many marks came in at each second: one that never goes must not pile up the others.
    ages: BTreeMap<i64, u32>,
    /// When the last fetch of an entity began, for `minInterval`.
    begun: HashMap<EntityKey, Ticks>,
    begun_order: VecDeque<(Ticks, EntityKey)>,
    /// Slots whose rows must be written.
    pub(super) touched: Vec<u32>,
    /// Slots whose rows are late, each with the oldest journal row that is not in its row; in the
    /// order of these. Some may have been written meanwhile.
    late: VecDeque<(u64, u32)>,
    /// Rows to delete: id and checksum.
    pub(super) deleted: Vec<(u64, i64)>,
    next_id: u64,
    resync: u64,
    min_interval: Duration,
    lease: Duration,
}

const fn queue_of(class: MarkClass) -> usize {
    match class {
        MarkClass::Notification => 0,
        MarkClass::Resync => 1,
    }
}

impl Marks {
    pub(super) fn new(min_interval: Duration, lease: Duration) -> Self {
        Self {
            next_id: 1,
            min_interval,
            lease,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn resync(&self) -> u64 {
        self.resync
    }

    pub(super) fn claimed(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn contains(&self, key: &EntityKey) -> bool {
        self.slot(key).is_some()
    }

    fn slot(&self, key: &EntityKey) -> Option<u32> {
        self.by_key.find(&self.slots, key)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Mark> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// The mark in a touched slot, unless it is gone or written already.
    pub(super) fn to_write(&self, slot: u32) -> Option<&Mark> {
        self.get(slot).filter(|mark| mark.touched)
    }

    /// After its row was written.
    pub(super) fn written(&mut self, slot: u32, row: i64) {
        if let Some(mark) = self.slots[slot as usize].as_mut() {
            mark.row = Some(row);
            mark.touched = false;
            mark.late = false;
        }
    }

    /// Puts back a mark that was read from its row. `wait` is what is left of its delay.
    pub(super) fn restore(&mut self, mark: RestoredMark, ticks: Ticks) {
        self.next_id = self.next_id.max(mark.id + 1);
        self.insert(Mark {
            key: mark.key,
            id: mark.id,
            row: Some(mark.row),
            generation: 1,
            behind: mark.behind,
            newer: None,
            attempts: mark.attempts,
            due: ticks.after(mark.wait),
            due_at: mark.due_at,
            delay: mark.delay,
            patient: mark.patient,
            claim: None,
            touched: false,
            late: false,
        });
    }

    fn insert(&mut self, mark: Mark) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("the backlog is bounded far below 2^32")
        });
        self.by_key.insert(&self.slots, &mark.key, slot);
        self.came(mark.behind.since);
        self.resync += u64::from(mark.behind.class == MarkClass::Resync);
        self.queues[queue_of(mark.behind.class)].insert((mark.due, mark.id, slot));
        self.slots[slot as usize] = Some(Box::new(mark));
        slot
    }

    fn came(&mut self, since: UnixMillis) {
        *self.ages.entry(since.as_secs()).or_default() += 1;
    }

    fn went(&mut self, since: UnixMillis) {
        let second = since.as_secs();
        if let Some(count) = self.ages.get_mut(&second) {
            *count -= 1;
            if *count == 0 {
                self.ages.remove(&second);
            }
        }
    }

    /// The earliest tick at which `key` may be fetched again.
    fn allowed(&mut self, key: &EntityKey, ticks: Ticks) -> Ticks {
        while let Some((begun, _)) = self.begun_order.front() {
            if begun.after(self.min_interval) > ticks {
                break;
            }
            if let Some((begun, key)) = self.begun_order.pop_front()
                && self.begun.get(&key) == Some(&begun)
            {
                self.begun.remove(&key);
            }
        }
        self.begun
            .get(key)
            .map_or(ticks, |begun| begun.after(self.min_interval).max(ticks))
    }

    /// Notes something new about `key`. What is urgent, as a notification is, brings an impatient
    /// mark forward.
    pub(super) fn add(&mut self, key: &EntityKey, behind: Behind, now: UnixMillis, ticks: Ticks) {
        let allowed = self.allowed(key, ticks);
        let Some(slot) = self.slot(key) else {
            let id = self.next_id;
            self.next_id += 1;
            let delay = allowed.since(ticks);
            let slot = self.insert(Mark {
                key: key.clone(),
                id,
                row: None,
                generation: 1,
                behind,
                newer: None,
                attempts: 0,
                due: allowed,
                due_at: now.after(delay),
                delay,
                patient: false,
                claim: None,
                touched: false,
                late: false,
            });
            self.touch(slot);
            return;
        };
        let mark = self.slots[slot as usize]
            .as_mut()
            .expect("a key leads to its mark");
        mark.generation += 1;
        if mark.claim.is_some() {
            let first = mark.newer.is_none();
            let before = mark.behind.clone();
            let journal = behind.first;
            let newer = match mark.newer.take() {
                Some(mut newer) => {
                    newer.absorb(behind);
                    newer
                }
                None => Box::new(behind),
            };
            // The row covers both. While nothing in it rises it need not be written.
            let mut all = before;
            let row = all.absorb((*newer).clone());
            mark.newer = Some(newer);
            let row = if first { Row::Old } else { row };
            self.note_row(slot, row, journal);
            return;
        }
        let forward = behind.urgent && !mark.patient && mark.due > allowed;
        let (old_class, old_due, id) = (mark.behind.class, mark.due, mark.id);
        let journal = behind.first;
        let row = mark.behind.absorb(behind);
        if forward {
            mark.due = allowed;
            mark.delay = allowed.since(ticks);
            mark.due_at = now.after(mark.delay);
        }
        let (class, due) = (mark.behind.class, mark.due);
        if class != old_class || due != old_due {
            self.queues[queue_of(old_class)].remove(&(old_due, id, slot));
            self.queues[queue_of(class)].insert((due, id, slot));
            self.resync -= u64::from(class != old_class);
        }
        self.note_row(slot, if forward { Row::Old } else { row }, journal);
    }

    /// `journal`: the journal's row that made the mark's row late.
    fn note_row(&mut self, slot: u32, row: Row, journal: u64) {
        match row {
            Row::True => {}
            Row::Late if journal > 0 => {
                if let Some(mark) = self.slots[slot as usize].as_mut()
                    && !mark.late
                {
                    mark.late = true;
                    self.late.push_back((journal, slot));
                }
            }
            Row::Late | Row::Old => self.touch(slot),
        }
    }

    /// Has the rows written that lack what the journal says up to its row `upto`, and with each
    /// one its late neighbours: they share its page.
    pub(super) fn write_late(&mut self, upto: u64) {
        while let Some(&(journal, slot)) = self.late.front() {
            if journal > upto {
                return;
            }
            self.late.pop_front();
            let is_late = |slot| self.get(slot).is_some_and(|mark| mark.late);
            if !is_late(slot) {
                continue;
            }
            let page = (slot & !NEIGHBOURS)..=(slot | NEIGHBOURS);
            let late: Vec<u32> = page.filter(|slot| is_late(*slot)).collect();
            for slot in late {
                self.touch(slot);
            }
        }
    }

    /// After [`Self::restore`]: what the journal says about `key` beyond what its row does. Called
    /// in the journal's order.
    pub(super) fn replay(&mut self, key: &EntityKey, behind: Behind) {
        let Some(slot) = self.slot(key) else { return };
        let Some(mark) = self.slots[slot as usize].as_mut() else {
            return;
        };
        if mark.behind.first == 0 || behind.first < mark.behind.first {
            // Of an earlier mark, which was settled.
            return;
        }
        let journal = behind.first;
        let row = mark.behind.absorb(behind);
        self.note_row(slot, row, journal);
    }

    fn touch(&mut self, slot: u32) {
        if let Some(mark) = self.slots[slot as usize].as_mut()
            && !mark.touched
        {
            mark.touched = true;
            self.touched.push(slot);
        }
    }

    /// Hands out the due mark that is oldest within `prefer`, else within the other class.
    pub(super) fn claim(&mut self, prefer: MarkClass, ticks: Ticks) -> Option<(u64, &Mark)> {
        self.take_back_expired(ticks);
        let first = queue_of(prefer);
        for queue in [first, 1 - first] {
            let Some(&place) = self.queues[queue].first() else {
                continue;
            };
            let (due, _, slot) = place;
            if due > ticks {
                continue;
            }
            self.queues[queue].remove(&place);
            let claim = NEXT_CLAIM.fetch_add(1, Ordering::Relaxed);
            self.leases.push_back((ticks.after(self.lease), claim));
            let mark = self.slots[slot as usize]
                .as_mut()
                .expect("a queue leads to marks");
            mark.claim = NonZeroU64::new(claim);
            let generation = mark.generation;
            self.claims.insert(claim, Out { slot, generation });
            return Some((claim, mark));
        }
        None
    }

    fn take_back_expired(&mut self, ticks: Ticks) {
        while let Some(&(expiry, claim)) = self.leases.front() {
            let over = self.claims.get(&claim).copied();
            if over.is_some() && expiry > ticks {
                break;
            }
            self.leases.pop_front();
            let Some(Out { slot, .. }) = over else {
                continue;
            };
            self.claims.remove(&claim);
            let mark = self.slots[slot as usize]
                .as_mut()
                .expect("a claim leads to its mark");
            mark.claim = None;
            self.merge_newer(slot);
            self.requeue(slot, ticks);
        }
    }

    /// Joins what came in during the claim with what was claimed.
    fn merge_newer(&mut self, slot: u32) {
        let mark = self.slots[slot as usize].as_mut().expect("checked");
        if let Some(newer) = mark.newer.take() {
            let class = mark.behind.class;
            mark.behind.absorb(*newer);
            self.resync -= u64::from(mark.behind.class != class);
        }
    }

    fn requeue(&mut self, slot: u32, due: Ticks) {
        let mark = self.slots[slot as usize].as_mut().expect("checked");
        mark.due = due;
        self.queues[queue_of(mark.behind.class)].insert((due, mark.id, slot));
    }

    /// The mark behind a claim that is still good.
    pub(super) fn claimed_mark(&self, claim: u64, key: &EntityKey) -> Option<&Mark> {
        let slot = match self.claims.get(&claim) {
            Some(out) => out.slot,
            None if planted(Bug::StaleClaimWrites) => self.slot(key)?,
            None => return None,
        };
        self.get(slot).filter(|mark| mark.key == *key)
    }

    /// Consumes a claim that [`Self::claimed_mark`] found good.
    pub(super) fn settle(
        &mut self,
        claim: u64,
        key: &EntityKey,
        after: After,
        begun: Ticks,
        now: UnixMillis,
        ticks: Ticks,
    ) {
        self.begun.insert(key.clone(), begun);
        self.begun_order.push_back((begun, key.clone()));
        let out = self.claims.remove(&claim);
        let Some(slot) = out.map(|out| out.slot).or_else(|| self.slot(key)) else {
            return;
        };
        let allowed = self.allowed(key, ticks);
        let mark = self.slots[slot as usize]
            .as_mut()
            .expect("a claim leads to its mark");
        let claimed_by = mark.claim.take().map(NonZeroU64::get);
        let out = match claimed_by.filter(|other| *other != claim) {
            // Only reached by a planted bug: somebody else had claimed it.
            Some(other) => self.claims.remove(&other),
            None => out,
        };
        let unchanged = out.is_none_or(|out| out.generation == mark.generation);
        if claimed_by.is_none() {
            // Only reached by a planted bug: the mark was not claimed.
            let place = (mark.due, mark.id, slot);
            self.queues[queue_of(mark.behind.class)].remove(&place);
        }
        let due = match after {
            After::Clear if unchanged || planted(Bug::ClearIgnoresGeneration) => {
                self.remove(slot);
                return;
            }
            After::Clear => {
                let newer = mark.newer.take().expect("a newer generation left it");
                let before = std::mem::replace(&mut mark.behind, *newer);
                let class = mark.behind.class;
                mark.attempts = 0;
                mark.patient = false;
                let since = mark.behind.since;
                self.went(before.since);
                self.came(since);
                self.resync += u64::from(class == MarkClass::Resync);
                self.resync -= u64::from(before.class == MarkClass::Resync);
                allowed
            }
            After::Retry(wait) => {
                mark.attempts = mark.attempts.saturating_add(1);
                mark.patient = true;
                self.merge_newer(slot);
                ticks.after(wait)
            }
            After::Again(wait) => {
                mark.attempts = 0;
                mark.patient = false;
                let urgent = mark.newer.as_ref().is_some_and(|newer| newer.urgent);
                self.merge_newer(slot);
                if urgent { allowed } else { ticks.after(wait) }
            }
        };
        let mark = self.slots[slot as usize].as_mut().expect("still there");
        mark.delay = due.since(ticks);
        mark.due_at = now.after(mark.delay);
        self.requeue(slot, due);
        self.touch(slot);
    }

    /// Drops a mark that is in no queue.
    fn remove(&mut self, slot: u32) {
        let mark = self.slots[slot as usize].take().expect("checked");
        self.by_key.remove(&mark.key, slot);
        self.went(mark.behind.since);
        self.resync -= u64::from(mark.behind.class == MarkClass::Resync);
        if let Some(row) = mark.row {
            self.deleted.push((mark.id, row));
        }
        self.free.push(slot);
    }

    /// When [`Self::claim`] may next have something: a due time that may have passed.
    pub(super) fn next_due(&self) -> Option<Ticks> {
        let queued = self
            .queues
            .iter()
            .filter_map(|queue| queue.first().map(|place| place.0));
        let lease = self.leases.front().map(|lease| lease.0);
        queued.chain(lease).min()
    }

    /// When the oldest mark came in, to the second.
    pub(super) fn oldest(&self) -> Option<UnixMillis> {
        let (second, _) = self.ages.first_key_value()?;
        Some(UnixMillis::from_secs(*second))
    }
}

/// A mark as its row says.
pub(super) struct RestoredMark {
    pub(super) key: EntityKey,
    pub(super) id: u64,
    pub(super) row: i64,
    pub(super) behind: Behind,
    pub(super) attempts: u32,
    pub(super) due_at: UnixMillis,
    pub(super) delay: Duration,
    pub(super) wait: Duration,
    pub(super) patient: bool,
}

#[cfg(test)]
mod tests;
