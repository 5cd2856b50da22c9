//! The simulator's switches that no other test here turns: whichever way the provider's open
//! questions turn out, the consumer ends equal. Oracle: the simulator's truth.

use std::collections::BTreeMap;

use bellhop::simulator::{Config, Days, Delivery};
use serde_json::{Value, json};

use super::rig::{ALL, Consumer, DAYS, LONG, Program, World, eventually, provider};

/// A provider and the program at rest, with one entity of each kind that is told of by itself.
struct Scene {
    world: World,
    program: Program,
    consumer: Consumer,
    keys: Vec<String>,
    changes: u32,
}

impl Scene {
    async fn new() -> Self {
        let remembered = 100_000;
        let world = World::new(Config {
            remembered,
            ..provider()
        })
        .await;
        let program = world.start(ALL).await;
        program.settled().await;
        let first = |kind: &str| world.keys(kind)[0].clone();
        let kinds = [
            "supplier/",
            "product/",
            "rate/",
            "availability/",
            "price-schedule/",
            "booking/",
        ];
        let keys = kinds.map(first).to_vec();
        Self {
            world,
            program,
            consumer: Consumer::default(),
            keys,
            changes: 0,
        }
    }

    /// Changes each and tells. At random most days are beyond the window that is subscribed to, and
    /// a change of these would show nowhere: tomorrow it is.
    fn change(&mut self) {
        self.changes += 1;
        let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
        let date = tomorrow.strftime("%Y-%m-%d").to_string();
        for key in &self.keys {
            let body = match key.split('/').next() {
                Some("availability") => {
                    json!({ "days": [{ "date": date, "slot": 0, "capacity": self.changes }] })
                }
                Some("price-schedule") => {
                    json!({ "days": [{ "date": date, "retail": self.changes }] })
                }
                _ => json!({}),
            };
            let body = body.as_object().unwrap();
            self.world.control.change(key, body, true).unwrap();
        }
    }

    /// What the provider has; without `version` where it does not tell any.
    fn truth(&self, versions: bool) -> BTreeMap<String, Value> {
        let days = Days::from_today(DAYS + 1);
        let of = |key: &String| {
            let mut truth = self.world.control.truth(key, days).unwrap();
            if !versions {
                truth.as_object_mut().unwrap().remove("version");
            }
            (key.clone(), truth)
        };
        self.keys.iter().map(of).collect()
    }

    /// Waits until the consumer holds it.
    async fn equal(&mut self, faults: &Value) {
        let begun = std::time::Instant::now();
        let different = loop {
            self.consumer.catch_up(&self.program).await;
            let truth = self.truth(faults["no-versions"] != true);
            let differs = |key: &&String| self.consumer.data(key) != truth.get(*key);
            let different: Vec<&String> = self.keys.iter().filter(differs).collect();
            if different.is_empty() {
                return;
            }
            if begun.elapsed() > LONG {
                break different;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        panic!("{faults}: {different:?}\n{}", self.program.log());
    }

    fn deliveries(&self, since: usize) -> Vec<Delivery> {
        self.world
            .control
            .deliveries(0, usize::MAX)
            .split_off(since)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_way_the_open_questions_turn_out_the_end_is_equal() {
    let mut scene = Scene::new().await;
    for faults in [
        json!({ "date-range": true, "operation-everywhere": true, "booking-parents": true }),
        json!({ "delay-min-ms": 20, "delay-max-ms": 400 }),
        json!({ "duplicate": 1.0, "replay": 1.0, "reorder": 0.5, "reorder-ms": 200 }),
        json!({ "timestamp-skew-s": -90 }),
        json!({ "cache-max-age-ms": 60_000, "cache-reload": true }),
        json!({ "cache-max-age-ms": 500, "cache-slow": 1.0, "cache-wait-ms": 50, "cache-fill-ms": 2500 }),
        json!({ "stale": 0.7, "stale-ms": 1500 }),
        json!({ "no-versions": true }),
        json!({}),
        // Last: after milliseconds, whole seconds would seem to go back.
        json!({ "cache-max-age-ms": 500, "cache-times-ms": true }),
    ] {
        scene.world.no_faults();
        scene.world.faults(faults.clone());
        for _ in 0..3 {
            scene.change();
        }
        assert!(scene.world.control.idle(LONG).await);
        scene.equal(&faults).await;
    }
    // Nothing was given up on the way.
    let status = scene.program.status().await;
    assert_eq!(status["store"]["deadLetters"]["fetch"], 0);
    scene.program.stop().await;
}

/// What got no answer comes again, with the signature of its first attempt or with another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_with_the_same_or_another_signature() {
    let mut scene = Scene::new().await;
    for anew in [false, true] {
        let faults = json!({ "retry-network-errors": true, "sign-retry-anew": anew });
        scene.world.faults(faults.clone());
        let control = scene.world.control.clone();
        // Nobody listens there.
        control
            .deliver_to(Some("http://127.0.0.1:1".to_owned()))
            .unwrap();
        let before = scene.deliveries(0).len();
        scene.change();
        let first = eventually("each was tried", async || {
            let made = scene.deliveries(before);
            let tried = made.iter().all(|one| !one.attempts.is_empty());
            (tried && made.len() >= scene.keys.len()).then_some(made)
        })
        .await;
        control
            .deliver_to(Some(format!("http://{}", scene.program.public)))
            .unwrap();
        assert!(control.idle(LONG).await);
        for (first, last) in first.iter().zip(scene.deliveries(before)) {
            assert_eq!(last.attempts[0].status, None, "{last:?}");
            assert_eq!(last.attempts.last().unwrap().status, Some(200), "{last:?}");
            assert_eq!(first.body != last.body, anew, "what the switch is about");
        }
        scene.equal(&faults).await;
    }
    scene.program.stop().await;
}

/// A signature made with another key moves nothing; the next right one brings all that happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_signatures_move_nothing() {
    let mut scene = Scene::new().await;
    let right = json!({ "wrong-signature": 0.0 });
    scene.change();
    scene.equal(&right).await;
    scene.program.settled().await;
    scene.consumer.catch_up(&scene.program).await;
    let events = scene.consumer.events;
    let before = scene.deliveries(0).len();
    scene.world.faults(json!({ "wrong-signature": 1.0 }));
    scene.change();
    assert!(scene.world.control.idle(LONG).await);
    let made = scene.deliveries(before);
    assert_eq!(made.len(), scene.keys.len());
    for one in made {
        let mut answers = one.attempts.iter().map(|attempt| attempt.status);
        assert!(answers.all(|one| matches!(one, Some(401 | 503))), "{one:?}");
    }
    scene.program.settled().await;
    scene.consumer.catch_up(&scene.program).await;
    assert_eq!(scene.consumer.events, events);
    scene.world.no_faults();
    scene.change();
    scene.equal(&right).await;
    scene.program.stop().await;
}
