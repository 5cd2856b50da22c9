//! Tests of `api`.

mod conditions;
mod manifests;
mod objects;

use bellhop::api::condition::page;
use bellhop::api::crd;

#[test]
fn the_committed_crd_and_pages_are_fresh() {
    for (file, made, refresh) in [
        (
            "crds/bellhop.dev_webhooksubscriptions.yaml",
            crd::crd_yaml(),
            crd::REFRESH_CRD,
        ),
        ("docs/resource.md", crd::reference(), crd::REFRESH_REFERENCE),
        ("docs/conditions.md", page::page(), page::REFRESH_CONDITIONS),
    ] {
        if std::env::var_os("BELLHOP_REFRESH").is_some() {
            std::fs::write(file, &made).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(committed == made, "{file} is stale; run: {refresh}");
    }
}

/// The oracle of defaults is the table in the resource's design, written out here.
#[test]
fn the_smallest_subscription_becomes_complete_settings() {
    use bellhop::api::manifest::read_all;
    use bellhop::settings::{Resolved, Settings};

    let text = std::fs::read_to_string("examples/minimal.yaml").unwrap();
    let read = read_all([("f", text.as_bytes())]).unwrap();
    let resolved = Resolved::standalone("/secrets".into());
    let minimal = Settings::from_subscription(&read.subscriptions[0].object, &resolved).unwrap();
    assert_eq!(
        serde_json::to_value(&minimal).unwrap(),
        serde_json::json!({
            "subscription": {
                "namespace": "shop", "name": "redeam-sandbox",
                "uid": minimal.subscription.uid, "owner": minimal.subscription.owner,
                "environment": "sandbox"
            },
            "provider": {
                "registryUrl": "https://notifications.sandbox.redeam.io/registry/v1",
                "apiUrl": "https://booking.sandbox.redeam.io/v1.3"
            },
            "notifications": [
                { "type": "ChannelBinding", "operations": ["created", "updated", "removed"] },
                { "type": "Supplier", "operations": ["updated"] },
                { "type": "Product", "operations": ["updated"] },
                { "type": "Rate", "operations": ["updated"] },
                { "type": "Availability", "operations": [] },
                { "type": "PriceSchedule", "operations": [] },
                { "type": "Booking", "operations": ["updated"] }
            ],
            "signature": {
                "scheme": "Auto", "maxAge": 86_400_000, "maxSkew": 300_000, "ledgerSpan": 3_600_000
            },
            "fetch": {
                "requestsPerSecond": 10, "minInterval": 1_000, "availabilityHorizonDays": 90,
                "resyncInterval": 86_400_000, "removalConfirmation": 30_000,
                "removalGuardPercent": 10
            },
            "sinks": [],
            "feed": { "tokenFile": null },
            "store": {
                "sizeBytes": 1_073_741_824, "retainEvents": 604_800_000,
                "retainDeadLetters": 2_592_000_000_u64, "retainBookings": 2_592_000_000_u64
            }
        })
    );
    // The file that spells all defaults differs only in its sink.
    let text = std::fs::read_to_string("examples/variants/full.yaml").unwrap();
    let read = read_all([("f", text.as_bytes())]).unwrap();
    let mut full = Settings::from_subscription(&read.subscriptions[0].object, &resolved).unwrap();
    assert_eq!(full.sinks[0].uri, "http://orders.shop.svc:8080/events");
    full.sinks.clear();
    assert_eq!(full, minimal);
}

/// What a structural schema must be, by Kubernetes' documentation of CustomResourceDefinitions.
#[test]
fn the_schema_is_structural_and_bounded() {
    use serde_json::Value;

    fn walk(path: &str, schema: &Value, wrong: &mut Vec<String>) {
        let object = schema.as_object().unwrap();
        let has = |key: &str| object.contains_key(key);
        let mut check = |right: bool, what: &str| {
            if !right {
                wrong.push(format!("{path}: {what}"));
            }
        };
        for key in [
            "$ref",
            "oneOf",
            "allOf",
            "not",
            "nullable",
            "uniqueItems",
            "definitions",
            "const",
        ] {
            check(!has(key), key);
        }
        let int_or_string = has("x-kubernetes-int-or-string");
        check(has("type") != int_or_string, "type");
        check(has("anyOf") == int_or_string, "anyOf");
        match schema["type"].as_str().unwrap_or_default() {
            "string" => check(has("maxLength") || has("enum"), "a string without a limit"),
            "array" => {
                check(has("maxItems"), "a list without a limit");
                check(has("x-kubernetes-list-type"), "a list without its type");
            }
            "object" => {
                let open =
                    has("additionalProperties") || has("x-kubernetes-preserve-unknown-fields");
                check(!open || has("maxProperties"), "a map without a limit");
                check(
                    !has("additionalProperties") || !has("properties"),
                    "both kinds of fields",
                );
            }
            _ => {}
        }
        let default = &schema["default"];
        check(
            path == ".status" || !(default.is_object() || default.is_array()),
            "default of a union",
        );
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let words = rule["message"].as_str().unwrap_or_default();
            check(
                words.len() > 10 && rule["rule"].is_string(),
                "a rule without words",
            );
            check(!words.contains('\n'), "a message of several lines");
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let described = field["description"]
                .as_str()
                .is_some_and(|text| text.ends_with(['.', '`', ')']));
            if !described {
                wrong.push(format!("{path}.{name}: no description"));
            }
            walk(&format!("{path}.{name}"), field, wrong);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key) {
                walk(&format!("{path}[]"), inner, wrong);
            }
        }
    }

    let text = std::fs::read_to_string("crds/bellhop.dev_webhooksubscriptions.yaml").unwrap();
    let crd: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(crd["metadata"]["name"], "webhooksubscriptions.bellhop.dev");
    assert_eq!(crd["spec"]["names"]["shortNames"][0], "whs");
    let version = &crd["spec"]["versions"][0];
    assert!(version["subresources"]["status"].is_object());
    let columns: Vec<&str> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    let expected = "Environment,Ready,Reason,Registered,Backlog,Last notification,Age";
    assert_eq!(columns.join(","), expected);
    let schema = &version["schema"]["openAPIV3Schema"];
    assert_eq!(
        schema["properties"]["status"]["default"]["observedGeneration"],
        -1
    );
    let state = schema["properties"]["spec"]["properties"]["state"]["properties"]
        .as_object()
        .unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["embedded", "retention"]);
    let mut wrong = Vec::new();
    walk("", schema, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
