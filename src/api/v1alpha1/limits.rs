//! The ranges and patterns that the schema states and `validate` repeats: one place for both.
//!
//! Never here: a rule without words that say what to write instead.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::scalar::{GoDuration, Percent};

/// The shortest and the longest allowed duration of a field, both included.
#[derive(Debug, Clone, Copy)]
pub struct DurationRange {
    /// As in Go.
    pub min: &'static str,
    /// As in Go.
    pub max: &'static str,
}

impl DurationRange {
    const fn new(min: &'static str, max: &'static str) -> Self {
        Self { min, max }
    }

    /// What to write instead.
    pub fn message(self) -> String {
        format!(
            "write a duration from {} to {}, with the units h, m, s and ms",
            self.min, self.max
        )
    }

    /// The CEL rule, as the value of `x-kubernetes-validations`.
    pub fn rules(self) -> Value {
        // Not a duration at all gets the same words: those of the pattern are no help.
        let rule = format!(
            "self.matches('{}') && duration(self) >= duration('{}') && duration(self) <= duration('{}')",
            GoDuration::PATTERN,
            self.min,
            self.max
        );
        json!([{ "rule": rule, "message": self.message() }])
    }

    /// Whether a duration lies within.
    #[allow(
        clippy::missing_panics_doc,
        reason = "the limits are constants of this file"
    )]
    pub fn contains(self, duration: Duration) -> bool {
        let end = |text| GoDuration::new(text).get().expect("limits are durations");
        (end(self.min)..=end(self.max)).contains(&duration)
    }
}

/// `signature.maxAge`
pub const MAX_AGE: DurationRange = DurationRange::new("1m", "720h");
/// `signature.maxSkew`
pub const MAX_SKEW: DurationRange = DurationRange::new("1s", "1h");
/// `signature.ledgerSpan`: the ledger is held in memory.
pub const LEDGER_SPAN: DurationRange = DurationRange::new("1m", "24h");
/// `fetch.minInterval`
pub const MIN_INTERVAL: DurationRange = DurationRange::new("0s", "1h");
/// `fetch.resyncInterval`
pub const RESYNC_INTERVAL: DurationRange = DurationRange::new("1m", "720h");
/// `fetch.removalConfirmation`
pub const REMOVAL_CONFIRMATION: DurationRange = DurationRange::new("1s", "1h");
/// `delivery.backoffDelay`
pub const BACKOFF_DELAY: DurationRange = DurationRange::new("10ms", "10m");
/// `delivery.timeout`
pub const TIMEOUT: DurationRange = DurationRange::new("100ms", "5m");
/// `state.retention.*`: at most a year.
pub const RETENTION: DurationRange = DurationRange::new("1h", "8760h");
/// `registration.driftCheckInterval`
pub const DRIFT_CHECK: DurationRange = DurationRange::new("1m", "24h");

/// `fetch.requestsPerSecond`
pub const REQUESTS_PER_SECOND: (u32, u32) = (1, 1000);
/// `fetch.availabilityHorizonDays`
pub const HORIZON_DAYS: (u32, u32) = (1, 730);
/// `delivery.retry`
pub const RETRY: (u32, u32) = (0, 100);
/// Ports of Services.
pub const PORT: (u32, u32) = (1, 65535);

/// `state.embedded.size`: the reserve for marks needs room.
pub const SIZE_MIN: &str = "64Mi";

/// Longest `metadata.name`: Services and Secrets are named after it (`NAME-feed`).
pub const NAME_MAX: usize = 40;
/// Longest `spec.url`: type and owner are appended.
pub const URL_MAX: usize = 1024;
/// Longest `uri` and path of a sink.
pub const URI_MAX: usize = 2048;
/// Most sinks of one subscription.
pub const SINKS_MAX: usize = 16;

/// `metadata.name`, and names of Services: a DNS label that starts with a letter.
pub const DNS_LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// Names of Secrets, Gateways, storage classes: a DNS subdomain.
pub const DNS_SUBDOMAIN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The same, or nothing.
pub const DNS_SUBDOMAIN_OR_EMPTY: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$";
/// Keys of a Secret.
pub const SECRET_KEY: &str = "^[-._a-zA-Z0-9]+$";
/// `spec.url`: https, a host, perhaps a port, a path; no userinfo, query or fragment.
pub const PUBLIC_URL: &str = r"^https://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/[-A-Za-z0-9._~!$&'()*+,;=:@%]+)*/?$";
/// `http.uri`: http or https, as above, with an optional query; no userinfo or fragment.
pub const SINK_URI: &str = r"^https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(/[-A-Za-z0-9._~!$&'()*+,;=:@%/]*)?(\?[-A-Za-z0-9._~!$&'()*+,;=:@%/?]*)?$";
/// `http.ref.path`.
pub const SINK_PATH: &str =
    r"^/[-A-Za-z0-9._~!$&'()*+,;=:@%/]*(\?[-A-Za-z0-9._~!$&'()*+,;=:@%/?]*)?$";

/// One CEL rule and its words.
#[derive(Debug, Clone, Copy)]
pub struct Cel {
    /// The expression.
    pub rule: &'static str,
    /// What to write instead.
    pub message: &'static str,
}

/// The value of `x-kubernetes-validations`.
pub fn cel(rules: &[Cel]) -> Value {
    rules
        .iter()
        .map(|cel| json!({ "rule": cel.rule, "message": cel.message }))
        .collect()
}

/// The patterns and what to write instead: the API server's own message shows the expression only.
const SHAPES: [(&str, &str); 8] = [
    (
        DNS_LABEL,
        "write 1 to 63 lowercase letters, digits and dashes, starting with a letter and ending without a dash",
    ),
    (
        DNS_SUBDOMAIN,
        "write 1 to 253 lowercase letters, digits, dashes and dots, starting and ending with a letter or digit",
    ),
    (
        DNS_SUBDOMAIN_OR_EMPTY,
        "write lowercase letters, digits, dashes and dots, starting and ending with a letter or digit, or leave it out",
    ),
    (
        SECRET_KEY,
        "write a key of letters, digits, `-`, `_` and `.`, such as `ca.crt`",
    ),
    (
        PUBLIC_URL,
        "write https://HOST, https://HOST:PORT or one of them with a path: a HOST of letters, digits, dots and dashes, a PORT from 1 to 65535, a path that is percent-encoded and has no empty segments",
    ),
    (
        SINK_URI,
        "write an address that begins with http:// or https://, percent-encoded, without fragment, user and password; headers that authenticate come from `headersFrom`",
    ),
    (
        SINK_PATH,
        "write a path that begins with `/`, percent-encoded",
    ),
    (
        Percent::PATTERN,
        "write a whole percentage from 0% to 100%, such as `10%`",
    ),
];

/// The rule with words for a pattern. It speaks only where no other rule of the field does.
pub fn shape(pattern: &str, others: &[Value]) -> Option<Value> {
    let (_, message) = SHAPES.iter().find(|(known, _)| *known == pattern)?;
    let mut rule = String::new();
    for other in others.iter().filter_map(|other| other["rule"].as_str()) {
        let _ = write!(rule, "!({other}) || ");
    }
    let quoted = pattern.replace('\\', r"\\").replace('\'', r"\'");
    let _ = write!(rule, "self.matches('{quoted}')");
    Some(json!({ "rule": rule, "message": message }))
}

/// On the whole object.
pub const NAME_RULE: Cel = Cel {
    rule: "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    message: "write a metadata.name of at most 40 lowercase letters, digits and dashes, starting with a letter and ending without a dash: Services and Secrets are named after it",
};
/// On `spec.environment`.
pub const ENVIRONMENT_RULE: Cel = Cel {
    rule: "self == oldSelf",
    message: "environment cannot change: make a new WebhookSubscription for the other environment",
};
/// On `spec.url`.
pub const URL_HTTPS: Cel = Cel {
    rule: "self.startsWith('https://')",
    message: "write an https URL: the provider posts to nothing else",
};
/// On `spec.url`.
pub const URL_QUERY: Cel = Cel {
    rule: "!self.contains('?') && !self.contains('#')",
    message: "write the URL without `?` and `#`: the notification type and the owner are appended to its path",
};
/// On `spec.url`.
pub const URL_USERINFO: Cel = Cel {
    rule: "!self.matches('^[a-z]*://[^/]*@')",
    message: "write the URL without a user or password before the host: it is public, notifications are authenticated by their signature",
};
/// On an item of `spec.notifications`.
pub const NO_OPERATIONS: Cel = Cel {
    rule: "!has(self.operations) || !(self.type in ['Availability', 'PriceSchedule'])",
    message: "Availability and PriceSchedule have no operations: leave `operations` out",
};
/// On an item of `spec.notifications`.
pub const ONLY_UPDATED: Cel = Cel {
    rule: "!has(self.operations) || self.type in ['ChannelBinding', 'Availability', 'PriceSchedule'] || self.operations.all(o, o == 'updated')",
    message: "Supplier, Product, Rate and Booking have one operation: write `operations: [updated]` or leave it out",
};
/// On `spec.signature`.
pub const SKEW_WITHIN_AGE: Cel = Cel {
    rule: "!has(self.maxAge) || !has(self.maxSkew) || !self.maxAge.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || !self.maxSkew.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self.maxSkew) <= duration(self.maxAge)",
    message: "write a maxSkew that is not longer than maxAge (5m and 24h when left out)",
};
/// On a sink.
pub const SINK_KIND: Cel = Cel {
    rule: "has(self.http)",
    message: "a sink needs exactly one kind: write `http:`",
};
/// On a sink's name.
pub const SINK_FEED: Cel = Cel {
    rule: "self != 'feed'",
    message: "`feed` is the built-in feed: write another name",
};
/// On `http`.
pub const HTTP_TARGET: Cel = Cel {
    rule: "has(self.ref) != has(self.uri)",
    message: "write exactly one of `ref` (a Service) and `uri`",
};
/// On `http`.
pub const HTTP_CA: Cel = Cel {
    rule: "!has(self.caSecretRef) || (has(self.uri) && self.uri.startsWith('https://'))",
    message: "caSecretRef needs a `uri` that begins with https://",
};
/// On `exposure`.
pub const ONE_EXPOSURE: Cel = Cel {
    rule: "!(has(self.ingress) && has(self.httpRoute))",
    message: "write at most one of `ingress` and `httpRoute`",
};
/// On `state.embedded.size`.
pub const SIZE_RANGE: Cel = Cel {
    rule: "self.matches('^[1-9][0-9]{0,5}(Mi|Gi|Ti|M|G|T)$') && quantity(self).compareTo(quantity('64Mi')) >= 0",
    message: "write a size of at least 64Mi: a whole number with one of the units Mi, Gi, Ti, M, G and T, such as `1Gi`",
};
/// On `receiver.replicas`.
pub const ONE_RECEIVER: Cel = Cel {
    rule: "self == 1",
    message: "embedded state has one receiver: write `replicas: 1`",
};
