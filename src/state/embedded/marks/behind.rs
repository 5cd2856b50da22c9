//! What is behind a mark: the times, the journal rows and the class of what made it.
//!
//! Owns: how older and newer come together, and what that makes of the mark's row. Never here: a
//! time that goes back.

use crate::clock::{Ticks, UnixMillis};
use crate::planted::{Bug, planted};
use crate::state::MarkClass;

/// What is behind a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Behind {
    pub(in super::super) since: UnixMillis,
    pub(in super::super) marked: Option<UnixMillis>,
    pub(in super::super) notified: Option<UnixMillis>,
    /// When the newest notification came in. Not in the row: after a restart, the time of that.
    pub(in super::super) noticed: Option<Ticks>,
    pub(in super::super) removed: bool,
    /// It brings an impatient mark forward. Not in the row: a mark is due after a restart as it
    /// was when its row was written.
    pub(in super::super) urgent: bool,
    pub(in super::super) class: MarkClass,
    pub(in super::super) traceparent: Option<Box<str>>,
    /// Oldest and newest journal row; 0 when no notification is behind it.
    pub(in super::super) first: u64,
    pub(in super::super) last: u64,
}

/// Whether a mark's row says what the mark does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// It does.
    True,
    /// Its times are older, and the journal has the newer ones.
    Late,
    /// It must be written.
    Old,
}

impl Behind {
    /// A notification, the journal's row `journal`.
    pub(in super::super) fn notification(
        timestamp: UnixMillis,
        received: UnixMillis,
        removed: bool,
        journal: u64,
        ticks: Ticks,
    ) -> Self {
        let marked = if planted(Bug::FutureTimestampTrusted) {
            timestamp
        } else {
            timestamp.min(received)
        };
        Self {
            since: received,
            marked: Some(marked),
            notified: Some(timestamp),
            noticed: Some(ticks),
            removed,
            urgent: true,
            class: MarkClass::Notification,
            traceparent: None,
            first: journal,
            last: journal,
        }
    }

    /// Takes in what is newer; says what that makes of the row.
    pub(super) fn absorb(&mut self, newer: Self) -> Row {
        let mut row = Row::True;
        if newer.marked > self.marked {
            self.marked = newer.marked;
            row = Row::Late;
        }
        if newer.notified > self.notified {
            self.notified = newer.notified;
            row = Row::Late;
        }
        self.noticed = self.noticed.max(newer.noticed);
        self.urgent |= newer.urgent;
        if newer.removed && !self.removed {
            self.removed = true;
            row = Row::Old;
        }
        if newer.class < self.class {
            self.class = newer.class;
            row = Row::Old;
        }
        if newer.traceparent.is_some() {
            self.traceparent = newer.traceparent;
        }
        if self.first == 0 && newer.first > 0 {
            self.first = newer.first;
            row = Row::Old;
        }
        self.last = self.last.max(newer.last);
        row
    }
}
