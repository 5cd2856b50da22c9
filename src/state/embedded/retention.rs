//! Deleting what need not be kept, in small steps: part of a batch's commit, or between batches.
//!
//! Owns: the ages and shares after which rows go. The newest event of an entity stays as long as
//! the entity does; a removal stays at least seven days, and then moves the horizon of
//! `events`; a sink that is behind holds removals back, up to four times as long. Dead letters that
//! take from the space reserved for marks go before their time, oldest first.
//!
//! Never here: a step that takes more than a few milliseconds, or one that deletes a mark.

use std::time::Duration;

use super::error::Result;
use super::rows::{EntityRow, EventRow};
use super::store::Store;
use crate::clock::{Ticks, UnixMillis};
use crate::state::{ChangeKind, StateError};

/// Removals stay at least this long.
const REMOVALS: Duration = Duration::from_hours(7 * 24);
/// Rows looked at in one step.
const STEP: i64 = 256;
/// The journal's share of the file, as a divisor, and what a row of it takes at least.
const JOURNAL_SHARE: u64 = 4;
const JOURNAL_ROW: u64 = 256;

impl Store {
    /// Does one small step of retention, durably. `true`: there is more to do at once.
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn retain(
        &mut self,
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<bool, StateError> {
        self.step(now, ticks, |store| store.retain_within(now))
    }

    /// The same as a part of the step that is open.
    pub(super) fn retain_within(&mut self, now: UnixMillis) -> Result<bool> {
        let mut more = self.retain_journal(now)?;
        more |= self.retain_settlements(now)?;
        more |= self.retain_superseded(now)?;
        more |= self.retain_removals(now)?;
        more |= self.retain_dead_letters(now)?;
        more |= self.retain_bookings(now)?;
        Ok(more)
    }

    /// The most rows that the journal may hold.
    fn journal_bound(&self) -> i64 {
        (self.options.file_bytes() / JOURNAL_SHARE / JOURNAL_ROW) as i64
    }

    fn retain_journal(&mut self, now: UnixMillis) -> Result<bool> {
        let horizon = now.before(self.options.retain_events).0;
        let bound = self.row.journal - self.journal_bound();
        // The newest row stays: it says that none is missing at the end.
        let end = (self.journal_first + STEP).min(self.row.journal);
        let first = self.rows_to_delete(
            "journal",
            "received",
            self.journal_first,
            end,
            |seq, time| time < horizon || seq <= bound,
        )?;
        let more = first == end && end < self.row.journal;
        self.journal_first = first;
        // What goes must not be the only one to say something of a mark.
        self.marks.write_late((first - 1).max(0) as u64);
        Ok(more)
    }

    fn retain_settlements(&mut self, now: UnixMillis) -> Result<bool> {
        let horizon = now.before(self.options.retain_events).0;
        let (first, last) = self.settlements;
        let bound = last - self.journal_bound();
        let end = (first + STEP).min(last);
        let kept = self.rows_to_delete("settlements", "time", first, end, |seq, time| {
            time < horizon || seq <= bound
        })?;
        self.settlements.0 = kept;
        Ok(kept == end && end < last)
    }

    /// Deletes rows from `first` to below `end` as long as they are `old`; returns the first kept.
    fn rows_to_delete(
        &self,
        table: &str,
        time: &str,
        first: i64,
        end: i64,
        old: impl Fn(i64, i64) -> bool,
    ) -> Result<i64> {
        if end <= first {
            return Ok(first);
        }
        let mut kept = first;
        {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT seq, {time} FROM {table} WHERE seq >= ?1 AND seq < ?2 ORDER BY seq"
            ))?;
            let mut found = statement.query([first, end])?;
            while let Some(row) = found.next()? {
                let seq: i64 = row.get(0)?;
                if !old(seq, row.get(1)?) {
                    break;
                }
                kept = seq + 1;
            }
        }
        if kept > first {
            self.connection
                .prepare_cached(&format!("DELETE FROM {table} WHERE seq < ?1"))?
                .execute([kept])?;
        }
        Ok(kept)
    }

    /// Superseded events: past their time, or beyond the quota for bodies, oldest first.
    fn retain_superseded(&mut self, now: UnixMillis) -> Result<bool> {
        let horizon = now.before(self.options.retain_events).0;
        for _ in 0..STEP {
            let Some(event) = self.next_event(self.row.superseded)? else {
                return Ok(false);
            };
            if event.committed >= horizon && !self.over_body_quota() {
                return Ok(false);
            }
            if let Some(previous) = event.previous {
                self.delete_event(previous)?;
            }
            self.row.superseded = event.seq;
        }
        Ok(true)
    }

    /// Bodies may take half of the file; less while there is little room.
    fn over_body_quota(&self) -> bool {
        let file = self.options.file_bytes();
        self.row.event_bytes as u64 > file / 2
            || self.room() < self.options.reserve_bytes() + file / 20
    }

    fn next_event(&self, after: i64) -> Result<Option<EventRow>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT * FROM events WHERE seq > ?1 ORDER BY seq LIMIT 1")?;
        let mut found = statement.query([after])?;
        found.next()?.map(EventRow::from_row).transpose()
    }

    fn retain_removals(&mut self, now: UnixMillis) -> Result<bool> {
        let keep = REMOVALS.max(self.options.retain_events);
        let (horizon, at_last) = (now.before(keep).0, now.before(keep * 4).0);
        let slowest: Option<i64> = self
            .connection
            .prepare_cached("SELECT min(cursor) FROM sinks")?
            .query_row([], |row| row.get(0))?;
        for _ in 0..STEP {
            let Some(event) = self.next_event(self.row.removals)? else {
                return Ok(false);
            };
            let held = slowest.is_some_and(|cursor| event.seq > cursor);
            if event.committed >= horizon || (held && event.committed >= at_last) {
                return Ok(false);
            }
            self.row.removals = event.seq;
            if event.change != ChangeKind::Removed {
                continue;
            }
            if let Some(entity) = EntityRow::read_id(&self.connection, event.entity)?
                && entity.event == Some(event.seq)
            {
                self.forget_entity(&entity)?;
            }
        }
        Ok(true)
    }

    fn retain_dead_letters(&mut self, now: UnixMillis) -> Result<bool> {
        let horizon = now.before(self.options.retain_dead_letters).0;
        for _ in 0..STEP {
            let mut statement = self
                .connection
                .prepare_cached("SELECT id, source, time FROM dead_letters ORDER BY id LIMIT 1")?;
            let mut found = statement.query([])?;
            let Some(row) = found.next()? else {
                return Ok(false);
            };
            let (id, source, time): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let source = usize::try_from(source).unwrap_or(usize::MAX);
            drop(found);
            drop(statement);
            let early = time >= horizon;
            if (early && !self.dead_letters_weigh()) || source >= self.row.dead.len() {
                return Ok(false);
            }
            self.dropped += u64::from(early);
            self.drop_dead_letter(id, source)?;
        }
        Ok(true)
    }

    /// Entities whose time is over: bookings hold personal data.
    fn retain_bookings(&mut self, now: UnixMillis) -> Result<bool> {
        let due: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM entities WHERE forget_after IS NOT NULL AND forget_after < ?1
                 ORDER BY forget_after LIMIT 32",
            )?
            .query_map([now.0], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for id in &due {
            if let Some(entity) = EntityRow::read_id(&self.connection, *id)? {
                self.forget_entity(&entity)?;
            }
        }
        Ok(due.len() == 32)
    }
}
