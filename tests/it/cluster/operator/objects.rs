//! The objects of receivers on the real API server: made, changed, pruned, mended, left alone. No
//! pods run here. Oracle: what the API server holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::receivers::{Pods, set, start_pod, until_set};
use super::rig::{KEY, Operator, Rig};

fn api<K>(rig: &Rig) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(rig.space.client.clone(), &rig.space.name)
}

async fn get<K>(rig: &Rig, name: &str) -> Option<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    api::<K>(rig).get_opt(name).await.unwrap()
}

async fn patch<K>(rig: &Rig, name: &str, patch: Value)
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let params = PatchParams::default();
    let (api, patch) = (api::<K>(rig), Patch::Merge(patch));
    api.patch(name, &params, &patch).await.unwrap();
}

/// Waits until something holds of what the API server shows.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("not so after 30 s: {what}");
}

/// A subscription with receivers, and its set is there.
async fn tended(test: &str, change: impl FnOnce(&mut Value)) -> Option<(Rig, Operator)> {
    let rig = Rig::new(test).await?;
    let pods = Pods::new(&rig);
    let operator = rig.operator_with_receivers("an-image:1", pods);
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", change).await;
    until_set(&rig, "shop").await;
    start_pod(&rig, "shop").await;
    rig.until("shop", "Ready", "True Ok").await;
    Some((rig, operator))
}

fn owner(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_ref()?;
    Some(&owners.first()?.kind)
}

/// Who has written an object, and how.
fn managers(metadata: &ObjectMeta) -> Vec<String> {
    let all = metadata.managed_fields.iter().flatten();
    all.map(|one| {
        let how = match one.operation.as_deref() {
            Some("Apply") => "applies",
            _ => "updates",
        };
        format!("{} {how}", one.manager.as_deref().unwrap_or_default())
    })
    .collect()
}

/// Of a subscription Bellhop writes its finalizer and the status; the rest is its user's.
fn check_spec_is_left_alone(metadata: &ObjectMeta) {
    let all = metadata.managed_fields.iter().flatten();
    let ours = all.filter(|one| one.manager.as_deref() == Some("bellhop"));
    let mut seen = 0;
    for one in ours {
        let fields = &one.fields_v1.as_ref().unwrap().0;
        let fields = fields.as_object().unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        if one.subresource.as_deref() == Some("status") {
            assert_eq!(names, ["f:status"]);
        } else {
            assert_eq!(names, ["f:metadata"]);
            let metadata = fields["f:metadata"].as_object().unwrap();
            let names: Vec<&String> = metadata.keys().collect();
            assert_eq!(names, ["f:finalizers"]);
        }
        seen += 1;
    }
    assert_eq!(seen, 2, "{metadata:?}");
}

#[tokio::test]
async fn they_are_made_and_go_with_the_subscription() {
    let Some((rig, operator)) = tended("made", |_| {}).await else {
        return;
    };
    let account: ServiceAccount = get(&rig, "shop").await.unwrap();
    let settings: ConfigMap = get(&rig, "shop-settings").await.unwrap();
    let public: Service = get(&rig, "shop").await.unwrap();
    let feed: Service = get(&rig, "shop-feed").await.unwrap();
    let policy: NetworkPolicy = get(&rig, "shop").await.unwrap();
    let token = rig.secrets().get("shop-feed").await.unwrap();
    let keys = rig.secrets().get("shop-bellhop").await.unwrap();
    let set = set(&rig, "shop").await.unwrap();
    for metadata in [
        &account.metadata,
        &settings.metadata,
        &public.metadata,
        &feed.metadata,
        &policy.metadata,
        &token.metadata,
        &keys.metadata,
        &set.metadata,
    ] {
        let owner = owner(metadata);
        assert_eq!(owner, Some("WebhookSubscription"), "{metadata:?}");
        assert_eq!(managers(metadata), ["bellhop applies"], "{metadata:?}");
    }
    check_spec_is_left_alone(&rig.get("shop").await.unwrap().metadata);
    assert_eq!(public.spec.unwrap().ports.unwrap()[0].port, 8080);
    assert_eq!(feed.spec.unwrap().ports.unwrap()[0].port, 8082);
    assert!(token.data.unwrap()["token"].0.len() >= 16);
    // The volume stays, as onDelete says by default.
    let claim: PersistentVolumeClaim = get(&rig, "shop-data").await.unwrap();
    assert_eq!(owner(&claim.metadata), None);
    let of_store = settings.data.unwrap()["settings.yaml"].clone();
    assert!(of_store.contains("/var/lib/bellhop"), "{of_store}");
    assert!(!of_store.contains(KEY), "{of_store}");
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    let claim: Option<PersistentVolumeClaim> = get(&rig, "shop-data").await;
    assert!(claim.is_some());
    operator.stop().await;
}

#[tokio::test]
async fn a_part_of_the_spec_that_goes_takes_its_object_with_it() {
    let ingress = |object: &mut Value| object["spec"]["exposure"] = json!({ "ingress": {} });
    let Some((rig, operator)) = tended("pruned", ingress).await else {
        return;
    };
    assert!(get::<Ingress>(&rig, "shop").await.is_some());
    let less = json!({ "spec": {
        "exposure": null, "networkPolicy": { "enabled": false }, "feed": { "auth": "None" } } });
    rig.patch("shop", less).await;
    until("the Ingress goes", async || {
        get::<Ingress>(&rig, "shop").await.is_none()
    })
    .await;
    until("the policy goes", async || {
        get::<NetworkPolicy>(&rig, "shop").await.is_none()
    })
    .await;
    until("the token goes", async || {
        rig.secrets().get_opt("shop-feed").await.unwrap().is_none()
    })
    .await;
    // What is wanted stays, and so does what is not ours.
    assert!(get::<Service>(&rig, "shop-feed").await.is_some());
    assert!(
        rig.secrets()
            .get_opt("redeam-keys")
            .await
            .unwrap()
            .is_some()
    );
    operator.stop().await;
}

#[tokio::test]
async fn what_somebody_does_by_hand_is_undone_unless_paused() {
    let Some((rig, operator)) = tended("by-hand", |_| {}).await else {
        return;
    };
    let token = rig.secrets().get("shop-feed").await.unwrap().data.unwrap();
    let wrong = json!({ "spec": { "selector": { "app.kubernetes.io/instance": "other" } } });
    patch::<Service>(&rig, "shop", wrong).await;
    let selects = async |name: &str| {
        let service: Service = get(&rig, "shop").await.unwrap();
        let selector = service.spec.unwrap().selector.unwrap();
        selector["app.kubernetes.io/instance"] == name
    };
    until("the selector is ours again", async || selects("shop").await).await;
    let data = json!({ "data": { "settings.yaml": "nothing" } });
    patch::<ConfigMap>(&rig, "shop-settings", data.clone()).await;
    let told = async |word: &str| {
        let map: ConfigMap = get(&rig, "shop-settings").await.unwrap();
        map.data.unwrap()["settings.yaml"].contains(word)
    };
    until("the settings are ours again", async || {
        told("process").await
    })
    .await;
    let now = DeleteParams::default();
    let _ = api::<ServiceAccount>(&rig).delete("shop", &now).await;
    until("the account is back", async || {
        get::<ServiceAccount>(&rig, "shop").await.is_some()
    })
    .await;
    // A token that consumers know is kept, whatever else is done to its Secret.
    let labels = json!({ "metadata": { "labels": { "mine": "x" } } });
    patch::<k8s_openapi::api::core::v1::Secret>(&rig, "shop-feed", labels).await;
    let _ = api::<Service>(&rig).delete("shop-feed", &now).await;
    until("the Service is back", async || {
        get::<Service>(&rig, "shop-feed").await.is_some()
    })
    .await;
    let kept = rig.secrets().get("shop-feed").await.unwrap().data.unwrap();
    assert_eq!(kept, token);
    rig.until("shop", "Ready", "True Ok").await;

    let paused = json!({ "metadata": { "annotations": { "bellhop.dev/paused": "true" } } });
    rig.patch("shop", paused).await;
    rig.until("shop", "Accepted", "Unknown Paused").await;
    patch::<ConfigMap>(&rig, "shop-settings", data).await;
    rig.patch("shop", json!({ "spec": { "exposure": { "ingress": {} } } }))
        .await;
    // Both have been seen when another subscription's pass, asked for later, is through.
    rig.create("other", |object| {
        object["spec"]["credentialsSecretRef"] = json!({ "name": "not-there" });
    })
    .await;
    rig.until("other", "CredentialsValid", "False SecretMissing")
        .await;
    assert!(told("nothing").await);
    assert!(get::<Ingress>(&rig, "shop").await.is_none());
    let on = json!({ "metadata": { "annotations": { "bellhop.dev/paused": null } } });
    rig.patch("shop", on).await;
    until("the settings are ours again", async || {
        told("process").await
    })
    .await;
    until("the Ingress is there", async || {
        get::<Ingress>(&rig, "shop").await.is_some()
    })
    .await;
    operator.stop().await;
}

#[tokio::test]
async fn the_volume_grows() {
    let Some(rig) = Rig::new("grows").await else {
        return;
    };
    let class = format!("growing-{}", rig.space.name);
    let growing = StorageClass {
        metadata: ObjectMeta {
            name: Some(class.clone()),
            ..ObjectMeta::default()
        },
        provisioner: "example.com/none".to_owned(),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    };
    let classes: Api<StorageClass> = Api::all(rig.space.client.clone());
    classes
        .create(&PostParams::default(), &growing)
        .await
        .unwrap();
    let operator = rig.operator_with_receivers("an-image:1", Pods::new(&rig));
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["state"] =
            json!({ "embedded": { "size": "1Gi", "storageClassName": class } });
    })
    .await;
    until_set(&rig, "shop").await;
    // As a provisioner binds it.
    let bound = json!({ "spec": { "volumeName": "a-volume" } });
    patch::<PersistentVolumeClaim>(&rig, "shop-data", bound).await;
    let bound = json!({ "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } } });
    let params = PatchParams::default();
    api::<PersistentVolumeClaim>(&rig)
        .patch_status("shop-data", &params, &Patch::Merge(bound))
        .await
        .unwrap();
    rig.patch(
        "shop",
        json!({ "spec": { "state": { "embedded": { "size": "2Gi" } } } }),
    )
    .await;
    until("the claim asks for more", async || {
        let claim: PersistentVolumeClaim = get(&rig, "shop-data").await.unwrap();
        let requests = claim.spec.unwrap().resources.unwrap().requests.unwrap();
        requests["storage"].0 == "2Gi"
    })
    .await;
    // Now it goes with the subscription.
    rig.patch(
        "shop",
        json!({ "spec": { "state": { "embedded": { "onDelete": "Delete" } } } }),
    )
    .await;
    until("it has an owner", async || {
        let claim: PersistentVolumeClaim = get(&rig, "shop-data").await.unwrap();
        owner(&claim.metadata).is_some()
    })
    .await;
    operator.stop().await;
}

#[tokio::test]
async fn what_cannot_be_written_is_named_and_the_rest_is_written() {
    let Some(rig) = Rig::new("refused").await else {
        return;
    };
    let strange: Service = serde_json::from_value(json!({
        "metadata": { "name": "shop-feed" }, "spec": { "ports": [{ "port": 1 }] },
    }))
    .unwrap();
    api::<Service>(&rig)
        .create(&PostParams::default(), &strange)
        .await
        .unwrap();
    let pods: Arc<Pods> = Pods::new(&rig);
    let operator = rig.operator_with_receivers("an-image:1", pods);
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    let refused = "False ObjectRefused";
    rig.until("shop", "ReceiverAvailable", refused).await;
    let message = rig.message("shop", "ReceiverAvailable").await;
    let begins = "Service shop-feed: it is there already and not Bellhop's";
    assert!(message.starts_with(begins), "{message}");
    start_pod(&rig, "shop").await;
    let left: Service = get(&rig, "shop-feed").await.unwrap();
    assert_eq!(left.spec.unwrap().ports.unwrap()[0].port, 1);
    let now = DeleteParams::default();
    api::<Service>(&rig)
        .delete("shop-feed", &now)
        .await
        .unwrap();
    rig.until("shop", "Ready", "True Ok").await;

    // A typo in what is passed through: dropped, it would open every port.
    let typo = json!({ "to": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }],
        "prots": [{ "port": 443 }] });
    rig.patch(
        "shop",
        json!({ "spec": { "networkPolicy": { "egress": [typo] } } }),
    )
    .await;
    rig.until("shop", "Accepted", "False Invalid").await;
    let message = rig.message("shop", "Accepted").await;
    let field = "spec.networkPolicy.egress[0].prots: not a field of";
    assert!(message.contains(field), "{message}");
    rig.patch(
        "shop",
        json!({ "spec": { "networkPolicy": { "egress": null } } }),
    )
    .await;
    rig.until("shop", "Ready", "True Ok").await;

    // A kind that this cluster does not have.
    let route = json!({ "httpRoute": { "parentRefs": [{ "name": "gate" }] } });
    rig.patch("shop", json!({ "spec": { "exposure": route } }))
        .await;
    rig.until("shop", "ReceiverAvailable", refused).await;
    let message = rig.message("shop", "ReceiverAvailable").await;
    assert!(
        message.contains("install what brings it (for an HTTPRoute the Gateway API"),
        "{message}"
    );
    rig.patch("shop", json!({ "spec": { "exposure": null } }))
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
}

/// An operator that starts writes nothing where a former one left all in order, and notices what is
/// done by hand from then on.
#[tokio::test]
async fn a_start_finds_what_a_former_operator_left() {
    let Some((rig, operator)) = tended("restart", |_| {}).await else {
        return;
    };
    operator.stop().await;
    let pods = Pods::new(&rig);
    let operator = rig.operator_with_receivers("an-image:1", pods.clone());
    // Receivers are asked when it is known what they should be.
    rig.eventually("it has looked at what is there", || {
        pods.asked.load(Ordering::SeqCst) > 0
    })
    .await;
    rig.until("shop", "Ready", "True Ok").await;
    let patches = operator.breaker.calls().into_iter();
    let patches: Vec<String> = patches.filter(|call| !call.starts_with("GET")).collect();
    assert!(patches.is_empty(), "{patches:?}");
    let wrong = json!({ "spec": { "selector": { "app.kubernetes.io/instance": "other" } } });
    patch::<Service>(&rig, "shop", wrong).await;
    until("the selector is ours again", async || {
        let service: Service = get(&rig, "shop").await.unwrap();
        let selector = service.spec.unwrap().selector.unwrap();
        selector["app.kubernetes.io/instance"] == "shop"
    })
    .await;
    operator.stop().await;

    // One that was told something else writes it at once, although no pod is made anew for it.
    let operator = rig.operator_in("elsewhere", Pods::new(&rig));
    until("the operator there may ask receivers", async || {
        let policy: NetworkPolicy = get(&rig, "shop").await.unwrap();
        serde_json::to_string(&policy.spec)
            .unwrap()
            .contains("elsewhere")
    })
    .await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
}
