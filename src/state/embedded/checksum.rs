//! The checksum of a row: XXH3-64 over the table's tag and every field in order, each with its
//! kind and length, so that no two different rows feed the same bytes.
//!
//! Never here: a seed. The sums are stored and must fit in any process.

use xxhash_rust::xxh3::xxh3_64;

/// Collects the fields of one row.
pub(super) struct Checksum(Vec<u8>);

/// Longer fields go in as their own hash, so that large bodies are not copied.
const INLINE: usize = 512;

impl Checksum {
    /// For a row of the table with this tag.
    pub(super) fn of(table: u8) -> Self {
        let mut bytes = Vec::with_capacity(384);
        bytes.push(table);
        Self(bytes)
    }

    /// Adds a number.
    pub(super) fn int(mut self, value: i64) -> Self {
        self.0.push(1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a number or NULL.
    pub(super) fn maybe(mut self, value: Option<i64>) -> Self {
        if let Some(value) = value {
            return self.int(value);
        }
        self.0.push(0);
        self
    }

    /// Adds text or a blob.
    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.push(2);
        self.0
            .extend_from_slice(&(value.len() as u64).to_le_bytes());
        if value.len() > INLINE {
            self.0.extend_from_slice(&xxh3_64(value).to_le_bytes());
        } else {
            self.0.extend_from_slice(value);
        }
        self
    }

    /// Adds text, a blob, or NULL.
    pub(super) fn maybe_bytes(mut self, value: Option<&[u8]>) -> Self {
        if let Some(value) = value {
            return self.bytes(value);
        }
        self.0.push(0);
        self
    }

    /// The sum, as SQLite stores it.
    pub(super) fn finish(self) -> i64 {
        xxh3_64(&self.0) as i64
    }
}
