//! Receivers are kept up, or left as they are, whatever happens beside them. Oracle: what the API
//! server holds.

use k8s_openapi::api::core::v1::{ConfigMap, Secret as KubeSecret};
use kube::Api;
use serde_json::json;

use super::receivers::{
    at_work, end_pod, has_image, start_pod, until_rolled, until_set, with_pods,
};
use super::rig::{KEY, Rig, within};

/// The settings of a receiver.
async fn settings(rig: &Rig, name: &str) -> String {
    let maps: Api<ConfigMap> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let map = maps.get(&format!("{name}-settings")).await.unwrap();
    map.data.unwrap().into_values().collect()
}

async fn has_feed_token(rig: &Rig, name: &str) -> bool {
    let secrets: Api<KubeSecret> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let token = secrets.get_opt(&format!("{name}-feed")).await.unwrap();
    token.is_some()
}

/// Until a pass has said something about the newest spec.
async fn until_observed(rig: &Rig, name: &str) {
    within(60, "the newest spec is observed", async || {
        let object = rig.get(name).await.unwrap();
        let observed = object.status.map(|status| status.observed_generation);
        (observed == object.metadata.generation).then_some(())
    })
    .await;
}

/// A pod that waits to be replaced mounts what its template says: settings that speak of anything
/// else would end it.
#[tokio::test]
async fn who_waits_for_a_slot_keeps_its_settings_and_what_it_mounts() {
    let names = ["a", "b"];
    let Some((rig, pods_are)) = with_pods("held", names).await else {
        return;
    };
    let second = rig.operator_with_receivers("an-image:2", pods_are.clone());
    let turn = until_rolled(&rig, &names).await;
    let other = if turn == "a" { "b" } else { "a" };
    let before = settings(&rig, other).await;
    let spec = json!({ "feed": { "auth": "None" }, "fetch": { "requestsPerSecond": 77 } });
    rig.patch(other, json!({ "spec": spec })).await;
    until_observed(&rig, other).await;
    assert!(
        !has_image(&rig, other, "an-image:2").await,
        "{turn} goes on"
    );
    assert_eq!(settings(&rig, other).await, before);
    assert!(has_feed_token(&rig, other).await);
    end_pod(&rig, turn).await;
    start_pod(&rig, turn).await;
    assert_eq!(until_rolled(&rig, &[other]).await, other);
    within(20, "its token is gone", async || {
        (!has_feed_token(&rig, other).await).then_some(())
    })
    .await;
    let now = settings(&rig, other).await;
    assert!(now.contains("77") && now != before, "{now}");
    second.stop().await;
}

/// Notifications still come while somebody looks for the right credentials.
#[tokio::test]
async fn refused_credentials_do_not_keep_the_receivers_from_following_the_spec() {
    let Some((rig, _pods, operator)) = at_work("refused-upkeep").await else {
        return;
    };
    let counted = || operator.metrics.encode();
    // Nobody runs receivers for an observer.
    rig.create("observer", |object| {
        object["spec"]["registration"] = json!({ "mode": "Observe" });
        object["spec"]["url"] = json!("https://hooks.example.com/observer");
    })
    .await;
    rig.until(
        "observer",
        "ReceiverAvailable",
        "Unknown ReceiverNotManaged",
    )
    .await;
    rig.eventually("one is wanted", || {
        let text = counted();
        text.contains("bellhop_operator_receivers_wanted 1")
            && text.contains("bellhop_operator_subscriptions 2")
    })
    .await;
    rig.change_keys("redeam-keys", KEY, "wrong").await;
    rig.until("shop", "CredentialsValid", "False Unauthorized")
        .await;
    let pull = json!({ "spec": { "receiver": { "imagePullSecrets": [{ "name": "pull" }] } } });
    rig.patch("shop", pull).await;
    within(20, "the set follows", async || {
        let spec = until_set(&rig, "shop").await.spec.unwrap().template.spec;
        spec.unwrap().image_pull_secrets
    })
    .await;
    operator.stop().await;
}

/// A volume that its class cannot grow: the store goes on with the size that it has, and the spec
/// can be taken back.
#[tokio::test]
async fn a_size_that_is_refused_changes_nothing_and_can_be_taken_back() {
    let Some((rig, _pods, operator)) = at_work("size").await else {
        return;
    };
    let before = settings(&rig, "shop").await;
    let size = |size: &str| json!({ "spec": { "state": { "embedded": { "size": size } } } });
    rig.patch("shop", size("2Gi")).await;
    // Nobody binds claims here, and one that is not bound does not grow.
    rig.until("shop", "ReceiverAvailable", "False ObjectRefused")
        .await;
    let message = rig.message("shop", "ReceiverAvailable").await;
    assert!(message.contains("shop-data"), "{message}");
    assert_eq!(settings(&rig, "shop").await, before);
    rig.eventually("it is counted", || {
        let text = operator.metrics.encode();
        text.contains("bellhop_operator_reconcile_errors_total{reason=\"objects\"}")
    })
    .await;
    rig.patch("shop", size("1Gi")).await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
}

/// A name that is mistyped must not cost the receiver that is there.
#[tokio::test]
async fn a_certificate_that_is_not_there_replaces_no_receiver() {
    let Some((rig, _pods, operator)) = at_work("certificate").await else {
        return;
    };
    let before = until_set(&rig, "shop").await.metadata.generation;
    let tls = json!({ "spec": { "receiver": { "tls": { "secretName": "shop-tls" } } } });
    rig.patch("shop", tls).await;
    rig.until("shop", "ReceiverAvailable", "False ObjectRefused")
        .await;
    let message = rig.message("shop", "ReceiverAvailable").await;
    assert!(message.contains("the Secret shop-tls"), "{message}");
    assert_eq!(until_set(&rig, "shop").await.metadata.generation, before);
    rig.create_keys("shop-tls", KEY).await;
    within(60, "the set follows", async || {
        let now = until_set(&rig, "shop").await.metadata.generation;
        (now != before).then_some(())
    })
    .await;
    operator.stop().await;
}
