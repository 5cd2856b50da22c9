//! The Secrets that a subscription names: are they in the files, with what is needed in them?
//!
//! Owns: which fields of a subscription name a Secret. Never here: a value of a Secret in a message.

use super::tree::{Node, Place};
use super::{Manifests, Mistake, follows, locate};
use crate::api::v1alpha1::WebhookSubscription;

/// One field that names a Secret.
pub(super) struct Reference {
    file: String,
    place: Place,
    path: String,
    namespace: String,
    secret: String,
    /// Whether the provider's keys must be in it.
    credentials: bool,
}

/// The fields of a subscription that name a Secret, but those that are themselves `wrong`.
pub(super) fn of(
    file: &str,
    document: &Node,
    object: &WebhookSubscription,
    wrong: &[String],
) -> Vec<Reference> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    let reference = |path: String, secret: &str, credentials| Reference {
        file: file.to_owned(),
        place: locate(document, &path),
        path,
        namespace: namespace.to_owned(),
        secret: secret.to_owned(),
        credentials,
    };
    let spec = &object.spec;
    let keys = "spec.credentialsSecretRef.name".to_owned();
    let mut all = vec![reference(keys, &spec.credentials_secret_ref.name, true)];
    for (at, sink) in spec.sinks.iter().enumerate() {
        let Some(http) = &sink.http else { continue };
        if let Some(headers) = &http.headers_from {
            let path = format!("spec.sinks[{at}].http.headersFrom.secretRef.name");
            all.push(reference(path, &headers.secret_ref.name, false));
        }
        if let Some(ca) = &http.ca_secret_ref {
            let path = format!("spec.sinks[{at}].http.caSecretRef.name");
            all.push(reference(path, &ca.name, false));
        }
    }
    all.retain(|reference| {
        let said = |path: &String| follows(&reference.path, path);
        !reference.secret.is_empty() && !wrong.iter().any(said)
    });
    all
}

impl Reference {
    /// What is wrong with the Secret that it names. `unread`: whether a Secret could not be read;
    /// then a missing one is no news.
    pub(super) fn mistake(&self, manifests: &Manifests, unread: bool) -> Option<Mistake> {
        let message = match manifests.secret(&self.namespace, &self.secret) {
            None if unread => return None,
            None => format!(
                "no Secret `{}` of namespace `{}` in these files; add one{}",
                self.secret,
                self.namespace,
                if self.credentials {
                    " with the keys apiKey and apiSecret"
                } else {
                    ""
                }
            ),
            Some(secret) if self.credentials => secret.credentials().err()?,
            Some(_) => return None,
        };
        Some(Mistake {
            file: self.file.clone(),
            place: Some(self.place),
            path: self.path.clone(),
            message,
        })
    }
}
