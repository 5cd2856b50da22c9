//! Objects that are accepted or refused; the oracle is the written expectation.

use bellhop::api::v1alpha1::WebhookSubscription;
use bellhop::api::validate::{validate, validate_change};
use serde_json::{Value, json};

/// The smallest object, with one value put at a JSON pointer.
fn object(pointer: &str, value: Value) -> WebhookSubscription {
    let mut object = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WebhookSubscription",
        "metadata": { "name": "redeam", "namespace": "shop" },
        "spec": {
            "environment": "sandbox",
            "url": "https://hooks.example.com/redeam",
            "credentialsSecretRef": { "name": "redeam-keys" }
        }
    });
    let mut at = &mut object;
    for step in pointer.split('/').filter(|step| !step.is_empty()) {
        at = &mut at[step];
    }
    *at = value;
    serde_json::from_value(object).unwrap()
}

fn sink(http: Value) -> Value {
    json!([{ "name": "orders", "http": http }])
}

#[test]
fn accepted() {
    let to = json!({ "uri": "https://x.example/" });
    let cases = [
        ("", None),
        ("metadata/name", Some(json!("a"))),
        ("metadata/name", Some(json!("a".repeat(40)))),
        ("spec/url", Some(json!("https://h.example"))),
        ("spec/url", Some(json!("https://h.example/"))),
        (
            "spec/url",
            Some(json!("https://H-1.example:65535/a%20b/~c")),
        ),
        ("spec/url", Some(json!("https://h.example/a@b"))),
        ("spec/notifications", Some(json!([{ "type": "Booking" }]))),
        (
            "spec/notifications",
            Some(json!([{ "type": "ChannelBinding", "operations": ["removed", "created"] }])),
        ),
        (
            "spec/notifications",
            Some(
                json!([{ "type": "Rate", "operations": ["updated"], "config": { "supplierIDs": ["x"] } }]),
            ),
        ),
        (
            "spec/signature",
            Some(json!({ "maxAge": "5m", "maxSkew": "5m" })),
        ),
        ("spec/fetch/minInterval", Some(json!("0s"))),
        ("spec/fetch/removalGuard", Some(json!("100%"))),
        ("spec/fetch/availabilityHorizonDays", Some(json!(730))),
        (
            "spec/sinks",
            Some(sink(json!({ "ref": { "name": "orders" } }))),
        ),
        (
            "spec/sinks",
            Some(sink(json!({ "uri": "http://10.0.0.1:8080/e?tenant=1" }))),
        ),
        (
            "spec/sinks",
            Some(sink(
                json!({ "uri": "https://x.example", "caSecretRef": { "name": "ca" }, "headersFrom": { "secretRef": { "name": "h" } } }),
            )),
        ),
        (
            "spec/sinks",
            Some(
                json!([{ "name": "a", "http": to }, { "name": "b", "http": to, "types": ["Booking", "Rate"] }]),
            ),
        ),
        ("spec/state/embedded/size", Some(json!("64Mi"))),
        (
            "spec/receiver/resources/limits",
            Some(json!({ "cpu": 1, "memory": "1.5Gi" })),
        ),
        (
            "spec/receiver/affinity",
            Some(json!({ "nodeAffinity": {} })),
        ),
        (
            "spec/exposure/httpRoute/parentRefs",
            Some(json!([{ "name": "public" }])),
        ),
        // Fields of a newer version are not this one's mistake.
        ("spec/state/jetStream", Some(json!({ "servers": ["x"] }))),
    ];
    for (pointer, value) in cases {
        let object = match &value {
            None => object("spec/suspend", json!(true)),
            Some(value) => object(pointer, value.clone()),
        };
        assert_eq!(validate(&object), [], "{pointer} = {value:?}");
    }
}

#[test]
fn refused() {
    let to = json!({ "uri": "https://x.example/" });
    let cases = [
        (
            "metadata/name",
            json!("Upper"),
            "metadata.name",
            "at most 40 lowercase letters",
        ),
        (
            "metadata/name",
            json!("a".repeat(41)),
            "metadata.name",
            "at most 40",
        ),
        (
            "metadata/name",
            json!("1a"),
            "metadata.name",
            "starting with a letter",
        ),
        (
            "metadata/name",
            json!("a.b"),
            "metadata.name",
            "write a metadata.name",
        ),
        (
            "spec/url",
            json!("http://h.example"),
            "spec.url",
            "write an https URL",
        ),
        (
            "spec/url",
            json!("h.example"),
            "spec.url",
            "write an https URL",
        ),
        (
            "spec/url",
            json!("https://h.example/a?b=c"),
            "spec.url",
            "without `?` and `#`",
        ),
        (
            "spec/url",
            json!("https://h.example/#a"),
            "spec.url",
            "without `?` and `#`",
        ),
        (
            "spec/url",
            json!("https://u:p@h.example/"),
            "spec.url",
            "without a user or password",
        ),
        ("spec/url", json!("https://"), "spec.url", "is not a host"),
        (
            "spec/url",
            json!("https://h.example:0/"),
            "spec.url",
            "a number from 1 to 65535",
        ),
        (
            "spec/url",
            json!("https://h.example:65536"),
            "spec.url",
            "a number from 1 to 65535",
        ),
        (
            "spec/url",
            json!("https://h.example:08"),
            "spec.url",
            "a number from 1 to 65535",
        ),
        (
            "spec/url",
            json!("https://h.example/a b"),
            "spec.url",
            "percent-encoded",
        ),
        (
            "spec/url",
            json!("https://h.example//a"),
            "spec.url",
            "without empty segments",
        ),
        (
            "spec/url",
            json!(format!("https://h.example/{}", "a".repeat(1024))),
            "spec.url",
            "write at most 1024",
        ),
        (
            "spec/credentialsSecretRef/name",
            json!("a_b"),
            "spec.credentialsSecretRef.name",
            "write 1 to 253 lowercase",
        ),
        (
            "spec/notifications",
            json!([]),
            "spec.notifications",
            "leave `notifications` out",
        ),
        (
            "spec/notifications",
            json!([{ "type": "Rate" }, { "type": "Rate" }]),
            "spec.notifications[1].type",
            "write each type once",
        ),
        (
            "spec/notifications",
            json!([{ "type": "Rate", "operations": ["created"] }]),
            "spec.notifications[0].operations",
            "write `operations: [updated]`",
        ),
        (
            "spec/notifications",
            json!([{ "type": "PriceSchedule", "operations": ["updated"] }]),
            "spec.notifications[0].operations",
            "leave `operations` out",
        ),
        (
            "spec/notifications",
            json!([{ "type": "Rate", "operations": [] }]),
            "spec.notifications[0].operations",
            "leave `operations` out",
        ),
        (
            "spec/notifications",
            json!([{ "type": "ChannelBinding", "operations": ["created", "created"] }]),
            "spec.notifications[0].operations",
            "write each once",
        ),
        (
            "spec/notifications",
            json!([{ "type": "Rate", "config": { "operations": [] } }]),
            "spec.notifications[0].config.operations",
            "beside `config`",
        ),
        (
            "spec/signature/maxAge",
            json!("1d"),
            "spec.signature.maxAge",
            "such as `90s`, `24h`",
        ),
        (
            "spec/signature/maxAge",
            json!("721h"),
            "spec.signature.maxAge",
            "from 1m to 720h",
        ),
        (
            "spec/signature",
            json!({ "maxAge": "4m" }),
            "spec.signature",
            "not longer than maxAge",
        ),
        (
            "spec/signature/ledgerSpan",
            json!("59s"),
            "spec.signature.ledgerSpan",
            "from 1m to 24h",
        ),
        (
            "spec/fetch/requestsPerSecond",
            json!(0),
            "spec.fetch.requestsPerSecond",
            "from 1 to 1000",
        ),
        (
            "spec/fetch/availabilityHorizonDays",
            json!(731),
            "spec.fetch.availabilityHorizonDays",
            "from 1 to 730",
        ),
        (
            "spec/fetch/removalGuard",
            json!("10"),
            "spec.fetch.removalGuard",
            "such as `10%`",
        ),
        (
            "spec/fetch/removalGuard",
            json!("101%"),
            "spec.fetch.removalGuard",
            "such as `10%`",
        ),
        (
            "spec/sinks",
            json!([{ "name": "a" }]),
            "spec.sinks[0]",
            "write `http:`",
        ),
        (
            "spec/sinks",
            sink(json!({})),
            "spec.sinks[0].http",
            "exactly one of `ref`",
        ),
        (
            "spec/sinks",
            sink(json!({ "uri": "https://x.example", "ref": { "name": "a" } })),
            "spec.sinks[0].http",
            "exactly one of `ref`",
        ),
        (
            "spec/sinks",
            sink(json!({ "uri": "https://u:p@x.example" })),
            "spec.sinks[0].http.uri",
            "headersFrom",
        ),
        (
            "spec/sinks",
            sink(json!({ "uri": "ftp://x.example" })),
            "spec.sinks[0].http.uri",
            "http:// or https://",
        ),
        (
            "spec/sinks",
            sink(json!({ "uri": "http://x.example", "caSecretRef": { "name": "ca" } })),
            "spec.sinks[0].http",
            "begins with https://",
        ),
        (
            "spec/sinks",
            sink(json!({ "ref": { "name": "a", "port": 65536 } })),
            "spec.sinks[0].http.ref.port",
            "from 1 to 65535",
        ),
        (
            "spec/sinks",
            sink(json!({ "ref": { "name": "a", "path": "events" } })),
            "spec.sinks[0].http.ref.path",
            "begins with `/`",
        ),
        (
            "spec/sinks",
            json!([{ "name": "feed", "http": to }]),
            "spec.sinks[0].name",
            "write another name",
        ),
        (
            "spec/sinks",
            json!([{ "name": "a", "http": to }, { "name": "a", "http": to }]),
            "spec.sinks[1].name",
            "its own name",
        ),
        (
            "spec/sinks",
            json!([{ "name": "a", "http": to, "types": ["Rate", "Rate"] }]),
            "spec.sinks[0].types",
            "write each once",
        ),
        (
            "spec/sinks",
            json!([{ "name": "a", "http": to, "delivery": { "retry": 101 } }]),
            "spec.sinks[0].delivery.retry",
            "from 0 to 100",
        ),
        (
            "spec/sinks",
            json!([{ "name": "a", "http": to, "delivery": { "timeout": "1ms" } }]),
            "spec.sinks[0].delivery.timeout",
            "from 100ms to 5m",
        ),
        (
            "spec/state/embedded/size",
            json!("63Mi"),
            "spec.state.embedded.size",
            "at least 64Mi",
        ),
        (
            "spec/state/embedded/size",
            json!("1GB"),
            "spec.state.embedded.size",
            "such as `1Gi`",
        ),
        (
            "spec/state/retention/bookings",
            json!("59m"),
            "spec.state.retention.bookings",
            "from 1h to 8760h",
        ),
        (
            "spec/receiver/replicas",
            json!(2),
            "spec.receiver.replicas",
            "write `replicas: 1`",
        ),
        (
            "spec/receiver/resources/requests",
            json!({ "cpu": "lots" }),
            "spec.receiver.resources.requests.cpu",
            "such as `100m`",
        ),
        (
            "spec/receiver/affinity",
            json!({ "nodeAffinity": 1 }),
            "spec.receiver.affinity",
            "not the affinity of a Pod",
        ),
        (
            "spec/receiver/tolerations",
            json!([{ "effect": "Never" }]),
            "spec.receiver.tolerations[0].effect",
            "NoExecute",
        ),
        (
            "spec/exposure",
            json!({ "ingress": {}, "httpRoute": { "parentRefs": [{ "name": "a" }] } }),
            "spec.exposure",
            "at most one",
        ),
        (
            "spec/exposure",
            json!({ "httpRoute": { "parentRefs": [] } }),
            "spec.exposure.httpRoute.parentRefs",
            "at least one Gateway",
        ),
        (
            "spec/registration/driftCheckInterval",
            json!("1s"),
            "spec.registration.driftCheckInterval",
            "from 1m to 24h",
        ),
    ];
    for (pointer, value, path, message) in cases {
        let found = validate(&object(pointer, value.clone()));
        assert_eq!(found.len(), 1, "{pointer} = {value}: {found:?}");
        assert_eq!(found[0].path, path, "{pointer} = {value}");
        assert!(
            found[0].message.contains(message),
            "{pointer} = {value}: {}",
            found[0]
        );
    }
}

#[test]
fn what_cannot_change() {
    let old = object("spec/state/embedded/size", json!("2Gi"));
    let new = object("spec/environment", json!("production"));
    let found = validate_change(&old, &new);
    let paths: Vec<&str> = found.iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(paths, ["spec.environment"]);
    assert_eq!(validate_change(&new, &new), []);
}
