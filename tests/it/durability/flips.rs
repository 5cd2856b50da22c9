//! Bytes that were synced and changed afterwards: a bad sector, a cosmic ray, a broken copy.
//!
//! A store is filled with something of everything, once closed cleanly and once as it lies on the
//! disk while its process lives, write-ahead log and all. Then one byte is changed, the store is
//! opened, and everything is read through the public surface.
//!
//! Oracle: the undamaged store, read in the same way. Either somebody is told, clearly, or all is
//! the same (the byte meant nothing): never other data, never less, never a panic.
//!
//! `BELLHOP_FLIPS` sets the number of bytes (default 700, and 500 where nothing is checked first).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, OpenError, Options};
use bellhop::state::{
    Claim, MarkAfter, MarkClass, NewMark, Outcome, Parked, Settlement, SinkCommit, State,
    StateError,
};

use super::scratch;
use crate::state::{ManualClock, booking, notification, publish, remove, unchanged};

const PAGE: usize = 4096;
/// Header and frame header of a write-ahead log.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// No call takes this long.
const HANG: Duration = Duration::from_mins(1);

type Files = BTreeMap<&'static str, Vec<u8>>;

const DATABASE: &str = "bellhop.db";
const LOG: &str = "bellhop.db-wal";

#[tokio::test]
async fn a_changed_byte_is_noticed_or_means_nothing() {
    let refused = flip(Options::default().full_check_bytes, 700).await;
    assert!(refused > 0.25, "{refused} were refused at the start");
}

/// Of a store that is too large to be checked first, what is read is checked.
#[tokio::test]
async fn so_it_is_where_nothing_is_checked_first() {
    flip(0, 500).await;
}

/// Changes so many bytes, one at a time, and compares; gives the share that was refused at the start.
async fn flip(full_check_bytes: u64, flips: u64) -> f64 {
    let read = async |folder: &tempfile::TempDir| read_all(folder, full_check_bytes).await;
    let seed = super::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let flips = super::number("BELLHOP_FLIPS").unwrap_or(flips);
    let (live, closed) = stores().await;
    assert!(live[LOG].len() > 20 * PAGE, "the log holds something");
    assert!(
        used_bytes(&closed[DATABASE]) > 20 * PAGE,
        "the file holds something"
    );
    let mut noticed = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, store, file) in [
        ("closed", &closed, DATABASE),
        ("live", &live, LOG),
        ("live", &live, DATABASE),
    ] {
        let truth = read(&lay(store)).await.expect("undamaged");
        assert!(truth.is_full(), "{truth:?}");
        let share = if file == LOG || name == "closed" {
            flips * 2 / 5
        } else {
            flips / 5
        };
        for _ in 0..share {
            let at = position(&store[file], file, &mut random);
            let mut damaged = store.clone();
            let byte = &mut damaged.get_mut(file).unwrap()[at];
            let before = *byte;
            *byte = match random.u8(..4) {
                0 => random.u8(..),
                1 => 0,
                _ => before ^ (1 << random.u8(..8)),
            };
            if *byte == before {
                continue;
            }
            let what = format!("{name} {file}, byte {at}: {before:#04x} became {byte:#04x}");
            let verdict = tokio::time::timeout(HANG, read(&lay(&damaged))).await;
            let told = match verdict {
                Err(_) => "hangs",
                Ok(Ok(found)) if found == truth => "means nothing",
                Ok(Ok(found)) => {
                    wrong.push(format!("{what}: {}", found.difference(&truth)));
                    continue;
                }
                Ok(Err(told)) => told.class(),
            };
            if told.starts_with("unclear") || told == "hangs" {
                wrong.push(format!("{what}: {told}"));
            }
            *noticed.entry((name, file, told)).or_insert(0) += 1;
        }
    }
    println!("{noticed:#?}");
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    let refused = noticed
        .iter()
        .filter(|((.., told), _)| *told == "refused as damaged");
    refused.map(|(_, count)| f64::from(*count)).sum::<f64>() / flips as f64
}

/// How somebody is told.
#[derive(Debug)]
enum Told {
    Open(OpenError),
    Read(StateError),
}

impl From<StateError> for Told {
    fn from(error: StateError) -> Self {
        Self::Read(error)
    }
}

impl Told {
    /// Bytes of the header that name the version and the program cannot be told from a file that
    /// is really newer or somebody else's: both are refused and left alone.
    fn class(&self) -> &'static str {
        match self {
            Self::Open(OpenError::Damaged { .. }) => "refused as damaged",
            Self::Open(OpenError::Newer { .. }) => "refused as newer",
            Self::Open(OpenError::Foreign { .. }) => "refused as foreign",
            Self::Open(other) => format!("unclear at open: {other}").leak(),
            Self::Read(StateError::Failed(why)) if !why.contains("closed") => "failed at a read",
            Self::Read(other) => format!("unclear at a read: {other}").leak(),
        }
    }
}

/// Half of the time a byte that steers: a header of file, page, log or frame. Seldom one of the
/// space that the database file was given in advance.
fn position(content: &[u8], file: &str, random: &mut fastrand::Rng) -> usize {
    let (begin, unit, head) = if file == LOG {
        (LOG_HEADER, FRAME_HEADER + PAGE, FRAME_HEADER)
    } else {
        (0, PAGE, 24)
    };
    let used = if file == LOG {
        content.len()
    } else {
        used_bytes(content)
    };
    match random.u8(..16) {
        0 => random.usize(..content.len()),
        1 | 2 => random.usize(..if file == LOG { LOG_HEADER } else { 124 }),
        3..9 => {
            let page = random.usize(..(used - begin) / unit);
            begin + page * unit + random.usize(..head)
        }
        _ => random.usize(..used),
    }
}

/// Bytes of the pages that a database file says it has ("Database File Format" of SQLite, 1.3.7).
fn used_bytes(database: &[u8]) -> usize {
    let pages = u32::from_be_bytes(database[28..32].try_into().unwrap());
    pages as usize * PAGE
}

fn options(full_check_bytes: u64) -> Options {
    Options {
        full_check_bytes,
        min_interval: Duration::ZERO,
        ..Options::default()
    }
}

fn open(folder: &Path, full_check_bytes: u64) -> Result<(Engine, Arc<ManualClock>), OpenError> {
    let clock = ManualClock::new();
    let dynamic = Arc::clone(&clock) as Arc<dyn Clock>;
    Ok((
        Engine::open(folder, options(full_check_bytes), dynamic, &Metrics::new())?,
        clock,
    ))
}

fn lay(files: &Files) -> tempfile::TempDir {
    let folder = scratch();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn take(folder: &Path) -> Files {
    let read = |name| (name, fs::read(folder.join(name)).unwrap_or_default());
    [DATABASE, LOG].map(read).into()
}

/// A store with something of everything: while its process lives, and after it closed it.
async fn stores() -> (Files, Files) {
    let folder = tempfile::tempdir().unwrap();
    let (engine, clock) = open(folder.path(), Options::default().full_check_bytes).unwrap();
    fill(&engine, &clock).await;
    closed_stretch(&engine, &folder.path().join(LOG)).await;
    let live = take(folder.path());
    engine.close().await.unwrap();
    (live, take(folder.path()))
}

/// Waits for the commit that says nothing, with which the engine closes a busy stretch: before it,
/// damage to the last commit cannot be told from a torn end. It is seen, not waited for by time: on
/// a busy disk it comes late.
async fn closed_stretch(engine: &Engine, log: &Path) {
    for _ in 0..10 {
        // Something for it to close.
        engine.put_fact("small", Some(vec![3; 8])).await.unwrap();
        let before = fs::read(log).unwrap();
        let mut last = before.clone();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = fs::read(log).unwrap();
            // Twice the same: it is not being written just now.
            if now != before && now == last {
                return;
            }
            last = now;
        }
    }
    panic!("no closing commit follows");
}

async fn fill(engine: &Engine, clock: &ManualClock) {
    let mut number = 0;
    let accept = async |id: &str, number: &mut u64| {
        *number += 1;
        clock.advance(Duration::from_secs(1));
        let one = notification(&booking(id), *number, clock.now());
        engine.accept(one).await.unwrap();
    };
    for round in 0..3 {
        for id in 0..20 {
            accept(&id.to_string(), &mut number).await;
        }
        for id in 0..20_usize {
            let claim = engine
                .claim(MarkClass::Notification)
                .await
                .unwrap()
                .unwrap();
            let body = format!("{{\"round\":{round},\"pad\":\"{}\"}}", "x".repeat(id * 450));
            let settlement = match (round, id) {
                (2, 3) => remove(clock),
                (2, 4) => Settlement {
                    outcome: Outcome::DeadLetter,
                    dead_letter: Some("the provider refuses".to_owned()),
                    ..unchanged(clock)
                },
                (2, 5) => unchanged(clock),
                (2, 6) => Settlement {
                    outcome: Outcome::Failed,
                    mark: MarkAfter::Again(Duration::ZERO),
                    ..unchanged(clock)
                },
                _ => Settlement {
                    memo: Some(vec![round, 7, 9]),
                    ..publish(clock, &body)
                },
            };
            engine.settle(&claim, settlement).await.unwrap();
        }
    }
    for id in 0..5 {
        accept(&format!("waiting-{id}"), &mut number).await;
    }
    let mark = |id: &str| NewMark {
        key: booking(id),
        class: MarkClass::Resync,
        noticed: None,
        urgent: false,
    };
    engine
        .mark(vec![mark("listed"), mark("named")])
        .await
        .unwrap();
    for n in 0..3 {
        let mut unknown = notification(&booking("x"), 1000 + n, clock.now());
        unknown.key = None;
        unknown.body = vec![b'u'; 300].into();
        engine.accept(unknown).await.unwrap();
    }
    let parked = |sequence| Parked {
        sequence,
        key: booking("2"),
        attempts: 2,
    };
    let commit = SinkCommit {
        cursor: 40,
        park: vec![parked(12), parked(13), parked(14)],
        bury: vec![(parked(11), "the sink refuses".to_owned())],
        ..SinkCommit::default()
    };
    engine.commit_sink("orders", commit).await.unwrap();
    for (name, size) in [("small", 8), ("large", 9000)] {
        engine.put_fact(name, Some(vec![3; size])).await.unwrap();
    }
}

/// All that a store says. Texts, so that a difference can be shown.
#[derive(Debug, PartialEq)]
struct All(BTreeMap<&'static str, Vec<String>>);

impl All {
    fn is_full(&self) -> bool {
        self.0.values().all(|lines| !lines.is_empty())
    }

    fn difference(&self, truth: &Self) -> String {
        let mut names = truth
            .0
            .iter()
            .filter(|(name, lines)| self.0[*name] != **lines);
        let (name, lines) = names.next().unwrap();
        let short = |lines: &[String]| format!("{} lines", lines.len());
        format!(
            "other {name}: {} instead of {}",
            short(&self.0[name]),
            short(lines)
        )
    }
}

fn lines<T: std::fmt::Debug>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| format!("{item:?}")).collect()
}

/// Opens the store and reads everything.
async fn read_all(folder: &tempfile::TempDir, full_check_bytes: u64) -> Result<All, Told> {
    let (engine, clock) = open(folder.path(), full_check_bytes).map_err(Told::Open)?;
    clock.advance(Duration::from_hours(1));
    engine.verify().await?;
    let mut all = BTreeMap::new();
    let stats = engine.stats();
    all.insert("epoch", vec![engine.epoch().0.clone()]);
    all.insert(
        "counters",
        lines([
            stats.marks,
            stats.resync_marks,
            stats.live_entities,
            stats.head,
            stats.journal,
        ]),
    );
    all.insert("dead letter counters", lines(stats.dead_letters));
    let events = engine.events(0, 10_000, usize::MAX).await?;
    all.insert("events", lines(events.expect("nothing is expired")));
    all.insert("list", lines(engine.list(None, None, 1000).await?.items));
    let mut entities = Vec::new();
    for id in 0..20 {
        entities.push(engine.entity(&booking(&id.to_string())).await?);
    }
    all.insert("entities", lines(entities));
    all.insert("dead letters", lines(engine.dead_letters(0, 1000).await?));
    let sink = engine.sink("orders").await?;
    all.insert("sink", lines([sink]));
    let mut facts = Vec::new();
    for name in ["small", "large", "none"] {
        facts.push(engine.fact(name).await?);
    }
    all.insert("facts", lines(facts));
    all.insert("oldest", lines([engine.oldest().await?]));
    let mut marks = Vec::new();
    while let Some(claim) = engine.claim(MarkClass::Notification).await? {
        // Its number is of this life.
        marks.push(Claim { id: 0, ..claim });
    }
    marks.sort_by(|one, other| one.key.cmp(&other.key));
    all.insert("marks", lines(marks));
    engine.close().await?;
    Ok(All(all))
}
