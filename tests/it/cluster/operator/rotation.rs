//! Rotation on request, and what the status says of rules. Oracle: the simulator's registry and the
//! requests it got, with its own times.

use std::sync::Arc;
use std::time::Duration;

use bellhop::simulator::Kind;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::breaker::{Break, Breaker};
use super::rig::{KEY, Rig};

async fn events(rig: &Rig, reason: &str) -> Vec<Event> {
    let all: Api<Event> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let found = all.list(&ListParams::default()).await.unwrap().items;
    let of = |event: &Event| event.reason.as_deref() == Some(reason);
    found.into_iter().filter(of).collect()
}

fn rotate(value: &str) -> Value {
    json!({ "metadata": { "annotations": { "bellhop.dev/rotate-keys": value } } })
}

/// `Rate` → milliseconds, of `without a live rule were Rate for 12 ms, Booking for 9 ms: …`.
fn gap(message: &str, kind: &str) -> Duration {
    let after = message.split(&format!("{kind} for ")).nth(1);
    let after = after.unwrap_or_else(|| panic!("no gap of {kind}: {message}"));
    Duration::from_millis(after.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_rotation_tells_its_gap_and_calls_for_a_resync_of_each_type() {
    let Some(rig) = Rig::new("gap").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(
        rig.resyncs("shop").await,
        json!({ "Rate": 1, "Booking": 1 })
    );
    let before = rig.stored_key("shop", "rate").await.unwrap();
    // Each answer takes a while, so that the gap has a length that can be told from none: from the
    // delete to the PUT that enables there are at least three answers.
    let slow = json!({ "on": "registry", "latency-min-ms": 100, "latency-max-ms": 110 });
    rig.simulator.control().merge_faults(&slow).unwrap();
    rig.patch("shop", rotate("1")).await;
    rig.until("shop", "Registered", "True KeysRotated").await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    let message = rig.message("shop", "Registered").await;
    for kind in ["Rate", "Booking"] {
        let gap = gap(&message, kind);
        assert!(gap >= Duration::from_millis(300), "{kind}: {gap:?}");
        assert!(gap < Duration::from_secs(30), "{kind}: {gap:?}");
    }
    let told = events(&rig, "KeysRotated").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].note.as_ref(), Some(&message));
    let metrics = operator.metrics.encode();
    let count = "bellhop_operator_rotation_gap_seconds_count 2";
    assert!(metrics.contains(count), "{metrics}");
    assert_eq!(
        rig.resyncs("shop").await,
        json!({ "Rate": 2, "Booking": 2 })
    );
    // The old key stays valid beside the new one, for what was signed before.
    let secret = rig.secrets().get("shop-bellhop").await.unwrap();
    let lines = String::from_utf8(secret.data.unwrap()["rate"].0.clone()).unwrap();
    assert_eq!(lines.lines().nth(1), Some(before.as_str()));

    // A later look says the same, and nothing is done or told twice.
    let again = json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": "1" } } });
    rig.patch("shop", again).await;
    rig.until_acknowledged("shop", "1").await;
    assert_eq!(rig.message("shop", "Registered").await, message);
    assert_eq!(events(&rig, "KeysRotated").await.len(), 1);
    operator.stop().await;
}

/// The operator dies between the delete and the new rule, and its successor comes seconds later: all
/// of that is the gap that is told.
#[tokio::test]
async fn a_gap_that_a_crash_makes_longer_is_told_whole() {
    const AWAY: Duration = Duration::from_secs(3);
    let Some(rig) = Rig::new("longer-gap").await else {
        return;
    };
    let breaker = Arc::new(Breaker::default());
    let first = rig.operator_with(breaker.clone(), "first");
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    breaker.break_next("registry delete Rate", Break::DieAfter);
    rig.patch("shop", rotate("1")).await;
    let died = tokio::time::timeout(Duration::from_mins(1), breaker.died.notified());
    died.await.expect("the rule is deleted");
    first.kill().await;
    assert!(!rig.rules().contains_key(&Kind::Rate));
    tokio::time::sleep(AWAY).await;
    let second = rig.operator_with(Arc::default(), "second");
    rig.until("shop", "Registered", "True KeysRotated").await;
    rig.check_registered("shop").await;
    let message = rig.message("shop", "Registered").await;
    assert!(gap(&message, "Rate") >= AWAY, "{message}");
    assert!(gap(&message, "Rate") < Duration::from_mins(1), "{message}");
    assert_eq!(rig.resyncs("shop").await["Rate"], json!(2));
    second.stop().await;
}

/// Nothing was live, so nothing has a gap; the keys are new all the same.
#[tokio::test]
async fn a_suspended_subscription_rotates_without_a_gap() {
    let Some(rig) = Rig::new("gapless").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| object["spec"]["suspend"] = json!(true))
        .await;
    rig.until("shop", "Ready", "True Suspended").await;
    let before = rig.stored_key("shop", "rate").await;
    rig.patch("shop", rotate("1")).await;
    for _ in 0..1_200 {
        if !events(&rig, "KeysRotated").await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = events(&rig, "KeysRotated").await;
    assert_eq!(told.len(), 1);
    let note = told[0].note.clone().unwrap();
    assert!(!note.contains("without a live rule"), "{note}");
    assert_ne!(rig.stored_key("shop", "rate").await, before);
    assert_eq!(
        rig.condition("shop", "Ready").await.as_deref(),
        Some("True Suspended")
    );
    let disabled = |rule: &Value| rule["disabled"] == json!(true);
    assert!(rig.rules().values().all(disabled));
    operator.stop().await;
}

/// `status.rules[].url` is what the provider has, owner included; of a stranger's rule nothing.
#[tokio::test]
async fn the_status_shows_the_rules_as_the_provider_has_them() {
    let Some(rig) = Rig::new("urls").await else {
        return;
    };
    let theirs = json!({
        "url": "https://elsewhere.example.com/x?token=theirs", "disabled": false,
        "config": { "operations": ["updated"] },
    });
    let stranger = super::behaviour::Stranger::of(&rig);
    assert_eq!(stranger.post("suppliers", &theirs).await, 201);
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["notifications"] =
            json!([{ "type": "Rate" }, { "type": "Booking" }, { "type": "Supplier" }]);
    })
    .await;
    rig.until("shop", "Ready", "False RuleOwnedElsewhere").await;
    let status = rig.get("shop").await.unwrap().status.unwrap();
    let shown = |name: &str| {
        let mut all = status.rules.iter();
        let found = all.find(|rule| rule.kind.as_str() == name).unwrap();
        (format!("{:?}", found.phase), found.url.clone())
    };
    let rules = rig.rules();
    for (name, kind) in [("Rate", Kind::Rate), ("Booking", Kind::Booking)] {
        let url = rules[&kind]["url"].as_str().unwrap().to_owned();
        let owner = url.rsplit('/').next().unwrap();
        assert!(owner.len() == 10 && owner.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_eq!(shown(name), ("Enabled".to_owned(), Some(url)));
    }
    assert_eq!(shown("Supplier"), ("Foreign".to_owned(), None));
    operator.stop().await;
}
