//! The dead letters of a process, on the admin port: shown, and taken up again.
//!
//! | request | answer |
//! |---|---|
//! | `GET /dead-letters?after=&limit=` | `{"items":[…],"continue"}`, oldest first; `continue` is the next `after`, null on the last page |
//! | `POST /dead-letters/{id}/replay?exact=` | 202; 404 when there is none of that id |
//! | `POST /dead-letters/replay` | all but notifications; 202 with `{"replayed": N}` |
//!
//! A replayed fetch is read again. A replayed event goes to its sink as the entity's newest
//! revision, with `exact=true` as the one that was refused. A notification of unknown shape is only
//! dropped: nobody knows what it was about.
//!
//! Owns: these requests. Never here: the content of a dead letter, which may be personal data; a
//! replay that nobody asked for.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use crate::state::{DeadLetter, DeadLetterSource, State};

/// Dead letters of a page, unless the caller asks for fewer.
const PAGE: usize = 500;

type Store = Arc<dyn State>;

/// The routes.
pub fn router(state: Store) -> Router {
    Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/replay", post(replay_all))
        .route("/dead-letters/{id}/replay", post(replay))
        .with_state(state)
}

impl From<PathRejection> for Refusal {
    fn from(_: PathRejection) -> Self {
        let message = "a dead letter's id is a number; GET /dead-letters shows them";
        Self(StatusCode::BAD_REQUEST, message.to_owned())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

async fn list(
    Shared(state): Shared<Store>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let Query(page) = page?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let letters = state.dead_letters(page.after, limit).await?;
    let more = letters.last().filter(|_| letters.len() == limit);
    Ok(Json(json!({
        "items": letters.iter().map(shown).collect::<Vec<_>>(),
        "continue": more.map(|letter| letter.id),
    })))
}

fn shown(letter: &DeadLetter) -> Value {
    let (source, sink) = match &letter.source {
        DeadLetterSource::Notification => ("notification", None),
        DeadLetterSource::Fetch => ("fetch", None),
        DeadLetterSource::Sink(name) => ("sink", Some(name)),
    };
    json!({
        "id": letter.id,
        "source": source,
        "sink": sink,
        "entity": letter.key.as_ref().map(ToString::to_string),
        "revision": letter.revision,
        "reason": letter.reason,
        "time": letter.time.rfc3339(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct How {
    #[serde(default)]
    exact: bool,
}

async fn replay(
    Shared(state): Shared<Store>,
    id: Result<Path<u64>, PathRejection>,
    how: Result<Query<How>, QueryRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let (Path(id), Query(how)) = (id?, how?);
    if state.replay(id, how.exact).await? {
        return Ok((StatusCode::ACCEPTED, Json(json!({ "replayed": 1 }))));
    }
    let message = format!("there is no dead letter {id}; GET /dead-letters shows those there are");
    Err(Refusal(StatusCode::NOT_FOUND, message))
}

/// Those that are there now: one that fails again gets another id and waits for another replay.
async fn replay_all(Shared(state): Shared<Store>) -> Result<(StatusCode, Json<Value>), Refusal> {
    let (mut replayed, mut after) = (0_u64, 0);
    let mut ids = Vec::new();
    loop {
        let page = state.dead_letters(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.id;
        let again = page
            .iter()
            .filter(|letter| letter.source != DeadLetterSource::Notification);
        ids.extend(again.map(|letter| letter.id));
    }
    for id in ids {
        replayed += u64::from(state.replay(id, false).await?);
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "replayed": replayed }))))
}
