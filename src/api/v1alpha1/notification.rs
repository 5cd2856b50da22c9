//! What is subscribed to, how it is verified, how changed data is read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::{NotificationType, Operation};
use super::limits::{
    HORIZON_DAYS, LEDGER_SPAN, MAX_AGE, MAX_SKEW, MIN_INTERVAL, NO_OPERATIONS, ONLY_UPDATED,
    REMOVAL_CONFIRMATION, REQUESTS_PER_SECOND, RESYNC_INTERVAL, SKEW_WITHIN_AGE, cel,
};
use super::scalar::{GoDuration, Percent};

/// One notification type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[NO_OPERATIONS, ONLY_UPDATED])))]
pub struct Notification {
    /// Which: `ChannelBinding`, `Supplier`, `Product`, `Rate`, `Availability`, `PriceSchedule` or
    /// `Booking`.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// The operations to be notified of. `ChannelBinding` has `created`, `updated` and `removed`;
    /// `Supplier`, `Product`, `Rate` and `Booking` have `updated`; `Availability` and
    /// `PriceSchedule` have none. Left out: all that the type has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub operations: Option<Vec<Operation>>,
    /// Further keys of the rule's `config`, passed to the provider as they are (filters such as
    /// `supplierIDs`). `operations` is not one of them: it has its own field.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "super::placement::open_object")]
    pub config: Map<String, Value>,
}

impl Notification {
    /// A type with all its operations.
    pub fn all_of(kind: NotificationType) -> Self {
        Self {
            kind,
            operations: None,
            config: Map::new(),
        }
    }

    /// The operations asked for; empty for types that have none.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations
            .clone()
            .unwrap_or_else(|| self.kind.operations().to_vec())
    }
}

impl super::WebhookSubscriptionSpec {
    /// The subscribed types: all seven when none is named.
    pub fn notifications(&self) -> Vec<Notification> {
        self.notifications.clone().unwrap_or_else(|| {
            NotificationType::ALL
                .into_iter()
                .map(Notification::all_of)
                .collect()
        })
    }
}

/// How notifications are verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = cel(&[SKEW_WITHIN_AGE])))]
pub struct Signature {
    /// Accepted signatures: `Auto` (both families, until the first authentic HMAC-SHA256 forbids
    /// MD5 under a key), `HmacSha256` or `Md5`.
    pub scheme: SignatureScheme,
    /// Authentic notifications further from now than this, past or future, are refused; 1m to 720h.
    #[schemars(extend("x-kubernetes-validations" = MAX_AGE.rules()))]
    pub max_age: GoDuration,
    /// Notifications further in the future than this are accepted, and the condition ClockSkew
    /// says so; 1s to 1h, not longer than `maxAge`.
    #[schemars(extend("x-kubernetes-validations" = MAX_SKEW.rules()))]
    pub max_skew: GoDuration,
    /// How long duplicates are recognised by their signature, 1m to 24h.
    #[schemars(extend("x-kubernetes-validations" = LEDGER_SPAN.rules()))]
    pub ledger_span: GoDuration,
}

impl Default for Signature {
    fn default() -> Self {
        Self {
            scheme: SignatureScheme::Auto,
            max_age: "24h".into(),
            max_skew: "5m".into(),
            ledger_span: "1h".into(),
        }
    }
}

/// Which signature families are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SignatureScheme {
    /// Both, told apart by length, until the first authentic HMAC-SHA256 forbids MD5 under a key.
    #[default]
    Auto,
    /// HMAC-SHA256 only.
    HmacSha256,
    /// The older MD5 layouts only.
    Md5,
}

/// How changed data is read from the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Fetch {
    /// Requests to the provider per second, shared by all receivers; 1 to 1000.
    #[schemars(range(min = REQUESTS_PER_SECOND.0, max = REQUESTS_PER_SECOND.1))]
    pub requests_per_second: u32,
    /// Shortest time between two reads of one entity: the first at once, then one per interval,
    /// the last one always; 0s to 1h.
    #[schemars(extend("x-kubernetes-validations" = MIN_INTERVAL.rules()))]
    pub min_interval: GoDuration,
    /// How many whole UTC days ahead availability and prices are read; 1 to 730.
    #[schemars(range(min = HORIZON_DAYS.0, max = HORIZON_DAYS.1))]
    pub availability_horizon_days: u32,
    /// How often everything is compared with the provider, which finds what was never notified;
    /// 1m to 720h.
    #[schemars(extend("x-kubernetes-validations" = RESYNC_INTERVAL.rules()))]
    pub resync_interval: GoDuration,
    /// How far apart two "not found" answers must be to agree on a removal; 1s to 1h.
    #[schemars(extend("x-kubernetes-validations" = REMOVAL_CONFIRMATION.rules()))]
    pub removal_confirmation: GoDuration,
    /// How many of the known entities (never under 20) may be removed within ten minutes; more
    /// are held back until confirmed. `100%` turns the guard off.
    pub removal_guard: Percent,
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            requests_per_second: 10,
            min_interval: "1s".into(),
            availability_horizon_days: 90,
            resync_interval: "24h".into(),
            removal_confirmation: "30s".into(),
            removal_guard: "10%".into(),
        }
    }
}
