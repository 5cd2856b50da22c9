//! The admin port: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Owns: the four answers and their formats, and the token that whoever asks for more than the
//! first three needs where there is one. (`/dead-letters` and `/removals`, which are about the store
//! and the pipeline, are merged into this router where a process is assembled.)
//!
//! Never here: what readiness or status consist of (the caller says), a secret, anything that a
//! request could change.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::files::token::{TokenFile, bearer};
use crate::metrics::Metrics;

/// The OpenMetrics content type that [`Metrics::encode`] fulfils.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What those get who do not ask for OpenMetrics.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer to any other path.
const PATHS: &str =
    "no such path; there are /livez, /readyz, /metrics, /status, /dead-letters and /removals\n";

/// What needs no token: nothing of a subscription's is in it, and kubelets and Prometheus ask.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Where the token may stand instead of `Authorization`: the API server, asked to pass a request on
/// to a pod, takes that header for itself.
pub const TOKEN_HEADER: &str = "bellhop-token";

/// The answer to who has none.
const TOKEN_NEEDED: &str = "this path asks for the admin token: Authorization: Bearer TOKEN\n";

/// What a process waits for before it is ready: one short phrase each, no secrets.
pub type Waiting = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// A snapshot of the process for people and for the operator.
pub type Status = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// The routes of the admin port.
///
/// `/livez` says only that the process serves. `/readyz` is 200 when `waiting` names nothing, else
/// 503 with one line for each thing that is waited for. `/status` is the JSON of `status`.
pub fn router(metrics: Metrics, waiting: Waiting, status: Status) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { ready(&waiting()) }))
        .route(
            "/metrics",
            get(move |headers: HeaderMap| async move { exposition(&metrics, &headers) }),
        )
        .route("/status", get(move || async move { axum::Json(status()) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, PATHS) })
}

/// `router` for those who have the token of `file`; all but `/livez`, `/readyz` and `/metrics`.
pub fn with_token(router: Router, file: TokenFile) -> Router {
    let file = Arc::new(file);
    router.layer(from_fn(move |request: Request, next: Next| {
        let file = file.clone();
        async move {
            if OPEN.contains(&request.uri().path()) || may_enter(request.headers(), &file) {
                return next.run(request).await;
            }
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, TOKEN_NEEDED).into_response()
        }
    }))
}

fn may_enter(headers: &HeaderMap, file: &TokenFile) -> bool {
    let own = headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes);
    let usual = headers.get(header::AUTHORIZATION);
    let given = own.or_else(|| bearer(usual?.as_bytes()));
    given.is_some_and(|given| file.token().matches(given))
}

/// OpenMetrics for those who ask for it, as Prometheus does; else the older text format.
fn exposition(metrics: &Metrics, headers: &HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        return ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()).into_response();
    }
    ([(header::CONTENT_TYPE, PLAIN)], metrics.encode_plain()).into_response()
}

fn ready(waiting: &[String]) -> Response {
    if waiting.is_empty() {
        return "ok\n".into_response();
    }
    let mut text = String::new();
    for what in waiting {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "waiting for {what}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
