//! Deletion when something is in the way.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::super::process::bellhop;
use super::super::space::Said;
use super::rig::{KEY, OTHER_KEY, Rig};

async fn registered(test: &str) -> Option<(Rig, super::rig::Operator)> {
    let rig = Rig::with_two_accounts(test).await?;
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    Some((rig, operator))
}

/// A deletion that the provider, which is down, stands in the way of.
async fn blocked(test: &str) -> Option<(Rig, super::rig::Operator)> {
    let (rig, operator) = registered(test).await?;
    let down = json!({ "fail": 1.0 });
    rig.simulator.control().merge_faults(&down).unwrap();
    rig.delete("shop").await;
    rig.until("shop", "Registered", "False DeletionBlocked")
        .await;
    Some((rig, operator))
}

#[tokio::test]
async fn in_a_namespace_that_is_going() {
    let Some((rig, operator)) = registered("terminating").await else {
        return;
    };
    let all: Api<Namespace> = Api::all(rig.space.client.clone());
    all.delete(&rig.space.name, &DeleteParams::default())
        .await
        .unwrap();
    // The namespace controller deletes everything in it, in any order; here the Secrets first.
    for secret in ["redeam-keys", "shop-bellhop"] {
        rig.secrets()
            .delete(secret, &DeleteParams::default())
            .await
            .unwrap();
    }
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn with_the_provider_down_it_waits_and_says_the_way_out() {
    let Some((rig, operator)) = blocked("down").await else {
        return;
    };
    rig.until("shop", "Reconciling", "True DeletionBlocked")
        .await;
    let message = rig.message("shop", "Registered").await;
    assert!(message.contains("deletionPolicy to Retain"), "{message}");
    assert_eq!(rig.rules().len(), 2);
    rig.simulator
        .control()
        .merge_faults(&json!({ "fail": 0.0 }))
        .unwrap();
    rig.check_gone("shop").await;
    operator.stop().await;
}

/// The way out that the message names. Disabling the rules is tried for two minutes first.
#[tokio::test]
async fn with_the_provider_down_retain_lets_go_after_a_while() {
    let Some((rig, operator)) = blocked("let-go").await else {
        return;
    };
    let retain = json!({ "spec": { "registration": { "deletionPolicy": "Retain" } },
        "metadata": { "annotations": { "bellhop.dev/reconcile-at": "1" } } });
    rig.patch("shop", retain).await;
    let asked = rig.simulator.control().requests(0, usize::MAX).len();
    rig.eventually("it is tried again", || {
        rig.simulator.control().requests(0, usize::MAX).len() > asked
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.get("shop").await.is_some(), "not at once");
    operator.stop().await;

    let operator = rig.operator_ahead(Duration::from_secs(121));
    rig.until_gone("shop").await;
    let rules = rig.rules();
    assert_eq!(rules.len(), 2, "nobody could reach them");
    assert!(rules.values().all(|rule| rule["disabled"] == json!(false)));
    let owned = rig.secrets().get_opt("shop-bellhop").await.unwrap();
    assert!(owned.is_none());
    operator.stop().await;
}

/// What the Secret holds is refused; the copy of what was accepted before is as good as ever.
#[tokio::test]
async fn with_mistyped_credentials_the_copy_removes_the_rules() {
    let Some((rig, operator)) = registered("mistyped").await else {
        return;
    };
    rig.change_keys("redeam-keys", KEY, "mistyped").await;
    rig.until("shop", "Ready", "False Unauthorized").await;
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn with_refused_credentials_the_way_out_is_retain() {
    let Some((rig, operator)) = registered("refused").await else {
        return;
    };
    // Both the Secret and the copy are worth nothing: the provider knows others.
    operator.stop().await;
    let patch = json!({ "stringData": { "apiSecret": "revoked" } });
    for secret in ["redeam-keys", "shop-bellhop"] {
        let params = kube::api::PatchParams::default();
        rig.secrets()
            .patch(secret, &params, &kube::api::Patch::Merge(&patch))
            .await
            .unwrap();
    }
    let operator = rig.operator();
    rig.delete("shop").await;
    rig.until("shop", "CredentialsValid", "False Unauthorized")
        .await;
    assert_eq!(rig.rules().len(), 2);
    let retain = json!({ "spec": { "registration": { "deletionPolicy": "Retain" } } });
    rig.patch("shop", retain).await;
    rig.until_gone("shop").await;
    assert_eq!(rig.rules().len(), 2, "they stay, as that says");
    operator.stop().await;
}

#[tokio::test]
async fn retain_leaves_the_rules_disabled() {
    let Some((rig, operator)) = registered("retain").await else {
        return;
    };
    let retain = json!({ "spec": { "registration": { "deletionPolicy": "Retain" } } });
    rig.patch("shop", retain).await;
    rig.delete("shop").await;
    rig.until_gone("shop").await;
    let rules = rig.rules();
    assert_eq!(rules.len(), 2);
    assert!(rules.values().all(|rule| rule["disabled"] == json!(true)));
    operator.stop().await;
}

#[tokio::test]
async fn with_another_accounts_credentials_the_copy_removes_the_rules() {
    let Some((rig, operator)) = registered("moved").await else {
        return;
    };
    rig.change_keys("redeam-keys", OTHER_KEY, "an-api-secret")
        .await;
    rig.until("shop", "Ready", "False ChannelChanged").await;
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn release_frees_what_no_operator_will() {
    let Some((rig, operator)) = registered("release").await else {
        return;
    };
    operator.stop().await;
    rig.create("alive", |object| {
        object["spec"]["url"] = json!("https://hooks.example.com/alive");
    })
    .await;
    let release = |more: &'static [&'static str]| {
        let mut command = bellhop(&["release", "--namespace", &rig.space.name]);
        command.env("KUBECONFIG", &rig.space.plane.admin).args(more);
        Said::of(command, "")
    };
    let said = release(&["--yes"]);
    assert!(
        said.well && said.out.contains("nothing is being deleted"),
        "{said:?}"
    );
    rig.delete("shop").await;
    // It asks first.
    let said = release(&[]);
    assert!(!said.well && said.err.contains("add --yes"), "{said:?}");
    let shop = format!("{}/shop", rig.space.name);
    assert!(
        said.out.contains(&shop) && said.out.contains("may be live"),
        "{said:?}"
    );
    assert!(rig.get("shop").await.is_some());
    let said = release(&["no-such-name", "--yes"]);
    assert!(
        said.well && said.out.contains("nothing is being deleted"),
        "{said:?}"
    );
    let said = release(&["shop", "--yes"]);
    assert!(
        said.well && said.out.contains(&format!("freed {shop}")),
        "{said:?}"
    );
    rig.until_gone("shop").await;
    let owned = rig.secrets().get_opt("shop-bellhop").await.unwrap();
    assert!(owned.is_none());
    assert!(rig.get("alive").await.is_some());
    assert_eq!(rig.rules().len(), 2, "rules are not its business");
}
