//! A volume that is moved, and one that is lost, as docs/operations.md says it ("Backup and restore").

use serde_json::json;

use crate::cluster::inside;
use crate::kubectl::eventually;
use crate::provider::Provider;
use crate::shop::{NAME, Shop};
use crate::skip;
use crate::world::{World, check_account};

/// Consumers end equal, and (they check it themselves) nothing goes back at them.
pub fn moved_and_lost(world: &World, provider: &Provider<'_>, shop: &Shop<'_>) {
    if !world.cluster.own {
        return skip::without(
            "the volumes of this cluster are out of reach: none is moved or lost",
        );
    }
    let claim = shop.get(&format!("pvc {NAME}-data"));
    let volume = claim["spec"]["volumeName"].as_str().unwrap();
    let volume = world.cluster.kubectl.get(&format!("pv {volume}"));
    let volume = volume["spec"]["local"]["path"].as_str().unwrap();
    // The folder itself is what the pod's volume points to.
    let lose = || inside(&format!("find {volume} -mindepth 1 -delete")).fine();

    let ids = || shop.seen("orders").unwrap().entities;
    // Right after a start the Service may still refuse: what is not retried then is counted.
    let loaded = |what: &str| {
        let before = provider.counts();
        provider.load(20, 20);
        check_account(&format!("volume {what}"), provider, shop, before);
    };
    let before = ids();
    stopped(shop, || {
        inside(&format!("cp -a {volume} {volume}.copy")).fine();
        lose();
        inside(&format!("cp -a {volume}.copy/. {volume}")).fine();
        inside(&format!("rm -r {volume}.copy")).fine();
    });
    loaded("moved");
    let after = ids();
    let same = before
        .keys()
        .filter(|key| before[*key]["id"] == after[*key]["id"]);
    assert!(same.count() > 0, "the store in the copy is the store");

    stopped(shop, || drop(lose()));
    loaded("lost");
    eventually("rates are told anew", 60, || {
        let now = ids();
        let rates = after.keys().filter(|key| key.starts_with("rate/"));
        let same = |key: &&String| after[*key]["id"] == now[*key]["id"];
        let still: Vec<&String> = rates.filter(same).collect();
        if still.is_empty() {
            Ok(())
        } else {
            Err(format!("{still:?}"))
        }
    });
    loaded("told anew");
}

/// Does something while the receiver is stopped and the operator leaves it alone.
fn stopped(shop: &Shop<'_>, work: impl FnOnce()) {
    let paused = |value| json!({ "metadata": { "annotations": { "bellhop.dev/paused": value } } });
    let uid = shop.receiver()["metadata"]["uid"].clone();
    shop.patch(&paused(Some("true")));
    shop.kubectl(&format!("scale statefulset {NAME} --replicas=0"));
    shop.kubectl(&format!("wait pod/{NAME}-0 --for=delete --timeout=60s"));
    work();
    shop.patch(&paused(None));
    shop.until_replaced(&uid, 60);
    shop.until_ready();
}
