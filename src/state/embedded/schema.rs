//! The schema, its version and the settings of every connection.
//!
//! Owns: `user_version` and the forward migrations; `application_id`, which tells a Bellhop store
//! from any other SQLite file. Never here: a migration back, or one that is changed after release.

use rusqlite::{Connection, ErrorCode, FileControl, OptionalExtension};

use super::error::{Fault, Result};
use super::options::Options;

/// "BELL": names the file type to `file(1)` and to us.
pub(super) const APPLICATION_ID: i64 = 0x4245_4c4c;

/// Each brings a store from version `index` to `index + 1`.
const MIGRATIONS: &[&str] = &[VERSION_1];

/// The newest version this program knows.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

pub(super) const PAGE_SIZE: u64 = 4096;

/// Every table ends in `checksum`: XXH3-64 over its other columns. Times are Unix milliseconds.
const VERSION_1: &str = "
-- One row: who this store is, and its counters.
CREATE TABLE store (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch TEXT NOT NULL,                -- random id of the store
  created INTEGER NOT NULL,
  head INTEGER NOT NULL,              -- newest event ever
  floor INTEGER NOT NULL,             -- highest revision of any forgotten entity
  horizon INTEGER NOT NULL,           -- newest removal that is no longer kept
  superseded INTEGER NOT NULL,        -- events up to here had their predecessors deleted
  removals INTEGER NOT NULL,          -- events up to here were looked at for old removals
  journal INTEGER NOT NULL,           -- newest journal row ever
  last_notification INTEGER,
  live INTEGER NOT NULL,              -- entities that exist for consumers
  entities INTEGER NOT NULL,
  events INTEGER NOT NULL,
  event_bytes INTEGER NOT NULL,       -- of data in events
  marks INTEGER NOT NULL,
  marks_sum INTEGER NOT NULL,         -- all marks' checksums, xor
  dead_notifications INTEGER NOT NULL,
  dead_fetches INTEGER NOT NULL,
  dead_deliveries INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;

-- Entities to look at.
CREATE TABLE marks (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  class INTEGER NOT NULL,             -- 0 notification, 1 resync
  since INTEGER NOT NULL,
  marked INTEGER,                     -- min(timestamp, acceptance) of the newest notification
  notified INTEGER,                   -- newest timestamp
  removed INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  due INTEGER NOT NULL,
  delay INTEGER NOT NULL,             -- bounds the wait after a restart, whatever the clock says
  patient INTEGER NOT NULL,           -- 1: a newer notification does not bring it forward
  first INTEGER NOT NULL,             -- oldest journal row behind it, 0: none
  traceparent TEXT,
  checksum INTEGER NOT NULL
) STRICT;

-- What came in.
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  received INTEGER NOT NULL,
  rule INTEGER NOT NULL,              -- place in the list of the seven types
  key TEXT,
  removed INTEGER NOT NULL,
  timestamp INTEGER NOT NULL,
  digest BLOB NOT NULL,
  body INTEGER,                       -- dead letter that keeps the body, when there is no key
  disposition INTEGER NOT NULL,       -- 0 marked 1 duplicate 2 signature_reused 3 stale 4 dead_letter
  checksum INTEGER NOT NULL
) STRICT;

-- What became of it: covers journal rows of this key from first to last.
CREATE TABLE settlements (
  seq INTEGER PRIMARY KEY,
  time INTEGER NOT NULL,
  key TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  revision INTEGER,
  event INTEGER,
  checksum INTEGER NOT NULL
) STRICT;

CREATE TABLE entities (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  revision INTEGER NOT NULL,          -- 0: never published
  event INTEGER,                      -- its newest
  live INTEGER NOT NULL,
  confirmed INTEGER,                  -- mark time that a fetch confirmed
  forget_after INTEGER,
  memo BLOB NOT NULL,
  checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX entities_to_forget ON entities(forget_after) WHERE forget_after IS NOT NULL;

CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  entity INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  change INTEGER NOT NULL,            -- 0 created 1 updated 2 removed
  time INTEGER NOT NULL,              -- start of the fetch
  committed INTEGER NOT NULL,
  previous INTEGER,                   -- the event it supersedes
  attributes TEXT NOT NULL,           -- JSON
  data BLOB,
  checksum INTEGER NOT NULL
) STRICT;

CREATE TABLE sinks (
  name TEXT PRIMARY KEY,
  cursor INTEGER NOT NULL,
  checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE parked (
  sink TEXT NOT NULL,
  seq INTEGER NOT NULL,
  key TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  PRIMARY KEY (sink, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  source INTEGER NOT NULL,            -- 0 notification 1 fetch 2 sink
  sink TEXT,
  key TEXT,
  seq INTEGER,
  revision INTEGER,
  reason TEXT NOT NULL,
  time INTEGER NOT NULL,
  body BLOB,
  checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_key ON dead_letters(key) WHERE key IS NOT NULL;

CREATE TABLE facts (
  name TEXT PRIMARY KEY,
  value BLOB NOT NULL,
  checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- For people, in the sqlite3 program: SELECT * FROM notification_fate WHERE entity = 'booking/1';
CREATE VIEW notification_fate AS
SELECT j.seq AS notification,
       strftime('%Y-%m-%dT%H:%M:%fZ', j.received / 1000.0, 'unixepoch') AS received,
       CASE j.rule WHEN 0 THEN 'ChannelBinding' WHEN 1 THEN 'Supplier' WHEN 2 THEN 'Product'
                   WHEN 3 THEN 'Rate' WHEN 4 THEN 'Availability' WHEN 5 THEN 'PriceSchedule'
                   ELSE 'Booking' END AS rule,
       j.key AS entity,
       CASE j.disposition WHEN 0 THEN 'marked' WHEN 1 THEN 'duplicate'
                          WHEN 2 THEN 'signature_reused' WHEN 3 THEN 'stale'
                          ELSE 'dead_letter' END AS accepted_as,
       CASE WHEN j.disposition IN (1, 3, 4) THEN NULL
            WHEN s.seq IS NOT NULL THEN s.outcome
            WHEN m.id IS NOT NULL THEN 'waiting'
            ELSE 'no longer kept' END AS fate,
       CASE WHEN j.disposition IN (0, 2) THEN
            strftime('%Y-%m-%dT%H:%M:%fZ', s.time / 1000.0, 'unixepoch') END AS settled,
       CASE WHEN j.disposition IN (0, 2) THEN s.revision END AS revision
FROM journal j
LEFT JOIN settlements s ON s.key = j.key AND j.seq BETWEEN s.first AND s.last
LEFT JOIN marks m ON m.key = j.key AND m.first > 0 AND j.seq >= m.first;
";

/// Settings of the connection that writes.
pub(super) fn configure_writer(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_SIZE as i64)?;
    // `:memory:` answers "memory"; a file answers "wal" or cannot be used safely by readers.
    connection.pragma(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoints are ours to time (`checkpoint`): inside a commit they would cost its p99.
    connection.pragma(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    // A WAL that once grew is cut back when it starts anew.
    let limit = i64::try_from(options.wal_bytes()).unwrap_or(i64::MAX);
    connection.pragma(None, "journal_size_limit", limit, |_| Ok(()))?;
    connection.pragma(
        None,
        "max_page_count",
        i64::try_from(options.file_bytes() / PAGE_SIZE).unwrap_or(i64::MAX),
        |_| Ok(()),
    )?;
    grow_in_chunks(connection, options)?;
    common(connection, 4096)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Settings of a connection that only reads.
pub(super) fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    common(connection, 1024)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Settings of the connection that moves the log into the file.
pub(super) fn configure_checkpointer(
    connection: &Connection,
    options: &Options,
) -> rusqlite::Result<()> {
    grow_in_chunks(connection, options)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    common(connection, 64)
}

/// Both connections that write to the file must be told, or one cuts off what the other laid out.
fn grow_in_chunks(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    let mut bytes = options.chunk_bytes();
    match connection.file_control(Some("main"), FileControl::ChunkSize(&mut bytes)) {
        // A store in memory has no file that could grow.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotFound) => Ok(()),
        other => other,
    }
}

/// `cache_kib` bounds the memory of one connection.
fn common(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma(None, "mmap_size", 0, |_| Ok(()))?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// What kind of file this is.
pub(super) enum Kind {
    /// Nothing in it yet.
    Empty,
    /// Ours, of this version.
    Bellhop(i64),
    /// Somebody else's.
    Foreign,
}

pub(super) fn kind(connection: &Connection) -> Result<Kind> {
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let table: Option<String> = connection
        .query_row("SELECT name FROM sqlite_schema LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    match (application, version, table) {
        (0, 0, None) => Ok(Kind::Empty),
        (APPLICATION_ID, 1.., Some(_)) => {
            if version == VERSION {
                check(connection)?;
            }
            Ok(Kind::Bellhop(version))
        }
        // These three are written in one step: taking what is left for a new file would lose all.
        (APPLICATION_ID, _, _) => Err(Fault::Damaged(
            "its header says that it is a store, its schema does not".to_owned(),
        )),
        _ => Ok(Kind::Foreign),
    }
}

/// Every table, index and view, as it was declared.
fn declared(connection: &Connection) -> Result<Vec<[String; 4]>> {
    let mut statement = connection.prepare(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name",
    )?;
    let rows = statement.query_map([], |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether all that [`MIGRATIONS`] declare is there, letter by letter: a declaration is not a row
/// and has no checksum. What a person added stays out of it.
fn check(connection: &Connection) -> Result<()> {
    let fresh = Connection::open_in_memory()?;
    migrate(&fresh, 0)?;
    let found = declared(connection)?;
    match declared(&fresh)?
        .into_iter()
        .find(|one| !found.contains(one))
    {
        None => Ok(()),
        Some([kind, name, ..]) => Err(Fault::Damaged(format!(
            "{kind} {name} is not declared as it was"
        ))),
    }
}

/// Brings the schema from `version` to [`VERSION`] within the open transaction.
pub(super) fn migrate(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(version).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(done) {
        connection.execute_batch(step)?;
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)
}
