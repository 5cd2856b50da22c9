//! Claims and what comes of them.
//!
//! Owns: the one step in which a claim becomes state, revision, event, child marks and a cleared
//! mark. Never here: a revision that falls, an event of an entity that never was.

use super::error::{Fault, Result};
use super::marks::After;
use super::rows::{EntityRow, EventRow, SETTLEMENT};
use super::store::Store;
use crate::clock::{Ticks, UnixMillis};
use crate::planted::{Bug, planted};
use crate::state::{
    ChangeKind, Claim, MarkAfter, MarkClass, NewEvent, Outcome, Settled, Settlement, StateError,
    StoredEntity,
};

use super::checksum::Checksum;

/// What is known of an entity while its settlement is written.
struct Subject {
    row: EntityRow,
    /// It has a row in the file.
    exists: bool,
    changed: bool,
}

impl Store {
    /// Hands out the due entity that is oldest within the preferred class, else within the other.
    ///
    /// # Errors
    /// [`StateError::Failed`] when what is stored of the entity cannot be read.
    pub fn claim(
        &mut self,
        prefer: MarkClass,
        ticks: Ticks,
    ) -> std::result::Result<Option<Claim>, StateError> {
        Ok(self.claim_one(prefer, ticks)?)
    }

    pub(super) fn claim_one(&mut self, prefer: MarkClass, ticks: Ticks) -> Result<Option<Claim>> {
        let Some((id, mark)) = self.marks.claim(prefer, ticks) else {
            return Ok(None);
        };
        let mark = mark.clone();
        let entity = match EntityRow::read(&self.connection, &mark.key)? {
            Some(row) => Some(self.stored_entity(row)?),
            None => None,
        };
        Ok(Some(Claim {
            id,
            key: mark.key,
            generation: mark.generation,
            marked: mark.behind.marked,
            notified: mark.behind.notified,
            noticed: mark.behind.noticed,
            since: mark.behind.since,
            removed: mark.behind.removed,
            class: mark.behind.class,
            attempts: mark.attempts,
            traceparent: mark.behind.traceparent.map(String::from),
            entity,
        }))
    }

    fn stored_entity(&self, row: EntityRow) -> Result<StoredEntity> {
        let event = match row.event {
            Some(seq) => Some(
                EventRow::read(&self.connection, seq)?
                    .filter(|event| event.entity == row.id && event.revision == row.revision)
                    .ok_or_else(|| Fault::row("events", seq))?,
            ),
            None => None,
        };
        Ok(StoredEntity {
            revision: row.revision as u64,
            sequence: row.event.map(|seq| seq as u64),
            live: row.live,
            attributes: match &event {
                Some(event) => event.parse_attributes()?,
                None => crate::state::EventAttributes::default(),
            },
            data: event.and_then(|event| event.data),
            memo: row.memo,
        })
    }

    /// Consumes a claim, in one step with what came of it.
    ///
    /// # Errors
    /// As [`State::settle`](crate::state::State::settle).
    pub fn settle(
        &mut self,
        claim: &Claim,
        settlement: &Settlement,
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<Settled, StateError> {
        self.step(now, ticks, |store| {
            store.settle_one(claim, settlement, now, ticks)
        })
    }

    pub(super) fn settle_one(
        &mut self,
        claim: &Claim,
        s: &Settlement,
        now: UnixMillis,
        ticks: Ticks,
    ) -> Result<Settled> {
        let Some(mark) = self.marks.claimed_mark(claim.id, &claim.key) else {
            return Ok(Settled::Stale);
        };
        let (first, last) = (mark.behind.first, mark.behind.last);
        if planted(Bug::UnchangedKeepsClaim) && s.outcome == Outcome::Unchanged {
            return Ok(Settled::Committed(None));
        }
        // Notes that take more room than before are looked at where they are compared.
        if s.event.is_some() || !s.children.is_empty() || s.dead_letter.is_some() {
            self.check_room()?;
        }
        let published = if s.forget {
            self.forget(claim)?;
            None
        } else {
            self.write_entity(claim, s, now)?
        };
        for child in &s.children {
            self.add_mark(child, now, ticks);
        }
        let after = match s.mark {
            MarkAfter::Clear => After::Clear,
            MarkAfter::Retry(wait) => After::Retry(wait),
            MarkAfter::Again(wait) => After::Again(wait),
        };
        if matches!(after, After::Clear) {
            if first > 0 {
                self.note_settlement(claim, s.outcome, published, (first, last), now)?;
            }
            if s.outcome != Outcome::DeadLetter {
                self.resolve_fetch(&claim.key)?;
            }
        }
        if let Some(reason) = &s.dead_letter {
            self.bury_fetch(&claim.key, reason, now)?;
        }
        self.marks
            .settle(claim.id, &claim.key, after, s.started, now, ticks);
        Ok(Settled::Committed(published.map(|(sequence, revision)| {
            (sequence as u64, revision as u64)
        })))
    }

    /// Writes the entity's row and its event, as far as they change.
    fn write_entity(
        &mut self,
        claim: &Claim,
        s: &Settlement,
        now: UnixMillis,
    ) -> Result<Option<(i64, i64)>> {
        let found = EntityRow::read(&self.connection, &claim.key)?;
        let mut subject = Subject {
            exists: found.is_some(),
            changed: false,
            row: found.unwrap_or_else(|| EntityRow {
                id: 0,
                key: claim.key.clone(),
                revision: 0,
                event: None,
                live: false,
                confirmed: None,
                forget_after: None,
                memo: Vec::new(),
            }),
        };
        let row = &mut subject.row;
        if let Some(memo) = &s.memo
            && *memo != row.memo
        {
            // Nothing is written yet. The usual note, of an answer like the last one, fits in the
            // place of the old: a full store must not keep marks from being cleared.
            if memo.len() > row.memo.len() {
                self.check_room()?;
            }
            row.memo.clone_from(memo);
            subject.changed = true;
        }
        if let Some(time) = s.forget_after
            && row.forget_after != Some(time.0)
        {
            row.forget_after = Some(time.0);
            subject.changed = true;
        }
        if s.confirms
            && let Some(marked) = claim.marked
            && row.confirmed < Some(marked.0)
        {
            row.confirmed = Some(marked.0);
            // Without anything else to say of it the entity is not worth a row.
            subject.changed |= subject.exists;
        }
        // What never existed for consumers, or is gone already, cannot be removed.
        let event = s
            .event
            .as_ref()
            .filter(|event| event.change != ChangeKind::Removed || subject.row.live);
        if event.is_none() && !subject.changed {
            return Ok(None);
        }
        if !subject.exists {
            subject.row.id = self.next_entity()?;
            self.row.entities += 1;
        }
        let published = match event {
            Some(event) => Some(self.publish(&mut subject.row, event, s.fetched, now)?),
            None => None,
        };
        if subject.exists {
            subject.row.update(&self.connection)?;
        } else {
            subject.row.insert(&self.connection)?;
        }
        Ok(published)
    }

    fn next_entity(&self) -> Result<i64> {
        let newest: i64 = self
            .connection
            .prepare_cached("SELECT ifnull(max(id), 0) FROM entities")?
            .query_row([], |row| row.get(0))?;
        Ok(newest + 1)
    }

    /// Writes the event and what the entity's row says of it.
    fn publish(
        &mut self,
        entity: &mut EntityRow,
        event: &NewEvent,
        fetched: UnixMillis,
        now: UnixMillis,
    ) -> Result<(i64, i64)> {
        let was_live = entity.live;
        let restarts = planted(Bug::RevisionRestarts) && !was_live && entity.revision > 0;
        let floor = if entity.revision > 0 {
            entity.revision
        } else {
            self.row.floor
        };
        let revision = if restarts {
            1
        } else {
            fetched.0.max(floor + 1)
        };
        self.row.head += 1;
        let change = match event.change {
            ChangeKind::Removed => ChangeKind::Removed,
            _ if was_live => ChangeKind::Updated,
            _ => ChangeKind::Created,
        };
        let data = match change {
            ChangeKind::Removed => None,
            _ => event.data.clone(),
        };
        let row = EventRow {
            seq: self.row.head,
            entity: entity.id,
            revision,
            change,
            time: fetched.0,
            committed: now.0,
            previous: entity.event,
            attributes: serde_json::to_string(&event.attributes)
                .expect("texts and numbers serialise"),
            data,
        };
        row.insert(&self.connection)?;
        self.row.events += 1;
        self.row.event_bytes += row.data.as_ref().map_or(0, Vec::len) as i64;
        entity.live = change != ChangeKind::Removed;
        self.row.live += i64::from(entity.live) - i64::from(was_live);
        entity.event = Some(row.seq);
        entity.revision = revision;
        Ok((row.seq, revision))
    }

    /// Drops all that is stored of the claimed entity.
    fn forget(&mut self, claim: &Claim) -> Result<()> {
        if let Some(row) = EntityRow::read(&self.connection, &claim.key)? {
            self.forget_entity(&row)?;
        }
        Ok(())
    }

    /// Deletes an entity and all its events. Its revisions are remembered as a floor for all.
    pub(super) fn forget_entity(&mut self, row: &EntityRow) -> Result<()> {
        let mut next = row.event;
        while let Some(seq) = next {
            next = self.delete_event(seq)?.and_then(|event| event.previous);
        }
        if let (false, Some(seq)) = (row.live, row.event) {
            // A removal that nobody can read any more.
            self.row.horizon = self.row.horizon.max(seq);
        }
        self.connection
            .prepare_cached("DELETE FROM entities WHERE id = ?1")?
            .execute([row.id])?;
        self.row.entities -= 1;
        self.row.live -= i64::from(row.live);
        self.row.floor = self.row.floor.max(row.revision);
        Ok(())
    }

    /// Deletes one event; gives it back, if it was there.
    pub(super) fn delete_event(&mut self, seq: i64) -> Result<Option<EventRow>> {
        let Some(event) = EventRow::read(&self.connection, seq)? else {
            return Ok(None);
        };
        self.connection
            .prepare_cached("DELETE FROM events WHERE seq = ?1")?
            .execute([seq])?;
        self.row.events -= 1;
        self.row.event_bytes -= event.data.as_ref().map_or(0, Vec::len) as i64;
        Ok(Some(event))
    }

    /// Says in the journal what became of the notifications behind a claim.
    fn note_settlement(
        &mut self,
        claim: &Claim,
        outcome: Outcome,
        published: Option<(i64, i64)>,
        (first, last): (u64, u64),
        now: UnixMillis,
    ) -> Result<()> {
        self.settlements.1 += 1;
        let seq = self.settlements.1;
        let (event, revision) = published.unzip();
        let sum = Checksum::of(SETTLEMENT)
            .int(seq)
            .int(now.0)
            .bytes(claim.key.as_str().as_bytes())
            .int(first as i64)
            .int(last as i64)
            .bytes(outcome.as_str().as_bytes())
            .maybe(revision)
            .maybe(event)
            .finish();
        self.connection
            .prepare_cached("INSERT INTO settlements VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(rusqlite::params![
                seq,
                now.0,
                claim.key.as_str(),
                first as i64,
                last as i64,
                outcome.as_str(),
                revision,
                event,
                sum,
            ])?;
        Ok(())
    }
}
