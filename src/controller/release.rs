//! `bellhop release`: frees objects whose operator is gone.
//!
//! Owns: taking our finalizers off subscriptions that are being deleted and off their owned
//! Secrets. Works on metadata alone, so that it can free what it cannot read.
//!
//! Never here: a call to the provider (the rules stay as they are, and who calls this has been told
//! so); an object that nobody has deleted.

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::ListParams;
use kube::api::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};

use super::apply::{has_finalizer, remove_finalizer, remove_secret};
use super::fleet::Key;
use super::owned::{INSTANCE, MANAGED_BY, MANAGER, is_owned, secret_name};
use crate::api::v1alpha1::WebhookSubscription;

/// Something that waits for an operator.
#[derive(Debug, Clone)]
pub struct Stuck {
    /// Which subscription.
    pub key: Key,
    /// Its metadata; `None`: it is gone, and only its owned Secret is left.
    pub subscription: Option<ObjectMeta>,
    /// Its owned Secret.
    pub secret: Option<ObjectMeta>,
}

/// What is being deleted and waits for our finalizer, in a namespace or in all.
///
/// # Errors
/// What the API server said.
pub async fn stuck(client: &Client, namespace: Option<&str>) -> Result<Vec<Stuck>, kube::Error> {
    let (subscriptions, secrets): (Api<WebhookSubscription>, Api<KubeSecret>) = match namespace {
        Some(one) => (
            Api::namespaced(client.clone(), one),
            Api::namespaced(client.clone(), one),
        ),
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let owned = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let secrets = secrets.list_metadata(&owned).await?.items;
    let mut found = Vec::new();
    let mut living = Vec::new();
    for object in subscriptions.list_metadata(&ListParams::default()).await? {
        let key = key(&object.metadata, object.name_any());
        if object.metadata.deletion_timestamp.is_some() && has_finalizer(&object.metadata) {
            let name = secret_name(&key.name);
            let mut own = secrets.iter().filter(|secret| {
                secret.namespace().as_ref() == Some(&key.namespace) && secret.name_any() == name
            });
            found.push(Stuck {
                secret: own.next().map(|secret| secret.metadata.clone()),
                subscription: Some(object.metadata),
                key,
            });
        } else {
            living.push(key);
        }
    }
    for secret in secrets {
        let name = secret.labels().get(INSTANCE).cloned().unwrap_or_default();
        let key = key(&secret.metadata, name);
        let known = living.contains(&key) || found.iter().any(|stuck| stuck.key == key);
        let waits = secret.metadata.deletion_timestamp.is_some();
        if waits && !known && has_finalizer(&secret.metadata) && is_owned(&secret.metadata) {
            found.push(Stuck {
                key,
                subscription: None,
                secret: Some(secret.metadata),
            });
        }
    }
    Ok(found)
}

fn key(metadata: &ObjectMeta, name: String) -> Key {
    Key {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name,
    }
}

/// Frees one.
///
/// # Errors
/// What the API server said.
pub async fn release(client: &Client, stuck: &Stuck) -> Result<(), kube::Error> {
    if let Some(secret) = &stuck.secret {
        remove_secret(client, &stuck.key.namespace, secret).await?;
    }
    match &stuck.subscription {
        Some(metadata) => remove_finalizer(client, &stuck.key, metadata).await,
        None => Ok(()),
    }
}
