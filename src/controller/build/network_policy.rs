//! The NetworkPolicy of the pods. In: the public port from everywhere, the feed from the own
//! namespace, the admin port from the operator and from where metrics are read. Out: what the spec
//! lists; nothing listed: everything.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{Blueprint, Built, COMPONENT, Kind, MANAGER, NAME, OPERATOR, labels};

/// The label that each namespace has, with its name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

pub(super) fn network_policy(plan: &Blueprint<'_>) -> Option<Built> {
    let wanted = &plan.subscription.spec.network_policy;
    if !wanted.enabled {
        return None;
    }
    let egress: Vec<_> = wanted
        .egress
        .iter()
        // Validated to be of this shape.
        .filter_map(|rule| serde_json::from_value(Value::Object(rule.clone())).ok())
        .collect();
    let mut types = vec!["Ingress".to_owned()];
    if !egress.is_empty() {
        types.push("Egress".to_owned());
    }
    let policy = NetworkPolicy {
        metadata: plan.owned(plan.name()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(plan.selector()),
                ..LabelSelector::default()
            }),
            policy_types: Some(types),
            ingress: Some(vec![
                rule("public", None),
                rule("feed", Some(vec![own_namespace()])),
                rule("admin", admin(plan)),
            ]),
            egress: (!egress.is_empty()).then_some(egress),
        }),
    };
    Some(Built::new(Kind::NetworkPolicy, &policy))
}

/// `from`: `None` is everywhere.
fn rule(port: &str, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from,
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::String(port.to_owned())),
            protocol: Some("TCP".to_owned()),
            ..NetworkPolicyPort::default()
        }]),
    }
}

fn own_namespace() -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    }
}

/// An operator that is not in the cluster asks through the API server, of which no selector knows
/// the address: then the token is all that guards the port.
fn admin(plan: &Blueprint<'_>) -> Option<Vec<NetworkPolicyPeer>> {
    let operator = plan.options.operator_namespace.clone()?;
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(namespaces(vec![operator])),
        pod_selector: Some(LabelSelector {
            match_labels: Some(operator_labels()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    };
    let monitoring = plan.options.monitoring_namespaces.clone();
    let monitoring = (!monitoring.is_empty()).then(|| NetworkPolicyPeer {
        namespace_selector: Some(namespaces(monitoring)),
        ..NetworkPolicyPeer::default()
    });
    Some(std::iter::once(operator).chain(monitoring).collect())
}

fn operator_labels() -> BTreeMap<String, String> {
    labels([(NAME, MANAGER), (COMPONENT, OPERATOR)])
}

fn namespaces(names: Vec<String>) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: NAMESPACE.to_owned(),
            operator: "In".to_owned(),
            values: Some(names),
        }]),
        ..LabelSelector::default()
    }
}
