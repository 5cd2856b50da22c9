//! An instant provider: answers from memory, in microseconds, so that what is measured is Bellhop.
//!
//! Owns: the registry's four methods for one rule per API key and type, one rate for whatever is
//! asked, and how its version moves. Whose key begins with `stuck` gets no answer of the registry.
//! Never here: a delay, or anything of the simulator, which checks what it
//! is sent and takes its time for it.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::load::KEY;

/// How the version of what is read moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Always the same: what is stored is confirmed.
    Still,
    /// Another with each read: each read is published.
    Rising,
    /// From the moment of `POST /control/begin`, ten states, a tenth of a second each.
    Steps,
}

/// The version that [`Mode::Steps`] ends with.
pub const LAST_STEP: u64 = 11;

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "still" => Ok(Self::Still),
            "rising" => Ok(Self::Rising),
            "steps" => Ok(Self::Steps),
            _ => Err(()),
        }
    }
}

struct Provider {
    mode: Mode,
    /// By API key and type.
    rules: Mutex<HashMap<(String, String), Value>>,
    /// Requests that the registry has answered.
    registry: AtomicU64,
    reads: AtomicU64,
    begun: OnceLock<Instant>,
}

/// All of it.
pub fn router(mode: Mode) -> Router {
    let provider = Provider {
        mode,
        rules: Mutex::default(),
        registry: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        begun: OnceLock::new(),
    };
    Router::new()
        .route("/registry/v1/{kind}", any(rule))
        .route(
            "/v1.3/suppliers",
            get(|| async { Json(json!({"suppliers": []})) }),
        )
        .route(
            "/v1.3/suppliers/{supplier}/products/{product}/rates/{rate}",
            get(rate),
        )
        .route("/control/begin", post(begin))
        .route("/control/reads", get(reads))
        .route("/control/registry", get(registry))
        .route("/control/copies", post(copies))
        .with_state(Arc::new(provider))
}

async fn rule(
    State(provider): State<Arc<Provider>>,
    Path(kind): Path<String>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = headers.get("x-api-key");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    if key.starts_with("stuck") {
        return std::future::pending().await;
    }
    provider.registry.fetch_add(1, Ordering::Relaxed);
    let kind = (key.to_owned(), kind);
    let mut rules = provider
        .rules
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let known = rules.get(&kind).cloned();
    match (method.as_str(), known) {
        ("GET", Some(rule)) => Json(rule).into_response(),
        ("POST", None) | ("PUT", Some(_)) => {
            let Ok(Value::Object(mut rule)) = serde_json::from_slice(&body) else {
                return StatusCode::BAD_REQUEST.into_response();
            };
            rule.insert("securityKey".to_owned(), KEY.into());
            rule.insert("createdOn".to_owned(), "2026-01-01T00:00:00Z".into());
            rule.insert("updatedOn".to_owned(), "2026-01-01T00:00:00Z".into());
            rules.insert(kind, rule.clone().into());
            Json(rule).into_response()
        }
        ("DELETE", Some(_)) => {
            rules.remove(&kind);
            StatusCode::NO_CONTENT.into_response()
        }
        (_, None) => {
            let error = json!({"error": {"code": "NOT_FOUND", "message": "no such rule"}});
            (StatusCode::NOT_FOUND, Json(error)).into_response()
        }
        _ => StatusCode::CONFLICT.into_response(),
    }
}

async fn rate(
    State(provider): State<Arc<Provider>>,
    Path([_supplier, product, rate]): Path<[String; 3]>,
) -> Response {
    let reads = provider.reads.fetch_add(1, Ordering::Relaxed) + 1;
    let version = match provider.mode {
        Mode::Still => 1,
        Mode::Rising => reads + 1,
        Mode::Steps => provider.begun.get().map_or(1, |begun| {
            (begun.elapsed().as_millis() as u64 / 100 + 2).min(LAST_STEP)
        }),
    };
    let body = format!(r#"{{"rate":{}}}"#, document(&product, &rate, version));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// How many requests the registry has answered.
async fn registry(State(provider): State<Arc<Provider>>) -> String {
    provider.registry.load(Ordering::Relaxed).to_string()
}

/// Rules of more accounts: those of one of them, with other words in their URLs. A line each:
/// `from to old new old new`.
async fn copies(State(provider): State<Arc<Provider>>, body: String) -> StatusCode {
    let mut rules = provider
        .rules
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let originals: Vec<_> = rules.clone().into_iter().collect();
    for line in body.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [from, to, words @ ..] = words.as_slice() else {
            return StatusCode::BAD_REQUEST;
        };
        for ((_, kind), rule) in originals.iter().filter(|((key, _), _)| key == from) {
            let mut rule = rule.clone();
            let mut url = rule["url"].as_str().unwrap_or_default().to_owned();
            for pair in words.chunks_exact(2) {
                url = url.replace(pair[0], pair[1]);
            }
            rule["url"] = url.into();
            rules.insert(((*to).to_owned(), kind.clone()), rule);
        }
    }
    StatusCode::NO_CONTENT
}

async fn begin(State(provider): State<Arc<Provider>>) {
    provider.begun.get_or_init(Instant::now);
}

async fn reads(State(provider): State<Arc<Provider>>) -> String {
    provider.reads.load(Ordering::Relaxed).to_string()
}

/// A rate as the provider describes one, about 600 bytes.
pub fn document(product: &str, rate: &str, version: u64) -> String {
    format!(
        r#"{{"id":"{rate}","productId":"{product}","version":{version},"name":"Day ticket","code":"DAY-{version}","title":"Day ticket with audio guide","type":"RESERVED","refundable":true,"cancelable":true,"cutoff":24,"minTravelers":1,"maxTravelers":12,"hold":{{"enabled":true,"ttl":900}},"prices":[{{"id":"adult","name":"Adult","travelerType":{{"ageBand":"ADULT","minAge":18,"maxAge":99}},"net":{{"amount":2150,"currency":"EUR"}},"retail":{{"amount":2900,"currency":"EUR"}}}},{{"id":"child","name":"Child","travelerType":{{"ageBand":"CHILD","minAge":4,"maxAge":17}},"net":{{"amount":1100,"currency":"EUR"}},"retail":{{"amount":1500,"currency":"EUR"}}}}]}}"#
    )
}
