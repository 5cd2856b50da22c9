//! The owned Secret over its life: there before the first rule, mended when somebody changes it,
//! gone after the last rule. Oracle: the order of the calls that were made, and what the API server
//! and the simulator's registry hold.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::rig::{KEY, Operator, Rig};

async fn registered(test: &str) -> Option<(Rig, Operator)> {
    let rig = Rig::new(test).await?;
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    Some((rig, operator))
}

async fn change(rig: &Rig, patch: Value) {
    let secrets = rig.secrets();
    secrets
        .patch(
            "shop-bellhop",
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
        .unwrap();
}

async fn data(rig: &Rig, key: &str) -> Option<String> {
    let secret = rig.secrets().get_opt("shop-bellhop").await.unwrap()?;
    let bytes = secret.data?.get(key)?.0.clone();
    Some(String::from_utf8(bytes).unwrap())
}

async fn until(rig: &Rig, key: &str, text: Option<&str>) {
    let mut last = None;
    for _ in 0..600 {
        last = data(rig, key).await;
        if last.as_deref() == text {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{key} is {last:?}, not {text:?}, after 30 s");
}

/// The place of the first, or of the last call with this beginning.
fn first(calls: &[String], begins: &str) -> usize {
    let at = calls.iter().position(|call| call.starts_with(begins));
    at.unwrap_or_else(|| panic!("no {begins}: {calls:#?}"))
}

fn last(calls: &[String], begins: &str) -> usize {
    let at = calls.iter().rposition(|call| call.starts_with(begins));
    at.unwrap_or_else(|| panic!("no {begins}: {calls:#?}"))
}

#[tokio::test]
async fn it_is_there_before_the_first_rule_and_goes_after_the_last() {
    let Some((rig, operator)) = registered("order").await else {
        return;
    };
    let calls = operator.breaker.calls();
    let written = first(&calls, "PATCH secrets/shop-bellhop");
    let finalizer = first(&calls, "PATCH webhooksubscriptions/shop");
    let made = first(&calls, "registry create");
    assert!(finalizer < made && written < made, "{calls:#?}");
    // No rule is live before its key is stored.
    for kind in ["Rate", "Booking"] {
        let made = first(&calls, &format!("registry create {kind}"));
        let enabled = last(&calls, &format!("registry update {kind}"));
        let stored = calls[made..enabled].iter();
        let stored = stored.filter(|call| call.starts_with("PATCH secrets/shop-bellhop"));
        assert!(made < enabled && stored.count() > 0, "{kind}: {calls:#?}");
    }
    let secret = rig.secrets().get("shop-bellhop").await.unwrap();
    let finalizers = secret.metadata.finalizers.clone();
    assert_eq!(finalizers.unwrap(), ["bellhop.dev/registration"]);
    let owner = &secret.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), owner.controller),
        ("WebhookSubscription", "shop", Some(true))
    );
    assert_eq!(data(&rig, "apiKey").await.as_deref(), Some(KEY));

    let before = calls.len();
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    let calls = operator.breaker.calls()[before..].to_vec();
    let gone = last(&calls, "registry delete");
    // Gone only when a read says so.
    let verified = last(&calls, "registry get");
    let secret = first(&calls, "DELETE secrets/shop-bellhop");
    let object = last(&calls, "PATCH webhooksubscriptions/shop");
    assert!(
        gone < verified && verified < secret && secret < object,
        "{calls:#?}"
    );
    operator.stop().await;
}

#[tokio::test]
async fn what_somebody_changes_in_it_is_put_right() {
    let Some((rig, operator)) = registered("tampered").await else {
        return;
    };
    let key = data(&rig, "rate").await.unwrap();
    // A key: the receivers would refuse all that is signed with the right one.
    change(&rig, json!({ "stringData": { "rate": "not-the-key\n" } })).await;
    let both = format!("{key}not-the-key\n");
    until(&rig, "rate", Some(&both)).await;
    // The credentials' copy, and a key that is lost.
    change(
        &rig,
        json!({ "data": { "apiSecret": null, "booking": null } }),
    )
    .await;
    until(&rig, "apiSecret", Some("an-api-secret")).await;
    let booking = rig.rules()[&bellhop::simulator::Kind::Booking]["securityKey"].clone();
    let booking = format!("{}\n", booking.as_str().unwrap());
    until(&rig, "booking", Some(&booking)).await;
    // Something that is not ours to have there.
    change(&rig, json!({ "stringData": { "of-somebody": "x" } })).await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    // The whole of it.
    change(&rig, json!({ "metadata": { "finalizers": null } })).await;
    let secrets = rig.secrets();
    let params = kube::api::DeleteParams::default();
    let _ = secrets.delete("shop-bellhop", &params).await.unwrap();
    until(&rig, "apiSecret", Some("an-api-secret")).await;
    until(&rig, "booking", Some(&booking)).await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    operator.stop().await;
}

/// The key before the present one is dropped when its time is over, and no sooner.
#[tokio::test]
async fn a_replaced_key_is_dropped_when_its_time_is_over() {
    let Some((rig, operator)) = registered("grace").await else {
        return;
    };
    let old = data(&rig, "rate").await.unwrap();
    let kind = bellhop::simulator::Kind::Rate;
    let new = rig.simulator.control().rotate_key(kind).unwrap();
    let now = json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": "1" } } });
    rig.patch("shop", now).await;
    until(&rig, "rate", Some(&format!("{new}\n{old}"))).await;
    let secret = rig.secrets().get("shop-bellhop").await.unwrap();
    let until_when = secret.metadata.annotations.unwrap()["bellhop.dev/previous-keys"].clone();
    let until_when: std::collections::BTreeMap<String, jiff::Timestamp> =
        serde_json::from_str(&until_when).unwrap();
    let left = until_when["Rate"].duration_since(jiff::Timestamp::now());
    assert!((13 * 60..=15 * 60).contains(&left.as_secs()), "{left:?}");
    // Its time, moved to the past.
    let past = json!({ "Rate": "2020-01-02T03:04:05.678Z" }).to_string();
    change(
        &rig,
        json!({ "metadata": { "annotations": { "bellhop.dev/previous-keys": past } } }),
    )
    .await;
    until(&rig, "rate", Some(&format!("{new}\n"))).await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
}
