//! The data plane's settings: all that the receiver, pipeline and publishers of one subscription
//! need to know. Made by the controller and by `bellhop run`; as a file, with what the process itself
//! needs ([`ReceiverConfig`]), written by the controller and read by `bellhop receiver`.
//!
//! Owns: the file's shape. Every value is explicit here (the resource's defaults are already
//! applied), durations are milliseconds. Never here: a secret (only the paths of files that hold
//! one), and nothing of Kubernetes.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{NotificationType, Operation};

mod convert;
mod process;

pub use crate::api::v1alpha1::{BackoffPolicy, SignatureScheme};
pub use convert::{Resolved, base_path};
pub use process::{Process, ReceiverConfig};

/// Durations in the settings file are whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Everything the data plane of one subscription is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Whose data plane this is.
    pub subscription: Identity,
    /// Where the provider is.
    pub provider: ProviderSettings,
    /// The subscribed types; never empty, no type twice.
    pub notifications: Vec<NotificationSettings>,
    /// How notifications are verified.
    pub signature: SignatureSettings,
    /// How changed data is read.
    pub fetch: FetchSettings,
    /// The sinks beside the feed.
    pub sinks: Vec<SinkSettings>,
    /// The feed.
    pub feed: FeedSettings,
    /// How long and how much the store keeps.
    pub store: StoreSettings,
}

/// Which subscription this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `metadata.namespace`; `default` when the file names none.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; for `bellhop run`, a stable hash of namespace and name.
    pub uid: String,
    /// The ten hex digits that end each of our rule URLs.
    pub owner: String,
    /// `production` or `sandbox`; the CloudEvents extension `environment`.
    pub environment: String,
}

/// Where the provider is: base URLs without a trailing slash, and whom to trust for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderSettings {
    /// Notification Registry, `https://notifications.sandbox.redeam.io/registry/v1`.
    pub registry_url: String,
    /// Reseller API, `https://booking.sandbox.redeam.io/v1.3`.
    pub api_url: String,
    /// Certificate authorities (PEM) that are trusted for both beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

/// One subscribed type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationSettings {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// The operations asked for; empty for types that have none.
    pub operations: Vec<Operation>,
}

/// `spec.signature`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureSettings {
    /// Accepted families.
    pub scheme: SignatureScheme,
    /// Authentic but further from now than this, past or future: 401.
    #[serde(with = "millis")]
    pub max_age: Duration,
    /// How far the provider's clock may disagree with ours.
    #[serde(with = "millis")]
    pub max_skew: Duration,
    /// How long the ledger recognises a repeated signature.
    #[serde(with = "millis")]
    pub ledger_span: Duration,
}

/// `spec.fetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchSettings {
    /// Request budget towards the reseller API.
    pub requests_per_second: u32,
    /// Per entity: the shortest time between two fetches begun.
    #[serde(with = "millis")]
    pub min_interval: Duration,
    /// Window of availability and price reads: today and this many whole UTC days.
    pub availability_horizon_days: u32,
    /// How old the last full comparison with the provider may be.
    #[serde(with = "millis")]
    pub resync_interval: Duration,
    /// How far apart two 404s must be to agree on a removal.
    #[serde(with = "millis")]
    pub removal_confirmation: Duration,
    /// Removals within ten minutes that are let through, in percent of the known entities.
    pub removal_guard_percent: u32,
}

/// One http sink of `spec.sinks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkSettings {
    /// Unique among the sinks; a small fixed set, so it may be a metric label.
    pub name: String,
    /// Entity types to send; empty means all.
    pub types: Vec<NotificationType>,
    /// Where to, resolved: `http://orders.shop.svc:8080/events`.
    pub uri: String,
    /// A folder with one file for each extra header (file name = header name, content = value).
    pub headers_dir: Option<PathBuf>,
    /// A PEM file with the certificate authorities to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// How hard to try.
    pub delivery: DeliverySettings,
}

/// Knative's `DeliverySpec` by name and meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySettings {
    /// Attempts after the first, while the sink is well.
    pub retry: u32,
    /// How the delay grows.
    pub backoff_policy: BackoffPolicy,
    /// The first delay.
    #[serde(with = "millis")]
    pub backoff_delay: Duration,
    /// Limit of one attempt.
    #[serde(with = "millis")]
    pub timeout: Duration,
}

/// `spec.feed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedSettings {
    /// The file that holds the bearer token; `None`: no token asked for.
    pub token_file: Option<PathBuf>,
}

/// `spec.state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreSettings {
    /// Bytes the store may use; a part is reserved for marks.
    pub size_bytes: u64,
    /// How long superseded events, the journal and (at least 7 days) removals are kept.
    #[serde(with = "millis")]
    pub retain_events: Duration,
    /// How long dead letters are kept.
    #[serde(with = "millis")]
    pub retain_dead_letters: Duration,
    /// How long a booking is kept after its last travel date.
    #[serde(with = "millis")]
    pub retain_bookings: Duration,
}
