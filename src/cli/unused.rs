//! What a subscription asks for that a process without a cluster does not do.
//!
//! Owns: the list, with what to do instead. Pure. Never here: a refusal; the same manifest must
//! work in a cluster and outside of it.

use crate::api::v1alpha1::{NetworkPolicy, Reachability, Receiver, Sink, WebhookSubscription};

/// The prefix of the annotations that are for the operator.
const ANNOTATIONS: &str = "bellhop.dev/";

/// A line for each part that is set and not acted on.
pub fn unused(object: &WebhookSubscription) -> Vec<String> {
    let spec = &object.spec;
    let mut lines: Vec<String> = spec.sinks.iter().filter_map(cluster_name).collect();
    if spec.receiver != Receiver::default() {
        lines.push("spec.receiver: there are no pods; TLS is --tls-cert and --tls-key".to_owned());
    }
    if spec.exposure.is_some() {
        lines.push("spec.exposure: put the public port behind your own proxy".to_owned());
    }
    if spec.network_policy != NetworkPolicy::default() {
        lines.push("spec.networkPolicy: use this machine's firewall".to_owned());
    }
    if spec.registration.reachability == Reachability::Require {
        lines.push(
            "spec.registration.reachability: rules are enabled without a probe of the url"
                .to_owned(),
        );
    }
    for name in object
        .metadata
        .annotations
        .iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if name.starts_with(ANNOTATIONS) {
            lines.push(format!("annotation {name}: only the operator acts on it"));
        }
    }
    lines
}

fn cluster_name(sink: &Sink) -> Option<String> {
    let http = sink.http.as_ref()?;
    http.service.as_ref()?;
    Some(format!(
        "spec.sinks[{}].http.ref: a Service has a name only in its cluster; give uri instead",
        sink.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> WebhookSubscription {
        let text = format!(
            "apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: {{ name: a, namespace: b, annotations: {{ other/one: x{} }} }}
spec:
  environment: sandbox
  url: https://hooks.example.com/redeam
  credentialsSecretRef: {{ name: keys }}
{more}",
            if more.is_empty() {
                ""
            } else {
                ", bellhop.dev/paused: 'true'"
            }
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn what_is_for_a_cluster_is_named_and_nothing_else() {
        assert_eq!(unused(&read("")), Vec::<String>::new());
        let lines = unused(&read(
            "  receiver: { replicas: 1, podLabels: { a: b } }
  exposure: { ingress: { className: nginx } }
  networkPolicy: { enabled: false }
  registration: { reachability: Require }
  sinks: [ { name: orders, http: { ref: { kind: Service, name: orders, port: 80 } } } ]
",
        ));
        let starts = [
            "spec.sinks[orders].http.ref: ",
            "spec.receiver: ",
            "spec.exposure: ",
            "spec.networkPolicy: ",
            "spec.registration.reachability: ",
            "annotation bellhop.dev/paused: ",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }
}
