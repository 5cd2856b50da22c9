//! When the full comparison runs, that it goes on where it was, and its share of the budget.
//!
//! Oracle: the provider of this test, which notes each read that it gets, and the hours of its clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::clock::{Clock, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::pipeline::{Pipeline, PipelineSettings};
use bellhop::provider::{Answer, Document, ListItem, Read, ReadError, Reads};
use bellhop::settings::FetchSettings;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{MarkClass, NewMark, State};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use crate::state::{ManualClock, notification};

const HOUR: Duration = Duration::from_hours(1);
const SECOND: Duration = Duration::from_secs(1);
/// A step of time where hours pass and nothing is expected.
const LONG: Duration = Duration::from_mins(5);

fn raw(id: &str) -> Box<RawValue> {
    RawValue::from_string(format!(r#"{{"id":"{id}","version":1}}"#)).unwrap()
}

/// Three suppliers, each with a product.
struct Provider {
    clock: Arc<ManualClock>,
    /// All reads, as text.
    log: Mutex<Vec<String>>,
    /// When the first of each was asked for.
    first: Mutex<BTreeMap<String, UnixMillis>>,
    /// The list of this supplier's products never comes.
    hangs: Mutex<Option<String>>,
}

impl Provider {
    fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            clock,
            log: Mutex::default(),
            first: Mutex::default(),
            hangs: Mutex::default(),
        }
    }

    fn asked(&self, what: &str) -> Option<UnixMillis> {
        self.first.lock().unwrap().get(what).copied()
    }

    fn note(&self, what: &str) {
        self.log.lock().unwrap().push(what.to_owned());
        let mut first = self.first.lock().unwrap();
        first
            .entry(what.to_owned())
            .or_insert_with(|| self.clock.now());
    }

    fn reads(&self, what: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|one| *one == what).count()
    }

    fn items(ids: &[&str]) -> Answer {
        let item = |id: &&str| ListItem {
            id: (*id).to_owned(),
            data: raw(id),
        };
        Answer::Many(ids.iter().map(item).collect())
    }
}

#[async_trait]
impl Reads for Provider {
    async fn read(&self, read: &Read) -> Result<Answer, ReadError> {
        let what = match read {
            Read::Suppliers => "suppliers".to_owned(),
            Read::Products { supplier } => format!("products of {supplier}"),
            Read::Supplier { supplier } => supplier.clone(),
            Read::Product { supplier, product } => format!("{supplier}/{product}"),
            other => panic!("{other:?}"),
        };
        self.note(&what);
        match read {
            Read::Suppliers => Ok(Self::items(&["a", "b", "c"])),
            Read::Products { supplier } => {
                let hangs = self.hangs.lock().unwrap().as_ref() == Some(supplier);
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(Self::items(&["p"]))
            }
            _ => Ok(Answer::One(Document {
                data: raw(&what),
                version: Some(1),
                retrieved: None,
                expires: None,
                empty: false,
            })),
        }
    }

    async fn reload_credentials(&self) -> bool {
        false
    }
}

/// A store that outlives the runs of a process, and its provider.
struct World {
    clock: Arc<ManualClock>,
    provider: Arc<Provider>,
    state: Arc<dyn State>,
    kinds: Vec<Kind>,
    _folder: tempfile::TempDir,
}

/// A run of the process; dropped, it ends as by kill -9.
struct Run(JoinSet<()>);

impl World {
    fn new(kinds: &[Kind]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new();
        let options = Options::default();
        let engine = Engine::open(folder.path(), options, clock.clone(), &Metrics::new()).unwrap();
        Self {
            provider: Arc::new(Provider::new(clock.clone())),
            clock,
            state: Arc::new(engine),
            kinds: kinds.to_vec(),
            _folder: folder,
        }
    }

    fn pipeline(&self, requests_per_second: u32) -> Arc<Pipeline> {
        let settings = PipelineSettings {
            fetch: FetchSettings {
                requests_per_second,
                min_interval: SECOND,
                availability_horizon_days: 30,
                resync_interval: 24 * HOUR,
                removal_confirmation: SECOND,
                removal_guard_percent: 100,
            },
            subscribed: self.kinds.clone(),
            retain_bookings: HOUR,
        };
        Arc::new(Pipeline::new(
            settings,
            self.state.clone(),
            self.provider.clone(),
            self.clock.clone(),
            fastrand::u64(..),
            &Metrics::new(),
        ))
    }

    fn start(&self) -> Run {
        let pipeline = self.pipeline(100);
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let pipeline = pipeline.clone();
            tasks.spawn(async move { pipeline.work().await.unwrap() });
        }
        tasks.spawn(async move { pipeline.resync().await.unwrap() });
        Run(tasks)
    }

    /// Time goes on in steps, with some real time for what it wakes up.
    async fn pass(&self, time: Duration, step: Duration) {
        self.pass_until(self.clock.now().after(time), step).await;
    }

    async fn pass_until(&self, end: UnixMillis, step: Duration) {
        while self.clock.now() < end {
            self.clock.advance(step);
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }

    /// The process notes that it is alive, every 20 s; then it is killed, without any time between.
    async fn kill(&self, run: Run) {
        self.clock.advance(20 * SECOND);
        tokio::time::sleep(Duration::from_millis(300)).await;
        run.kill().await;
    }

    /// Lets seconds go by until something holds.
    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..600 {
            if holds() {
                return;
            }
            self.pass(SECOND, SECOND).await;
        }
        panic!("never happened: {what}: {:?}", self.provider.log);
    }

    /// The list that each resync begins with was read so often.
    fn resyncs(&self) -> usize {
        self.provider.reads("suppliers")
    }
}

impl Run {
    async fn kill(mut self) {
        self.0.shutdown().await;
    }
}

/// A world in which the first resync is through, and nothing waits.
async fn settled() -> (World, Run) {
    let world = World::new(&[Kind::Supplier]);
    let run = world.start();
    let state = world.state.clone();
    let read = || world.provider.reads("c") > 0 && state.stats().marks == 0;
    world.until("the first resync is through", read).await;
    assert_eq!(world.resyncs(), 1);
    (world, run)
}

#[tokio::test]
async fn a_short_absence_needs_none_and_a_minute_does() {
    let (world, run) = settled().await;
    world.kill(run).await;
    world.clock.advance(30 * SECOND);
    let run = world.start();
    world.pass(200 * SECOND, SECOND).await;
    assert_eq!(world.resyncs(), 1, "half a minute is what retries are for");
    world.kill(run).await;
    world.clock.advance(61 * SECOND);
    let run = world.start();
    world
        .until("the resync after a minute", || world.resyncs() == 2)
        .await;
    run.kill().await;
}

/// The interval ends during an absence that is too short to call for one.
#[tokio::test]
async fn a_start_when_the_last_one_is_older_than_the_interval() {
    let (world, run) = settled().await;
    let began = world.provider.asked("suppliers").unwrap();
    world.pass_until(began.after(23 * HOUR), LONG).await;
    let end = began.after(24 * HOUR).before(40 * SECOND);
    world.pass_until(end, 5 * SECOND).await;
    assert_eq!(world.resyncs(), 1);
    world.kill(run).await;
    world.clock.advance(35 * SECOND);
    let run = world.start();
    let what = "the one that is due by the interval";
    world.until(what, || world.resyncs() == 2).await;
    run.kill().await;
}

#[tokio::test]
async fn one_in_each_interval() {
    let (world, run) = settled().await;
    for number in 2..=3 {
        let before = world.resyncs();
        world.pass(23 * HOUR, LONG).await;
        assert_eq!((before, world.resyncs()), (number - 1, number - 1));
        world.pass(HOUR, LONG).await;
        let what = "the next one, a day after the one before";
        world.until(what, || world.resyncs() == number).await;
    }
    run.kill().await;
}

/// Killed while the second list is on its way: the first is not read again, although the time that
/// it was down calls for another resync after this one.
#[tokio::test]
async fn an_interrupted_one_goes_on_where_it_was() {
    let world = World::new(&[Kind::Supplier, Kind::Product]);
    *world.provider.hangs.lock().unwrap() = Some("b".to_owned());
    let run = world.start();
    let begun = || world.provider.reads("products of b") == 1;
    world.until("the second list is asked for", begun).await;
    assert_eq!(world.provider.reads("products of a"), 1);
    run.kill().await;
    world.clock.advance(10 * SECOND);
    *world.provider.hangs.lock().unwrap() = None;
    let run = world.start();
    let ended = || world.provider.reads("products of c") == 1;
    world.until("the last list is read", ended).await;
    assert_eq!(world.provider.reads("products of a"), 1, "it went on");
    assert_eq!(world.provider.reads("products of b"), 2);
    let all = || world.provider.reads("c/p") > 0 && world.provider.reads("a/p") > 0;
    world.until("what the lists showed is read", all).await;
    run.kill().await;
}

/// Notifications without end, and a resync that waits for longer: of ten reads it gets one.
#[tokio::test]
async fn notifications_go_first_and_a_tenth_is_left_to_the_resync() {
    const EACH: usize = 300;
    let world = World::new(&[Kind::Supplier]);
    let key = |id: String| EntityKey::new(Kind::Supplier, &[id.as_str()]).unwrap();
    let marks = (0..EACH).map(|number| NewMark {
        key: key(format!("resync-{number}")),
        class: MarkClass::Resync,
        noticed: None,
        urgent: false,
    });
    world.state.mark(marks.collect()).await.unwrap();
    world.clock.advance(HOUR);
    for number in 0..EACH {
        let told = notification(
            &key(format!("told-{number}")),
            number as u64,
            world.clock.now(),
        );
        world.state.accept(told).await.unwrap();
    }
    let pipeline = world.pipeline(10);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { pipeline.work().await.unwrap() });
    let read = || world.provider.log.lock().unwrap().len();
    world.until("a hundred are read", || read() >= 100).await;
    tasks.shutdown().await;
    let log = world.provider.log.lock().unwrap();
    for (at, ten) in log[..100].chunks(10).enumerate() {
        let resync = ten.iter().filter(|one| one.starts_with("resync-"));
        assert_eq!(resync.count(), 1, "reads {at}0 to {at}9: {ten:?}");
    }
}
