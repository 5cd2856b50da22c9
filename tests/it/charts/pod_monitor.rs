//! The PodMonitor beside the pods that it is to find: the operator's as the chart makes it, and a
//! receiver's as the operator builds it. Oracle: what Kubernetes and Prometheus do with selectors,
//! names of ports and relabelings, by hand.

use std::collections::BTreeMap;
use std::path::Path;

use bellhop::api::v1alpha1::WebhookSubscription;
use bellhop::controller::build::{Blueprint, Kind, PodOptions, Surroundings, config, objects};
use bellhop::secrets::Secret;
use serde_json::{Value, json};

use super::{Helm, documents, only};

/// A receiver's pod, as its template has it.
fn receiver(name: &str) -> Value {
    let text = std::fs::read_to_string("examples/minimal.yaml").unwrap();
    let mut all = documents(&text);
    all.retain(|one| one["kind"] == "WebhookSubscription");
    all[0]["metadata"]["name"] = json!(name);
    let subscription: WebhookSubscription = serde_json::from_value(all.remove(0)).unwrap();
    let around = Surroundings {
        cluster_id: "c".to_owned(),
        registry_url: "https://registry.example.com/registry/v1".to_owned(),
        api_url: "https://api.example.com/v1.3".to_owned(),
        authorities: None,
        allow_plain_http: false,
    };
    let config = config(&subscription, &around).unwrap();
    let built = objects(&Blueprint {
        subscription: &subscription,
        config: &config,
        feed_token: Some(&Secret::new("the-feed-token-1234")),
        options: &PodOptions {
            image: "registry.example.com/bellhop:1".to_owned(),
            operator_namespace: None,
            monitoring_namespaces: Vec::new(),
        },
    });
    let mut sets = built
        .into_iter()
        .filter(|one| one.kind == Kind::StatefulSet);
    sets.next().unwrap().object["spec"]["template"].take()
}

/// Whether a selector with both kinds of requirements finds a pod.
fn finds(selector: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    let mut equal = selector["matchLabels"].as_object().unwrap().iter();
    let mut among = selector["matchExpressions"].as_array().unwrap().iter();
    equal.all(|(key, value)| labels[key] == *value)
        && among.all(|one| {
            assert_eq!(one["operator"], "In");
            let key = one["key"].as_str().unwrap();
            one["values"].as_array().unwrap().contains(&labels[key])
        })
}

/// The ports of a pod that are called so.
fn ports(pod: &Value, name: &str) -> Vec<u64> {
    let containers = pod["spec"]["containers"].as_array().unwrap().iter();
    let ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    let named = ports.filter(|port| port["name"] == name);
    named
        .map(|port| port["containerPort"].as_u64().unwrap())
        .collect()
}

/// What relabelings add to a target's labels: `replace`, with a text and one group for a regex.
fn relabelled(relabelings: &Value, pod: &Value) -> BTreeMap<String, String> {
    let labels = pod["metadata"]["labels"].as_object().unwrap().iter();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name = |key: &str| key.chars().map(plain).collect::<String>();
    let meta: BTreeMap<String, &str> = labels
        .map(|(key, value)| {
            let key = format!("__meta_kubernetes_pod_label_{}", name(key));
            (key, value.as_str().unwrap())
        })
        .collect();
    let mut added = BTreeMap::new();
    for rule in relabelings.as_array().unwrap() {
        let sources = rule["sourceLabels"].as_array().unwrap().iter();
        let values: Vec<&str> = sources
            .map(|source| {
                meta.get(source.as_str().unwrap())
                    .copied()
                    .unwrap_or_default()
            })
            .collect();
        let value = values.join(rule["separator"].as_str().unwrap_or(";"));
        let regex = rule["regex"].as_str().unwrap_or("(.+)");
        // Anchored at both ends, as Prometheus does it.
        let text = regex.strip_suffix("(.+)").unwrap();
        if let Some(group) = value.strip_prefix(text).filter(|rest| !rest.is_empty()) {
            let target = rule["targetLabel"].as_str().unwrap();
            added.insert(target.to_owned(), group.to_owned());
        }
    }
    added
}

#[test]
fn the_pod_monitor_finds_operator_and_receivers_and_says_whose_they_are() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let values = Path::new("tests/charts/values/everything.yaml");
    let all = documents(&helm.rendered(Some(values)));
    let monitor = &only(&all, "PodMonitor")["spec"];
    assert_eq!(monitor["namespaceSelector"], json!({ "any": true }));
    let [endpoint] = &monitor["podMetricsEndpoints"].as_array().unwrap()[..] else {
        panic!("{monitor}");
    };
    assert_eq!(endpoint["path"], "/metrics");
    let port = endpoint["port"].as_str().unwrap();
    let operator = &only(&all, "Deployment")["spec"]["template"];
    let receiver = receiver("shop");
    for (pod, added) in [
        (operator, &[("component", "operator")][..]),
        (
            &receiver,
            &[("component", "receiver"), ("subscription", "shop")],
        ),
    ] {
        assert!(finds(&monitor["selector"], pod), "{}", pod["metadata"]);
        assert_eq!(ports(pod, port), [8081], "{}", pod["spec"]);
        let added = added.iter();
        let added: BTreeMap<String, String> = added
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(relabelled(&endpoint["relabelings"], pod), added);
    }
    // Nothing answers in the pods of the chart's hooks.
    assert!(!finds(&monitor["selector"], only(&all, "Pod")));
    assert!(!finds(
        &monitor["selector"],
        &only(&all, "Job")["spec"]["template"]
    ));
}
