//! The way from the world to the public Service as an Ingress. Never here: a certificate.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::exposure::{host, path};
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

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
