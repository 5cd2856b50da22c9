//! values.schema.json: typos are refused, and every value that is there is described.

use serde_json::Value;

use super::{Helm, NEWEST, fine, refused};

#[test]
fn typos_are_refused_where_they_are() {
    let Some(helm) = Helm::find() else {
        return;
    };
    // What is set, and what the refusal must name.
    for (set, named) in [
        ("replica=2", "replica"),
        ("image.tags=x", "tags"),
        ("provider.sandbox.registryURL=https://x", "registryURL"),
        ("receiver.access=service", "access"),
        ("replicas=0", "replicas"),
        ("image.digest=sha256:abc", "digest"),
        ("watchNamespaces[0]=Shop", "watchNamespaces"),
        ("tolerations[0].effects=NoSchedule", "effects"),
        ("affinity.podAntiAfinity.x=y", "podAntiAfinity"),
        ("networkPolicy.from[0].podSelectr.x=y", "podSelectr"),
        ("monitoring.podMonitor.intervall=15s", "intervall"),
        (
            "monitoring.prometheusRule.disabled[0]=NoSuchAlert",
            "NoSuchAlert",
        ),
        ("log.format=yaml", "format"),
        ("resources.limit.cpu=1", "limit"),
        ("serviceAccount.create=false", "serviceAccount.name"),
    ] {
        let more = [
            "--set",
            set,
            "--set",
            "monitoring.prometheusRule.enabled=true",
        ];
        let said = refused(helm.template(None, NEWEST, &more));
        assert!(said.contains(named), "{set}: {said}");
    }
    let older = refused(helm.template(None, "1.29.0", &[]));
    assert!(older.contains("1.30.0"), "{older}");
    // Helm gives it to a chart that is a part of another one.
    fine(helm.template(None, NEWEST, &["--set", "global.anything=x"]));
}

/// Each object of a schema, with where it is.
fn objects<'a>(at: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match schema {
        Value::Object(map) => {
            if schema["type"] == "object" {
                found.push((at.to_owned(), schema));
            }
            for (key, value) in map {
                objects(&format!("{at}.{key}"), value, found);
            }
        }
        Value::Array(all) => {
            for (index, value) in all.iter().enumerate() {
                objects(&format!("{at}[{index}]"), value, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_object_is_closed_and_every_default_is_in_the_schema() {
    // What has keys of the user's own, or Kubernetes' own rules below it.
    let open = [
        ".properties.global",
        ".properties.affinity.properties.nodeAffinity",
        ".properties.affinity.properties.podAffinity",
        ".properties.affinity.properties.podAntiAffinity",
    ];
    for chart in ["charts/bellhop", "charts/bellhop-crds"] {
        let read = |name: &str| std::fs::read_to_string(format!("{chart}/{name}")).unwrap();
        let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
        let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
        let mut found = Vec::new();
        objects("", &schema, &mut found);
        for (at, object) in found {
            let additional = &object["additionalProperties"];
            let closed = additional == false || additional.is_object();
            assert_eq!(closed, !open.contains(&at.as_str()), "{chart}{at}");
        }
        same_keys(chart, &schema, &schema, &values);
    }
}

/// Fails where the values lack what the schema has, or the other way round.
fn same_keys(at: &str, root: &Value, schema: &Value, values: &Value) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).unwrap(),
        None => schema,
    };
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object())
    else {
        return;
    };
    for (key, value) in values {
        let of = properties.get(key);
        let of = of.unwrap_or_else(|| panic!("{at}.{key} is not in the schema"));
        same_keys(&format!("{at}.{key}"), root, of, value);
    }
    // What Kubernetes calls so has no default; `global` is Helm's.
    let free = ["resources", "affinity"]
        .iter()
        .any(|end| at.ends_with(end));
    for key in properties.keys().filter(|key| *key != "global" && !free) {
        assert!(values.contains_key(key), "{at}.{key} has no default");
    }
}
