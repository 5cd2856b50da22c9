//! The chart's other ways: receivers asked through the API server, `helm test`, and an uninstall that
//! is refused. Oracle: what Helm and the API server say.

use std::time::Duration;

use serde_json::Value;

use crate::account::Delivery;
use crate::kubectl::eventually;
use crate::operator::{self, NAMESPACE, helm, install, install_with};
use crate::provider::Provider;
use crate::shop::{NAME, Shop};
use crate::world::World;

/// How far the clocks of two nodes may differ, in milliseconds, with what the status leaves out.
const CLOCKS: i64 = 2_000;

/// The values `receiver.access: proxy`, for clusters whose network keeps the operator from pods, and
/// `watchNamespaces`, for those where it may not have rights in all.
pub fn receivers_are_asked_through_the_api_server(world: &World) {
    let provider = world.provider();
    let cluster = &world.cluster;
    let shop = Shop::open(world, "proxy");
    let other = Shop::open(world, "unwatched");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);
    let first = notify(&provider);
    let watched = format!("watchNamespaces={{{}}}", shop.namespace);
    let values = ["--set", "receiver.access=proxy", "--set", &watched];
    install_with(cluster, &world.authority, &cluster.image, &values);
    operator::until_ready(cluster);
    other.subscribe(|_| {});
    until_status_tells_of(&first, &shop);
    shop.until_ready();
    let condition = "--for=condition=ReceiverAvailable";
    shop.kubectl(&format!("wait whs/{NAME} {condition} --timeout=30s"));
    let arguments = format!("--namespace={NAMESPACE} get deployments -o jsonpath={{..args}}");
    let arguments = cluster.kubectl.fine(&arguments);
    assert!(arguments.contains("--receiver-access=proxy"), "{arguments}");
    let unwatched = other.get(&format!("whs {NAME}"));
    let untouched = serde_json::json!({ "observedGeneration": -1 });
    assert_eq!(unwatched["status"], untouched, "{unwatched}");
    assert_eq!(unwatched["metadata"]["finalizers"], Value::Null);
    other.close();
    // And without the API server between, as by default.
    let second = notify(&provider);
    install(cluster, &world.authority, &cluster.image);
    until_status_tells_of(&second, &shop);
    shop.unsubscribe();
    shop.close();
}

/// `minInterval` of the shop, and the read itself.
const READ: Duration = Duration::from_secs(2);

/// Has one rate notified, and waits until it is read: an operator that asks before that says for a
/// minute that something is left to do.
fn notify(provider: &Provider<'_>) -> Delivery {
    let before = provider.counts();
    provider.change_a_rate();
    let counts = provider.counts().since(before);
    assert_eq!((counts.made, counts.delivered), (1, 1), "{counts}");
    std::thread::sleep(READ);
    provider.deliveries().pop().unwrap()
}

/// Waits until the status has what only the receiver knows: when this notification came in, and that
/// nothing is left to do. The time is written five minutes after the one before at the earliest, but
/// by an operator that is new it is at once: so it is that one which has asked.
fn until_status_tells_of(notification: &Delivery, shop: &Shop<'_>) {
    let attempt = notification.attempts.last().unwrap();
    let answered = attempt.at_ms + attempt.latency_ms as i64;
    let expected = attempt.at_ms - CLOCKS..=answered + CLOCKS;
    eventually("the status tells of the notification", 90, || {
        let status = shop.get(&format!("whs {NAME}"))["status"].take();
        let time = status["lastNotificationTime"].as_str();
        let time = time.and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let right = time.is_some_and(|time| expected.contains(&time.as_millisecond()));
        if right && status["backlog"] == "0" {
            Ok(())
        } else {
            Err(format!("{expected:?}: {status}"))
        }
    });
}

/// The last scenario: it takes Bellhop away.
pub fn tested_kept_and_uninstalled(world: &World) {
    let _ = world.provider();
    let cluster = &world.cluster;
    let at = ["--namespace", NAMESPACE];
    let tested = helm(
        cluster,
        &[&["test", "bellhop", "--timeout=60s"], &at[..]].concat(),
    );
    assert!(tested.fine().contains("Succeeded"));

    let shop = Shop::open(world, "kept");
    shop.subscribe(|_| {});
    shop.until_ready();
    let uninstall = [&["uninstall", "bellhop", "--timeout=60s"], &at[..]].concat();
    let refused = helm(cluster, &uninstall);
    assert!(!refused.well, "{}", refused.out);
    let said = format!("{}{}", refused.out, refused.err);
    for part in [
        &format!("{}/{NAME}", shop.namespace),
        "kubectl delete",
        "helm rollback",
    ] {
        assert!(said.contains(part), "no `{part}`: {said}");
    }
    // All is still there and at work, and the release goes on as before after what it says.
    let history = [&["history", "bellhop", "--output=json"], &at[..]].concat();
    let history: Value = serde_json::from_str(&helm(cluster, &history).fine()).unwrap();
    let last = history.as_array().unwrap().last().unwrap()["revision"].to_string();
    helm(
        cluster,
        &[&["rollback", "bellhop", &last, "--wait"], &at[..]].concat(),
    )
    .fine();
    install(cluster, &world.authority, &cluster.image);
    operator::until_ready(cluster);
    shop.until_ready();
    shop.unsubscribe();
    shop.close();

    helm(cluster, &uninstall).fine();
    let left = format!("--namespace={NAMESPACE} get deployments,pods,secrets,leases -o name");
    eventually("nothing of it is left but the Lease", 30, || {
        let left = cluster.kubectl.fine(&left);
        // What Helm remembers of the other release.
        let stays = [
            "lease.coordination.k8s.io/",
            "secret/sh.helm.release.v1.bellhop-crds.",
        ];
        let stays = |line: &str| stays.iter().any(|prefix| line.starts_with(prefix));
        if left.lines().all(stays) {
            Ok(())
        } else {
            Err(left)
        }
    });
    let crds = [&["uninstall", "bellhop-crds"], &at[..]].concat();
    helm(cluster, &crds).fine();
    cluster
        .kubectl
        .fine("get crd webhooksubscriptions.bellhop.dev");
}
