//! The provider: its Notification Registry and its Reseller API, as a client sees them.
//!
//! Owns: every HTTP call to the provider, its limits (time, size, rate), and what its answers mean
//! on the wire. The traits here are the seams at which tests put another provider.
//!
//! Never here: a decision about rules (`registration`) or about entities (`pipeline`); a
//! credential outside a redacting type; a call without a timeout and a size cap; a provider's
//! answer in an error text beyond status, error code and a short, cleaned first part.

pub mod base;
pub mod budget;
pub mod client;
pub mod credentials;
mod json;
pub mod registry;
pub mod reseller;
mod retry;
mod room;
mod wire;

pub use retry::backoff;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::api::NotificationType;
use crate::clock::UnixMillis;
use crate::secrets::Secret;

/// One read of the Reseller API (provider reference §6.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Read {
    /// All suppliers of the channel.
    Suppliers,
    /// One supplier.
    Supplier {
        /// `supplierID`.
        supplier: String,
    },
    /// All products of a supplier.
    Products {
        /// `supplierID`.
        supplier: String,
    },
    /// One product.
    Product {
        /// `supplierID`.
        supplier: String,
        /// `productID`.
        product: String,
    },
    /// All rates of a product.
    Rates {
        /// `supplierID`.
        supplier: String,
        /// `productID`.
        product: String,
    },
    /// One rate.
    Rate {
        /// `supplierID`.
        supplier: String,
        /// `productID`.
        product: String,
        /// `rateID`.
        rate: String,
    },
    /// Availabilities of one rate.
    Availability {
        /// `supplierID`.
        supplier: String,
        /// `productID`.
        product: String,
        /// `rateID`.
        rate: String,
        /// First day and last day of the window, both included, UTC.
        window: Window,
    },
    /// Prices of one rate.
    PriceSchedule {
        /// `supplierID`.
        supplier: String,
        /// `productID`.
        product: String,
        /// `rateID`.
        rate: String,
        /// First day and last day of the window, both included.
        window: Window,
    },
    /// One booking.
    Booking {
        /// `bookingID`.
        booking: String,
    },
}

/// A window of whole days, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// First day.
    pub start: jiff::civil::Date,
    /// Last day.
    pub end: jiff::civil::Date,
}

/// One element of a list answer.
#[derive(Debug, Clone)]
pub struct ListItem {
    /// Its `id`.
    pub id: String,
    /// Its JSON, byte for byte.
    pub data: Box<RawValue>,
}

/// An understood answer, its envelope taken off.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To a single read.
    One(Document),
    /// To `Suppliers`, `Products`, `Rates`.
    Many(Vec<ListItem>),
}

/// The inner object of a single read.
#[derive(Debug, Clone)]
pub struct Document {
    /// Byte for byte the inner object (design: "What consumers get", column `data`). For an
    /// availability that rate's object under `byRate`, `{"availability":[]}` when the rate is not
    /// there; for a price schedule that rate's map, `{}` when it is not there.
    pub data: Box<RawValue>,
    /// `version`, where the object has an integer one.
    pub version: Option<i64>,
    /// `retrieved` of an availability answer: text as sent, and parsed.
    pub retrieved: Option<(String, UnixMillis)>,
    /// `expires` of an availability answer.
    pub expires: Option<UnixMillis>,
    /// Whether an availability or price schedule says nothing at all within its window.
    pub empty: bool,
}

/// Why a read gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// 404 or 410 with the provider's JSON error: one signal of a removal.
    #[error("the provider says it does not exist ({status} {code})")]
    Gone {
        /// 404 or 410.
        status: u16,
        /// `error.code`.
        code: String,
    },
    /// Worth trying again: 404 without the provider's JSON, HTML, a cut body, timeout, 408, 429,
    /// 5xx, a connection error.
    #[error("{reason}")]
    Retry {
        /// What happened, without content of the answer beyond code and a cleaned message.
        reason: String,
        /// `Retry-After`, if there was a usable one.
        after: Option<Duration>,
    },
    /// 401 or 403: nothing will work until the credentials change.
    #[error("the provider refuses the credentials ({status})")]
    Unauthorized {
        /// 401 or 403.
        status: u16,
    },
    /// Any other 4xx, or a body over the cap: trying again will not help.
    #[error("{reason}")]
    Refused {
        /// What happened.
        reason: String,
    },
}

/// The Reseller API's reads. One call is one HTTP request: who calls decides about trying again,
/// and spends the request budget.
#[async_trait]
pub trait Reads: Send + Sync + 'static {
    /// Asks.
    async fn read(&self, read: &Read) -> Result<Answer, ReadError>;

    /// Reads the credentials anew from where they are kept. `true` when they changed.
    async fn reload_credentials(&self) -> bool;
}

/// A rule as the registry shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where notifications go.
    pub url: String,
    /// Whether none are sent.
    pub disabled: bool,
    /// Type-specific options, unknown keys included.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The signing key, when the answer carried one.
    pub security_key: Option<Secret>,
    /// Opaque; a change without our doing hints at a second writer.
    pub updated_on: Option<String>,
}

/// The writable part of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleBody {
    /// Where notifications go.
    pub url: String,
    /// Whether none are sent.
    pub disabled: bool,
    /// Type-specific options. Sent whole: the provider may replace or merge.
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// Why a registry call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// 404 on a call that needs an existing rule (PUT).
    #[error("there is no such rule")]
    NotFound,
    /// POST refused because a rule exists (409; or 400 and the rule is readable now).
    #[error("a rule exists already")]
    Exists,
    /// 401 or 403.
    #[error("the registry refuses the credentials ({status})")]
    Unauthorized {
        /// 401 or 403.
        status: u16,
    },
    /// The path of this type answers as no rule path does.
    #[error("the registry does not know rules of type {kind} at {path}")]
    UnsupportedType {
        /// Which.
        kind: NotificationType,
        /// The path that was asked for.
        path: String,
    },
    /// Other 4xx: the request is wrong.
    #[error("{reason}")]
    Refused {
        /// Status, code, message.
        reason: String,
    },
    /// Timeout, connection, 408, 425, 429, 5xx, not understood. For writes: it may have happened.
    #[error("{reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// `Retry-After`.
        after: Option<Duration>,
    },
}

/// What the provider's `Date` header said, and our wall clock when it came: seconds are all that
/// HTTP gives, so two clocks that agree may still differ here by a second and the answer's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTime {
    /// The provider's clock.
    pub theirs: UnixMillis,
    /// Ours, at the same answer.
    pub ours: UnixMillis,
}

/// The Notification Registry.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Reads the rule of a type; `None` when there is none.
    async fn get(&self, kind: NotificationType) -> Result<Option<Rule>, RegistryError>;
    /// Creates it; reads it back when the answer lacks the key.
    async fn create(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError>;
    /// Replaces its writable part.
    async fn update(&self, kind: NotificationType, body: &RuleBody) -> Result<Rule, RegistryError>;
    /// Deletes it; done as well when there was none.
    async fn delete(&self, kind: NotificationType) -> Result<(), RegistryError>;
    /// The clocks at the newest answer; `None` before the first one, or when it had no `Date`.
    fn server_time(&self) -> Option<ServerTime> {
        None
    }
}
