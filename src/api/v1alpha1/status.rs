//! What Bellhop says of a subscription. A cache: it can be rebuilt from provider and cluster.
//!
//! Never here: a clock value that moves by itself, and a secret (fingerprints only).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::super::{ConditionType, NotificationType};

/// What Bellhop says of a subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookSubscriptionStatus {
    /// The `metadata.generation` that this status is about; -1 until somebody has looked.
    pub observed_generation: i64,
    /// What is true of this subscription: Ready, Accepted, CredentialsValid, Registered,
    /// ReceiverAvailable, Reachable, Delivering, and, only while true, Reconciling, Stalled,
    /// WeakSignature and ClockSkew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// Rules that are as they should be, of those asked for: `7/7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub registered: Option<String>,
    /// The rules at the provider.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 7),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub rules: Vec<RuleStatus>,
    /// The receiver pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receivers: Option<Receivers>,
    /// Entities that wait to be read: `0`, `1+`, `100+` or `10k+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// When the last notification came in; rewritten after five minutes at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub last_notification_time: Option<String>,
    /// The annotations that were acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
}

impl WebhookSubscriptionStatus {
    /// What it says of this.
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        let mut all = self.conditions.iter();
        all.find(|one| one.type_ == kind.as_str())
    }
}

impl Default for WebhookSubscriptionStatus {
    fn default() -> Self {
        Self {
            observed_generation: -1,
            conditions: Vec::new(),
            registered: None,
            rules: Vec::new(),
            receivers: None,
            backlog: None,
            last_notification_time: None,
            acknowledged: None,
        }
    }
}

/// `metav1.Condition` with the limits that Kubernetes states for it.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "description": "One statement about this subscription.",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "What it is about.",
                    "type": "string", "maxLength": 316,
                    "pattern": "^[A-Za-z]([A-Za-z0-9]*)$"
                },
                "status": {
                    "description": "Whether it is so: `True`, `False` or `Unknown`.",
                    "type": "string", "enum": ["True", "False", "Unknown"]
                },
                "observedGeneration": {
                    "description": "The `metadata.generation` that it is about.",
                    "type": "integer", "format": "int64", "minimum": 0
                },
                "lastTransitionTime": {
                    "description": "When `status` changed last.",
                    "type": "string", "format": "date-time", "maxLength": 40
                },
                "reason": {
                    "description": "Why, in one word.",
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
                },
                "message": {
                    "description": "Why, in a sentence that names the next step.",
                    "type": "string", "maxLength": 32768
                }
            }
        }
    })
}

/// One rule at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Its notification type.
    #[serde(rename = "type")]
    pub kind: NotificationType,
    /// Where it stands: `Missing`, `Created` (still disabled), `Enabled`, `Disabled`, `Foreign`,
    /// `Unsupported` or `Unknown`.
    pub phase: RulePhase,
    /// Where its notifications go: the rule's URL, as it is at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// The fingerprint of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_fingerprint: Option<String>,
}

/// Where a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RulePhase {
    /// The provider has none.
    Missing,
    /// It exists, disabled, until its key has reached the receivers.
    Created,
    /// It sends notifications.
    Enabled,
    /// It is disabled because the subscription is suspended.
    Disabled,
    /// The provider has one that is not ours.
    Foreign,
    /// The provider does not know rules of this type.
    Unsupported,
    /// The provider could not be asked.
    Unknown,
}

/// The receiver pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Receivers {
    /// How many are ready.
    #[schemars(range(min = 0))]
    pub ready: i32,
    /// How many there should be.
    #[schemars(range(min = 0))]
    pub desired: i32,
}

/// How many entities wait to be read: coarse, so that status does not move all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Backlog {
    /// None.
    #[serde(rename = "0")]
    None,
    /// 1 to 99.
    #[serde(rename = "1+")]
    Some,
    /// 100 to 9,999.
    #[serde(rename = "100+")]
    Hundreds,
    /// 10,000 and more.
    #[serde(rename = "10k+")]
    TenThousands,
}

impl Backlog {
    /// The step that a number falls on.
    pub const fn of(entities: u64) -> Self {
        match entities {
            0 => Self::None,
            1..100 => Self::Some,
            100..10_000 => Self::Hundreds,
            _ => Self::TenThousands,
        }
    }

    /// A step as it is written; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(text.into()).ok()
    }
}

/// The annotations that were acted on, by their values.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Acknowledged {
    /// The last `bellhop.dev/reconcile-at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reconcile_at: Option<String>,
    /// The last `bellhop.dev/rotate-keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub rotate_keys: Option<String>,
}
