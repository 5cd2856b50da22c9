//! What other tools see in the objects that an operator writes, as the API server gives them out.
//! Oracle: the library `kstatus`, which Flux and kpt use.

use serde_json::{Value, json};

use super::super::kstatus::ask;
use super::super::tools;
use super::rig::{KEY, Rig};

/// The object, from the real kubectl.
fn shown(rig: &Rig, name: &str) -> Value {
    let name = format!("whs/{name}");
    let text = rig.space.kubectl(["get", &name, "-o", "json"]).fine();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn kstatus_follows_a_subscription_to_its_end() {
    let (Some(kstatus), Some(rig)) = (tools::find("kstatus"), Rig::new("seen").await) else {
        return;
    };
    let mut objects = Vec::new();
    let mut expected = Vec::new();
    rig.create("shop", |_| {}).await;
    let mut see = |object: Value, seen: &'static str| {
        objects.push(object);
        expected.push(seen);
    };
    // Nobody has looked at it.
    see(shown(&rig, "shop"), "InProgress");
    let operator = rig.operator();
    rig.until("shop", "Ready", "False SecretMissing").await;
    see(shown(&rig, "shop"), "InProgress");
    rig.create_keys("redeam-keys", KEY).await;
    rig.until("shop", "Ready", "True Ok").await;
    see(shown(&rig, "shop"), "Current");
    // Changed, and nobody has seen it.
    operator.stop().await;
    rig.patch("shop", json!({ "spec": { "suspend": true } }))
        .await;
    see(shown(&rig, "shop"), "InProgress");
    let operator = rig.operator();
    rig.until("shop", "Ready", "True Suspended").await;
    see(shown(&rig, "shop"), "Current");
    rig.patch("shop", json!({ "spec": { "suspend": false } }))
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.create("twin", |object| {
        object["spec"]["url"] = json!("https://hooks.example.com/shop");
    })
    .await;
    rig.until("twin", "Ready", "False UrlInUse").await;
    see(shown(&rig, "twin"), "Failed");
    rig.change_keys("redeam-keys", KEY, "mistyped").await;
    rig.until("shop", "Ready", "False Unauthorized").await;
    see(shown(&rig, "shop"), "Failed");
    let down = json!({ "fail": 1.0 });
    rig.simulator.control().merge_faults(&down).unwrap();
    rig.delete("shop").await;
    rig.until("shop", "Registered", "False DeletionBlocked")
        .await;
    see(shown(&rig, "shop"), "Terminating");
    operator.stop().await;
    let said = ask(kstatus, &objects);
    let said: Vec<&str> = said
        .iter()
        .map(|said| said["status"].as_str().unwrap())
        .collect();
    assert_eq!(said, expected);
}
