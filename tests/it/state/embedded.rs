//! What only the embedded engine can show: its files, its quota, its refusals.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellhop::clock::{Clock, SystemClock};
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, OpenError, Options, Store};
use bellhop::state::{
    Accepted, Claim, EventsGone, MarkClass, Notification, Settled, Settlement, SinkPosition, State,
    StateError,
};
use rusqlite::Connection;

use super::{ManualClock, booking, notification, publish, remove};

fn open(dir: &Path) -> Result<Engine, OpenError> {
    let clock = Arc::new(SystemClock::new());
    Engine::open(dir, Options::default(), clock, &Metrics::new())
}

#[tokio::test]
async fn a_second_owner_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("bellhop.lock"), "{error}");
    let pid = format!("pid {}", std::process::id());
    assert!(error.contains(&pid), "{error}");
    first.close().await.unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_newer_or_foreign_file_is_refused_and_left_alone() {
    for (sql, expected) in [
        ("PRAGMA user_version = 99", "schema version 99"),
        ("PRAGMA application_id = 7", "not a Bellhop store"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().close().await.unwrap();
        let file = dir.path().join("bellhop.db");
        let connection = Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
        connection.close().unwrap();
        let before = fs::read(&file).unwrap();
        let error = open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bellhop.db");
    fs::write(&file, vec![0x55; 8192]).unwrap();
    let error = open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("bellhop.db is damaged"), "{error}");
    assert!(error.contains("Move the folder aside"), "{error}");
    assert!(error.contains("resync"), "{error}");
}

/// Closing leaves a log that ends in synced commits; a byte of it changed is not a torn tail.
#[tokio::test]
async fn a_damaged_log_is_not_taken_for_a_torn_one() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    for n in 0..20 {
        let now = SystemClock::new().now();
        engine
            .accept(notification(&booking(&n.to_string()), n, now))
            .await
            .unwrap();
    }
    for name in ["bellhop.db", "bellhop.db-wal"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let log = copy.path().join("bellhop.db-wal");
    let sound = fs::read(&log).unwrap();
    let mut damaged = sound.clone();
    damaged[5000] ^= 0x10;
    fs::write(&log, &damaged).unwrap();
    let error = open(copy.path()).err().unwrap().to_string();
    assert!(error.contains("write-ahead log does not fit"), "{error}");
    fs::write(&log, &sound).unwrap();
    assert_eq!(open(copy.path()).unwrap().stats().marks, 20);
}

#[tokio::test]
async fn waiting_accepts_share_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let clock = Arc::new(SystemClock::new());
    let engine = Arc::new(Engine::open(dir.path(), Options::default(), clock, &metrics).unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..500 {
        let engine = Arc::clone(&engine);
        calls.spawn(async move {
            let now = SystemClock::new().now();
            let key = booking(&n.to_string());
            engine.accept(notification(&key, n, now)).await.unwrap()
        });
    }
    while let Some(accepted) = calls.join_next().await {
        assert_eq!(accepted.unwrap(), Accepted::Marked);
    }
    let text = metrics.encode();
    let commits: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("bellhop_store_commit_seconds_count "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(commits < 100, "{commits} commits for 500 accepts");
}

/// The oracle is another program.
#[tokio::test]
async fn the_sqlite3_program_opens_it() {
    if std::process::Command::new("sqlite3")
        .arg("--version")
        .output()
        .is_err()
    {
        crate::skip::without("the sqlite3 program is missing");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let engine = Engine::open(
        dir.path(),
        Options::default(),
        Arc::clone(&clock) as Arc<dyn Clock>,
        &Metrics::new(),
    )
    .unwrap();
    for (id, sum) in [("a", 1), ("a", 2), ("b", 3), ("b", 3)] {
        engine
            .accept(notification(&booking(id), sum, clock.now()))
            .await
            .unwrap();
    }
    let claim = engine
        .claim(MarkClass::Notification)
        .await
        .unwrap()
        .unwrap();
    engine
        .settle(&claim, publish(&*clock, "{\"x\":1}"))
        .await
        .unwrap();
    engine.verify().await.unwrap();
    engine.close().await.unwrap();
    let ask = |sql: &str| {
        let output = std::process::Command::new("sqlite3")
            .arg(dir.path().join("bellhop.db"))
            .arg(sql)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask("PRAGMA integrity_check"), "ok\n");
    let revision = clock.now().0;
    assert_eq!(
        ask("SELECT notification, entity, accepted_as, fate, revision FROM notification_fate"),
        format!(
            "1|booking/a|marked|changed|{revision}\n2|booking/a|marked|changed|{revision}\n\
             3|booking/b|marked|waiting|\n4|booking/b|duplicate||\n"
        )
    );
    assert_eq!(
        ask("SELECT received FROM notification_fate LIMIT 1"),
        "2026-01-02T03:04:05.000Z\n"
    );
}

/// A store in memory, driven directly, and its clock.
pub fn driven(options: Options) -> (Arc<ManualClock>, Store) {
    let clock = ManualClock::new();
    let connection = Connection::open_in_memory().unwrap();
    let store = Store::open(connection, options, clock.now(), clock.ticks()).unwrap();
    (clock, store)
}

/// The same with this quota.
pub fn of_size(size_bytes: u64) -> (Arc<ManualClock>, Store) {
    driven(Options {
        size_bytes,
        ..Options::default()
    })
}

pub fn accept(store: &mut Store, clock: &ManualClock, batch: &[Notification]) -> Vec<Accepted> {
    store
        .accept_batch(batch, clock.now(), clock.ticks())
        .unwrap()
}

/// The next claim, which must be there.
pub fn claim(store: &mut Store, clock: &ManualClock) -> Claim {
    store
        .claim(MarkClass::Notification, clock.ticks())
        .unwrap()
        .unwrap()
}

/// A notification, its read and what came of it.
pub fn put(store: &mut Store, clock: &ManualClock, id: &str, sum: u64, settlement: &Settlement) {
    let n = notification(&booking(id), sum, clock.now());
    accept(store, clock, &[n]);
    clock.advance(Duration::from_secs(2));
    let claim = claim(store, clock);
    let settled = store
        .settle(&claim, settlement, clock.now(), clock.ticks())
        .unwrap();
    assert_ne!(settled, Settled::Stale);
}

pub fn retain(store: &mut Store, clock: &ManualClock) {
    while store.retain(clock.now(), clock.ticks()).unwrap() {}
    store.verify().unwrap();
}

#[test]
fn retention_keeps_the_newest_and_moves_the_horizon_past_old_removals() {
    let (clock, mut store) = driven(Options {
        retain_events: Duration::from_hours(1),
        ..Options::default()
    });
    for sum in 0..3 {
        let data = publish(&*clock, &format!("{sum}"));
        put(&mut store, &clock, "kept", sum, &data);
    }
    let data = publish(&*clock, "x");
    put(&mut store, &clock, "gone", 10, &data);
    put(&mut store, &clock, "gone", 11, &remove(&*clock));
    let sequences = |store: &Store| -> Vec<u64> {
        let kept = |sequence: &u64| store.reader().event(*sequence).unwrap().is_some();
        (1..20).filter(kept).collect()
    };
    retain(&mut store, &clock);
    assert_eq!(sequences(&store), [1, 2, 3, 4, 5]);
    clock.advance(Duration::from_secs(3700));
    retain(&mut store, &clock);
    assert_eq!(sequences(&store), [3, 5], "superseded ones are gone");
    assert_eq!(store.reader().oldest().unwrap(), 0);
    clock.advance(Duration::from_hours(8 * 24));
    retain(&mut store, &clock);
    assert_eq!(sequences(&store), [3]);
    assert_eq!(store.reader().oldest().unwrap(), 5);
    let events = store.reader().events(4, 10, 1000).unwrap();
    assert_eq!(events, Err(EventsGone::Expired));
    assert_eq!(store.reader().events(5, 10, 1000).unwrap(), Ok(Vec::new()));
    assert_eq!(store.stats().live_entities, 1);
    // What is forgotten does not come back with a lower revision.
    clock.step(-30 * 24 * 3_600_000);
    let data = publish(&*clock, "back");
    put(&mut store, &clock, "gone", 12, &data);
    let back = store.reader().entity(&booking("gone")).unwrap().unwrap();
    assert!(back.revision > super::START as u64 + 8_000);
    assert_eq!(back.sequence, 6);
}

#[test]
fn bookings_are_forgotten_after_their_time() {
    let (clock, mut store) = driven(Options::default());
    let settlement = Settlement {
        forget_after: Some(clock.now().after(Duration::from_hours(1))),
        ..publish(&*clock, "personal")
    };
    put(&mut store, &clock, "b", 1, &settlement);
    retain(&mut store, &clock);
    assert!(store.reader().entity(&booking("b")).unwrap().is_some());
    clock.advance(Duration::from_secs(3601));
    retain(&mut store, &clock);
    assert!(store.reader().entity(&booking("b")).unwrap().is_none());
    assert!(store.reader().event(1).unwrap().is_none());
}

#[test]
fn the_journal_is_bounded_by_its_share() {
    let (clock, mut store) = of_size(16 << 20);
    let a = booking("a");
    for round in 0..40_u64 {
        let batch: Vec<_> = (0..500)
            .map(|n| notification(&a, round * 500 + n, clock.now()))
            .collect();
        accept(&mut store, &clock, &batch);
        retain(&mut store, &clock);
    }
    let connection = store.into_connection();
    let rows: i64 = connection
        .query_row("SELECT count(*) FROM journal", [], |row| row.get(0))
        .unwrap();
    // A quarter of 14 MiB (16 less the log's share) in rows of 256 bytes.
    assert_eq!(rows, 14 * 1024 * 1024 / 4 / 256);
}

#[test]
fn memory_is_what_the_file_says_after_a_failure() {
    let (clock, mut store) = driven(Options::default());
    let data = publish(&*clock, "1");
    put(&mut store, &clock, "a", 1, &data);
    let n = notification(&booking("a"), 2, clock.now());
    accept(&mut store, &clock, &[n]);
    clock.advance(Duration::from_secs(2));
    let claim = claim(&mut store, &clock);
    let stats = store.stats();
    let connection = store.into_connection();
    let mut store =
        Store::open(connection, Options::default(), clock.now(), clock.ticks()).unwrap();
    let again = store.stats();
    assert_eq!(
        (again.marks, again.head, again.journal),
        (stats.marks, stats.head, stats.journal)
    );
    let settled = store
        .settle(&claim, &publish(&*clock, "2"), clock.now(), clock.ticks())
        .unwrap();
    assert_eq!(settled, Settled::Stale);
}

/// A value changed by hand is noticed wherever it is read.
#[test]
fn a_row_that_does_not_fit_its_checksum_is_an_error() {
    for (sql, table) in [
        ("UPDATE events SET data = x'32' WHERE seq = 1", "events"),
        ("UPDATE entities SET revision = revision + 1", "entities"),
        ("UPDATE entities SET event = 2 WHERE event = 1", "entities"),
        ("UPDATE sinks SET cursor = 7", "sinks"),
        ("UPDATE facts SET value = x'00'", "facts"),
        ("UPDATE dead_letters SET reason = 'x'", "dead_letters"),
    ] {
        let (clock, mut store) = driven(Options::default());
        let settlement = Settlement {
            dead_letter: Some("why".to_owned()),
            ..publish(&*clock, "1")
        };
        put(&mut store, &clock, "a", 1, &settlement);
        let (now, ticks) = (clock.now(), clock.ticks());
        let commit = bellhop::state::SinkCommit {
            cursor: 1,
            ..Default::default()
        };
        store.commit_sink("s", &commit, now, ticks).unwrap();
        store.put_fact("f", Some(b"1"), now, ticks).unwrap();
        let connection = store.into_connection();
        assert!(connection.execute(sql, []).unwrap() > 0);
        let store = Store::open(connection, Options::default(), now, ticks).unwrap();
        let reader = store.reader();
        let errors = [
            reader.entity(&booking("a")).err(),
            reader.sink("s").err(),
            reader.fact("f").err(),
            reader.dead_letters(0, 10).err(),
        ];
        let error = errors.into_iter().flatten().next().expect(sql).to_string();
        assert!(error.contains(&format!("table {table}")), "{sql}: {error}");
        assert!(store.verify().is_err());
    }
    for sql in [
        "UPDATE marks SET marked = marked + 1000",
        "DELETE FROM marks",
        "UPDATE journal SET received = received + 1",
        "DELETE FROM journal",
        "UPDATE store SET head = 0",
    ] {
        let (clock, mut store) = driven(Options::default());
        let n = notification(&booking("a"), 2, clock.now());
        accept(&mut store, &clock, &[n]);
        let (now, ticks) = (clock.now(), clock.ticks());
        let connection = store.into_connection();
        connection.execute(sql, []).unwrap();
        if sql != "UPDATE store SET head = 0" {
            let error = Store::open(connection, Options::default(), now, ticks)
                .err()
                .expect(sql);
            assert!(matches!(error, StateError::Failed(_)), "{sql}: {error}");
        }
    }
}

#[test]
fn a_lock_file_that_holds_anything_can_be_locked() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = fs::File::create(dir.path().join("bellhop.lock")).unwrap();
    lock.write_all(&[0xff; 100]).unwrap();
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn sinks_that_are_no_more_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let parked = |sequence: u64| bellhop::state::Parked {
        sequence,
        key: booking(&sequence.to_string()),
        attempts: 2,
    };
    for name in ["gone", "kept"] {
        let commit = bellhop::state::SinkCommit {
            cursor: 0,
            park: vec![parked(1), parked(2)],
            bury: vec![(parked(3), "no".to_owned())],
            ..Default::default()
        };
        engine.commit_sink(name, commit).await.unwrap();
    }
    assert_eq!(engine.stats().dead_letters, [0, 0, 2]);
    engine.keep_sinks(vec!["kept".to_owned()]).await.unwrap();
    assert_eq!(engine.stats().dead_letters, [0, 0, 1]);
    assert_eq!(engine.sink("gone").await.unwrap(), SinkPosition::default());
    let position = engine.sink("kept").await.unwrap();
    assert_eq!(position.parked, [parked(1), parked(2)]);
    engine.verify().await.unwrap();
    engine.close().await.unwrap();
    // What holds back retention is the smallest cursor in this table.
    let connection = Connection::open(dir.path().join("bellhop.db")).unwrap();
    let names: String = connection
        .query_row("SELECT group_concat(name) FROM sinks", [], |row| row.get(0))
        .unwrap();
    assert_eq!(names, "kept");
}

/// One captured signature, sent over and over: the history of all others stays.
#[test]
fn repeats_do_not_fill_the_journal() {
    let (clock, mut store) = driven(Options::default());
    let captured = notification(&booking("a"), 7, clock.now());
    let repeat = |store: &mut Store, times: usize| {
        clock.advance(Duration::from_secs(1));
        let again = Notification {
            received: clock.now(),
            ..captured.clone()
        };
        store
            .accept_batch(&vec![again; times], clock.now(), clock.ticks())
            .unwrap()
    };
    assert_eq!(repeat(&mut store, 1), [Accepted::Marked]);
    for _ in 0..20 {
        let answers = repeat(&mut store, 500);
        assert_eq!(answers, vec![Accepted::Duplicate; 500]);
    }
    let stats = store.stats();
    assert_eq!(stats.last_notification, Some(clock.now()));
    assert_eq!(stats.journal, 1 + 10, "the first, and its first repeats");
    // Another signature is noted as ever.
    let other = notification(&booking("b"), 8, clock.now());
    let batch = vec![other; 3];
    accept(&mut store, &clock, &batch);
    assert_eq!(store.stats().journal, 11 + 3);
    store.verify().unwrap();
}

/// As a power cut in the middle of the very first transaction leaves it, and no other.
#[tokio::test]
async fn a_store_that_was_being_made_when_the_power_went_opens() {
    let made = tempfile::tempdir().unwrap();
    let names = ["bellhop.db", "bellhop.db-wal"];
    let [file, log] = names.map(|name| made.path().join(name));
    let connection = Connection::open(&file).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = wal; BEGIN; CREATE TABLE a (b); COMMIT;")
        .unwrap();
    let (file, log) = (fs::read(file).unwrap(), fs::read(log).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let [at, log_at] = names.map(|name| dir.path().join(name));
    // Not even the page with the header: the log was synced, and the file has vanished.
    fs::write(&at, b"").unwrap();
    fs::write(&log_at, &log).unwrap();
    let error = open(dir.path()).err().unwrap().to_string();
    assert!(
        error.contains("its write-ahead log holds commits"),
        "{error}"
    );
    assert_eq!(fs::read(&log_at).unwrap(), log);

    fs::write(&at, &file).unwrap();
    fs::write(&log_at, &log[..log.len() - 100]).unwrap();
    let engine = open(dir.path()).unwrap();
    let now = SystemClock::new().now();
    engine
        .accept(notification(&booking("a"), 1, now))
        .await
        .unwrap();
    engine.close().await.unwrap();
}

/// A header that says "store" over a schema that says "nothing" is not a new store.
#[tokio::test]
async fn a_store_without_its_schema_is_not_taken_for_a_new_one() {
    for at in [104, 63] {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().close().await.unwrap();
        let file = dir.path().join("bellhop.db");
        let mut bytes = fs::read(&file).unwrap();
        bytes[at] = 0;
        fs::write(&file, &bytes).unwrap();
        let error = open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("is damaged"), "byte {at}: {error}");
    }
}
