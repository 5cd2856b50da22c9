//! Step four: the objects of a subscription's receivers, a file each. Pure, and cannot fail: what
//! they are made of has been validated.
//!
//! Owns: which objects there are ([`objects`]), their names, labels and owner. What is in each is
//! said where it is built.
//!
//! Never here: IO; a value that differs from one call to the next, so that the same subscription
//! always comes to the same objects; a secret outside a Secret.
//!
//! | object | name | what for |
//! |---|---|---|
//! | ServiceAccount | NAME | no rights and no token |
//! | ConfigMap | NAME-settings | the settings file |
//! | Secret | NAME-feed | the feed's token, with `feed.auth: Token` |
//! | PersistentVolumeClaim | NAME-data | the store |
//! | Service | NAME | the public port, 8080 |
//! | Service | NAME-feed | the feed, 8082 |
//! | NetworkPolicy | NAME | with `networkPolicy.enabled` |
//! | PodDisruptionBudget | NAME | from two replicas on |
//! | StatefulSet | NAME | the pods |
//! | Ingress or HTTPRoute | NAME | as `exposure` says |
//!
//! The owned Secret NAME-bellhop is [`super::owned`]'s.

mod claim;
mod disruption_budget;
mod exposure;
mod feed_token;
mod http_route;
mod ingress;
mod kind;
mod network_policy;
mod pod;
mod service_account;
mod services;
mod settings_map;
mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use feed_token::TOKEN_KEY as FEED_TOKEN_KEY;
pub use kind::Kind;
pub use pod::{ADMIN_PORT, TEMPLATE_HASH};
pub use settings_map::{Surroundings, config};

use super::owned::{INSTANCE, MANAGED_BY, MANAGER};
use crate::api::v1alpha1::WebhookSubscription;
use crate::secrets::Secret;
use crate::settings::ReceiverConfig;

/// The label that says what an object belongs to.
pub const NAME: &str = "app.kubernetes.io/name";

/// The label that tells receivers from the operator.
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Its value for all that belongs to receivers.
pub const RECEIVER: &str = "receiver";

/// Its value for the operator's pods.
pub const OPERATOR: &str = "operator";

/// The annotation that says as what an object was meant when it was written last.
pub const INTENT_HASH: &str = "bellhop.dev/intent-hash";

/// What the operator was told of the pods that it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodOptions {
    /// The image of the receivers; its entry point is this program.
    pub image: String,
    /// Where the operator runs, if it runs in the cluster and asks receivers by pod address.
    pub operator_namespace: Option<String>,
    /// The namespaces from which metrics are read.
    pub monitoring_namespaces: Vec<String>,
}

/// What the objects of one subscription are made of.
pub struct Blueprint<'a> {
    /// The subscription, validated.
    pub subscription: &'a WebhookSubscription,
    /// Its settings file.
    pub config: &'a ReceiverConfig,
    /// The feed's token, when it asks for one.
    pub feed_token: Option<&'a Secret>,
    /// What the operator was told.
    pub options: &'a PodOptions,
}

/// An object as it is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// What it is.
    pub kind: Kind,
    /// How it is called.
    pub name: String,
    /// The whole intent.
    pub object: Value,
}

impl Built {
    fn new(kind: Kind, object: &impl Serialize) -> Self {
        let mut object = serde_json::to_value(object).expect("what Kubernetes takes is JSON");
        let digest = intent(kind, &object);
        object["metadata"]["annotations"][INTENT_HASH] = digest.into();
        Self {
            kind,
            name: object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            object,
        }
    }
}

/// Stands for all of an object but the content of a Secret, of which nothing may be told.
fn intent(kind: Kind, object: &Value) -> String {
    if kind != Kind::Secret {
        return digest(object.to_string().as_bytes());
    }
    let mut told = object.clone();
    told["data"].take();
    digest(told.to_string().as_bytes())
}

/// The digest of the pods' template among these objects.
pub fn template_hash(objects: &[Built]) -> String {
    let mut sets = objects.iter().filter(|one| one.kind == Kind::StatefulSet);
    let hash = sets
        .next()
        .map(|set| &set.object["metadata"]["annotations"][TEMPLATE_HASH]);
    hash.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// All objects of a subscription's receivers, in the order in which they are applied.
pub fn objects(plan: &Blueprint<'_>) -> Vec<Built> {
    let mut all = vec![
        service_account::service_account(plan),
        claim::claim(plan),
        settings_map::config_map(plan),
    ];
    all.extend(feed_token::secret(plan));
    all.extend([services::public(plan), services::feed(plan)]);
    all.extend(network_policy::network_policy(plan));
    all.extend(disruption_budget::disruption_budget(plan));
    all.push(stateful_set::stateful_set(plan));
    all.extend(ingress::ingress(plan));
    all.extend(http_route::http_route(plan));
    all
}

/// The same for the same content, and hardly for another: 12 hex digits.
pub fn digest(content: &[u8]) -> String {
    hex::encode(&Sha256::digest(content)[..6])
}

impl Blueprint<'_> {
    /// The subscription's name.
    fn name(&self) -> &str {
        self.subscription
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
    }

    /// The name with something behind it.
    fn named(&self, end: &str) -> String {
        format!("{}-{end}", self.name())
    }

    /// What the pods, and nothing else, have.
    fn selector(&self) -> BTreeMap<String, String> {
        labels([
            (NAME, MANAGER),
            (INSTANCE, self.name()),
            (COMPONENT, RECEIVER),
        ])
    }

    /// What every object has.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.selector();
        all.extend(labels([(MANAGED_BY, MANAGER)]));
        all
    }

    /// Goes with the subscription.
    fn owned(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            owner_references: self.owner().map(|owner| vec![owner]),
            ..self.unowned(name)
        }
    }

    /// Stays when the subscription goes.
    fn unowned(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: self.subscription.metadata.namespace.clone(),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    fn owner(&self) -> Option<OwnerReference> {
        super::owned::owner(self.subscription)
    }
}

fn labels<const N: usize>(all: [(&str, &str); N]) -> BTreeMap<String, String> {
    let pairs = all.into_iter();
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
