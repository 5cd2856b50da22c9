//! A volume that is moved, and one that is lost, as docs/operations.md says it ("Backup and restore").

use serde_json::json;

use crate::account::{self, is_booking};
use crate::cluster::inside;
use crate::deletion::nothing_is_told_again;
use crate::kubectl::eventually;
use crate::provider::Provider;
use crate::shop::{NAME, Shop};
use crate::skip;
use crate::world::World;

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

    let seen = || shop.seen("orders").unwrap();
    // Right after a start the Service may still refuse: what is not retried then is counted.
    let loaded = |what: &str| {
        let before = provider.counts();
        provider.load(1);
        account::check(&format!("volume {what}"), provider, shop, before);
    };
    let before = seen();
    // Nobody tells of it again.
    let booking = before.entities.keys().find(|key| is_booking(key)).unwrap();
    let at_the_feed = || shop.feed(&format!("/v1/entities/{booking}"), None).0;
    stopped(shop, || {
        inside(&format!("cp -a {volume} {volume}.copy")).fine();
        lose();
        inside(&format!("cp -a {volume}.copy/. {volume}")).fine();
        inside(&format!("rm -r {volume}.copy")).fine();
    });
    assert_eq!(at_the_feed(), 200, "the store in the copy is the store");
    loaded("moved");
    nothing_is_told_again(&before, &seen());

    let after = seen().entities;
    stopped(shop, || drop(lose()));
    assert_eq!(at_the_feed(), 404, "an empty store");
    loaded("lost");
    eventually("rates are told anew", 60, || {
        let now = seen().entities;
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
