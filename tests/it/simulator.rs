//! The simulated provider behaves as the provider's reference says.
//!
//! Oracles: the reference's vectors and tables, written out here; signatures checked with crates
//! that the simulator does not use; what a plain HTTP client and a plain HTTP server see.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use bellhop::simulator::{Config, Control, Faults, Simulator};
use reqwest::Method;
use serde_json::{Value, json};

mod deliveries;
mod reads;
mod registry;
mod signing;
mod steering;
mod tls;

const WAIT: Duration = Duration::from_secs(20);

/// A simulator and a client with its credentials.
struct Provider {
    sim: Simulator,
    client: reqwest::Client,
}

struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
    json: Value,
}

impl Provider {
    async fn start(config: Config) -> Self {
        let sim = Simulator::start(config).await.unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { sim, client }
    }

    async fn plain() -> Self {
        Self::start(config()).await
    }

    fn control(&self) -> Control {
        self.sim.control()
    }

    fn fault(&self, assignments: &[&str]) {
        let mut faults = Faults::default();
        for assignment in assignments {
            faults.apply(assignment).unwrap();
        }
        self.control().set_faults(faults);
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.sim.base_url()))
            .header("x-api-key", "demo-key")
            .header("x-api-secret", "demo-secret")
    }

    async fn send(request: reqwest::RequestBuilder) -> Reply {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let text = answer.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply {
            status,
            headers,
            text,
            json,
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        Self::send(request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None).await
    }

    /// Creates a rule of one kind and returns its key.
    async fn rule(&self, segment: &str, config: Value) -> String {
        let body =
            json!({ "url": format!("https://hooks.example.net/in/{segment}"), "config": config });
        let path = format!("/registry/v1/{segment}");
        let reply = self.call(Method::POST, &path, Some(body)).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json["securityKey"].as_str().unwrap().to_owned()
    }

    /// The identifiers of the first entity of a kind.
    fn first(&self, kind: &str) -> Vec<String> {
        let keys = self.control().keys();
        let key = keys
            .iter()
            .find(|key| key.starts_with(&format!("{kind}/")))
            .unwrap();
        key.split('/').skip(1).map(str::to_owned).collect()
    }

    fn first_key(&self, kind: &str) -> String {
        format!("{kind}/{}", self.first(kind).join("/"))
    }
}

fn config() -> Config {
    Config {
        seed: 7,
        retry_delays: [1, 2, 3].map(Duration::from_millis).to_vec(),
        ..Config::default()
    }
}

/// The seven registry paths of the reference and a `config` that each accepts.
fn types() -> [(&'static str, Value); 7] {
    let updated = json!({ "operations": ["updated"] });
    [
        (
            "channelbindings",
            json!({ "operations": ["created", "updated", "removed"] }),
        ),
        ("suppliers", updated.clone()),
        ("products", updated.clone()),
        ("rates", updated.clone()),
        ("availabilities", json!({})),
        ("priceschedules", json!({})),
        ("bookings", updated),
    ]
}

/// What one POST to the hook was.
#[derive(Debug, Clone)]
struct Got {
    path: String,
    content_type: String,
    body: Value,
}

/// A plain HTTP server that records what it gets and answers prepared statuses, then 200.
#[derive(Clone)]
struct Hook {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
}

impl Hook {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hook = Self {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
            statuses: Arc::default(),
        };
        let state = hook.clone();
        let handler = move |request: axum::extract::Request| {
            let hook = state.clone();
            async move { hook.take(request).await }
        };
        let app = axum::Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, app).await });
        hook
    }

    async fn take(&self, request: axum::extract::Request) -> axum::response::Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        assert_eq!(parts.method, "POST");
        self.got.lock().unwrap().push(Got {
            path: parts.uri.path().to_owned(),
            content_type: parts.headers["content-type"].to_str().unwrap().to_owned(),
            body: serde_json::from_slice(&body).unwrap(),
        });
        let status = self.statuses.lock().unwrap().pop_front().unwrap_or(200);
        let mut answer = axum::response::Response::new(axum::body::Body::from("ignored"));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        if status == 302 {
            let target = format!("http://{}/elsewhere", self.address);
            answer
                .headers_mut()
                .insert("location", target.parse().unwrap());
        }
        answer
    }

    fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn answer(&self, statuses: &[u16]) {
        *self.statuses.lock().unwrap() = statuses.iter().copied().collect();
        self.got.lock().unwrap().clear();
    }
}

/// A simulator that delivers to a hook.
async fn delivering() -> (Provider, Hook) {
    let hook = Hook::start().await;
    let provider = Provider::start(Config {
        deliver_to: Some(hook.base()),
        ..config()
    })
    .await;
    (provider, hook)
}
