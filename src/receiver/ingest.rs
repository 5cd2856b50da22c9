//! One request of the provider, and exactly one answer.
//!
//! Owns: the order of the checks (path, method, size, shape, signature, age, store) and the class of
//! each outcome.
//!
//! Never here: a 200 that the store has not confirmed; an echo of what was sent; a wait for
//! anything but the request's body and the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::body;
use super::keys::{KeyRing, Mismatch, RuleKey};
use super::notification::{self, BadBody};
use super::observe::{Class, Observed, ReceiverStatus};
use super::probe::Probes;
use super::refusal::Refusal;
use super::repeats::Repeats;
use super::signature::{Family, LayoutMemory, Unverified, Verified};
use crate::api::NotificationType;
use crate::clock::{Clock, UnixMillis};
use crate::metrics::Metrics;
use crate::settings::{SignatureScheme, SignatureSettings};
use crate::state::{Accepted, Notification, State};

/// How long the store may take. The provider gives up after 60 s.
const ACCEPT_TIME: Duration = Duration::from_secs(30);

/// How much of everything at once.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests whose notification is on its way into the store. Far fewer than the port's
    /// connections: each of them has only one, and 429 is for those beyond.
    pub in_flight: usize,
    /// Repeats of known signatures that a rule may send per second, for long.
    pub repeats_per_second: u32,
    /// And at once.
    pub repeats_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 1024,
            repeats_per_second: 200,
            repeats_burst: 5000,
        }
    }
}

/// What the receiver is told.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// The subscribed types; others get 404.
    pub types: Vec<NotificationType>,
    /// The ten hex digits that may end a rule's path.
    pub owner: String,
    /// The path of the subscription's `url` (`/redeam`): the shared URL without a type.
    pub base_path: String,
    /// `spec.signature`.
    pub signature: SignatureSettings,
    /// Limits.
    pub limits: Limits,
}

/// The endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Receiver(Arc<Ingest>);

struct Ingest {
    options: ReceiverOptions,
    base: Vec<String>,
    state: Arc<dyn State>,
    keys: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    observed: Observed,
    probes: Probes,
    layouts: [LayoutMemory; 7],
    repeats: [Repeats; 7],
    permits: Semaphore,
}

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Rule(NotificationType),
    /// The URL without a type: the key that fits tells it.
    Any,
}

impl Receiver {
    /// A receiver that hands what it verified under `keys` to `state`.
    pub fn new(
        options: ReceiverOptions,
        state: Arc<dyn State>,
        keys: Arc<KeyRing>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Self {
        let limits = &options.limits;
        Self(Arc::new(Ingest {
            base: segments(&options.base_path).map(str::to_owned).collect(),
            state,
            keys,
            clock,
            observed: Observed::new(metrics),
            probes: Probes::new(metrics),
            layouts: Default::default(),
            repeats: std::array::from_fn(|_| {
                Repeats::new(limits.repeats_per_second, limits.repeats_burst)
            }),
            permits: Semaphore::new(limits.in_flight),
            options,
        }))
    }

    /// The routes of the public port: any path, since a proxy may strip or add a prefix.
    pub fn router(&self) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }

    /// A snapshot for `/status`.
    pub fn status(&self) -> ReceiverStatus {
        let ingest = &self.0;
        ReceiverStatus {
            rules: ingest
                .options
                .types
                .iter()
                .map(|&kind| {
                    let keys = ingest.keys.fingerprints(kind);
                    let shown = keys.iter().map(ToString::to_string).collect();
                    ingest.observed.status(kind, shown)
                })
                .collect(),
            in_flight: ingest.observed.in_flight.get(),
        }
    }
}

/// Counts a request as in flight, also when its connection breaks and it is dropped.
struct InFlight<'a>(&'a Observed);

impl<'a> InFlight<'a> {
    fn new(observed: &'a Observed) -> Self {
        observed.in_flight.inc();
        Self(observed)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

async fn handle(Shared(receiver): Shared<Receiver>, request: Request<Body>) -> Response {
    let ingest = &*receiver.0;
    let _in_flight = InFlight::new(&ingest.observed);
    let started = Instant::now();
    let target = ingest.target(request.uri().path());
    if let Some(question) = Probes::asks(request.headers()) {
        let (head, body) = request.into_parts();
        body::discard(body, &head.headers).await;
        let routed =
            |kind| matches!(target, Some(Target::Any)) || target == Some(Target::Rule(kind));
        let (keys, now) = (ingest.keys.probe(), ingest.clock.ticks());
        return ingest.probes.answer(&question, routed, &keys, now);
    }
    let mut kind = match target {
        Some(Target::Rule(kind)) => Some(kind),
        _ => None,
    };
    let result = ingest.answer(target, request, &mut kind).await;
    let now = ingest.clock.now();
    match result {
        Ok(()) => {
            ingest.observed.answered(kind, Class::Accepted, now);
            ingest
                .observed
                .accept_seconds
                .observe(started.elapsed().as_secs_f64());
            StatusCode::OK.into_response()
        }
        Err(refusal) => {
            ingest.observed.answered(kind, refusal.class, now);
            refusal.into_response()
        }
    }
}

impl Ingest {
    /// `kind` is the type as far as it is known, for the counters.
    async fn answer(
        &self,
        target: Option<Target>,
        request: Request<Body>,
        kind: &mut Option<NotificationType>,
    ) -> Result<(), Refusal> {
        let (head, body) = request.into_parts();
        let early = match target {
            None => Some(Refusal::new(
                Class::NoRule,
                "path: names no rule of this receiver\n",
            )),
            Some(_) if head.method != Method::POST => {
                Some(Refusal::new(Class::NotPost, "method: expected POST\n"))
            }
            Some(_) => None,
        };
        if let Some(refusal) = early {
            body::discard(body, &head.headers).await;
            return Err(refusal);
        }
        let body = body::read(body, &head.headers).await?;
        let unverified = Unverified::parse(body)
            .map_err(|bad: BadBody| Refusal::new(Class::BadBody, format!("{bad}\n")))?;
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| Refusal::new(Class::Busy, "too many requests at once; try again\n"))?;
        let (rule, verified) = match target {
            Some(Target::Rule(rule)) => (rule, self.verify(&[rule], unverified).await?.1),
            _ => self.verify(&self.options.types, unverified).await?,
        };
        *kind = Some(rule);
        self.store(rule, &verified, &head.headers).await
    }

    /// Which rule a path names: by its last segment, our owner left aside, whatever stands before.
    fn target(&self, path: &str) -> Option<Target> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = path
            .strip_suffix(self.options.owner.as_str())
            .filter(|_| !self.options.owner.is_empty())
            .and_then(|rest| rest.strip_suffix('/'))
            .unwrap_or(path);
        let last = path.rsplit('/').next().unwrap_or_default();
        let shared = || {
            // The subscription's own path, or what is left of it when a proxy strips a prefix, or
            // with a prefix that a proxy added.
            let mut ours = self.base.iter().rev();
            let mut theirs = segments(path).rev();
            loop {
                match (ours.next(), theirs.next()) {
                    (Some(own), Some(their)) if own == their => {}
                    (_, None) => return true,
                    (None, Some(_)) => return !self.base.is_empty(),
                    (Some(_), Some(_)) => return false,
                }
            }
        };
        match NotificationType::from_segment(last) {
            Some(kind) if self.options.types.contains(&kind) => Some(Target::Rule(kind)),
            Some(_) => None,
            None => shared().then_some(Target::Any),
        }
    }

    /// Tries the keys of each of `rules`. The one that fits tells the rule.
    async fn verify(
        &self,
        rules: &[NotificationType],
        mut unverified: Unverified,
    ) -> Result<(NotificationType, Verified), Refusal> {
        let now = self.clock.ticks();
        let scheme = self.options.signature.scheme;
        let mut without_key = false;
        for &rule in rules {
            let keys = Arc::clone(&self.keys.keys(rule));
            let mut any = false;
            for key in keys.iter().filter(|key| key.valid(now)) {
                any = true;
                if unverified.family() == Family::Md5
                    && scheme == SignatureScheme::Auto
                    && self.md5_over(key).await?
                {
                    continue;
                }
                let layouts = &self.layouts[rule as usize];
                match unverified.verify(&key.signing, scheme, layouts) {
                    Ok(verified) => {
                        let hmac = verified.sum().family() == Family::HmacSha256;
                        if hmac && scheme == SignatureScheme::Auto && key.md5_over() != Some(true) {
                            self.end_md5(key).await?;
                        }
                        return Ok((rule, verified));
                    }
                    Err(back) => unverified = back,
                }
            }
            without_key |= !any;
        }
        // Each rule is asked: one that is due for a re-read must get it.
        let waits = rules
            .iter()
            .filter(|&&rule| self.keys.mismatch(rule) == Mismatch::Wait)
            .count();
        Err(if without_key {
            Refusal::new(Class::NoKey, "no signing key is loaded yet; try again\n")
        } else if waits > 0 {
            Refusal::new(
                Class::KeyReread,
                "no key fits the signature; the keys are being read again; try again\n",
            )
        } else {
            Refusal::new(Class::NotAuthentic, "signature: no key of this rule fits\n")
        })
    }

    /// Whether an earlier HMAC-SHA256 notification forbids MD5 under this key. Asks the store once.
    async fn md5_over(&self, key: &RuleKey) -> Result<bool, Refusal> {
        if let Some(over) = key.md5_over() {
            return Ok(over);
        }
        let _first = key.md5_fact.lock().await;
        if let Some(over) = key.md5_over() {
            return Ok(over);
        }
        let fact = self.state.fact(&md5_fact_name(key)).await;
        let over = fact.map_err(|_| Refusal::store_unavailable())?.is_some();
        key.set_md5_over(over);
        Ok(over)
    }

    /// The first authentic HMAC-SHA256 under a key: MD5 is over, durably, before the 200.
    async fn end_md5(&self, key: &RuleKey) -> Result<(), Refusal> {
        if self.md5_over(key).await? {
            return Ok(());
        }
        let _first = key.md5_fact.lock().await;
        if key.md5_over() == Some(true) {
            return Ok(());
        }
        self.state
            .put_fact(&md5_fact_name(key), Some(b"1".to_vec()))
            .await
            .map_err(|_| Refusal::store_unavailable())?;
        key.set_md5_over(true);
        Ok(())
    }

    async fn store(
        &self,
        rule: NotificationType,
        verified: &Verified,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let received = self.clock.now();
        let timestamp = UnixMillis::from_secs(verified.timestamp());
        let settings = &self.options.signature;
        let ahead = timestamp.since(received) > settings.max_skew;
        let md5 = verified.sum().family() == Family::Md5;
        let ahead_millis = timestamp.0.saturating_sub(received.0);
        self.observed.authentic(rule, md5, ahead_millis, ahead);
        if timestamp.since(received) > settings.max_age
            || received.since(timestamp) > settings.max_age
        {
            return Err(Refusal::new(
                Class::TooOld,
                "signature.timestamp: too far from the present\n",
            ));
        }
        let sum = verified.sum().as_bytes();
        let repeats = &self.repeats[rule as usize];
        if repeats.exhausted(sum, self.clock.ticks()) {
            return Err(Refusal::too_many_repeats());
        }
        let named = notification::named(rule, verified);
        if let Some(at) = named.shown_timestamp {
            tracing::debug!(rule = %rule, at, "a timestamp at the top of the body, not used");
        }
        let notification = Notification {
            rule,
            key: named.key,
            removed: named.operation == Some(crate::api::Operation::Removed),
            sum: sum.to_vec(),
            timestamp,
            received,
            body: verified.body().clone(),
            traceparent: traceparent(headers),
        };
        let accepting = self.state.accept(notification);
        let accepted = match tokio::time::timeout(ACCEPT_TIME, accepting).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                tracing::debug!(rule = %rule, %error, "the store cannot take a notification");
                return Err(Refusal::store_unavailable());
            }
            Err(_) => return Err(Refusal::store_unavailable()),
        };
        self.observed.stored(rule, accepted, received);
        match accepted {
            Accepted::Marked | Accepted::Stale | Accepted::DeadLetter => Ok(()),
            Accepted::Duplicate | Accepted::SignatureReused
                if repeats.take(sum, self.clock.ticks()) =>
            {
                Ok(())
            }
            Accepted::Duplicate | Accepted::SignatureReused => Err(Refusal::too_many_repeats()),
            Accepted::Replayed => Err(Refusal::new(
                Class::Replayed,
                "signature.sum: seen with too many different bodies\n",
            )),
            Accepted::BacklogFull => Err(Refusal::new(
                Class::Backlog,
                "the backlog is full; try again\n",
            )),
        }
    }
}

fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn md5_fact_name(key: &RuleKey) -> String {
    format!("md5-over/{}", key.signing.fingerprint())
}

/// A valid W3C `traceparent` of version 00, else nothing.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let fits = text.len() == 55
        && text.bytes().enumerate().all(|(at, byte)| match at {
            0 | 1 => byte == b'0',
            2 | 35 | 52 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        });
    fits.then(|| text.to_owned())
}
