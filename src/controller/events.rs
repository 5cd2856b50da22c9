//! Events: what changed, for `kubectl describe`.
//!
//! Owns: how they are written. Never here: which ones (status decides, once per transition); a
//! failure that matters to a pass (an Event is a courtesy, and a namespace that is going takes none).

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};

use crate::api::condition::ConditionEvent;
use crate::api::v1alpha1::WebhookSubscription;

/// Who reports.
const REPORTER: &str = "bellhop.dev/operator";

/// Writes Events about a subscription.
pub async fn tell(
    client: &Client,
    subscription: &WebhookSubscription,
    identity: &str,
    events: &[ConditionEvent],
    now: Timestamp,
) {
    let Some(namespace) = subscription.namespace() else {
        return;
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    for event in events {
        let event = Event {
            metadata: ObjectMeta {
                // As client-go names them: the object, and something unique.
                name: Some(format!(
                    "{}.{:016x}",
                    subscription.name_any(),
                    fastrand::u64(..)
                )),
                ..ObjectMeta::default()
            },
            action: Some(event.action.as_str().to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(event.note.clone()),
            reason: Some(event.reason.as_str().to_owned()),
            regarding: Some(subscription.object_ref(&())),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(identity.chars().take(128).collect()),
            type_: Some(event.type_.as_str().to_owned()),
            ..Event::default()
        };
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::info!(%error, "an Event could not be written");
            return;
        }
    }
}
