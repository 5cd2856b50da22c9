//! The feed's refusals: one shape for all, with the next step in it.
//!
//! Never here: anything that a store or a file said; those go to the log.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::state::{EventsGone, StateError};

/// Why a request was not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    #[serde(serialize_with = "as_number")]
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// What to do.
    pub(super) next: String,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

const LIST_AGAIN: &str =
    "list again: GET /v1/entities, then GET /v1/events?after= with the list's cursor";

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            next: next.into(),
            retry_after: None,
        }
    }

    /// 400 about one parameter.
    pub(super) fn parameter(name: &str, message: impl std::fmt::Display, next: &str) -> Self {
        let message = format!("{name}: {message}");
        Self::new(StatusCode::BAD_REQUEST, "BadParameter", message, next)
    }

    pub(super) fn unauthorized(wrong: bool) -> Self {
        let (code, message) = if wrong {
            ("WrongToken", "this bearer token is not the feed's")
        } else {
            ("NoToken", "the feed asks for a bearer token")
        };
        Self::new(
            StatusCode::UNAUTHORIZED,
            code,
            message,
            "send `Authorization: Bearer` with the token of the feed's Secret",
        )
    }

    pub(super) fn other_epoch() -> Self {
        let message = "this cursor is of another store: the one it came from was replaced";
        Self::new(StatusCode::GONE, "EpochChanged", message, LIST_AGAIN)
    }

    pub(super) fn busy(message: &str, after: Duration) -> Self {
        let next = format!("try again after {} s", after.as_secs());
        Self {
            retry_after: Some(after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooMany", message, next)
        }
    }

    pub(super) fn body(&self) -> String {
        serde_json::to_string(self).expect("texts and a number always serialise")
    }
}

impl From<EventsGone> for Problem {
    fn from(gone: EventsGone) -> Self {
        let code = match gone {
            EventsGone::Expired => "CursorExpired",
            EventsGone::AheadOfHead => "CursorAhead",
        };
        Self::new(StatusCode::GONE, code, gone.to_string(), LIST_AGAIN)
    }
}

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        tracing::warn!(%error, "the feed cannot read or write the store");
        let after = Duration::from_secs(5);
        let (code, message) = match error {
            StateError::Full(_) => ("StoreFull", "the store is full"),
            StateError::Busy(_) => ("StoreBusy", "the store is busy"),
            StateError::Failed(_) => ("StoreFailed", "the store failed; the process restarts"),
        };
        Self {
            retry_after: Some(after),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                code,
                message,
                "try again after 5 s",
            )
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body()).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, json);
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = if self.code == "WrongToken" {
                "Bearer realm=\"bellhop feed\", error=\"invalid_token\""
            } else {
                "Bearer realm=\"bellhop feed\""
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
