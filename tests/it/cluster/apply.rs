//! What people do to one object over time with the real kubectl. Oracle: what the API server has
//! stored in the end.

use serde_json::{Value, json};

use super::rules::{create, smallest};
use super::space::Space;

fn with(path: &str, value: Value) -> Value {
    let mut object = smallest("redeam");
    object["spec"][path] = value;
    object
}

fn stored(space: &Space) -> Value {
    let object = space.kubectl(["get", "whs", "redeam", "--output=json"]);
    serde_json::from_str(&object.fine()).unwrap()
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_pruned_as_the_user_asks() {
    let Some(space) = Space::new("fields").await else {
        return;
    };
    let mut object = smallest("redeam");
    object["spec"]["credentialSecretRef"] = json!({ "name": "misspelt" });
    object["spec"]["fetch"] = json!({ "burst": 3, "requestsPerSecond": 5 });
    let text = object.to_string();
    // The default of kubectl.
    let refused = space.kubectl_with(["apply", "-f", "-"], &text).refused();
    for field in ["spec.credentialSecretRef", "spec.fetch.burst"] {
        assert!(
            refused.contains(&format!("unknown field \"{field}\"")),
            "{refused}"
        );
    }
    let warned = space.kubectl_with(["apply", "--validate=warn", "-f", "-"], &text);
    assert!(
        warned.err.contains("unknown field \"spec.fetch.burst\""),
        "{warned:?}"
    );
    warned.fine();
    let kept = stored(&space);
    assert_eq!(kept["spec"]["fetch"]["requestsPerSecond"], 5);
    assert_eq!(kept["spec"]["fetch"].get("burst"), None, "{kept}");
    assert_eq!(kept["spec"].get("credentialSecretRef"), None, "{kept}");
    space.kubectl(["delete", "whs", "redeam"]).fine();
    let silent = space.kubectl_with(["apply", "--validate=ignore", "-f", "-"], &text);
    assert!(!silent.err.contains("unknown field"), "{silent:?}");
    silent.fine();
    assert_eq!(stored(&space)["spec"]["fetch"].get("burst"), None);
}

/// Scalars only: an object that is left out stays out, a list and a union as well.
#[tokio::test]
async fn only_scalars_have_stored_defaults() {
    let Some(space) = Space::new("defaults").await else {
        return;
    };
    create(&space.client, &space.name, &smallest("redeam"), "")
        .await
        .unwrap();
    let object = stored(&space);
    let mut expected = smallest("redeam")["spec"].clone();
    expected["suspend"] = json!(false);
    assert_eq!(object["spec"], expected);
    // Nobody has looked at it yet, and it says so.
    assert_eq!(object["status"], json!({ "observedGeneration": -1 }));

    let mut object = smallest("groups");
    object["spec"]["signature"] = json!({});
    object["spec"]["fetch"] = json!({ "requestsPerSecond": 3 });
    object["spec"]["sinks"] = json!([
        { "name": "a", "http": { "ref": { "name": "orders" } }, "delivery": {} },
        { "name": "b", "http": { "uri": "https://x.example" } },
    ]);
    object["spec"]["feed"] = json!({});
    object["spec"]["state"] = json!({ "retention": {} });
    object["spec"]["receiver"] = json!({ "tls": {} });
    object["spec"]["exposure"] = json!({ "ingress": {} });
    object["spec"]["networkPolicy"] = json!({});
    object["spec"]["registration"] = json!({});
    let made = create(&space.client, &space.name, &object, "")
        .await
        .unwrap();
    let expected = json!({
        "environment": "sandbox",
        "url": "https://hooks.example.com/redeam",
        "credentialsSecretRef": { "name": "redeam-keys" },
        "signature": { "scheme": "Auto", "maxAge": "24h", "maxSkew": "5m", "ledgerSpan": "1h" },
        "fetch": {
            "requestsPerSecond": 3, "minInterval": "1s", "availabilityHorizonDays": 90,
            "resyncInterval": "24h", "removalConfirmation": "30s", "removalGuard": "10%"
        },
        "sinks": [
            {
                "name": "a",
                "http": { "ref": { "kind": "Service", "name": "orders", "port": 80, "path": "/" } },
                "delivery": {
                    "retry": 10, "backoffPolicy": "exponential", "backoffDelay": "1s",
                    "timeout": "10s"
                }
            },
            { "name": "b", "http": { "uri": "https://x.example" } },
        ],
        "feed": { "auth": "Token" },
        "state": { "retention": { "events": "168h", "deadLetters": "720h", "bookings": "720h" } },
        "receiver": { "replicas": 1, "tls": { "secretName": "" } },
        "exposure": { "ingress": { "className": "" } },
        "networkPolicy": { "enabled": true },
        "registration": {
            "mode": "Manage", "adoption": "Never", "deletionPolicy": "Delete",
            "driftCheckInterval": "1h", "reachability": "Report"
        },
        "suspend": false
    });
    assert_eq!(made["spec"], expected);
}

/// Each arm of a union, the way to the other one, and what must then be left.
fn unions() -> [(&'static str, Value, Value, Value); 4] {
    let sink = |http: Value| json!([{ "name": "orders", "http": http }]);
    let service = json!({ "ref": { "name": "orders" } });
    let uri = json!({ "uri": "https://x.example/" });
    let full = json!({ "ref": { "kind": "Service", "name": "orders", "port": 80, "path": "/" } });
    let route = json!({ "httpRoute": { "parentRefs": [{ "name": "public" }] } });
    let ingress = json!({ "ingress": { "annotations": { "a": "b" } } });
    let made = json!({ "ingress": { "annotations": { "a": "b" }, "className": "" } });
    [
        (
            "sinks",
            sink(service.clone()),
            sink(uri.clone()),
            sink(uri.clone()),
        ),
        ("sinks", sink(uri), sink(service), sink(full)),
        ("exposure", ingress.clone(), route.clone(), route.clone()),
        ("exposure", route, ingress, made),
    ]
}

#[tokio::test]
async fn the_arm_of_a_union_can_be_switched_by_either_kind_of_apply() {
    let Some(space) = Space::new("unions").await else {
        return;
    };
    for way in ["--server-side=false", "--server-side=true"] {
        for (field, first, second, left) in unions() {
            for arm in [first, second] {
                let object = with(field, arm).to_string();
                space
                    .kubectl_with(["apply", way, "-f", "-"], &object)
                    .fine();
            }
            assert_eq!(stored(&space)["spec"][field], left, "{field} {way}");
            space.kubectl(["delete", "whs", "redeam"]).fine();
        }
    }
}

#[tokio::test]
async fn appliers_of_different_entries_do_not_disturb_each_other() {
    let Some(space) = Space::new("appliers").await else {
        return;
    };
    let sink = |name: &str| json!({ "name": name, "http": { "ref": { "name": name } } });
    let part = |spec: Value| {
        json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WebhookSubscription",
            "metadata": { "name": "redeam" }, "spec": spec
        })
    };
    let apply = |manager: &str, object: &Value| {
        let manager = format!("--field-manager={manager}");
        let arguments = ["apply", "--server-side", &manager, "-f", "-"];
        space.kubectl_with(arguments, &object.to_string())
    };
    let names = |list: &str, key: &str| -> Vec<String> {
        let object = stored(&space);
        let items = object["spec"][list].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item[key].as_str().unwrap().to_owned())
            .collect()
    };
    let mut shop = smallest("redeam");
    shop["spec"]["sinks"] = json!([sink("orders")]);
    shop["spec"]["notifications"] = json!([{ "type": "Booking" }]);
    apply("shop", &shop).fine();
    let other = part(json!({ "sinks": [sink("mails")], "notifications": [{ "type": "Rate" }] }));
    apply("mails", &other).fine();
    assert_eq!(names("sinks", "name"), ["orders", "mails"]);
    assert_eq!(names("notifications", "type"), ["Booking", "Rate"]);

    // Each changes and removes its own; the other's stays as it is.
    shop["spec"]["sinks"][0]["http"]["ref"]["port"] = json!(8080);
    apply("shop", &shop).fine();
    apply(
        "mails",
        &part(json!({ "notifications": [{ "type": "Rate" }] })),
    )
    .fine();
    assert_eq!(names("sinks", "name"), ["orders"]);
    assert_eq!(
        stored(&space)["spec"]["sinks"][0]["http"]["ref"]["port"],
        8080
    );

    // The same field of the same entry is a conflict that names the other one.
    let mut theirs = sink("orders");
    theirs["http"]["ref"]["port"] = json!(9090);
    let refused = apply("mails", &part(json!({ "sinks": [theirs] }))).refused();
    assert!(refused.contains("conflict with \"shop\""), "{refused}");
    assert!(
        refused.contains(".spec.sinks[name=\"orders\"].http.ref.port"),
        "{refused}"
    );
}

/// All of them, one after the other: they are about the same object, so each is also a change from
/// the one before. What is stored in the end is the last one.
#[tokio::test]
async fn the_examples_apply_as_they_are() {
    let Some(space) = Space::new("examples").await else {
        return;
    };
    for file in [
        "minimal",
        "variants/full",
        "variants/orders-sink",
        "minimal",
    ] {
        let text = std::fs::read_to_string(format!("examples/{file}.yaml")).unwrap();
        let here = text.replace("namespace: shop", &format!("namespace: {}", space.name));
        let said = space.kubectl_with(["apply", "-f", "-"], &here);
        assert_eq!(said.err, "", "{file}: nothing to warn about");
        said.fine();
    }
    let object = space
        .kubectl(["get", "whs", "redeam-sandbox", "--output=json"])
        .fine();
    let object: Value = serde_json::from_str(&object).unwrap();
    let mut smallest = smallest("redeam-sandbox")["spec"].clone();
    smallest["suspend"] = json!(false);
    assert_eq!(object["spec"], smallest);
}
