//! The list, and single entities.
//!
//! Never here: a page without the cursor from before the first one.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::super::event;
use super::Feed;
use super::cursor::{continue_token, cursor, parse_continue};
use super::problem::Problem;
use super::query::Query;
use crate::api::EntityKey;
use crate::state::ChangeKind;

/// A page ends early when it holds this much data: entities may be large.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Entities read from the store at a time: a page overshoots by less than these.
const STEP: usize = 32;

pub(super) async fn entities(
    Shared(feed): Shared<Arc<Feed>>,
    uri: Uri,
) -> Result<Response, Problem> {
    let query = Query::of(&uri, &["type", "limit", "continue"])?;
    let (kind, limit) = (query.kind()?, query.limit()?);
    let epoch = feed.origin.epoch();
    // Before the first page is read: what changes later is after this cursor.
    let (start, mut after) = match query.get("continue") {
        Some(token) => parse_continue(token, epoch, kind).map(|(at, key)| (at, Some(key)))?,
        None => (*feed.state.head().borrow(), None),
    };
    let mut body = b"{\"cursor\":\"".to_vec();
    body.extend_from_slice(cursor(epoch, start).as_bytes());
    body.extend_from_slice(b"\",\"items\":[");
    let mut count = 0;
    let next = loop {
        let step = STEP.min(limit - count);
        let page = feed.state.list(kind, after.as_ref(), step).await?;
        for event in &page.items {
            if count > 0 {
                body.push(b',');
            }
            feed.origin.write_structured(event, &mut body);
            count += 1;
        }
        if page.next.is_none() || count >= limit || body.len() >= PAGE_BYTES {
            break page.next;
        }
        after = page.next;
    };
    let next = next.map(|key| continue_token(epoch, start, kind, &key));
    let next = next.map_or("null".to_owned(), |token| format!("\"{token}\""));
    body.extend_from_slice(format!("],\"continue\":{next}}}").as_bytes());
    feed.served(count);
    Ok(typed("application/json", body))
}

pub(super) async fn entity(
    Shared(feed): Shared<Arc<Feed>>,
    Path(key): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Query::of(&uri, &[])?;
    let key: EntityKey = key
        .parse()
        .map_err(|error| Problem::parameter("entity", error, "percent-encode each identifier"))?;
    let Some(event) = feed.state.entity(&key).await? else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "NoSuchEntity",
            format!("nothing is known of {key}"),
            "if it was just made, POST /v1/refresh with its key and watch /v1/events",
        ));
    };
    if event.change == ChangeKind::Removed {
        return Err(Problem::new(
            StatusCode::GONE,
            "EntityRemoved",
            format!("{key} was removed, revision {}", event.revision),
            "forget it",
        ));
    }
    let tag = format!("\"{}\"", event.revision);
    let mut response = if matches(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        feed.served(1);
        typed(event::STRUCTURED, feed.origin.structured(&event))
    };
    let tag = HeaderValue::from_str(&tag).expect("digits in quotes");
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}

/// `If-None-Match`, compared weakly (RFC 9110, section 13.1.2).
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let given = headers.get_all(IF_NONE_MATCH).into_iter();
    given.filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',')
            .map(str::trim)
            .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    })
}

pub(super) fn typed(kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = body.into_response();
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
