//! One schedule: a world made from a seed, run until all is quiet, and compared with the truth.
//!
//! Owns: what changes at the provider and who is told of it, the processes that come and go, the
//! end of all faults, and the verdict. The resync is off, or asked for nothing that a notification
//! would not have told.
//!
//! Never here: an assumption about which of Bellhop's ways led to the state of a consumer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::{Clock, UnixMillis};
use bellhop::metrics::Metrics;
use bellhop::pipeline::deliver::{Deliverer, DeliveryMetrics};
use bellhop::pipeline::{Pipeline, PipelineSettings};
use bellhop::settings::{BackoffPolicy, DeliverySettings, FetchSettings, SinkSettings};
use bellhop::state::embedded::{Options, Store};
use bellhop::state::{Accepted, Epoch, Notification, State};
use rusqlite::Connection;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::consumer::{Consumer, Mood, Shop, Watcher};
use super::disk::Disk;
use super::provider::{Provider, Temper, rate_ids};
use super::sim::{Owner, Sim};
use super::truth::{self, Truth};

use NotificationType as Kind;

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

/// What the seed decides at the start.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a toss of its own, none depends on another"
)]
struct Plan {
    workers: u64,
    changes: u64,
    busy: u64,
    temper: Temper,
    moods: Vec<Mood>,
    long_pauses: u32,
    lease_ms: u64,
    crash_writes: u64,
    crashes: u64,
    clock_steps: bool,
    /// One of the provider's machines is an hour ahead.
    future_machine: bool,
    /// In percent of the deliveries: up to ten minutes late.
    late: u64,
    resync: bool,
    guard: u32,
    retains: bool,
    /// More bookings are removed at once than the removal guard lets through.
    purge: bool,
    backlog: usize,
    calm_at: u64,
}

impl Plan {
    fn draw(sim: &Sim) -> Self {
        let some = |most: u64| {
            if sim.percent(50) {
                sim.below(most + 1)
            } else {
                0
            }
        };
        let clock_steps = sim.percent(40);
        let mood = || Mood {
            not_well: some(30),
            fails: some(20),
            refuses: some(4),
            hangs: some(5),
            takes_silently: some(20),
            chokes: sim.percent(25),
        };
        Self {
            workers: 1 + sim.below(4),
            changes: 4 + sim.below(14),
            busy: some(60),
            temper: Temper {
                fails: some(30),
                stale: some(90),
                denies: some(25),
                empties: some(60),
                cache_ms: some(360_000),
                two_caches: sim.percent(30),
                fine_retrieved: sim.percent(50),
                slow: some(40),
                endless: some(40),
                skew_ms: sim.below(240_000) as i64 - 120_000,
            },
            moods: vec![mood(), mood()],
            long_pauses: if sim.percent(30) { 10 } else { 0 },
            lease_ms: if sim.percent(30) { 12_000 } else { 300_000 },
            crash_writes: sim.below(4),
            crashes: sim.below(3),
            clock_steps,
            future_machine: !clock_steps && sim.percent(40),
            late: some(30),
            resync: sim.percent(20),
            guard: if sim.percent(70) { 100 } else { 10 },
            retains: sim.percent(30),
            purge: sim.percent(3),
            backlog: if sim.percent(10) { 6 } else { 200_000 },
            calm_at: 20_000 + sim.below(400_000),
        }
    }

    /// Two caches tell their answers apart only by milliseconds.
    fn settled(mut self) -> Self {
        self.temper.fine_retrieved |= self.temper.two_caches;
        self
    }
}

struct World {
    sim: Arc<Sim>,
    plan: Plan,
    provider: Arc<Provider>,
    watcher: Watcher,
    shops: Vec<(Arc<Consumer>, Mood)>,
    disk: Mutex<Option<Arc<Disk>>>,
    epoch: OnceLock<Epoch>,
    senders: AtomicU64,
    notifications: AtomicU64,
    driving: AtomicU64,
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
        .map(|(mood, name)| (Consumer::new(name, &sim, &provider), mood.clone()))
        .collect();
    let world = Arc::new(World {
        watcher: Watcher::new(Consumer::new("feed", &sim, &provider)),
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
    fn disk(&self) -> Option<Arc<Disk>> {
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
        let newcomer = Consumer::new("newcomer", &self.sim, &self.provider);
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

    fn truth<T>(&self, look: impl FnOnce(&mut Truth) -> T) -> T {
        self.provider.truth(look)
    }

    /// What happens at the provider, until the faults end; then dead letters are replayed.
    async fn drive(self: Arc<Self>) {
        self.found().await;
        let gap = self.plan.calm_at / (self.plan.changes + 1);
        for _ in 0..self.plan.changes {
            self.sim.sleep_ms(self.sim.below(2 * gap)).await;
            self.hazard();
            self.something().await;
        }
        if self.plan.purge {
            self.purge().await;
        }
        let left = self.plan.calm_at.saturating_sub(self.sim.ticks().0);
        self.sim.sleep_ms(left).await;
        self.sim.note(8, || "the faults end".into());
        self.sim.calm();
        self.provider.refuse_until(0);
        self.driving.store(0, Ordering::Relaxed);
        loop {
            self.sim.sleep_ms(60_000).await;
            if let Some(disk) = self.disk() {
                tokio::select! {
                    biased;
                    () = replay_all(&disk) => {}
                    () = disk.died() => {}
                }
            }
        }
    }

    /// Something that is nobody's answer: clocks, credentials, crashes.
    fn hazard(&self) {
        let sim = &self.sim;
        let now = sim.ticks().0;
        if self.plan.clock_steps && sim.percent(40) {
            let by = [-3_600_000, -1_000, 1_000, 3_600_000][sim.below(4) as usize];
            let wall = sim.now().0 - super::sim::BASE.0 - now as i64;
            if (wall + by).abs() <= 3_700_000 {
                sim.note(9, || format!("our wall clock steps by {by} ms"));
                sim.step_wall(by);
            }
        }
        if sim.percent(8) {
            self.provider.refuse_until(now + 1_000 + sim.below(40_000));
        }
        if self.plan.crashes > 0 && sim.percent(20) {
            sim.note(10, || "CRASH".into());
            sim.crash();
        }
    }

    /// The catalogue that is there at the beginning.
    async fn found(self: &Arc<Self>) {
        for product in 0..=self.sim.below(2) {
            let product = format!("p{product}");
            self.add_product(&product);
            self.sim.pause().await;
        }
        for booking in 0..=self.sim.below(3) {
            let key = truth::key(Kind::Booking, &[&format!("b{booking}")]);
            self.update(&key);
            self.tell(&key, false);
        }
    }

    fn add_product(self: &Arc<Self>, product: &str) {
        let now = self.sim.ticks().0;
        let supplier = truth::key(Kind::Supplier, &["s"]);
        let binding = truth::key(Kind::ChannelBinding, &["s", product]);
        if !self.truth(|truth| truth.exists(&supplier)) {
            self.put(&supplier, now, Some(&binding), 0);
        }
        let key = truth::key(Kind::Product, &["s", product]);
        self.put(&key, now, Some(&binding), 0);
        let rates: Vec<String> = (0..=self.sim.below(3)).map(|n| format!("r{n}")).collect();
        for rate in &rates {
            self.add_rate(product, rate);
        }
        self.bind(product, &rates);
    }

    fn add_rate(&self, product: &str, rate: &str) {
        let now = self.sim.ticks().0;
        let ids = ["s", product, rate];
        let freesale = u64::from(self.sim.percent(25));
        let binding = truth::key(Kind::ChannelBinding, &ids[..2]);
        let with = Some(&binding);
        self.put(&truth::key(Kind::Rate, &ids), now, with, freesale);
        self.put(&truth::key(Kind::PriceSchedule, &ids), now, with, 0);
        if freesale == 0 {
            self.put(&truth::key(Kind::Availability, &ids), now, with, 0);
        }
    }

    fn remove_rate(&self, product: &str, rate: &str) {
        let ids = ["s", product, rate];
        for kind in [Kind::Rate, Kind::PriceSchedule, Kind::Availability] {
            let binding = truth::key(Kind::ChannelBinding, &ids[..2]);
            self.remove(&truth::key(kind, &ids), Some(&binding));
        }
    }

    /// Sets the rates of a product and tells of it.
    fn bind(self: &Arc<Self>, product: &str, rates: &[String]) {
        let key = truth::key(Kind::ChannelBinding, &["s", product]);
        let now = self.sim.ticks().0;
        let data = json!({"supplierID": "s", "productID": product, "rateIDs": rates});
        let data = (!rates.is_empty()).then_some(data);
        let removed = data.is_none();
        self.truth(|truth| truth.change(&key, now, None, false, |_, _| data));
        self.tell(&key, removed && self.sim.percent(60));
    }

    fn put(&self, key: &EntityKey, at: u64, with: Option<&EntityKey>, variant: u64) {
        let versioned = !matches!(key.kind(), Kind::PriceSchedule | Kind::Availability)
            && !key.as_str().len().is_multiple_of(4);
        self.truth(|truth| {
            truth.change(key, at, with, versioned, |number, version| {
                Some(truth::data(key, number, version, variant))
            })
        });
        self.sim.note(11, || format!("PROVIDER changes {key}"));
    }

    fn update(self: &Arc<Self>, key: &EntityKey) {
        let now = self.sim.ticks().0;
        let freesale = self.truth(|truth| {
            let newest = truth
                .get(key)
                .and_then(|entity| entity.newest().data.clone());
            newest.is_some_and(|data| data["type"] == "FREESALE")
        });
        let empty =
            matches!(key.kind(), Kind::Availability | Kind::PriceSchedule) && self.sim.percent(15);
        let turns = key.kind() == Kind::Rate && self.sim.percent(25);
        if self.sim.percent(4) {
            self.truth(|truth| {
                if let Some(entity) = truth.entities.get_mut(key) {
                    entity.base -= 3;
                }
            });
        }
        let variant = u64::from((freesale != turns) || empty);
        self.put(key, now, None, variant);
        if turns {
            let availability = truth::key(Kind::Availability, &key.ids());
            if freesale && self.truth(|truth| truth.get(&availability).is_some()) {
                // Who had it before is not told of it by the rate.
                self.put(&availability, now, None, 0);
                self.tell(&availability, false);
            } else if freesale {
                self.put(&availability, now, Some(key), 0);
            } else {
                self.remove(&availability, Some(key));
            }
        }
    }

    fn remove(&self, key: &EntityKey, with: Option<&EntityKey>) {
        let now = self.sim.ticks().0;
        if self.truth(|truth| truth.exists(key)) {
            self.truth(|truth| truth.change(key, now, with, false, |_, _| None));
            self.sim.note(12, || format!("PROVIDER removes {key}"));
        }
    }

    /// One thing changes.
    async fn something(self: &Arc<Self>) {
        let sim = &self.sim;
        let existing: Vec<EntityKey> = self.truth(|truth| {
            let exists = |(key, entity): (&EntityKey, &truth::Entity)| {
                let single = key.kind() != Kind::ChannelBinding;
                (single && entity.newest().data.is_some()).then(|| key.clone())
            };
            truth.entities.iter().filter_map(exists).collect()
        });
        let Some(key) = existing.get(sim.below(existing.len() as u64) as usize) else {
            return;
        };
        match sim.below(100) {
            0..50 => {
                self.update(key);
                self.tell(key, false);
            }
            50..65 => {
                for _ in 0..2 + sim.below(4) {
                    self.update(key);
                    self.tell(key, false);
                    let gap = if sim.percent(50) { 2_500 } else { 9_000 };
                    sim.sleep_ms(sim.below(gap)).await;
                }
            }
            65..70 => self.tell(key, false),
            70..90 => self.rebind(),
            _ if key.kind() == Kind::Booking => {
                self.remove(key, None);
                self.tell(key, false);
                if sim.percent(50) {
                    sim.sleep_ms(sim.below(90_000)).await;
                    self.update(key);
                    self.tell(key, false);
                }
            }
            _ => {
                self.update(key);
                sim.sleep_ms(sim.below(1_000)).await;
                self.tell(key, false);
            }
        }
    }

    /// More bookings than the guard lets through at once are made, and removed.
    async fn purge(self: &Arc<Self>) {
        let keys: Vec<EntityKey> = (0..24)
            .map(|n| truth::key(Kind::Booking, &[&format!("purged{n}")]))
            .collect();
        for key in &keys {
            self.update(key);
            self.tell(key, false);
        }
        self.sim.sleep_ms(20_000).await;
        for key in &keys {
            self.remove(key, None);
            self.tell(key, false);
        }
    }

    /// A product that was withdrawn comes back; its entities are told of one by one.
    fn bring_back(self: &Arc<Self>, product: &str) {
        self.add_product(product);
        let ids = ["s", product];
        let below: Vec<EntityKey> = self.truth(|truth| {
            let keys = truth.entities.iter_mut().filter(|(key, entity)| {
                key.ids().starts_with(&ids)
                    && key.kind() != Kind::ChannelBinding
                    && entity.newest().data.is_some()
            });
            keys.map(|(key, entity)| {
                entity.versions.last_mut().expect("made with one").with = None;
                key.clone()
            })
            .collect()
        });
        for key in below {
            self.tell(&key, false);
        }
    }

    /// A product's rates come and go.
    fn rebind(self: &Arc<Self>) {
        let sim = &self.sim;
        let withdrawn = self.truth(|truth| {
            let mut gone = truth.entities.iter().filter(|(key, entity)| {
                key.kind() == Kind::ChannelBinding && entity.newest().data.is_none()
            });
            gone.next().map(|(key, _)| key.ids()[1].to_owned())
        });
        if let Some(product) = withdrawn.filter(|_| sim.percent(40)) {
            self.bring_back(&product);
            return;
        }
        let products: Vec<(String, Vec<String>, u64)> = self.truth(|truth| {
            let bindings = truth.entities.iter();
            bindings
                .filter(|(key, _)| key.kind() == Kind::ChannelBinding)
                .map(|(key, entity)| {
                    let rates = rate_ids(entity.newest().data.as_ref());
                    (key.ids()[1].to_owned(), rates, entity.versions.len() as u64)
                })
                .filter(|(_, rates, _)| !rates.is_empty())
                .collect()
        });
        let Some((product, mut rates, number)) = products
            .get(sim.below(products.len() as u64) as usize)
            .cloned()
        else {
            return;
        };
        let binding = truth::key(Kind::ChannelBinding, &["s", &product]);
        let product_key = truth::key(Kind::Product, &["s", &product]);
        match sim.below(10) {
            0..5 => {
                let rate = format!("n{number}");
                self.add_rate(&product, &rate);
                rates.push(rate);
                rates.sort_unstable();
            }
            5..8 => {
                let rate = rates.remove(sim.below(rates.len() as u64) as usize);
                self.remove_rate(&product, &rate);
                if rates.is_empty() {
                    self.remove(&product_key, Some(&binding));
                }
            }
            _ => {
                for rate in std::mem::take(&mut rates) {
                    self.remove_rate(&product, &rate);
                }
                self.remove(&product_key, Some(&binding));
            }
        }
        self.bind(&product, &rates);
    }

    /// Notifications of an entity, written now; some never are.
    fn tell(self: &Arc<Self>, key: &EntityKey, removed: bool) {
        let sim = &self.sim;
        if sim.percent(8) {
            sim.note(13, || format!("nobody is told of {key}"));
            return;
        }
        let number = self.notifications.fetch_add(1, Ordering::Relaxed) + 1;
        let machine = if self.plan.future_machine && sim.percent(40) {
            3_600_000
        } else {
            0
        };
        let written = sim.ticks().0;
        let timestamp = UnixMillis(self.provider.now().0 + machine).as_secs();
        let notification = Notification {
            rule: key.kind(),
            key: Some(key.clone()),
            removed,
            sum: (number << 8).to_be_bytes().repeat(4),
            timestamp: UnixMillis::from_secs(timestamp),
            received: UnixMillis(0),
            body: bytes::Bytes::new(),
            traceparent: None,
        };
        let copies = if sim.percent(30) { 2 + sim.below(2) } else { 1 };
        for _ in 0..copies {
            self.senders.fetch_add(1, Ordering::Relaxed);
            let (world, notification) = (self.clone(), notification.clone());
            sim.spawn(Owner::World, async move {
                world.send(number, written, notification).await;
                world.senders.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Delivers one copy as the provider does: three more attempts, on retriable answers only.
    async fn send(&self, number: u64, written: u64, notification: Notification) {
        let sim = &self.sim;
        let delay = match sim.below(100) {
            draw if draw < self.plan.late => 60_000 + sim.below(540_000),
            draw if draw % 2 == 0 => sim.below(100),
            _ => sim.below(8_000),
        };
        sim.sleep_ms(delay).await;
        let key = notification.key.clone().expect("all name one");
        for attempt in 0..4 {
            let answer = self.deliver(&notification).await;
            sim.note(14, || {
                format!("notification {number} of {key}, attempt {attempt} -> {answer:?}")
            });
            match answer {
                Some(200) => {
                    self.truth(|truth| {
                        if let Some(entity) = truth.entities.get_mut(&key) {
                            entity.acknowledged.push(written);
                        }
                    });
                    return;
                }
                Some(_) => sim.sleep_ms([3_000, 20_000, 120_000, 0][attempt]).await,
                None => return,
            }
        }
    }

    /// The status of the answer; `None` when the connection broke or nothing came in time.
    async fn deliver(&self, notification: &Notification) -> Option<u16> {
        let disk = self.disk()?;
        let notification = Notification {
            received: self.sim.now(),
            ..notification.clone()
        };
        tokio::select! {
            biased;
            accepted = disk.accept(notification) => Some(match accepted {
                Ok(Accepted::Replayed) => 401,
                Ok(Accepted::BacklogFull) => 429,
                Ok(_) => 200,
                Err(_) => 503,
            }),
            () = disk.died() => None,
            () = self.sim.sleep(Duration::from_mins(1)) => None,
        }
    }
}

async fn replay_all(disk: &Disk) {
    for letter in disk.dead_letters(0, 1000).await.unwrap_or_default() {
        let _ = disk.replay(letter.id, false).await;
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
            retry: 5,
            backoff_policy: BackoffPolicy::Exponential,
            backoff_delay: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
        },
    }
}
