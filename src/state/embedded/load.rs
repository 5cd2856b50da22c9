//! What the store holds in memory, read from the file: when it is opened and after a failure.
//!
//! Owns: marks, ledger and counters as the rows say them, and the checks that no row is missing.
//! Never here: a write.

use super::error::{Fault, Result};
use super::ledger::Ledger;
use super::marks::{Behind, Marks, RestoredMark};
use super::rows::{self, StoreRow};
use super::store::{Disposition, JournalRow, LATE_ROWS, Store, mark_checksum};
use crate::api::{EntityKey, NotificationType};
use crate::clock::{Ticks, UnixMillis};
use crate::state::MarkClass;

impl Store {
    /// Reads memory from the file.
    pub(super) fn load(&mut self, now: UnixMillis, ticks: Ticks) -> Result<()> {
        self.row = StoreRow::read(&self.connection)?;
        self.committed = self.row.clone();
        self.load_marks(now, ticks)?;
        self.load_journal(now, ticks)?;
        let first_and_last = |table: &str| {
            self.connection.query_row(
                &format!(
                    "SELECT (SELECT ifnull(min(seq), 1) FROM {table}),
                            (SELECT ifnull(max(seq), 0) FROM {table})"
                ),
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
            )
        };
        let (first, last) = first_and_last("journal")?;
        if last != self.row.journal && self.row.journal != 0 {
            return Err(Fault::Damaged(
                "table journal: its newest row is missing".to_owned(),
            ));
        }
        self.journal_first = first;
        self.settlements = first_and_last("settlements")?;
        self.dead_bytes = self.connection.query_row(
            "SELECT ifnull(sum(length(body)), 0) FROM dead_letters",
            [],
            |row| Ok(row.get::<_, i64>(0)? as u64),
        )?;
        self.used = self.measure()?;
        Ok(())
    }

    fn load_marks(&mut self, now: UnixMillis, ticks: Ticks) -> Result<()> {
        let mut marks = Marks::new(self.options.min_interval, self.options.lease);
        let mut statement = self.connection.prepare_cached(
            "SELECT id, key, class, since, marked, notified, removed, attempts, due, delay,
             patient, first, traceparent, checksum FROM marks ORDER BY id",
        )?;
        let mut found = statement.query([])?;
        let (mut count, mut sum) = (0, 0);
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            let first: i64 = row.get(11)?;
            let class = match row.get::<_, i64>(2)? {
                0 => MarkClass::Notification,
                _ => MarkClass::Resync,
            };
            let mark = RestoredMark {
                key: rows::key_of(row.get_ref(1)?.as_str().map_err(rows::sql)?, "marks", id)?,
                id: id as u64,
                row: row.get(13)?,
                behind: Behind {
                    class,
                    since: UnixMillis(row.get(3)?),
                    marked: row.get::<_, Option<i64>>(4)?.map(UnixMillis),
                    notified: row.get::<_, Option<i64>>(5)?.map(UnixMillis),
                    noticed: (first > 0 || class == MarkClass::Notification).then_some(ticks),
                    removed: row.get(6)?,
                    urgent: false,
                    traceparent: row.get::<_, Option<String>>(12)?.map(Into::into),
                    first: first as u64,
                    // Which rows were behind it is not stored: all that came in so far may be.
                    last: if first > 0 {
                        self.row.journal as u64
                    } else {
                        0
                    },
                },
                attempts: row.get(7)?,
                due_at: UnixMillis(row.get(8)?),
                delay: std::time::Duration::from_millis(row.get::<_, i64>(9)? as u64),
                wait: std::time::Duration::ZERO,
                patient: row.get(10)?,
            };
            let expected = mark_checksum(
                mark.id,
                mark.key.as_str(),
                &mark.behind,
                mark.attempts,
                mark.due_at,
                mark.delay,
                mark.patient,
            );
            if expected != mark.row {
                return Err(Fault::row("marks", id));
            }
            count += 1;
            sum ^= expected;
            let wait = mark.due_at.since(now).min(mark.delay);
            marks.restore(RestoredMark { wait, ..mark }, ticks);
        }
        if count != self.row.marks || sum != self.row.marks_sum {
            return Err(Fault::Damaged(format!(
                "table marks: {count} rows were found, not the {} that were written",
                self.row.marks
            )));
        }
        self.marks = marks;
        Ok(())
    }

    /// Rebuilds the ledger from the journal's tail, and brings up to it the marks whose rows are
    /// late.
    fn load_journal(&mut self, now: UnixMillis, ticks: Ticks) -> Result<()> {
        let mut ledger = Ledger::new(self.options.ledger_span, self.options.ledger_capacity);
        let ledger_from = self.ledger_from(now)?;
        let late_from: i64 = self.connection.query_row(
            "SELECT ifnull(min(seq), ?2) FROM journal WHERE seq > ?1",
            [self.row.journal - LATE_ROWS as i64, ledger_from],
            |row| row.get(0),
        )?;
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, received, rule, key, removed, timestamp, digest, body, disposition,
             checksum FROM journal WHERE seq >= ?1 ORDER BY seq",
        )?;
        let mut expected = ledger_from.min(late_from);
        let mut found = statement.query([expected])?;
        while let Some(row) = found.next()? {
            let seq: i64 = row.get(0)?;
            let entry = JournalRow::from_row(row)?;
            if seq != expected {
                return Err(Fault::Damaged(format!(
                    "table journal: row {expected} is missing"
                )));
            }
            expected += 1;
            if entry.disposition == Disposition::Duplicate {
                continue;
            }
            let key = entry
                .key
                .as_deref()
                .map(|key| rows::key_of(key, "journal", seq))
                .transpose()?;
            if seq >= ledger_from {
                self.note_in(&mut ledger, seq, &entry, key.as_ref())?;
            }
            let marked = matches!(
                entry.disposition,
                Disposition::Marked | Disposition::SignatureReused
            );
            if let Some(key) = key.filter(|_| marked && seq >= late_from) {
                let (timestamp, received) =
                    (UnixMillis(entry.timestamp), UnixMillis(entry.received));
                let behind =
                    Behind::notification(timestamp, received, entry.removed, seq as u64, ticks);
                self.marks.replay(&key, behind);
            }
        }
        drop(found);
        drop(statement);
        self.ledger = ledger;
        Ok(())
    }

    /// The journal's first row that the ledger still knows.
    fn ledger_from(&self, now: UnixMillis) -> Result<i64> {
        let tail = self.row.journal - self.options.ledger_capacity as i64;
        let horizon = now.before(self.options.ledger_span).0;
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, received FROM journal WHERE seq > ?1 ORDER BY seq DESC")?;
        let mut found = statement.query([tail])?;
        let mut from = self.row.journal + 1;
        while let Some(row) = found.next()? {
            if row.get::<_, i64>(1)? < horizon {
                break;
            }
            from = row.get(0)?;
        }
        Ok(from)
    }

    fn note_in(
        &self,
        ledger: &mut Ledger,
        seq: i64,
        entry: &JournalRow<'_>,
        key: Option<&EntityKey>,
    ) -> Result<()> {
        let rule = NotificationType::ALL
            .get(entry.rule as usize)
            .ok_or_else(|| Fault::row("journal", seq))?;
        let body: Option<Vec<u8>> = match (key, entry.body) {
            (None, Some(id)) => self.dead_body(id)?,
            _ => None,
        };
        let mention = ledger.mention(
            *rule,
            &entry.digest,
            key,
            entry.removed,
            body.as_deref().unwrap_or_default(),
        );
        let received = UnixMillis(entry.received);
        let seen = ledger.look(mention, received);
        ledger.note(mention, seen, received);
        Ok(())
    }
}
