//! Filling a store, through the front door of the engine: each row is accepted, claimed and
//! settled as any other, only without HTTP and with the times of a week that has passed.
//!
//! Owns: how the rows lie in time (evenly over six days, the last 300,000 of them within the last
//! hour, so that the ledger is as full as it gets). Never here: a row that the engine did not write.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::{Clock, SystemClock, Ticks, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{
    Accepted, ChangeKind, MarkAfter, MarkClass, NewEvent, Notification, Outcome, Settled,
    Settlement, State,
};
use futures_util::{StreamExt, TryStreamExt};

use crate::arguments::Arguments;
use crate::load::rate_ids;
use crate::provider::document;
use crate::roles::text;

/// Entities that are marked at once.
const CHUNK: u64 = 20_000;
/// Calls that share commits.
const AT_ONCE: usize = 1000;
/// Rows within the last hour.
const RECENT: u64 = 300_000;
const DAYS: i64 = 6;

/// Time as the rows tell it.
struct PastClock {
    now: AtomicI64,
    real: SystemClock,
}

#[async_trait::async_trait]
impl Clock for PastClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now.load(Ordering::Relaxed))
    }

    fn ticks(&self) -> Ticks {
        self.real.ticks()
    }

    async fn sleep(&self, duration: Duration) {
        self.real.sleep(duration).await;
    }
}

/// Where each row lies in time.
struct Times {
    end: i64,
    rows: u64,
}

impl Times {
    fn of(&self, row: u64) -> i64 {
        let recent = RECENT.min(self.rows);
        let early = self.rows - recent;
        let hour = 3_600_000;
        let share = |row: u64, of: u64, span: i64| (row as f64 / of as f64 * span as f64) as i64;
        if row < early {
            self.end - DAYS * 24 * hour + share(row, early, (DAYS * 24 - 1) * hour)
        } else {
            self.end - hour + share(row - early, recent, hour)
        }
    }
}

/// The key of rate number `index`.
fn key(index: u64) -> Result<EntityKey, String> {
    let [supplier, product, rate] = rate_ids(index);
    format!("rate/{supplier}/{product}/{rate}")
        .parse()
        .map_err(|_| "no key".to_owned())
}

/// Fills the store in `store` with `entities` published entities and `rows` journal rows.
pub async fn run(arguments: &Arguments) -> Result<(), String> {
    let store: PathBuf = arguments.need("store")?;
    let (entities, rows): (u64, u64) = (arguments.need("entities")?, arguments.need("rows")?);
    let real = SystemClock::new();
    let times = Times {
        end: real.now().0,
        rows,
    };
    let clock = Arc::new(PastClock {
        now: AtomicI64::new(times.of(0)),
        real,
    });
    let options = Options {
        size_bytes: arguments.need("size")?,
        min_interval: Duration::ZERO,
        ..Options::default()
    };
    let engine = Engine::open(&store, options, clock.clone(), &Metrics::new()).map_err(text)?;
    let started = Instant::now();
    let mut told = Instant::now();
    let mut row = 0;
    for first in (0..entities).step_by(CHUNK as usize) {
        let chunk = first..(first + CHUNK).min(entities);
        let until = (u128::from(rows) * u128::from(chunk.end) / u128::from(entities)) as u64;
        accept(&engine, &clock, &times, chunk, row..until).await?;
        row = until;
        settle(&engine, &clock).await?;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!(
                "{row} of {rows} rows after {} s",
                started.elapsed().as_secs()
            );
        }
    }
    engine.close().await.map_err(text)?;
    println!("filled");
    Ok(())
}

async fn accept(
    engine: &Engine,
    clock: &PastClock,
    times: &Times,
    chunk: std::ops::Range<u64>,
    rows: std::ops::Range<u64>,
) -> Result<(), String> {
    let (first, entities) = (chunk.start, chunk.end - chunk.start);
    futures_util::stream::iter(rows.map(Ok))
        .try_for_each_concurrent(AT_ONCE, |row| async move {
            let time = times.of(row);
            clock.now.fetch_max(time, Ordering::Relaxed);
            let mut sum = row.to_be_bytes().repeat(4);
            // As spread as a digest is.
            fastrand::Rng::with_seed(row).fill(&mut sum[8..]);
            let accepted = engine
                .accept(Notification {
                    rule: NotificationType::Rate,
                    key: Some(key(first + row % entities)?),
                    removed: false,
                    sum,
                    timestamp: UnixMillis(time / 1000 * 1000),
                    received: UnixMillis(time),
                    body: bytes::Bytes::new(),
                    traceparent: None,
                })
                .await
                .map_err(text)?;
            match accepted {
                Accepted::Marked => Ok(()),
                other => Err(format!("a row was not marked but {other:?}")),
            }
        })
        .await
}

/// Publishes every entity that is marked.
async fn settle(engine: &Engine, clock: &PastClock) -> Result<(), String> {
    let one = |_| async move {
        while let Some(claim) = engine.claim(MarkClass::Notification).await.map_err(text)? {
            let ids: Vec<&str> = claim.key.as_str().split('/').collect();
            let [_, _, product, rate] = ids[..] else {
                return Err("a key that is no rate's".to_owned());
            };
            let event = NewEvent {
                change: ChangeKind::Created,
                data: Some(document(product, rate, 1).into_bytes()),
                attributes: bellhop::state::EventAttributes::default(),
            };
            let settlement = Settlement {
                outcome: Outcome::Changed,
                fetched: clock.now(),
                started: clock.ticks(),
                confirms: true,
                event: Some(event),
                memo: None,
                mark: MarkAfter::Clear,
                children: Vec::new(),
                dead_letter: None,
                forget_after: None,
                forget: false,
            };
            match engine.settle(&claim, settlement).await.map_err(text)? {
                Settled::Committed(Some(_)) => {}
                other => return Err(format!("an entity was not published: {other:?}")),
            }
        }
        Ok(())
    };
    let workers = futures_util::stream::iter(0..AT_ONCE).map(one);
    workers.buffer_unordered(AT_ONCE).try_collect::<()>().await
}
