//! What the receiver says about itself: metrics and the part of `/status` that is its own.
//!
//! Owns: the classes of answers, their counters (resolved once, not looked up per request), and
//! the snapshot per rule. Never here: a label or a status value out of an unverified body.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;

use crate::api::NotificationType;
use crate::clock::UnixMillis;
use crate::metrics::{Metrics, seconds_histogram};
use crate::state::Accepted;

/// Why a request got the answer it got: a small fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// 200: durable.
    Accepted,
    /// 400: no usable signature object.
    BadBody,
    /// 401: no key fits.
    NotAuthentic,
    /// 401: authentic, but too far from now.
    TooOld,
    /// 401: one signature with too many bodies.
    Replayed,
    /// 404: no such rule.
    NoRule,
    /// 405: not POST.
    NotPost,
    /// 408: the body came too slowly.
    SlowBody,
    /// 400: the body broke off.
    CutBody,
    /// 413: over the size limit.
    TooLarge,
    /// 429: backlog at its bound.
    Backlog,
    /// 429: too many at once.
    Busy,
    /// 429: too many repeats.
    Repeats,
    /// 503: no key loaded.
    NoKey,
    /// 503: no key fits, keys are being re-read.
    KeyReread,
    /// 503: the store cannot take it.
    Store,
}

impl Class {
    const ALL: [(Self, &'static str); 16] = [
        (Self::Accepted, "accepted"),
        (Self::BadBody, "bad_body"),
        (Self::NotAuthentic, "not_authentic"),
        (Self::TooOld, "too_old"),
        (Self::Replayed, "replayed"),
        (Self::NoRule, "no_rule"),
        (Self::NotPost, "not_post"),
        (Self::SlowBody, "slow_body"),
        (Self::CutBody, "cut_body"),
        (Self::TooLarge, "too_large"),
        (Self::Backlog, "backlog"),
        (Self::Busy, "busy"),
        (Self::Repeats, "repeats"),
        (Self::NoKey, "no_key"),
        (Self::KeyReread, "key_reread"),
        (Self::Store, "store"),
    ];

    fn name(index: u64) -> Option<&'static str> {
        Self::ALL
            .get(usize::try_from(index).ok()?)
            .map(|(_, name)| *name)
    }
}

const LEDGER: [&str; 7] = [
    "marked",
    "duplicate",
    "signature_reused",
    "stale",
    "dead_letter",
    "replayed",
    "backlog_full",
];

const fn ledger_index(accepted: Accepted) -> usize {
    match accepted {
        Accepted::Marked => 0,
        Accepted::Duplicate => 1,
        Accepted::SignatureReused => 2,
        Accepted::Stale => 3,
        Accepted::DeadLetter => 4,
        Accepted::Replayed => 5,
        Accepted::BacklogFull => 6,
    }
}

const NO_ERROR: u64 = u64::MAX;

/// Counters of one rule, or of requests that name none.
struct Rule {
    answers: [Counter; Class::ALL.len()],
    ledger: [Counter; LEDGER.len()],
    md5: Gauge,
    skew: Gauge<f64, AtomicU64>,
    last_valid: AtomicI64,
    last_error: AtomicU64,
    last_error_at: AtomicI64,
    weak: AtomicBool,
    ahead: AtomicBool,
}

/// All of the receiver's metrics.
pub(super) struct Observed {
    /// By type; the last is for requests of no known type.
    rules: Vec<Rule>,
    /// From the request's head to its answer.
    pub accept_seconds: Histogram,
    /// Requests being handled.
    pub in_flight: Gauge,
}

impl Observed {
    pub fn new(metrics: &Metrics) -> Self {
        type Labels = [(&'static str, &'static str); 2];
        let answers = Family::<Labels, Counter>::default();
        let ledger = Family::<Labels, Counter>::default();
        let md5 = Family::<[(&'static str, &'static str); 1], Gauge>::default();
        let skew = Family::<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>::default();
        let accept_seconds = seconds_histogram();
        let in_flight = Gauge::default();
        metrics.register(|registry| {
            registry.register(
                "receiver_requests",
                "Requests of the provider, by type and class of the answer",
                answers.clone(),
            );
            registry.register(
                "receiver_notifications",
                "Authentic notifications, by type and what the store made of them",
                ledger.clone(),
            );
            registry.register(
                "receiver_md5_in_use",
                "1 while the newest authentic notification of the type was signed with MD5",
                md5.clone(),
            );
            registry.register(
                "receiver_clock_ahead_seconds",
                "How far the newest authentic notification's timestamp lay in our future, by type",
                skew.clone(),
            );
            registry.register(
                "receiver_request_duration_seconds",
                "Time from a request's head to its answer, for authentic notifications",
                accept_seconds.clone(),
            );
            registry.register(
                "receiver_in_flight_requests",
                "Requests being handled",
                in_flight.clone(),
            );
        });
        let names = NotificationType::ALL
            .map(NotificationType::as_str)
            .into_iter()
            .chain(["none"]);
        let rules = names
            .map(|kind| Rule {
                answers: Class::ALL.map(|(_, class)| {
                    answers
                        .get_or_create(&[("type", kind), ("answer", class)])
                        .clone()
                }),
                ledger: LEDGER.map(|result| {
                    ledger
                        .get_or_create(&[("type", kind), ("result", result)])
                        .clone()
                }),
                md5: md5.get_or_create(&[("type", kind)]).clone(),
                skew: skew.get_or_create(&[("type", kind)]).clone(),
                last_valid: AtomicI64::new(i64::MIN),
                last_error: AtomicU64::new(NO_ERROR),
                last_error_at: AtomicI64::new(0),
                weak: AtomicBool::new(false),
                ahead: AtomicBool::new(false),
            })
            .collect();
        Self {
            rules,
            accept_seconds,
            in_flight,
        }
    }

    fn rule(&self, kind: Option<NotificationType>) -> &Rule {
        &self.rules[kind.map_or(NotificationType::ALL.len(), |kind| kind as usize)]
    }

    pub fn answered(&self, kind: Option<NotificationType>, class: Class, now: UnixMillis) {
        let rule = self.rule(kind);
        rule.answers[class as usize].inc();
        if class != Class::Accepted {
            rule.last_error.store(class as u64, Ordering::Relaxed);
            rule.last_error_at.store(now.0, Ordering::Relaxed);
        }
    }

    pub fn stored(&self, kind: NotificationType, accepted: Accepted, now: UnixMillis) {
        let rule = self.rule(Some(kind));
        rule.ledger[ledger_index(accepted)].inc();
        rule.last_valid.fetch_max(now.0, Ordering::Relaxed);
    }

    /// An authentic notification: its family, and how far it is ahead of our clock.
    pub fn authentic(&self, kind: NotificationType, md5: bool, ahead_millis: i64, ahead: bool) {
        let rule = self.rule(Some(kind));
        if rule.weak.swap(md5, Ordering::Relaxed) != md5 {
            rule.md5.set(i64::from(md5));
        }
        rule.skew.set(ahead_millis.max(0) as f64 / 1000.0);
        rule.ahead.store(ahead, Ordering::Relaxed);
    }

    pub fn status(&self, kind: NotificationType, keys: Vec<String>) -> RuleStatus {
        let rule = self.rule(Some(kind));
        let at = |stored: i64| (stored != i64::MIN).then_some(UnixMillis(stored));
        let error = Class::name(rule.last_error.load(Ordering::Relaxed));
        RuleStatus {
            kind,
            accepted: rule.answers[Class::Accepted as usize].get(),
            refused: rule.answers[1..].iter().map(Counter::get).sum(),
            duplicates: rule.ledger[1].get(),
            stale: rule.ledger[3].get(),
            last_valid: at(rule.last_valid.load(Ordering::Relaxed)).map(UnixMillis::rfc3339),
            key_fingerprints: keys,
            weak_signature: rule.weak.load(Ordering::Relaxed),
            clock_ahead: rule.ahead.load(Ordering::Relaxed),
            last_error: error,
            last_error_time: error
                .map(|_| UnixMillis(rule.last_error_at.load(Ordering::Relaxed)).rfc3339()),
        }
    }
}

/// The receiver's part of `/status`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverStatus {
    /// One for each subscribed type.
    pub rules: Vec<RuleStatus>,
    /// Requests being handled.
    pub in_flight: i64,
}

/// How one rule's notifications fare.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// Requests answered with 200.
    pub accepted: u64,
    /// Requests answered otherwise.
    pub refused: u64,
    /// Of the accepted: known already.
    pub duplicates: u64,
    /// Of the accepted: older than a confirmed fetch.
    pub stale: u64,
    /// When the newest authentic notification came in, RFC 3339.
    pub last_valid: Option<String>,
    /// Fingerprints of the keys that are valid now, newest first.
    pub key_fingerprints: Vec<String>,
    /// Whether the newest authentic notification was signed with MD5.
    pub weak_signature: bool,
    /// Whether the newest authentic notification came from further in the future than `maxSkew`.
    pub clock_ahead: bool,
    /// Class of the newest refusal.
    pub last_error: Option<&'static str>,
    /// When that was.
    pub last_error_time: Option<String>,
}
