//! The embedded state engine: one SQLite file (WAL, `synchronous=FULL`) in a folder of its own.
//!
//! Owns: the folder's three files (`bellhop.db` with its `-wal` and `-shm`, `bellhop.lock`), the
//! schema, and the memory that goes with it (marks, claims, ledger).
//!
//! # How it is built
//! - [`Store`] is the engine's core: synchronous, single-threaded, told every time. Its memory
//!   holds all marks (by key, by due time), the claims and the ledger; the file holds what must
//!   survive. Memory is changed at once, rows are written into the open transaction; if that
//!   fails, both are thrown away: the file rolls back and memory is read from it again, and with
//!   it every claim becomes stale.
//! - [`Engine`] is [`State`](super::State) around it: a writer thread that owns the store and
//!   commits all waiting calls together, reader threads with connections of their own, and a
//!   checkpoint thread.
//!
//! # Why it is fast
//! Accepting appends: a journal row, and a mark row only when the entity has none. Both keys are
//! sequential, hot tables have no second index, and what recognises duplicates is in memory.
//!
//! # What is trusted after a crash
//! A transaction that was answered was synced. Rows carry an XXH3-64 checksum over all their
//! fields and their key; the marks carry a sum over all rows as well, so that a mark cannot
//! vanish unseen. SQLite itself would silently drop what follows a damaged byte in the WAL:
//! [`wal`] looks at the WAL before SQLite does, and refuses one that is damaged rather than torn.
//!
//! # Space
//! Free pages are used again, the file does not shrink (moving pages would cost writes on the
//! path of the accepts). Deletion runs in small steps between batches ([`retention`]).
//!
//! Never here: a value read from a row whose checksum does not fit, a generation or a claim that
//! survives a restart, work on the writer thread that grows with the size of the store.

mod accept;
mod checkpoint;
mod checksum;
mod engine;
mod error;
mod gauges;
mod ledger;
mod load;
mod lock;
mod marks;
mod metrics;
mod open;
mod options;
mod outbox;
mod reader;
mod retention;
mod rows;
mod schema;
mod settle;
mod store;
mod verify;
mod wal;
mod writer;

pub use engine::Engine;
pub use error::OpenError;
pub use options::Options;
pub use reader::Reader;
pub use store::Store;
