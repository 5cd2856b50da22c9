//! The status stays what was found last, whatever stands between the operator and the API server.
//! Oracle: the API server.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::breaker::{Break, Breaker};
use super::rig::{KEY, Rig};

/// A registered subscription with a running operator.
async fn registered(test: &str, breaker: Arc<Breaker>) -> Option<(Rig, super::rig::Operator)> {
    let rig = Rig::new(test).await?;
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    let first = rig.operator();
    rig.until("shop", "Ready", "True Ok").await;
    first.stop().await;
    let operator = rig.operator_with(breaker, "me");
    Some((rig, operator))
}

/// A pass that looks at everything, to its end.
async fn look(rig: &Rig) {
    let now = json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": "1" } } });
    rig.patch("shop", now).await;
    rig.until_acknowledged("shop", "1").await;
}

/// The watch shows nothing of what is written; a pass says trouble, the next one breaks off before
/// it says anything, and the third one has nothing to complain about.
#[tokio::test]
async fn trouble_is_taken_back_although_the_watch_is_behind() {
    let Some((rig, operator)) = registered("behind", Arc::default()).await else {
        return;
    };
    operator.stop().await;
    let rotate = json!({ "metadata": { "annotations": { "bellhop.dev/rotate-keys": "1" } } });
    rig.patch("shop", rotate).await;
    let breaker = Arc::new(Breaker::default());
    breaker.blind(true);
    // The rotation asks, and then the pass over all types does.
    breaker.break_next("registry get Rate", Break::FailBefore);
    breaker.break_next("registry get Rate", Break::FailBefore);
    let operator = rig.operator_with(breaker.clone(), "me");
    rig.until("shop", "Ready", "Unknown ProviderUnavailable")
        .await;
    breaker.break_next("GET secrets/shop-bellhop", Break::FailBefore);
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(breaker.to_break(), 0, "not all of it happened");
    rig.check_registered("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_status_that_somebody_else_writes_is_said_anew() {
    let Some((rig, operator)) = registered("overwritten", Arc::default()).await else {
        return;
    };
    look(&rig).await;
    let before = rig.get("shop").await.unwrap().status.unwrap();
    let other = json!({ "status": { "registered": "0/2", "conditions": [] } });
    rig.subscriptions()
        .patch_status("shop", &PatchParams::default(), &Patch::Merge(other))
        .await
        .unwrap();
    rig.until("shop", "Ready", "True Ok").await;
    let after = rig.get("shop").await.unwrap();
    assert_eq!(after.status.unwrap().registered, before.registered);
    // And that is all: nobody writes again.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = rig.get("shop").await.unwrap();
    assert_eq!(
        later.metadata.resource_version,
        after.metadata.resource_version
    );
    operator.stop().await;
}

/// A drift that can neither be mended nor told of at once is not forgotten until the next look.
#[tokio::test]
async fn what_could_not_be_said_is_not_taken_for_settled() {
    let breaker = Arc::new(Breaker::default());
    let Some((rig, operator)) = registered("unsaid", breaker.clone()).await else {
        return;
    };
    look(&rig).await;
    rig.remove_rule("rates").await;
    breaker.break_next("PATCH secrets/shop-bellhop", Break::FailBefore);
    breaker.break_next("PATCH shop/status", Break::FailBefore);
    // Whoever touches the Secret has it looked at.
    let touched = json!({ "metadata": { "labels": { "touched": "yes" } } });
    rig.secrets()
        .patch(
            "redeam-keys",
            &PatchParams::default(),
            &Patch::Merge(touched),
        )
        .await
        .unwrap();
    rig.eventually("both calls broke", || breaker.to_break() == 0)
        .await;
    rig.eventually("the rule is there again", || rig.rules().len() == 2)
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
}
