//! All rules that the CRD states, for where no API server is: `bellhop run`, `bellhop check`, and
//! the controller (a CRD can be older than the program).
//!
//! Owns: every mistake of an object at once, each with its path and what to write instead.
//! Never here: IO, and a rule without words.

mod placement;
mod sink;
mod text;

use std::collections::BTreeSet;
use std::fmt;

use super::v1alpha1::limits::{self, DurationRange};
use super::v1alpha1::{GoDuration, Notification, Signature, Size, WebhookSubscription};
use placement::{check_exposure, check_receiver, typed_list};
use sink::check_sinks;
use text::{
    dns_label, dns_subdomain, dns_subdomain_or_empty, excerpt, not_a_duration, object_name,
    public_url,
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
