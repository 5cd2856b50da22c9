//! The answer to the operator's probe: "yes, what is sent to this URL reaches me".
//!
//! Owns: the choice of the answer, its rate limit and its counter. What is asked and answered is in
//! [`crate::api::probe`]. A probe comes in like a notification, with one header more.
//!
//! Never here: the store, a rule's key, a signature for somebody who has not proven the probe key.

use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::api::probe::{Answer, HEADER, Question};
use crate::api::{NotificationType, Route};
use crate::clock::Ticks;
use crate::metrics::Metrics;
use crate::provider::budget::TokenBucket;
use crate::secrets::Secret;

/// Proven probes that are answered per second, for long: the operator sends one every few minutes.
const PER_SECOND: u32 = 5;

/// And at once.
const BURST: u32 = 20;

/// A question and the proof that came with it.
pub(super) struct Asked {
    question: Question,
    proof: String,
}

/// Answers probes.
pub(super) struct Probes {
    bucket: Mutex<TokenBucket>,
    answers: [(Answer, Counter); Answer::ALL.len()],
}

impl Probes {
    pub fn new(metrics: &Metrics) -> Self {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        metrics.register(|registry| {
            registry.register(
                "receiver_probes",
                "Probes of the public URL that arrived, by what was answered",
                family.clone(),
            );
        });
        Self {
            bucket: Mutex::new(TokenBucket::new(PER_SECOND, BURST)),
            answers: Answer::ALL.map(|answer| {
                let labels = [("answer", answer.as_str())];
                (answer, family.get_or_create(&labels).clone())
            }),
        }
    }

    /// Whether a request is a probe. One that only looks like it is treated as a notification.
    pub fn asks(headers: &HeaderMap) -> Option<Asked> {
        let (question, proof) = Question::read(headers.get(HEADER)?.as_bytes())?;
        Some(Asked { question, proof })
    }

    /// The answer. `routed` tells whether the request's path leads to a type's rule.
    pub fn answer(
        &self,
        asked: &Asked,
        routed: impl Fn(NotificationType) -> bool,
        keys: &[Secret],
        now: Ticks,
    ) -> Response {
        let question = &asked.question;
        let mut keys = keys.iter().peekable();
        let any = keys.peek().is_some();
        let key = keys.find(|key| question.is_asked_by(key, &asked.proof));
        let answer = match key {
            None if any => Answer::OtherKey,
            None => Answer::NoKey,
            Some(_) if self.take(now).is_err() => Answer::Busy,
            Some(_) if Route::of(question.place()).is_some_and(|at| routed(at.kind)) => {
                Answer::Routed
            }
            Some(_) => Answer::Unrouted,
        };
        for (_, counter) in self.answers.iter().filter(|(one, _)| *one == answer) {
            counter.inc();
        }
        let retry = [(header::RETRY_AFTER, "5")];
        let body = answer.body(question, key);
        match answer {
            // An error could be replaced by a proxy's own page, and the proof would be lost.
            Answer::Routed | Answer::Unrouted => (StatusCode::OK, body).into_response(),
            Answer::OtherKey => (StatusCode::FORBIDDEN, body).into_response(),
            Answer::NoKey => (StatusCode::SERVICE_UNAVAILABLE, retry, body).into_response(),
            Answer::Busy => (StatusCode::TOO_MANY_REQUESTS, retry, body).into_response(),
        }
    }

    /// Only proven questions count: nobody else can use the share up.
    fn take(&self, now: Ticks) -> Result<(), std::time::Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(now)
    }
}
