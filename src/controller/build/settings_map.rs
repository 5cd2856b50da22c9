//! The settings file and the ConfigMap that carries it.
//!
//! Owns: where in the pod everything is: what is mounted, and the file that tells the receiver.
//! Never here: a secret.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;

use super::{Blueprint, Built, Kind};
use crate::api::v1alpha1::WebhookSubscription;
use crate::api::validate::Mistake;
use crate::settings::{Process, ReceiverConfig, Resolved, Settings, base_path};

/// The settings file, in the ConfigMap and in its folder.
pub(super) const FILE: &str = "settings.yaml";

/// Where the ConfigMap is mounted.
pub(super) const SETTINGS: &str = "/etc/bellhop/settings";

/// Where the owned Secret is mounted: keys, the credentials' copy, the admin token.
pub(super) const KEYS: &str = "/etc/bellhop/keys";

/// Where the feed's Secret is mounted.
pub(super) const FEED: &str = "/etc/bellhop/feed";

/// Where the Secrets that sinks name are mounted, a folder each.
pub(super) const SINKS: &str = "/etc/bellhop/sinks";

/// Where the certificate of the public port is mounted.
pub(super) const TLS: &str = "/etc/bellhop/tls";

/// Where the volume of the store is mounted.
pub(super) const DATA: &str = "/var/lib/bellhop";

/// How long requests in flight may take at the end.
pub(super) const DRAIN: Duration = Duration::from_secs(20);

/// What the operator knows that a subscription does not say.
pub struct Surroundings {
    /// What tells this cluster's rules from another's.
    pub cluster_id: String,
    /// Where the Notification Registry is.
    pub registry_url: String,
    /// Where the reseller API is.
    pub api_url: String,
    /// Certificate authorities (PEM) to trust for both, beside the system's.
    pub authorities: Option<String>,
    /// Whether provider URLs may be plain http.
    pub allow_plain_http: bool,
}

/// The settings file of a subscription.
///
/// # Errors
/// Everything that is wrong with the subscription.
pub fn config(
    subscription: &WebhookSubscription,
    around: &Surroundings,
) -> Result<ReceiverConfig, Vec<Mistake>> {
    let resolved = Resolved {
        cluster_id: around.cluster_id.clone(),
        registry_url: Some(around.registry_url.clone()),
        api_url: Some(around.api_url.clone()),
        headers_dir: PathBuf::from(SINKS),
        ca_dir: PathBuf::from(SINKS),
        feed_token_file: Some(PathBuf::from(FEED).join(super::FEED_TOKEN_KEY)),
    };
    let mut settings = Settings::from_subscription(subscription, &resolved)?;
    settings
        .provider
        .authorities
        .clone_from(&around.authorities);
    let keys = PathBuf::from(KEYS);
    let encrypted = !subscription.spec.receiver.tls.secret_name.is_empty();
    Ok(ReceiverConfig {
        process: Process {
            base_path: base_path(&subscription.spec.url),
            data_dir: PathBuf::from(DATA),
            // A copy that the operator has checked: keys of another account must never read here
            // what was registered in this one, and find it gone.
            credentials_dir: keys.clone(),
            resyncs_file: keys.join(super::super::owned::RESYNCS),
            admin_token_file: Some(keys.join(super::super::owned::ADMIN_TOKEN)),
            keys_dir: keys,
            tls_dir: encrypted.then(|| PathBuf::from(TLS)),
            drain: DRAIN,
            allow_plain_http: around.allow_plain_http,
        },
        settings,
    })
}

pub(super) fn name(plan: &Blueprint<'_>) -> String {
    plan.named("settings")
}

pub(super) fn config_map(plan: &Blueprint<'_>) -> Built {
    let map = ConfigMap {
        metadata: plan.owned(&name(plan)),
        data: Some(BTreeMap::from([(FILE.to_owned(), plan.config.text())])),
        ..ConfigMap::default()
    };
    Built::new(Kind::ConfigMap, &map)
}
