//! The chart's other ways: receivers asked through the API server, `helm test`, and an uninstall that
//! is refused. Oracle: what Helm and the API server say.

use serde_json::Value;

use crate::kubectl::eventually;
use crate::operator::{self, NAMESPACE, helm, install, install_with};
use crate::shop::{NAME, Shop};
use crate::world::World;

/// The values `receiver.access: proxy`, for clusters whose network keeps the operator from pods, and
/// `watchNamespaces`, for those where it may not have rights in all.
pub fn receivers_are_asked_through_the_api_server(world: &World) {
    let _ = world.provider();
    let cluster = &world.cluster;
    let shop = Shop::open(world, "proxy");
    let other = Shop::open(world, "unwatched");
    let watched = format!("watchNamespaces={{{}}}", shop.namespace);
    let values = ["--set", "receiver.access=proxy", "--set", &watched];
    install_with(cluster, &world.authority, &cluster.image, &values);
    operator::until_ready(cluster);
    other.subscribe(|_| {});
    shop.subscribe(|_| {});
    shop.until_ready();
    let condition = "--for=condition=ReceiverAvailable";
    shop.kubectl(&format!("wait whs/{NAME} {condition} --timeout=30s"));
    // A number that only the receiver knows.
    eventually("the backlog is in the status", 30, || {
        let status = shop.get(&format!("whs {NAME}"))["status"].take();
        match &status["backlog"] {
            Value::String(_) => Ok(()),
            _ => Err(status.to_string()),
        }
    });
    let arguments = format!("--namespace={NAMESPACE} get deployments -o jsonpath={{..args}}");
    let arguments = cluster.kubectl.fine(&arguments);
    assert!(arguments.contains("--receiver-access=proxy"), "{arguments}");
    let unwatched = other.get(&format!("whs {NAME}"));
    let untouched = serde_json::json!({ "observedGeneration": -1 });
    assert_eq!(unwatched["status"], untouched, "{unwatched}");
    assert_eq!(unwatched["metadata"]["finalizers"], Value::Null);
    shop.unsubscribe();
    for shop in [shop, other] {
        shop.close();
    }
    install(cluster, &world.authority, &cluster.image);
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
        let mut kinds = left.lines().map(|line| line.split('/').next().unwrap());
        if kinds.all(|kind| kind == "lease.coordination.k8s.io") {
            Ok(())
        } else {
            Err(left)
        }
    });
    let crds = helm(
        cluster,
        &["uninstall", "bellhop-crds", "--namespace", "default"],
    );
    crds.fine();
    cluster
        .kubectl
        .fine("get crd webhooksubscriptions.bellhop.dev");
}
