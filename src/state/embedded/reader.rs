//! All reads that need no memory: events, entities, sinks, dead letters, facts.
//!
//! Owns: the bounds of an answer. Used by the store itself and, on connections of their own, by
//! the engine's reader threads. Never here: a write, an unbounded page.

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{Fault, Result};
use super::outbox::{dead_letter_checksum, fact_checksum, parked_checksum, sink_checksum};
use super::rows::{self, EntityRow, EventRow, StoreRow};
use super::store::Store;
use crate::api::{EntityKey, NotificationType};
use crate::clock::UnixMillis;
use crate::state::{
    DeadLetter, DeadLetterSource, EntityPage, EventsGone, Parked, Sequence, SinkPosition,
    StateError, StoredEvent,
};

/// Most items of one answer, whatever is asked for.
const MAX_ITEMS: usize = 10_000;
/// Most bytes of data in one page of entities.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// Reads over one connection. Each call sees one state of the store.
pub struct Reader<'a>(&'a Connection);

type Answer<T> = std::result::Result<T, StateError>;

impl Store {
    /// The reads, on the store's own connection.
    pub fn reader(&self) -> Reader<'_> {
        Reader(&self.connection)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self(connection)
    }

    /// Runs `work` within one read transaction.
    fn snapshot<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Answer<T> {
        if !self.0.is_autocommit() {
            return Ok(work(self.0)?);
        }
        let begin = |sql| -> Result<()> {
            self.0.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        begin("BEGIN")?;
        let result = work(self.0);
        let ended = begin("COMMIT");
        let value = result?;
        ended?;
        Ok(value)
    }

    /// As [`State::list`](crate::state::State::list); a page ends early at 4 MiB of data.
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn list(
        &self,
        kind: Option<NotificationType>,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> Answer<EntityPage> {
        self.snapshot(|connection| list(connection, kind, after, limit))
    }

    /// As [`State::known`](crate::state::State::known).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn known(&self, kind: NotificationType, above: &[&str]) -> Answer<Vec<EntityKey>> {
        self.snapshot(|connection| known(connection, kind, above))
    }

    /// As [`State::entity`](crate::state::State::entity).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn entity(&self, key: &EntityKey) -> Answer<Option<StoredEvent>> {
        self.snapshot(|connection| {
            let Some(row) = EntityRow::read(connection, key)? else {
                return Ok(None);
            };
            newest(connection, &row)
        })
    }

    /// As [`State::events`](crate::state::State::events).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn events(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> Answer<std::result::Result<Vec<StoredEvent>, EventsGone>> {
        self.snapshot(|connection| {
            let store = StoreRow::read(connection)?;
            if after > store.head as u64 {
                return Ok(Err(EventsGone::AheadOfHead));
            }
            if after < store.horizon as u64 {
                return Ok(Err(EventsGone::Expired));
            }
            events(connection, after, limit, bytes).map(Ok)
        })
    }

    /// As [`State::kept`](crate::state::State::kept).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn kept(&self, after: Sequence, limit: usize, bytes: usize) -> Answer<Vec<StoredEvent>> {
        self.snapshot(|connection| events(connection, after, limit, bytes))
    }

    /// As [`State::event`](crate::state::State::event).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn event(&self, sequence: Sequence) -> Answer<Option<StoredEvent>> {
        self.snapshot(|connection| {
            EventRow::read(connection, sequence as i64)?
                .map(|event| with_key(connection, event))
                .transpose()
        })
    }

    /// As [`State::oldest`](crate::state::State::oldest).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn oldest(&self) -> Answer<Sequence> {
        self.snapshot(|connection| Ok(StoreRow::read(connection)?.horizon as u64))
    }

    /// As [`State::sink`](crate::state::State::sink).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn sink(&self, name: &str) -> Answer<SinkPosition> {
        self.snapshot(|connection| {
            Ok(SinkPosition {
                cursor: cursor(connection, name)?.unwrap_or(0) as u64,
                parked: parked(connection, name)?,
            })
        })
    }

    /// As [`State::dead_letters`](crate::state::State::dead_letters).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn dead_letters(&self, after: u64, limit: usize) -> Answer<Vec<DeadLetter>> {
        self.snapshot(|connection| dead_letters(connection, after, limit))
    }

    /// As [`State::fact`](crate::state::State::fact).
    ///
    /// # Errors
    /// [`StateError::Failed`] for a row that cannot be believed.
    pub fn fact(&self, name: &str) -> Answer<Option<Vec<u8>>> {
        self.snapshot(|connection| fact(connection, name))
    }
}

/// The value of a fact.
pub(super) fn fact(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    let found: Option<(Vec<u8>, i64)> = connection
        .prepare_cached("SELECT value, checksum FROM facts WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        Some((value, sum)) if fact_checksum(name, &value) == sum => Ok(Some(value)),
        Some(_) => Err(Fault::row("facts", name)),
        None => Ok(None),
    }
}

/// The newest event of an entity; it must be there.
fn newest(connection: &Connection, row: &EntityRow) -> Result<Option<StoredEvent>> {
    let Some(seq) = row.event else {
        return Ok(None);
    };
    EventRow::read(connection, seq)?
        .filter(|event| event.entity == row.id && event.revision == row.revision)
        .ok_or_else(|| Fault::row("events", seq))?
        .event(row.key.clone())
        .map(Some)
}

fn with_key(connection: &Connection, event: EventRow) -> Result<StoredEvent> {
    let entity = EntityRow::read_id(connection, event.entity)?
        .ok_or_else(|| Fault::row("entities", event.entity))?;
    event.event(entity.key)
}

fn list(
    connection: &Connection,
    kind: Option<NotificationType>,
    after: Option<&EntityKey>,
    limit: usize,
) -> Result<EntityPage> {
    let limit = limit.clamp(1, MAX_ITEMS);
    // Keys start with their kind: a kind is a range of keys. `0` is the character after `/`.
    let prefix = kind.map_or_else(String::new, |kind| format!("{}/", kind.segment()));
    let end = kind.map_or_else(
        || "\u{10ffff}".to_owned(),
        |kind| format!("{}0", kind.segment()),
    );
    let after = after.map_or("", EntityKey::as_str);
    let mut statement = connection.prepare_cached(
        "SELECT id, key, revision, event, live, confirmed, forget_after, memo, checksum
         FROM entities WHERE key > max(?1, ?2) AND key < ?3 ORDER BY key",
    )?;
    let mut found = statement.query(params![prefix, after, end])?;
    let mut items: Vec<StoredEvent> = Vec::new();
    let mut bytes = 0;
    let mut looked = 0;
    let mut last = None;
    while let Some(row) = found.next()? {
        let row = EntityRow::from_row(row)?;
        looked += 1;
        if row.live
            && let Some(event) = newest(connection, &row)?
        {
            if items.len() == limit || (bytes >= MAX_PAGE_BYTES && !items.is_empty()) {
                let next = last;
                return Ok(EntityPage { items, next });
            }
            bytes += event.data.as_ref().map_or(0, Vec::len);
            items.push(event);
        }
        last = Some(row.key);
        if looked >= MAX_ITEMS {
            return Ok(EntityPage { items, next: last });
        }
    }
    Ok(EntityPage { items, next: None })
}

fn known(
    connection: &Connection,
    kind: NotificationType,
    above: &[&str],
) -> Result<Vec<EntityKey>> {
    let mut path = kind.segment().to_owned();
    for id in above {
        path.push('/');
        path.push_str(id);
    }
    // As in `list`: all that starts with the path and `/` comes before the path and `0`.
    let mut statement = connection.prepare_cached(
        "SELECT id, key, revision, event, live, confirmed, forget_after, memo, checksum
         FROM entities WHERE key > ?1 AND key < ?2 AND live ORDER BY key LIMIT ?3",
    )?;
    let range = params![format!("{path}/"), format!("{path}0"), MAX_ITEMS as i64];
    let mut found = statement.query(range)?;
    let mut keys = Vec::new();
    while let Some(row) = found.next()? {
        keys.push(EntityRow::from_row(row)?.key);
    }
    Ok(keys)
}

fn events(
    connection: &Connection,
    after: Sequence,
    limit: usize,
    bytes: usize,
) -> Result<Vec<StoredEvent>> {
    let limit = limit.clamp(1, MAX_ITEMS);
    let mut statement =
        connection.prepare_cached("SELECT * FROM events WHERE seq > ?1 ORDER BY seq")?;
    let mut found = statement.query([i64::try_from(after).unwrap_or(i64::MAX)])?;
    let mut events = Vec::new();
    let mut size = 0;
    while let Some(row) = found.next()? {
        let event = EventRow::from_row(row)?;
        size += event.data.as_ref().map_or(0, Vec::len);
        if !events.is_empty() && size > bytes {
            break;
        }
        events.push(with_key(connection, event)?);
        if events.len() == limit {
            break;
        }
    }
    Ok(events)
}

pub(super) fn cursor(connection: &Connection, name: &str) -> Result<Option<i64>> {
    let found: Option<(i64, i64)> = connection
        .prepare_cached("SELECT cursor, checksum FROM sinks WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        Some((cursor, sum)) if sink_checksum(name, cursor) == sum => Ok(Some(cursor)),
        Some(_) => Err(Fault::row("sinks", name)),
        None => Ok(None),
    }
}

pub(super) fn parked(connection: &Connection, name: &str) -> Result<Vec<Parked>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, key, attempts, checksum FROM parked WHERE sink = ?1 ORDER BY seq",
    )?;
    let mut found = statement.query([name])?;
    let mut parked = Vec::new();
    while let Some(row) = found.next()? {
        let seq: i64 = row.get(0)?;
        let key = row.get_ref(1)?.as_str().map_err(rows::sql)?;
        let attempts: i64 = row.get(2)?;
        if parked_checksum(name, seq, key, attempts) != row.get::<_, i64>(3)? {
            return Err(Fault::row("parked", seq));
        }
        parked.push(Parked {
            sequence: seq as u64,
            key: rows::key_of(key, "parked", seq)?,
            attempts: attempts as u32,
        });
    }
    Ok(parked)
}

pub(super) fn dead_letters(
    connection: &Connection,
    after: u64,
    limit: usize,
) -> Result<Vec<DeadLetter>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, source, sink, key, seq, revision, reason, time, body, checksum
         FROM dead_letters WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let limit = limit.clamp(1, MAX_ITEMS) as i64;
    let mut found = statement.query(params![i64::try_from(after).unwrap_or(i64::MAX), limit])?;
    let mut letters = Vec::new();
    while let Some(row) = found.next()? {
        let id: i64 = row.get(0)?;
        let source: i64 = row.get(1)?;
        let sink: Option<String> = row.get(2)?;
        let key: Option<String> = row.get(3)?;
        let sequence: Option<i64> = row.get(4)?;
        let revision: Option<i64> = row.get(5)?;
        let reason: String = row.get(6)?;
        let time: i64 = row.get(7)?;
        let body = row.get_ref(8)?.as_blob_or_null().map_err(rows::sql)?;
        let sum = dead_letter_checksum(
            id,
            source,
            sink.as_deref(),
            key.as_deref(),
            sequence,
            revision,
            &reason,
            time,
            body,
        );
        if sum != row.get::<_, i64>(9)? {
            return Err(Fault::row("dead_letters", id));
        }
        letters.push(DeadLetter {
            id: id as u64,
            source: match (source, sink) {
                (0, _) => DeadLetterSource::Notification,
                (1, _) => DeadLetterSource::Fetch,
                (2, Some(sink)) => DeadLetterSource::Sink(sink),
                _ => return Err(Fault::row("dead_letters", id)),
            },
            key: key
                .map(|key| rows::key_of(&key, "dead_letters", id))
                .transpose()?,
            sequence: sequence.map(|seq| seq as u64),
            revision: revision.map(|revision| revision as u64),
            reason,
            time: UnixMillis(time),
        });
    }
    Ok(letters)
}
