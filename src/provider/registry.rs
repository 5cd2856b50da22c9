//! The Notification Registry (provider reference §2), and the choices where its documents are
//! silent (§8).
//!
//! Owns: the path of each type as data, the shape of a rule, pacing and retries of registry calls.
//!
//! Never here: a decision about a rule. A POST is never sent twice: after an unclear failure the
//! rule is read back, and what is there is what is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Map, Value};

use super::base::BaseUrl;
use super::budget::{self, TokenBucket};
use super::client::{Call, HttpAnswer, HttpClient};
use super::credentials::CredentialSource;
use super::wire::{self, ErrorObject};
use super::{Registry, RegistryError, Rule, RuleBody, ServerTime, json, retry};
use crate::api::NotificationType;
use crate::clock::Clock;
use crate::secrets::{Credentials, Secret};

const API: &str = "registry";

/// The longest `Retry-After` that a call waits for itself; a longer one is the caller's to keep.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How much of an error without an error object is shown (reference §8 row 19).
const SHOWN: usize = 80;

/// The path of each type below the base URL. Only the one for channel bindings is confirmed
/// (reference §2.2), so all can be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulePaths(BTreeMap<NotificationType, String>);

impl Default for RulePaths {
    fn default() -> Self {
        Self(
            [
                (NotificationType::ChannelBinding, "/channelbindings"),
                (NotificationType::Supplier, "/suppliers"),
                (NotificationType::Product, "/products"),
                (NotificationType::Rate, "/rates"),
                (NotificationType::Availability, "/availabilities"),
                (NotificationType::PriceSchedule, "/priceschedules"),
                (NotificationType::Booking, "/bookings"),
            ]
            .map(|(kind, path)| (kind, path.to_owned()))
            .into(),
        )
    }
}

impl RulePaths {
    /// The same with another path for one type; it begins with `/`.
    #[must_use]
    pub fn with(mut self, kind: NotificationType, path: impl Into<String>) -> Self {
        self.0.insert(kind, path.into());
        self
    }

    /// The path of a type.
    pub fn of(&self, kind: NotificationType) -> &str {
        self.0.get(&kind).map_or("", String::as_str)
    }
}

/// How hard and how fast the registry is asked.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Paths of the types.
    pub paths: RulePaths,
    /// Requests a second of this channel, and how many of them may come at once.
    pub requests_per_second: u32,
    /// See `requests_per_second`.
    pub burst: u32,
    /// Attempts of a GET, PUT or DELETE, the first included. A POST has one.
    pub max_attempts: u32,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            paths: RulePaths::default(),
            requests_per_second: 5,
            burst: 5,
            max_attempts: 4,
        }
    }
}

/// What every request to the registry passes just before it is sent: a budget, and for a process
/// that may lose its right to write, that right.
#[async_trait]
pub trait Turnstile: Send + Sync + 'static {
    /// Returns when a request may be sent. `write`: it is a POST, PUT or DELETE.
    ///
    /// # Errors
    /// Why it must not be sent at all, in words that hold no secret.
    async fn pass(&self, write: bool) -> Result<(), String>;
}

/// A budget of this client alone.
struct OwnBudget {
    bucket: Mutex<TokenBucket>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Turnstile for OwnBudget {
    async fn pass(&self, _write: bool) -> Result<(), String> {
        budget::pace(&self.bucket, self.clock.as_ref()).await;
        Ok(())
    }
}

/// Reads and writes rules. See [`Registry`].
pub struct RegistryClient {
    http: Arc<HttpClient>,
    base: BaseUrl,
    credentials: Arc<CredentialSource>,
    options: RegistryOptions,
    turnstile: Arc<dyn Turnstile>,
    clock: Arc<dyn Clock>,
    /// Whether this registry has ever sent an error object. Only then does a 404 without one mean
    /// that there is no such path (see [`RegistryClient::missing`]).
    sends_error_objects: AtomicBool,
    server_time: Mutex<Option<ServerTime>>,
}

impl RegistryClient {
    /// A client for the registry at `base`, `…/registry/v1`, with a budget of its own.
    pub fn new(
        http: Arc<HttpClient>,
        base: BaseUrl,
        credentials: Arc<CredentialSource>,
        options: RegistryOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let turnstile = Arc::new(OwnBudget {
            bucket: Mutex::new(TokenBucket::new(options.requests_per_second, options.burst)),
            clock: clock.clone(),
        });
        Self::behind(turnstile, http, base, credentials, options, clock)
    }

    /// The same, but every request passes `turnstile`; the budget in `options` is not looked at.
    pub fn behind(
        turnstile: Arc<dyn Turnstile>,
        http: Arc<HttpClient>,
        base: BaseUrl,
        credentials: Arc<CredentialSource>,
        options: RegistryOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            http,
            base,
            credentials,
            options,
            turnstile,
            clock,
            sends_error_objects: AtomicBool::new(false),
            server_time: Mutex::new(None),
        }
    }

    /// One request within the budget. Answers that are errors for every call are errors here.
    async fn send(
        &self,
        method: &Method,
        kind: NotificationType,
        body: Option<&[u8]>,
    ) -> Result<Reply, RegistryError> {
        let mut refused_generation = None;
        loop {
            self.turnstile
                .pass(*method != Method::GET)
                .await
                .map_err(|reason| RegistryError::Unavailable {
                    reason,
                    after: None,
                })?;
            let current = self.credentials.current().map_err(|error| {
                let reason = error.to_string();
                RegistryError::Unavailable {
                    reason,
                    after: None,
                }
            })?;
            let url = format!("{}{}", self.base, self.options.paths.of(kind));
            let call = Call {
                api: API,
                name: call_name(method),
                method: method.clone(),
                url: &url,
                body: body.map(<[u8]>::to_vec),
                credentials: &current.credentials,
            };
            let answer = self.http.call(call).await.map_err(|error| {
                let reason = format!("{kind}: {}", error.reason);
                RegistryError::Unavailable {
                    reason,
                    after: None,
                }
            })?;
            *self
                .server_time
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = answer.time;
            let error = (answer.status >= 400)
                .then(|| wire::error_object(&answer.body, &current.credentials))
                .flatten();
            if error.is_some() {
                self.sends_error_objects.store(true, Ordering::Relaxed);
            }
            if matches!(answer.status, 401 | 403) {
                // Refused credentials change nothing, so even a POST may go again with others.
                let used = current.generation;
                if self.credentials.reload() != used && refused_generation.is_none() {
                    refused_generation = Some(used);
                    continue;
                }
                let status = answer.status;
                return Err(RegistryError::Unauthorized { status });
            }
            let said = error.as_ref().map_or_else(
                || shown(&answer.body, &current.credentials),
                ToString::to_string,
            );
            return Ok(Reply {
                what: format!("{method} of the rule for {kind}"),
                said,
                error,
                answer,
            });
        }
    }

    /// [`Self::send`] until it is not a passing failure, for the calls that may be repeated.
    async fn send_again(
        &self,
        method: &Method,
        kind: NotificationType,
        body: Option<&[u8]>,
    ) -> Result<Reply, RegistryError> {
        let mut attempt = 1;
        loop {
            let failure = match self.send(method, kind, body).await {
                Ok(reply) if !reply.is_passing() => return Ok(reply),
                Ok(reply) => reply.failure(),
                Err(failure) => failure,
            };
            let RegistryError::Unavailable { after, .. } = &failure else {
                return Err(failure);
            };
            let after = after.unwrap_or_default();
            if attempt >= self.options.max_attempts || after > MAX_WAIT {
                return Err(failure);
            }
            // After the provider's own delay, still spread: others were told the same.
            self.clock.sleep(after + retry::backoff(attempt)).await;
            self.http.count_retry(API, call_name(method));
            attempt += 1;
        }
    }

    /// What a 404 to GET means: no rule, or no such path. The provider's error object says the
    /// former. Without one it is a path that nobody serves, if this registry is known to send
    /// error objects; if it is not, the question stays open until a POST, which no rule path
    /// answers with 404.
    fn missing(
        &self,
        kind: NotificationType,
        reply: &Reply,
    ) -> Result<Option<Rule>, RegistryError> {
        if reply.error.is_none() && self.sends_error_objects.load(Ordering::Relaxed) {
            return Err(self.unsupported(kind));
        }
        Ok(None)
    }

    fn unsupported(&self, kind: NotificationType) -> RegistryError {
        RegistryError::UnsupportedType {
            kind,
            path: self.options.paths.of(kind).to_owned(),
        }
    }

    /// After a POST whose outcome is not known, or whose answer lacks the key: the rule that is
    /// there now. `unclear` is told when none is.
    async fn read_back(
        &self,
        kind: NotificationType,
        body: &RuleBody,
        unclear: RegistryError,
    ) -> Result<Rule, RegistryError> {
        match self.get(kind).await? {
            Some(rule) if rule.url == body.url => Ok(rule),
            Some(_) => Err(RegistryError::Exists),
            None => Err(unclear),
        }
    }
}

#[async_trait]
impl Registry for RegistryClient {
    async fn get(&self, kind: NotificationType) -> Result<Option<Rule>, RegistryError> {
        let reply = self.send_again(&Method::GET, kind, None).await?;
        match reply.answer.status {
            200 => match rule(&reply.answer.body) {
                Ok(rule) => Ok(Some(rule)),
                Err(problem) => {
                    self.http.count_not_understood(API, "get");
                    Err(reply.not_understood(&problem))
                }
            },
            404 | 410 => self.missing(kind, &reply),
            _ => Err(reply.failure()),
        }
    }

    async fn create(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        let reply = match self.send(&Method::POST, kind, Some(&encode(body))).await {
            Ok(reply) => reply,
            Err(unclear @ RegistryError::Unavailable { .. }) => {
                return self.read_back(kind, body, unclear).await;
            }
            Err(error) => return Err(error),
        };
        match reply.answer.status {
            200..=299 => match rule(&reply.answer.body) {
                Ok(rule) if rule.security_key.is_some() => Ok(rule),
                _ => {
                    let unclear = reply.not_understood("shows no rule, and none can be read");
                    self.read_back(kind, body, unclear).await
                }
            },
            409 => Err(RegistryError::Exists),
            // Some registries say 400 when a rule exists, which only a look can tell from a
            // request that is wrong.
            400 => match self.get(kind).await? {
                Some(_) => Err(RegistryError::Exists),
                None => Err(reply.failure()),
            },
            404 | 405 | 501 => Err(self.unsupported(kind)),
            _ if reply.is_passing() => self.read_back(kind, body, reply.failure()).await,
            _ => Err(reply.failure()),
        }
    }

    async fn update(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError> {
        let reply = self
            .send_again(&Method::PUT, kind, Some(&encode(body)))
            .await?;
        match reply.answer.status {
            200..=299 => match rule(&reply.answer.body) {
                Ok(rule) if rule.security_key.is_some() => Ok(rule),
                _ => self.get(kind).await?.ok_or(RegistryError::NotFound),
            },
            404 | 410 => Err(RegistryError::NotFound),
            _ => Err(reply.failure()),
        }
    }

    async fn delete(&self, kind: NotificationType) -> Result<(), RegistryError> {
        let reply = self.send_again(&Method::DELETE, kind, None).await?;
        match reply.answer.status {
            200..=299 | 404 | 410 => Ok(()),
            _ => Err(reply.failure()),
        }
    }

    fn server_time(&self) -> Option<ServerTime> {
        *self
            .server_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient")
            .field("base", &self.base)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// An answer of the registry with any status but 401 and 403.
struct Reply {
    /// `GET of the rule for Booking`.
    what: String,
    /// Code and message, or the cleaned first characters of something else.
    said: String,
    error: Option<ErrorObject>,
    answer: HttpAnswer,
}

impl Reply {
    /// Whether the same request may succeed later.
    fn is_passing(&self) -> bool {
        match self.answer.status {
            408 | 425 | 429 => true,
            501 => false,
            status => status >= 500,
        }
    }

    fn failure(&self) -> RegistryError {
        let reason = format!(
            "{} was answered with {}: {} (request {})",
            self.what, self.answer.status, self.said, self.answer.request_id
        );
        match self.answer.status {
            400..=499 | 501 if !self.is_passing() => RegistryError::Refused { reason },
            _ => RegistryError::Unavailable {
                reason,
                after: self.answer.retry_after,
            },
        }
    }

    fn not_understood(&self, problem: &str) -> RegistryError {
        RegistryError::Unavailable {
            reason: format!(
                "the answer to {} with status {} {problem} (request {})",
                self.what, self.answer.status, self.answer.request_id
            ),
            after: None,
        }
    }
}

/// The first characters of an error that has no error object.
fn shown(body: &[u8], credentials: &Credentials) -> String {
    let start = wire::clean_answer(&String::from_utf8_lossy(body), credentials);
    match &start[..start.len().min(SHOWN)] {
        "" => "an empty body".to_owned(),
        start => format!("\"{start}\""),
    }
}

const fn call_name(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ => "get",
    }
}

fn encode(body: &RuleBody) -> Vec<u8> {
    serde_json::json!({
        "url": body.url,
        "disabled": body.disabled,
        "config": body.config,
    })
    .to_string()
    .into_bytes()
}

/// A rule as in reference §2.4. Only `url` must be there; `createdOn` and `updatedOn` are opaque,
/// text or number.
fn rule(body: &[u8]) -> Result<Rule, String> {
    let text = json::checked(body).map_err(|problem| problem.reason)?;
    let Ok(Value::Object(mut object)) = serde_json::from_str(text) else {
        return Err("is no object".to_owned());
    };
    let Some(Value::String(url)) = object.remove("url") else {
        return Err("has no textual `url`".to_owned());
    };
    let disabled = match object.remove("disabled") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(disabled)) => disabled,
        Some(_) => return Err("has a `disabled` that is neither true nor false".to_owned()),
    };
    let config = match object.remove("config") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(config)) => config,
        Some(_) => return Err("has a `config` that is no object".to_owned()),
    };
    let security_key = match object.remove("securityKey") {
        Some(Value::String(key)) if !key.is_empty() => Some(Secret::new(key)),
        None | Some(Value::Null | Value::String(_)) => None,
        Some(_) => return Err("has a `securityKey` that is no text".to_owned()),
    };
    let updated_on = match object.remove("updatedOn") {
        Some(Value::String(text)) => Some(text),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    Ok(Rule {
        url,
        disabled,
        config,
        security_key,
        updated_on,
    })
}
