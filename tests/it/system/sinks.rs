//! Sinks that are not well. Oracle: a server of this test that writes down what it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;

use super::rig::{Consumer, Program, World, eventually, provider};

/// A sink: what it answers, and each request it got.
struct Sink {
    url: String,
    answer: Arc<Mutex<StatusCode>>,
    got: Arc<Mutex<Vec<Got>>>,
}

#[derive(Debug, Clone)]
struct Got {
    key: String,
    sequence: String,
    answered: StatusCode,
    data: Option<Value>,
}

impl Sink {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(StatusCode::OK));
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let (says, heard) = (answer.clone(), got.clone());
        let router = Router::new().fallback(move |request: Request| {
            let (says, heard) = (says.clone(), heard.clone());
            async move {
                let (parts, body) = request.into_parts();
                let header = |name: &str| {
                    let value = parts.headers.get(name);
                    value.map_or("", |value| value.to_str().unwrap()).to_owned()
                };
                let (key, sequence) = (header("ce-subject"), header("ce-sequence"));
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let answered = *says.lock().unwrap();
                heard.lock().unwrap().push(Got {
                    key,
                    sequence,
                    answered,
                    data: serde_json::from_slice(&body).ok(),
                });
                answered
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, answer, got }
    }

    fn answers(&self, status: u16) {
        *self.answer.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// The newest data of each entity that it took; panics when one went back.
    fn held(&self) -> BTreeMap<String, Option<Value>> {
        let mut held = BTreeMap::<String, (String, Option<Value>)>::new();
        for got in self
            .got()
            .into_iter()
            .filter(|got| got.answered.is_success())
        {
            if let Some((before, _)) = held.get(&got.key) {
                assert!(*before <= got.sequence, "{} went back", got.key);
            }
            held.insert(got.key, (got.sequence, got.data));
        }
        held.into_iter()
            .map(|(key, (_, data))| (key, data))
            .collect()
    }

    /// Waits until it took the newest of everything.
    async fn equal(&self, world: &World, program: &Program) {
        let types = program.types().await;
        eventually("the sink is equal", async || {
            let held = self.held();
            let truth = world.truth(&types);
            let same =
                |(key, value): (&String, &Value)| held.get(key) == Some(&Some(value.clone()));
            truth.iter().all(same).then_some(())
        })
        .await;
    }
}

fn two_sinks(orders: &Sink, mirror: &Sink) -> String {
    let delivery = "delivery: { retry: 2, backoffPolicy: linear, backoffDelay: 50ms, timeout: 2s }";
    format!(
        "sinks:\n  - name: orders\n    http: {{ uri: \"{}\" }}\n    {delivery}\n  - name: mirror\n    http: {{ uri: \"{}\" }}\n    {delivery}",
        orders.url, mirror.url
    )
}

async fn sink_status(program: &Program, name: &str) -> Value {
    let status = program.status().await;
    let sinks = status["sinks"].as_array().unwrap();
    sinks
        .iter()
        .find(|sink| sink["name"] == name)
        .unwrap()
        .clone()
}

/// A sink is down for long: its breaker opens, nothing is buried, notifications are accepted all
/// the while, the other sink and the feed are not delayed; when it is back it gets everything, per
/// entity in order, and each entity's newest last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_for_long() {
    let world = World::new(provider()).await;
    let (orders, mirror) = (Sink::new().await, Sink::new().await);
    orders.answers(503);
    let program = world.start(&two_sinks(&orders, &mirror)).await;
    program.settled().await;
    program
        .until_condition("Delivering", "False", "SinkUnavailable")
        .await;
    let breaker = "bellhop_sink_breaker_open{sink=\"orders\"}";
    eventually("the breaker opens", async || {
        (program.metric(breaker).await == 1).then_some(())
    })
    .await;
    let mut consumer = Consumer::default();
    for _ in 0..3 {
        for rate in world.keys("rate/") {
            world.change(&rate);
        }
        // Neither the feed nor the other sink waits for the one that is down.
        world.equal(&program, &mut consumer).await;
        mirror.equal(&world, &program).await;
    }
    assert!(
        sink_status(&program, "mirror").await["well"]
            .as_bool()
            .unwrap()
    );
    let ill = sink_status(&program, "orders").await;
    assert_eq!(ill["well"], false);
    assert_eq!(ill["lastError"], "server_error");
    assert_eq!(
        ill["deadLetters"], 0,
        "nothing is buried while a sink is not well"
    );
    assert!(ill["behind"].as_u64() > Some(0));
    let refused = program
        .metric("bellhop_receiver_requests_total{type=\"Rate\",answer=\"backlog\"}")
        .await;
    assert_eq!(refused, 0);
    assert!(orders.held().is_empty());
    orders.answers(202);
    orders.equal(&world, &program).await;
    program
        .until_condition("Delivering", "True", "DeliveryOk")
        .await;
    let letters = program.status().await["store"]["deadLetters"]["sink"].clone();
    assert_eq!(letters, 0);
    program.stop().await;
}

/// A sink that is not there when the program starts, and a restart in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_behind_across_a_restart() {
    let world = World::new(provider()).await;
    let (orders, mirror) = (Sink::new().await, Sink::new().await);
    orders.answers(500);
    let spec = two_sinks(&orders, &mirror);
    let program = world.start(&spec).await;
    program.settled().await;
    mirror.equal(&world, &program).await;
    program.stop().await;
    let delivered = mirror.got().len();
    orders.answers(200);
    let program = world.start(&spec).await;
    orders.equal(&world, &program).await;
    program.settled().await;
    mirror.equal(&world, &program).await;
    // At least once: the last few may come again after a restart, all of them may not.
    assert!(mirror.got().len() <= delivered + 50);
    program.stop().await;
}

/// 400 says that this event is not wanted: a dead letter, told in the status, while the sink is
/// well; then the replay through the admin port brings the newest revision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_events_are_kept_and_replayed() {
    let world = World::new(provider()).await;
    let (orders, mirror) = (Sink::new().await, Sink::new().await);
    let program = world.start(&two_sinks(&orders, &mirror)).await;
    program.settled().await;
    orders.equal(&world, &program).await;
    orders.answers(400);
    let rate = world.keys("rate/")[0].clone();
    world.change(&rate);
    program
        .until_condition("Delivering", "False", "DeadLetters")
        .await;
    assert_eq!(program.condition("Ready").await.unwrap().0, "True");
    mirror.equal(&world, &program).await;
    assert_eq!(sink_status(&program, "orders").await["well"], true);
    let url = format!("http://{}/dead-letters", program.admin);
    let (status, text) = program.get(&url).await.unwrap();
    assert_eq!(status, 200);
    let letters: Value = serde_json::from_str(&text).unwrap();
    let [letter] = letters["items"].as_array().unwrap().as_slice() else {
        panic!("{letters}");
    };
    assert_eq!(
        (&letter["source"], &letter["sink"]),
        (&"sink".into(), &"orders".into())
    );
    assert_eq!(letter["entity"], rate.as_str());
    assert!(
        letter["reason"].as_str().unwrap().contains("400"),
        "{letter}"
    );
    assert!(letters["continue"].is_null());
    orders.answers(200);
    let (status, _) = program
        .post(&format!("/dead-letters/{}/replay", letter["id"]))
        .await;
    assert_eq!(status, 202);
    orders.equal(&world, &program).await;
    program
        .until_condition("Delivering", "True", "DeliveryOk")
        .await;
    let (status, _) = program
        .post(&format!("/dead-letters/{}/replay", letter["id"]))
        .await;
    assert_eq!(status, 404, "it was taken up already");
    program.stop().await;
}

/// A sink that takes each event slowly delays itself only, and the end does not wait for it beyond
/// its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_sink_does_not_hold_up_the_end() {
    let world = World::new(provider()).await;
    let spec = "sinks:\n  - name: nowhere\n    http: { uri: \"http://127.0.0.1:1/events\" }";
    let program = world.start(spec).await;
    program.settled().await;
    program
        .until_condition("Delivering", "False", "SinkUnavailable")
        .await;
    assert_eq!(
        sink_status(&program, "nowhere").await["lastError"],
        "connection"
    );
    let begun = std::time::Instant::now();
    program.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(20));
}
