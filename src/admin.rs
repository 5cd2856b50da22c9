//! The admin port: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! Owns: the four answers and their formats. Never here: what readiness or status consist of (the
//! caller says), a secret, anything that a request could change.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::Metrics;

/// The OpenMetrics content type that [`Metrics::encode`] fulfils.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
            get(move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode()) }),
        )
        .route("/status", get(move || async move { axum::Json(status()) }))
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
