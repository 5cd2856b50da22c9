//! Everything about the simulated provider that can be switched: the open questions of its
//! documentation, and the ways in which a real one misbehaves.
//!
//! Owns: [`Faults`], its names, its documentation and its textual form. A name is the same in
//! JSON (`PATCH /control/faults`) and on the command line (`--fault name=value`). Never here: what
//! a fault does; that is where it happens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::signing::Scheme;

/// Why `--fault name=value` or a JSON object is not a set of faults.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// There is no `=`.
    #[error("`{0}` is not of the form name=value, for example `duplicate=0.3`")]
    Form(String),
    /// No such name.
    #[error("there is no fault `{name}`; the names are: {names}")]
    Name {
        /// What was asked for.
        name: String,
        /// All that exist, separated by commas.
        names: String,
    },
    /// The value does not fit.
    #[error("fault `{name}`: `{value}` does not fit: {reason}")]
    Value {
        /// The fault.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON object of faults does not fit.
    #[error("{0}; the names and their meaning are at GET /control/faults/names")]
    Json(String),
}

/// Defines the struct, its defaults and the list of names with their documentation in one place.
macro_rules! faults {
    ($( $(#[doc = $doc:literal])+ $field:ident : $type:ty = $default:expr, )+) => {
        /// All switches of the simulated provider. [`Default`] is a well-behaved provider that
        /// does what its documentation says, with the most likely choice where that is silent.
        /// Probabilities are from 0 (never) to 1 (always).
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct Faults {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl Default for Faults {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl Faults {
            /// Every fault: its name, as in JSON and on the command line, and what it does.
            pub fn names() -> Vec<(String, String)> {
                vec![ $( (
                    stringify!($field).replace('_', "-"),
                    concat!($($doc),+).trim().to_owned(),
                ), )+ ]
            }
        }
    };
}

faults! {
    /// Probability that a notification is sent twice, with the same signature.
    duplicate: f64 = 0.0,
    /// Probability that, beside a notification, an old one is sent again as it was.
    replay: f64 = 0.0,
    /// Probability that a notification is never sent.
    drop: f64 = 0.0,
    /// Probability that a notification is held back, so that later ones overtake it.
    reorder: f64 = 0.0,
    /// How long a held-back notification waits at most, in milliseconds.
    reorder_ms: u64 = 500,
    /// Shortest delay before each notification, in milliseconds.
    delay_min_ms: u64 = 0,
    /// Longest delay before each notification, in milliseconds.
    delay_max_ms: u64 = 0,
    /// How notifications are signed: hmac-sha256, or md5-a to md5-g.
    sign: Scheme = Scheme::HmacSha256,
    /// Whether each attempt gets a signature of its own (false: retries repeat the first one).
    sign_retry_anew: bool = false,
    /// Probability that a notification carries a signature made with another key.
    wrong_signature: f64 = 0.0,
    /// Seconds that the provider's signing clock is ahead (negative: behind).
    timestamp_skew_s: i64 = 0,
    /// Whether deliveries are retried after network errors and timeouts (false: lost).
    retry_network_errors: bool = false,
    /// Whether availability, price schedule and booking notifications carry `operation`.
    operation_everywhere: bool = false,
    /// Whether availability and price schedule notifications carry `start` and `end`.
    date_range: bool = false,
    /// Whether booking notifications carry `supplierID` and `productID` too.
    booking_parents: bool = false,
    /// What happens to notifications of a disabled rule: drop, or queue until it is enabled.
    while_disabled: WhileDisabled = WhileDisabled::Drop,
    /// To which rules the filters supplierIDs, productIDs, rateIDs apply: all, channel-binding, none.
    filter_scope: FilterScope = FilterScope::All,

    /// Renamed registry paths, `kind:segment` separated by commas, for example
    /// `availability:availability`. The default segment then answers 404.
    registry_paths: BTreeMap<String, String> = BTreeMap::new(),
    /// Status of a successful POST of a rule.
    post_status: u16 = 201,
    /// Whether a successful POST of a rule answers with the rule (false: empty body).
    post_body: bool = true,
    /// What a POST does when the rule exists: conflict (409), bad-request (400), replace (silently, with a new key).
    post_existing: PostExisting = PostExisting::Conflict,
    /// Status of a successful DELETE of a rule.
    delete_status: u16 = 204,
    /// Whether PUT makes a new securityKey.
    put_new_key: bool = false,
    /// Whether PUT merges `config` into the stored one instead of replacing it.
    put_merge: bool = false,
    /// Whether securityKey, createdOn and updatedOn in a POST or PUT are ignored instead of refused.
    ignore_read_only: bool = false,
    /// Whether a channel-binding rule without operations is accepted instead of refused.
    allow_no_operations: bool = false,
    /// Whether rules may have an `http` URL.
    allow_http: bool = false,
    /// Whether two rules with one URL are refused.
    unique_urls: bool = false,
    /// Whether createdOn and updatedOn are epoch numbers instead of RFC 3339 texts.
    epoch_times: bool = false,
    /// Shape of registry errors: json (as the reseller API's), flat ({"message"}), empty, html.
    registry_errors: ErrorShape = ErrorShape::Json,

    /// Which API the faults below concern: all, registry, reseller.
    on: Api = Api::All,
    /// Probability that a call is answered with a status of `fail-status`.
    fail: f64 = 0.0,
    /// The statuses of `fail`, separated by commas; one is chosen at random.
    fail_status: Vec<u16> = vec![503],
    /// Only calls whose path or query contains this text fail by `fail`; empty for all of them.
    fail_path: String = String::new(),
    /// Seconds in the `Retry-After` of 429 and 503 answers; `none` for no such header.
    retry_after: Option<u64> = None,
    /// Calls a second that are served, the rest gets 429; 0 for no limit.
    rate_limit: u32 = 0,
    /// Whether the right credentials are refused with 401.
    unauthorized: bool = false,
    /// Shortest time an answer takes, in milliseconds.
    latency_min_ms: u64 = 0,
    /// Longest time an answer takes, in milliseconds.
    latency_max_ms: u64 = 0,
    /// Probability that a call is answered only after `hang-ms`.
    hang: f64 = 0.0,
    /// How long a hanging call takes, in milliseconds.
    hang_ms: u64 = 60_000,
    /// Probability that an answer is HTML with status 200, as from a broken gateway.
    html: f64 = 0.0,
    /// Probability that an answer is cut in the middle of its body.
    cut: f64 = 0.0,
    /// Probability that the connection ends without an answer.
    abort: f64 = 0.0,
    /// Pause in the middle of each answer's body, in milliseconds.
    body_pause_ms: u64 = 0,
    /// Probability that an answer is a JSON body of `huge-bytes`.
    huge: f64 = 0.0,
    /// Size of a huge answer in bytes.
    huge_bytes: u64 = 100_000_000,

    /// Age in milliseconds up to which availability is answered from a cache; 0 for no cache.
    cache_max_age_ms: u64 = 0,
    /// Probability that the reservation system is slow when the cache is too old: the stale
    /// answer is returned (an empty one if nothing is cached) and the cache is filled later.
    cache_slow: f64 = 0.0,
    /// How long such an answer waits for the reservation system in vain, in milliseconds; the
    /// provider waits 2000 to 3000.
    cache_wait_ms: u64 = 0,
    /// How much after the call the cache is filled, in milliseconds.
    cache_fill_ms: u64 = 3000,
    /// Whether a change of availability reloads the cache before it is notified.
    cache_reload: bool = false,
    /// Probability that supplier, product, rate or booking is answered as it was before its last
    /// change, with the lower version.
    stale: f64 = 0.0,
    /// How long after a change such stale answers can come, in milliseconds.
    stale_ms: u64 = 10_000,
    /// Whether `retrieved` and `expires` have milliseconds (false: whole seconds, as documented).
    cache_times_ms: bool = false,
    /// Whether objects lack `version`.
    no_versions: bool = false,
    /// Whether removed objects answer 410 instead of 404.
    gone: bool = false,
}

/// What happens to notifications of a disabled rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhileDisabled {
    /// They are never sent.
    Drop,
    /// They are sent once the rule is enabled again.
    Queue,
}

/// Which rules apply filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilterScope {
    /// Rules of every kind.
    All,
    /// Only the channel-binding rule.
    ChannelBinding,
    /// No rule: filters are stored and echoed only.
    None,
}

/// What a POST of an existing rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PostExisting {
    /// 409.
    Conflict,
    /// 400.
    BadRequest,
    /// The rule is replaced and gets a new key.
    Replace,
}

/// How the registry's errors look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorShape {
    /// `{"error":{"code","message"}}`.
    Json,
    /// `{"message"}`.
    Flat,
    /// No body.
    Empty,
    /// A page.
    Html,
}

/// Which of the two APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// Both.
    All,
    /// The Notification Registry.
    Registry,
    /// The reseller API.
    Reseller,
}

impl Faults {
    /// Sets one fault from its textual form, `duplicate=0.3`, `fail-status=503,429`,
    /// `registry-paths=availability:availability`, `retry-after=none`.
    ///
    /// # Errors
    /// No such name (the error lists all names), or a value that does not fit.
    pub fn apply(&mut self, assignment: &str) -> Result<(), FaultError> {
        let (name, text) = assignment
            .split_once('=')
            .ok_or_else(|| FaultError::Form(assignment.to_owned()))?;
        let (name, text) = (name.trim(), text.trim());
        let known = serde_json::to_value(&*self).map_err(|e| FaultError::Json(e.to_string()))?;
        let old = known.get(name).ok_or_else(|| FaultError::Name {
            name: name.to_owned(),
            names: Self::names()
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        let wrong = |reason: String| FaultError::Value {
            name: name.to_owned(),
            value: text.to_owned(),
            reason,
        };
        let value = read_value(old, text).map_err(wrong)?;
        *self = self
            .merged(&Value::Object(
                [(name.to_owned(), value)].into_iter().collect(),
            ))
            .map_err(|error| wrong(error.to_string()))?;
        Ok(())
    }

    /// These faults with those of a JSON object changed; what the object does not name stays.
    ///
    /// # Errors
    /// Not an object, an unknown name, or a value of the wrong type or out of range.
    pub fn merged(&self, changes: &Value) -> Result<Self, FaultError> {
        let json = |e: serde_json::Error| FaultError::Json(e.to_string());
        let Value::Object(changes) = changes else {
            return Err(FaultError::Json("faults are a JSON object".to_owned()));
        };
        let mut all = serde_json::to_value(self).map_err(json)?;
        if let Value::Object(all) = &mut all {
            all.extend(changes.clone());
        }
        let merged: Self = serde_json::from_value(all).map_err(json)?;
        merged.check()?;
        Ok(merged)
    }

    fn check(&self) -> Result<(), FaultError> {
        for (name, p) in [
            ("duplicate", self.duplicate),
            ("replay", self.replay),
            ("drop", self.drop),
            ("reorder", self.reorder),
            ("wrong-signature", self.wrong_signature),
            ("fail", self.fail),
            ("hang", self.hang),
            ("html", self.html),
            ("cut", self.cut),
            ("abort", self.abort),
            ("huge", self.huge),
            ("cache-slow", self.cache_slow),
            ("stale", self.stale),
        ] {
            if !(0.0..=1.0).contains(&p) {
                return Err(FaultError::Json(format!(
                    "{name}: a probability is from 0 to 1"
                )));
            }
        }
        for (low, high, name) in [
            (self.delay_min_ms, self.delay_max_ms, "delay"),
            (self.latency_min_ms, self.latency_max_ms, "latency"),
        ] {
            // A minimum alone means exactly that long.
            if high != 0 && low > high {
                return Err(FaultError::Json(format!(
                    "{name}-min-ms is above {name}-max-ms"
                )));
            }
        }
        let statuses = [self.post_status, self.delete_status];
        if let Some(status) = statuses
            .iter()
            .chain(&self.fail_status)
            .find(|status| !(200..=599).contains(*status))
        {
            return Err(FaultError::Json(format!(
                "{status}: a status is from 200 to 599"
            )));
        }
        for kind in self.registry_paths.keys() {
            if super::Kind::from_name(kind).is_none() {
                return Err(FaultError::Json(format!(
                    "registry-paths: there is no kind `{kind}`"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn registry_segment(&self, kind: super::Kind) -> &str {
        self.registry_paths
            .get(kind.name())
            .map_or_else(|| kind.registry_segment(), String::as_str)
    }

    pub(super) fn concern(&self, api: Api) -> bool {
        self.on == Api::All || self.on == api
    }
}

/// Reads a text as the JSON type that the fault has now.
fn read_value(old: &Value, text: &str) -> Result<Value, String> {
    let number = |text: &str| {
        text.parse::<serde_json::Number>()
            .map(Value::Number)
            .map_err(|_| "a number is expected".to_owned())
    };
    match old {
        Value::Bool(_) => text
            .parse()
            .map(Value::Bool)
            .map_err(|_| "true or false is expected".to_owned()),
        // `retry-after` is the one optional fault, null or a number.
        Value::Null | Value::Number(_) if text == "none" => Ok(Value::Null),
        Value::Null | Value::Number(_) => number(text),
        Value::Array(_) => text.split(',').map(|part| number(part.trim())).collect(),
        Value::Object(_) => text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.split_once(':')
                    .map(|(name, value)| (name.to_owned(), Value::from(value)))
                    .ok_or_else(|| "name:value is expected".to_owned())
            })
            .collect::<Result<serde_json::Map<_, _>, _>>()
            .map(Value::Object),
        Value::String(_) => Ok(Value::from(text)),
    }
}
