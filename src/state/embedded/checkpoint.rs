//! Moving what the write-ahead log holds into the database file, off the path of the commits.
//!
//! Owns: when. A checkpoint inside a commit costs that commit its sync of the whole file, and one
//! that runs beside a busy writer never reaches the log's end, so that the log never starts anew.
//! So: beside the writer, on a thread and connection of its own, until little is left; then the
//! writer moves that little itself, between two commits, and its next commit starts the log from
//! the beginning. The same thread is the engine's slow clock: it sends a tick for retention.
//!
//! Never here: a checkpoint that waits for readers.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::engine::Command;
use super::error::Result;
use super::metrics::Writes;

/// Frames left that the writer may move by itself: half a megabyte.
pub(super) const LITTLE_FRAMES: i64 = 128;
/// How often retention and the closing commit are thought of.
const TICK: Duration = Duration::from_millis(250);

/// How far the log is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Log {
    /// Frames in it.
    pub(super) frames: i64,
    /// Of these, moved already.
    pub(super) moved: i64,
}

impl Log {
    pub(super) const fn left(self) -> i64 {
        self.frames - self.moved
    }
}

/// `mode`: `NOOP` only looks, `PASSIVE` moves what it can without waiting, `TRUNCATE` all.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<Log> {
    let sql = match mode {
        "NOOP" => "PRAGMA wal_checkpoint(NOOP)",
        "PASSIVE" => "PRAGMA wal_checkpoint(PASSIVE)",
        _ => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    Ok(connection.prepare_cached(sql)?.query_row([], |row| {
        Ok(Log {
            frames: row.get(1)?,
            moved: row.get(2)?,
        })
    })?)
}

/// Lets this thread run when receiver and writer leave it time: where they share a core with it,
/// each of its turns is a wait of some milliseconds for whoever wants an answer. On a busy core it
/// still gets a twentieth, which is more than checkpoints take.
fn stand_back() {
    #[cfg(target_os = "linux")]
    {
        use rustix::{process::setpriority_process, thread::gettid};
        // On Linux this is about the thread, whatever its name says. Refused: as fast as before.
        if let Err(error) = setpriority_process(Some(gettid()), 10) {
            tracing::debug!(%error, "the checkpoint thread keeps its priority");
        }
    }
}

/// The thread: checkpoints when it is asked to, ticks when it is not.
pub(super) fn run(
    connection: &Connection,
    asked: &Receiver<()>,
    writer: &tokio::sync::mpsc::WeakSender<Command>,
    metrics: &Writes,
) {
    stand_back();
    let mut ticked = Instant::now();
    loop {
        let wait = TICK.saturating_sub(ticked.elapsed());
        let command = match asked.recv_timeout(wait) {
            Ok(()) => {
                let started = Instant::now();
                let result = checkpoint(connection, "PASSIVE");
                metrics.observe_checkpoint(started.elapsed());
                Command::Checkpointed(result.map(|_| ()))
            }
            Err(RecvTimeoutError::Timeout) => {
                ticked = Instant::now();
                Command::Tick
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(writer) = writer.upgrade() else {
            return;
        };
        match command {
            // A writer too busy to take a tick has no time for retention either.
            Command::Tick => drop(writer.try_send(command)),
            command => {
                if writer.blocking_send(command).is_err() {
                    return;
                }
            }
        }
    }
}
