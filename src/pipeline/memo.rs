//! The pipeline's own notes on one entity, kept beside it in the store.
//!
//! Owns: what must be remembered between two reads (the version and `retrieved` that were
//! published, the first of two signals, how long an answer is provisional) and its encoding.
//!
//! Time in a note is monotonic time of *one run* of the process: a wall clock that steps must not
//! make two signals a second apart look a minute apart. A note of another run tells nothing about
//! how long ago it was, so its waiting starts again: late, but never too early.

use std::time::Duration;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::clock::{Ticks, UnixMillis};

/// Monotonic time that says which run it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Random per run of the process.
    pub run: u64,
    /// [`Ticks`] of that run.
    pub ticks: u64,
}

impl Stamp {
    /// How long before `now` this was; `None` when it was in another run.
    pub(super) fn elapsed(self, now: Self) -> Option<Duration> {
        (self.run == now.run).then(|| Ticks(now.ticks).since(Ticks(self.ticks)))
    }
}

/// Reads that showed a lower `version` than the published one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lower {
    /// The lower version.
    pub version: i64,
    /// When it was first seen.
    pub first: Stamp,
    /// How many reads in a row showed it.
    pub reads: u32,
}

/// Reads that showed an availability from before its mark, or older than the published one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cached {
    /// The newest notification behind the mark, which the reads could not confirm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub notified: Option<UnixMillis>,
    /// When it was first seen.
    pub first: Stamp,
}

/// The notes. All of them may be missing: an empty note is that of an entity never seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memo {
    /// `version` of what was published last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// `retrieved` of the newest availability that was believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrieved: Option<UnixMillis>,
    /// Waiting for a lower version to be believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower: Option<Lower>,
    /// Waiting for an answer that is not from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached: Option<Cached>,
    /// First of two empty answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<Stamp>,
    /// First of two signals of a removal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Stamp>,
    /// The UTC day on which a newly entered day was last reason enough to publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entered: Option<Date>,
}

/// The encoding's version, first in every note.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    memo: T,
}

impl Memo {
    /// From the store. A note that cannot be read (a newer program wrote it) counts as none: then
    /// the next read is compared with the stored data alone.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice::<Versioned<Self>>(bytes)
            .ok()
            .filter(|versioned| versioned.v == VERSION)
            .map(|versioned| versioned.memo)
            .unwrap_or_default()
    }

    /// For the store.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Versioned {
            v: VERSION,
            memo: self,
        })
        .expect("a note has only string keys and finite numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip_and_unknown_ones_count_as_none() {
        let memo = Memo {
            version: Some(7),
            gone: Some(Stamp {
                run: u64::MAX,
                ticks: 5,
            }),
            entered: Some("2026-01-02".parse().unwrap()),
            ..Memo::default()
        };
        assert_eq!(Memo::decode(&memo.encode()), memo);
        for other in [&b""[..], b"{", br#"{"v":2,"version":3}"#] {
            assert_eq!(Memo::decode(other), Memo::default());
        }
    }

    #[test]
    fn time_of_another_run_is_not_compared() {
        let then = Stamp { run: 1, ticks: 10 };
        let elapsed = |run| then.elapsed(Stamp { run, ticks: 25 });
        assert_eq!(elapsed(1), Some(Duration::from_millis(15)));
        assert_eq!(elapsed(2), None);
    }
}
