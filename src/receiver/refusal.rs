//! The answer to a request that is not taken.
//!
//! Owns: the status, the `Retry-After` and the connection's end of each class. The provider retries
//! only 408, 425, 429, 502, 503 and 504, so whatever is wrong on our side is one of these.
//!
//! Never here: an echo of what was sent.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::observe::Class;

/// The answer to one request: its class and what it says to a person who reads it.
pub(super) struct Refusal {
    pub(super) class: Class,
    text: String,
}

impl Refusal {
    pub(super) fn new(class: Class, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { class, text }
    }

    pub(super) fn store_unavailable() -> Self {
        Self::new(Class::Store, "the store is not available; try again\n")
    }

    pub(super) fn too_many_repeats() -> Self {
        let text = "too many repeats of known signatures; try again\n";
        Self::new(Class::Repeats, text)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, retry_after, close) = match self.class {
            Class::Accepted => (StatusCode::OK, None, false),
            Class::BadBody | Class::CutBody => (StatusCode::BAD_REQUEST, None, false),
            Class::NotAuthentic | Class::TooOld | Class::Replayed => {
                (StatusCode::UNAUTHORIZED, None, false)
            }
            Class::NoRule => (StatusCode::NOT_FOUND, None, false),
            Class::NotPost => (StatusCode::METHOD_NOT_ALLOWED, None, false),
            Class::SlowBody => (StatusCode::REQUEST_TIMEOUT, None, true),
            Class::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, None, true),
            Class::Busy => (StatusCode::TOO_MANY_REQUESTS, Some("1"), false),
            Class::Backlog => (StatusCode::TOO_MANY_REQUESTS, Some("10"), false),
            Class::Repeats => (StatusCode::TOO_MANY_REQUESTS, Some("5"), false),
            Class::NoKey | Class::KeyReread | Class::Store => {
                (StatusCode::SERVICE_UNAVAILABLE, Some("5"), false)
            }
        };
        let mut response = (status, self.text).into_response();
        let headers = response.headers_mut();
        let fixed = header::HeaderValue::from_static;
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, fixed(seconds));
        }
        if close {
            headers.insert(header::CONNECTION, fixed("close"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, fixed("POST"));
        }
        response
    }
}
