//! The API server away, its watches expired, its throttling, and a CRD that comes late.

use std::sync::Arc;
use std::time::Duration;

use super::super::plane;
use super::super::wire::Wire;
use super::breaker::{Breaker, Request};
use super::rig::{KEY, Rig};

/// The value of a counter, all labels together.
fn count(operator: &super::rig::Operator, name: &str) -> f64 {
    let text = operator.metrics.encode();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Seconds; `BELLHOP_TEST_OUTAGE=180` makes it minutes.
pub(super) fn outage() -> Duration {
    let asked = std::env::var("BELLHOP_TEST_OUTAGE").ok();
    Duration::from_secs(asked.map_or(5, |seconds| seconds.parse().unwrap()))
}

#[tokio::test]
async fn an_api_server_that_was_away_is_found_again() {
    let Some(rig) = Rig::new("away").await else {
        return;
    };
    let wire = Wire::to(rig.space.plane.port).await;
    let kubeconfig = wire.kubeconfig(&rig.space.plane.admin);
    let client = plane::client(&kubeconfig).await;
    let operator = rig.operator_through(client, Arc::default(), "me");
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;

    wire.cut();
    rig.delete("shop").await;
    rig.create("next", |object| {
        object["spec"]["notifications"] = serde_json::json!([{ "type": "Supplier" }]);
    })
    .await;
    tokio::time::sleep(outage()).await;
    assert_eq!(
        rig.condition("next", "Ready").await,
        None,
        "nobody can know of it"
    );
    wire.mend();
    rig.until_gone("shop").await;
    rig.until("next", "Ready", "True Ok").await;
    assert!(count(&operator, "bellhop_operator_watch_errors_total") >= 2.0);
    operator.stop().await;
}

#[tokio::test]
async fn expired_watches_throttling_and_conflicts_pass() {
    let Some(rig) = Rig::new("throttled").await else {
        return;
    };
    let breaker = Arc::new(Breaker::default());
    breaker.refuse(Request::Watch, 410, 2);
    breaker.refuse(Request::Event, 410, 2);
    for status in [429, 409, 500, 429] {
        breaker.refuse(Request::Other, status, 1);
    }
    let operator = rig.operator_with(breaker.clone(), "me");
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    assert_eq!(breaker.to_refuse(), 0);
    let text = operator.metrics.encode();
    for told in [
        "outcome=\"throttled\"",
        "outcome=\"conflict\"",
        "outcome=\"expired\"",
        "outcome=\"server_error\"",
    ] {
        assert!(text.contains(told), "{told} is not in the metrics");
    }
    assert!(count(&operator, "bellhop_operator_reconcile_errors_total") >= 2.0);
    operator.stop().await;
}

/// A Role that lacks the reading of Secrets is told of by name, and tried again by itself.
#[tokio::test]
async fn a_secret_that_may_not_be_read_is_said() {
    let Some(rig) = Rig::new("forbidden").await else {
        return;
    };
    let breaker = Arc::new(Breaker::default());
    breaker.forbid_secrets(true);
    let operator = rig.operator_with(breaker.clone(), "me");
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "CredentialsValid", "Unknown SecretForbidden")
        .await;
    rig.until("shop", "Ready", "Unknown SecretForbidden").await;
    let message = rig.message("shop", "CredentialsValid").await;
    assert!(message.starts_with("Secret redeam-keys: "), "{message}");
    assert!(rig.rules().is_empty());
    breaker.forbid_secrets(false);
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    assert!(count(&operator, "bellhop_operator_reconcile_errors_total") >= 1.0);
    operator.stop().await;
}

#[tokio::test]
async fn a_definition_that_is_not_there_yet_is_waited_for() {
    let Some(rig) = Rig::new("late").await else {
        return;
    };
    let breaker = Arc::new(Breaker::default());
    breaker.refuse(Request::List, 404, 1);
    let operator = rig.operator_with(breaker.clone(), "me");
    for _ in 0..200 {
        if breaker.to_refuse() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let waits = operator.waiting.phrases();
    assert!(
        waits
            .iter()
            .any(|what| what.contains("CustomResourceDefinition")),
        "{waits:?}"
    );
    let counted = "verb=\"get\",outcome=\"not_found\"} 1";
    let text = operator.metrics.encode();
    assert!(text.contains(counted), "{text}");
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(operator.waiting.phrases(), [] as [String; 0]);
    operator.stop().await;
}
