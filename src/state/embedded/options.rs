//! What an embedded store is told. Never here: a default that a resource field decides otherwise.

use std::time::Duration;

use super::schema::PAGE_SIZE;
use crate::settings::Settings;

/// Limits and durations of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes the store may use, WAL included. At least 4 MiB.
    pub size_bytes: u64,
    /// How long superseded events and the journal are kept; removals at least 7 days.
    pub retain_events: Duration,
    /// How long dead letters are kept.
    pub retain_dead_letters: Duration,
    /// How long the ledger recognises a repeated signature.
    pub ledger_span: Duration,
    /// How many signatures the ledger holds at most (about 40 bytes each).
    pub ledger_capacity: usize,
    /// How far the provider's clock may disagree with ours: bounds what is called stale.
    pub max_skew: Duration,
    /// Per entity: the shortest time between two fetches begun.
    pub min_interval: Duration,
    /// Marks held at most (about 300 bytes of memory each). Beyond it notifications are refused;
    /// the resync may use half.
    pub max_backlog: usize,
    /// After this long without a settlement an entity is handed to another worker.
    pub lease: Duration,
    /// Files up to this size are checked in full before they are opened; of larger ones each row is
    /// checked when it is read.
    pub full_check_bytes: u64,
    /// The provider's environment that it is filled from; a store of another one is refused. `None`:
    /// not looked at.
    pub environment: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let hour = Duration::from_hours(1);
        Self {
            size_bytes: 1 << 30,
            retain_events: 168 * hour,
            retain_dead_letters: 720 * hour,
            ledger_span: hour,
            // Just under the fill limit of a hash table with 2^18 places.
            ledger_capacity: 229_000,
            max_skew: Duration::from_mins(5),
            min_interval: Duration::from_secs(1),
            max_backlog: 200_000,
            lease: Duration::from_mins(5),
            // A second or two.
            full_check_bytes: 256 << 20,
            environment: None,
        }
    }
}

impl Options {
    /// What a subscription's settings say.
    pub fn from_settings(settings: &Settings) -> Self {
        Self {
            size_bytes: settings.store.size_bytes,
            retain_events: settings.store.retain_events,
            retain_dead_letters: settings.store.retain_dead_letters,
            ledger_span: settings.signature.ledger_span,
            max_skew: settings.signature.max_skew,
            min_interval: settings.fetch.min_interval,
            environment: Some(settings.subscription.environment.clone()),
            ..Self::default()
        }
    }

    /// Bytes set aside for the WAL: an eighth, at most 64 MiB.
    pub(super) fn wal_bytes(&self) -> u64 {
        (self.size_bytes / 8).min(64 << 20)
    }

    /// Frames (pages) in the WAL at which a checkpoint begins. While its pages go to the disk every
    /// commit is slower, so it must be over before those that wait pile up: 2 MiB of them are.
    /// (Half load with 64 connections: p99 7 ms; 9 to 10 ms with 4 MiB, 15 to 17 ms with 16 MiB.)
    pub(super) const fn checkpoint_frames() -> i64 {
        ((2 << 20) / PAGE_SIZE) as i64
    }

    /// By how much the file grows at a time: a 128th of it all, 32 KiB to 8 MiB. A sync that finds
    /// the file longer than before waits for the file system's own journal, tens of milliseconds
    /// at times, and whoever waits for a commit waits along: the rarer the better.
    pub(super) fn chunk_bytes(&self) -> i32 {
        let bytes = (self.size_bytes / 128).clamp(32 << 10, 8 << 20);
        (bytes / PAGE_SIZE * PAGE_SIZE) as i32
    }

    /// Bytes for the database file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.size_bytes.max(4 << 20) - self.wal_bytes()
    }

    /// Bytes of the file that only marks may use: 5 %, at least 8 MiB, at most half.
    pub(super) fn reserve_bytes(&self) -> u64 {
        (self.size_bytes / 20)
            .max(8 << 20)
            .min(self.file_bytes() / 2)
    }
}
