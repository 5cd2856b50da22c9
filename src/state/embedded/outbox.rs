//! Sinks, dead letters and facts: what is written of them.
//!
//! Owns: the cursors (they only rise), the parked events, and how a dead letter ends: replayed,
//! resolved by something newer, or past its time. Never here: delivery.

use rusqlite::{OptionalExtension, params};

use super::checksum::Checksum;
use super::error::{Fault, Result};
use super::reader;
use super::rows::{DEAD_LETTER, EntityRow, FACT, PARKED, SINK};
use super::store::Store;
use crate::api::EntityKey;
use crate::clock::{Ticks, UnixMillis};
use crate::state::{
    DeadLetterSource, MarkClass, NewMark, Notification, Parked, Revision, SinkCommit, StateError,
};

/// Authentic notifications of unknown shape that are kept at most; the oldest go first.
pub(super) const MAX_DEAD_NOTIFICATIONS: i64 = 10_000;
/// The share of the file that their bodies may take, as a divisor.
const DEAD_SHARE: u64 = 16;
/// The share of the reserve that dead letters may take while nothing else is left.
const DEAD_SHARE_OF_RESERVE: u64 = 8;
/// What a dead letter takes apart from its body, about.
const DEAD_ROW: u64 = 512;

const NOTIFICATION: usize = 0;
const FETCH: usize = 1;
const DELIVERY: usize = 2;

/// A dead letter to write.
struct Burial<'a> {
    source: usize,
    sink: Option<&'a str>,
    key: Option<&'a EntityKey>,
    sequence: Option<i64>,
    revision: Option<i64>,
    reason: &'a str,
    time: UnixMillis,
    body: Option<&'a [u8]>,
}

/// The checksum of a row of `dead_letters`.
#[expect(clippy::too_many_arguments, reason = "one for each column")]
pub(super) fn dead_letter_checksum(
    id: i64,
    source: i64,
    sink: Option<&str>,
    key: Option<&str>,
    sequence: Option<i64>,
    revision: Option<i64>,
    reason: &str,
    time: i64,
    body: Option<&[u8]>,
) -> i64 {
    Checksum::of(DEAD_LETTER)
        .int(id)
        .int(source)
        .maybe_bytes(sink.map(str::as_bytes))
        .maybe_bytes(key.map(str::as_bytes))
        .maybe(sequence)
        .maybe(revision)
        .bytes(reason.as_bytes())
        .int(time)
        .maybe_bytes(body)
        .finish()
}

/// The checksum of a row of `parked`.
pub(super) fn parked_checksum(sink: &str, seq: i64, key: &str, attempts: i64) -> i64 {
    Checksum::of(PARKED)
        .bytes(sink.as_bytes())
        .int(seq)
        .bytes(key.as_bytes())
        .int(attempts)
        .finish()
}

/// The checksum of a row of `sinks`.
pub(super) fn sink_checksum(name: &str, cursor: i64) -> i64 {
    Checksum::of(SINK)
        .bytes(name.as_bytes())
        .int(cursor)
        .finish()
}

/// The checksum of a row of `facts`.
pub(super) fn fact_checksum(name: &str, value: &[u8]) -> i64 {
    Checksum::of(FACT)
        .bytes(name.as_bytes())
        .bytes(value)
        .finish()
}

impl Store {
    /// Moves a sink, in one step.
    ///
    /// # Errors
    /// As [`State::commit_sink`](crate::state::State::commit_sink).
    pub fn commit_sink(
        &mut self,
        name: &str,
        commit: &SinkCommit,
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<(), StateError> {
        self.step(now, ticks, |store| store.commit_sink_one(name, commit, now))
    }

    pub(super) fn commit_sink_one(
        &mut self,
        name: &str,
        commit: &SinkCommit,
        now: UnixMillis,
    ) -> Result<()> {
        let before = reader::cursor(&self.connection, name)?;
        let cursor = before.unwrap_or(0).max(commit.cursor as i64);
        if before != Some(cursor) {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO sinks VALUES (?1, ?2, ?3)")?
                .execute(params![name, cursor, sink_checksum(name, cursor)])?;
        }
        for parked in &commit.park {
            self.park(name, parked)?;
        }
        for seq in &commit.release {
            self.release(name, *seq as i64)?;
        }
        for (parked, reason) in &commit.bury {
            self.release(name, parked.sequence as i64)?;
            // One for each entity: what a sink refuses for ever must not fill the store.
            self.replace_older(name, parked)?;
            let revision = super::rows::EventRow::read(&self.connection, parked.sequence as i64)?
                .map(|event| event.revision);
            self.bury(&Burial {
                source: DELIVERY,
                sink: Some(name),
                key: Some(&parked.key),
                sequence: Some(parked.sequence as i64),
                revision,
                reason,
                time: now,
                body: None,
            })?;
        }
        for (key, revision) in &commit.delivered {
            self.resolve(DELIVERY, Some(name), key, Some(*revision as i64))?;
        }
        self.drop_overtaken(name, &commit.delivered)
    }

    /// Drops parked events that are older than what was just delivered of their entity: dead
    /// letters that were replayed and that the deliverer had not taken up yet. Sent now, they would
    /// come after what is newer.
    fn drop_overtaken(&mut self, sink: &str, delivered: &[(EntityKey, Revision)]) -> Result<()> {
        if delivered.is_empty() {
            return Ok(());
        }
        for parked in reader::parked(&self.connection, sink)? {
            let newer = delivered.iter().find(|(key, _)| *key == parked.key);
            let Some((_, revision)) = newer else { continue };
            let seq = parked.sequence as i64;
            let overtaken = super::rows::EventRow::read(&self.connection, seq)?
                .is_none_or(|event| event.revision < *revision as i64);
            if overtaken {
                self.release(sink, seq)?;
            }
        }
        Ok(())
    }

    /// Forgets all sinks but these.
    pub(super) fn keep_sinks_one(&mut self, names: &[String]) -> Result<()> {
        let known: Vec<String> = self
            .connection
            .prepare(
                "SELECT name FROM sinks UNION SELECT sink FROM parked
                 UNION SELECT sink FROM dead_letters WHERE sink IS NOT NULL",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for name in known.iter().filter(|name| !names.contains(name)) {
            let delete = |sql| self.connection.execute(sql, [name]);
            delete("DELETE FROM sinks WHERE name = ?1")?;
            let parked = delete("DELETE FROM parked WHERE sink = ?1")?;
            let dead = delete("DELETE FROM dead_letters WHERE sink = ?1")?;
            self.row.dead[DELIVERY] -= dead as i64;
            tracing::info!(
                sink = name,
                parked,
                dead_letters = dead,
                "no longer among the sinks: its place is forgotten"
            );
        }
        Ok(())
    }

    fn park(&mut self, sink: &str, parked: &Parked) -> Result<()> {
        let (seq, attempts) = (parked.sequence as i64, i64::from(parked.attempts));
        let key = parked.key.as_str();
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO parked VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                sink,
                seq,
                key,
                attempts,
                parked_checksum(sink, seq, key, attempts)
            ])?;
        Ok(())
    }

    fn release(&mut self, sink: &str, seq: i64) -> Result<()> {
        self.connection
            .prepare_cached("DELETE FROM parked WHERE sink = ?1 AND seq = ?2")?
            .execute(params![sink, seq])?;
        Ok(())
    }

    fn bury(&mut self, burial: &Burial<'_>) -> Result<i64> {
        let id: i64 = self
            .connection
            .prepare_cached(
                "SELECT max(ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'), 0),
                            ifnull((SELECT max(id) FROM dead_letters), 0)) + 1",
            )?
            .query_row([], |row| row.get(0))?;
        let key = burial.key.map(EntityKey::as_str);
        let source = burial.source as i64;
        self.connection
            .prepare_cached(
                "INSERT INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                id,
                source,
                burial.sink,
                key,
                burial.sequence,
                burial.revision,
                burial.reason,
                burial.time.0,
                burial.body,
                dead_letter_checksum(
                    id,
                    source,
                    burial.sink,
                    key,
                    burial.sequence,
                    burial.revision,
                    burial.reason,
                    burial.time.0,
                    burial.body
                ),
            ])?;
        self.row.dead[burial.source] += 1;
        Ok(id)
    }

    /// Keeps a notification of unknown shape, with its body.
    pub(super) fn bury_notification(&mut self, n: &Notification) -> Result<i64> {
        let bytes = n.body.len() as u64;
        let bound = self.dead_bytes_bound();
        while self.row.dead[NOTIFICATION] > 0
            && (self.row.dead[NOTIFICATION] >= MAX_DEAD_NOTIFICATIONS
                || self.dead_bytes + bytes > bound)
        {
            self.drop_dead_notification()?;
        }
        self.dead_bytes += bytes;
        self.bury(&Burial {
            source: NOTIFICATION,
            sink: None,
            key: None,
            sequence: None,
            revision: None,
            reason: &format!(
                "authentic {} notification, but its body does not name an entity as the provider documents it",
                n.rule
            ),
            time: n.received,
            body: Some(&n.body),
        })
    }

    fn drop_dead_notification(&mut self) -> Result<()> {
        let oldest: Option<i64> = self
            .connection
            .prepare_cached("SELECT min(id) FROM dead_letters WHERE source = 0")?
            .query_row([], |row| row.get(0))?;
        self.dropped += 1;
        match oldest {
            Some(id) => self.drop_dead_letter(id, NOTIFICATION),
            None => Err(Fault::Damaged(
                "table dead_letters: fewer notifications than were written".to_owned(),
            )),
        }
    }

    /// Bytes that the bodies of dead notifications may take.
    fn dead_bytes_bound(&self) -> u64 {
        if self.is_short() {
            self.options.reserve_bytes() / DEAD_SHARE_OF_RESERVE
        } else {
            self.options.file_bytes() / DEAD_SHARE
        }
    }

    /// Whether dead letters take so much of the reserve that they could stop acceptance.
    pub(super) fn dead_letters_weigh(&self) -> bool {
        let rows: i64 = self.row.dead.iter().sum();
        let weight = self.dead_bytes + rows as u64 * DEAD_ROW;
        self.is_short() && weight > self.options.reserve_bytes() / DEAD_SHARE_OF_RESERVE
    }

    /// Keeps a fetch that gave up; it takes the place of an older one of the same entity.
    pub(super) fn bury_fetch(
        &mut self,
        key: &EntityKey,
        reason: &str,
        time: UnixMillis,
    ) -> Result<()> {
        self.resolve_fetch(key)?;
        self.bury(&Burial {
            source: FETCH,
            sink: None,
            key: Some(key),
            sequence: None,
            revision: None,
            reason,
            time,
            body: None,
        })
        .map(|_| ())
    }

    /// A settled fetch makes an older failure of the same entity moot.
    pub(super) fn resolve_fetch(&mut self, key: &EntityKey) -> Result<()> {
        self.resolve(FETCH, None, key, None)
    }

    /// Drops the dead letters of this sink and entity up to the event that is buried now.
    fn replace_older(&mut self, sink: &str, parked: &Parked) -> Result<()> {
        if self.row.dead[DELIVERY] == 0 {
            return Ok(());
        }
        let dropped = self
            .connection
            .prepare_cached(
                "DELETE FROM dead_letters WHERE key = ?1 AND source = ?2 AND sink = ?3 AND seq <= ?4",
            )?
            .execute(params![
                parked.key.as_str(),
                DELIVERY as i64,
                sink,
                parked.sequence as i64
            ])?;
        self.row.dead[DELIVERY] -= dropped as i64;
        Ok(())
    }

    /// Drops dead letters of this source and entity, below `revision` if one is given.
    fn resolve(
        &mut self,
        source: usize,
        sink: Option<&str>,
        key: &EntityKey,
        revision: Option<i64>,
    ) -> Result<()> {
        if self.row.dead[source] == 0 {
            return Ok(());
        }
        let ids: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM dead_letters WHERE key = ?1 AND source = ?2 AND sink IS ?3
                 AND (?4 IS NULL OR revision IS NULL OR revision < ?4)",
            )?
            .query_map(
                params![key.as_str(), source as i64, sink, revision],
                |row| row.get(0),
            )?
            .collect::<rusqlite::Result<_>>()?;
        for id in ids {
            self.drop_dead_letter(id, source)?;
        }
        Ok(())
    }

    pub(super) fn drop_dead_letter(&mut self, id: i64, source: usize) -> Result<()> {
        let body: Option<i64> = self
            .connection
            .prepare_cached(
                "DELETE FROM dead_letters WHERE id = ?1 RETURNING ifnull(length(body), 0)",
            )?
            .query_row([id], |row| row.get(0))
            .optional()?;
        self.row.dead[source] -= i64::from(body.is_some());
        self.dead_bytes -= body.unwrap_or(0) as u64;
        Ok(())
    }

    /// The body that a dead notification keeps.
    pub(super) fn dead_body(&self, id: i64) -> Result<Option<Vec<u8>>> {
        Ok(self
            .connection
            .prepare_cached("SELECT body FROM dead_letters WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?
            .flatten())
    }

    /// Takes a dead letter up again, in one step.
    ///
    /// # Errors
    /// As [`State::replay`](crate::state::State::replay).
    pub fn replay(
        &mut self,
        id: u64,
        exact: bool,
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<bool, StateError> {
        self.step(now, ticks, |store| store.replay_one(id, exact, now, ticks))
    }

    pub(super) fn replay_one(
        &mut self,
        id: u64,
        exact: bool,
        now: UnixMillis,
        ticks: Ticks,
    ) -> Result<bool> {
        let found = reader::dead_letters(&self.connection, id.saturating_sub(1), 1)?;
        let Some(letter) = found.into_iter().find(|letter| letter.id == id) else {
            return Ok(false);
        };
        match (&letter.source, &letter.key) {
            (DeadLetterSource::Notification, _) => {
                self.drop_dead_letter(id as i64, NOTIFICATION)?;
            }
            (DeadLetterSource::Fetch, Some(key)) => {
                self.drop_dead_letter(id as i64, FETCH)?;
                let mark = NewMark {
                    key: key.clone(),
                    class: MarkClass::Notification,
                    noticed: None,
                    urgent: true,
                };
                self.add_mark(&mark, now, ticks);
            }
            (DeadLetterSource::Sink(sink), Some(key)) => {
                self.drop_dead_letter(id as i64, DELIVERY)?;
                let newest = EntityRow::read(&self.connection, key)?
                    .and_then(|entity| entity.event)
                    .map(|seq| seq as u64);
                let sequence = if exact { letter.sequence } else { newest };
                if let Some(sequence) = sequence {
                    self.park(
                        sink,
                        &Parked {
                            sequence,
                            key: key.clone(),
                            attempts: 0,
                        },
                    )?;
                }
            }
            (_, None) => return Err(Fault::row("dead_letters", id)),
        }
        Ok(true)
    }

    /// Writes, or with `None` removes, a fact, in one step.
    ///
    /// # Errors
    /// As [`State::put_fact`](crate::state::State::put_fact).
    pub fn put_fact(
        &mut self,
        name: &str,
        value: Option<&[u8]>,
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<(), StateError> {
        self.step(now, ticks, |store| store.put_fact_one(name, value))
    }

    pub(super) fn put_fact_one(&mut self, name: &str, value: Option<&[u8]>) -> Result<()> {
        match value {
            Some(value) => self
                .connection
                .prepare_cached("INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3)")?
                .execute(params![name, value, fact_checksum(name, value)])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM facts WHERE name = ?1")?
                .execute([name])?,
        };
        Ok(())
    }
}
