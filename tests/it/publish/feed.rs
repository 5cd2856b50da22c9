//! The feed's answers, asked for through its router. Oracle: what was put into the store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::publish::event::Origin;
use bellhop::publish::feed::{Feed, FeedLimits};
use bellhop::settings::{FeedSettings, Identity};
use bellhop::state::{MarkClass, State};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::memory::Memory;
use super::time::TestClock;

pub fn origin(state: &Memory) -> Origin {
    let identity = Identity {
        namespace: "shop".into(),
        name: "redeam".into(),
        uid: "1c0b6f5e".into(),
        owner: "0123456789".into(),
        environment: "sandbox".into(),
    };
    Origin::new(
        &identity,
        "https://booking.sandbox.redeam.io/v1.3",
        state.epoch(),
    )
}

pub struct World {
    pub clock: Arc<TestClock>,
    pub state: Arc<Memory>,
    pub metrics: Metrics,
    pub stop: CancellationToken,
    pub router: Router,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
    /// Status and code of a problem; it must say what to do.
    fn problem(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(json["status"], self.status.as_u16());
        assert!(!json["message"].as_str().unwrap().is_empty(), "{json}");
        assert!(!json["next"].as_str().unwrap().is_empty(), "{json}");
        (
            self.status.as_u16(),
            json["code"].as_str().unwrap().to_owned(),
        )
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(FeedSettings { token_file: None }, FeedLimits::default())
    }

    fn with(settings: FeedSettings, limits: FeedLimits) -> Self {
        let (clock, state) = (Arc::<TestClock>::default(), Arc::new(Memory::new()));
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let feed = Feed::new(
            &settings,
            origin(&state),
            state.clone(),
            clock.clone(),
            limits,
            &metrics,
            stop.clone(),
        );
        Self {
            router: feed.unwrap().router(),
            clock,
            state,
            metrics,
            stop,
        }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    pub async fn get(&self, uri: &str) -> Reply {
        self.send(Request::get(uri).body(Body::empty()).unwrap())
            .await
    }

    /// Events of a batch as (entity, revision), and the next cursor.
    async fn batch(&self, uri: &str) -> (Vec<(String, u64)>, String) {
        let reply = self.get(uri).await;
        assert_eq!(
            reply.status,
            200,
            "{}",
            String::from_utf8_lossy(&reply.body)
        );
        assert_eq!(
            reply.header("content-type"),
            "application/cloudevents-batch+json"
        );
        let events = reply.json().as_array().unwrap().iter().map(named).collect();
        (events, reply.header("bellhop-cursor").to_owned())
    }

    pub async fn stream(&self, uri: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = Request::get(uri).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap());
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream(response.into_body())
    }
}

fn named(event: &Value) -> (String, u64) {
    let revision = event["sequence"].as_str().unwrap();
    assert_eq!(revision.len(), 20);
    (
        event["subject"].as_str().unwrap().to_owned(),
        revision.parse().unwrap(),
    )
}

pub struct Stream(Body);

impl Stream {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        let frame = self.0.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }
}

/// (id, data) of a stream's events, read as the SSE specification says.
pub fn sse(text: &str) -> Vec<(String, String)> {
    let mut events = Vec::new();
    let (mut id, mut data) = (String::new(), Vec::new());
    for line in text.split('\n') {
        if let Some(value) = line.strip_prefix("id: ") {
            value.clone_into(&mut id);
        } else if let Some(value) = line.strip_prefix("data: ") {
            data.push(value);
        } else if line.is_empty() && !data.is_empty() {
            events.push((id.clone(), data.join("\n")));
            data.clear();
        }
    }
    events
}

#[tokio::test]
async fn list_then_watch_is_complete_whatever_changes_between_the_pages() {
    let world = World::new();
    for entity in 0..30 {
        world
            .state
            .publish(&format!("booking/{entity:02}"), Some("{\"v\":0}"));
    }
    let mut held = BTreeMap::new();
    let (mut uri, mut cursor, mut pages) = ("/v1/entities?limit=7".to_owned(), None, 0);
    loop {
        let page = world.get(&uri).await.json();
        let at = page["cursor"].as_str().unwrap().to_owned();
        assert_eq!(
            *cursor.get_or_insert(at.clone()),
            at,
            "one cursor for all pages"
        );
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 7);
        held.extend(items.iter().map(named));
        pages += 1;
        // One that was listed, one that is to come, a new one, and a removal.
        world.state.publish("booking/00", Some("{\"v\":1}"));
        world.state.publish("booking/29", Some("{\"v\":1}"));
        world
            .state
            .publish(&format!("booking/00{pages}"), Some("{}"));
        world
            .state
            .publish(&format!("booking/{:02}", pages * 3), None);
        match page["continue"].as_str() {
            Some(token) => uri = format!("/v1/entities?limit=7&continue={token}"),
            None => break,
        }
    }
    assert!(pages >= 5);
    let (events, _) = world
        .batch(&format!("/v1/events?after={}", cursor.unwrap()))
        .await;
    let mut removed = Vec::new();
    for (key, revision) in events {
        let event = world
            .state
            .entity(&key.parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        if event.data.is_none() && event.revision == revision {
            removed.push(key.clone());
        }
        held.insert(key, revision);
    }
    held.retain(|key, _| !removed.contains(key));
    let truth = world.state.list(None, None, 1000).await.unwrap().items;
    let truth: BTreeMap<String, u64> = truth
        .into_iter()
        .map(|event| (event.key.to_string(), event.revision))
        .collect();
    assert_eq!(held, truth);
}

#[tokio::test]
async fn a_list_can_be_of_one_type_and_its_token_belongs_to_it() {
    let world = World::new();
    for entity in 0..3 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some("{}"));
        world
            .state
            .publish(&format!("price-schedule/s/p/{entity}"), Some("{}"));
    }
    let page = world
        .get("/v1/entities?type=price-schedule&limit=2")
        .await
        .json();
    let subjects: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(named)
        .collect();
    assert_eq!(subjects.len(), 2);
    assert!(
        subjects
            .iter()
            .all(|(key, _)| key.starts_with("price-schedule/"))
    );
    assert_eq!(page["items"][0]["type"], "io.redeam.price-schedule.created");
    let token = page["continue"].as_str().unwrap();
    let rest = world
        .get(&format!(
            "/v1/entities?type=price-schedule&continue={token}"
        ))
        .await;
    assert_eq!(rest.json()["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest.json()["continue"], Value::Null);
    let other = world.get(&format!("/v1/entities?continue={token}")).await;
    assert_eq!(other.problem(), (400, "BadParameter".into()));
    assert_eq!(
        world.get("/v1/entities?limit=1").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn one_entity_has_a_tag_and_says_when_it_is_gone() {
    let world = World::new();
    let event = world
        .state
        .publish("booking/b 1%2eé", Some("{ \"a\" : 1.0 }"));
    let uri = "/v1/entities/booking/b%201%252e%C3%A9";
    let reply = world.get(uri).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (StatusCode::OK, "application/cloudevents+json")
    );
    let tag = format!("\"{}\"", event.revision);
    assert_eq!(reply.header("etag"), tag);
    assert!(
        String::from_utf8(reply.body)
            .unwrap()
            .ends_with(",\"data\":{ \"a\" : 1.0 }}")
    );
    for given in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"1\", {tag}"),
        "*".into(),
    ] {
        let request = Request::get(uri).header("if-none-match", &given);
        let reply = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.body.len()),
            (304, 0),
            "{given}"
        );
        assert_eq!(reply.header("etag"), tag);
    }
    let request = Request::get(uri).header("if-none-match", "\"1\"");
    assert_eq!(
        world
            .send(request.body(Body::empty()).unwrap())
            .await
            .status,
        200
    );

    world.state.publish("booking/b 1%2eé", None);
    assert_eq!(
        world.get(uri).await.problem(),
        (410, "EntityRemoved".into())
    );
    assert_eq!(
        world.get("/v1/entities/booking/x").await.problem(),
        (404, "NoSuchEntity".into())
    );
    for wrong in [
        "/v1/entities/shop/x",
        "/v1/entities/rate/s/p",
        "/v1/entities/booking/..",
        "/v1/entities/booking/a%2Fb",
    ] {
        assert_eq!(
            world.get(wrong).await.problem(),
            (400, "BadParameter".into()),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn batches_go_on_from_their_cursor() {
    let world = World::new();
    for entity in 0..5 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some("{}"));
    }
    let (first, cursor) = world.batch("/v1/events?limit=3").await;
    assert_eq!(first.len(), 3);
    let (rest, cursor) = world.batch(&format!("/v1/events?after={cursor}")).await;
    assert_eq!(
        rest.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["booking/3", "booking/4"]
    );
    let (none, same) = world.batch(&format!("/v1/events?after={cursor}")).await;
    assert_eq!((none.len(), &same), (0, &cursor));
    let (none, latest) = world.batch("/v1/events?after=latest").await;
    assert_eq!((none.len(), latest), (0, cursor));
    // Without `after`: from the oldest kept.
    world.state.forget(2);
    assert_eq!(world.batch("/v1/events").await.0.len(), 3);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_first_event_or_with_its_time() {
    let world = World::new();
    let poll = tokio::spawn(
        world.router.clone().oneshot(
            Request::get("/v1/events?after=latest&wait=30s")
                .body(Body::empty())
                .unwrap(),
        ),
    );
    assert!(
        !world
            .clock
            .run(Duration::from_secs(29), || poll.is_finished())
            .await
    );
    world.state.publish("booking/1", Some("{}"));
    assert!(world.clock.run(Duration::ZERO, || poll.is_finished()).await);
    let response = poll.await.unwrap().unwrap();
    let cursor = response.headers()["bellhop-cursor"]
        .to_str()
        .unwrap()
        .to_owned();

    let uri = format!("/v1/events?after={cursor}&wait=30s");
    let begun = world.clock.ticks();
    let poll = tokio::spawn(
        world
            .router
            .clone()
            .oneshot(Request::get(&uri).body(Body::empty()).unwrap()),
    );
    assert!(
        world
            .clock
            .run(Duration::from_secs(31), || poll.is_finished())
            .await
    );
    assert_eq!(world.clock.ticks().since(begun), Duration::from_secs(30));
    let response = poll.await.unwrap().unwrap();
    assert_eq!(
        (
            response.status(),
            response.headers()["bellhop-cursor"].to_str().unwrap()
        ),
        (StatusCode::OK, &*cursor)
    );

    // The process ends: so does the wait.
    let poll = tokio::spawn(
        world
            .router
            .clone()
            .oneshot(Request::get(&uri).body(Body::empty()).unwrap()),
    );
    assert!(
        !world
            .clock
            .run(Duration::from_secs(5), || poll.is_finished())
            .await
    );
    world.stop.cancel();
    assert!(world.clock.run(Duration::ZERO, || poll.is_finished()).await);
    assert_eq!(poll.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_has_cursors_for_ids_resumes_beats_and_ends() {
    let world = World::new();
    let data = "{\n  \"a\": [1.0,\r\n 2]\n}";
    for entity in 0..3 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some(data));
    }
    let mut stream = world.stream("/v1/events", &[]).await;
    assert!(
        stream
            .next()
            .await
            .unwrap()
            .starts_with(": connected\nid: 00000000000000ab.0\n\n")
    );
    let events = sse(&stream.next().await.unwrap());
    assert_eq!(events.len(), 3);
    let event: Value = serde_json::from_str(&events[1].1).unwrap();
    assert_eq!(event["data"], json!({"a": [1.0, 2]}));
    assert_eq!(named(&event).0, "booking/1");

    // Resumed after the second.
    let mut resumed = world
        .stream("/v1/events", &[("last-event-id", &events[1].0)])
        .await;
    resumed.next().await.unwrap();
    assert_eq!(sse(&resumed.next().await.unwrap()), events[2..]);

    // Quiet: a sign of life with the place, after 15 s.
    let quiet = tokio::spawn(async move {
        let beat = resumed.next().await.unwrap();
        (beat, resumed)
    });
    assert!(
        !world
            .clock
            .run(Duration::from_millis(14_999), || quiet.is_finished())
            .await
    );
    assert!(
        world
            .clock
            .run(Duration::from_millis(1), || quiet.is_finished())
            .await
    );
    let (beat, mut resumed) = quiet.await.unwrap();
    assert_eq!(beat, format!(": alive\nid: {}\n\n", events[2].0));

    // An event at once; then the process ends.
    let waiting = tokio::spawn(async move { (resumed.next().await, resumed.next().await) });
    world.clock.run(Duration::ZERO, || false).await;
    world.state.publish("booking/9", None);
    assert!(
        !world
            .clock
            .run(Duration::from_secs(1), || waiting.is_finished())
            .await
    );
    world.stop.cancel();
    assert!(
        world
            .clock
            .run(Duration::ZERO, || waiting.is_finished())
            .await
    );
    let (piece, end) = waiting.await.unwrap();
    let events = sse(&piece.unwrap());
    let removed: Value = serde_json::from_str(&events[0].1).unwrap();
    assert_eq!(removed["type"], "io.redeam.booking.removed");
    assert!(removed.get("data").is_none() && end.is_none());
}

#[tokio::test]
async fn a_slow_stream_holds_a_bounded_piece_and_is_told_when_it_fell_too_far_behind() {
    let world = World::new();
    let large = format!("\"{}\"", "x".repeat(100_000));
    for entity in 0..50 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some(&large));
    }
    let mut stream = world.stream("/v1/events", &[]).await;
    stream.next().await.unwrap();
    let piece = stream.next().await.unwrap();
    assert!(piece.len() < 400_000, "{}", piece.len());
    for entity in 0..50 {
        world.state.publish(&format!("booking/{entity}"), None);
    }
    world.state.forget(100);
    let mut last = String::new();
    while let Some(piece) = stream.next().await {
        last = piece;
    }
    assert!(
        last.starts_with("event: gone\ndata: {\"status\":410,\"code\":\"CursorExpired\""),
        "{last}"
    );
}

#[tokio::test]
async fn a_cursor_that_is_of_no_use_gets_410_and_the_word_to_list_again() {
    let world = World::new();
    for entity in 0..5 {
        world.state.publish(&format!("booking/{entity}"), None);
    }
    world.state.forget(3);
    let cases = [
        ("00000000000000ff.1", "EpochChanged"),
        ("00000000000000ab.2", "CursorExpired"),
        ("00000000000000ab.6", "CursorAhead"),
    ];
    for (cursor, code) in cases {
        let uri = format!("/v1/events?after={cursor}");
        let plain = world.get(&uri).await;
        let stream = Request::get("/v1/events").header("accept", "text/event-stream");
        let stream = stream
            .header("last-event-id", cursor)
            .body(Body::empty())
            .unwrap();
        for reply in [plain, world.send(stream).await] {
            assert_eq!(reply.problem(), (410, code.into()));
            assert!(
                reply.json()["next"]
                    .as_str()
                    .unwrap()
                    .starts_with("list again")
            );
        }
    }
    assert_eq!(
        world
            .batch("/v1/events?after=00000000000000ab.3")
            .await
            .0
            .len(),
        2
    );
    let token = format!("00000000000000ff.1.all.{}", hex::encode("booking/1"));
    let list = world.get(&format!("/v1/entities?continue={token}")).await;
    assert_eq!(list.problem(), (410, "EpochChanged".into()));
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let world = World::new();
    let cases = [
        ("/v1/events?after=x", "after"),
        ("/v1/events?after=", "after"),
        ("/v1/events?wait=30", "wait"),
        ("/v1/events?wait=61s", "wait"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=1001", "limit"),
        ("/v1/events?limit=%2B1", "limit"),
        ("/v1/events?limit=1&limit=2", "limit"),
        ("/v1/events?type=booking", "type"),
        ("/v1/entities?type=Booking", "type"),
        ("/v1/entities?continue=zz", "continue"),
        ("/v1/entities?after=x", "after"),
        ("/v1/entities/booking/1?x=1", "x"),
        ("/v1/events?%ff=1", "query"),
    ];
    for (uri, name) in cases {
        let reply = world.get(uri).await;
        assert_eq!(reply.problem(), (400, "BadParameter".into()), "{uri}");
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with(&format!("{name}: ")),
            "{uri}: {message}"
        );
    }
    assert_eq!(world.get("/v2").await.problem(), (404, "NoSuchPath".into()));
    let post = Request::post("/v1/events").body(Body::empty()).unwrap();
    assert_eq!(
        world.send(post).await.problem(),
        (405, "WrongMethod".into())
    );
}

#[tokio::test]
async fn the_token_is_asked_for_everywhere_and_follows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the-first-token-0001\n").unwrap();
    let settings = FeedSettings {
        token_file: Some(file.clone()),
    };
    let world = World::with(settings, FeedLimits::default());
    let ask = async |given: Option<&str>, uri: &str| {
        let mut request = Request::get(uri);
        if let Some(given) = given {
            request = request.header("authorization", given);
        }
        world.send(request.body(Body::empty()).unwrap()).await
    };
    for uri in ["/v1/entities", "/v1/events", "/nowhere"] {
        let reply = ask(None, uri).await;
        assert_eq!(reply.problem(), (401, "NoToken".into()));
        assert_eq!(
            reply.header("www-authenticate"),
            "Bearer realm=\"bellhop feed\""
        );
    }
    for wrong in [
        "Bearer the-first-token-0002",
        "Bearer",
        "Basic the-first-token-0001",
        "Bearer ",
    ] {
        let reply = ask(Some(wrong), "/v1/entities").await;
        assert_eq!(reply.problem(), (401, "WrongToken".into()), "{wrong}");
        assert!(reply.header("www-authenticate").contains("invalid_token"));
    }
    assert_eq!(
        ask(Some("bearer the-first-token-0001"), "/v1/entities")
            .await
            .status,
        200
    );

    // Another token: the old one is refused, and a stream that was let in with it ends.
    let first = [("authorization", "Bearer the-first-token-0001")];
    let mut stream = world.stream("/v1/events", &first).await;
    stream.next().await.unwrap();
    std::fs::write(&file, "the-second-token-00002\n").unwrap();
    world.clock.run(Duration::from_secs(2), || false).await;
    assert_eq!(
        ask(Some("Bearer the-first-token-0001"), "/v1/entities")
            .await
            .status,
        401
    );
    assert_eq!(
        ask(Some("Bearer the-second-token-00002"), "/v1/entities")
            .await
            .status,
        200
    );
    assert_eq!(stream.next().await, None);

    // An empty or missing file lets nobody in without a token.
    std::fs::write(&file, "").unwrap();
    world.clock.run(Duration::from_secs(2), || false).await;
    assert_eq!(ask(Some("Bearer "), "/v1/entities").await.status, 401);
    assert_eq!(
        ask(Some("Bearer the-second-token-00002"), "/v1/entities")
            .await
            .status,
        200
    );
    let settings = FeedSettings {
        token_file: Some(file),
    };
    let state = Arc::new(Memory::new());
    let feed = Feed::new(
        &settings,
        origin(&state),
        state.clone(),
        Arc::<TestClock>::default(),
        FeedLimits::default(),
        &Metrics::new(),
        CancellationToken::new(),
    );
    assert!(feed.is_err_and(|error| error.to_string().contains("holds no token")));
}

#[tokio::test]
async fn the_number_of_watchers_is_bounded_and_who_hangs_makes_room() {
    let limits = FeedLimits {
        watchers: 2,
        ..FeedLimits::default()
    };
    let world = World::with(FeedSettings { token_file: None }, limits);
    let mut hangs = world.stream("/v1/events", &[]).await;
    let second = world.stream("/v1/events", &[]).await;
    let stream = || Request::get("/v1/events").header("accept", "text/event-stream");
    let third = world.send(stream().body(Body::empty()).unwrap()).await;
    assert_eq!(third.problem(), (429, "TooMany".into()));
    assert_eq!(third.header("retry-after"), "5");
    assert_eq!(
        world.get("/v1/events?wait=1s").await.problem(),
        (429, "TooMany".into())
    );
    assert_eq!(
        world.get("/v1/events").await.status,
        200,
        "who does not wait needs no place"
    );
    drop(second);
    let _second = world.stream("/v1/events", &[]).await;
    assert!(world.metrics.encode().contains("bellhop_feed_watchers 2"));
    // A minute without reading.
    world.clock.run(Duration::from_secs(61), || false).await;
    let _third = world.stream("/v1/events", &[]).await;
    hangs.next().await.unwrap();
    assert_eq!(hangs.next().await, None);
}

#[tokio::test]
async fn a_refresh_marks_what_can_be_marked_and_says_what_cannot() {
    let world = World::new();
    let post = async |body: String| {
        world
            .send(Request::post("/v1/refresh").body(Body::from(body)).unwrap())
            .await
    };
    let keys = [
        "booking/b1",
        "shop/x",
        "rate/s/p/r",
        "booking/b1",
        "booking/..",
    ];
    let reply = post(json!({ "entities": keys }).to_string()).await;
    assert_eq!(reply.status, 202);
    let answer = reply.json();
    assert_eq!(answer["accepted"], json!(["booking/b1", "rate/s/p/r"]));
    let refused: Vec<_> = answer["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["entity"].as_str().unwrap(),
                one["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        refused,
        [("shop/x", "NoEntityKey"), ("booking/..", "NoEntityKey")]
    );
    let marked: Vec<_> = world
        .state
        .lock()
        .marks
        .iter()
        .map(|mark| (mark.key.to_string(), mark.class))
        .collect();
    let class = MarkClass::Notification;
    assert_eq!(
        marked,
        [("booking/b1".into(), class), ("rate/s/p/r".into(), class)]
    );

    assert_eq!(
        post(json!({ "entities": ["x"] }).to_string()).await.status,
        400
    );
    let bad = [
        String::new(),
        "[]".into(),
        json!({"entities": []}).to_string(),
        json!({"keys": ["booking/1"]}).to_string(),
        json!({"entities": vec!["booking/1"; 101]}).to_string(),
    ];
    for body in bad {
        assert_eq!(
            post(body.clone()).await.problem(),
            (400, "BadParameter".into()),
            "{body}"
        );
    }
    let large = post(json!({"entities": ["x".repeat(70_000)]}).to_string()).await;
    assert_eq!(large.problem(), (413, "BadBody".into()));

    // 500 at once, 20 a second after that.
    let hundred = |round: usize| {
        let keys: Vec<_> = (0..100).map(|at| format!("booking/{round}-{at}")).collect();
        json!({ "entities": keys }).to_string()
    };
    let mut accepted = 2;
    for round in 0..6 {
        let reply = post(hundred(round)).await;
        if reply.status == 202 {
            accepted += reply.json()["accepted"].as_array().unwrap().len();
        } else {
            assert_eq!(reply.problem(), (429, "TooMany".into()));
        }
    }
    assert_eq!(accepted, 500);
    world.clock.run(Duration::from_secs(2), || false).await;
    let reply = post(hundred(9)).await.json();
    assert_eq!(reply["accepted"].as_array().unwrap().len(), 40);
    assert_eq!(reply["refused"][0]["code"], "TooMany");
}
