//! All rules that the CRD states, for where no API server is: `bellhop run`, `bellhop check`, and
//! the controller (a CRD can be older than the program).
//!
//! Owns: every mistake of an object at once, each with its path and what to write instead.
//! Never here: IO, and a rule without words.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::NotificationType;
use super::v1alpha1::limits::{self, DurationRange};
use super::v1alpha1::{
    Delivery, Exposure, GoDuration, HttpSink, LocalName, Notification, Receiver, Signature, Sink,
    Size, WebhookSubscription,
};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where: `spec.sinks[1].http.uri`.
    pub path: String,
    /// What is wrong; what to write instead.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every mistake of a subscription; none when it is right.
pub fn validate(subscription: &WebhookSubscription) -> Vec<Mistake> {
    let mut found = Mistakes::default();
    let spec = &subscription.spec;
    let name = subscription.metadata.name.as_deref().unwrap_or_default();
    found.check("metadata.name", object_name(name));
    let namespace = subscription.metadata.namespace.as_deref();
    if let Some(namespace) = namespace {
        found.check("metadata.namespace", dns_label(namespace));
    }
    for problem in public_url(&spec.url) {
        found.add("spec.url", problem);
    }
    found.check(
        "spec.credentialsSecretRef.name",
        dns_subdomain(&spec.credentials_secret_ref.name),
    );
    if let Some(notifications) = &spec.notifications {
        check_notifications(&mut found, notifications);
    }
    check_signature(&mut found, &spec.signature);
    check_fetch(&mut found, subscription);
    check_sinks(&mut found, &spec.sinks);
    check_state(&mut found, subscription);
    check_receiver(&mut found, &spec.receiver);
    if let Some(exposure) = &spec.exposure {
        check_exposure(&mut found, exposure);
    }
    typed_list::<k8s_openapi::api::networking::v1::NetworkPolicyEgressRule>(
        &mut found,
        "spec.networkPolicy.egress",
        "an egress rule of a NetworkPolicy",
        &spec.network_policy.egress,
    );
    found.duration(
        "spec.registration.driftCheckInterval",
        &spec.registration.drift_check_interval,
        limits::DRIFT_CHECK,
    );
    found.0
}

/// What changing a subscription from `old` to `new` gets wrong: what cannot change.
pub fn validate_change(old: &WebhookSubscription, new: &WebhookSubscription) -> Vec<Mistake> {
    let mut found = Mistakes::default();
    if old.spec.environment != new.spec.environment {
        found.add("spec.environment", limits::ENVIRONMENT_RULE.message);
    }
    let size = |object: &WebhookSubscription| {
        let embedded = object.spec.state.embedded.as_ref();
        embedded.and_then(|embedded| embedded.size.get())
    };
    if let (Some(old), Some(new)) = (size(old), size(new))
        && new < old
    {
        found.add("spec.state.embedded.size", limits::SIZE_GROWS.message);
    }
    found.0
}

#[derive(Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Mistake {
            path: path.into(),
            message: message.into(),
        });
    }

    fn check(&mut self, path: &str, result: Result<(), String>) {
        if let Err(message) = result {
            self.add(path, message);
        }
    }

    fn duration(&mut self, path: &str, duration: &GoDuration, range: DurationRange) {
        match duration.get() {
            None => self.add(path, not_a_duration(duration.as_str(), range)),
            Some(value) if !range.contains(value) => self.add(
                path,
                format!("{duration} is out of range; {}", range.message()),
            ),
            Some(_) => {}
        }
    }

    fn range(&mut self, path: &str, value: u32, (min, max): (u32, u32)) {
        if !(min..=max).contains(&value) {
            self.add(
                path,
                format!("{value} is out of range; write a number from {min} to {max}"),
            );
        }
    }

    fn at_most(&mut self, path: &str, count: usize, max: usize, what: &str) {
        if count > max {
            self.add(path, format!("{count} {what}; write at most {max}"));
        }
    }
}

fn not_a_duration(text: &str, range: DurationRange) -> String {
    format!(
        "`{}` is not a duration; write whole numbers of at most five digits with the units h, m, s and ms, such as `90s`, `24h` or `1h30m`, from {} to {}",
        excerpt(text),
        range.min,
        range.max
    )
}

/// At most the first 60 characters, on one line.
fn excerpt(text: &str) -> String {
    let cut: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if cut.len() < text.len() {
        cut + "…"
    } else {
        cut
    }
}

fn object_name(name: &str) -> Result<(), String> {
    if name.len() <= limits::NAME_MAX && is_dns_label(name) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name; {}",
        excerpt(name),
        limits::NAME_RULE.message
    ))
}

/// A DNS label that starts with a letter, as Services need it.
fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(inner)
        && !text.ends_with('-')
}

fn dns_label(text: &str) -> Result<(), String> {
    let rest = text
        .strip_prefix(|c: char| c.is_ascii_digit())
        .map_or_else(|| text.to_owned(), |rest| format!("a{rest}"));
    if is_dns_label(&rest) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name here; write 1 to 63 lowercase letters, digits and dashes, beginning and ending with a letter or digit",
        excerpt(text)
    ))
}

fn dns_subdomain(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name of an object; write 1 to 253 lowercase letters, digits, dashes and dots, beginning and ending with a letter or digit",
        excerpt(text)
    ))
}

fn dns_subdomain_or_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    dns_subdomain(text)
}

/// Every character that may stand in a path.
fn is_path_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(character)
}

/// Host, perhaps a port: `hooks.example.com:8443`.
fn authority(text: &str) -> Result<(), String> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let end = |c: char| c.is_ascii_alphanumeric();
    if !(host.chars().all(inner) && host.starts_with(end) && host.ends_with(end)) {
        return Err(format!(
            "`{}` is not a host; write a name such as `hooks.example.com`",
            excerpt(host)
        ));
    }
    if let Some(port) = port {
        let number = port.parse::<u16>().ok().filter(|number| *number > 0);
        if number.is_none_or(|number| number.to_string() != port) {
            return Err(format!(
                "`{}` is not a port; write a number from 1 to 65535",
                excerpt(port)
            ));
        }
    }
    Ok(())
}

/// Everything that is wrong with a public URL.
fn public_url(url: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if url.len() > limits::URL_MAX {
        wrong.push(format!(
            "{} bytes; write at most {}",
            url.len(),
            limits::URL_MAX
        ));
    }
    let Some(rest) = url.strip_prefix("https://") else {
        wrong.push(limits::URL_HTTPS.message.to_owned());
        return wrong;
    };
    if rest.contains(['?', '#']) {
        wrong.push(limits::URL_QUERY.message.to_owned());
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.contains('@') {
        wrong.push(limits::URL_USERINFO.message.to_owned());
    } else if let Err(problem) = authority(host) {
        wrong.push(problem);
    }
    if !path.chars().all(is_path_character) {
        wrong.push(
            "write a path of letters, digits and -._~!$&'()*+,;=:@% only, other characters percent-encoded"
                .to_owned(),
        );
    }
    if path.contains("//") {
        wrong.push("write the path without empty segments (`//`)".to_owned());
    }
    wrong
}

/// What is wrong with the address of a sink.
fn sink_uri(uri: &str) -> Result<(), String> {
    if uri.len() > limits::URI_MAX {
        return Err(format!(
            "{} bytes; write at most {}",
            uri.len(),
            limits::URI_MAX
        ));
    }
    let rest = uri
        .strip_prefix("https://")
        .or_else(|| uri.strip_prefix("http://"))
        .ok_or("write an address that begins with http:// or https://")?;
    if rest.contains('#') {
        return Err("write the address without `#`: a fragment is never sent".into());
    }
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.contains('@') {
        return Err(
            "write the address without a user or password: put an `authorization` header into a Secret and name it in headersFrom"
                .into(),
        );
    }
    authority(host)?;
    path_and_query(path)
}

fn path_and_query(text: &str) -> Result<(), String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let query_ok = query.chars().all(|c| c == '?' || is_path_character(c));
    if path.chars().all(is_path_character) && query_ok {
        return Ok(());
    }
    Err(
        "write letters, digits and -._~!$&'()*+,;=:@%/ only, other characters percent-encoded"
            .into(),
    )
}

fn check_notifications(found: &mut Mistakes, notifications: &[Notification]) {
    if notifications.is_empty() {
        found.add(
            "spec.notifications",
            "the list is empty; leave `notifications` out for all seven types, or name at least one",
        );
    }
    let mut seen = BTreeSet::new();
    for (at, notification) in notifications.iter().enumerate() {
        let path = format!("spec.notifications[{at}]");
        let kind = notification.kind;
        if !seen.insert(kind) {
            found.add(
                format!("{path}.type"),
                format!("{kind} is there twice; write each type once"),
            );
        }
        if notification.config.contains_key("operations") {
            found.add(
                format!("{path}.config.operations"),
                "write it as `operations`, beside `config`",
            );
        }
        found.at_most(
            &format!("{path}.config"),
            notification.config.len(),
            32,
            "keys",
        );
        let Some(operations) = &notification.operations else {
            continue;
        };
        let path = format!("{path}.operations");
        if kind.operations().is_empty() {
            found.add(path, limits::NO_OPERATIONS.message);
            continue;
        }
        if operations.is_empty() {
            found.add(
                path,
                "the list is empty; leave `operations` out for all that the type has",
            );
            continue;
        }
        if operations.iter().any(|op| !kind.operations().contains(op)) {
            found.add(&path, limits::ONLY_UPDATED.message);
        }
        let distinct: BTreeSet<_> = operations.iter().collect();
        if distinct.len() < operations.len() {
            found.add(path, "an operation is there twice; write each once");
        }
    }
}

fn check_signature(found: &mut Mistakes, signature: &Signature) {
    found.duration("spec.signature.maxAge", &signature.max_age, limits::MAX_AGE);
    found.duration(
        "spec.signature.maxSkew",
        &signature.max_skew,
        limits::MAX_SKEW,
    );
    found.duration(
        "spec.signature.ledgerSpan",
        &signature.ledger_span,
        limits::LEDGER_SPAN,
    );
    if let (Some(age), Some(skew)) = (signature.max_age.get(), signature.max_skew.get())
        && skew > age
    {
        found.add("spec.signature", limits::SKEW_WITHIN_AGE.message);
    }
}

fn check_fetch(found: &mut Mistakes, subscription: &WebhookSubscription) {
    let fetch = &subscription.spec.fetch;
    found.range(
        "spec.fetch.requestsPerSecond",
        fetch.requests_per_second,
        limits::REQUESTS_PER_SECOND,
    );
    found.range(
        "spec.fetch.availabilityHorizonDays",
        fetch.availability_horizon_days,
        limits::HORIZON_DAYS,
    );
    for (field, duration, range) in [
        ("minInterval", &fetch.min_interval, limits::MIN_INTERVAL),
        (
            "resyncInterval",
            &fetch.resync_interval,
            limits::RESYNC_INTERVAL,
        ),
        (
            "removalConfirmation",
            &fetch.removal_confirmation,
            limits::REMOVAL_CONFIRMATION,
        ),
    ] {
        found.duration(&format!("spec.fetch.{field}"), duration, range);
    }
    if fetch.removal_guard.get().is_none() {
        found.add(
            "spec.fetch.removalGuard",
            format!(
                "`{}` is not a percentage; write a whole number from 0 to 100 with `%`, such as `10%`",
                excerpt(fetch.removal_guard.as_str())
            ),
        );
    }
}

fn check_sinks(found: &mut Mistakes, sinks: &[Sink]) {
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

fn check_state(found: &mut Mistakes, subscription: &WebhookSubscription) {
    let state = &subscription.spec.state;
    if let Some(embedded) = &state.embedded {
        let path = "spec.state.embedded.size";
        let min = Size::new(limits::SIZE_MIN).get();
        match embedded.size.get() {
            None => found.add(
                path,
                format!(
                    "`{}` is not a size; write a whole number of at most six digits with one of the units Mi, Gi, Ti, M, G and T, such as `1Gi`",
                    excerpt(embedded.size.as_str())
                ),
            ),
            size if size < min => found.add(path, limits::SIZE_RANGE.message),
            Some(_) => {}
        }
        found.check(
            "spec.state.embedded.storageClassName",
            dns_subdomain_or_empty(&embedded.storage_class_name),
        );
    }
    let retention = &state.retention;
    for (field, duration) in [
        ("events", &retention.events),
        ("deadLetters", &retention.dead_letters),
        ("bookings", &retention.bookings),
    ] {
        found.duration(
            &format!("spec.state.retention.{field}"),
            duration,
            limits::RETENTION,
        );
    }
}

fn check_receiver(found: &mut Mistakes, receiver: &Receiver) {
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

/// A non-negative Kubernetes quantity.
fn is_quantity(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = match number.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(number),
    };
    let units = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let exponent = unit.strip_prefix(['e', 'E']).is_some_and(digits);
    text.len() <= 32 && number && (units.contains(&unit) || exponent)
}

fn check_exposure(found: &mut Mistakes, exposure: &Exposure) {
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

/// What is passed through must at least be of the shape that Kubernetes decodes.
fn typed<T: DeserializeOwned>(
    found: &mut Mistakes,
    path: &str,
    what: &str,
    value: &Map<String, Value>,
) {
    if let Err(error) = serde_json::from_value::<T>(Value::Object(value.clone())) {
        found.add(path, format!("not {what}: {}", excerpt(&error.to_string())));
    }
}

fn typed_list<T: DeserializeOwned>(
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
