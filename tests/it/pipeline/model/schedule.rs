//! One schedule: a world made from a seed, run until all is quiet, and compared with the truth.
//!
//! Owns: the processes that come and go, what it means that all is quiet, and the verdict. The resync is off, or asked for nothing that a notification
//! would not have told.
//!
//! Never here: an assumption about which of Bellhop's ways led to the state of a consumer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bellhop::api::NotificationType as Kind;
use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::pipeline::deliver::{Deliverer, DeliveryMetrics};
use bellhop::pipeline::{Pipeline, PipelineSettings};
use bellhop::settings::{BackoffPolicy, DeliverySettings, FetchSettings, SinkSettings};
use bellhop::state::embedded::{Options, Store};
use bellhop::state::{Epoch, State};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::consumer::{Consumer, Mood, RETRY, Shop, Watcher};
use super::disk::Disk;
use super::plan::Plan;
use super::provider::Provider;
use super::sim::{Owner, Sim};
use super::truth::Truth;

/// After the faults end, all must be quiet within this time.
const QUIET_MS: u64 = 6 * 3_600_000;
/// Reads for each reason to read: a provider that fails is asked again and again, but not without
/// bound.
const MOST_READS: u64 = 12;
/// More polls than this are a task that turns in circles.
const MOST_POLLS: u64 = 3_000_000;

/// What a schedule came to.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub failure: Option<String>,
    pub hash: u64,
    pub trace: Vec<String>,
    pub reads: u64,
    pub notifications: u64,
    pub crashes: u64,
}

pub struct World {
    pub sim: Arc<Sim>,
    pub plan: Plan,
    pub provider: Arc<Provider>,
    watcher: Watcher,
    shops: Vec<(Arc<Consumer>, Mood)>,
    disk: Mutex<Option<Arc<Disk>>>,
    epoch: OnceLock<Epoch>,
    pub senders: AtomicU64,
    pub notifications: AtomicU64,
    pub driving: AtomicU64,
    /// The writes at the last look at the sinks' places, which cost reads.
    looked: AtomicU64,
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, record: bool) -> Report {
    // What the code under test draws from the thread's own generator is part of the schedule.
    fastrand::seed(seed);
    let sim = Sim::new(seed, record);
    let plan = Plan::draw(&sim).settled();
    sim.note(0, || format!("{plan:?}"));
    let provider = Provider::new(&sim, plan.temper.clone());
    let shops = plan
        .moods
        .iter()
        .zip(["orders", "stock"])
        .map(|(mood, name)| (Consumer::new(name, false, &sim, &provider), mood.clone()))
        .collect();
    let world = Arc::new(World {
        watcher: Watcher::new(Consumer::new("feed", true, &sim, &provider)),
        sim: sim.clone(),
        plan,
        provider,
        shops,
        disk: Mutex::new(None),
        epoch: OnceLock::new(),
        senders: AtomicU64::new(0),
        notifications: AtomicU64::new(0),
        driving: AtomicU64::new(1),
        looked: AtomicU64::new(0),
    });
    let lived = catch_unwind(AssertUnwindSafe(|| live(&world)));
    let crashes = lived.unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        sim.fail(format!("a panic: {}", words.unwrap_or("without words")));
        0
    });
    sim.end();
    Report {
        seed,
        failure: sim.failure(),
        hash: sim.hash(),
        trace: sim.take_trace(),
        reads: world.provider.reads(),
        notifications: world.notifications.load(Ordering::Relaxed),
        crashes,
    }
}

/// Until all is quiet, or something is wrong. Gives the number of crashes.
fn live(world: &Arc<World>) -> u64 {
    let sim = &world.sim;
    sim.pause_beyond_leases(world.plan.long_pauses, world.plan.lease_ms);
    for _ in 0..world.plan.crash_writes {
        sim.crash_at_write(1 + sim.below(250));
    }
    let mut store = Some(Connection::open_in_memory().unwrap());
    let mut restart_at = 0;
    let mut crashes = 0;
    let end = world.plan.calm_at + QUIET_MS;
    let driver = world.clone();
    sim.spawn(Owner::World, async move { driver.drive().await });
    loop {
        if sim.failure().is_some() {
            return crashes;
        }
        if sim.polls() > MOST_POLLS {
            sim.fail("it turns in circles: too many polls".into());
            return crashes;
        }
        let now = sim.ticks().0;
        if sim.take_crash()
            && let Some(disk) = world.disk.lock().unwrap().take()
        {
            sim.kill_process();
            store = Some(disk.lose_memory());
            crashes += 1;
            restart_at = now + 100 + sim.below(if sim.percent(20) { 90_000 } else { 3_000 });
            sim.note(6, || "the process is down".into());
        }
        if now >= restart_at
            && let Some(connection) = store.take()
        {
            world.clone().start(connection);
        }
        if sim.poll_one() {
            continue;
        }
        if world.is_quiet() {
            break;
        }
        let limit = if store.is_some() { restart_at } else { end };
        if !sim.pass_time(limit.min(end)) && sim.ticks().0 >= end {
            sim.fail(world.unrest());
            return crashes;
        }
    }
    let (reads, asked) = (world.provider.reads(), world.reasons());
    if reads > asked * MOST_READS {
        sim.fail(format!("{reads} reads for {asked} reasons to read"));
    }
    world.compare_list();
    world.watcher.consumer.compare();
    for (shop, _) in &world.shops {
        shop.compare();
    }
    crashes
}

impl World {
    pub fn disk(&self) -> Option<Arc<Disk>> {
        self.disk.lock().unwrap().clone()
    }

    /// A new process on what was left.
    fn start(self: Arc<Self>, connection: Connection) {
        let sim = &self.sim;
        sim.note(7, || "a process starts".into());
        let options = Options {
            retain_events: Duration::from_secs(if self.plan.retains { 120 } else { 604_800 }),
            max_backlog: self.plan.backlog,
            lease: Duration::from_millis(self.plan.lease_ms),
            ..Options::default()
        };
        let disk = Disk::open(sim, connection, options, self.plan.busy);
        let epoch = self.epoch.get_or_init(|| disk.epoch().clone());
        if epoch != disk.epoch() {
            sim.fail("the epoch changed with a restart".into());
        }
        *self.disk.lock().unwrap() = Some(disk.clone());
        let metrics = Metrics::new();
        let settings = PipelineSettings {
            fetch: FetchSettings {
                requests_per_second: 10,
                min_interval: Duration::from_secs(1),
                availability_horizon_days: 90,
                resync_interval: Duration::from_hours(100_000),
                removal_confirmation: Duration::from_secs(30),
                removal_guard_percent: self.plan.guard,
            },
            subscribed: Kind::ALL.to_vec(),
            retain_bookings: Duration::from_hours(720),
        };
        let pipeline = Arc::new(Pipeline::new(
            settings,
            disk.clone(),
            self.provider.clone(),
            sim.clone(),
            sim.seed(),
            &metrics,
        ));
        for _ in 0..self.plan.workers {
            let (pipeline, sim) = (pipeline.clone(), sim.clone());
            self.sim.spawn(Owner::Process, async move {
                let ended = pipeline.work().await;
                sim.fail(format!("a worker ended: {ended:?}"));
            });
        }
        if self.plan.resync {
            let (pipeline, sim) = (pipeline.clone(), sim.clone());
            self.sim.spawn(Owner::Process, async move {
                let ended = pipeline.resync().await;
                sim.fail(format!("the resync loop ended: {ended:?}"));
            });
        }
        let delivery = DeliveryMetrics::new(&metrics);
        for (consumer, mood) in &self.shops {
            let shop = Arc::new(Shop {
                consumer: consumer.clone(),
                mood: mood.clone(),
                epoch: disk.epoch().clone(),
            });
            let settings = sink_settings(&consumer.name);
            let deliverer = Deliverer::new(&settings, disk.clone(), sim.clone(), shop, &delivery);
            let sim = sim.clone();
            self.sim.spawn(Owner::Process, async move {
                let ended = deliverer.run(CancellationToken::new()).await;
                sim.fail(format!("a deliverer ended: {ended:?}"));
            });
        }
        let world = self.clone();
        self.sim.spawn(Owner::Process, async move {
            world.watcher.watch(&disk).await;
        });
        if self.plan.retains {
            let world = self.clone();
            self.sim
                .spawn(Owner::Process, async move { world.retain().await });
        }
    }

    /// What the engine's writer does between batches.
    async fn retain(&self) {
        loop {
            self.sim.sleep_ms(20_000).await;
            if let Some(disk) = self.disk() {
                let (now, ticks) = (self.sim.now(), self.sim.ticks());
                disk.with(|store| store.retain(now, ticks));
            }
        }
    }

    /// What is still to be done; for the words of a failure.
    fn unrest(&self) -> String {
        let stats = self.disk().map(|disk| disk.stats());
        format!("it never came to rest: {stats:?}")
    }

    /// Nothing is on its way any more, and nothing is left to do.
    fn is_quiet(&self) -> bool {
        if self.driving.load(Ordering::Relaxed) > 0 || self.senders.load(Ordering::Relaxed) > 0 {
            return false;
        }
        let Some(disk) = self.disk() else {
            return false;
        };
        let stats = disk.stats();
        let delivered = || {
            self.shops.iter().all(|(shop, _)| {
                disk.with(|store: &mut Store| store.reader().sink(&shop.name))
                    .and_then(Result::ok)
                    .is_some_and(|at| at.cursor == stats.head && at.parked.is_empty())
            })
        };
        stats.marks == 0
            && stats.claims == 0
            && stats.dead_letters == [0; 3]
            && self.watcher.cursor() == stats.head
            && self.looked.swap(self.sim.writes(), Ordering::Relaxed) != self.sim.writes()
            && delivered()
    }

    /// How often something could have made a read necessary: each state and each notification.
    fn reasons(&self) -> u64 {
        let entities = |truth: &mut Truth| truth.entities.values().map(|e| e.versions.len()).sum();
        let states: usize = self.truth(entities);
        states as u64 + self.notifications.load(Ordering::Relaxed) + 5
    }

    /// Whoever lists now has what the provider has.
    fn compare_list(&self) {
        let Some(disk) = self.disk() else { return };
        let newcomer = Consumer::new("newcomer", true, &self.sim, &self.provider);
        let origin = super::consumer::origin(disk.epoch());
        let page = disk.with(|store| store.reader().list(None, None, 10_000));
        for event in page
            .and_then(Result::ok)
            .expect("nothing fails any more")
            .items
        {
            newcomer.take(&origin.structured(&event));
        }
        newcomer.compare();
    }

    pub fn truth<T>(&self, look: impl FnOnce(&mut Truth) -> T) -> T {
        self.provider.truth(look)
    }
}

fn sink_settings(name: &str) -> SinkSettings {
    SinkSettings {
        name: name.into(),
        types: Vec::new(),
        uri: String::new(),
        headers_dir: None,
        ca_file: None,
        delivery: DeliverySettings {
            retry: RETRY,
            backoff_policy: BackoffPolicy::Exponential,
            backoff_delay: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
        },
    }
}
