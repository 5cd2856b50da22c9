//! Slots by the keys of their marks, without a second copy of the key.
//!
//! Owns: the hash. Never here: a key; the marks have them.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Mark;
use crate::api::EntityKey;

/// Where the marks are.
type Slots = [Option<Box<Mark>>];

/// See the module.
#[derive(Debug)]
pub(super) struct ByKey {
    /// Of this process, so that nobody outside can make keys collide.
    seed: u64,
    table: HashTable<u32>,
}

impl Default for ByKey {
    fn default() -> Self {
        Self {
            seed: fastrand::u64(..),
            table: HashTable::new(),
        }
    }
}

impl ByKey {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The slot of this key's mark.
    pub(super) fn find(&self, slots: &Slots, key: &EntityKey) -> Option<u32> {
        let is_it = |slot: &u32| {
            let mark = slots[*slot as usize].as_ref();
            mark.is_some_and(|mark| mark.key == *key)
        };
        self.table.find(hash(key, self.seed), is_it).copied()
    }

    /// Notes a slot whose key is not there yet. The other slots must hold their marks.
    pub(super) fn insert(&mut self, slots: &Slots, key: &EntityKey, slot: u32) {
        let seed = self.seed;
        let again = |slot: &u32| {
            let mark = slots[*slot as usize].as_ref();
            mark.map_or(0, |mark| hash(&mark.key, seed))
        };
        self.table.insert_unique(hash(key, seed), slot, again);
    }

    pub(super) fn remove(&mut self, key: &EntityKey, slot: u32) {
        let hash = hash(key, self.seed);
        if let Ok(found) = self.table.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
    }
}

fn hash(key: &EntityKey, seed: u64) -> u64 {
    xxh3_64_with_seed(key.as_str().as_bytes(), seed)
}
