//! `bellhop demo`: a simulated provider and the whole journey, watched by a real consumer.
//!
//! Owns: the story (what is changed when), its account on the terminal, and the comparison of what
//! a consumer read from the feed with the provider's truth. Never here: a part of the journey that
//! `bellhop run` does not have; the demo uses the very same assembly, over HTTP.

mod account;
mod consumer;
mod plane;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde_json::Map;

use self::account::{Account, Tally};
use self::consumer::Consumer;
use self::plane::Plane;
use super::Failure;
use crate::clock::{Clock, SystemClock};
use crate::shutdown::asked_to_end;
use crate::simulator::{Config, Control, Days, Faults, Outcome, Simulator};

/// Suppliers, products of each, rates of each product, bookings: some 300 entities.
const CATALOGUE: [usize; 4] = [4, 4, 4, 16];
/// The window of availability and prices, in days beside today; small, to be readable.
const HORIZON_DAYS: u32 = 14;
/// Changes a second while `--count` runs, and while it does not.
const COUNTED_RATE: f64 = 25.0;
const ENDLESS_RATE: f64 = 2.0;
/// Times that the receiver is killed with `--chaos`.
const CRASHES: u32 = 4;
/// How long each phase may take before the demo says that it failed.
const REGISTER_WITHIN: Duration = Duration::from_secs(30);
const LOAD_WITHIN: Duration = Duration::from_secs(30);
const IDLE_WITHIN: Duration = Duration::from_mins(1);

/// Starts a simulated provider and Bellhop, and shows how notifications arrive, are verified, made
/// durable, coalesced, fetched and published. Ends with Ctrl-C, or with --count by itself.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Make N changes, compare what a consumer holds with the provider's truth, and end; fails if
    /// one entity differs
    #[arg(long, env = "BELLHOP_COUNT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: Option<u32>,

    /// Bad weather: duplicates, reordering, cached answers, 5xx, 429, cut connections, and kill -9
    /// of the receiver (which runs as a process of its own then). Needs --count
    #[arg(long, env = "BELLHOP_CHAOS", requires = "count")]
    chaos: bool,

    /// How the provider signs: hmac-sha256, or one of the older layouts md5-a to md5-g
    #[arg(
        long,
        env = "BELLHOP_SIGN",
        default_value = "hmac-sha256",
        value_name = "SCHEME"
    )]
    sign: String,

    /// Where all randomness of the provider comes from [default: random]
    #[arg(long, env = "BELLHOP_SEED", value_name = "N")]
    seed: Option<u64>,

    /// How long the consumer may take to hold the provider's state, once all changes are made
    #[arg(
        long,
        env = "BELLHOP_SETTLE_SECONDS",
        default_value_t = 60,
        value_name = "SECONDS"
    )]
    settle_seconds: u64,
}

/// Runs the demo.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let mut faults = Faults::default();
    faults
        .apply(&format!("sign={}", args.sign))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let folder = Scratch::new()?;
    let account = Account::new();
    let result = story(&args, faults, &folder, &account).await;
    account.clear();
    result
}

/// A folder for the demo's store that goes when the demo ends.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let name = format!("bellhop-demo-{}", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        super::keystore::private_folder(&path).map_err(Failure::Failed)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind at worst: it is in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn story(
    args: &DemoArgs,
    faults: Faults,
    folder: &Scratch,
    account: &Account,
) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let ports = plane::Addresses::free().await.map_err(Failure::Failed)?;
    let simulator = simulator(seed, &ports, faults, args.chaos).await?;
    let control = simulator.control();
    account.title(
        "A simulated provider and the whole journey",
        &[
            (
                "provider",
                format!(
                    "{} (seed {seed}, {} entities)",
                    simulator.base_url(),
                    control.keys().len()
                ),
            ),
            (
                "webhook",
                format!(
                    "http://{}, as https://hooks.example.com/redeam",
                    ports.public
                ),
            ),
            ("feed", format!("http://{}/v1/events", ports.feed)),
            ("status", format!("http://{}/status", ports.admin)),
        ],
    );
    let mut plane = Plane::start(args.chaos, &simulator, &ports, &folder.0)
        .await
        .map_err(Failure::Failed)?;
    let ended = journey(args, &control, &mut plane, account).await;
    plane.stop().await;
    simulator.stop().await;
    ended
}

/// Runs a phase of the demo unless a person does not want to wait for its end.
async fn unless_ended<T>(
    phase: impl Future<Output = Result<T, Failure>>,
    before: &str,
) -> Result<T, Failure> {
    tokio::select! {
        ended = phase => ended,
        () = asked_to_end() => Err(Failure::Failed(format!("ended by Ctrl-C before {before}"))),
    }
}

async fn simulator(
    seed: u64,
    ports: &plane::Addresses,
    faults: Faults,
    chaos: bool,
) -> Result<Simulator, Failure> {
    let [suppliers, products, rates, bookings] = CATALOGUE;
    Simulator::start(Config {
        deliver_to: Some(format!("http://{}", ports.public)),
        suppliers,
        products,
        rates,
        bookings,
        seed,
        faults,
        // The real provider's delays are unknown. Short ones, so that a retry can be watched.
        retry_delays: [400, 1200, 3600].map(Duration::from_millis).to_vec(),
        remembered: if chaos { 100_000 } else { 20_000 },
        ..Config::default()
    })
    .await
    .map_err(|error| Failure::Failed(error.to_string()))
}

async fn journey(
    args: &DemoArgs,
    control: &Control,
    plane: &mut Plane,
    account: &Account,
) -> Result<(), Failure> {
    let clock = SystemClock::new();
    let consumer = unless_ended(
        prepared(control, plane, account),
        "the first full read was done",
    )
    .await?;
    if args.chaos {
        control
            .merge_faults(&weather())
            .map_err(|error| Failure::Failed(error.to_string()))?;
        account.step("bad weather from here on; the receiver will be killed in the middle");
    }
    account.step(&match args.count {
        Some(count) => format!("making {count} changes at the provider"),
        None => "changing something twice a second; Ctrl-C ends it".to_owned(),
    });
    let mut tally = Tally::new(control, plane.metrics().await.unwrap_or_default());
    changes(args, control, plane, &consumer, account, &mut tally, &clock).await?;
    if args.chaos {
        control.set_faults(Faults {
            sign: control.faults().sign,
            ..Faults::default()
        });
    }
    unless_ended(
        settle(args, control, plane, &consumer, account, &mut tally),
        "the comparison was done",
    )
    .await
}

/// Registers, and waits until a consumer holds all that the provider has.
async fn prepared(
    control: &Control,
    plane: &Plane,
    account: &Account,
) -> Result<Consumer, Failure> {
    account.step("registering one rule per type: created disabled, key stored, then enabled");
    registered(plane, account).await?;
    account.step("first full read: nothing that happened before was ever notified");
    let consumer = Consumer::start(plane.feed());
    let bookings: BTreeSet<String> = control
        .keys()
        .into_iter()
        .filter(|key| key.starts_with("booking/"))
        .collect();
    account.detail(&format!(
        "no list shows bookings: the consumer names its {} to the feed's refresh",
        bookings.len()
    ));
    plane.refresh(&bookings).await.map_err(Failure::Failed)?;
    loaded(control, &consumer, account).await?;
    Ok(consumer)
}

/// What `--chaos` turns on at the provider. The receiver's crashes come on top.
fn weather() -> serde_json::Value {
    serde_json::json!({
        "duplicate": 0.3, "replay": 0.1, "reorder": 0.3, "reorder-ms": 400,
        // A proxy in front of a dead receiver answers 502 or 503, which the provider retries.
        "retry-network-errors": true,
        "on": "reseller",
        "fail": 0.1, "fail-status": [500, 502, 503, 429],
        "cut": 0.05, "abort": 0.05, "html": 0.03,
        "latency-min-ms": 1, "latency-max-ms": 40,
        "cache-max-age-ms": 800, "cache-slow": 0.3, "cache-fill-ms": 300,
        "stale": 0.3, "stale-ms": 4000,
    })
}

async fn registered(plane: &Plane, account: &Account) -> Result<(), Failure> {
    let begun = tokio::time::Instant::now();
    let mut shown = BTreeSet::new();
    while begun.elapsed() < REGISTER_WITHIN {
        if let Some(status) = plane.status().await {
            for (kind, rule) in status["rules"].as_object().into_iter().flatten() {
                if rule["phase"] == "Registered" && shown.insert(kind.clone()) {
                    let key = rule["keyFingerprint"].as_str().unwrap_or("-");
                    account.detail(&format!("{kind:<15} registered and enabled, key {key}"));
                }
            }
            if status["registered"] == "7/7" {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = plane.status().await.unwrap_or_default();
    Err(Failure::Failed(format!(
        "only {} rules were registered within {REGISTER_WITHIN:?}: {}",
        status["registered"], status["conditions"]
    )))
}

async fn loaded(control: &Control, consumer: &Consumer, account: &Account) -> Result<(), Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        let difference = compare(control, consumer);
        if difference.is_empty() {
            account.detail(&format!(
                "the consumer holds all {} entities",
                consumer.live()
            ));
            return Ok(());
        }
        if begun.elapsed() > LOAD_WITHIN {
            return Err(different(&difference, "after the first full read"));
        }
        account.progress(&format!("{} entities at the consumer", consumer.live()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn changes(
    args: &DemoArgs,
    control: &Control,
    plane: &mut Plane,
    consumer: &Consumer,
    account: &Account,
    tally: &mut Tally,
    clock: &SystemClock,
) -> Result<(), Failure> {
    let keys: Vec<String> = control
        .keys()
        .into_iter()
        .filter(|key| !key.starts_with("channel-binding/"))
        .collect();
    // Every second change is one of few entities, so that there are bursts to coalesce.
    let hot = &keys[..keys.len().min(6)];
    let mut random = fastrand::Rng::with_seed(args.seed.unwrap_or_else(|| fastrand::u64(..)));
    let count = args.count.unwrap_or(u32::MAX);
    let gap = Duration::from_secs_f64(
        1.0 / if args.count.is_some() {
            COUNTED_RATE
        } else {
            ENDLESS_RATE
        },
    );
    if args.count.is_none() {
        consumer.narrate(account.clone());
    }
    let mut ticker = tokio::time::interval(gap);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0..count {
        tokio::select! {
            _ = ticker.tick() => {}
            () = asked_to_end() => {
                if args.count.is_some() {
                    return Err(Failure::Failed("ended by Ctrl-C before all changes were made".to_owned()));
                }
                return Ok(());
            }
        }
        let from = if random.bool() { hot } else { &keys[..] };
        let key = &from[random.usize(..from.len())];
        consumer.expect(key, clock.now());
        control
            .change(key, &Map::new(), true)
            .map_err(|error| Failure::Failed(error.to_string()))?;
        tally.changed += 1;
        if args.chaos && (number + 1) % (count / (CRASHES + 1)).max(1) == 0 && number + 1 < count {
            tally.keep(plane.metrics().await.unwrap_or_default());
            plane.crash().map_err(Failure::Failed)?;
            tally.crashes += 1;
            account.detail("kill -9 of the receiver; it starts again");
        }
        account.progress(&tally.line(consumer));
    }
    Ok(())
}

/// Waits until everything is where it belongs, compares, and prints the summary.
async fn settle(
    args: &DemoArgs,
    control: &Control,
    plane: &Plane,
    consumer: &Consumer,
    account: &Account,
    tally: &mut Tally,
) -> Result<(), Failure> {
    account.step("no more changes: waiting until all is quiet, then comparing entity by entity");
    control.idle(IDLE_WITHIN).await;
    // What no attempt brought to us was never answered 200. The next resync would find it; the
    // demo does not wait a day but says so to the feed, as a consumer may.
    let lost: BTreeSet<String> = control
        .deliveries(0, usize::MAX)
        .into_iter()
        .filter(|delivery| !matches!(delivery.outcome, Outcome::Delivered | Outcome::Pending))
        .map(|delivery| delivery.entity)
        .collect();
    tally.never_delivered = lost.len();
    if !lost.is_empty() {
        plane.refresh(&lost).await.map_err(Failure::Failed)?;
    }
    let settle_within = Duration::from_secs(args.settle_seconds);
    let begun = tokio::time::Instant::now();
    let mut equal_for = 0;
    let difference = loop {
        let difference = compare(control, consumer);
        equal_for = if difference.is_empty() {
            equal_for + 1
        } else {
            0
        };
        // Marks may be left: an availability that was read within a second of its notification is
        // read once more when the provider's cache has expired.
        if equal_for > 5 || begun.elapsed() > settle_within {
            break difference;
        }
        let first = difference.first().map_or("", String::as_str);
        account.progress(&format!(
            "{} entities still differ {first}",
            difference.len()
        ));
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    tally.keep(plane.metrics().await.unwrap_or_default());
    account.summary(tally, control, consumer, args.chaos);
    let back = consumer.went_back();
    if !back.is_empty() {
        return Err(Failure::Failed(format!(
            "entities went back in time: {}",
            back.join(", ")
        )));
    }
    if !difference.is_empty() {
        return Err(different(&difference, "at the end"));
    }
    account.equal(consumer.live());
    Ok(())
}

fn different(keys: &[String], when: &str) -> Failure {
    let shown: Vec<&str> = keys.iter().take(5).map(String::as_str).collect();
    Failure::Failed(format!(
        "{} entities differ from the provider's truth {when}, for example {}",
        keys.len(),
        shown.join(", ")
    ))
}

/// The keys under which provider and consumer hold different things.
fn compare(control: &Control, consumer: &Consumer) -> Vec<String> {
    let truth = control.truths("", Days::from_today(HORIZON_DAYS + 1));
    consumer.differences(&truth)
}
