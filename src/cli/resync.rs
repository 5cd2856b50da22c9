//! A full comparison with the provider, asked for by a person, on the admin port.
//!
//! | request | answer |
//! |---|---|
//! | `POST /resync` | everything is compared, as at each `fetch.resyncInterval`; 202 with `{"resync":"requested"}` when that is durable. `/status` shows how far it is |
//!
//! Owns: this request. Never here: the resync; one beside another that runs (it comes after it).

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::pipeline::Pipeline;

/// The route.
pub fn router(pipeline: Arc<Pipeline>) -> Router {
    Router::new()
        .route("/resync", post(request))
        .with_state(pipeline)
}

async fn request(
    Shared(pipeline): Shared<Arc<Pipeline>>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    pipeline.request_resync(&[], "asked for by hand").await?;
    let answer = json!({ "resync": "requested" });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}
