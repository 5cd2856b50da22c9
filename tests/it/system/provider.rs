//! A provider that is not well: the marks stay, the reason shows, and the consumer ends equal.
//! Oracle: the simulator's truth, its record of requests, and design §5's table.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bellhop::simulator::{Config, Days};
use serde_json::json;

use super::rig::{Consumer, DAYS, Program, World, eventually, manifest, provider};

/// Changes every rate and tells, while the provider is as `faults` say.
fn change_rates(world: &World) -> usize {
    let rates = world.keys("rate/");
    for rate in &rates {
        world.change(rate);
    }
    rates.len()
}

/// Waits until this many notifications are accepted: the provider's trouble is none of theirs.
async fn accepted(program: &Program, kind: &str, count: usize) {
    let sample = format!("bellhop_receiver_requests_total{{type=\"{kind}\",answer=\"accepted\"}}");
    eventually("notifications are accepted", async || {
        (program.metric(&sample).await >= count as u64).then_some(())
    })
    .await;
}

/// The id of the newest request that the simulator got.
fn last_request(world: &World) -> u64 {
    let requests = world.control.requests(0, usize::MAX);
    requests.last().map_or(0, |request| request.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_at_the_start() {
    let world = World::new(provider()).await;
    world.faults(json!({ "abort": 1.0 }));
    let program = world.start("").await;
    program
        .until_condition("Registered", "Unknown", "ProviderUnavailable")
        .await;
    assert_eq!(program.condition("Ready").await.unwrap().0, "False");
    let waiting = program
        .get(&format!("http://{}/readyz", program.admin))
        .await
        .unwrap();
    assert_eq!(waiting.0, 503);
    assert!(
        waiting.1.contains("the signing key of Rate"),
        "{}",
        waiting.1
    );
    let live = program
        .get(&format!("http://{}/livez", program.admin))
        .await
        .unwrap();
    assert_eq!(
        live.0, 200,
        "a provider that is down does not make the process sick"
    );
    world.no_faults();
    program.settled().await;
    world.equal(&program, &mut Consumer::default()).await;
    program.until_condition("Ready", "True", "Ok").await;
    program.stop().await;
}

/// In the middle, in every way at once that a provider or what stands before it can fail: nothing
/// is published that is not the provider's, nothing is dropped, and the end is equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_being_ill_in_the_middle() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let mut count = 0;
    for faults in [
        json!({ "abort": 1.0 }),
        json!({ "html": 1.0 }),
        json!({ "cut": 1.0 }),
        json!({ "fail": 1.0, "fail-status": [500, 502, 503, 504, 408] }),
    ] {
        let (before, events) = (last_request(&world), consumer.events);
        world.faults(faults.clone());
        count += change_rates(&world);
        accepted(&program, "Rate", count).await;
        eventually("the reads fail", async || {
            (last_request(&world) >= before + 4).then_some(())
        })
        .await;
        consumer.catch_up(&program).await;
        assert_eq!(consumer.events, events, "published while {faults}");
        let status = program.status().await;
        assert!(
            status["store"]["marks"].as_u64() > Some(0),
            "{faults}: {status}"
        );
        assert_eq!(status["store"]["deadLetters"]["fetch"], 0, "{faults}");
        let valid = program.condition("CredentialsValid").await.unwrap();
        assert_eq!(valid.0, "True", "{faults}");
        world.no_faults();
        world.equal(&program, &mut consumer).await;
    }
    // None of it was taken for a removal.
    assert!(consumer.held.values().all(|(_, data)| data.is_some()));
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_answers_delay_nobody_else() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    world.faults(json!({ "latency-min-ms": 1500, "latency-max-ms": 2000, "body-pause-ms": 200 }));
    let count = change_rates(&world);
    let begun = Instant::now();
    accepted(&program, "Rate", count).await;
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "the provider waits for its own answer"
    );
    world.equal(&program, &mut consumer).await;
    program.stop().await;
}

/// 401 in the middle, twice: the provider has a bad moment, then somebody saves a manifest with a
/// typing mistake. Each time fetching pauses, and goes on when the keys are right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_credentials_pause_fetching_and_the_manifest_mends_them() {
    // More marks than workers.
    let world = World::new(Config {
        products: 4,
        rates: 5,
        ..provider()
    })
    .await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let right = manifest("");
    let mut count = 0;
    for in_the_manifest in [false, true] {
        if in_the_manifest {
            std::fs::write(
                world.manifest_file(),
                right.replace("demo-secret", "mistyped"),
            )
            .unwrap();
            eventually("the change is noticed", async || {
                program.logged("the credentials changed; the new ones are in use")
            })
            .await;
        } else {
            world.faults(json!({ "unauthorized": true }));
        }
        let first = last_request(&world);
        count += change_rates(&world);
        accepted(&program, "Rate", count).await;
        program
            .until_condition("CredentialsValid", "False", "Unauthorized")
            .await;
        program
            .until_condition("Delivering", "False", "FetchPaused")
            .await;
        let status = program.status().await;
        assert!(status["store"]["marks"].as_u64() >= Some(20));
        assert_eq!(status["store"]["deadLetters"]["fetch"], 0);
        assert_eq!(
            program.metric("bellhop_pipeline_credentials_refused").await,
            1
        );
        // Probing goes on; nothing else is asked meanwhile, though so many marks wait.
        let probes = |after: u64| {
            let mut refused = world.control.requests(after, usize::MAX);
            refused.retain(|request| request.api == "reseller" && request.status == 401);
            refused
                .into_iter()
                .partition::<Vec<_>, _>(|request| request.target.ends_with("/suppliers"))
        };
        let another = async |after: u64| {
            eventually("it probes", async || {
                (!probes(after).0.is_empty()).then_some(())
            })
            .await;
        };
        another(first).await;
        let paused = last_request(&world);
        another(paused).await;
        let (_, others) = probes(paused);
        assert!(others.is_empty(), "{others:?}");
        if in_the_manifest {
            std::fs::write(world.manifest_file(), &right).unwrap();
        } else {
            world.no_faults();
        }
        world.equal(&program, &mut consumer).await;
        program
            .until_condition("CredentialsValid", "True", "CredentialsAccepted")
            .await;
    }
    program.stop().await;
}

/// Starts with keys that the provider does not know; the right ones come while it runs, and
/// registration does not wait for the end of its growing delay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_in_the_manifest_are_mended_while_it_runs() {
    let world = World::new(provider()).await;
    std::fs::write(
        world.manifest_file(),
        manifest("").replace("demo-secret", "mistyped"),
    )
    .unwrap();
    let program = Program::start(world.command(), super::rig::http()).await;
    program
        .until_condition("CredentialsValid", "False", "Unauthorized")
        .await;
    program
        .until_condition("Registered", "Unknown", "Unauthorized")
        .await;
    assert_eq!(program.condition("Ready").await.unwrap().0, "False");
    eventually(
        "the second refusal, after which it waits ten seconds",
        async || (program.log().matches("registration incomplete").count() == 2).then_some(()),
    )
    .await;
    for secret in ["mistyped", "demo-key"] {
        assert!(!program.log().contains(secret));
        assert!(!program.status().await.to_string().contains(secret));
    }
    std::fs::write(world.manifest_file(), manifest("")).unwrap();
    let to = format!("http://{}", program.public);
    world.control.deliver_to(Some(to)).unwrap();
    program.settled().await;
    let time = |message: &str| -> jiff::Timestamp {
        let line = program.logged(message).unwrap();
        line["timestamp"].as_str().unwrap().parse().unwrap()
    };
    let noticed = time("the credentials changed; the new ones are in use");
    let waited = time("registration step").duration_since(noticed);
    assert!(
        waited.as_secs() < 5,
        "registered {waited:#} after the keys were right"
    );
    program
        .until_condition("CredentialsValid", "True", "CredentialsAccepted")
        .await;
    world.equal(&program, &mut Consumer::default()).await;
    program.stop().await;
}

/// 403 to every read, the smallest included, is about the credentials: fetching pauses as after a
/// 401, nothing becomes a dead letter, and it goes on by itself when the provider relents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forbidden_everywhere_pauses_and_goes_on_by_itself() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    world.faults(json!({ "fail": 1.0, "fail-status": [403], "on": "reseller" }));
    change_rates(&world);
    program
        .until_condition("CredentialsValid", "False", "Unauthorized")
        .await;
    program
        .until_condition("Delivering", "False", "FetchPaused")
        .await;
    // Two probes later there was nothing but probes, though the marks wait.
    let paused = last_request(&world);
    let asked = eventually("it probes twice", async || {
        let mut asked = world.control.requests(paused, usize::MAX);
        asked.retain(|request| request.api == "reseller");
        (asked.len() >= 2).then_some(asked)
    })
    .await;
    for request in asked {
        assert!(request.target.ends_with("/suppliers"), "{request:?}");
        assert_eq!(request.status, 403);
    }
    let store = program.status().await["store"].clone();
    assert!(store["marks"].as_u64() >= Some(4), "{store}");
    assert_eq!(store["deadLetters"]["fetch"], 0, "{store}");
    world.no_faults();
    world.equal(&program, &mut consumer).await;
    program
        .until_condition("CredentialsValid", "True", "CredentialsAccepted")
        .await;
    program.stop().await;
}

/// Changes a rate while each read of it is answered 429; the milliseconds between the first
/// `count` reads.
async fn waits_when_throttled(world: &World, retry_after: Option<i64>, count: usize) -> Vec<i64> {
    world.faults(
        json!({ "fail": 1.0, "fail-status": [429], "retry-after": retry_after, "on": "reseller" }),
    );
    let last = last_request(world);
    world.change(&world.keys("rate/")[0]);
    let seen = eventually("it is asked again", async || {
        let mut seen = world.control.requests(last, usize::MAX);
        seen.retain(|request| request.api == "reseller");
        (seen.len() >= count).then_some(seen)
    })
    .await;
    let pairs = seen.windows(2).take(count - 1);
    let waits = pairs.map(|pair| pair[1].at_ms - pair[0].at_ms).collect();
    world.no_faults();
    waits
}

/// 429 with `Retry-After`: not asked again before; without: a growing delay. Either way the marks
/// stay and the end is equal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttled_with_and_without_retry_after() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let waits = waits_when_throttled(&world, Some(3), 2).await;
    assert!(waits[0] >= 3000, "{waits:?} ms");
    world.equal(&program, &mut consumer).await;
    // Doubled each time, of which jitter takes up to a half; a busy machine only adds to it.
    let waits = waits_when_throttled(&world, None, 4).await;
    let shortest = [400, 900, 1900];
    let long_enough = waits
        .iter()
        .zip(shortest)
        .all(|(wait, least)| *wait >= least);
    assert!(long_enough && waits[2] > waits[0], "{waits:?} ms");
    world.equal(&program, &mut consumer).await;
    program.stop().await;
}

/// 100 MB instead of an object: a dead letter with its reason, memory that stays small, and a new
/// notification revives the entity.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_bodies() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    world.faults(json!({ "huge": 1.0, "huge-bytes": 100_000_000, "on": "reseller" }));
    let rates = change_rates(&world);
    eventually("all are dead letters", async || {
        let letters = program.status().await["store"]["deadLetters"]["fetch"].as_u64();
        (letters == Some(rates as u64)).then_some(())
    })
    .await;
    // Not more than the cap of one answer (32 MiB) per worker would explain, and far below 100 MB
    // times the number of reads.
    let peak = program.memory("VmHWM:");
    assert!(peak < 250 * 1024, "{peak} KiB");
    program
        .until_condition("Delivering", "False", "DeadLetters")
        .await;
    assert_eq!(program.condition("Ready").await.unwrap().0, "True");
    let url = format!("http://{}/dead-letters", program.admin);
    let letters: serde_json::Value =
        serde_json::from_str(&program.get(&url).await.unwrap().1).unwrap();
    let reason = letters["items"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("32 MiB") || reason.contains("33554432"),
        "{reason}"
    );
    world.no_faults();
    change_rates(&world);
    world.equal(&program, &mut consumer).await;
    eventually("no dead letter is left", async || {
        let letters = program.status().await["store"]["deadLetters"]["fetch"].as_u64();
        (letters == Some(0)).then_some(())
    })
    .await;
    program.stop().await;
}

/// A dead letter of a fetch is taken up again from the admin port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_fetch_is_replayed() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    world.faults(json!({ "fail": 1.0, "fail-status": [418], "on": "reseller" }));
    let rate = world.keys("rate/")[0].clone();
    world.change(&rate);
    eventually("it is a dead letter", async || {
        let letters = program.status().await["store"]["deadLetters"]["fetch"].as_u64();
        (letters == Some(1)).then_some(())
    })
    .await;
    world.no_faults();
    assert_eq!(program.post("/dead-letters/999999/replay").await.0, 404);
    assert_eq!(program.post("/dead-letters/x/replay").await.0, 400);
    let (status, answer) = program.post("/dead-letters/replay").await;
    assert_eq!((status.as_u16(), &answer["replayed"]), (202, &json!(1)));
    world.equal(&program, &mut Consumer::default()).await;
    program.stop().await;
}

/// Something vanishes and comes back: two signals for the removal, one event each way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_only_when_two_signals_agree() {
    let world = World::new(provider()).await;
    let program = world
        .start(&format!(
            "fetch: {{ requestsPerSecond: 500, minInterval: 50ms, availabilityHorizonDays: {DAYS}, removalConfirmation: 2s }}"
        ))
        .await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let booking = world.keys("booking/")[0].clone();
    world.change(&booking);
    let truth = world.control.truth(&booking, Days::from_today(1)).unwrap();
    eventually("it is there", async || {
        consumer.catch_up(&program).await;
        (consumer.data(&booking) == Some(&truth)).then_some(())
    })
    .await;
    world.control.remove(&booking, true).unwrap();
    program.refresh(std::slice::from_ref(&booking)).await;
    eventually("it is removed", async || {
        consumer.catch_up(&program).await;
        matches!(consumer.held.get(&booking), Some((_, None))).then_some(())
    })
    .await;
    let gets = world.control.requests(0, usize::MAX);
    let path = format!("/{}", booking.replace("booking/", "bookings/"));
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    for request in gets {
        if request.target.contains(&path) {
            *statuses.entry(request.status).or_default() += 1;
        }
    }
    assert!(
        statuses.get(&404) >= Some(&2),
        "one 404 is not believed: {statuses:?}"
    );
    program.stop().await;
}
