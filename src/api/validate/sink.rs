//! The rules of sinks.

use std::collections::BTreeSet;

use super::super::NotificationType;
use super::super::v1alpha1::{Delivery, HttpSink, Sink, limits};
use super::Mistakes;
use super::text::{dns_label, dns_subdomain, excerpt, is_dns_label, path_and_query, sink_uri};

pub(super) fn check_sinks(found: &mut Mistakes, sinks: &[Sink]) {
    found.at_most("spec.sinks", sinks.len(), limits::SINKS_MAX, "sinks");
    let mut names = BTreeSet::new();
    for (at, sink) in sinks.iter().enumerate() {
        let path = format!("spec.sinks[{at}]");
        if !is_dns_label(&sink.name) {
            found.add(
                format!("{path}.name"),
                format!(
                    "`{}` cannot be a name here; write 1 to 63 lowercase letters, digits and dashes, starting with a letter and ending without a dash",
                    excerpt(&sink.name)
                ),
            );
        } else if sink.name == "feed" {
            found.add(format!("{path}.name"), limits::SINK_FEED.message);
        } else if !names.insert(&sink.name) {
            found.add(
                format!("{path}.name"),
                format!(
                    "`{}` is there twice; give each sink its own name",
                    sink.name
                ),
            );
        }
        match &sink.http {
            Some(http) => check_http(found, &format!("{path}.http"), http),
            None => found.add(&path, limits::SINK_KIND.message),
        }
        let distinct: BTreeSet<NotificationType> = sink.types.iter().copied().collect();
        if distinct.len() < sink.types.len() {
            found.add(
                format!("{path}.types"),
                "a type is there twice; write each once",
            );
        }
        check_delivery(found, &format!("{path}.delivery"), &sink.delivery);
    }
}

fn check_http(found: &mut Mistakes, path: &str, http: &HttpSink) {
    if http.service.is_some() == http.uri.is_some() {
        found.add(path, limits::HTTP_TARGET.message);
    }
    if let Some(service) = &http.service {
        let path = format!("{path}.ref");
        if !is_dns_label(&service.name) {
            found.add(
                format!("{path}.name"),
                format!(
                    "`{}` cannot be the name of a Service; write 1 to 63 lowercase letters, digits and dashes, starting with a letter and ending without a dash",
                    excerpt(&service.name)
                ),
            );
        }
        if let Some(namespace) = &service.namespace {
            found.check(&format!("{path}.namespace"), dns_label(namespace));
        }
        found.range(&format!("{path}.port"), service.port, limits::PORT);
        let field = format!("{path}.path");
        if !service.path.starts_with('/') || service.path.len() > 1024 {
            found.add(
                field,
                "write a path that begins with `/`, of at most 1024 bytes",
            );
        } else {
            found.check(&field, path_and_query(&service.path));
        }
    }
    if let Some(uri) = &http.uri {
        found.check(&format!("{path}.uri"), sink_uri(uri));
    }
    if let Some(headers) = &http.headers_from {
        found.check(
            &format!("{path}.headersFrom.secretRef.name"),
            dns_subdomain(&headers.secret_ref.name),
        );
    }
    if let Some(ca) = &http.ca_secret_ref {
        found.check(&format!("{path}.caSecretRef.name"), dns_subdomain(&ca.name));
        let inner = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if ca.key.is_empty() || ca.key.len() > 253 || !ca.key.chars().all(inner) {
            found.add(
                format!("{path}.caSecretRef.key"),
                "write a key of letters, digits, `-`, `_` and `.`, such as `ca.crt`",
            );
        }
        let https = |uri: &String| uri.starts_with("https://");
        if !http.uri.as_ref().is_some_and(https) {
            found.add(path, limits::HTTP_CA.message);
        }
    }
}

fn check_delivery(found: &mut Mistakes, path: &str, delivery: &Delivery) {
    found.range(&format!("{path}.retry"), delivery.retry, limits::RETRY);
    found.duration(
        &format!("{path}.backoffDelay"),
        &delivery.backoff_delay,
        limits::BACKOFF_DELAY,
    );
    found.duration(
        &format!("{path}.timeout"),
        &delivery.timeout,
        limits::TIMEOUT,
    );
}
