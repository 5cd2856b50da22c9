//! Under steady load, with the provider's retry rules (delays: 1, 3 and 9 s; a connection that fails
//! is not retried): what is done to receivers and keys loses nothing that got its 200.

use std::time::Duration;

use serde_json::{Value, json};

use crate::first::process;
use crate::kubectl::eventually;
use crate::operator;
use crate::provider::{Counts, Provider};
use crate::shop::{NAME, Shop};
use crate::world::{World, check_account};

/// Changes a second.
const RATE: usize = 20;

/// Changes while something is done.
const CHANGES: usize = 16 * RATE;

/// Does something some seconds into a load, and gives the numbers of the whole load.
fn under_load(
    what: &str,
    provider: &Provider<'_>,
    shop: &Shop<'_>,
    disturb: impl FnOnce(),
) -> Counts {
    let before = provider.counts();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| provider.load(CHANGES, RATE));
        std::thread::sleep(Duration::from_secs(3));
        disturb();
        load.join().unwrap();
    });
    check_account(what, provider, shop, before)
}

/// New keys for all rules; what notifications missed is found by the resync that follows.
pub fn rotate(shop: &Shop<'_>, value: &str) {
    shop.patch(&json!({ "metadata": { "annotations": { "bellhop.dev/rotate-keys": value } } }));
}

fn until_rotated(shop: &Shop<'_>, value: &str) {
    eventually("the rotation is acknowledged", 60, || {
        let status = shop.get(&format!("whs {NAME}"));
        let acknowledged = &status["status"]["acknowledged"]["rotateKeys"];
        if acknowledged == value {
            Ok(())
        } else {
            Err(acknowledged.to_string())
        }
    });
}

/// The keys by kind, as the provider has them.
fn keys(provider: &Provider<'_>) -> Vec<Value> {
    let rules = provider.rules();
    rules
        .values()
        .map(|rule| rule["securityKey"].clone())
        .collect()
}

pub fn rotation_rollout_and_eviction(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "load");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);

    let before = keys(&provider);
    let counts = under_load("key rotation", &provider, &shop, || {
        rotate(&shop, "1");
        until_rotated(&shop, "1");
    });
    assert_eq!(counts.never, 0, "{counts:?}");
    let after = keys(&provider);
    assert_eq!(after.len(), 2);
    assert!(
        after.iter().all(|key| !before.contains(key)),
        "each rule has another key"
    );

    let uid = shop.receiver()["metadata"]["uid"].clone();
    under_load("rollout", &provider, &shop, || {
        let labels = json!({ "rolled": "yes" });
        shop.patch(&json!({ "spec": { "receiver": { "podLabels": labels } } }));
        shop.until_replaced(&uid, 60);
    });
    assert_eq!(shop.receiver()["metadata"]["labels"]["rolled"], "yes");

    let uid = shop.receiver()["metadata"]["uid"].clone();
    under_load("eviction", &provider, &shop, || {
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": format!("{NAME}-0"), "namespace": shop.namespace },
        });
        let path = format!(
            "/api/v1/namespaces/{}/pods/{NAME}-0/eviction",
            shop.namespace
        );
        world.cluster.kubectl.post_raw(&path, &eviction).unwrap();
        shop.until_replaced(&uid, 60);
    });
    // What was never delivered is found by a resync.
    rotate(&shop, "2");
    shop.until_equal(&provider.owed().0, 60);
    shop.unsubscribe();
    shop.close();
}

pub fn killed_receiver_and_operator(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "kill");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);

    let counts = under_load("operators killed", &provider, &shop, || {
        operator::kill(&world.cluster);
    });
    assert_eq!(
        (counts.never, counts.retried),
        (0, 0),
        "receivers need no operator: {counts:?}"
    );
    operator::until_ready(&world.cluster);

    under_load("receiver killed", &provider, &shop, || kill(world, &shop));
    eventually("the receiver is ready again", 30, || {
        let pod = shop.receiver();
        if crate::shop::is_ready(&pod) {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
    rotate(&shop, "1");
    shop.until_equal(&provider.owed().0, 60);
    shop.unsubscribe();
    shop.close();
}

/// kill -9 of the program where that can be done; elsewhere its pod goes without a grace period.
fn kill(world: &World, shop: &Shop<'_>) {
    if !world.cluster.own {
        shop.kubectl(&format!("delete pod {NAME}-0 --force --grace-period=0"));
        return;
    }
    let pid = process(&shop.receiver()).unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    eventually("Kubernetes has started it again", 30, || {
        let restarts = shop.receiver()["status"]["containerStatuses"][0]["restartCount"].clone();
        if restarts == json!(1) {
            Ok(())
        } else {
            Err(restarts.to_string())
        }
    });
}
