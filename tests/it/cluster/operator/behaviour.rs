//! What the operator does about drift, conflicts, changed keys and the annotations.

use std::time::{Duration, Instant};

use bellhop::simulator::Kind;
use kube::ResourceExt as _;
use serde_json::json;

use super::super::plane;
use super::super::space::Space;
use super::rig::{KEY, OTHER_KEY, Rig};

#[tokio::test]
async fn drift_is_mended_and_suspend_disables() {
    let Some(rig) = Rig::new("drift").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    // The key changes at the provider: the old one stays valid beside it, and the type is resynced.
    let before = rig.stored_key("shop", "rate").await.unwrap();
    let new = rig.simulator.control().rotate_key(Kind::Rate).unwrap();
    let now = |value: &str| json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": value } } });
    rig.patch("shop", now("1")).await;
    rig.until_acknowledged("shop", "1").await;
    let secret = rig.secrets().get("shop-bellhop").await.unwrap();
    let data = secret.data.unwrap();
    let lines = String::from_utf8(data["rate"].0.clone()).unwrap();
    assert_eq!(lines, format!("{new}\n{before}\n"));
    let resyncs = rig.resyncs("shop").await;
    assert_eq!(
        resyncs["Rate"],
        json!(2),
        "one at the start, one for the key"
    );
    assert_eq!(resyncs["Booking"], json!(1));

    rig.patch("shop", json!({ "spec": { "suspend": true } }))
        .await;
    rig.until("shop", "Ready", "True Suspended").await;
    assert!(
        rig.rules()
            .values()
            .all(|rule| rule["disabled"] == json!(true))
    );
    rig.patch("shop", json!({ "spec": { "suspend": false } }))
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;

    // A type that is not wanted any more goes.
    let one = json!({ "spec": { "notifications": [{ "type": "Booking" }] } });
    rig.patch("shop", one).await;
    rig.eventually("one rule is left", || {
        rig.rules().keys().copied().collect::<Vec<_>>() == [Kind::Booking]
    })
    .await;
    operator.stop().await;
}

/// Somebody disables a rule at the provider and deletes another. Nothing in the cluster tells of it,
/// and nobody asks: the check that is due once in the interval, here the shortest, finds it.
#[tokio::test]
async fn the_interval_alone_mends_drift() {
    let Some(rig) = Rig::new("interval").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["registration"]["driftCheckInterval"] = json!("1m");
    })
    .await;
    rig.until("shop", "Ready", "True Ok").await;
    let rate = &rig.rules()[&Kind::Rate];
    let disabled = json!({ "url": rate["url"], "config": rate["config"], "disabled": true });
    let somebody = Stranger::of(&rig);
    assert_eq!(somebody.put("rates", &disabled).await, 200);
    rig.remove_rule("bookings").await;
    let wrong = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.rules().len(), 1, "nothing tells of it");
    loop {
        let rules = rig.rules();
        let live = |rule: &serde_json::Value| rule["disabled"] != json!(true);
        if rules.len() == 2 && rules.values().all(live) {
            break;
        }
        // The interval, a tenth of jitter, and the calls.
        assert!(wrong.elapsed() < Duration::from_secs(80), "{rules:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn one_subscription_per_account_and_type_and_per_url() {
    let Some(rig) = Rig::with_two_accounts("conflict").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("first", |_| {}).await;
    rig.until("first", "Ready", "True Ok").await;
    // The same account: its rates are taken, its suppliers are free. Adoption is for strangers.
    rig.create("second", |object| {
        object["spec"]["notifications"] = json!([{ "type": "Rate" }, { "type": "Supplier" }]);
        object["spec"]["registration"] = json!({ "adoption": "Always" });
    })
    .await;
    rig.until("second", "Ready", "False TypeClaimedElsewhere")
        .await;
    rig.until("second", "Stalled", "True TypeClaimedElsewhere")
        .await;
    let message = rig.message("second", "Registered").await;
    let rival = format!("Rate ({}/first)", rig.space.name);
    assert!(message.contains(&rival), "{message}");
    let status = rig.get("second").await.unwrap().status.unwrap();
    assert_eq!(status.registered.as_deref(), Some("1/2"));
    let of = |kind: Kind| rig.rules()[&kind]["url"].as_str().unwrap().to_owned();
    assert!(of(Kind::Supplier).starts_with("https://hooks.example.com/second/supplier/"));
    assert!(of(Kind::Rate).starts_with("https://hooks.example.com/first/rate/"));
    // The same url, whatever the account.
    rig.create_keys("other-keys", OTHER_KEY).await;
    rig.create("third", |object| {
        object["spec"]["url"] = json!("https://HOOKS.example.com:443/first/");
        object["spec"]["credentialsSecretRef"]["name"] = json!("other-keys");
    })
    .await;
    rig.until("third", "Accepted", "False UrlInUse").await;
    rig.until("third", "Ready", "False UrlInUse").await;
    assert!(rig.other().control().rules().is_empty());
    // The first one goes: both others get what they were waiting for, by themselves.
    rig.delete("first").await;
    rig.until_gone("first").await;
    rig.until("second", "Ready", "True Ok").await;
    rig.until("third", "Ready", "True Ok").await;
    assert!(of(Kind::Rate).starts_with("https://hooks.example.com/second/rate/"));
    assert_eq!(rig.other().control().rules().len(), 2);
    operator.stop().await;
}

/// Who has the rule of a type keeps it, also before one that was there earlier, and also when
/// another operator comes, who knows of it from the status alone.
#[tokio::test]
async fn who_has_a_rule_keeps_it_before_an_older_one() {
    let Some(rig) = Rig::new("incumbent").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("older", |object| {
        object["spec"]["notifications"] = json!([{ "type": "Booking" }]);
    })
    .await;
    rig.until("older", "Ready", "True Ok").await;
    // Creation times have whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    rig.create("younger", |object| {
        object["spec"]["notifications"] = json!([{ "type": "Rate" }]);
    })
    .await;
    rig.until("younger", "Ready", "True Ok").await;
    let both = json!({ "spec": { "notifications": [{ "type": "Rate" }, { "type": "Booking" }] } });
    rig.patch("older", both).await;
    rig.until("older", "Ready", "False TypeClaimedElsewhere")
        .await;
    operator.stop().await;
    let operator = rig.operator();
    let look = |value: &str| json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": value } } });
    for name in ["older", "younger"] {
        rig.patch(name, look("1")).await;
        rig.until_acknowledged(name, "1").await;
    }
    rig.until("older", "Ready", "False TypeClaimedElsewhere")
        .await;
    rig.until("younger", "Ready", "True Ok").await;
    let of = |kind: Kind| rig.rules()[&kind]["url"].as_str().unwrap().to_owned();
    assert!(of(Kind::Rate).starts_with("https://hooks.example.com/younger/rate/"));
    assert!(of(Kind::Booking).starts_with("https://hooks.example.com/older/booking/"));
    operator.stop().await;
}

#[tokio::test]
async fn a_strangers_rule_is_left_alone_unless_adopted() {
    let Some(rig) = Rig::new("foreign").await else {
        return;
    };
    // By another cluster.
    let client = Stranger::of(&rig);
    let body = json!({ "url": "https://elsewhere.example.com/x", "disabled": false, "config": { "operations": ["updated"] } });
    assert_eq!(client.post("rates", &body).await, 201);
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "False RuleOwnedElsewhere").await;
    let rule = rig.rules()[&Kind::Rate].clone();
    assert_eq!(rule["url"], json!("https://elsewhere.example.com/x"));
    let message = rig.message("shop", "Ready").await;
    assert!(message.contains("elsewhere.example.com"), "{message}");
    rig.patch(
        "shop",
        json!({ "spec": { "registration": { "adoption": "Always" } } }),
    )
    .await;
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn observing_writes_nothing_and_says_what_it_would_do() {
    let Some(rig) = Rig::new("observe").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["registration"] = json!({ "mode": "Observe" });
    })
    .await;
    rig.until("shop", "Ready", "False ObserveOnly").await;
    let message = rig.message("shop", "Registered").await;
    assert!(message.contains("would create"), "{message}");
    assert!(rig.rules().is_empty());
    let owned = rig.secrets().get_opt("shop-bellhop").await.unwrap();
    assert!(owned.is_none(), "not even its own Secret");
    let object = rig.get("shop").await.unwrap();
    assert_eq!(object.finalizers(), [] as [String; 0]);
    rig.delete("shop").await;
    rig.until_gone("shop").await;
    operator.stop().await;
}

#[tokio::test]
async fn another_account_is_moved_to_only_when_told() {
    let Some(rig) = Rig::with_two_accounts("channel").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    // Wrong ones: said, and the copy of the good ones stays.
    rig.change_keys("redeam-keys", KEY, "mistyped").await;
    rig.until("shop", "Ready", "False Unauthorized").await;
    let owned = rig.secrets().get("shop-bellhop").await.unwrap();
    assert_eq!(owned.data.unwrap()["apiSecret"].0, b"an-api-secret");
    rig.change_keys("redeam-keys", OTHER_KEY, "an-api-secret")
        .await;
    rig.until("shop", "Ready", "False ChannelChanged").await;
    rig.until("shop", "Stalled", "True ChannelChanged").await;
    rig.check_registered("shop").await;
    assert!(rig.other().control().rules().is_empty());
    let told = json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": "yes" } } });
    rig.patch("shop", told).await;
    rig.until("shop", "Ready", "True Ok").await;
    assert!(rig.rules().is_empty(), "the old account's rules are gone");
    assert_eq!(rig.other().control().rules().len(), 2);
    operator.stop().await;
}

#[tokio::test]
async fn a_stuck_account_does_not_delay_the_others() {
    let Some(rig) = Rig::with_two_accounts("stuck").await else {
        return;
    };
    let faults = json!({ "hang": 1.0, "hang-ms": 60_000 });
    rig.other().control().merge_faults(&faults).unwrap();
    rig.create_keys("other-keys", OTHER_KEY).await;
    rig.create_keys("redeam-keys", KEY).await;
    let operator = rig.operator();
    // More of them than passes at a time.
    for number in 0..12 {
        rig.create(&format!("stuck-{number}"), |object| {
            object["spec"]["credentialsSecretRef"]["name"] = json!("other-keys");
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    println!(
        "registered beside a stuck account after {:?}",
        begun.elapsed()
    );
    // One of its calls alone takes five seconds to be given up.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(rig.other().control().rules().is_empty());
    operator.kill().await;
}

#[tokio::test]
async fn paused_is_hands_off() {
    let Some(rig) = Rig::new("paused").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["metadata"]["annotations"] = json!({ "bellhop.dev/paused": "true" });
    })
    .await;
    rig.until("shop", "Accepted", "Unknown Paused").await;
    assert!(rig.rules().is_empty());
    let go_on = json!({ "metadata": { "annotations": { "bellhop.dev/paused": null } } });
    rig.patch("shop", go_on).await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_restarted_operator_asks_nothing_of_the_provider() {
    let Some(rig) = Rig::new("restart").await else {
        return;
    };
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    operator.stop().await;
    let operator = rig.operator();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut calls = operator.breaker.calls();
    calls.sort();
    assert_eq!(
        calls,
        ["GET secrets/redeam-keys", "GET secrets/shop-bellhop"]
    );
    // What changed while nobody looked is acted on.
    operator.stop().await;
    rig.change_keys("redeam-keys", KEY, "mistyped").await;
    let operator = rig.operator();
    rig.until("shop", "Ready", "False Unauthorized").await;
    operator.stop().await;
}

/// As after a downgrade: the resource knows an environment that this program does not.
#[tokio::test]
async fn an_object_that_cannot_be_read_says_so_and_stops_nobody() {
    let Some(plane) = tokio::task::spawn_blocking(plane::own).await.unwrap() else {
        return;
    };
    let rig = Rig::on(Space::on(plane, "shop").await).await;
    let crd = std::fs::read_to_string("crds/bellhop.dev_webhooksubscriptions.yaml").unwrap();
    let narrow = "                - sandbox\n";
    assert_eq!(crd.matches(narrow).count(), 1);
    let wide = crd.replace(narrow, &format!("{narrow}                - staging\n"));
    let apply = |text: &str| {
        rig.space
            .kubectl_with(["apply", "--server-side", "-f", "-"], text)
            .fine();
    };
    apply(&wide);
    let established = [
        "wait",
        "--for=condition=Established",
        "crd/webhooksubscriptions.bellhop.dev",
    ];
    rig.space.kubectl(established).fine();
    let odd = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WebhookSubscription",
        "metadata": { "name": "odd" },
        "spec": {
            "environment": "staging",
            "url": "https://hooks.example.com/odd",
            "credentialsSecretRef": { "name": "redeam-keys" }
        }
    });
    apply(&odd.to_string());
    let operator = rig.operator();
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    rig.until("shop", "Ready", "True Ok").await;
    let said = rig.space.kubectl([
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type=='Accepted')].reason}=Invalid",
        "whs/odd",
        "--timeout=20s",
    ]);
    assert!(said.well, "{said:?}");
    let shown = rig.space.kubectl(["describe", "whs/odd"]).fine();
    assert!(
        shown.contains("cannot read the object") && shown.contains("staging"),
        "{shown}"
    );
    let text = operator.metrics.encode();
    let counted = "bellhop_operator_undecodable_subscriptions 1";
    assert!(text.contains(counted), "{text}");
    operator.stop().await;
}

/// A plain HTTP client of the simulator: somebody else with the same keys.
pub struct Stranger {
    http: reqwest::Client,
    registry: String,
}

impl Stranger {
    pub fn of(rig: &Rig) -> Self {
        bellhop::provider::client::install_crypto_provider();
        Self {
            http: reqwest::Client::new(),
            registry: rig.simulator.registry_url(),
        }
    }

    pub async fn post(&self, path: &str, body: &serde_json::Value) -> u16 {
        let url = format!("{}/{path}", self.registry);
        let request = self.http.post(url).body(body.to_string());
        Self::send(request).await
    }

    async fn put(&self, path: &str, body: &serde_json::Value) -> u16 {
        let url = format!("{}/{path}", self.registry);
        Self::send(self.http.put(url).body(body.to_string())).await
    }

    pub async fn delete(&self, path: &str) -> u16 {
        Self::send(self.http.delete(format!("{}/{path}", self.registry))).await
    }

    async fn send(request: reqwest::RequestBuilder) -> u16 {
        let request = request
            .header("X-API-Key", KEY)
            .header("X-API-Secret", "an-api-secret")
            .header("Content-Type", "application/json");
        request.send().await.unwrap().status().as_u16()
    }
}
