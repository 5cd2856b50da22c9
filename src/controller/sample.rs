//! The subscription that unit tests begin with: the smallest that is accepted.

use serde_json::{Value, json};

use crate::api::v1alpha1::WebhookSubscription;

/// `ns/shop`, with what `change` makes of it.
pub fn subscription(change: impl FnOnce(&mut Value)) -> WebhookSubscription {
    let mut object = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WebhookSubscription",
        "metadata": { "name": "shop", "namespace": "ns", "uid": "u-1" },
        "spec": {
            "environment": "sandbox",
            "url": "https://hooks.example.com/r",
            "credentialsSecretRef": { "name": "keys" },
        },
    });
    change(&mut object);
    serde_json::from_value(object).expect("a subscription")
}
