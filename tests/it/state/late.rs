//! Marks whose rows are late: what the journal alone says of them must be known after a restart.
//!
//! Oracle: the timestamps that were sent, and the rows as SQLite shows them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{Claim, MarkClass, Notification, State};
use rusqlite::Connection;

use super::{ManualClock, booking, notification, publish};

fn open(dir: &Path, clock: &Arc<ManualClock>, options: &Options) -> Engine {
    let dynamic = Arc::clone(clock) as Arc<dyn Clock>;
    Engine::open(dir, options.clone(), dynamic, &Metrics::new()).unwrap()
}

/// The newest notification of each of so many entities, each notified so often.
async fn notify(engine: &Engine, clock: &ManualClock, entities: u64, rounds: u64, from: u64) {
    for round in 0..rounds {
        clock.advance(Duration::from_secs(1));
        for id in 0..entities {
            let number = from + round * entities + id;
            let one = notification(&booking(&id.to_string()), number, clock.now());
            engine.accept(one).await.unwrap();
        }
    }
}

/// `(notified, first)` of each mark as its row says.
fn rows(dir: &Path) -> Vec<(i64, i64)> {
    let connection = Connection::open(dir.join("bellhop.db")).unwrap();
    let mut statement = connection
        .prepare("SELECT notified, first FROM marks ORDER BY key")
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

async fn claims(engine: &Engine) -> Vec<Claim> {
    let mut claims = Vec::new();
    while let Some(claim) = engine.claim(MarkClass::Notification).await.unwrap() {
        claims.push(claim);
    }
    claims
}

#[tokio::test]
async fn a_mark_notified_again_is_not_written_again_and_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let engine = open(dir.path(), &clock, &Options::default());
    notify(&engine, &clock, 8, 5, 0).await;
    let newest = clock.now();
    let written = rows(dir.path());
    assert_eq!(written.len(), 8);
    let second = Duration::from_secs(4);
    for (notified, _) in written {
        assert_eq!(notified, newest.before(second).0, "the first of five");
    }
    // Killed: nothing of it is closed.
    let copy = tempfile::tempdir().unwrap();
    for name in ["bellhop.db", "bellhop.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    clock.advance(Duration::from_mins(1));
    let again = open(copy.path(), &clock, &Options::default());
    let found = claims(&again).await;
    assert_eq!(found.len(), 8);
    for claim in found {
        assert_eq!(claim.notified, Some(newest));
        assert_eq!(claim.marked, Some(newest));
    }
    again.verify().await.unwrap();
}

/// What was notified before the claim that settled a mark says nothing about the next one.
#[tokio::test]
async fn what_was_settled_is_not_behind_the_next_mark() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let engine = open(dir.path(), &clock, &Options::default());
    clock.advance(Duration::from_secs(100));
    notify(&engine, &clock, 1, 3, 0).await;
    let claim = engine.claim(MarkClass::Notification).await.unwrap();
    engine
        .settle(&claim.unwrap(), publish(&*clock, "{}"))
        .await
        .unwrap();
    // An older timestamp, within the skew: its own mark, and its own time.
    let older = clock.now().before(Duration::from_secs(50));
    let one = Notification {
        timestamp: older,
        ..notification(&booking("0"), 77, clock.now())
    };
    engine.accept(one).await.unwrap();
    engine.close().await.unwrap();
    clock.advance(Duration::from_mins(1));
    let again = open(dir.path(), &clock, &Options::default());
    let found = claims(&again).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].notified, Some(older));
}

/// Retention takes the journal's rows away before they are old: what they said is written first.
#[tokio::test]
async fn what_retention_takes_is_written_first() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let options = Options {
        retain_events: Duration::from_mins(10),
        ..Options::default()
    };
    let engine = open(dir.path(), &clock, &options);
    notify(&engine, &clock, 4, 3, 0).await;
    let newest = clock.now();
    clock.advance(Duration::from_mins(20));
    // The newest row of a journal always stays, so one more comes in.
    let other = notification(&booking("other"), 99, clock.now());
    engine.accept(other).await.unwrap();
    let journal = || -> i64 {
        let connection = Connection::open(dir.path().join("bellhop.db")).unwrap();
        let count = connection.query_row("SELECT count(*) FROM journal", [], |row| row.get(0));
        count.unwrap()
    };
    for _ in 0..200 {
        if journal() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(journal(), 1, "retention did its work");
    let written = rows(dir.path());
    for (notified, _) in &written[..4] {
        assert_eq!(*notified, newest.0);
    }
    engine.verify().await.unwrap();
    engine.close().await.unwrap();
}
