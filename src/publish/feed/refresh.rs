//! `POST /v1/refresh`: a consumer asks for entities to be read anew.
//!
//! Owns: which keys are taken and how many: a hundred in a request, and over time no more than an
//! allowance, because a refresh goes before the resync and beside notifications.
//!
//! Never here: a provider call (the marks are durable when the answer is sent, nothing more).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::Feed;
use super::list::typed;
use super::problem::Problem;
use super::query::Query;
use crate::api::EntityKey;
use crate::clock::Ticks;
use crate::state::{MarkClass, NewMark};

/// A hundred keys of the longest kind fit.
pub(super) const BODY_LIMIT: usize = 64 * 1024;
const MOST_KEYS: usize = 100;
/// Keys at once…
const BURST: f64 = 500.0;
/// …and per second after that.
const PER_SECOND: f64 = 20.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    entities: Vec<String>,
}

#[derive(Serialize)]
struct Answer {
    accepted: Vec<EntityKey>,
    refused: Vec<Refusal>,
}

#[derive(Serialize)]
struct Refusal {
    entity: String,
    code: &'static str,
    message: String,
}

/// How many keys may be refreshed now: a token bucket for all consumers together.
pub(super) struct Allowance(Mutex<(f64, Ticks)>);

impl Allowance {
    pub(super) fn new(now: Ticks) -> Self {
        Self(Mutex::new((BURST, now)))
    }

    /// Takes up to `wanted`; gives how many it got.
    fn take(&self, wanted: usize, now: Ticks) -> usize {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = &mut *bucket;
        *left = (*left + now.since(*at).as_secs_f64() * PER_SECOND).min(BURST);
        *at = now;
        let got = wanted.min(*left as usize);
        *left -= got as f64;
        got
    }
}

pub(super) async fn refresh(
    Shared(feed): Shared<Arc<Feed>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    Query::of(&uri, &[])?;
    let (keys, mut refused) = keys(&body.map_err(unreadable)?)?;
    let got = feed.refreshes.take(keys.len(), feed.clock.ticks());
    let limited = keys.len() - got;
    let mut accepted = keys;
    for key in accepted.split_off(got) {
        refused.push(Refusal {
            entity: key.to_string(),
            code: "TooMany",
            message: format!("over {PER_SECOND} entities a second; ask for it again later"),
        });
    }
    if accepted.is_empty() && limited > 0 {
        return Err(Problem::busy(
            "too many entities were refreshed",
            Duration::from_secs(5),
        ));
    }
    if !accepted.is_empty() {
        let noticed = Some(feed.clock.ticks());
        let marks = accepted.iter().map(|key| NewMark {
            key: key.clone(),
            class: MarkClass::Notification,
            noticed,
            urgent: true,
        });
        feed.state.mark(marks.collect()).await?;
    }
    let status = if accepted.is_empty() {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::ACCEPTED
    };
    let answer = serde_json::to_vec(&Answer { accepted, refused });
    let answer = typed("application/json", answer.expect("texts always serialise"));
    Ok((status, answer).into_response())
}

/// The keys asked for, each once, in order; and those that are none.
fn keys(body: &[u8]) -> Result<(Vec<EntityKey>, Vec<Refusal>), Problem> {
    let next = "send {\"entities\":[\"booking/ID\"]} with 1 to 100 keys";
    let wanted: Wanted =
        serde_json::from_slice(body).map_err(|error| Problem::parameter("body", error, next))?;
    if wanted.entities.is_empty() || wanted.entities.len() > MOST_KEYS {
        let message = format!("it names {} entities", wanted.entities.len());
        return Err(Problem::parameter("entities", message, next));
    }
    let (mut seen, mut keys, mut refused) = (BTreeSet::new(), Vec::new(), Vec::new());
    for text in wanted.entities {
        match text.parse::<EntityKey>() {
            Ok(key) if seen.insert(key.clone()) => keys.push(key),
            Ok(_) => {}
            Err(error) => refused.push(Refusal {
                entity: text,
                code: "NoEntityKey",
                message: error.to_string(),
            }),
        }
    }
    Ok((keys, refused))
}

fn unreadable(rejection: BytesRejection) -> Problem {
    let next = "send at most 64 KiB of JSON";
    Problem::new(
        rejection.status(),
        "BadBody",
        "the body cannot be read",
        next,
    )
}
