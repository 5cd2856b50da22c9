//! Where events go beside the feed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::NotificationType;
use super::limits::{
    BACKOFF_DELAY, DNS_LABEL, DNS_SUBDOMAIN, HTTP_CA, HTTP_TARGET, PORT, RETRY, SECRET_KEY,
    SINK_FEED, SINK_KIND, SINK_PATH, SINK_URI, TIMEOUT, URI_MAX, cel,
};
use super::scalar::GoDuration;

/// A Secret in the namespace of this object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// One key of a Secret in the namespace of this object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    /// The key in it.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_KEY))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".into()
}

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[SINK_KIND])))]
pub struct Sink {
    /// Its name, unique among the sinks: at most 63 lowercase letters, digits and dashes. `feed`
    /// is taken.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = DNS_LABEL),
        extend("x-kubernetes-validations" = cel(&[SINK_FEED]))
    )]
    pub name: String,
    /// Events are posted over HTTP as binary-mode CloudEvents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSink>,
    /// The entity types to send. Left out or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<NotificationType>,
    /// How hard to try, with the names of Knative's DeliverySpec.
    #[serde(default)]
    pub delivery: Delivery,
}

/// An http sink: exactly one of `ref` and `uri`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = cel(&[HTTP_TARGET, HTTP_CA])))]
pub struct HttpSink {
    /// A Service of the cluster.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// An http or https address. No user or password in it: use `headersFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = URI_MAX), regex(pattern = SINK_URI))]
    pub uri: Option<String>,
    /// Headers that are sent with every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_from: Option<HeadersFrom>,
    /// The certificate authorities to trust instead of the public ones, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// Where extra headers come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadersFrom {
    /// A Secret: each key is the name of a header, its value the header's value.
    pub secret_ref: SecretRef,
}

/// A Service of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// `Service`.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub name: String,
    /// Its namespace. Left out: that of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
    /// Its port.
    #[serde(default = "http_port")]
    #[schemars(range(min = PORT.0, max = PORT.1))]
    pub port: u32,
    /// The path that events are posted to.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = SINK_PATH))]
    pub path: String,
}

fn http_port() -> u32 {
    80
}

fn root_path() -> String {
    "/".into()
}

impl ServiceRef {
    /// Its address inside the cluster, seen from `namespace`.
    pub fn uri(&self, namespace: &str) -> String {
        let namespace = self.namespace.as_deref().unwrap_or(namespace);
        let Self {
            name, port, path, ..
        } = self;
        format!("http://{name}.{namespace}.svc:{port}{path}")
    }
}

/// What a sink's `ref` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServiceKind {
    /// A Service.
    #[default]
    Service,
}

/// How hard to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivery {
    /// Attempts after the first, while the sink is well; 0 to 100. Then the event is a dead letter.
    #[schemars(range(min = RETRY.0, max = RETRY.1))]
    pub retry: u32,
    /// How the delay grows: `exponential` or `linear`.
    pub backoff_policy: BackoffPolicy,
    /// The first delay, 10ms to 10m.
    #[schemars(extend("x-kubernetes-validations" = BACKOFF_DELAY.rules()))]
    pub backoff_delay: GoDuration,
    /// Limit of one attempt, 100ms to 5m.
    #[schemars(extend("x-kubernetes-validations" = TIMEOUT.rules()))]
    pub timeout: GoDuration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            retry: 10,
            backoff_policy: BackoffPolicy::Exponential,
            backoff_delay: "1s".into(),
            timeout: "10s".into(),
        }
    }
}

/// How the delay between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackoffPolicy {
    /// `delay * 2^attempt`.
    #[default]
    Exponential,
    /// `delay * attempt`.
    Linear,
}
