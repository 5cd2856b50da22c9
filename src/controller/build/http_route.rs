//! The way from the world to the public Service as an HTTPRoute.
//!
//! Never here: a certificate, which the Gateway has; whether the cluster knows the kind (whoever
//! applies looks first).

use serde_json::json;

use super::exposure::{host, path};
use super::pod::PUBLIC_PORT;
use super::{Blueprint, Built, Kind};

/// As version v1 of the Gateway API has it.
pub(super) fn http_route(plan: &Blueprint<'_>) -> Option<Built> {
    let exposure = plan.subscription.spec.exposure.as_ref()?;
    let wanted = exposure.http_route.as_ref()?;
    let hosts: Vec<String> = host(&plan.subscription.spec.url).into_iter().collect();
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": plan.owned(plan.name()),
        "spec": {
            "parentRefs": wanted.parent_refs,
            "hostnames": hosts,
            "rules": [{
                "matches": [{ "path": { "type": "PathPrefix", "value": path(plan) } }],
                "backendRefs": [{ "name": plan.name(), "port": PUBLIC_PORT }],
            }],
        },
    });
    Some(Built::new(Kind::HttpRoute, &route))
}
