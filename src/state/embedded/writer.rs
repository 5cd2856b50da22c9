//! The writer thread: all calls that wait share one commit.
//!
//! Owns: the order of calls, the commit, the answers, and when the log is checkpointed. Never
//! here: an answer before the commit that it speaks of.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::checkpoint::{BEGIN_FRAMES, LITTLE_FRAMES, checkpoint};
use super::engine::{Command, Job, Shown, Writes};
use super::error::{Fault, Result};
use super::schema::PAGE_SIZE;
use super::store::Store;
use crate::clock::{Clock, Ticks, UnixMillis};
use crate::state::StateError;

/// Calls that share a commit at most: bounds how long the first of them waits.
const BATCH: usize = 512;
/// After the disk was found full, how long callers are told so without another try: reading
/// memory again after each failure must not be all that the process does.
const FULL_PAUSE: Duration = Duration::from_millis(200);
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
    /// There is more to delete at once.
    retaining: bool,
    /// Commits since the last closing one, and whether one came since the last tick.
    unclosed: bool,
    busy: bool,
    full_until: Option<Instant>,
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
            full_until: None,
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
            while batch.len() < BATCH {
                let Ok(command) = queue.try_recv() else { break };
                batch.push(command);
            }
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
        let (now, ticks) = self.now();
        let mut error = None;
        if self.pausing() {
            let full = StateError::Full("no space left on the volume or in the quota".to_owned());
            fail_accepts(batch, &full);
        }
        if let Err(fault) = self.apply(batch, now, ticks) {
            error = self.fail(fault, batch, now, ticks);
        }
        self.show();
        let closed = answer_all(batch, error.as_ref());
        self.after_commit();
        closed
    }

    fn pausing(&mut self) -> bool {
        let pausing = self.full_until.is_some_and(|until| Instant::now() < until);
        if !pausing {
            self.full_until = None;
        }
        pausing
    }

    fn apply(&mut self, batch: &mut [Command], now: UnixMillis, ticks: Ticks) -> Result<()> {
        let started = Instant::now();
        let mut ticked = false;
        let mut calls = 0_u32;
        for command in batch.iter_mut() {
            calls += u32::from(apply(&mut self.store, command, now, ticks)?);
            match command {
                Command::Tick => ticked = true,
                Command::Checkpointed(result) => {
                    self.round_ended(std::mem::replace(result, Ok(())))?;
                }
                _ => {}
            }
        }
        if self.store.is_open() {
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
        let error = StateError::from(fault);
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
        let mixed = batch.iter().any(|c| matches!(c, Command::Accept(_)))
            && batch.iter().any(|c| !matches!(c, Command::Accept(_)));
        if mixed {
            fail_all_but_accepts(batch, &error);
            return match self.apply(batch, now, ticks) {
                Ok(()) => None,
                Err(fault) => self.fail(fault, batch, now, ticks),
            };
        }
        self.full_until = Some(Instant::now() + FULL_PAUSE);
        Some(error)
    }

    /// One step of retention, when nothing else is to be done.
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
        let stats = self.store.stats();
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
        match self.round {
            Round::Idle if log.frames >= BEGIN_FRAMES && log.left() > 0 => self.ask_for_round(1),
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

fn is_full(fault: &Fault) -> bool {
    matches!(fault, Fault::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
}

/// Applies one command; `true` when it was a caller's. `Err` ends the whole batch.
fn apply(store: &mut Store, command: &mut Command, now: UnixMillis, ticks: Ticks) -> Result<bool> {
    match command {
        Command::Accept(job) => {
            if job.answer.is_some() {
                return Ok(true);
            }
            store.begin()?;
            let result = store.accept_one(&job.request, now, ticks);
            keep(job, result)?;
        }
        Command::Mark(job) => {
            store.begin()?;
            let result = store.mark_all(&job.request, now, ticks);
            keep(job, result)?;
        }
        Command::Claim(job) => {
            let result = store.claim_one(job.request, ticks);
            keep(job, result)?;
        }
        Command::Settle(job) => {
            store.begin()?;
            let (claim, settlement) = &job.request;
            let result = store.settle_one(claim, settlement, now, ticks);
            keep(job, result)?;
        }
        Command::Sink(job) => {
            store.begin()?;
            let (name, commit) = &job.request;
            let result = store.commit_sink_one(name, commit, now);
            keep(job, result)?;
        }
        Command::Replay(job) => {
            store.begin()?;
            let (id, exact) = job.request;
            let result = store.replay_one(id, exact, now, ticks);
            keep(job, result)?;
        }
        Command::Fact(job) => {
            store.begin()?;
            let (name, value) = &job.request;
            let result = store.put_fact_one(name, value.as_deref());
            keep(job, result)?;
        }
        Command::Checkpointed(_) | Command::Tick | Command::Close(_) => return Ok(false),
    }
    Ok(true)
}

/// Keeps an answer until the commit. A refusal that changed nothing is an answer too.
fn keep<Request, Reply>(job: &mut Job<Request, Reply>, result: Result<Reply>) -> Result<()> {
    match result {
        Err(fault) if fault.breaks_transaction() => return Err(fault),
        result => job.answer = Some(result.map_err(StateError::from)),
    }
    Ok(())
}

fn answer<Request, Reply>(job: Job<Request, Reply>, error: Option<&StateError>) {
    let answer = match (error, job.answer) {
        (Some(error), _) => Err(error.clone()),
        (None, Some(answer)) => answer,
        (None, None) => Err(StateError::Failed("the call was not applied".to_owned())),
    };
    // The caller may have given up waiting; what it asked for is done all the same.
    let _ = job.reply.send(answer);
}

fn answer_one(
    command: Command,
    error: Option<&StateError>,
) -> Option<tokio::sync::oneshot::Sender<std::result::Result<(), StateError>>> {
    match command {
        Command::Accept(job) => answer(*job, error),
        Command::Mark(job) => answer(job, error),
        Command::Claim(job) => answer(*job, error),
        Command::Settle(job) => answer(*job, error),
        Command::Sink(job) => answer(*job, error),
        Command::Replay(job) => answer(job, error),
        Command::Fact(job) => answer(job, error),
        Command::Checkpointed(_) | Command::Tick => {}
        Command::Close(reply) => return Some(reply),
    }
    None
}

fn answer_all(
    batch: &mut Vec<Command>,
    error: Option<&StateError>,
) -> Option<tokio::sync::oneshot::Sender<std::result::Result<(), StateError>>> {
    let mut closed = None;
    for command in batch.drain(..) {
        closed = answer_one(command, error).or(closed);
    }
    closed
}

fn fail_accepts(batch: &mut [Command], error: &StateError) {
    for command in batch {
        if let Command::Accept(job) = command {
            job.answer = Some(Err(error.clone()));
        }
    }
}

/// Answers all but the accepts and the engine's own commands with `error`.
fn fail_all_but_accepts(batch: &mut Vec<Command>, error: &StateError) {
    for command in std::mem::take(batch) {
        match command {
            Command::Accept(mut job) => {
                job.answer = None;
                batch.push(Command::Accept(job));
            }
            Command::Checkpointed(_) | Command::Tick => {}
            Command::Close(_) => batch.push(command),
            command => {
                answer_one(command, Some(error));
            }
        }
    }
}
