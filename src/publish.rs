//! From committed events to consumers: the envelope, the feed, and what a sink is.
//!
//! Owns: the CloudEvents that consumers see ([`event`]), the built-in feed ([`feed`]), the http
//! sink ([`http`]), and the [`Sink`] seam with the [`Verdict`] that every sink must come to.
//! Who sends what to a sink, when and how often is decided left of here, in `pipeline::deliver`.
//!
//! Never here: a change to an entity or its revision; a secret in an error, a log line or a
//! metric; anything of a sink's answer beyond its status and `Retry-After`.

pub mod event;
pub mod feed;
pub mod http;

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::clock::UnixMillis;
use crate::state::StoredEvent;

/// A place that events are sent to.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Sends one event once and says what came of it. May be called for several events at a time,
    /// never for two of one entity. May be dropped while it waits (the time limit is the
    /// caller's): the event is then sent again.
    async fn send(&self, event: &StoredEvent) -> Verdict;
}

/// What came of sending one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The sink has it.
    Delivered,
    /// The sink is not well: says nothing about the event, and counts as no attempt.
    NotWell {
        /// Why, for metrics and status.
        class: Class,
        /// How long the sink asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The sink will never take this event: a dead letter at once.
    Refused {
        /// Why, for metrics and status.
        class: Class,
        /// Why, for people. Says nothing that the sink wrote.
        reason: String,
    },
    /// This attempt failed; another may work. Counts against `delivery.retry`.
    Failed {
        /// Why, for metrics and status.
        class: Class,
        /// Why, for people. Says nothing that the sink wrote.
        reason: String,
    },
}

impl Verdict {
    /// The class, `delivered` included.
    pub const fn class(&self) -> Class {
        match self {
            Self::Delivered => Class::Delivered,
            Self::NotWell { class, .. }
            | Self::Refused { class, .. }
            | Self::Failed { class, .. } => *class,
        }
    }
}

/// What kind of answer a sink gave: a small fixed set, fit for a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It took the event.
    Delivered,
    /// No connection, or one that broke.
    Connection,
    /// No answer in time, or 408.
    Timeout,
    /// 401 or 403.
    Unauthorized,
    /// 404: the path is not there (yet).
    NotFound,
    /// 409.
    Conflict,
    /// 425 or 429: it asks to be sent less.
    Throttled,
    /// 5xx.
    ServerError,
    /// 3xx, 405, 407, 410, 421, 426: something else than the sink is at the address.
    WrongAddress,
    /// 400, 413, 415, 422: it understood the event and does not want it.
    Rejected,
    /// Any other status.
    Other,
    /// Our own side is not ready: CA file or headers unreadable or unusable.
    Misconfigured,
}

impl Class {
    /// The metric label and the word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::WrongAddress => "wrong_address",
            Self::Rejected => "rejected",
            Self::Other => "other",
            Self::Misconfigured => "misconfigured",
        }
    }

    /// Whether one single event can be what causes such an answer while the sink takes others.
    /// A sink that asks for less asks that of all events alike.
    pub const fn may_be_the_event(self) -> bool {
        !matches!(self, Self::Throttled | Self::Misconfigured)
    }
}

/// Where a sink stands, for `/status` and conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// Its name in the resource.
    pub name: String,
    /// Whether the sink took the last event that was tried for its own sake.
    pub well: bool,
    /// Since when that is so; absent before the first attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// The newest failure, also when the sink is well again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Class>,
    /// How many places the sink's durable cursor is behind the newest event; at least the number
    /// of events that it has not got, parked ones aside.
    pub behind: u64,
    /// Events kept apart because their entity is stuck.
    pub parked: u64,
    /// Events that became dead letters since this process started.
    pub dead_letters: u64,
}
