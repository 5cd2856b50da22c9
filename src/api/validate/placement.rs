//! The rules of the pods and of what surrounds them.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::v1alpha1::{Exposure, LocalName, Receiver, limits};
use super::Mistakes;
use super::text::{dns_label, dns_subdomain, dns_subdomain_or_empty, excerpt, is_quantity};

pub(super) fn check_receiver(found: &mut Mistakes, receiver: &Receiver) {
    if receiver.replicas != 1 {
        found.add("spec.receiver.replicas", limits::ONE_RECEIVER.message);
    }
    check_resources(found, receiver);
    typed::<k8s_openapi::api::core::v1::Affinity>(
        found,
        "spec.receiver.affinity",
        "the affinity of a Pod",
        &receiver.affinity,
    );
    typed_list::<k8s_openapi::api::core::v1::TopologySpreadConstraint>(
        found,
        "spec.receiver.topologySpreadConstraints",
        "a spread constraint of a Pod",
        &receiver.topology_spread_constraints,
    );
    let path = "spec.receiver.tolerations";
    found.at_most(path, receiver.tolerations.len(), 32, "tolerations");
    for (at, toleration) in receiver.tolerations.iter().enumerate() {
        let one_of = |value: &Option<String>, allowed: &[&str]| {
            value
                .as_deref()
                .is_none_or(|value| allowed.contains(&value))
        };
        if !one_of(&toleration.operator, &["Equal", "Exists"]) {
            found.add(format!("{path}[{at}].operator"), "write Equal or Exists");
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !one_of(&toleration.effect, &effects) {
            found.add(
                format!("{path}[{at}].effect"),
                "write NoSchedule, PreferNoSchedule or NoExecute",
            );
        }
        for (field, value, max) in [
            ("key", &toleration.key, 317),
            ("value", &toleration.value, 63),
        ] {
            let length = value.as_ref().map_or(0, String::len);
            found.at_most(&format!("{path}[{at}].{field}"), length, max, "characters");
        }
    }
    for (field, map, entries, length) in [
        ("podLabels", &receiver.pod_labels, 32, 63),
        ("podAnnotations", &receiver.pod_annotations, 64, 4096),
    ] {
        let path = format!("spec.receiver.{field}");
        found.at_most(&path, map.len(), entries, "entries");
        for (key, value) in map {
            found.at_most(&format!("{path}.{key}"), value.len(), length, "characters");
        }
    }
    check_pull_secrets(found, &receiver.image_pull_secrets);
    found.check(
        "spec.receiver.tls.secretName",
        dns_subdomain_or_empty(&receiver.tls.secret_name),
    );
}

fn check_pull_secrets(found: &mut Mistakes, secrets: &[LocalName]) {
    let path = "spec.receiver.imagePullSecrets";
    found.at_most(path, secrets.len(), 16, "Secrets");
    let mut names = BTreeSet::new();
    for (at, secret) in secrets.iter().enumerate() {
        let field = format!("{path}[{at}].name");
        found.check(&field, dns_subdomain(&secret.name));
        if !names.insert(&secret.name) {
            found.add(field, "this Secret is there twice; write each once");
        }
    }
}

fn check_resources(found: &mut Mistakes, receiver: &Receiver) {
    for (field, map) in [
        ("requests", &receiver.resources.requests),
        ("limits", &receiver.resources.limits),
    ] {
        let path = format!("spec.receiver.resources.{field}");
        found.at_most(&path, map.len(), 16, "entries");
        for (key, value) in map {
            let right = match value {
                Value::Number(number) => number.as_u64().is_some(),
                Value::String(text) => is_quantity(text),
                _ => false,
            };
            if !right {
                found.add(
                    format!("{path}.{key}"),
                    "not a quantity; write a number with a unit, such as `100m` of cpu or `64Mi` of memory",
                );
            }
        }
    }
}

pub(super) fn check_exposure(found: &mut Mistakes, exposure: &Exposure) {
    if exposure.ingress.is_some() && exposure.http_route.is_some() {
        found.add("spec.exposure", limits::ONE_EXPOSURE.message);
    }
    if let Some(ingress) = &exposure.ingress {
        let path = "spec.exposure.ingress";
        found.check(
            &format!("{path}.className"),
            dns_subdomain_or_empty(&ingress.class_name),
        );
        let annotations = format!("{path}.annotations");
        found.at_most(&annotations, ingress.annotations.len(), 64, "entries");
        for (key, value) in &ingress.annotations {
            found.at_most(
                &format!("{annotations}.{key}"),
                value.len(),
                4096,
                "characters",
            );
        }
        if let Some(tls) = &ingress.tls {
            found.check(
                &format!("{path}.tls.secretName"),
                dns_subdomain(&tls.secret_name),
            );
        }
    }
    if let Some(route) = &exposure.http_route {
        let path = "spec.exposure.httpRoute.parentRefs";
        if route.parent_refs.is_empty() {
            found.add(path, "the list is empty; name at least one Gateway");
        }
        found.at_most(path, route.parent_refs.len(), 32, "Gateways");
        for (at, parent) in route.parent_refs.iter().enumerate() {
            found.check(&format!("{path}[{at}].name"), dns_subdomain(&parent.name));
            if let Some(namespace) = &parent.namespace {
                found.check(&format!("{path}[{at}].namespace"), dns_label(namespace));
            }
            if let Some(section) = &parent.section_name {
                found.check(&format!("{path}[{at}].sectionName"), dns_subdomain(section));
            }
            if let Some(port) = parent.port {
                found.range(&format!("{path}[{at}].port"), port, limits::PORT);
            }
        }
    }
}

/// What is passed through must be of the shape that Kubernetes decodes, and nothing of it may be lost
/// by that: an egress rule whose `ports` are misspelled would open all of them.
fn typed<T: DeserializeOwned + Serialize>(
    found: &mut Mistakes,
    path: &str,
    what: &str,
    value: &Map<String, Value>,
) {
    let given = Value::Object(value.clone());
    let kept = serde_json::from_value::<T>(given.clone());
    match kept.and_then(serde_json::to_value) {
        Ok(kept) => {
            if let Some(field) = lost(&given, &kept) {
                found.add(
                    format!("{path}{field}"),
                    format!("not a field of {what}; correct or remove it"),
                );
            }
        }
        Err(error) => found.add(path, format!("not {what}: {}", excerpt(&error.to_string()))),
    }
}

/// The path of the first field of `given` that `kept` does not have.
fn lost(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            let mut set = given.iter().filter(|(_, value)| !value.is_null());
            set.find_map(|(name, value)| match kept.get(name) {
                Some(kept) => lost(value, kept).map(|rest| format!(".{name}{rest}")),
                None => Some(format!(".{name}")),
            })
        }
        (Value::Array(given), Value::Array(kept)) => {
            let mut pairs = given.iter().zip(kept).enumerate();
            pairs.find_map(|(at, (given, kept))| {
                lost(given, kept).map(|rest| format!("[{at}]{rest}"))
            })
        }
        _ => None,
    }
}

pub(super) fn typed_list<T: DeserializeOwned + Serialize>(
    found: &mut Mistakes,
    path: &str,
    what: &str,
    values: &[Map<String, Value>],
) {
    found.at_most(path, values.len(), 32, "entries");
    for (at, value) in values.iter().enumerate() {
        typed::<T>(found, &format!("{path}[{at}]"), what, value);
    }
}
