//! Objects as large as the schema lets them be. Oracle: the API server, whose budget for CEL rules
//! an object must fit in, and which refuses one entry more.

use serde_json::{Map, Value, json};

use super::rules::{create, smallest};
use super::space::Space;

fn name(length: usize, at: usize) -> String {
    format!("{}{at:03}", "n".repeat(length - 3))
}

fn map(entries: usize, length: usize) -> Value {
    let entries = (0..entries).map(|at| (name(63, at), json!("v".repeat(length))));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn list(entries: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..entries).map(item).collect()
}

fn sink(at: usize) -> Value {
    let uri = format!("https://{}.example/?q=", name(60, at));
    let kinds = [
        "ChannelBinding",
        "Supplier",
        "Product",
        "Rate",
        "Availability",
        "PriceSchedule",
        "Booking",
    ];
    json!({
        "name": name(63, at),
        "http": {
            "uri": format!("{uri}{}", "q".repeat(2048 - uri.len())),
            "headersFrom": { "secretRef": { "name": name(253, at) } },
            "caSecretRef": { "name": name(253, at), "key": "k".repeat(253) },
        },
        "types": kinds,
        "delivery": { "retry": 100, "backoffDelay": "0h9m59s999ms", "timeout": "0h4m59s999ms" }
    })
}

/// Makes so many entries.
type Fill = Box<dyn Fn(usize) -> Value>;

/// Where each list and map is, its limit, and what fills it.
fn fillings() -> Vec<(&'static str, usize, Fill)> {
    let toleration = |at: usize| json!({ "key": name(317, at), "operator": "Equal", "value": "v".repeat(63), "effect": "PreferNoSchedule" });
    let parent = |at: usize| json!({ "name": name(253, at), "namespace": name(63, at), "sectionName": name(253, at), "port": 65535 });
    let quantities = |entries: usize| {
        let entries = (0..entries).map(|at| (name(63, at), json!(format!("{}Mi", "1".repeat(30)))));
        Value::Object(entries.collect::<Map<_, _>>())
    };
    vec![
        ("sinks", 16, Box::new(|n| list(n, sink))),
        (
            "receiver.tolerations",
            32,
            Box::new(move |n| list(n, toleration)),
        ),
        (
            "receiver.topologySpreadConstraints",
            32,
            Box::new(|n| list(n, |_| json!({ "maxSkew": 1 }))),
        ),
        ("receiver.podLabels", 32, Box::new(|n| map(n, 63))),
        ("receiver.podAnnotations", 64, Box::new(|n| map(n, 4096))),
        (
            "receiver.imagePullSecrets",
            16,
            Box::new(|n| list(n, |at| json!({ "name": name(253, at) }))),
        ),
        ("receiver.resources.requests", 16, Box::new(quantities)),
        ("receiver.resources.limits", 16, Box::new(quantities)),
        ("receiver.affinity", 32, Box::new(|n| map(n, 63))),
        (
            "networkPolicy.egress",
            32,
            Box::new(|n| list(n, |_| json!({ "to": [] }))),
        ),
        (
            "exposure.httpRoute.parentRefs",
            32,
            Box::new(move |n| list(n, parent)),
        ),
    ]
}

fn put(object: &mut Value, path: &str, value: Value) {
    let mut at = &mut object["spec"];
    for step in path.split('.') {
        at = &mut at[step];
    }
    *at = value;
}

fn largest(name: &str) -> Value {
    let mut object = smallest(name);
    let spec = &mut object["spec"];
    spec["url"] = json!(format!("https://h.example/{}", "a".repeat(1006)));
    spec["credentialsSecretRef"]["name"] = json!("s".repeat(253));
    let config = map(32, 1024);
    let one = |kind: &str| json!({ "type": kind, "operations": ["updated"], "config": config });
    spec["notifications"] = json!([
        { "type": "ChannelBinding", "operations": ["created", "updated", "removed"], "config": config },
        one("Supplier"), one("Product"), one("Rate"), one("Booking"),
        { "type": "Availability", "config": config }, { "type": "PriceSchedule", "config": config },
    ]);
    spec["signature"] = json!({ "maxAge": "0h0m0s99999ms", "maxSkew": "0h0m0s99999ms" });
    spec["state"] =
        json!({ "embedded": { "size": "999999Ti", "storageClassName": "c".repeat(253) } });
    spec["receiver"] = json!({ "tls": { "secretName": "t".repeat(253) } });
    for (path, most, fill) in fillings() {
        put(&mut object, path, fill(most));
    }
    object
}

#[tokio::test]
async fn the_largest_object_fits_the_budget_of_the_rules() {
    let Some(space) = Space::new("largest").await else {
        return;
    };
    let object = largest(&"n".repeat(40));
    let bytes = object.to_string().len();
    let stored = create(
        &space.client,
        &space.name,
        &object,
        "fieldValidation=Strict",
    )
    .await;
    let mut stored = stored.unwrap_or_else(|message| panic!("{bytes} bytes: {message}"));
    // Once more as a change: rules that compare with the old object have their cost as well.
    stored["spec"]["suspend"] = json!(true);
    stored["metadata"]["managedFields"] = json!([]);
    space
        .kubectl_with(["replace", "-f", "-"], &stored.to_string())
        .fine();
}

#[tokio::test]
async fn one_entry_more_is_refused() {
    let Some(space) = Space::new("more").await else {
        return;
    };
    let mut wrong = Vec::new();
    for (path, most, fill) in fillings() {
        let mut object = smallest("redeam");
        put(&mut object, path, fill(most + 1));
        let answer = create(&space.client, &space.name, &object, "dryRun=All").await;
        let message = answer.err().unwrap_or_else(|| "accepted".into());
        let field = format!("spec.{path}");
        if !(message.contains(&field) && message.contains(&format!("at most {most}"))) {
            wrong.push(format!("{field}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
