//! What the API server accepts and refuses. Oracle: that server, and the words that a person must
//! find in its answer.

use kube::Client;
use serde_json::{Value, json};

use super::space::Space;

/// The smallest object.
pub fn smallest(name: &str) -> Value {
    json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WebhookSubscription",
        "metadata": { "name": name },
        "spec": {
            "environment": "sandbox",
            "url": "https://hooks.example.com/redeam",
            "credentialsSecretRef": { "name": "redeam-keys" }
        }
    })
}

/// The same with one value put at a path of field names.
fn object(path: &str, value: Value) -> Value {
    let mut object = smallest("redeam");
    let mut at = &mut object;
    for step in path.split('.') {
        at = &mut at[step];
    }
    *at = value;
    object
}

/// Creates an object as it is, with strict or lenient reading of its fields. The answer is the
/// stored object, or what the server complains about.
pub async fn create(
    client: &Client,
    namespace: &str,
    object: &Value,
    query: &str,
) -> Result<Value, String> {
    let path = format!("/apis/bellhop.dev/v1alpha1/namespaces/{namespace}/webhooksubscriptions");
    let request = axum::http::Request::post(format!("{path}?{query}"))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes());
    match client.request::<Value>(request.unwrap()).await {
        Ok(stored) => Ok(stored),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

fn sink(http: &Value) -> Value {
    json!([{ "name": "orders", "http": http }])
}

fn accepted() -> Vec<(&'static str, Value)> {
    let to = json!({ "uri": "https://x.example/" });
    let long = format!("https://h.example/{}", "a".repeat(1006));
    vec![
        ("spec.suspend", json!(true)),
        ("metadata.name", json!("a")),
        ("metadata.name", json!("a".repeat(40))),
        ("spec.environment", json!("production")),
        ("spec.url", json!("https://h.example")),
        ("spec.url", json!("https://h.example/")),
        ("spec.url", json!("https://H-1.example:65535/a%20b/~c")),
        ("spec.url", json!("https://h.example/a@b")),
        ("spec.url", json!(long)),
        ("spec.notifications", json!([{ "type": "Booking" }])),
        (
            "spec.notifications",
            json!([{ "type": "ChannelBinding", "operations": ["removed", "created"] }]),
        ),
        (
            "spec.notifications",
            json!([{ "type": "Rate", "operations": ["updated"], "config": { "supplierIDs": ["x"] } }]),
        ),
        // A null is a field that is left out.
        ("spec.notifications", Value::Null),
        ("spec.sinks", Value::Null),
        ("spec.signature", json!({ "maxAge": "5m", "maxSkew": "5m" })),
        ("spec.signature.scheme", json!("Md5")),
        ("spec.fetch.minInterval", json!("0s")),
        ("spec.fetch.resyncInterval", json!("1h30m5s500ms")),
        ("spec.fetch.removalGuard", json!("100%")),
        ("spec.fetch.availabilityHorizonDays", json!(730)),
        ("spec.sinks", sink(&json!({ "ref": { "name": "orders" } }))),
        (
            "spec.sinks",
            sink(&json!({ "uri": "http://10.0.0.1:8080/e?tenant=1" })),
        ),
        (
            "spec.sinks",
            sink(
                &json!({ "uri": "https://x.example", "caSecretRef": { "name": "ca" }, "headersFrom": { "secretRef": { "name": "h" } } }),
            ),
        ),
        (
            "spec.sinks",
            json!([{ "name": "a", "http": to }, { "name": "b", "http": to, "types": ["Booking", "Rate"] }]),
        ),
        ("spec.state.embedded.size", json!("64Mi")),
        ("spec.state.embedded", json!({})),
        (
            "spec.receiver.resources.limits",
            json!({ "cpu": 1, "memory": "1.5Gi" }),
        ),
        ("spec.receiver.affinity", json!({ "nodeAffinity": {} })),
        (
            "spec.receiver.tolerations",
            json!([{ "operator": "Exists", "effect": "NoSchedule" }]),
        ),
        (
            "spec.exposure.httpRoute.parentRefs",
            json!([{ "name": "public" }]),
        ),
        (
            "spec.exposure.ingress",
            json!({ "className": "nginx", "tls": { "secretName": "t" } }),
        ),
        (
            "spec.networkPolicy.egress",
            json!([{ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }] }]),
        ),
        (
            "spec.registration",
            json!({ "mode": "Observe", "adoption": "Always", "deletionPolicy": "Retain", "reachability": "Off" }),
        ),
    ]
}

/// Path, value, and the words that the refusal must have: where it is and what to write instead.
#[rustfmt::skip]
fn refused() -> Vec<(&'static str, Value, [&'static str; 2])> {
    let to = json!({ "uri": "https://x.example/" });
    let spec = json!({ "environment": "sandbox", "url": "https://h.example" });
    vec![
        ("metadata.name", json!("a".repeat(41)), ["", "at most 40 lowercase letters"]),
        ("metadata.name", json!("1a"), ["", "starting with a letter"]),
        ("metadata.name", json!("a.b"), ["", "Services and Secrets are named after it"]),
        ("spec", spec, ["spec.credentialsSecretRef", "Required value"]),
        ("spec.environment", json!("sandbx"), ["spec.environment", "\"production\", \"sandbox\""]),
        ("spec.url", json!("http://h.example"), ["spec.url", "write an https URL"]),
        ("spec.url", json!("h.example"), ["spec.url", "write an https URL"]),
        ("spec.url", json!("https://h.example/a?b=c"), ["spec.url", "write the URL without `?` and `#`"]),
        ("spec.url", json!("https://h.example/#a"), ["spec.url", "write the URL without `?` and `#`"]),
        ("spec.url", json!("https://u:p@h.example/"), ["spec.url", "write the URL without a user or password"]),
        ("spec.url", json!("https:///redeam"), ["spec.url", "write https://HOST"]),
        ("spec.url", json!("https://h.example:0/"), ["spec.url", "a PORT from 1 to 65535"]),
        ("spec.url", json!("https://h.example:65536"), ["spec.url", "a PORT from 1 to 65535"]),
        ("spec.url", json!("https://h.example/a b"), ["spec.url", "percent-encoded"]),
        ("spec.url", json!("https://h.example//a"), ["spec.url", "no empty segments"]),
        ("spec.url", json!(format!("https://h.example/{}", "a".repeat(1024))), ["spec.url: Too long: may not be", "than 1024"]),
        ("spec.credentialsSecretRef.name", json!("a_b"), ["spec.credentialsSecretRef.name", "write 1 to 253 lowercase letters"]),
        ("spec.credentialsSecretRef.name", json!(""), ["spec.credentialsSecretRef.name", "write 1 to 253 lowercase letters"]),
        ("spec.notifications", json!([]), ["spec.notifications", "at least 1 items"]),
        ("spec.notifications", json!([{ "type": "Bookings" }]), ["spec.notifications[0].type", "\"Booking\""]),
        ("spec.notifications", json!([{ "type": "Rate" }, { "type": "Rate" }]), ["spec.notifications[1]", "Duplicate value"]),
        ("spec.notifications", json!([{ "type": "Rate", "operations": ["created"] }]), ["spec.notifications[0]", "write `operations: [updated]`"]),
        ("spec.notifications", json!([{ "type": "Booking", "operations": ["removed"] }]), ["spec.notifications[0]", "write `operations: [updated]`"]),
        ("spec.notifications", json!([{ "type": "PriceSchedule", "operations": ["updated"] }]), ["spec.notifications[0]", "leave `operations` out"]),
        ("spec.notifications", json!([{ "type": "Rate", "operations": [] }]), ["spec.notifications[0].operations", "at least 1 items"]),
        ("spec.notifications", json!([{ "type": "ChannelBinding", "operations": ["created", "created"] }]), ["spec.notifications[0].operations[1]", "Duplicate value"]),
        ("spec.signature.scheme", json!("SHA1"), ["spec.signature.scheme", "\"HmacSha256\""]),
        ("spec.signature.maxAge", json!("1d"), ["spec.signature.maxAge", "write a duration from 1m to 720h, with the units h, m, s and ms"]),
        ("spec.signature.maxAge", json!("-1h"), ["spec.signature.maxAge", "write a duration from 1m to 720h"]),
        ("spec.signature.maxAge", json!(3600), ["spec.signature.maxAge", "must be of type string"]),
        ("spec.signature.maxAge", json!("721h"), ["spec.signature.maxAge", "write a duration from 1m to 720h"]),
        ("spec.signature", json!({ "maxAge": "4m" }), ["spec.signature", "maxSkew that is not longer than maxAge"]),
        ("spec.signature.ledgerSpan", json!("59s"), ["spec.signature.ledgerSpan", "from 1m to 24h"]),
        ("spec.fetch.requestsPerSecond", json!(0), ["spec.fetch.requestsPerSecond", "greater than or equal to 1"]),
        ("spec.fetch.requestsPerSecond", json!("10"), ["spec.fetch.requestsPerSecond", "must be of type integer"]),
        ("spec.fetch.availabilityHorizonDays", json!(731), ["spec.fetch.availabilityHorizonDays", "less than or equal to 730"]),
        ("spec.fetch.removalGuard", json!("10"), ["spec.fetch.removalGuard", "write a whole percentage from 0% to 100%"]),
        ("spec.fetch.removalGuard", json!("101%"), ["spec.fetch.removalGuard", "such as `10%`"]),
        ("spec.fetch.resyncInterval", json!("59s"), ["spec.fetch.resyncInterval", "from 1m to 720h"]),
        ("spec.sinks", json!([{ "name": "a" }]), ["spec.sinks[0]", "write `http:`"]),
        ("spec.sinks", sink(&json!({})), ["spec.sinks[0].http", "write exactly one of `ref` (a Service) and `uri`"]),
        ("spec.sinks", sink(&json!({ "uri": "https://x.example", "ref": { "name": "a" } })), ["spec.sinks[0].http", "write exactly one of `ref`"]),
        ("spec.sinks", sink(&json!({ "uri": "https://u:p@x.example" })), ["spec.sinks[0].http.uri", "headersFrom"]),
        ("spec.sinks", sink(&json!({ "uri": "https://x.example/#a" })), ["spec.sinks[0].http.uri", "without fragment"]),
        ("spec.sinks", sink(&json!({ "uri": "ftp://x.example" })), ["spec.sinks[0].http.uri", "http:// or https://"]),
        ("spec.sinks", sink(&json!({ "uri": "http://x.example", "caSecretRef": { "name": "ca" } })), ["spec.sinks[0].http", "needs a `uri` that begins with https://"]),
        ("spec.sinks", sink(&json!({ "ref": { "name": "a" }, "caSecretRef": { "name": "ca" } })), ["spec.sinks[0].http", "needs a `uri` that begins with https://"]),
        ("spec.sinks", sink(&json!({ "uri": "https://x.example", "caSecretRef": { "name": "ca", "key": "a/b" } })), ["spec.sinks[0].http.caSecretRef.key", "such as `ca.crt`"]),
        ("spec.sinks", sink(&json!({ "ref": { "name": "a", "kind": "Pod" } })), ["spec.sinks[0].http.ref.kind", "\"Service\""]),
        ("spec.sinks", sink(&json!({ "ref": { "name": "a", "port": 65536 } })), ["spec.sinks[0].http.ref.port", "less than or equal to 65535"]),
        ("spec.sinks", sink(&json!({ "ref": { "name": "a", "path": "events" } })), ["spec.sinks[0].http.ref.path", "begins with `/`"]),
        ("spec.sinks", sink(&json!({ "ref": { "name": "A" } })), ["spec.sinks[0].http.ref.name", "write 1 to 63 lowercase letters"]),
        ("spec.sinks", json!([{ "name": "feed", "http": to }]), ["spec.sinks[0].name", "write another name"]),
        ("spec.sinks", json!([{ "name": "A b", "http": to }]), ["spec.sinks[0].name", "write 1 to 63 lowercase letters"]),
        ("spec.sinks", json!([{ "name": "a", "http": to }, { "name": "a", "http": to }]), ["spec.sinks[1]", "Duplicate value"]),
        ("spec.sinks", json!([{ "name": "a", "http": to, "types": ["Rate", "Rate"] }]), ["spec.sinks[0].types[1]", "Duplicate value"]),
        ("spec.sinks", json!([{ "name": "a", "http": to, "delivery": { "retry": 101 } }]), ["spec.sinks[0].delivery.retry", "less than or equal to 100"]),
        ("spec.sinks", json!([{ "name": "a", "http": to, "delivery": { "timeout": "1ms" } }]), ["spec.sinks[0].delivery.timeout", "from 100ms to 5m"]),
        ("spec.sinks", json!([{ "name": "a", "http": to, "delivery": { "backoffPolicy": "cubic" } }]), ["spec.sinks[0].delivery.backoffPolicy", "\"linear\""]),
        ("spec.feed.auth", json!("Basic"), ["spec.feed.auth", "\"Token\", \"None\""]),
        ("spec.state.embedded.size", json!("63Mi"), ["spec.state.embedded.size", "at least 64Mi"]),
        ("spec.state.embedded.size", json!("1GB"), ["spec.state.embedded.size", "such as `1Gi`"]),
        ("spec.state.embedded.storageClassName", json!("a b"), ["spec.state.embedded.storageClassName", "lowercase letters, digits, dashes and dots"]),
        ("spec.state.retention.bookings", json!("59m"), ["spec.state.retention.bookings", "from 1h to 8760h"]),
        ("spec.receiver.replicas", json!(2), ["spec.receiver.replicas", "write `replicas: 1`"]),
        ("spec.receiver.resources.requests", json!({ "cpu": "lots" }), ["spec.receiver.resources.requests.cpu", "should match"]),
        ("spec.receiver.resources.requests", json!({ "cpu": -1 }), ["spec.receiver.resources.requests.cpu", "greater than or equal to 0"]),
        ("spec.receiver.tolerations", json!([{ "effect": "Never" }]), ["spec.receiver.tolerations[0].effect", "NoExecute"]),
        ("spec.receiver.imagePullSecrets", json!([{ "name": "a" }, { "name": "a" }]), ["spec.receiver.imagePullSecrets[1]", "Duplicate value"]),
        ("spec.exposure", json!({ "ingress": {}, "httpRoute": { "parentRefs": [{ "name": "a" }] } }), ["spec.exposure", "at most one"]),
        ("spec.exposure", json!({ "httpRoute": { "parentRefs": [] } }), ["spec.exposure.httpRoute.parentRefs", "at least 1 items"]),
        ("spec.exposure", json!({ "ingress": { "tls": {} } }), ["spec.exposure.ingress.tls.secretName", "Required value"]),
        ("spec.registration.driftCheckInterval", json!("1s"), ["spec.registration.driftCheckInterval", "from 1m to 24h"]),
        ("spec.registration.mode", json!("Watch"), ["spec.registration.mode", "\"Observe\""]),
        ("spec.suspend", json!("yes"), ["spec.suspend", "must be of type boolean"]),
        // Strict reading: what is misspelt, of a later version, or not there yet.
        ("spec.credentialSecretRef", json!({ "name": "a" }), ["", "unknown field \"spec.credentialSecretRef\""]),
        ("spec.state.jetStream", json!({ "servers": ["x"] }), ["", "unknown field \"spec.state.jetStream\""]),
        ("spec.sinks", json!([{ "name": "a", "nats": {}, "http": to }]), ["", "unknown field \"spec.sinks[0].nats\""]),
    ]
}

#[tokio::test]
async fn accepted_objects() {
    let Some(space) = Space::new("accepted").await else {
        return;
    };
    let mut wrong = Vec::new();
    let cases = accepted();
    for (path, value) in &cases {
        let object = object(path, value.clone());
        let query = "fieldValidation=Strict&dryRun=All";
        if let Err(message) = create(&space.client, &space.name, &object, query).await {
            wrong.push(format!("{path} = {value}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn refused_objects() {
    let Some(space) = Space::new("refused").await else {
        return;
    };
    let mut wrong = Vec::new();
    let cases = refused();
    assert!(cases.len() >= 40);
    for (path, value, words) in &cases {
        let object = object(path, value.clone());
        let query = "fieldValidation=Strict&dryRun=All";
        match create(&space.client, &space.name, &object, query).await {
            Ok(_) => wrong.push(format!("{path} = {value}: accepted")),
            Err(message) if words.iter().all(|words| message.contains(words)) => {}
            Err(message) => wrong.push(format!("{path} = {value}: no {words:?} in\n  {message}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What cannot change, and what can: a size that the volume's class refuses can be taken back.
#[tokio::test]
async fn changes() {
    let Some(space) = Space::new("changes").await else {
        return;
    };
    let mut start = smallest("redeam");
    start["spec"]["state"] = json!({ "embedded": { "size": "2Gi" } });
    space
        .kubectl_with(["apply", "-f", "-"], &start.to_string())
        .fine();
    let change = |patch: Value| {
        let patch = patch.to_string();
        space.kubectl(["patch", "whs", "redeam", "--type=merge", "--patch", &patch])
    };
    let refused = change(json!({ "spec": { "environment": "production" } })).refused();
    let words =
        "environment cannot change: make a new WebhookSubscription for the other environment";
    assert!(refused.contains(words), "{refused}");
    change(json!({ "spec": { "state": { "embedded": { "size": "1Gi" } } } })).fine();
    change(json!({ "spec": { "state": { "embedded": { "size": "3G" } } } })).fine();
    // Another spelling of the same bytes, and a move of everything else.
    change(json!({ "spec": { "url": "https://h.example/b", "suspend": true } })).fine();
}
