//! `bellhop run`, a process of its own, under load and killed with SIGKILL at random moments: in
//! the middle of accepts, reads, commits, checkpoints, and of its own start.
//!
//! Oracle: the simulated provider's record of what it changed when and which delivery got 200,
//! and its truth; a consumer that notes whatever goes back ([`super::consumer`]); the log of the
//! process, in which no resync may begin, as that would mend what was lost.
//!
//! `BELLHOP_KILL_ROUNDS` sets the number of rounds (default 200 signed with HMAC, and a quarter
//! of that with MD5).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellhop::simulator::{Config, Control, Days, Delivery, Faults, Outcome, Simulator};
use serde_json::{Map, Value};

use super::consumer::{Consumer, Held};
use super::plane::{PATIENCE, Plane, free_addresses};

/// Between two changes at the provider.
const GAP: Duration = Duration::from_millis(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_nothing_acknowledged_is_lost() {
    let rounds = super::number("BELLHOP_KILL_ROUNDS").unwrap_or(200);
    journey("hmac-sha256", rounds, Sabotage::None).await.sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_md5_signatures() {
    let rounds = super::number("BELLHOP_KILL_ROUNDS").unwrap_or(200) / 4;
    journey("md5-c", rounds, Sabotage::None).await.sound();
}

/// The same journey, with a while in which 200 means nothing: the tests above would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_durability_is_noticed() {
    let verdict = journey("hmac-sha256", 6, Sabotage::Liar).await;
    let lost = verdict
        .problems
        .iter()
        .any(|what| what.contains("was lost"));
    assert!(lost, "{:#?}", verdict.problems);
}

/// What the test itself breaks, to see whether it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    None,
    /// For a round near the end, notifications go to somebody who answers 200 and does nothing.
    Liar,
}

/// What a journey came to.
struct Verdict {
    seed: u64,
    problems: Vec<String>,
    acknowledged: usize,
    interrupted: usize,
    log: PathBuf,
    /// Kept when something is wrong.
    folder: tempfile::TempDir,
}

impl Verdict {
    fn sound(self) {
        // A run in which nothing was acknowledged, or no delivery was cut off, shows nothing.
        assert!(self.acknowledged > 20, "only {} got 200", self.acknowledged);
        assert!(self.interrupted > 0, "no kill met a delivery");
        if self.problems.is_empty() {
            return;
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        panic!(
            "seed {}, folder {}:\n{}\nlog:\n{}",
            self.seed,
            self.folder.keep().display(),
            self.problems.join("\n"),
            tail.join("\n")
        );
    }
}

async fn journey(scheme: &str, rounds: u64, sabotage: Sabotage) -> Verdict {
    let seed = super::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let addresses = free_addresses(&mut random);
    let simulator = simulator(seed, scheme, addresses[0]).await;
    let control = simulator.control();
    let mut plane = Plane::start(&simulator, addresses, folder.path());
    plane.loaded(&control).await;
    let begun = plane.resyncs();
    let consumer = Consumer::start(plane.feed());
    let history = Arc::new(Mutex::new(History::default()));
    let load = tokio::spawn(load(control.clone(), random.fork(), Arc::clone(&history)));

    let mut problems = Vec::new();
    for round in 0..rounds {
        // A quarter dies while it starts, at any point of it.
        let life = if random.u8(..4) == 0 {
            plane.start_up.mul_f64(1.5 * random.f64())
        } else {
            Duration::from_millis(random.u64(200..800))
        };
        tokio::time::sleep(life).await;
        if let Some(ended) = plane.kill() {
            problems.push(format!("round {round}: it ended by itself: {ended}"));
            break;
        }
        if sabotage == Sabotage::Liar && round + 3 >= rounds {
            let lies = round + 3 == rounds;
            let told = if lies { liar().await } else { addresses[0] };
            control.deliver_to(Some(format!("http://{told}"))).unwrap();
            tokio::time::sleep(8 * GAP).await;
        }
        plane.spawn();
    }
    load.abort();
    let _ = load.await;
    quiet(&control, &plane, &consumer, &mut problems).await;

    let deliveries = control.deliveries(0, usize::MAX);
    if plane.resyncs() != begun {
        problems.push("a resync began".to_owned());
    }
    consumer.read(|view| problems.extend(view.wrong.iter().cloned()));
    let held = consumer.read(|view| view.held.clone());
    history
        .lock()
        .unwrap()
        .compare(&control, &deliveries, &held, &mut problems);
    let fresh = Consumer::fresh(&plane.feed()).await;
    let live = |(_, held): &(&String, &Held)| held.data.is_some();
    if !fresh.iter().filter(live).eq(held.iter().filter(live)) {
        problems.push("the list is not what the stream said".to_owned());
    }
    let status = |delivery: &Delivery, wanted| {
        let mut attempts = delivery.attempts.iter();
        attempts.any(|attempt| (attempt.status == Some(200)) == wanted)
    };
    let count = |wanted| deliveries.iter().filter(|d| status(d, wanted)).count();
    let verdict = Verdict {
        seed,
        problems,
        acknowledged: count(true),
        interrupted: count(false),
        log: plane.log.clone(),
        folder,
    };
    println!(
        "{scheme}: {rounds} rounds, start-up {:?}, {} changes, {} deliveries got 200, {} had an \
         attempt without, {} events at the consumer",
        plane.start_up,
        history.lock().unwrap().changes.len(),
        verdict.acknowledged,
        verdict.interrupted,
        consumer.read(|view| view.events),
    );
    simulator.stop().await;
    verdict
}

async fn simulator(seed: u64, scheme: &str, public: SocketAddr) -> Simulator {
    let mut faults = Faults::default();
    for fault in [
        &format!("sign={scheme}"),
        // As a proxy in front of a dead process would have it: the same bytes come again, perhaps
        // after they were made durable and the answer was lost.
        "retry-network-errors=true",
        "duplicate=0.1",
        "on=reseller",
        "latency-max-ms=30",
    ] {
        faults.apply(fault).unwrap();
    }
    Simulator::start(Config {
        deliver_to: Some(format!("http://{public}")),
        suppliers: 2,
        products: 3,
        rates: 3,
        bookings: 4,
        seed,
        faults,
        retry_delays: [150, 400, 900].map(Duration::from_millis).to_vec(),
        remembered: 1_000_000,
        ..Config::default()
    })
    .await
    .unwrap()
}

/// What was changed at the provider.
#[derive(Default)]
struct History {
    changes: Vec<Change>,
}

struct Change {
    key: String,
    at_ms: i64,
    version: Option<u64>,
    deliveries: Vec<u64>,
}

/// Changes few entities again and again, and makes bookings that are touched only once: what is
/// lost of those is never mended by a later notification.
async fn load(control: Control, mut random: fastrand::Rng, history: Arc<Mutex<History>>) {
    let keys: Vec<String> = control
        .keys()
        .into_iter()
        .filter(|key| !key.starts_with("channel-binding/"))
        .collect();
    let hot: Vec<&String> = keys.iter().step_by(keys.len().div_ceil(8)).collect();
    let mut ticker = tokio::time::interval(GAP);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0_u64.. {
        ticker.tick().await;
        let changed = match number % 4 {
            0 => control.create(&format!("booking/new-{number}"), Map::new(), None, true),
            1 => control.change(&keys[random.usize(..keys.len())], &Map::new(), true),
            _ => control.change(hot[random.usize(..hot.len())], &Map::new(), true),
        }
        .unwrap();
        let truth = control.truth(&changed.key, Days::from_today(1));
        history.lock().unwrap().changes.push(Change {
            // After the change: an attempt that begins later tells of it.
            at_ms: jiff::Timestamp::now().as_millisecond(),
            version: truth.and_then(|truth| truth["version"].as_u64()),
            key: changed.key,
            deliveries: changed.deliveries,
        });
    }
}

impl History {
    /// Every entity must be at least as new at the consumer as its last acknowledged change.
    fn compare(
        &self,
        control: &Control,
        deliveries: &[Delivery],
        held: &BTreeMap<String, Held>,
        problems: &mut Vec<String>,
    ) {
        let mut acknowledged: BTreeMap<&str, (i64, BTreeSet<u64>)> = BTreeMap::new();
        for delivery in deliveries {
            for attempt in &delivery.attempts {
                if attempt.status == Some(200) {
                    let entry = acknowledged.entry(&delivery.entity).or_default();
                    entry.0 = entry.0.max(attempt.at_ms);
                    entry.1.insert(delivery.id);
                }
            }
        }
        let mut changes: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
        for change in &self.changes {
            changes.entry(&change.key).or_default().push(change);
        }
        for (key, changes) in changes {
            let Some((until, ids)) = acknowledged.get(key) else {
                continue;
            };
            // A notification that was answered after a change stands for that change too.
            let covered = |change: &&Change| {
                change.at_ms < *until || change.deliveries.iter().any(|id| ids.contains(id))
            };
            let Some(last) = changes.iter().rposition(covered) else {
                continue;
            };
            let newest = last + 1 == changes.len();
            if let Some(what) = behind(control, changes[last], newest, held.get(key)) {
                problems.push(format!("{key} was lost: {what}; {}", told(key, deliveries)));
            }
        }
    }
}

/// What is wrong with what the consumer holds; `newest`: it must equal the truth.
fn behind(control: &Control, change: &Change, newest: bool, held: Option<&Held>) -> Option<String> {
    let Some(held) = held else {
        return Some("the consumer never heard of it".to_owned());
    };
    let data = held.data.clone().unwrap_or_default();
    if data["version"].as_u64() < change.version {
        let (has, wants) = (&data["version"], change.version);
        return Some(format!(
            "version {has} at the consumer, {wants:?} acknowledged"
        ));
    }
    let days = match &held.window {
        Some((start, end)) => Days::from_date(start, days_between(start, end)).unwrap(),
        None => Days::from_today(1),
    };
    let truth = control.truth(&change.key, days).unwrap_or_default();
    (newest && data != truth).then(|| format!("the consumer has {data}, the provider {truth}"))
}

/// How many days a window has, both ends included.
fn days_between(start: &str, end: &str) -> u32 {
    let day = |text: &str| text.parse::<jiff::civil::Date>().unwrap();
    let span = day(start).until(day(end)).unwrap();
    u32::try_from(span.get_days()).unwrap() + 1
}

/// The last deliveries about an entity, for whoever has to find out.
fn told(key: &str, deliveries: &[Delivery]) -> String {
    let about = deliveries.iter().rev().filter(|d| d.entity == key).take(4);
    let lines: Vec<String> = about
        .map(|d| {
            format!(
                "delivery {} at {}: {:?} {:?}",
                d.id, d.created_ms, d.outcome, d.attempts
            )
        })
        .collect();
    lines.join("; ")
}

/// Waits until the provider has nothing to send, and nothing is read or published any more. Marks
/// may stay: of an availability that the provider may still answer from its cache, to be looked at
/// again when that expires. What consumers hold must be right before.
async fn quiet(control: &Control, plane: &Plane, consumer: &Consumer, problems: &mut Vec<String>) {
    assert!(
        control.idle(PATIENCE).await,
        "deliveries do not come to an end"
    );
    let begun = Instant::now();
    let mut before = (0, Value::Null);
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = plane.status().await.unwrap_or_default();
        let store = &status["store"];
        let now = (consumer.read(|view| view.events), store["marks"].clone());
        if now != before || store["claims"] != 0 {
            since = Instant::now();
            before = now;
        }
        let enough = if store["marks"] == 0 { 1 } else { 7 };
        if since.elapsed() > Duration::from_secs(enough) {
            break;
        }
        if begun.elapsed() > PATIENCE {
            problems.push(format!("it does not come to rest: {store}"));
            return;
        }
    }
    let refused = |d: &&Delivery| d.outcome == Outcome::Refused;
    if let Some(refused) = control.deliveries(0, usize::MAX).iter().find(refused) {
        problems.push(format!("a good notification was refused: {refused:?}"));
    }
}

/// Answers 200 to everything.
async fn liar() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(async || "");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
