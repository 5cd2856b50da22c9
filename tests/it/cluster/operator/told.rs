//! What people tell an operator beside the spec's rules: `paused`, `reconcile-at`, `mode: Observe`
//! and `suspend`. Oracle: the simulator's registry, what it was asked, and the API server.

use std::time::Duration;

use bellhop::simulator::Kind;
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

fn annotation(name: &str, value: Value) -> Value {
    let mut all = serde_json::Map::new();
    all.insert(format!("bellhop.dev/{name}"), value);
    json!({ "metadata": { "annotations": all } })
}

/// Somebody else with the same keys removes a rule.
async fn remove(rig: &Rig, path: &str) {
    let stranger = super::behaviour::Stranger::of(rig);
    let status = stranger.delete(path).await;
    assert!((200..300).contains(&status), "{status}");
}

fn asked(rig: &Rig) -> usize {
    rig.simulator.control().requests(0, usize::MAX).len()
}

/// Long enough for a pass that should not come.
async fn nothing_happens(rig: &Rig) {
    let before = asked(rig);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(asked(rig), before, "the provider was asked");
}

#[tokio::test]
async fn paused_leaves_everything_as_it_is_deletion_included() {
    let Some((rig, operator)) = registered("hands-off").await else {
        return;
    };
    rig.patch("shop", annotation("paused", json!("true"))).await;
    rig.until("shop", "Accepted", "Unknown Paused").await;
    rig.until("shop", "Stalled", "True Paused").await;
    rig.until("shop", "Registered", "True RulesInPlace").await;
    remove(&rig, "rates").await;
    let moved = json!({ "spec": { "url": "https://hooks.example.com/moved" } });
    rig.patch("shop", moved).await;
    rig.patch("shop", annotation("reconcile-at", json!("1")))
        .await;
    rig.delete("shop").await;
    nothing_happens(&rig).await;
    let rules = rig.rules();
    assert_eq!(rules.keys().copied().collect::<Vec<_>>(), [Kind::Booking]);
    let url = rules[&Kind::Booking]["url"].as_str().unwrap();
    assert!(url.starts_with("https://hooks.example.com/shop/"), "{url}");
    let object = rig.get("shop").await.unwrap();
    assert_eq!(object.status.unwrap().acknowledged, None);
    rig.patch("shop", annotation("paused", Value::Null)).await;
    rig.check_gone("shop").await;
    operator.stop().await;
}

/// A pause that ends while no operator runs: the next one does not take it for settled.
#[tokio::test]
async fn a_pause_that_ends_unseen_is_seen_to_be_over() {
    let Some((rig, operator)) = registered("unpaused").await else {
        return;
    };
    rig.patch("shop", annotation("paused", json!("true"))).await;
    rig.until("shop", "Stalled", "True Paused").await;
    operator.stop().await;
    rig.patch("shop", annotation("paused", Value::Null)).await;
    let operator = rig.operator();
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(rig.condition("shop", "Stalled").await, None);
    operator.stop().await;
}

#[tokio::test]
async fn a_new_value_of_reconcile_at_is_one_look_and_the_same_again_none() {
    let Some((rig, operator)) = registered("now").await else {
        return;
    };
    for value in ["1", "2026-01-02T03:04:05Z", "1"] {
        remove(&rig, "bookings").await;
        nothing_happens(&rig).await;
        rig.patch("shop", annotation("reconcile-at", json!(value)))
            .await;
        rig.eventually("the rule is back", || rig.rules().len() == 2)
            .await;
        rig.until_acknowledged("shop", value).await;
        rig.until("shop", "Ready", "True Ok").await;
        rig.check_registered("shop").await;
        let status = rig.get("shop").await.unwrap().status.unwrap();
        let known = status.acknowledged.unwrap();
        assert_eq!(known.reconcile_at.as_deref(), Some(value));
        // Something else changes about the annotations: that is no new value.
        rig.patch("shop", annotation("of-somebody-else", json!(value)))
            .await;
        nothing_happens(&rig).await;
    }
    operator.stop().await;
}

#[tokio::test]
async fn an_observer_says_for_each_type_what_it_would_do() {
    let Some((rig, operator)) = registered("plans").await else {
        return;
    };
    let before = rig.rules();
    let writes = |rig: &Rig| {
        let all = rig.simulator.control().requests(0, usize::MAX);
        all.iter().filter(|one| one.method != "GET").count()
    };
    let made = writes(&rig);
    remove(&rig, "rates").await;
    let observe = json!({ "spec": {
        "registration": { "mode": "Observe" },
        "url": "https://hooks.example.com/moved",
        "notifications": [{ "type": "Rate" }, { "type": "Booking" }, { "type": "Supplier" }],
    } });
    rig.patch("shop", observe).await;
    rig.until("shop", "Registered", "False ObserveOnly").await;
    rig.until("shop", "Ready", "False ObserveOnly").await;
    rig.until("shop", "Reachable", "Unknown ProbeOff").await;
    let status = rig.get("shop").await.unwrap().status.unwrap();
    let message = rig.message("shop", "Registered").await;
    for (kind, plan) in [
        ("Supplier", "create"),
        ("Rate", "create"),
        ("Booking", "update (url differs)"),
    ] {
        let part = message.split(". ").find(|part| part.contains(kind));
        let part = part.unwrap_or_else(|| panic!("nothing of {kind}: {message}"));
        assert!(part.contains(plan), "{kind}: {message}");
    }
    let phases: Vec<String> = status
        .rules
        .iter()
        .map(|rule| format!("{} {:?}", rule.kind, rule.phase))
        .collect();
    assert_eq!(
        phases,
        ["Supplier Missing", "Rate Missing", "Booking Enabled"]
    );
    assert_eq!(writes(&rig), made + 1, "nobody but the stranger wrote");
    assert_eq!(
        rig.rules()[&Kind::Booking]["url"],
        before[&Kind::Booking]["url"]
    );
    let manage = json!({ "spec": { "registration": { "mode": "Manage" } } });
    rig.patch("shop", manage).await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(rig.rules().len(), 3);
    operator.stop().await;
}

#[tokio::test]
async fn who_comes_back_from_a_suspension_owes_a_resync() {
    let Some((rig, operator)) = registered("suspended").await else {
        return;
    };
    let keys = (
        rig.stored_key("shop", "rate").await,
        rig.stored_key("shop", "booking").await,
    );
    rig.patch("shop", json!({ "spec": { "suspend": true } }))
        .await;
    rig.until("shop", "Ready", "True Suspended").await;
    let status = rig.get("shop").await.unwrap().status.unwrap();
    assert_eq!(status.registered.as_deref(), Some("2/2"));
    assert_eq!(
        rig.resyncs("shop").await,
        json!({ "Rate": 1, "Booking": 1 })
    );
    let disabled = |rule: &Value| rule["disabled"] == json!(true);
    assert!(rig.rules().values().all(disabled));
    rig.patch("shop", json!({ "spec": { "suspend": false } }))
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    assert_eq!(
        rig.resyncs("shop").await,
        json!({ "Rate": 2, "Booking": 2 })
    );
    let after = (
        rig.stored_key("shop", "rate").await,
        rig.stored_key("shop", "booking").await,
    );
    assert_eq!(keys, after, "a suspension changes no key");
    operator.stop().await;
}
