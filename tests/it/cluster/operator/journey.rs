//! The whole way once: created, registered, quiet, mended, deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop::simulator::Kind;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::rig::{KEY, Rig};

#[tokio::test]
async fn a_subscription_is_registered_kept_and_removed() {
    let Some(rig) = Rig::new("journey").await else {
        return;
    };
    let operator = rig.operator();
    // The Secret comes late: said, and acted on at once when it is there.
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "False SecretMissing").await;
    rig.until("shop", "Reconciling", "True SecretMissing").await;
    let seen = steps(&rig);
    rig.create_keys("redeam-keys", KEY).await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    // No image, no pods: said, and nothing that Ready depends on.
    rig.until("shop", "ReceiverAvailable", "Unknown ReceiverNotManaged")
        .await;
    let seen = seen.await.unwrap();
    assert_eq!(
        seen,
        ["0/2", "1/2", "2/2"],
        "each step is seen by who watches"
    );
    let object = rig.get("shop").await.unwrap();
    let status = object.status.clone().unwrap();
    assert_eq!(status.registered.as_deref(), Some("2/2"));
    assert_eq!(
        status.observed_generation,
        object.metadata.generation.unwrap()
    );
    assert_eq!(
        object.metadata.finalizers.unwrap(),
        ["bellhop.dev/registration"]
    );

    // Nothing changes: no call of a pass, neither here nor there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = operator.breaker.calls();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = operator.breaker.calls();
    assert_eq!(after[before.len()..], [] as [String; 0]);

    // Another url is another rule url.
    rig.patch(
        "shop",
        json!({ "spec": { "url": "https://hooks.example.com/moved" } }),
    )
    .await;
    rig.eventually("both rules have moved", || {
        let rules = rig.rules();
        let mut urls = rules.values().filter_map(|rule| rule["url"].as_str());
        urls.all(|url| url.starts_with("https://hooks.example.com/moved/"))
    })
    .await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered_at("shop", "moved").await;

    changes_of_a_rule(&rig).await;
    rig.check_registered_at("shop", "moved").await;

    rig.delete("shop").await;
    rig.check_gone("shop").await;
    operator.stop().await;
}

/// A type that comes, changes and goes, and another one's filter.
async fn changes_of_a_rule(rig: &Rig) {
    let wanted =
        async |types: Value, what: &str, holds: &dyn Fn(&BTreeMap<Kind, Value>) -> bool| {
            rig.patch("shop", json!({ "spec": { "notifications": types } }))
                .await;
            rig.eventually(what, || holds(&rig.rules())).await;
            rig.until("shop", "Ready", "True Ok").await;
        };
    let operations = |rules: &BTreeMap<Kind, Value>| {
        let rule = rules.get(&Kind::ChannelBinding)?;
        Some(rule["config"]["operations"].clone())
    };
    let bindings = |operations: Value| {
        json!([{ "type": "Rate" }, { "type": "Booking" },
            { "type": "ChannelBinding", "operations": operations }])
    };
    for asked in [json!(["created"]), json!(["created", "removed"])] {
        let is = |rules: &BTreeMap<Kind, Value>| operations(rules) == Some(asked.clone());
        wanted(bindings(asked.clone()), "its operations", &is).await;
    }
    let filtered = json!([{ "type": "Rate", "config": { "supplierIDs": ["one"] } },
        { "type": "Booking" }]);
    let is = |rules: &BTreeMap<Kind, Value>| {
        let filter = &rules[&Kind::Rate]["config"]["supplierIDs"];
        rules.len() == 2 && *filter == json!(["one"])
    };
    wanted(filtered, "a filter, and one type less", &is).await;
}

#[tokio::test]
async fn the_users_secret_may_be_gone_when_the_subscription_is_deleted() {
    let Some(rig) = Rig::new("secretless").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.secrets()
        .delete("redeam-keys", &DeleteParams::default())
        .await
        .unwrap();
    rig.until("shop", "Ready", "False SecretMissing").await;
    rig.check_registered("shop").await;
    // In the foreground, as Argo CD does it: the object waits for what it owns.
    rig.subscriptions()
        .delete("shop", &DeleteParams::foreground())
        .await
        .unwrap();
    for _ in 0..200 {
        if rig.rules().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(rig.rules().is_empty());
    // No garbage collector runs here: only its own finalizer may be left.
    for _ in 0..200 {
        let left = rig
            .get("shop")
            .await
            .and_then(|object| object.metadata.finalizers);
        if left.is_none_or(|left| left == ["foregroundDeletion"]) {
            operator.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("our finalizer is still there");
}

/// What `kubectl get -w` shows in the column Registered, until all is well.
fn steps(rig: &Rig) -> tokio::task::JoinHandle<Vec<String>> {
    use futures_util::StreamExt as _;
    use kube::runtime::{WatchStreamExt as _, watcher};
    let changes = watcher(rig.subscriptions(), watcher::Config::default());
    tokio::spawn(async move {
        let mut changes = Box::pin(changes.applied_objects());
        let mut seen: Vec<String> = Vec::new();
        while let Some(Ok(object)) = changes.next().await {
            let status = object.status.unwrap_or_default();
            if let Some(registered) = status.registered
                && seen.last() != Some(&registered)
            {
                seen.push(registered);
            }
            let mut ready = status.conditions.iter().filter(|one| one.type_ == "Ready");
            if ready.any(|ready| ready.status == "True") {
                break;
            }
        }
        seen
    })
}
