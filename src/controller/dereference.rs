//! Step one: reads what a subscription names, and what we own for it.
//!
//! Owns: two reads of Secrets, always live: a cache of Secrets would hold secrets that nobody
//! needs. Never here: a decision.

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client, ResourceExt as _};

use super::owned::secret_name;
use crate::api::v1alpha1::WebhookSubscription;

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Dereferenced {
    /// The user's Secret; `None`: there is none.
    pub credentials: Option<KubeSecret>,
    /// The Secret under the name of the owned one.
    pub owned: Option<KubeSecret>,
}

/// Reads.
///
/// # Errors
/// What the API server said, other than that an object is not there.
pub async fn dereference(
    client: &Client,
    subscription: &WebhookSubscription,
) -> Result<Dereferenced, kube::Error> {
    let namespace = subscription.namespace().unwrap_or_default();
    let secrets: Api<KubeSecret> = Api::namespaced(client.clone(), &namespace);
    let named = &subscription.spec.credentials_secret_ref.name;
    let owned = secret_name(&subscription.name_any());
    let (credentials, owned) = tokio::join!(secrets.get_opt(named), secrets.get_opt(&owned));
    Ok(Dereferenced {
        credentials: credentials?,
        owned: owned?,
    })
}
