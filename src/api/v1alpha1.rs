//! `WebhookSubscription` v1alpha1: the spec that people write and the status that Bellhop writes.
//!
//! Owns: the names, types, limits and defaults of every field. The doc comments here are what
//! `kubectl explain` shows. Scalars have their defaults in the schema as well; unions and
//! `notifications` only in code (a stored default for one arm of a union would make switching to
//! another impossible for client-side apply).
//!
//! Never here: IO, a decision about what a value leads to, or a type that refuses unknown fields
//! (a newer resource must stay readable).

pub mod limits;
mod notification;
mod placement;
pub mod scalar;
mod sink;
mod status;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use notification::{Fetch, Notification, Signature, SignatureScheme};
pub use placement::{
    Exposure, HttpRoute, Ingress, IngressTls, LocalName, NetworkPolicy, ParentRef, Receiver,
    ReceiverTls, Resources, Toleration,
};
pub use scalar::{GoDuration, Percent, Size};
pub use sink::{
    BackoffPolicy, Delivery, HeadersFrom, HttpSink, SecretKeyRef, SecretRef, ServiceKind,
    ServiceRef, Sink,
};
pub use status::{
    Acknowledged, Backlog, Receivers, RulePhase, RuleStatus, WebhookSubscriptionStatus,
};

use limits::{
    DNS_SUBDOMAIN_OR_EMPTY, DRIFT_CHECK, ENVIRONMENT_RULE, PUBLIC_URL, RETENTION, SINKS_MAX,
    SIZE_RANGE, URL_HTTPS, URL_MAX, URL_QUERY, URL_USERINFO, cel,
};

/// A subscription to the webhook notifications of Redeam / Travel Curious: Bellhop registers the
/// rules with the provider, receives the notifications, fetches what changed and publishes it as
/// CloudEvents.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bellhop.dev",
    version = "v1alpha1",
    kind = "WebhookSubscription",
    plural = "webhooksubscriptions",
    shortname = "whs",
    namespaced,
    status = "WebhookSubscriptionStatus",
    derive = "PartialEq",
    doc = "A subscription to the webhook notifications of Redeam / Travel Curious: Bellhop registers the rules with the provider, receives the notifications, fetches what changed and publishes it as CloudEvents.",
    printcolumn = r#"{"name":"Environment","type":"string","jsonPath":".spec.environment"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Registered","type":"string","jsonPath":".status.registered"}"#,
    printcolumn = r#"{"name":"Backlog","type":"string","jsonPath":".status.backlog"}"#,
    printcolumn = r#"{"name":"Last notification","type":"date","jsonPath":".status.lastNotificationTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSubscriptionSpec {
    /// The provider's environment, `production` or `sandbox`. Cannot be changed.
    #[schemars(extend("x-kubernetes-validations" = cel(&[ENVIRONMENT_RULE])))]
    pub environment: Environment,

    /// The public address where the provider's notifications arrive, such as
    /// `https://hooks.example.com/redeam`. Each notification type is registered below it, as
    /// `URL/TYPE/OWNER`. Only https; no query, fragment, user or password.
    #[schemars(
        length(min = 9, max = URL_MAX),
        regex(pattern = PUBLIC_URL),
        extend("x-kubernetes-validations" = cel(&[URL_HTTPS, URL_QUERY, URL_USERINFO]))
    )]
    pub url: String,

    /// The Secret, in the namespace of this object, with the provider's API keys: `apiKey` and
    /// `apiSecret`.
    pub credentials_secret_ref: SecretRef,

    /// The notification types to subscribe to. Left out: all seven, with all their operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 7),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub notifications: Option<Vec<Notification>>,

    /// How notifications are verified.
    #[serde(default)]
    pub signature: Signature,

    /// How changed data is read from the provider.
    #[serde(default)]
    pub fetch: Fetch,

    /// Where events go beside the feed, which is always there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = SINKS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub sinks: Vec<Sink>,

    /// The feed: list and watch of all entities over HTTP, on port 8082.
    #[serde(default)]
    pub feed: Feed,

    /// Where the state lives and how long it is kept.
    #[serde(default)]
    pub state: State,

    /// The pods that receive notifications.
    #[serde(default)]
    pub receiver: Receiver,

    /// How the world reaches `url`. Left out: only a Service is made, and you bring the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,

    /// The NetworkPolicy of the receiver pods.
    #[serde(default)]
    pub network_policy: NetworkPolicy,

    /// How rules at the provider are written.
    #[serde(default)]
    pub registration: Registration,

    /// True: the rules are disabled while the pods keep running. What happened meanwhile is found
    /// by the full comparison that follows.
    #[serde(default)]
    pub suspend: bool,
}

/// The provider's environment.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Environment {
    /// Real bookings.
    Production,
    /// The provider's test environment.
    Sandbox,
}

impl Environment {
    /// As in the resource: `production`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }

    /// Base URL of the Notification Registry (provider reference §1).
    pub const fn registry_url(self) -> &'static str {
        match self {
            Self::Production => "https://notifications.redeam.io/registry/v1",
            Self::Sandbox => "https://notifications.sandbox.redeam.io/registry/v1",
        }
    }

    /// Base URL of the Reseller API v1.3 (provider reference §1).
    pub const fn api_url(self) -> &'static str {
        match self {
            Self::Production => "https://booking.redeam.io/v1.3",
            Self::Sandbox => "https://booking.sandbox.redeam.io/v1.3",
        }
    }
}

/// The feed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Feed {
    /// `Token`: readers need the bearer token of the Secret `NAME-feed`. `None`: no token.
    pub auth: FeedAuth,
}

/// Who may read the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum FeedAuth {
    /// Who has the token.
    #[default]
    Token,
    /// Everyone who reaches it.
    None,
}

/// Where the state lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// The state lives in a volume of the receiver pod. This is what happens when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<Embedded>,
    /// How long things are kept.
    pub retention: Retention,
}

impl State {
    /// The embedded engine's settings: the default when no engine is named.
    pub fn embedded(&self) -> Embedded {
        self.embedded.clone().unwrap_or_default()
    }
}

/// State in a volume of the receiver pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Embedded {
    /// Size of the volume, such as `1Gi`; at least 64Mi. A volume can grow, where its class allows it,
    /// but never shrink.
    #[schemars(extend("x-kubernetes-validations" = cel(&[SIZE_RANGE])))]
    pub size: Size,
    /// Storage class of the volume. Empty: the cluster's default.
    #[schemars(length(max = 253), regex(pattern = DNS_SUBDOMAIN_OR_EMPTY))]
    pub storage_class_name: String,
    /// What happens to the volume when this object is deleted: `Retain` or `Delete`.
    pub on_delete: OnDelete,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            size: "1Gi".into(),
            storage_class_name: String::new(),
            on_delete: OnDelete::Retain,
        }
    }
}

/// What becomes of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// It stays.
    #[default]
    Retain,
    /// It goes as well.
    Delete,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// How long superseded events are kept, 1h to 8760h. Removals are kept at least 168h.
    #[schemars(extend("x-kubernetes-validations" = RETENTION.rules()))]
    pub events: GoDuration,
    /// How long dead letters are kept, 1h to 8760h.
    #[schemars(extend("x-kubernetes-validations" = RETENTION.rules()))]
    pub dead_letters: GoDuration,
    /// How long a booking is kept after its last travel date, 1h to 8760h: personal data does not
    /// stay.
    #[schemars(extend("x-kubernetes-validations" = RETENTION.rules()))]
    pub bookings: GoDuration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: "168h".into(),
            dead_letters: "720h".into(),
            bookings: "720h".into(),
        }
    }
}

/// How rules at the provider are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Registration {
    /// `Manage`: rules are written. `Observe`: status says what would be done, nothing is written.
    pub mode: Mode,
    /// What to do with a rule that is not ours: `Never` overwrite it, or `Always`.
    pub adoption: Adoption,
    /// What happens to our rules when this object is deleted: `Delete`, or `Retain` (they stay,
    /// disabled).
    pub deletion_policy: DeletionPolicy,
    /// How often the rules are compared with what they should be, 1m to 24h.
    #[schemars(extend("x-kubernetes-validations" = DRIFT_CHECK.rules()))]
    pub drift_check_interval: GoDuration,
    /// Whether `url` is probed from outside: `Report` the result, `Require` success before rules
    /// are enabled, or `Off`.
    pub reachability: Reachability,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            adoption: Adoption::default(),
            deletion_policy: DeletionPolicy::default(),
            drift_check_interval: "1h".into(),
            reachability: Reachability::default(),
        }
    }
}

/// Whether rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Yes.
    #[default]
    Manage,
    /// No, only compared.
    Observe,
}

/// Whether a foreign rule may be overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Adoption {
    /// No.
    #[default]
    Never,
    /// Yes.
    Always,
}

/// What becomes of our rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They are deleted.
    #[default]
    Delete,
    /// They stay, disabled.
    Retain,
}

/// What the probe of the public URL is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Reachability {
    /// A condition.
    #[default]
    Report,
    /// A gate before rules are enabled.
    Require,
    /// Nothing.
    Off,
}
