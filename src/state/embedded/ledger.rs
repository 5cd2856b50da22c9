//! The ledger: the signatures seen lately, by rule and sum, in memory.
//!
//! Owns: the recognition of duplicates within `ledgerSpan`, bounded in number. It is rebuilt from
//! the journal's tail. Nothing that must be correct rests on it: a signature it no longer knows
//! costs one fetch.
//!
//! Never here: a decision that loses a notification. Hashes are seeded per process, so that
//! nobody outside can make two sets of identifiers collide.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::api::{EntityKey, NotificationType};
use crate::clock::UnixMillis;

/// One signature may come with this many different bodies.
pub(super) const MAX_BODIES: usize = 100;

/// So many repeats of one signature get a line in the journal. The provider repeats a few times;
/// whoever repeats more often is counted, and must not push the history out.
const MAX_NOTED_REPEATS: u8 = 10;

/// Keys are hashes already.
#[derive(Default, Clone)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys")
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type ByHash<V> = HashMap<u64, V, BuildHasherDefault<AsIs>>;

/// What the ledger says of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    New,
    /// This signature, with these identifiers.
    Same,
    /// This signature, with other identifiers.
    Other,
    /// This signature, with too many other identifiers.
    TooMany,
}

/// A signature and what it came with, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mention {
    signature: u64,
    content: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Hash of the identifiers it first came with.
    content: u64,
    /// When it was first seen, Unix seconds.
    seconds: i64,
}

pub(super) struct Ledger {
    seed: u64,
    span: Duration,
    capacity: usize,
    entries: ByHash<Entry>,
    /// Oldest first, with the time it came in, so that a renewed entry is not dropped early.
    order: VecDeque<(u64, i64)>,
    /// Signatures that came with more than one set of identifiers: the further ones.
    others: ByHash<Vec<u64>>,
    /// Signatures that were repeated: how often, up to [`MAX_NOTED_REPEATS`].
    repeats: ByHash<u8>,
}

impl Ledger {
    pub(super) fn new(span: Duration, capacity: usize) -> Self {
        Self {
            seed: fastrand::u64(..),
            span,
            capacity: capacity.max(1),
            entries: ByHash::default(),
            order: VecDeque::new(),
            others: ByHash::default(),
            repeats: ByHash::default(),
        }
    }

    /// What to look up. `content` is the key with the `removed` flag (it is a signal of its own),
    /// or the body when there is no key.
    pub(super) fn mention(
        &self,
        rule: NotificationType,
        sum: &[u8],
        key: Option<&EntityKey>,
        removed: bool,
        body: &[u8],
    ) -> Mention {
        let signature = xxh3_64_with_seed(sum, self.seed ^ (rule as u64 + 1));
        let content = match key {
            Some(key) => xxh3_64_with_seed(
                key.as_str().as_bytes(),
                self.seed.rotate_left(17) ^ u64::from(removed),
            ),
            None => xxh3_64_with_seed(body, self.seed.rotate_left(34)),
        };
        Mention { signature, content }
    }

    pub(super) fn look(&self, mention: Mention, now: UnixMillis) -> Seen {
        let Some(entry) = self.entries.get(&mention.signature) else {
            return Seen::New;
        };
        if now.since(UnixMillis::from_secs(entry.seconds)) > self.span {
            return Seen::New;
        }
        if entry.content == mention.content {
            return Seen::Same;
        }
        let others = self.others.get(&mention.signature);
        if others.is_some_and(|others| others.contains(&mention.content)) {
            Seen::Same
        } else if others.map_or(0, Vec::len) + 1 >= MAX_BODIES {
            Seen::TooMany
        } else {
            Seen::Other
        }
    }

    /// Notes it; `seen` is what [`Self::look`] just said.
    pub(super) fn note(&mut self, mention: Mention, seen: Seen, now: UnixMillis) {
        match seen {
            Seen::New => {
                let seconds = now.as_secs();
                let content = mention.content;
                self.others.remove(&mention.signature);
                self.repeats.remove(&mention.signature);
                self.entries
                    .insert(mention.signature, Entry { content, seconds });
                self.order.push_back((mention.signature, seconds));
                self.forget(now);
            }
            Seen::Other => self
                .others
                .entry(mention.signature)
                .or_default()
                .push(mention.content),
            Seen::Same | Seen::TooMany => {}
        }
    }

    /// Counts a repeat; `true` while it is worth a line in the journal.
    pub(super) fn repeat(&mut self, mention: Mention) -> bool {
        let times = self.repeats.entry(mention.signature).or_default();
        let noted = *times < MAX_NOTED_REPEATS;
        *times += u8::from(noted);
        noted
    }

    /// Drops what is over the bound or past the span.
    fn forget(&mut self, now: UnixMillis) {
        while let Some(&(signature, seconds)) = self.order.front() {
            let past = now.since(UnixMillis::from_secs(seconds)) > self.span;
            if !past && self.order.len() <= self.capacity {
                break;
            }
            self.order.pop_front();
            if self
                .entries
                .get(&signature)
                .is_some_and(|entry| entry.seconds == seconds)
            {
                self.entries.remove(&signature);
                self.others.remove(&signature);
                self.repeats.remove(&signature);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> EntityKey {
        EntityKey::new(NotificationType::Booking, &[id]).unwrap()
    }

    #[test]
    fn knows_signatures_for_the_span_and_up_to_its_capacity() {
        let mut ledger = Ledger::new(Duration::from_hours(1), 3);
        let at = |seconds| UnixMillis::from_secs(seconds);
        let mention = |ledger: &Ledger, sum: u8, id: &str| {
            ledger.mention(
                NotificationType::Booking,
                &[sum; 32],
                Some(&key(id)),
                false,
                b"",
            )
        };
        let first = mention(&ledger, 1, "a");
        assert_eq!(ledger.look(first, at(0)), Seen::New);
        ledger.note(first, Seen::New, at(0));
        assert_eq!(ledger.look(first, at(3600)), Seen::Same);
        assert_eq!(ledger.look(first, at(3602)), Seen::New);
        assert_eq!(ledger.look(mention(&ledger, 1, "b"), at(1)), Seen::Other);
        for sum in 2..5 {
            let next = mention(&ledger, sum, "a");
            ledger.note(next, Seen::New, at(1));
        }
        assert_eq!(ledger.look(first, at(1)), Seen::New);
        assert_eq!(ledger.entries.len(), 3);
    }

    #[test]
    fn one_signature_has_at_most_a_hundred_bodies() {
        let mut ledger = Ledger::new(Duration::from_hours(1), 1000);
        let now = UnixMillis::from_secs(1);
        for n in 0..150 {
            let mention = ledger.mention(
                NotificationType::Booking,
                &[7; 16],
                Some(&key(&format!("b{n}"))),
                false,
                b"",
            );
            let seen = ledger.look(mention, now);
            let expected = match n {
                0 => Seen::New,
                1..100 => Seen::Other,
                _ => Seen::TooMany,
            };
            assert_eq!(seen, expected, "{n}");
            ledger.note(mention, seen, now);
        }
    }
}
