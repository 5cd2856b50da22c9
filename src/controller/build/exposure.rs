//! The way from the world to the public Service: an Ingress or an HTTPRoute, as the spec says.
//!
//! Never here: a certificate; the HTTPRoute of a cluster that does not know it (whoever applies
//! looks first).

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};
use serde_json::json;

use super::pod::PUBLIC_PORT;
use super::{Blueprint, Built, Kind};

pub(super) fn ingress(plan: &Blueprint<'_>) -> Option<Built> {
    let exposure = plan.subscription.spec.exposure.as_ref()?;
    let wanted = exposure.ingress.as_ref()?;
    let mut metadata = plan.owned(plan.name());
    if !wanted.annotations.is_empty() {
        metadata.annotations = Some(wanted.annotations.clone());
    }
    let host = host(&plan.subscription.spec.url);
    let path = HTTPIngressPath {
        path: Some(path(plan)),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: plan.name().to_owned(),
                port: Some(ServiceBackendPort {
                    number: Some(PUBLIC_PORT),
                    name: None,
                }),
            }),
            resource: None,
        },
    };
    let ingress = Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: some(&wanted.class_name),
            rules: Some(vec![IngressRule {
                host: host.clone(),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls: wanted.tls.as_ref().map(|tls| {
                vec![IngressTLS {
                    hosts: host.map(|host| vec![host]),
                    secret_name: Some(tls.secret_name.clone()),
                }]
            }),
            default_backend: None,
        }),
        ..Ingress::default()
    };
    Some(Built::new(Kind::Ingress, &ingress))
}

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

fn path(plan: &Blueprint<'_>) -> String {
    let path = &plan.config.process.base_path;
    if path.is_empty() { "/" } else { path }.to_owned()
}

/// The name in a URL; `None` for an address, which neither object can route by.
fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let name = authority.split(':').next().unwrap_or_default();
    let address = authority.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    (!address).then(|| name.to_ascii_lowercase())
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
