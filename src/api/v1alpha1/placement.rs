//! The pods that receive notifications, and what surrounds them in the cluster.
//!
//! What is large and belongs to Kubernetes (affinity, spread constraints, egress rules) is open here
//! and passed on: validation refuses fields that Kubernetes does not have, and the API server judges
//! their values when the objects are made.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{DNS_SUBDOMAIN, DNS_SUBDOMAIN_OR_EMPTY, ONE_EXPOSURE, ONE_RECEIVER, PORT, cel};

/// An object whose fields are not described here.
pub(super) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn open_objects(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": open_object(generator),
        "x-kubernetes-list-type": "atomic",
    })
}

fn label_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

fn annotation_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

fn quantity_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "maxLength": 32,
            "pattern": "^[0-9]+([.][0-9]+)?([numkMGTPE]|[KMGTPE]i|[eE][0-9]+)?$",
            // Numbers only; the pattern is for texts. No rule with words: Kubernetes 1.30 does not
            // see the limit of a text that could be a number, and finds such a rule too expensive.
            "minimum": 0,
        },
    })
}

/// The pods that receive notifications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Receiver {
    /// How many there are; embedded state has exactly one.
    #[schemars(extend("x-kubernetes-validations" = cel(&[ONE_RECEIVER])))]
    pub replicas: i32,
    /// Their resources. Of what is named neither here nor there: 50m of cpu and 64Mi of memory set
    /// aside, 256Mi of memory at most.
    pub resources: Resources,
    /// As in a Pod.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "open_object")]
    pub affinity: Map<String, Value>,
    /// As in a Pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// As in a Pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_objects")]
    pub topology_spread_constraints: Vec<Map<String, Value>>,
    /// Labels of the pods, beside Bellhop's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of the pods, beside Bellhop's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotation_map")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Secrets for pulling the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<LocalName>,
    /// TLS on the public port.
    pub tls: ReceiverTls,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            replicas: 1,
            resources: Resources::default(),
            affinity: Map::new(),
            tolerations: Vec::new(),
            topology_spread_constraints: Vec::new(),
            pod_labels: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
            image_pull_secrets: Vec::new(),
            tls: ReceiverTls::default(),
        }
    }
}

/// Requests and limits, as in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What is set aside, such as `cpu: 100m`, `memory: 64Mi`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantity_map")]
    pub requests: BTreeMap<String, Value>,
    /// What must not be exceeded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantity_map")]
    pub limits: BTreeMap<String, Value>,
}

/// As in a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// The taint's key. Left out: all keys (with `operator: Exists`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// `Equal` (the default) or `Exists`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^(Equal|Exists)$"))]
    pub operator: Option<String>,
    /// The taint's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`. Left out: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        regex(pattern = "^(NoSchedule|PreferNoSchedule|NoExecute)$")
    )]
    pub effect: Option<String>,
    /// How long a `NoExecute` taint is tolerated. Left out: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// The name of an object in the namespace of this one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct LocalName {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// TLS on the public port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiverTls {
    /// A Secret of type `kubernetes.io/tls`. Empty: plain HTTP behind something that ends TLS.
    #[schemars(length(max = 253), regex(pattern = DNS_SUBDOMAIN_OR_EMPTY))]
    pub secret_name: String,
}

/// How the world reaches `url`: at most one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = cel(&[ONE_EXPOSURE])))]
pub struct Exposure {
    /// An Ingress is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// An HTTPRoute of the Gateway API is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
}

/// An Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Its class. Empty: the cluster's default.
    #[schemars(length(max = 253), regex(pattern = DNS_SUBDOMAIN_OR_EMPTY))]
    pub class_name: String,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
    /// TLS at the Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
}

/// TLS at the Ingress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// The Secret with certificate and key for the host of `url`.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub secret_name: String,
}

/// An HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateways it attaches to.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub parent_refs: Vec<ParentRef>,
}

/// A Gateway, as in an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    /// Its namespace. Left out: that of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The listener's name. Left out: all that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// The listener's port. Left out: all that fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = PORT.0, max = PORT.1))]
    pub port: Option<u32>,
}

/// The NetworkPolicy of the receiver pods. In: the public port from everywhere, the feed from the
/// own namespace, the admin port from the operator and from monitoring. Out: what `egress` lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether there is one.
    pub enabled: bool,
    /// Rules as in a NetworkPolicy. Empty: everything is allowed out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "open_objects")]
    pub egress: Vec<Map<String, Value>>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            egress: Vec::new(),
        }
    }
}
