//! The writer thread: all calls that wait share one commit.
//!
//! Owns: the order of calls, the commit, the answers, and when the log is checkpointed. Never
//! here: an answer before the commit that it speaks of.

mod calls;

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use calls::{answer_all, answer_one, apply, fail_all_but_accepts};

use super::checkpoint::{LITTLE_FRAMES, checkpoint};
use super::engine::{Command, Shown};
use super::error::{Fault, Result};
use super::metrics::Writes;
use super::options::Options;
use super::schema::PAGE_SIZE;
use super::store::Store;
use crate::clock::{Clock, Ticks, UnixMillis};
use crate::state::StateError;

/// Calls that share a commit at most: bounds how long the first of them waits.
const BATCH: usize = 512;
/// How long a batch is gathered at most.
const GATHER: Duration = Duration::from_millis(2);
/// After the disk was found full, how long callers are told so without another try, at least; and
/// at least so many times as long as reading memory again took: that makes every claim stale and
/// keeps all waiting, so it must not be all that the process does.
const FULL_PAUSE: Duration = Duration::from_millis(200);
const FULL_PAUSE_TIMES: u32 = 10;
/// Rounds of checkpoints beside the writer before it moves the rest, however much it is.
const ROUNDS: u32 = 4;

/// Where a checkpoint is: how many rounds beside the writer it took so far.
#[derive(Debug, Clone, Copy)]
enum Round {
    Idle,
    Running(u32),
    Done(u32),
}

pub(super) struct Writer {
    store: Store,
    clock: Arc<dyn Clock>,
    shown: Arc<Shown>,
    writes: Writes,
    /// Wakes the checkpoint thread.
    ask: SyncSender<()>,
    round: Round,
    /// There is more to delete at once: a step with each commit, or alone while nothing waits.
    retaining: bool,
    /// Commits since the last closing one, and whether one came since the last tick.
    unclosed: bool,
    busy: bool,
    /// Until when accepts, and all other calls that write, are told that there is no space.
    accepts_pause: Option<Instant>,
    others_pause: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        shown: Arc<Shown>,
        writes: Writes,
        ask: SyncSender<()>,
    ) -> Self {
        Self {
            store,
            clock,
            shown,
            writes,
            ask,
            round: Round::Idle,
            retaining: true,
            // After a crash the log may end in a commit that nothing follows.
            unclosed: true,
            busy: false,
            accepts_pause: None,
            others_pause: None,
        }
    }

    /// Until the last sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let first = if self.retaining && self.shown.failed.get().is_none() {
                match queue.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => {
                        self.retain();
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => None,
                }
            } else {
                queue.blocking_recv()
            };
            let Some(first) = first else { break };
            batch.push(first);
            gather(&mut batch, &mut queue);
            if let Some(closed) = self.batch(&mut batch) {
                let result = self.finish();
                // Whoever closes may have given up waiting.
                let _ = closed.send(result);
                return;
            }
        }
        // The engine was dropped: what is not in the file yet is in the log.
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "the write-ahead log was not emptied");
        }
    }

    /// Empties the log into the file.
    fn finish(&mut self) -> std::result::Result<(), StateError> {
        self.shown.check()?;
        checkpoint(&self.store.connection, "TRUNCATE")?;
        Ok(())
    }

    fn now(&self) -> (UnixMillis, Ticks) {
        (self.clock.now(), self.clock.ticks())
    }

    /// Applies a batch, commits it, answers. Gives back who asked to close.
    fn batch(
        &mut self,
        batch: &mut Vec<Command>,
    ) -> Option<tokio::sync::oneshot::Sender<std::result::Result<(), StateError>>> {
        if let Err(error) = self.shown.check() {
            return answer_all(batch, Some(&error));
        }
        if let Err(fault) = self.rounds_ended(batch) {
            self.shown.fail(&StateError::from(fault).to_string());
            return answer_all(batch, self.shown.check().err().as_ref());
        }
        let (now, ticks) = self.now();
        let mut error = None;
        self.refuse_while_full(batch);
        if let Err(fault) = self.apply(batch, now, ticks) {
            error = self.fail(fault, batch, now, ticks);
        }
        self.show();
        let closed = answer_all(batch, error.as_ref());
        self.after_commit();
        closed
    }

    /// Answers what would find no space again. A claim only reads.
    fn refuse_while_full(&mut self, batch: &mut Vec<Command>) {
        let now = Instant::now();
        self.accepts_pause.take_if(|until| *until <= now);
        self.others_pause.take_if(|until| *until <= now);
        if self.accepts_pause.is_none() && self.others_pause.is_none() {
            return;
        }
        let full = StateError::Full("no space left on the volume or in the quota".to_owned());
        for command in std::mem::take(batch) {
            let pause = match command {
                Command::Accept(_) => self.accepts_pause,
                Command::Claim(_) | Command::Tick | Command::Close(_) => None,
                _ => self.others_pause,
            };
            if pause.is_some() {
                answer_one(command, Some(&full));
            } else {
                batch.push(command);
            }
        }
    }

    fn apply(&mut self, batch: &mut [Command], now: UnixMillis, ticks: Ticks) -> Result<()> {
        let started = Instant::now();
        let mut ticked = false;
        let mut calls = 0_u32;
        for command in batch.iter_mut() {
            calls += u32::from(apply(&mut self.store, command, now, ticks)?);
            ticked |= matches!(command, Command::Tick);
        }
        if self.store.is_open() {
            if self.retaining {
                // A commit of its own would cost those that wait one more sync.
                self.retaining = self.store.retain_within(now)?;
            }
            self.store.commit()?;
            self.unclosed = true;
            self.busy = true;
            self.writes
                .commit_seconds
                .observe(started.elapsed().as_secs_f64());
            self.writes.batch.observe(f64::from(calls));
        }
        if ticked {
            self.tick()?;
        }
        Ok(())
    }

    /// Takes the checkpoint thread's word out of the batch: whatever becomes of the calls, it must
    /// not be lost with them, or no checkpoint would ever be asked for again.
    fn rounds_ended(&mut self, batch: &mut Vec<Command>) -> Result<()> {
        for command in batch.extract_if(.., |command| matches!(command, Command::Checkpointed(_))) {
            if let Command::Checkpointed(result) = command {
                self.round_ended(result)?;
            }
        }
        Ok(())
    }

    fn round_ended(&mut self, result: Result<()>) -> Result<()> {
        self.round = match (self.round, result) {
            (Round::Running(rounds), Ok(())) => Round::Done(rounds),
            (_, Ok(())) => Round::Idle,
            (_, Err(fault)) => {
                // No space to grow the file is not the callers' trouble: the log still takes
                // commits, and the next one tries again.
                let error = StateError::from(fault);
                if let StateError::Failed(why) = error {
                    return Err(Fault::Damaged(format!("a checkpoint failed: {why}")));
                }
                tracing::warn!(%error, "a checkpoint did not get through; trying again");
                Round::Idle
            }
        };
        Ok(())
    }

    /// Four times a second.
    fn tick(&mut self) -> Result<()> {
        self.retaining = true;
        if !std::mem::take(&mut self.busy) && std::mem::take(&mut self.unclosed) {
            // Closes a busy stretch: see `wal` for what it is good for.
            self.store.begin()?;
            self.store.touch()?;
            self.store.commit()?;
        }
        Ok(())
    }

    /// After a failure: memory is read again. Full: the accepts get another try without the rest.
    fn fail(
        &mut self,
        fault: Fault,
        batch: &mut Vec<Command>,
        now: UnixMillis,
        ticks: Ticks,
    ) -> Option<StateError> {
        let full = is_full(&fault);
        let retaining = std::mem::take(&mut self.retaining);
        let error = StateError::from(fault);
        let started = Instant::now();
        if let Err(again) = self.store.roll_back(now, ticks) {
            let again = StateError::from(again);
            self.shown.fail(&format!("{error}; then: {again}"));
            return Some(StateError::Failed(error.to_string()));
        }
        if let StateError::Failed(why) = &error {
            self.shown.fail(why);
        }
        if !full {
            return Some(error);
        }
        self.writes.full.inc();
        let pause = FULL_PAUSE.max(started.elapsed() * FULL_PAUSE_TIMES);
        let until = Some(Instant::now() + pause);
        let mixed = batch.iter().any(|c| matches!(c, Command::Accept(_)))
            && (retaining || batch.iter().any(|c| !matches!(c, Command::Accept(_))));
        if mixed {
            self.others_pause = until;
            fail_all_but_accepts(batch, &error);
            return match self.apply(batch, now, ticks) {
                Ok(()) => None,
                Err(fault) => self.fail(fault, batch, now, ticks),
            };
        }
        if batch.iter().any(|c| matches!(c, Command::Accept(_))) {
            self.accepts_pause = until;
        }
        // What is not even enough for a mark is not enough for anything else.
        self.others_pause = until;
        Some(error)
    }

    /// One step of retention on its own, when nothing else is to be done.
    fn retain(&mut self) {
        let (now, ticks) = self.now();
        match self.store.retain(now, ticks) {
            Ok(more) => self.retaining = more,
            Err(StateError::Failed(why)) => self.shown.fail(&why),
            Err(_) => self.retaining = false,
        }
        self.show();
        self.after_commit();
    }

    /// Shows the counters; before the answers, so that whoever was answered finds them true.
    fn show(&mut self) {
        let dropped = std::mem::take(&mut self.store.dropped);
        if dropped > 0 {
            self.writes.dropped.inc_by(dropped);
            tracing::warn!(
                dropped,
                "the oldest dead letters were dropped before their time, to keep space for notifications"
            );
        }
        let mut stats = self.store.stats();
        stats.full |= self.accepts_pause.is_some() || self.others_pause.is_some();
        self.writes.marks.set(stats.marks as i64);
        self.writes.used_bytes.set(stats.bytes as i64);
        let due = self.store.next_due();
        self.shown.due.send_if_modified(|shown| {
            let other = *shown != due;
            *shown = due;
            other
        });
        let head = stats.head;
        self.shown.head.send_if_modified(|shown| {
            let other = *shown != head;
            *shown = head;
            other
        });
        *self
            .shown
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = stats;
    }

    /// Thinks of the log, while nobody waits for it.
    fn after_commit(&mut self) {
        if self.shown.failed.get().is_some() {
            return;
        }
        if let Err(fault) = self.mind_log() {
            match StateError::from(fault) {
                StateError::Failed(why) => self.shown.fail(&why),
                error => tracing::warn!(%error, "a checkpoint did not get through; trying again"),
            }
        }
    }

    fn mind_log(&mut self) -> Result<()> {
        let log = checkpoint(&self.store.connection, "NOOP")?;
        self.writes
            .wal_bytes
            .set(log.frames.max(0) * PAGE_SIZE as i64);
        let begin = Options::checkpoint_frames();
        match self.round {
            Round::Idle if log.frames >= begin && log.left() > 0 => self.ask_for_round(1),
            Round::Idle | Round::Running(_) => {}
            Round::Done(rounds) if log.left() <= LITTLE_FRAMES || rounds >= ROUNDS => {
                self.round = Round::Idle;
                let started = Instant::now();
                checkpoint(&self.store.connection, "PASSIVE")?;
                self.writes.observe_checkpoint(started.elapsed());
            }
            Round::Done(rounds) => self.ask_for_round(rounds + 1),
        }
        Ok(())
    }

    fn ask_for_round(&mut self, round: u32) {
        if self.ask.try_send(()).is_ok() {
            self.round = Round::Running(round);
        }
    }
}

/// Takes what waits, and lets whoever is about to ask do so first. With a core to themselves the
/// callers run beside this thread and the first look that finds nothing ends it; on a shared core
/// each of them would otherwise be interrupted by a commit of its own, and many commits of few
/// calls cost more than few commits of many.
fn gather(batch: &mut Vec<Command>, queue: &mut mpsc::Receiver<Command>) {
    let started = Instant::now();
    loop {
        while batch.len() < BATCH {
            let Ok(command) = queue.try_recv() else { break };
            batch.push(command);
        }
        if batch.len() == BATCH || started.elapsed() > GATHER {
            return;
        }
        thread::yield_now();
        if queue.is_empty() {
            return;
        }
    }
}

fn is_full(fault: &Fault) -> bool {
    matches!(fault, Fault::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
}

#[cfg(test)]
mod tests;
