//! Volumes that outlive their subscription, and all the ways in which one goes.

use serde_json::json;

use crate::backup;
use crate::kubectl::eventually;
use crate::operator;
use crate::provider::Provider;
use crate::shop::{NAME, Seen, Shop, is_ready};
use crate::skip;
use crate::world::World;

/// The store of a deleted subscription goes on under the next one of its name: no event twice under
/// another id, no going back.
pub fn the_volume_is_grown_kept_and_reused(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "volume");
    shop.subscribe(|_| {});
    shop.until_ready();
    shop.until_equal(&provider.truth(&["rate"]), 60);
    let claim = format!("pvc {NAME}-data");
    let bound = shop.get(&claim);
    assert_eq!(bound["status"]["phase"], "Bound", "{bound}");
    assert_eq!(bound["status"]["capacity"]["storage"], "1Gi");
    let uid = &bound["metadata"]["uid"];

    let mut size = "1Gi";
    if expandable(world, &bound) {
        size = "2Gi";
        shop.patch(&json!({ "spec": { "state": { "embedded": { "size": size } } } }));
        eventually("the volume has grown", 60, || {
            let capacity = shop.get(&claim)["status"]["capacity"]["storage"].clone();
            if capacity == "2Gi" {
                Ok(())
            } else {
                Err(capacity.to_string())
            }
        });
        shop.until_ready();
    } else {
        skip::without("the storage class of this cluster allows no growth");
    }

    shop.unsubscribe();
    assert!(provider.rules().is_empty());
    eventually("the pod is gone", 60, || {
        if shop.has(&format!("pod {NAME}-0")) {
            Err("it is there".into())
        } else {
            Ok(())
        }
    });
    assert_eq!(
        &shop.get(&claim)["metadata"]["uid"],
        uid,
        "the claim is kept"
    );

    let seen = || ["feed-consumer", "orders"].map(|service| shop.seen(service).unwrap());
    let before = seen();
    // A volume never shrinks: less than it has would be refused.
    shop.subscribe(|object| {
        object["spec"]["state"] = json!({ "embedded": { "size": size } });
    });
    shop.until_ready();
    assert_eq!(&shop.get(&claim)["metadata"]["uid"], uid, "and used again");
    until_compared(&shop);
    // The feed has another token: an annotation makes the kubelet look at the mounted one at once.
    shop.kubectl("annotate pod feed bellhop.dev/e2e=look");
    let from = provider.counts();
    provider.load(2);
    assert_eq!(provider.counts().since(from).never, 0);
    shop.until_equal(&provider.owed(), 60);
    for (before, after) in before.iter().zip(&seen()) {
        nothing_is_told_again(before, after);
    }
    backup::moved_and_lost(world, &provider, &shop);

    // The last one takes it along.
    shop.patch(&json!({ "spec": { "state": { "embedded": { "onDelete": "Delete" } } } }));
    shop.until_ready();
    // In the foreground, as Argo CD does it: the subscription waits for what it owns, and the Secret
    // that it owns for the rules.
    shop.kubectl(&format!(
        "delete whs {NAME} --cascade=foreground --timeout=90s"
    ));
    assert!(provider.rules().is_empty(), "{:?}", provider.rules());
    eventually("the claim is gone", 60, || {
        if shop.has(&claim) {
            Err("it is there".into())
        } else {
            Ok(())
        }
    });
    shop.close();
}

/// Waits until the receiver has compared everything with the provider, and read what it had to: by
/// its metrics, which need no token.
fn until_compared(shop: &Shop<'_>) {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{NAME}-0:8081/proxy/metrics",
        shop.namespace
    );
    eventually("the first resync has ended", 60, || {
        let metrics = shop.raw(&path)?;
        let number = |name: &str| -> f64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum()
        };
        let (ended, waiting) = (
            number("bellhop_pipeline_resyncs_total"),
            number("bellhop_store_marks{") + number("bellhop_store_marks "),
        );
        if ended > 0.0 && waiting == 0.0 {
            Ok(())
        } else {
            Err(format!("{ended} resyncs ended, {waiting} marks"))
        }
    });
}

/// What did not change meanwhile has the event that it had: an empty store would tell it anew, under
/// another id.
pub fn nothing_is_told_again(before: &Seen, after: &Seen) {
    let same = |key: &&String| before.entities[*key]["data"] == after.entities[*key]["data"];
    let kept: Vec<&String> = before.entities.keys().filter(same).collect();
    println!(
        "events before {}, after {}; {} of {} entities did not change",
        before.events,
        after.events,
        kept.len(),
        before.entities.len()
    );
    assert!(!kept.is_empty());
    for key in kept {
        let id = |seen: &Seen| seen.entities[key]["id"].clone();
        assert_eq!(id(before), id(after), "{key}");
    }
}

fn expandable(world: &World, claim: &serde_json::Value) -> bool {
    let class = claim["spec"]["storageClassName"].as_str().unwrap();
    let class = world.cluster.kubectl.get(&format!("storageclass {class}"));
    class["allowVolumeExpansion"] == json!(true)
}

/// With the namespace goes everything, also at the provider, although its Secrets go at the same time.
pub fn a_namespace_goes(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "namespace");
    shop.subscribe(|_| {});
    shop.until_ready();
    assert_eq!(provider.rules().len(), 2);
    shop.close();
    assert!(provider.rules().is_empty(), "{:?}", provider.rules());
}

/// Killed in the middle of a registration, and of a removal: the provider holds both there, as it
/// fails every call about the second of the two rules.
pub fn operators_are_killed_at_work(world: &World) {
    let provider = world.provider();
    let shop = Shop::open(world, "killed");
    let whs = format!("whs {NAME}");
    let hold = json!({ "on": "registry", "fail": 1, "fail-path": "/registry/v1/bookings" });
    provider.has_faults(&hold);
    shop.subscribe(|_| {});
    until_rules(&provider, &["rate"]);
    let dead = operator::kill(&world.cluster);
    let half_done = shop.get(&whs);
    assert!(!is_ready(&half_done), "{half_done}");
    assert_eq!(kinds(&provider), ["rate"]);
    provider.has_faults(&json!({}));
    operator::until_another_leads(&world.cluster, &dead);
    shop.until_ready();
    let rules = provider.rules();
    assert_eq!(rules.len(), 2, "{rules:?}");
    assert!(
        rules.values().all(|rule| rule["disabled"] == json!(false)),
        "{rules:?}"
    );
    let before = provider.counts();
    provider.load(1);
    let counts = provider.counts().since(before);
    assert_eq!(
        counts.delivered, counts.made,
        "the keys are the right ones: {counts}"
    );

    operator::until_ready(&world.cluster);
    provider.has_faults(&hold);
    shop.kubectl(&format!("delete {whs} --wait=false"));
    until_rules(&provider, &["booking"]);
    let dead = operator::kill(&world.cluster);
    assert_eq!(kinds(&provider), ["booking"], "the removal is half done");
    let going = &shop.get(&whs)["metadata"];
    assert!(going["deletionTimestamp"].is_string(), "{going}");
    assert!(going["finalizers"].is_array(), "{going}");
    provider.has_faults(&json!({}));
    operator::until_another_leads(&world.cluster, &dead);
    shop.kubectl(&format!("wait whs/{NAME} --for=delete --timeout=60s"));
    assert!(provider.rules().is_empty(), "{:?}", provider.rules());
    operator::until_ready(&world.cluster);
    shop.close();
}

/// The kinds of which there is a rule.
fn kinds(provider: &Provider<'_>) -> Vec<String> {
    provider.rules().keys().cloned().collect()
}

#[track_caller]
fn until_rules(provider: &Provider<'_>, wanted: &[&str]) {
    eventually("there are these rules alone", 30, || {
        let there = kinds(provider);
        if there == wanted {
            Ok(())
        } else {
            Err(format!("{there:?}"))
        }
    });
}
