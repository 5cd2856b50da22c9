//! From the resource to the settings: all defaults applied, every reference resolved.
//!
//! Pure: what had to be looked up comes in as [`Resolved`].

use std::path::PathBuf;
use std::time::Duration;

use super::{
    DeliverySettings, FeedSettings, FetchSettings, Identity, NotificationSettings,
    ProviderSettings, Settings, SignatureSettings, SinkSettings, StoreSettings,
};
use crate::api::Owner;
use crate::api::owner::{STANDALONE, stand_in_uid};
use crate::api::v1alpha1::{FeedAuth, GoDuration, Sink, WebhookSubscription};
use crate::api::validate::{Mistake, validate};

/// What a subscription does not say of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// UID of the namespace kube-system, what `--cluster-id` says, or `standalone`.
    pub cluster_id: String,
    /// Where the Notification Registry is, if not at the environment's usual address.
    pub registry_url: Option<String>,
    /// Where the Reseller API is, if not at the environment's usual address.
    pub api_url: Option<String>,
    /// The folder with one folder for each Secret whose keys are headers, named after the Secret.
    pub headers_dir: PathBuf,
    /// The folder with one folder for each Secret that holds certificate authorities, named after
    /// the Secret, its keys as files.
    pub ca_dir: PathBuf,
    /// The file with the feed's token; `None`: none is asked for, whatever `feed.auth` says.
    pub feed_token_file: Option<PathBuf>,
}

impl Resolved {
    /// For `bellhop run`: Secrets lie as files below `secrets`, the feed has no token.
    pub fn standalone(secrets: PathBuf) -> Self {
        Self {
            cluster_id: STANDALONE.to_owned(),
            registry_url: None,
            api_url: None,
            headers_dir: secrets.clone(),
            ca_dir: secrets,
            feed_token_file: None,
        }
    }

    /// Whose rules a subscription's are.
    pub fn owner(&self, subscription: &WebhookSubscription) -> Owner {
        let metadata = &subscription.metadata;
        Owner::of(
            &self.cluster_id,
            metadata.namespace.as_deref().unwrap_or("default"),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

impl Settings {
    /// The data plane's settings of a subscription, or everything that is wrong with it.
    #[allow(
        clippy::missing_panics_doc,
        reason = "what validate lets pass has a value"
    )]
    pub fn from_subscription(
        subscription: &WebhookSubscription,
        resolved: &Resolved,
    ) -> Result<Self, Vec<Mistake>> {
        let mistakes = validate(subscription);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let spec = &subscription.spec;
        let identity = identity(subscription, resolved);
        let fetch = &spec.fetch;
        Ok(Self {
            provider: ProviderSettings {
                registry_url: base(
                    resolved.registry_url.as_deref(),
                    spec.environment.registry_url(),
                ),
                api_url: base(resolved.api_url.as_deref(), spec.environment.api_url()),
                authorities: None,
            },
            notifications: spec
                .notifications()
                .iter()
                .map(|notification| NotificationSettings {
                    kind: notification.kind,
                    operations: notification.operations(),
                })
                .collect(),
            signature: SignatureSettings {
                scheme: spec.signature.scheme,
                max_age: checked(&spec.signature.max_age),
                max_skew: checked(&spec.signature.max_skew),
                ledger_span: checked(&spec.signature.ledger_span),
            },
            fetch: FetchSettings {
                requests_per_second: fetch.requests_per_second,
                min_interval: checked(&fetch.min_interval),
                availability_horizon_days: fetch.availability_horizon_days,
                resync_interval: checked(&fetch.resync_interval),
                removal_confirmation: checked(&fetch.removal_confirmation),
                removal_guard_percent: fetch.removal_guard.get().expect("validated above"),
            },
            sinks: spec
                .sinks
                .iter()
                .map(|item| sink(item, &identity.namespace, resolved))
                .collect(),
            feed: FeedSettings {
                token_file: match spec.feed.auth {
                    FeedAuth::Token => resolved.feed_token_file.clone(),
                    FeedAuth::None => None,
                },
            },
            store: store(subscription),
            subscription: identity,
        })
    }
}

fn identity(subscription: &WebhookSubscription, resolved: &Resolved) -> Identity {
    let metadata = &subscription.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    let stand_in = || stand_in_uid(namespace, name);
    Identity {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: metadata.uid.clone().unwrap_or_else(stand_in),
        owner: resolved.owner(subscription).to_string(),
        environment: subscription.spec.environment.as_str().to_owned(),
    }
}

fn sink(sink: &Sink, namespace: &str, resolved: &Resolved) -> SinkSettings {
    let http = sink.http.clone().unwrap_or_default();
    let uri = match (&http.service, http.uri) {
        (Some(service), _) => service.uri(namespace),
        (None, uri) => uri.expect("validated above"),
    };
    SinkSettings {
        name: sink.name.clone(),
        types: sink.types.clone(),
        uri,
        headers_dir: http
            .headers_from
            .map(|headers| resolved.headers_dir.join(headers.secret_ref.name)),
        ca_file: http
            .ca_secret_ref
            .map(|ca| resolved.ca_dir.join(ca.name).join(ca.key)),
        delivery: DeliverySettings {
            retry: sink.delivery.retry,
            backoff_policy: sink.delivery.backoff_policy,
            backoff_delay: checked(&sink.delivery.backoff_delay),
            timeout: checked(&sink.delivery.timeout),
        },
    }
}

fn store(subscription: &WebhookSubscription) -> StoreSettings {
    let state = &subscription.spec.state;
    StoreSettings {
        size_bytes: state.embedded().size.get().expect("validated above"),
        retain_events: checked(&state.retention.events),
        retain_dead_letters: checked(&state.retention.dead_letters),
        retain_bookings: checked(&state.retention.bookings),
    }
}

/// The path of a subscription's `url`: `/redeam` of `https://hooks.example.com/redeam`.
pub fn base_path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or_else(String::new, |at| {
        rest[at..].trim_end_matches('/').to_owned()
    })
}

/// Base URLs have no trailing slash.
fn base(given: Option<&str>, usual: &str) -> String {
    given.unwrap_or(usual).trim_end_matches('/').to_owned()
}

fn checked(duration: &GoDuration) -> Duration {
    duration.get().expect("validated above")
}
