//! The feed's answers, asked for through its router. Oracle: what was put into the store.

mod asked;
mod watch;

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
