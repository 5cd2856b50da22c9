//! The removals that the guard holds back, on the admin port: shown, and confirmed.
//!
//! | request | answer |
//! |---|---|
//! | `GET /removals?after=&limit=` | `{"items":[entity…],"continue"}`, in key order; `continue` is the next `after`, null on the last page |
//! | `POST /removals/confirm` | those held back now are looked at again at once, and let through if the provider still says that they are gone; 202 with `{"confirmed": N}` |
//!
//! Owns: these requests. Never here: a removal. A confirmation lets the guard step aside for what
//! was first seen gone before it, and the provider is asked once more.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::api::EntityKey;
use crate::pipeline::Pipeline;

/// Entities of a page, unless the caller asks for fewer.
const PAGE: usize = 500;

/// The routes.
pub fn router(pipeline: Arc<Pipeline>) -> Router {
    Router::new()
        .route("/removals", get(list))
        .route("/removals/confirm", post(confirm))
        .with_state(pipeline)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

async fn list(
    Shared(pipeline): Shared<Arc<Pipeline>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(page) = page?;
    let after: Option<EntityKey> = match page.after.as_deref().map(str::parse).transpose() {
        Ok(after) => after,
        Err(error) => {
            let message = format!(
                "`after` is no entity key: {error}; give the `continue` of the page before"
            );
            return Err(Refusal(StatusCode::BAD_REQUEST, message));
        }
    };
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let held = pipeline.removals_held(after.as_ref(), limit);
    let more = held.last().filter(|_| held.len() == limit);
    Ok(Json(json!({
        "items": held.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "continue": more.map(ToString::to_string),
    })))
}

async fn confirm(
    Shared(pipeline): Shared<Arc<Pipeline>>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let confirmed = pipeline.confirm_removals().await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "confirmed": confirmed })),
    ))
}
