//! Reading everything, to find what is damaged.
//!
//! Owns: the full check of a store: SQLite's own `integrity_check`, every row's checksum, and
//! what must fit between tables. Never here: a repair.

use rusqlite::{Connection, types::ValueRef};

use super::checksum::Checksum;
use super::error::{Fault, Result};
use super::rows::{self, EntityRow, EventRow, StoreRow};
use super::store::Store;
use crate::state::StateError;

impl Store {
    /// Checks the whole store. Takes about a second for each 200 MB.
    ///
    /// # Errors
    /// [`StateError::Failed`] with the first thing that does not fit.
    pub fn verify(&self) -> std::result::Result<(), StateError> {
        Ok(check(&self.connection)?)
    }
}

/// Checks the whole file behind a connection.
pub(super) fn check(connection: &Connection) -> Result<()> {
    connection.execute_batch("BEGIN")?;
    let result = check_snapshot(connection);
    let ended = connection.execute_batch("COMMIT");
    result?;
    Ok(ended?)
}

fn check_snapshot(connection: &Connection) -> Result<()> {
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        // It may come in several lines; a message is one.
        let verdict = verdict.split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(Fault::Damaged(format!("integrity_check says: {verdict}")));
    }
    let store = StoreRow::read(connection)?;
    for (tag, table, columns) in TABLES {
        sums(connection, *tag, table, columns)?;
    }
    entities(connection, &store)?;
    events(connection, &store)?;
    counts(connection, &store)
}

/// Tables whose checksum is simply over all columns in order.
const TABLES: &[(u8, &str, &str)] = &[
    (
        rows::MARK,
        "marks",
        "id, key, class, since, marked, notified, removed, attempts, due, delay, patient, first,
         traceparent, checksum",
    ),
    (
        rows::JOURNAL,
        "journal",
        "seq, received, rule, key, removed, timestamp, digest, body, disposition, checksum",
    ),
    (
        rows::SETTLEMENT,
        "settlements",
        "seq, time, key, first, last, outcome, revision, event, checksum",
    ),
    (rows::SINK, "sinks", "name, cursor, checksum"),
    (rows::PARKED, "parked", "sink, seq, key, attempts, checksum"),
    (
        rows::DEAD_LETTER,
        "dead_letters",
        "id, source, sink, key, seq, revision, reason, time, body, checksum",
    ),
    (rows::FACT, "facts", "name, value, checksum"),
];

fn sums(connection: &Connection, tag: u8, table: &str, columns: &str) -> Result<()> {
    let mut statement = connection.prepare(&format!("SELECT {columns} FROM {table}"))?;
    let last = statement.column_count() - 1;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let mut sum = Checksum::of(tag);
        for at in 0..last {
            sum = match row.get_ref(at)? {
                ValueRef::Null => sum.maybe(None),
                ValueRef::Integer(value) => sum.int(value),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => sum.bytes(bytes),
                ValueRef::Real(_) => return Err(Fault::row(table, "?")),
            };
        }
        if sum.finish() != row.get::<_, i64>(last)? {
            let name = match row.get_ref(0)? {
                ValueRef::Integer(id) => id.to_string(),
                ValueRef::Text(name) => String::from_utf8_lossy(name).into_owned(),
                _ => "?".to_owned(),
            };
            return Err(Fault::row(table, name));
        }
    }
    Ok(())
}

fn entities(connection: &Connection, store: &StoreRow) -> Result<()> {
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM entities", rows::ENTITY_COLUMNS))?;
    let mut found = statement.query([])?;
    let (mut count, mut live) = (0, 0);
    while let Some(row) = found.next()? {
        let entity = EntityRow::from_row(row)?;
        count += 1;
        live += i64::from(entity.live);
        if let Some(seq) = entity.event {
            EventRow::read(connection, seq)?
                .filter(|event| event.entity == entity.id && event.revision == entity.revision)
                .ok_or_else(|| Fault::row("events", seq))?;
        }
    }
    expect("entities", count, store.entities)?;
    expect("entities (live)", live, store.live)
}

fn events(connection: &Connection, store: &StoreRow) -> Result<()> {
    let mut statement = connection.prepare("SELECT * FROM events")?;
    let mut found = statement.query([])?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = found.next()? {
        let event = EventRow::from_row(row)?;
        count += 1;
        bytes += event.data.as_ref().map_or(0, Vec::len) as i64;
    }
    expect("events", count, store.events)?;
    expect("events (bytes)", bytes, store.event_bytes)
}

fn counts(connection: &Connection, store: &StoreRow) -> Result<()> {
    let one = |sql: &str| -> Result<i64> { Ok(connection.query_row(sql, [], |row| row.get(0))?) };
    let dead: i64 = store.dead.iter().sum();
    expect(
        "dead_letters",
        one("SELECT count(*) FROM dead_letters")?,
        dead,
    )?;
    expect("marks", one("SELECT count(*) FROM marks")?, store.marks)?;
    let newest = one("SELECT ifnull(max(seq), 0) FROM journal")?;
    let first = one("SELECT ifnull(min(seq), 1) FROM journal")?;
    expect("journal (newest)", newest, store.journal)?;
    expect(
        "journal",
        one("SELECT count(*) FROM journal")?,
        newest - first + 1,
    )
}

fn expect(what: &str, found: i64, written: i64) -> Result<()> {
    if found == written {
        return Ok(());
    }
    Err(Fault::Damaged(format!(
        "table {what}: {found} were found, not the {written} that were written"
    )))
}
