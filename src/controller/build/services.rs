//! The Services: NAME for the provider, NAME-feed for consumers.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{FEED_PORT, PUBLIC_PORT};
use super::{Blueprint, Built, Kind};

pub(super) fn public(plan: &Blueprint<'_>) -> Built {
    let encrypted = plan.config.process.tls_dir.is_some();
    let protocol = if encrypted { "https" } else { "http" };
    service(plan, plan.name(), protocol, PUBLIC_PORT, "public")
}

pub(super) fn feed(plan: &Blueprint<'_>) -> Built {
    service(plan, &plan.named("feed"), "http", FEED_PORT, "feed")
}

fn service(plan: &Blueprint<'_>, name: &str, protocol: &str, port: i32, target: &str) -> Built {
    let service = Service {
        metadata: plan.owned(name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(plan.selector()),
            ports: Some(vec![ServicePort {
                name: Some(protocol.to_owned()),
                app_protocol: Some(protocol.to_owned()),
                protocol: Some("TCP".to_owned()),
                port,
                target_port: Some(IntOrString::String(target.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Built::new(Kind::Service, &service)
}
