//! Under steady load, with the provider's retry rules (delays: 1, 3 and 9 s; a connection that fails
//! is not retried): what is done to receivers and keys loses nothing that got its 200.

use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::account::{self, Told, is_booking};
use crate::kubectl::eventually;
use crate::operator;
use crate::process;
use crate::provider::{Counts, Provider};
use crate::shop::{NAME, Shop, is_ready};
use crate::world::World;

/// How long a load runs before something is done, and how long after that.
const AROUND: Duration = Duration::from_secs(2);

/// Does something under a load that goes on until it is done, and a little longer. Gives what came of
/// it, and the numbers of the whole load.
#[track_caller]
pub fn under_load<T>(
    what: &str,
    provider: &Provider<'_>,
    shop: &Shop<'_>,
    disturb: impl FnOnce() -> T,
) -> (T, Counts) {
    let before = provider.counts();
    let done = std::thread::scope(|scope| {
        // Dropped at the end, whatever the end is.
        let (going, gone) = mpsc::channel::<()>();
        let load = scope.spawn(move || {
            while gone.try_recv() == Err(TryRecvError::Empty) {
                provider.load(1);
            }
        });
        std::thread::sleep(AROUND);
        let done = disturb();
        std::thread::sleep(AROUND);
        drop(going);
        load.join().unwrap();
        done
    });
    (done, account::check(what, provider, shop, before))
}

/// The same with something that takes the receiver away for a while: that must have met the load.
#[track_caller]
pub fn through_an_outage(
    what: &str,
    provider: &Provider<'_>,
    shop: &Shop<'_>,
    disturb: impl FnOnce(),
) {
    let ((), counts) = under_load(what, provider, shop, disturb);
    let met = counts.retried + counts.never;
    assert!(met > 0, "{what} met no notification: {counts}");
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
    let ((), counts) = under_load("key rotation", &provider, &shop, || {
        rotate(&shop, "1");
        until_rotated(&shop, "1");
    });
    assert_eq!(counts.never, 0, "{counts}");
    let after = keys(&provider);
    assert_eq!(after.len(), 2);
    assert!(
        after.iter().all(|key| !before.contains(key)),
        "each rule has another key"
    );

    let uid = shop.receiver()["metadata"]["uid"].clone();
    through_an_outage("rollout", &provider, &shop, || {
        let labels = json!({ "rolled": "yes" });
        shop.patch(&json!({ "spec": { "receiver": { "podLabels": labels } } }));
        shop.until_replaced(&uid, 60);
    });
    assert_eq!(shop.receiver()["metadata"]["labels"]["rolled"], "yes");

    let uid = shop.receiver()["metadata"]["uid"].clone();
    through_an_outage("eviction", &provider, &shop, || {
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
    // What was never delivered: a resync finds it of rates, bookings must be named.
    let mut missed = Told::by(&provider.deliveries()).missed;
    missed.retain(|key| is_booking(key));
    shop.refresh(&missed);
    rotate(&shop, "2");
    shop.until_equal(&provider.owed(), 60);
    shop.unsubscribe();
    shop.close();
}

pub fn killed_receiver_and_operator(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "kill");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);

    let ((), counts) = under_load("operators killed", &provider, &shop, || {
        let dead = operator::kill(&world.cluster);
        operator::until_another_leads(&world.cluster, &dead);
    });
    assert_eq!(
        (counts.never, counts.retried),
        (0, 0),
        "receivers need no operator: {counts}"
    );
    operator::until_ready(&world.cluster);

    let uid = shop.receiver()["metadata"]["uid"].clone();
    through_an_outage("receiver killed", &provider, &shop, || {
        kill(world, &shop, &uid);
    });
    account::mend(&provider, &shop);
    account::a_change_behind_its_back_is_noticed(&provider, &shop);
    shop.unsubscribe();
    shop.close();
}

/// kill -9 of the program where that can be done; elsewhere its pod goes without a grace period.
/// Returns when it is ready again.
fn kill(world: &World, shop: &Shop<'_>, uid: &Value) {
    if !world.cluster.own {
        shop.kubectl(&format!("delete pod {NAME}-0 --force --grace-period=0"));
        return shop.until_replaced(uid, 60);
    }
    process::kill(&[shop.receiver()]);
    eventually("Kubernetes has started it again", 30, || {
        let pod = shop.receiver();
        let restarts = &pod["status"]["containerStatuses"][0]["restartCount"];
        if *restarts == json!(1) && is_ready(&pod) {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
}
