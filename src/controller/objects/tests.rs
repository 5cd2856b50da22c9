//! The books that are kept of objects. What the API server makes of a write is tried on a real one
//! (`tests/it/cluster/operator/objects.rs`).

use serde_json::{Value, json};

use super::*;

fn key() -> Key {
    Key {
        namespace: "ns".to_owned(),
        name: "shop".to_owned(),
    }
}

fn metadata(change: impl FnOnce(&mut Value)) -> ObjectMeta {
    let mut metadata = json!({
        "name": "shop", "namespace": "ns", "uid": "o-1", "resourceVersion": "7",
        "labels": { "app.kubernetes.io/managed-by": "bellhop", "app.kubernetes.io/instance": "shop" },
        "ownerReferences": [{
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WebhookSubscription",
            "name": "shop", "uid": "u-1",
        }],
    });
    change(&mut metadata);
    serde_json::from_value(metadata).expect("metadata")
}

fn service() -> Built {
    Built {
        kind: Kind::Service,
        name: "shop".to_owned(),
        object: Value::Null,
    }
}

#[test]
fn ones_own_write_is_no_news_and_anothers_is() {
    let objects = Objects::default();
    let kind = Kind::Service;
    assert_eq!(objects.saw(kind, &metadata(|_| {})), Some(key()));
    assert_eq!(objects.saw(kind, &metadata(|_| {})), None, "the same again");
    // Before the first write there is nothing to compare with.
    assert!(!objects.moved(&key()));
    objects.wrote(&key(), &service(), &metadata(|_| {}));
    assert!(!objects.moved(&key()));
    // The answer to our write comes before the watch shows it.
    let next = metadata(|one| one["resourceVersion"] = json!("8"));
    objects.wrote(&key(), &service(), &next);
    assert!(!objects.moved(&key()));
    let others = metadata(|one| one["resourceVersion"] = json!("9"));
    assert_eq!(objects.saw(kind, &others), Some(key()));
    assert!(objects.moved(&key()));
}

#[test]
fn a_status_is_no_news_where_there_is_a_generation() {
    let objects = Objects::default();
    let kind = Kind::StatefulSet;
    let set = |generation: i64, version: &str, label: &str| {
        metadata(|one| {
            one["generation"] = json!(generation);
            one["resourceVersion"] = json!(version);
            one["labels"]["more"] = json!(label);
        })
    };
    assert_eq!(objects.saw(kind, &set(1, "7", "a")), Some(key()));
    assert_eq!(objects.saw(kind, &set(1, "8", "a")), None);
    assert_eq!(objects.saw(kind, &set(2, "9", "a")), Some(key()));
    assert_eq!(
        objects.saw(kind, &set(2, "10", "b")),
        Some(key()),
        "a label"
    );
}

#[test]
fn what_goes_is_missed_only_if_it_was_wanted() {
    let objects = Objects::default();
    objects.saw(Kind::Service, &metadata(|_| {}));
    objects.wrote(&key(), &service(), &metadata(|_| {}));
    let others = metadata(|one| one["name"] = json!("of-somebody"));
    objects.saw(Kind::Service, &others);
    assert!(objects.moved(&key()), "something to prune");
    objects.lost(Kind::Service, &others);
    assert!(!objects.moved(&key()));
    objects.lost(Kind::Service, &metadata(|_| {}));
    assert!(objects.moved(&key()));
}

#[test]
fn what_is_not_ours_is_told_and_left_alone() {
    let one = service();
    assert!(ours(&key(), &one, &metadata(|_| {})).is_ok());
    for (change, word) in [
        (json!({}), "not Bellhop's"),
        (
            json!({ "app.kubernetes.io/managed-by": "bellhop", "app.kubernetes.io/instance": "shop-feed" }),
            "the subscription shop-feed",
        ),
    ] {
        let there = metadata(|one| one["labels"] = change);
        let Err(Trouble::Refused(Refused(why))) = ours(&key(), &one, &there) else {
            panic!("taken: {there:?}");
        };
        assert!(
            why.starts_with("Service shop: ") && why.contains(word),
            "{why}"
        );
    }
}

#[test]
fn the_owned_secret_is_the_vaults() {
    let objects = Objects::default();
    let owned = metadata(|one| one["name"] = json!("shop-bellhop"));
    assert_eq!(objects.saw(Kind::Secret, &owned), None);
    let feed = metadata(|one| one["name"] = json!("shop-feed"));
    assert_eq!(objects.saw(Kind::Secret, &feed), Some(key()));
    let unlabelled = metadata(|one| one["labels"] = json!({}));
    assert_eq!(objects.saw(Kind::Secret, &unlabelled), None);
}
