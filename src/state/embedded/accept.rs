//! Taking in notifications and marks.
//!
//! Owns: what [`Accepted`] a notification is. Never here: a notification that is authentic and
//! of no use to us thrown away without a trace in the journal.

use super::error::{Fault, Result};
use super::ledger::Seen;
use super::marks::Behind;
use super::store::{Disposition, JournalRow, Store};
use crate::clock::{Ticks, UnixMillis};
use crate::state::{Accepted, NewMark, Notification, StateError};

use super::rows::EntityRow;

impl Store {
    /// Makes notifications durable, all in one step.
    ///
    /// # Errors
    /// As [`State::accept`](crate::state::State::accept): none of them was taken in.
    pub fn accept_batch(
        &mut self,
        notifications: &[Notification],
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<Vec<Accepted>, StateError> {
        self.step(now, ticks, |store| {
            notifications
                .iter()
                .map(|notification| store.accept_one(notification, now, ticks))
                .collect()
        })
    }

    /// Takes one notification into the open step.
    pub(super) fn accept_one(
        &mut self,
        notification: &Notification,
        now: UnixMillis,
        ticks: Ticks,
    ) -> Result<Accepted> {
        let n = notification;
        let mention = self
            .ledger
            .mention(n.rule, &n.sum, n.key.as_ref(), n.removed, &n.body);
        let seen = self.ledger.look(mention, n.received);
        match seen {
            Seen::Same => {
                if self.ledger.repeat(mention) {
                    self.write_journal(n, Disposition::Duplicate, None)?;
                } else {
                    self.note_received(n.received.0);
                }
                return Ok(Accepted::Duplicate);
            }
            Seen::TooMany => return Ok(Accepted::Replayed),
            Seen::New | Seen::Other => {}
        }
        let Some(key) = &n.key else {
            let id = self.bury_notification(n)?;
            self.write_journal(n, Disposition::DeadLetter, Some(id))?;
            self.ledger.note(mention, seen, n.received);
            return Ok(Accepted::DeadLetter);
        };
        if self.is_stale(n)? {
            self.write_journal(n, Disposition::Stale, None)?;
            self.ledger.note(mention, seen, n.received);
            return Ok(Accepted::Stale);
        }
        if self.marks.len() >= self.options.max_backlog && !self.marks.contains(key) {
            return Ok(Accepted::BacklogFull);
        }
        let (disposition, accepted) = match seen {
            Seen::Other => (Disposition::SignatureReused, Accepted::SignatureReused),
            _ => (Disposition::Marked, Accepted::Marked),
        };
        self.write_journal(n, disposition, None)?;
        let journal = self.row.journal as u64;
        let behind = Behind {
            traceparent: n.traceparent.as_deref().map(Into::into),
            ..Behind::notification(n.timestamp, n.received, n.removed, journal, ticks)
        };
        self.marks.add(key, behind, now, ticks);
        self.ledger.note(mention, seen, n.received);
        Ok(accepted)
    }

    /// Older, by more than the skew, than the mark behind a confirmed fetch of the entity. The
    /// confirmed time is never later than the present, so a fresh timestamp needs no look.
    fn is_stale(&self, n: &Notification) -> Result<bool> {
        let skew = self.options.max_skew;
        let Some(key) = &n.key else { return Ok(false) };
        if n.received.since(n.timestamp) <= skew {
            return Ok(false);
        }
        let confirmed = EntityRow::read(&self.connection, key)?.and_then(|entity| entity.confirmed);
        Ok(confirmed.is_some_and(|confirmed| UnixMillis(confirmed).since(n.timestamp) > skew))
    }

    fn write_journal(
        &mut self,
        n: &Notification,
        disposition: Disposition,
        body: Option<i64>,
    ) -> Result<()> {
        self.journal(&JournalRow {
            received: n.received.0,
            rule: n.rule as i64,
            key: n.key.as_ref().map(|key| key.as_str().into()),
            removed: n.removed,
            timestamp: n.timestamp.0,
            digest: n.sum.as_slice().into(),
            body,
            disposition,
        })
    }

    /// Makes marks durable, all in one step.
    ///
    /// # Errors
    /// As [`State::mark`](crate::state::State::mark): none of them was made.
    pub fn mark(
        &mut self,
        marks: &[NewMark],
        now: UnixMillis,
        ticks: Ticks,
    ) -> std::result::Result<(), StateError> {
        self.step(now, ticks, |store| store.mark_all(marks, now, ticks))
    }

    pub(super) fn mark_all(
        &mut self,
        marks: &[NewMark],
        now: UnixMillis,
        ticks: Ticks,
    ) -> Result<()> {
        // Half of the backlog stays for notifications.
        let bound = self.options.max_backlog / 2;
        if self.marks.len() + marks.len() > bound
            && marks.iter().any(|mark| !self.marks.contains(&mark.key))
        {
            return Err(Fault::Busy(format!(
                "{} entities wait to be fetched; no more than {bound} may, except by notifications",
                self.marks.len()
            )));
        }
        for mark in marks {
            self.add_mark(mark, now, ticks);
        }
        Ok(())
    }

    pub(super) fn add_mark(&mut self, mark: &NewMark, now: UnixMillis, ticks: Ticks) {
        let behind = Behind {
            since: now,
            marked: None,
            notified: None,
            noticed: mark.noticed,
            removed: false,
            urgent: mark.urgent,
            class: mark.class,
            traceparent: None,
            first: 0,
            last: 0,
        };
        self.marks.add(&mark.key, behind, now, ticks);
    }
}
