//! [`State`] around the store: threads, queues, group commit.
//!
//! Owns: the writer thread, which takes all calls that wait, applies them in order, commits once
//! and only then answers; the reader threads; what happens when a commit fails.
//!
//! Never here: an answer before the commit, a read on the writer thread that another can do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::checkpoint;
use super::error::{OpenError, Result};
use super::gauges;
use super::metrics::Writes;
use super::open;
use super::options::Options;
use super::reader::Reader;
use super::writer::Writer;
use crate::api::{EntityKey, NotificationType};
use crate::clock::{Clock, Ticks};
use crate::metrics::Metrics;
use crate::state::{
    Accepted, Claim, DeadLetter, EntityPage, Epoch, EventsGone, MarkClass, NewMark, Notification,
    Sequence, Settled, Settlement, SinkCommit, SinkPosition, State, StateError, Stats, StoredEvent,
};

/// Calls that may wait for the writer; further callers wait to be let in.
const QUEUE: usize = 1024;
/// Reads that may wait.
const READS: usize = 256;
/// Threads that read, so that one long page does not hold up the rest.
const READERS: usize = 2;

/// One call and its answer.
pub(super) struct Job<Request, Reply> {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<std::result::Result<Reply, StateError>>,
    pub(super) answer: Option<std::result::Result<Reply, StateError>>,
}

/// What the writer is asked.
pub(super) enum Command {
    Accept(Box<Job<Notification, Accepted>>),
    Mark(Job<Vec<NewMark>, ()>),
    Claim(Box<Job<MarkClass, Option<Claim>>>),
    Settle(Box<Job<(Claim, Settlement), Settled>>),
    Sink(Box<Job<(String, SinkCommit), ()>>),
    Replay(Job<(u64, bool), bool>),
    Fact(Job<(String, Option<Vec<u8>>), ()>),
    KeepSinks(Job<Vec<String>, ()>),
    /// From the checkpoint thread.
    Checkpointed(Result<()>),
    Tick,
    Close(oneshot::Sender<std::result::Result<(), StateError>>),
}

/// What the writer shows to everybody.
pub(super) struct Shown {
    pub(super) head: watch::Sender<Sequence>,
    pub(super) due: watch::Sender<Option<Ticks>>,
    pub(super) stats: Mutex<Stats>,
    /// Why the engine failed for good.
    pub(super) failed: OnceLock<String>,
    pub(super) failure: watch::Sender<bool>,
}

impl Shown {
    pub(super) fn fail(&self, why: &str) {
        if self.failed.set(why.to_owned()).is_ok() {
            tracing::error!(why, "the store failed; the process must start anew");
        }
        self.failure.send_replace(true);
    }

    pub(super) fn check(&self) -> std::result::Result<(), StateError> {
        match self.failed.get() {
            Some(why) => Err(StateError::Failed(why.clone())),
            None => Ok(()),
        }
    }
}

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The embedded engine. Dropping it ends its threads after what waits was committed.
pub struct Engine {
    epoch: Epoch,
    clock: Arc<dyn Clock>,
    shown: Arc<Shown>,
    writer: Option<mpsc::Sender<Command>>,
    reads: Option<mpsc::Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
    path: PathBuf,
}

impl Engine {
    /// Opens or makes the store in the folder `dir` (made if missing) and starts its threads.
    /// Blocks: about a second for each 200 MB of a small store, less for a large one.
    ///
    /// # Errors
    /// [`OpenError`] says what to do.
    pub fn open(
        dir: &Path,
        options: Options,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> std::result::Result<Self, OpenError> {
        let opened = open::open(dir, options, clock.now(), clock.ticks())?;
        Ok(Self::start(opened, clock, metrics))
    }

    fn start(opened: open::Opened, clock: Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let open::Opened {
            mut store,
            lock,
            checkpointer,
            readers,
            path,
        } = opened;
        let writes = Writes::new(metrics);
        writes
            .limit_bytes
            .set(i64::try_from(store.options.file_bytes()).unwrap_or(i64::MAX));
        let stats = store.stats();
        let shown = Arc::new(Shown {
            head: watch::Sender::new(stats.head),
            due: watch::Sender::new(store.next_due()),
            stats: Mutex::new(stats),
            failed: OnceLock::new(),
            failure: watch::Sender::new(false),
        });
        gauges::register(metrics, Arc::clone(&shown), Arc::clone(&clock));
        let epoch = store.epoch().clone();
        let (send, receive) = mpsc::channel(QUEUE);
        let (ask, asked) = std_mpsc::sync_channel(1);
        let mut threads = Vec::new();
        {
            let (weak, writes) = (send.downgrade(), writes.clone());
            threads.push(spawn("store-checkpoint", move || {
                checkpoint::run(&checkpointer, &asked, &weak, &writes);
            }));
        }
        {
            let work = Writer::new(store, Arc::clone(&clock), Arc::clone(&shown), writes, ask);
            threads.push(spawn("store-writer", move || {
                work.run(receive);
                drop(lock);
            }));
        }
        let (reads, queue) = mpsc::channel::<Read>(READS);
        let queue = Arc::new(Mutex::new(queue));
        debug_assert_eq!(readers.len(), READERS);
        for connection in readers {
            let queue = Arc::clone(&queue);
            threads.push(spawn("store-reader", move || {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .blocking_recv();
                    match next {
                        Some(read) => read(&connection),
                        None => return,
                    }
                }
            }));
        }
        Self {
            epoch,
            clock,
            shown,
            writer: Some(send),
            reads: Some(reads),
            threads,
            path,
        }
    }

    /// How many connections [`open::open`] must bring.
    pub(super) const fn reader_count() -> usize {
        READERS
    }

    /// Commits what waits, empties the write-ahead log into the file, and ends the threads.
    ///
    /// # Errors
    /// [`StateError`] when the last commit or the checkpoint failed: nothing that was answered is
    /// lost, it is in the write-ahead log.
    pub async fn close(mut self) -> std::result::Result<(), StateError> {
        drop(self.reads.take());
        let (reply, answer) = oneshot::channel();
        if let Some(writer) = self.writer.take() {
            // An error means that the thread is gone: the answer says so too.
            let _ = writer.send(Command::Close(reply)).await;
        }
        let result = answer.await.unwrap_or_else(|_| Err(gone()));
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        drop(joined);
        result
    }

    /// Returns when the engine failed for good: the process must end and open the store again.
    pub async fn failure(&self) -> String {
        let mut failure = self.shown.failure.subscribe();
        // The sender lives as long as `self`.
        let _ = failure.wait_for(|failed| *failed).await;
        self.shown.failed.get().cloned().unwrap_or_default()
    }

    /// Forgets every sink but these: its place, what is parked for it and its dead letters. What
    /// nobody delivers to any more must not hold back retention.
    ///
    /// # Errors
    /// [`StateError`]: nothing was forgotten.
    pub async fn keep_sinks(&self, names: Vec<String>) -> std::result::Result<(), StateError> {
        self.call(names, Command::KeepSinks).await
    }

    /// Checks the whole store: SQLite's `integrity_check`, every row's checksum, all counts.
    /// Takes about a second for each 200 MB, and accepts go on meanwhile.
    ///
    /// # Errors
    /// [`StateError::Failed`] with the first thing that does not fit.
    pub async fn verify(&self) -> std::result::Result<(), StateError> {
        self.read(|connection| Ok(super::verify::check(connection)?))
            .await
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn call<Request, Reply>(
        &self,
        request: Request,
        command: impl FnOnce(Job<Request, Reply>) -> Command,
    ) -> std::result::Result<Reply, StateError> {
        self.shown.check()?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            request,
            reply,
            answer: None,
        };
        let writer = self.writer.as_ref().ok_or_else(gone)?;
        writer.send(command(job)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| {
            self.shown.check()?;
            Err(gone())
        })
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> std::result::Result<T, StateError> + Send + 'static,
    ) -> std::result::Result<T, StateError> {
        self.shown.check()?;
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            // The caller may have given up waiting.
            let _ = reply.send(work(connection));
        });
        let reads = self.reads.as_ref().ok_or_else(gone)?;
        reads.send(read).await.map_err(|_| gone())?;
        let result = answer.await.unwrap_or_else(|_| Err(gone()));
        if let Err(StateError::Failed(why)) = &result {
            self.shown.fail(why);
        }
        result
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.writer.take());
        drop(self.reads.take());
        join(std::mem::take(&mut self.threads));
    }
}

fn gone() -> StateError {
    StateError::Failed("the store was closed".to_owned())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .expect("a process that cannot start a thread at its start cannot run at all")
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic was reported where it happened; those who wait are told by their channels.
        let _ = thread.join();
    }
}

#[async_trait]
impl State for Engine {
    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    async fn accept(
        &self,
        notification: Notification,
    ) -> std::result::Result<Accepted, StateError> {
        self.call(notification, |job| Command::Accept(Box::new(job)))
            .await
    }

    async fn mark(&self, marks: Vec<NewMark>) -> std::result::Result<(), StateError> {
        self.call(marks, Command::Mark).await
    }

    async fn claim(&self, prefer: MarkClass) -> std::result::Result<Option<Claim>, StateError> {
        self.call(prefer, |job| Command::Claim(Box::new(job))).await
    }

    async fn claimable(&self) {
        let mut due = self.shown.due.subscribe();
        loop {
            let next = *due.borrow_and_update();
            let wait = match next {
                Some(next) => next.since(self.clock.ticks()),
                None => Duration::MAX,
            };
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                // The sender lives as long as `self`.
                _ = due.changed() => {}
                () = self.clock.sleep(wait), if next.is_some() => return,
            }
        }
    }

    async fn settle(
        &self,
        claim: &Claim,
        settlement: Settlement,
    ) -> std::result::Result<Settled, StateError> {
        self.call((claim.clone(), settlement), |job| {
            Command::Settle(Box::new(job))
        })
        .await
    }

    fn head(&self) -> watch::Receiver<Sequence> {
        self.shown.head.subscribe()
    }

    async fn list(
        &self,
        kind: Option<NotificationType>,
        after: Option<&EntityKey>,
        limit: usize,
    ) -> std::result::Result<EntityPage, StateError> {
        let after = after.cloned();
        self.read(move |connection| Reader::new(connection).list(kind, after.as_ref(), limit))
            .await
    }

    async fn known(
        &self,
        kind: NotificationType,
        above: &[&str],
    ) -> std::result::Result<Vec<EntityKey>, StateError> {
        let above: Vec<String> = above.iter().map(ToString::to_string).collect();
        self.read(move |connection| {
            let above: Vec<&str> = above.iter().map(String::as_str).collect();
            Reader::new(connection).known(kind, &above)
        })
        .await
    }

    async fn entity(
        &self,
        key: &EntityKey,
    ) -> std::result::Result<Option<StoredEvent>, StateError> {
        let key = key.clone();
        self.read(move |connection| Reader::new(connection).entity(&key))
            .await
    }

    async fn events(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> std::result::Result<std::result::Result<Vec<StoredEvent>, EventsGone>, StateError> {
        self.read(move |connection| Reader::new(connection).events(after, limit, bytes))
            .await
    }

    async fn kept(
        &self,
        after: Sequence,
        limit: usize,
        bytes: usize,
    ) -> std::result::Result<Vec<StoredEvent>, StateError> {
        self.read(move |connection| Reader::new(connection).kept(after, limit, bytes))
            .await
    }

    async fn event(
        &self,
        sequence: Sequence,
    ) -> std::result::Result<Option<StoredEvent>, StateError> {
        self.read(move |connection| Reader::new(connection).event(sequence))
            .await
    }

    async fn oldest(&self) -> std::result::Result<Sequence, StateError> {
        self.read(|connection| Reader::new(connection).oldest())
            .await
    }

    async fn sink(&self, name: &str) -> std::result::Result<SinkPosition, StateError> {
        let name = name.to_owned();
        self.read(move |connection| Reader::new(connection).sink(&name))
            .await
    }

    async fn commit_sink(
        &self,
        name: &str,
        commit: SinkCommit,
    ) -> std::result::Result<(), StateError> {
        self.call((name.to_owned(), commit), |job| {
            Command::Sink(Box::new(job))
        })
        .await
    }

    async fn dead_letters(
        &self,
        after: u64,
        limit: usize,
    ) -> std::result::Result<Vec<DeadLetter>, StateError> {
        self.read(move |connection| Reader::new(connection).dead_letters(after, limit))
            .await
    }

    async fn replay(&self, id: u64, exact: bool) -> std::result::Result<bool, StateError> {
        self.call((id, exact), Command::Replay).await
    }

    async fn fact(&self, name: &str) -> std::result::Result<Option<Vec<u8>>, StateError> {
        let name = name.to_owned();
        self.read(move |connection| Reader::new(connection).fact(&name))
            .await
    }

    async fn put_fact(
        &self,
        name: &str,
        value: Option<Vec<u8>>,
    ) -> std::result::Result<(), StateError> {
        self.call((name.to_owned(), value), Command::Fact).await
    }

    fn stats(&self) -> Stats {
        self.shown
            .stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
