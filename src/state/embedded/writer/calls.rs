//! One call at a time: what it does in the store, and its answer.
//!
//! Never here: a commit; an answer that was not kept until the caller of these says so.

use super::super::engine::{Command, Job};
use super::super::error::Result;
use super::super::store::Store;
use crate::clock::{Ticks, UnixMillis};
use crate::state::StateError;

/// Applies one command; `true` when it was a caller's. `Err` ends the whole batch.
pub(super) fn apply(
    store: &mut Store,
    command: &mut Command,
    now: UnixMillis,
    ticks: Ticks,
) -> Result<bool> {
    match command {
        Command::Accept(job) => {
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
        Command::KeepSinks(job) => {
            store.begin()?;
            let result = store.keep_sinks_one(&job.request);
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

pub(super) fn answer_one(
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
        Command::KeepSinks(job) => answer(job, error),
        Command::Checkpointed(_) | Command::Tick => {}
        Command::Close(reply) => return Some(reply),
    }
    None
}

pub(super) fn answer_all(
    batch: &mut Vec<Command>,
    error: Option<&StateError>,
) -> Option<tokio::sync::oneshot::Sender<std::result::Result<(), StateError>>> {
    let mut closed = None;
    for command in batch.drain(..) {
        closed = answer_one(command, error).or(closed);
    }
    closed
}

/// Answers all but the accepts and the engine's own commands with `error`.
pub(super) fn fail_all_but_accepts(batch: &mut Vec<Command>, error: &StateError) {
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
