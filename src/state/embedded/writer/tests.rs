//! The writer thread's step, without the thread. Oracle: what it asks of the checkpoint thread.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, OnceLock};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::super::engine::Job;
use super::*;
use crate::api::{EntityKey, NotificationType};
use crate::clock::SystemClock;
use crate::metrics::Metrics;
use crate::state::embedded::Options;
use crate::state::{Accepted, Notification};

fn writer(path: &std::path::Path) -> (Writer, Receiver<()>) {
    let clock = Arc::new(SystemClock::new());
    let connection = Connection::open(path).unwrap();
    let store = Store::open(connection, Options::default(), clock.now(), clock.ticks()).unwrap();
    let shown = Shown {
        head: watch::Sender::new(0),
        due: watch::Sender::new(None),
        stats: Mutex::default(),
        failed: OnceLock::new(),
        failure: watch::Sender::new(false),
    };
    let (ask, asked) = sync_channel(1);
    let writes = Writes::new(&Metrics::new());
    (
        Writer::new(store, clock, Arc::new(shown), writes, ask),
        asked,
    )
}

type Answers = Vec<oneshot::Receiver<std::result::Result<Accepted, StateError>>>;

/// As many accepts of new entities as a batch may have.
fn accepts(next: &mut u64) -> (Vec<Command>, Answers) {
    let now = SystemClock::new().now();
    (0..BATCH)
        .map(|_| {
            *next += 1;
            let key = EntityKey::new(NotificationType::Booking, &[&next.to_string()]).unwrap();
            let (reply, answer) = oneshot::channel();
            let request = Notification {
                rule: key.kind(),
                key: Some(key),
                removed: false,
                sum: next.to_le_bytes().to_vec(),
                timestamp: now,
                received: now,
                body: bytes::Bytes::new(),
                traceparent: None,
            };
            let job = Job {
                request,
                reply,
                answer: None,
            };
            (Command::Accept(Box::new(job)), answer)
        })
        .unzip()
}

/// What the checkpoint thread says in the same batch as a call that finds the disk full is heard.
#[test]
fn a_checkpoint_that_ended_beside_a_failure_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, asked) = writer(&dir.path().join("store.db"));
    let mut next = 0;
    while asked.try_recv().is_err() {
        let (mut batch, mut answers) = accepts(&mut next);
        writer.batch(&mut batch);
        let answer = answers.pop().unwrap().try_recv().unwrap();
        assert!(matches!(answer, Ok(Accepted::Marked)), "{answer:?}");
        assert!(next < 1_000_000, "the log grows and nobody is asked");
    }
    // SQLite takes the least that holds what is there already.
    let limit = |writer: &Writer, pages: i64| {
        let connection = &writer.store.connection;
        let set = connection.pragma(None, "max_page_count", pages, |_| Ok(()));
        set.unwrap();
    };
    limit(&writer, 1);
    let (mut batch, mut answers) = accepts(&mut next);
    batch.push(Command::Checkpointed(Ok(())));
    writer.batch(&mut batch);
    let answer = answers.pop().unwrap().try_recv().unwrap();
    assert!(matches!(answer, Err(StateError::Full(_))), "{answer:?}");
    limit(&writer, 1 << 20);
    // Nothing was moved, so the log is as long as before: the next round is asked for.
    assert!(asked.try_recv().is_ok(), "no checkpoint is asked for again");
}

/// Finding the disk full costs reading all memory again: it is not done for every call.
#[test]
fn while_the_disk_is_full_calls_are_told_so_without_another_try() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _asked) = writer(&dir.path().join("store.db"));
    let full = |writer: &mut Writer, next: &mut u64| {
        let (mut batch, mut answers) = accepts(next);
        let (reply, mut fact) = oneshot::channel();
        batch.push(Command::Fact(Job {
            request: ("fact".to_owned(), Some(vec![0; 100_000])),
            reply,
            answer: None,
        }));
        writer.batch(&mut batch);
        let accept = answers.pop().unwrap().try_recv().unwrap();
        let fact = fact.try_recv().unwrap();
        let accept = matches!(accept, Err(StateError::Full(_)));
        (accept, matches!(fact, Err(StateError::Full(_))))
    };
    let set = |writer: &Writer, pages: i64| {
        let connection = &writer.store.connection;
        let set = connection.pragma(None, "max_page_count", pages, |_| Ok(()));
        set.unwrap();
    };
    let mut next = 0;
    set(&writer, 1);
    assert_eq!(full(&mut writer, &mut next), (true, true));
    let tries = writer.writes.full.get();
    for _ in 0..5 {
        assert_eq!(full(&mut writer, &mut next), (true, true));
    }
    assert_eq!(writer.writes.full.get(), tries);
    // Once there is space, all goes on after the pause.
    set(&writer, 1 << 20);
    let until = writer.others_pause.max(writer.accepts_pause).unwrap();
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    assert_eq!(full(&mut writer, &mut next), (false, false));
}
