//! The HTTP client that every call to the provider goes through.
//!
//! Owns: connections, time limits, the size cap of one answer and of all answers in flight, the
//! request id and the credentials' headers, and the metrics of each call.
//!
//! Never here: what an answer means, or trying again. No redirect is followed (it could carry the
//! credentials elsewhere), no proxy is used, and nothing is sent in plain text unless the base URL
//! names this machine or was allowed on purpose.

use std::error::Error as _;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use reqwest::header::{self, HeaderValue};
use uuid::Uuid;

use super::base::BaseUrl;
use super::room::{BodyRoom, Room};
use super::{ServerTime, retry};
use crate::clock::Clock;
use crate::metrics::{Metrics, seconds_histogram};
use crate::secrets::{Credentials, Secret};

/// The largest answer that is read to its end.
pub const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// How much of an error's answer is read: enough for every error object.
pub(super) const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The first piece of room that a body takes; it doubles from there.
const FIRST_ROOM: usize = 64 * 1024;

/// Limits of the client. The defaults are meant for the real provider.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Time for one whole call, from the first byte sent to the last byte read, and with the wait
    /// for room. Above the 2 to 3 s that the provider itself may wait for a reservation system.
    pub timeout: Duration,
    /// Bytes of the largest answer.
    pub max_answer_bytes: usize,
    /// Bytes of all answers being read or understood at a time; at least one largest answer.
    pub max_in_flight_bytes: usize,
    /// Certificate authorities (PEM) to trust beside the system's: for a provider that is reached
    /// through somebody's own TLS proxy.
    pub authorities: Option<String>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            max_answer_bytes: MAX_ANSWER_BYTES,
            max_in_flight_bytes: 2 * MAX_ANSWER_BYTES,
            authorities: None,
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up the HTTP client: {reason}; is a package with CA certificates (ca-certificates) installed?"
)]
pub struct ClientError {
    reason: String,
}

/// Makes aws-lc-rs the process's TLS provider. Must run before the first TLS configuration is
/// built; may be called any number of times.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody installed one before, and that one stays.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// The certificates in a PEM text.
///
/// # Errors
/// There are none, or one cannot be read.
pub fn authorities(pem: &str) -> Result<Vec<reqwest::Certificate>, String> {
    let found = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
    let found = found.map_err(|error| innermost(&error))?;
    if found.is_empty() {
        return Err("there is no certificate in PEM in it".to_owned());
    }
    Ok(found)
}

/// The shared client. One for all of a process's calls to the provider: connections and the cap on
/// bodies in flight are shared through it.
pub struct HttpClient {
    http: reqwest::Client,
    settings: ClientSettings,
    room: Arc<BodyRoom>,
    metrics: ProviderMetrics,
    clock: Arc<dyn Clock>,
}

/// One call.
pub(super) struct Call<'a> {
    /// `registry` or `reseller`: a metric label.
    pub api: &'static str,
    /// What is asked, one of a small fixed set: a metric label.
    pub name: &'static str,
    /// The method.
    pub method: reqwest::Method,
    /// The whole URL. Not logged: it holds identifiers.
    pub url: &'a str,
    /// The JSON body of a write.
    pub body: Option<Vec<u8>>,
    /// Whose channel.
    pub credentials: &'a Credentials,
}

/// An answer, read to its end (or, unless it is a success, as far as an error object can reach).
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Vec<u8>,
    pub request_id: Uuid,
    /// `Date`, and our own clock when it was read.
    pub time: Option<ServerTime>,
    /// Held as long as the body is: it is what the cap counts.
    _room: Room,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Timeout,
    Connect,
    Cut,
    Protocol,
    TooLarge,
}

/// A call without an answer.
#[derive(Debug, Clone)]
pub(super) struct CallError {
    /// The answer was larger than allowed: asking again will not help.
    pub too_large: bool,
    /// What happened, with the request id; no URL and nothing of the answer.
    pub reason: String,
}

impl HttpClient {
    /// A client for calls to `bases`. System CA certificates are loaded only if one of them is https.
    ///
    /// # Errors
    /// When the system's CA certificates cannot be loaded.
    pub fn new(
        settings: ClientSettings,
        bases: &[&BaseUrl],
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, ClientError> {
        install_crypto_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("bellhop/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_mins(1))
            .pool_max_idle_per_host(16);
        if bases.iter().all(|base| base.is_plain()) {
            builder = builder.tls_certs_only([]);
        } else if let Some(pem) = &settings.authorities {
            let extra = authorities(pem).map_err(|reason| ClientError { reason })?;
            builder = builder.tls_certs_merge(extra);
        }
        let http = builder.build().map_err(|error| ClientError {
            reason: innermost(&error),
        })?;
        let metrics = ProviderMetrics::new(metrics);
        let room = BodyRoom::new(
            settings.max_in_flight_bytes,
            settings.max_answer_bytes,
            metrics.in_flight.clone(),
        );
        Ok(Arc::new(Self {
            http,
            settings,
            room,
            metrics,
            clock,
        }))
    }

    /// Makes one call, once.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<HttpAnswer, CallError> {
        let request_id = Uuid::new_v4();
        let (api, name) = (call.api, call.name);
        let begun = Instant::now();
        let result = tokio::time::timeout(self.settings.timeout, self.exchange(call, request_id))
            .await
            .unwrap_or_else(|_| {
                let limit = self.settings.timeout.as_secs_f32();
                Err((Lost::Timeout, format!("no whole answer within {limit} s")))
            });
        let took = begun.elapsed();
        let outcome = match &result {
            Ok(answer) => status_class(answer.status),
            Err((lost, _)) => lost.as_str(),
        };
        self.metrics.record(api, name, outcome, took);
        tracing::debug!(
            api,
            call = name,
            %request_id,
            outcome,
            status = result.as_ref().ok().map(|answer| answer.status),
            bytes = result.as_ref().ok().map(|answer| answer.body.len()),
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "called the provider"
        );
        result.map_err(|(lost, what)| CallError {
            too_large: lost == Lost::TooLarge,
            reason: format!("{what} ({api} {name}, request {request_id})"),
        })
    }

    /// Counts one more attempt of a call.
    pub(super) fn count_retry(&self, api: &'static str, call: &'static str) {
        let labels = CallLabels { api, call };
        self.metrics.retries.get_or_create(&labels).inc();
    }

    /// Counts a success whose body made no sense.
    pub(super) fn count_not_understood(&self, api: &'static str, call: &'static str) {
        let labels = CallLabels { api, call };
        self.metrics.not_understood.get_or_create(&labels).inc();
    }

    async fn exchange(
        &self,
        call: Call<'_>,
        request_id: Uuid,
    ) -> Result<HttpAnswer, (Lost, String)> {
        let mut request = self
            .http
            .request(call.method, call.url)
            .header(header::ACCEPT, "application/json")
            .header("x-request-id", request_id.to_string())
            .header("x-api-key", sensitive(&call.credentials.api_key))
            .header("x-api-secret", sensitive(&call.credentials.api_secret));
        if let Some(body) = call.body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        // Room first: an answer nobody has room for should stay at the provider.
        let mut room = self.room.enter();
        room.grow_to(FIRST_ROOM.min(self.settings.max_answer_bytes))
            .await;
        let response = request.send().await.map_err(|error| lost(&error))?;
        let status = response.status().as_u16();
        let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
        let retry_after = text(header::RETRY_AFTER)
            .and_then(|value| retry::retry_after(value, text(header::DATE), self.clock.now()));
        let time = text(header::DATE)
            .and_then(retry::http_date)
            .map(|theirs| ServerTime {
                theirs,
                ours: self.clock.now(),
            });
        let body = if response.status().is_success() {
            self.read_whole(response, &mut room).await?
        } else {
            read_start(response).await
        };
        Ok(HttpAnswer {
            status,
            retry_after,
            body,
            request_id,
            time,
            _room: room,
        })
    }

    /// Reads a body while there is room for it; drops the connection at the cap.
    async fn read_whole(
        &self,
        response: reqwest::Response,
        room: &mut Room,
    ) -> Result<Vec<u8>, (Lost, String)> {
        let cap = self.settings.max_answer_bytes;
        let too_large = || {
            let what = format!("the answer is larger than {cap} bytes and was dropped");
            (Lost::TooLarge, what)
        };
        if response
            .content_length()
            .is_some_and(|bytes| bytes > cap as u64)
        {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                let what = format!(
                    "the answer was cut off after {} bytes: {}",
                    body.len(),
                    innermost(&error)
                );
                (Lost::Cut, what)
            })?;
            let needed = body.len() + chunk.len();
            if needed > cap {
                return Err(too_large());
            }
            if needed > body.capacity() {
                let capacity = needed
                    .max(body.capacity().saturating_mul(2))
                    .max(FIRST_ROOM)
                    .min(cap);
                room.grow_to(capacity).await;
                body.reserve_exact(capacity - body.len());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The start of an error's body: empty when it cannot be read, since its status says enough.
async fn read_start(response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        let more = chunk.len().min(MAX_ERROR_BYTES - body.len());
        body.extend_from_slice(&chunk[..more]);
        if body.len() == MAX_ERROR_BYTES {
            break;
        }
    }
    body
}

fn sensitive(secret: &Secret) -> HeaderValue {
    let mut value = HeaderValue::from_str(secret.expose())
        .expect("the credential source lets printable ASCII through only");
    value.set_sensitive(true);
    value
}

fn lost(error: &reqwest::Error) -> (Lost, String) {
    let (lost, what) = if error.is_timeout() {
        (Lost::Timeout, "connecting took too long")
    } else if error.is_connect() {
        (Lost::Connect, "cannot connect")
    } else {
        (Lost::Protocol, "the connection ended without an answer")
    };
    (lost, format!("{what}: {}", innermost(error)))
}

/// The cause at the bottom of an error: the outer layers repeat the URL, which holds identifiers.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = None;
    while let Some(inner) = cause {
        text = Some(inner.to_string());
        cause = inner.source();
    }
    super::wire::clean(text.as_deref().unwrap_or("unknown cause"))
}

impl Lost {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Cut => "cut",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
        }
    }
}

const fn status_class(status: u16) -> &'static str {
    match status {
        200..=299 => "ok",
        404 | 410 => "not_found",
        401 | 403 => "unauthorized",
        429 => "throttled",
        400..=499 => "client_error",
        500..=599 => "server_error",
        _ => "other",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    api: &'static str,
    call: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    api: &'static str,
    call: &'static str,
    outcome: &'static str,
}

struct ProviderMetrics {
    requests: Family<OutcomeLabels, Counter>,
    duration: Family<CallLabels, Histogram, fn() -> Histogram>,
    retries: Family<CallLabels, Counter>,
    not_understood: Family<CallLabels, Counter>,
    in_flight: Gauge,
}

impl ProviderMetrics {
    fn new(metrics: &Metrics) -> Self {
        let new = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds_histogram),
            retries: Family::default(),
            not_understood: Family::default(),
            in_flight: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "provider_requests",
                "Requests sent to the provider, by how they ended",
                new.requests.clone(),
            );
            registry.register(
                "provider_request_duration_seconds",
                "Time of one request to the provider, answer and waiting for room included",
                new.duration.clone(),
            );
            registry.register(
                "provider_retries",
                "Requests to the registry that were sent again",
                new.retries.clone(),
            );
            registry.register(
                "provider_answers_not_understood",
                "Successful answers whose body made no sense",
                new.not_understood.clone(),
            );
            registry.register(
                "provider_bodies_in_flight_bytes",
                "Memory set aside for answers that are being read or understood",
                new.in_flight.clone(),
            );
        });
        new
    }

    fn record(&self, api: &'static str, call: &'static str, outcome: &'static str, took: Duration) {
        let labels = OutcomeLabels { api, call, outcome };
        self.requests.get_or_create(&labels).inc();
        self.duration
            .get_or_create(&CallLabels { api, call })
            .observe(took.as_secs_f64());
    }
}
