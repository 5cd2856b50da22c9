//! The core of the engine: one connection, one thread, every time passed in.
//!
//! Owns: the open transaction and the memory that goes with it. Calls between [`Store::begin`]
//! and [`Store::commit`] form one durable step; the calls named `…_now` and the single ones used
//! outside a step make one of their own.
//!
//! Never here: a clock, a thread, a file name.

use rusqlite::Connection;

use super::error::{Fault, Result};
use super::ledger::Ledger;
use super::marks::{Behind, Marks};
use super::options::Options;
use super::rows::{JOURNAL, MARK, StoreRow};
use super::schema::{self, Kind, PAGE_SIZE};
use crate::clock::{Ticks, UnixMillis};
use crate::state::{Epoch, MarkClass, StateError, Stats};

use super::checksum::Checksum;

/// See the module documentation.
pub struct Store {
    pub(super) connection: Connection,
    pub(super) options: Options,
    pub(super) epoch: Epoch,
    pub(super) row: StoreRow,
    /// As it is in the file.
    pub(super) committed: StoreRow,
    pub(super) marks: Marks,
    pub(super) ledger: Ledger,
    open: bool,
    /// Bytes in use at the last look.
    pub(super) used: u64,
    /// Oldest row still in `journal` and `settlements`, and newest in the latter.
    pub(super) journal_first: i64,
    pub(super) settlements: (i64, i64),
    /// Bytes of the bodies that dead notifications keep.
    pub(super) dead_bytes: u64,
    /// Dead letters dropped before their time, until somebody asks.
    pub(super) dropped: u64,
}

impl Store {
    /// Opens the store on this connection, making or migrating it as needed, and reads into
    /// memory what belongs there. `now` and `ticks` are the present.
    ///
    /// # Errors
    /// [`StateError::Failed`] when the file is damaged, foreign or newer than this program.
    pub fn open(
        connection: Connection,
        options: Options,
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<Self, StateError> {
        Self::open_inner(connection, options, now, ticks).map_err(StateError::from)
    }

    pub(super) fn open_inner(
        connection: Connection,
        options: Options,
        now: UnixMillis,
        ticks: Ticks,
    ) -> Result<Self> {
        schema::configure_writer(&connection, &options)?;
        let version = match schema::kind(&connection)? {
            Kind::Empty => 0,
            Kind::Bellhop(version) => version,
            Kind::Foreign => {
                return Err(Fault::Damaged("not a Bellhop store".to_owned()));
            }
        };
        if version > schema::VERSION {
            return Err(Fault::Damaged(format!(
                "schema version {version} is newer than this program's {}",
                schema::VERSION
            )));
        }
        if version < schema::VERSION {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let made = schema::migrate(&connection, version)
                .map_err(Fault::from)
                .and_then(|()| match version {
                    0 => StoreRow::fresh(now).write(&connection),
                    _ => Ok(()),
                })
                .and_then(|()| Ok(connection.execute_batch("COMMIT")?));
            if let Err(fault) = made {
                let _ = connection.execute_batch("ROLLBACK");
                return Err(fault);
            }
        }
        let row = StoreRow::read(&connection)?;
        let mut store = Self {
            epoch: Epoch(row.epoch.clone()),
            committed: row.clone(),
            marks: Marks::new(options.min_interval, options.lease),
            ledger: Ledger::new(options.ledger_span, options.ledger_capacity),
            row,
            connection,
            options,
            open: false,
            used: 0,
            journal_first: 0,
            settlements: (0, 0),
            dead_bytes: 0,
            dropped: 0,
        };
        store.load(now, ticks)?;
        Ok(store)
    }

    /// Gives the connection back. What was not committed is gone.
    pub fn into_connection(mut self) -> Connection {
        if std::mem::take(&mut self.open) {
            // A connection that cannot roll back does so when it is closed.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.connection
    }

    /// The store's epoch.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Starts a step, if none is open.
    pub(super) fn begin(&mut self) -> Result<()> {
        if !self.open {
            self.connection
                .prepare_cached("BEGIN IMMEDIATE")?
                .execute([])?;
            self.open = true;
        }
        Ok(())
    }

    /// Whether a step is open.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Makes the open step durable.
    pub(super) fn commit(&mut self) -> Result<()> {
        if !self.open {
            return Ok(());
        }
        self.marks
            .write_late((self.row.journal as u64).saturating_sub(LATE_ROWS));
        self.flush_marks()?;
        if self.row != self.committed {
            self.row.write(&self.connection)?;
        }
        self.used = self.measure()?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.open = false;
        self.committed.clone_from(&self.row);
        Ok(())
    }

    /// Writes the counters again, changed or not, so that the open step has something to commit.
    pub(super) fn touch(&mut self) -> Result<()> {
        self.row.write(&self.connection)
    }

    /// Throws the open step away, and memory with it: every claim becomes stale.
    pub(super) fn roll_back(&mut self, now: UnixMillis, ticks: Ticks) -> Result<()> {
        if std::mem::take(&mut self.open) && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.load(now, ticks)
    }

    /// Runs `work` as one durable step.
    pub(super) fn step<T>(
        &mut self,
        now: UnixMillis,
        ticks: Ticks,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> std::result::Result<T, StateError> {
        let result = self
            .begin()
            .and_then(|()| work(self))
            .and_then(|value| self.commit().map(|()| value));
        match result {
            Ok(value) => Ok(value),
            Err(fault) if fault.breaks_transaction() || !self.open => {
                self.roll_back(now, ticks)?;
                Err(fault.into())
            }
            // Refused before anything was changed: what was done before it in the step stays.
            Err(fault) => {
                self.commit()?;
                Err(fault.into())
            }
        }
    }

    /// Writes the rows of the marks that changed.
    fn flush_marks(&mut self) -> Result<()> {
        if !self.marks.deleted.is_empty() {
            let mut delete = self
                .connection
                .prepare_cached("DELETE FROM marks WHERE id = ?1")?;
            for (id, sum) in std::mem::take(&mut self.marks.deleted) {
                if delete.execute([id as i64])? != 1 {
                    return Err(Fault::Damaged(format!("table marks: row {id} is missing")));
                }
                self.row.marks -= 1;
                self.row.marks_sum ^= sum;
            }
        }
        if self.marks.touched.is_empty() {
            return Ok(());
        }
        let mut put = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO marks VALUES
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        for slot in std::mem::take(&mut self.marks.touched) {
            let Some(mark) = self.marks.to_write(slot) else {
                continue;
            };
            let all = mark.all_behind();
            let (id, before) = (mark.id, mark.row);
            let sum = mark_checksum(
                id,
                mark.key.as_str(),
                &all,
                mark.attempts,
                mark.due_at,
                mark.delay,
                mark.patient,
            );
            put.execute(rusqlite::params![
                id as i64,
                mark.key.as_str(),
                class_code(all.class),
                all.since.0,
                all.marked.map(|time| time.0),
                all.notified.map(|time| time.0),
                all.removed,
                mark.attempts,
                mark.due_at.0,
                mark.delay.as_millis() as i64,
                mark.patient,
                all.first as i64,
                all.traceparent.as_deref(),
                sum,
            ])?;
            self.row.marks += i64::from(before.is_none());
            self.row.marks_sum ^= sum ^ before.unwrap_or(0);
            self.marks.written(slot, sum);
        }
        Ok(())
    }

    /// Appends to the journal.
    pub(super) fn journal(&mut self, entry: &JournalRow<'_>) -> Result<()> {
        self.row.journal += 1;
        let seq = self.row.journal;
        self.connection
            .prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
            .execute(rusqlite::params![
                seq,
                entry.received,
                entry.rule,
                entry.key,
                entry.removed,
                entry.timestamp,
                entry.digest,
                entry.body,
                entry.disposition as i64,
                entry.checksum(seq),
            ])?;
        self.note_received(entry.received);
        Ok(())
    }

    /// When the newest authentic notification came in.
    pub(super) fn note_received(&mut self, time: i64) {
        self.row.last_notification = self.row.last_notification.max(Some(time));
    }

    /// Pages of the file that hold something, in bytes.
    pub(super) fn measure(&self) -> Result<u64> {
        let pragma = |sql| -> Result<i64> {
            Ok(self
                .connection
                .prepare_cached(sql)?
                .query_row([], |row| row.get(0))?)
        };
        let pages = pragma("PRAGMA page_count")? - pragma("PRAGMA freelist_count")?;
        Ok(pages.max(0) as u64 * PAGE_SIZE)
    }

    /// Bytes left before the quota.
    pub(super) fn room(&self) -> u64 {
        self.options.file_bytes().saturating_sub(self.used)
    }

    /// Whether only the reserve is left.
    pub(super) fn is_short(&self) -> bool {
        self.room() < self.options.reserve_bytes()
    }

    /// Refuses what is not a mark while only the reserve is left.
    pub(super) fn check_room(&self) -> Result<()> {
        if self.is_short() {
            return Err(Fault::Full(format!(
                "{} of {} bytes are in use and the rest is kept for notifications: enlarge the volume, or wait for retention",
                self.used,
                self.options.file_bytes(),
            )));
        }
        Ok(())
    }

    /// When [`Store::claim`] may next have something: a time that may have passed.
    pub fn next_due(&self) -> Option<Ticks> {
        self.marks.next_due()
    }

    /// Counters.
    pub fn stats(&mut self) -> Stats {
        Stats {
            marks: self.marks.len() as u64,
            resync_marks: self.marks.resync(),
            claims: self.marks.claimed() as u64,
            oldest_mark: self.marks.oldest(),
            live_entities: self.row.live as u64,
            head: self.row.head as u64,
            dead_letters: self.row.dead.map(|count| count as u64),
            journal: self.row.journal as u64,
            last_notification: self.row.last_notification.map(UnixMillis),
            bytes: self.used,
            bytes_limit: self.options.file_bytes(),
            full: self.check_room().is_err(),
            backlog_full: self.marks.len() >= self.options.max_backlog,
        }
    }
}

/// How many of the newest journal rows may say more of a mark than its own row: they are read when
/// the store is opened, as the ledger is. A mark that is notified again and again is so written
/// once in so many notifications, not at each.
pub(super) const LATE_ROWS: u64 = 200_000;

/// What was done with a notification, as the journal says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    Marked = 0,
    Duplicate = 1,
    SignatureReused = 2,
    Stale = 3,
    DeadLetter = 4,
}

/// A row of `journal`.
pub(super) struct JournalRow<'a> {
    pub(super) received: i64,
    pub(super) rule: i64,
    pub(super) key: Option<std::borrow::Cow<'a, str>>,
    pub(super) removed: bool,
    pub(super) timestamp: i64,
    pub(super) digest: std::borrow::Cow<'a, [u8]>,
    pub(super) body: Option<i64>,
    pub(super) disposition: Disposition,
}

impl JournalRow<'_> {
    fn checksum(&self, seq: i64) -> i64 {
        Checksum::of(JOURNAL)
            .int(seq)
            .int(self.received)
            .int(self.rule)
            .maybe_bytes(self.key.as_deref().map(str::as_bytes))
            .int(i64::from(self.removed))
            .int(self.timestamp)
            .bytes(&self.digest)
            .maybe(self.body)
            .int(self.disposition as i64)
            .finish()
    }

    /// From a row with the table's columns in order.
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> Result<JournalRow<'static>> {
        let seq: i64 = row.get(0)?;
        let found = JournalRow {
            received: row.get(1)?,
            rule: row.get(2)?,
            key: row.get::<_, Option<String>>(3)?.map(Into::into),
            removed: row.get(4)?,
            timestamp: row.get(5)?,
            digest: row.get::<_, Vec<u8>>(6)?.into(),
            body: row.get(7)?,
            disposition: match row.get::<_, i64>(8)? {
                0 => Disposition::Marked,
                1 => Disposition::Duplicate,
                2 => Disposition::SignatureReused,
                3 => Disposition::Stale,
                4 => Disposition::DeadLetter,
                _ => return Err(Fault::row("journal", seq)),
            },
        };
        if found.checksum(seq) == row.get::<_, i64>(9)? {
            Ok(found)
        } else {
            Err(Fault::row("journal", seq))
        }
    }
}

const fn class_code(class: MarkClass) -> i64 {
    match class {
        MarkClass::Notification => 0,
        MarkClass::Resync => 1,
    }
}

pub(super) fn mark_checksum(
    id: u64,
    key: &str,
    behind: &Behind,
    attempts: u32,
    due_at: UnixMillis,
    delay: std::time::Duration,
    patient: bool,
) -> i64 {
    Checksum::of(MARK)
        .int(id as i64)
        .bytes(key.as_bytes())
        .int(class_code(behind.class))
        .int(behind.since.0)
        .maybe(behind.marked.map(|time| time.0))
        .maybe(behind.notified.map(|time| time.0))
        .int(i64::from(behind.removed))
        .int(i64::from(attempts))
        .int(due_at.0)
        .int(delay.as_millis() as i64)
        .int(i64::from(patient))
        .int(behind.first as i64)
        .maybe_bytes(behind.traceparent.as_deref().map(str::as_bytes))
        .finish()
}
