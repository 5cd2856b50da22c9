//! The rows that are read as truth: how each is written, read and summed.
//!
//! Never here: a row returned whose checksum does not fit.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::checksum::Checksum;
use super::error::{Fault, Result};
use crate::api::EntityKey;
use crate::clock::UnixMillis;
use crate::state::{ChangeKind, EventAttributes, StoredEvent};

const STORE: u8 = 1;
pub(super) const MARK: u8 = 2;
pub(super) const JOURNAL: u8 = 3;
pub(super) const SETTLEMENT: u8 = 4;
const ENTITY: u8 = 5;
const EVENT: u8 = 6;
pub(super) const SINK: u8 = 7;
pub(super) const PARKED: u8 = 8;
pub(super) const DEAD_LETTER: u8 = 9;
pub(super) const FACT: u8 = 10;

/// A key from a column; one that is not valid is damage.
pub(super) fn key_of(text: &str, table: &str, row: i64) -> Result<EntityKey> {
    text.parse()
        .map_err(|_| Fault::Damaged(format!("table {table}, row {row}: no entity key")))
}

/// The one row of `store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoreRow {
    pub(super) epoch: String,
    pub(super) created: i64,
    pub(super) head: i64,
    pub(super) floor: i64,
    pub(super) horizon: i64,
    pub(super) superseded: i64,
    pub(super) removals: i64,
    pub(super) journal: i64,
    pub(super) last_notification: Option<i64>,
    pub(super) live: i64,
    pub(super) entities: i64,
    pub(super) events: i64,
    pub(super) event_bytes: i64,
    pub(super) marks: i64,
    pub(super) marks_sum: i64,
    pub(super) dead: [i64; 3],
}

impl StoreRow {
    pub(super) fn fresh(now: UnixMillis) -> Self {
        Self {
            epoch: format!("{:016x}", fastrand::u64(..)),
            created: now.0,
            head: 0,
            floor: 0,
            horizon: 0,
            superseded: 0,
            removals: 0,
            journal: 0,
            last_notification: None,
            live: 0,
            entities: 0,
            events: 0,
            event_bytes: 0,
            marks: 0,
            marks_sum: 0,
            dead: [0; 3],
        }
    }

    fn checksum(&self) -> i64 {
        Checksum::of(STORE)
            .bytes(self.epoch.as_bytes())
            .int(self.created)
            .int(self.head)
            .int(self.floor)
            .int(self.horizon)
            .int(self.superseded)
            .int(self.removals)
            .int(self.journal)
            .maybe(self.last_notification)
            .int(self.live)
            .int(self.entities)
            .int(self.events)
            .int(self.event_bytes)
            .int(self.marks)
            .int(self.marks_sum)
            .int(self.dead[0])
            .int(self.dead[1])
            .int(self.dead[2])
            .finish()
    }

    pub(super) fn read(connection: &Connection) -> Result<Self> {
        let found = connection
            .prepare_cached(
                "SELECT epoch, created, head, floor, horizon, superseded, removals, journal,
                 last_notification, live, entities, events, event_bytes, marks, marks_sum,
                 dead_notifications, dead_fetches, dead_deliveries, checksum
                 FROM store WHERE id = 1",
            )?
            .query_row([], |row| {
                Ok((
                    Self {
                        epoch: row.get(0)?,
                        created: row.get(1)?,
                        head: row.get(2)?,
                        floor: row.get(3)?,
                        horizon: row.get(4)?,
                        superseded: row.get(5)?,
                        removals: row.get(6)?,
                        journal: row.get(7)?,
                        last_notification: row.get(8)?,
                        live: row.get(9)?,
                        entities: row.get(10)?,
                        events: row.get(11)?,
                        event_bytes: row.get(12)?,
                        marks: row.get(13)?,
                        marks_sum: row.get(14)?,
                        dead: [row.get(15)?, row.get(16)?, row.get(17)?],
                    },
                    row.get::<_, i64>(18)?,
                ))
            })
            .optional()?;
        match found {
            Some((row, sum)) if row.checksum() == sum => Ok(row),
            _ => Err(Fault::row("store", 1)),
        }
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO store VALUES
                 (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                  ?18, ?19)",
            )?
            .execute(params![
                self.epoch,
                self.created,
                self.head,
                self.floor,
                self.horizon,
                self.superseded,
                self.removals,
                self.journal,
                self.last_notification,
                self.live,
                self.entities,
                self.events,
                self.event_bytes,
                self.marks,
                self.marks_sum,
                self.dead[0],
                self.dead[1],
                self.dead[2],
                self.checksum(),
            ])?;
        Ok(())
    }
}

/// A row of `entities`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityRow {
    pub(super) id: i64,
    pub(super) key: EntityKey,
    pub(super) revision: i64,
    pub(super) event: Option<i64>,
    pub(super) live: bool,
    pub(super) confirmed: Option<i64>,
    pub(super) forget_after: Option<i64>,
    pub(super) memo: Vec<u8>,
}

pub(super) const ENTITY_COLUMNS: &str =
    "id, key, revision, event, live, confirmed, forget_after, memo, checksum";

impl EntityRow {
    fn checksum(&self) -> i64 {
        Checksum::of(ENTITY)
            .int(self.id)
            .bytes(self.key.as_str().as_bytes())
            .int(self.revision)
            .maybe(self.event)
            .int(i64::from(self.live))
            .maybe(self.confirmed)
            .maybe(self.forget_after)
            .bytes(&self.memo)
            .finish()
    }

    /// From a row with [`ENTITY_COLUMNS`].
    pub(super) fn from_row(row: &Row<'_>) -> Result<Self> {
        let id = row.get(0)?;
        let found = Self {
            id,
            key: key_of(row.get_ref(1)?.as_str().map_err(sql)?, "entities", id)?,
            revision: row.get(2)?,
            event: row.get(3)?,
            live: row.get(4)?,
            confirmed: row.get(5)?,
            forget_after: row.get(6)?,
            memo: row.get(7)?,
        };
        if found.checksum() == row.get::<_, i64>(8)? {
            Ok(found)
        } else {
            Err(Fault::row("entities", id))
        }
    }

    pub(super) fn read(connection: &Connection, key: &EntityKey) -> Result<Option<Self>> {
        let mut statement = connection.prepare_cached(
            "SELECT id, key, revision, event, live, confirmed, forget_after, memo, checksum
             FROM entities WHERE key = ?1",
        )?;
        let mut rows = statement.query([key.as_str()])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let found = Self::from_row(row)?;
        // A damaged index entry can lead to another entity's intact row.
        if found.key == *key {
            Ok(Some(found))
        } else {
            Err(Fault::row("entities", found.id))
        }
    }

    pub(super) fn read_id(connection: &Connection, id: i64) -> Result<Option<Self>> {
        let mut statement = connection.prepare_cached(
            "SELECT id, key, revision, event, live, confirmed, forget_after, memo, checksum
             FROM entities WHERE id = ?1",
        )?;
        let mut rows = statement.query([id])?;
        rows.next()?.map(Self::from_row).transpose()
    }

    pub(super) fn insert(&self, connection: &Connection) -> Result<()> {
        self.put(
            connection.prepare_cached(
                "INSERT INTO entities VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?,
        )
    }

    pub(super) fn update(&self, connection: &Connection) -> Result<()> {
        self.put(connection.prepare_cached(
            "UPDATE entities SET key = ?2, revision = ?3, event = ?4, live = ?5, confirmed = ?6,
             forget_after = ?7, memo = ?8, checksum = ?9 WHERE id = ?1",
        )?)
    }

    fn put(&self, mut statement: CachedStatement<'_>) -> Result<()> {
        statement.execute(params![
            self.id,
            self.key.as_str(),
            self.revision,
            self.event,
            self.live,
            self.confirmed,
            self.forget_after,
            self.memo,
            self.checksum(),
        ])?;
        Ok(())
    }
}

/// A row of `events`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EventRow {
    pub(super) seq: i64,
    pub(super) entity: i64,
    pub(super) revision: i64,
    pub(super) change: ChangeKind,
    pub(super) time: i64,
    pub(super) committed: i64,
    pub(super) previous: Option<i64>,
    pub(super) attributes: String,
    pub(super) data: Option<Vec<u8>>,
}

const fn change_code(change: ChangeKind) -> i64 {
    match change {
        ChangeKind::Created => 0,
        ChangeKind::Updated => 1,
        ChangeKind::Removed => 2,
    }
}

impl EventRow {
    fn checksum(&self) -> i64 {
        Checksum::of(EVENT)
            .int(self.seq)
            .int(self.entity)
            .int(self.revision)
            .int(change_code(self.change))
            .int(self.time)
            .int(self.committed)
            .maybe(self.previous)
            .bytes(self.attributes.as_bytes())
            .maybe_bytes(self.data.as_deref())
            .finish()
    }

    /// From a row with the table's columns in order, starting at column `at`.
    pub(super) fn from_row(row: &Row<'_>) -> Result<Self> {
        let seq = row.get(0)?;
        let found = Self {
            seq,
            entity: row.get(1)?,
            revision: row.get(2)?,
            change: match row.get::<_, i64>(3)? {
                0 => ChangeKind::Created,
                1 => ChangeKind::Updated,
                2 => ChangeKind::Removed,
                _ => return Err(Fault::row("events", seq)),
            },
            time: row.get(4)?,
            committed: row.get(5)?,
            previous: row.get(6)?,
            attributes: row.get(7)?,
            data: row.get(8)?,
        };
        if found.checksum() == row.get::<_, i64>(9)? {
            Ok(found)
        } else {
            Err(Fault::row("events", seq))
        }
    }

    pub(super) fn read(connection: &Connection, seq: i64) -> Result<Option<Self>> {
        let mut statement = connection.prepare_cached("SELECT * FROM events WHERE seq = ?1")?;
        let mut rows = statement.query([seq])?;
        rows.next()?.map(Self::from_row).transpose()
    }

    pub(super) fn insert(&self, connection: &Connection) -> Result<()> {
        connection
            .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
            .execute(params![
                self.seq,
                self.entity,
                self.revision,
                change_code(self.change),
                self.time,
                self.committed,
                self.previous,
                self.attributes,
                self.data,
                self.checksum(),
            ])?;
        Ok(())
    }

    /// As consumers see it.
    pub(super) fn event(self, key: EntityKey) -> Result<StoredEvent> {
        Ok(StoredEvent {
            sequence: self.seq as u64,
            key,
            revision: self.revision as u64,
            change: self.change,
            time: UnixMillis(self.time),
            attributes: self.parse_attributes()?,
            data: self.data,
        })
    }

    pub(super) fn parse_attributes(&self) -> Result<EventAttributes> {
        serde_json::from_str(&self.attributes).map_err(|_| Fault::row("events", self.seq))
    }
}

/// A value of a type that a sound row never has.
pub(super) fn sql(error: rusqlite::types::FromSqlError) -> Fault {
    Fault::Damaged(format!("a column of an unexpected type: {error}"))
}
