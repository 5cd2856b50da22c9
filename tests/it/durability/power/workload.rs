//! What the recorded process does, and how it says what it asked for and what it was answered.
//!
//! Each note is one line of the file `answers` in the recorded folder: so notes stand in the same
//! record, and in the same order, as the engine's own writes. A question is noted before it is
//! asked, an answer after it came.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellhop::api::EntityKey;
use bellhop::clock::{Clock, SystemClock};
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{
    MarkAfter, MarkClass, NewMark, Outcome, Parked, Settled, Settlement, SinkCommit, State,
};
use serde::{Deserialize, Serialize};

use crate::state::{booking, notification, publish, unchanged};

/// The file of the notes.
pub const ANSWERS: &str = "answers";
/// Keys that notifications are about: few, so that claims, marks and settlements meet.
const KEYS: u64 = 40;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Note {
    Opened {
        epoch: String,
    },
    Accept {
        n: u64,
        key: String,
    },
    Accepted {
        n: u64,
    },
    /// A notification of unknown shape.
    Unknown {
        n: u64,
    },
    Buried {
        n: u64,
    },
    Claiming {
        c: u64,
    },
    Claimed {
        c: u64,
        key: String,
    },
    Settle {
        c: u64,
        step: Step,
    },
    Settled {
        c: u64,
        place: Option<(u64, u64)>,
    },
    Sink {
        j: u64,
    },
    SinkMoved {
        j: u64,
    },
    Fact {
        j: u64,
    },
    FactKept {
        j: u64,
    },
}

/// How a claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// An event with this much data; a child is marked with it.
    Publish {
        size: usize,
    },
    Unchanged,
    GiveUp,
    /// The mark stays.
    Again,
}

impl Step {
    pub fn clears(self) -> bool {
        self != Self::Again
    }

    pub fn publishes(self) -> bool {
        matches!(self, Self::Publish { .. })
    }
}

/// The data that claim `c` publishes.
pub fn data(c: u64, size: usize) -> String {
    let mut random = fastrand::Rng::with_seed(c);
    let pad: String = std::iter::repeat_with(|| random.alphanumeric())
        .take(size)
        .collect();
    format!("{{\"c\":{c},\"pad\":\"{pad}\"}}")
}

/// The entity that is marked with the settlement of claim `c`.
pub fn child(c: u64) -> EntityKey {
    booking(&format!("child-{c}"))
}

/// What a sink looks like after its step `j`.
pub fn parked(j: u64) -> Vec<Parked> {
    let sequence = j / 2 * 2;
    let one = Parked {
        sequence,
        key: booking("parked"),
        attempts: (j / 2) as u32,
    };
    if sequence == 0 { Vec::new() } else { vec![one] }
}

/// Everything that the tasks of one life share.
struct Life {
    engine: Engine,
    clock: SystemClock,
    answers: Mutex<File>,
    /// Numbers of notifications and claims: unlike those of any other life.
    number: AtomicU64,
    settled: AtomicU64,
    seed: u64,
}

impl Life {
    fn note(&self, note: &Note) {
        let line = serde_json::to_string(note).unwrap() + "\n";
        self.answers
            .lock()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }

    fn next(&self) -> u64 {
        self.number.fetch_add(1, Relaxed)
    }

    fn random(&self, salt: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed ^ (salt << 32))
    }

    async fn accept(&self, mut random: fastrand::Rng) {
        loop {
            let n = self.next();
            if random.u8(..25) == 0 {
                let mut unknown = notification(&booking("x"), n, self.clock.now());
                unknown.key = None;
                unknown.body = format!("{{\"n\":{n}}}").into();
                self.note(&Note::Unknown { n });
                self.engine.accept(unknown).await.unwrap();
                self.note(&Note::Buried { n });
            } else {
                let key = booking(&random.u64(..KEYS).to_string());
                let accept = notification(&key, n, self.clock.now());
                self.note(&Note::Accept {
                    n,
                    key: key.to_string(),
                });
                self.engine.accept(accept).await.unwrap();
                self.note(&Note::Accepted { n });
            }
            if random.u8(..4) == 0 {
                tokio::time::sleep(Duration::from_millis(random.u64(..8))).await;
            }
        }
    }

    async fn work(&self, mut random: fastrand::Rng) {
        loop {
            let c = self.next();
            self.note(&Note::Claiming { c });
            let Some(claim) = self.engine.claim(MarkClass::Notification).await.unwrap() else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            self.note(&Note::Claimed {
                c,
                key: claim.key.to_string(),
            });
            let step = match random.u8(..10) {
                0 => Step::Unchanged,
                1 => Step::GiveUp,
                2 => Step::Again,
                _ => Step::Publish {
                    size: random.usize(..6_000),
                },
            };
            self.note(&Note::Settle { c, step });
            let settlement = self.settlement(c, step);
            let Settled::Committed(place) = self.engine.settle(&claim, settlement).await.unwrap()
            else {
                panic!("claim {c} was taken over");
            };
            self.note(&Note::Settled { c, place });
            self.settled.fetch_add(1, Relaxed);
        }
    }

    fn settlement(&self, c: u64, step: Step) -> Settlement {
        let plain = unchanged(&self.clock);
        match step {
            Step::Publish { size } => Settlement {
                memo: Some(c.to_le_bytes().to_vec()),
                children: vec![NewMark {
                    key: child(c),
                    class: MarkClass::Resync,
                    noticed: None,
                    urgent: false,
                }],
                ..publish(&self.clock, &data(c, size))
            },
            Step::Unchanged => plain,
            Step::GiveUp => Settlement {
                outcome: Outcome::DeadLetter,
                dead_letter: Some(format!("gave up at {c}")),
                ..plain
            },
            Step::Again => Settlement {
                outcome: Outcome::Failed,
                confirms: false,
                mark: MarkAfter::Again(Duration::ZERO),
                ..plain
            },
        }
    }

    async fn move_sink_and_fact(&self) {
        let mut j = self.engine.sink("sink").await.unwrap().cursor;
        loop {
            j += 1;
            let (before, after) = (parked(j - 1), parked(j));
            let commit = SinkCommit {
                cursor: j,
                release: if before == after {
                    Vec::new()
                } else {
                    before.iter().map(|p| p.sequence).collect()
                },
                park: after,
                ..SinkCommit::default()
            };
            self.note(&Note::Sink { j });
            self.engine.commit_sink("sink", commit).await.unwrap();
            self.note(&Note::SinkMoved { j });
            self.note(&Note::Fact { j });
            let value = Some(j.to_le_bytes().to_vec());
            self.engine.put_fact("fact", value).await.unwrap();
            self.note(&Note::FactKept { j });
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    async fn until_settled(&self, count: u64) {
        while self.settled.load(Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One life on the store in `folder`: until `count` claims are settled, then a pause as long as
/// the engine needs to see that it is idle, then as many again. Ends in the middle of everything.
pub async fn live(folder: &Path, seed: u64, life: u64, count: u64) {
    let clock = SystemClock::new();
    let options = Options {
        // Small, so that checkpoints come often.
        size_bytes: 64 << 20,
        min_interval: Duration::ZERO,
        ..Options::default()
    };
    let engine = Engine::open(folder, options, Arc::new(clock.clone()), &Metrics::new()).unwrap();
    let answers = File::options()
        .append(true)
        .create(true)
        .open(folder.join(ANSWERS))
        .unwrap();
    let life = Arc::new(Life {
        engine,
        clock,
        answers: Mutex::new(answers),
        number: AtomicU64::new(life * 1_000_000 + 1),
        settled: AtomicU64::new(0),
        seed: seed ^ life,
    });
    life.note(&Note::Opened {
        epoch: life.engine.epoch().0.clone(),
    });
    for target in [count, 2 * count] {
        let mut tasks = tokio::task::JoinSet::new();
        for salt in 1..7 {
            let life = Arc::clone(&life);
            tasks.spawn(async move { life.accept(life.random(salt)).await });
        }
        for salt in 7..10 {
            let life = Arc::clone(&life);
            tasks.spawn(async move { life.work(life.random(salt)).await });
        }
        let other = Arc::clone(&life);
        tasks.spawn(async move { other.move_sink_and_fact().await });
        life.until_settled(target).await;
        if target == count {
            // Calls in flight are given up, not undone: their questions stand in the record.
            tasks.shutdown().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        } else {
            std::process::exit(0);
        }
    }
}
