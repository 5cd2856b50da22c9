//! The manifests of a standalone process: files in, one checked subscription out.
//!
//! Owns: reading the files, the choice of the one subscription, the Secrets that it names (those
//! of the sinks are laid out as files), and what another reading would change. Never here: what is
//! right or wrong in a manifest; that is [`crate::api`]'s, and all of it is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Failure;
use super::keystore::{private_folder, write_private};
use crate::api::manifest::{self, SecretManifest, SubscriptionManifest};
use crate::api::v1alpha1::WebhookSubscription;
use crate::registration::DesiredRules;
use crate::secrets::Credentials;
use crate::settings::{Resolved, Settings, base_path};

/// What the command line says beside, or instead of, the manifests.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--registry-url`
    pub registry_url: Option<String>,
    /// `--api-url`
    pub api_url: Option<String>,
    /// `--feed-token-file`
    pub feed_token_file: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: PathBuf,
}

/// The folder of laid-out Secrets, within the data folder.
const SECRETS: &str = "secrets";

/// A checked subscription and all that belongs to it.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The data plane's settings.
    pub settings: Settings,
    /// The rules that should be there.
    pub desired: DesiredRules,
    /// How often they are compared.
    pub drift_check_interval: Duration,
    /// The path of `spec.url`.
    pub base_path: String,
    /// The API credentials.
    pub credentials: Credentials,
    /// What the subscription asks for that only the operator does, a line each.
    pub unused: Vec<String>,
    /// What it was read from.
    contents: Vec<(PathBuf, Vec<u8>)>,
    overrides: Overrides,
    /// The subscription, field by field.
    fields: BTreeMap<String, Value>,
    /// The Secrets that sinks name: to be laid out as files by key, a folder each.
    sink_secrets: Vec<SecretManifest>,
}

impl Manifests {
    /// Reads the files.
    ///
    /// # Errors
    /// Every mistake of all files, a line each.
    pub fn read(files: &[PathBuf], overrides: Overrides) -> Result<Self, Failure> {
        let contents = read_files(files).map_err(Failure::Usage)?;
        Self::parse(contents, overrides).map_err(Failure::Usage)
    }

    /// The same from contents.
    ///
    /// # Errors
    /// As [`Manifests::read`].
    pub fn parse(contents: Vec<(PathBuf, Vec<u8>)>, overrides: Overrides) -> Result<Self, String> {
        let found = read_all(&contents)?;
        let subscription = the_one(&found.subscriptions)?;
        let credentials = credentials_of(&found, subscription)?;
        let sink_secrets = sink_secrets(&found, subscription)?;
        let resolved = Resolved {
            registry_url: overrides.registry_url.clone(),
            api_url: overrides.api_url.clone(),
            feed_token_file: overrides.feed_token_file.clone(),
            ..Resolved::standalone(overrides.data_dir.join(SECRETS))
        };
        let object = &subscription.object;
        let settings = Settings::from_subscription(object, &resolved).map_err(|mistakes| {
            mistakes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })?;
        let interval = object.spec.registration.drift_check_interval.get();
        Ok(Self {
            unused: super::unused::unused(object),
            desired: DesiredRules::of(&object.spec, resolved.owner(object)),
            drift_check_interval: interval.unwrap_or(Duration::from_hours(1)),
            base_path: base_path(&object.spec.url),
            settings,
            credentials,
            sink_secrets,
            fields: fields(object),
            overrides,
            contents,
        })
    }

    /// Writes the Secrets that sinks name as files, a folder each, as a cluster would mount them:
    /// what was laid out before and is in none of them any more goes.
    ///
    /// # Errors
    /// Which file cannot be written or removed.
    pub fn lay_out(&self, data_dir: &Path) -> Result<(), String> {
        for secret in &self.sink_secrets {
            let folder = data_dir.join(SECRETS).join(&secret.name);
            private_folder(&folder)?;
            for (key, value) in &secret.data {
                let file = folder.join(key);
                if std::fs::read(&file).is_ok_and(|now| now == value.expose().as_bytes()) {
                    continue;
                }
                write_private(&file, value.expose().as_bytes())
                    .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
            }
            remove_others(&folder, |key| secret.data.contains_key(key))
                .map_err(|error| format!("cannot tidy {}: {error}", folder.display()))?;
        }
        Ok(())
    }

    /// The files, as they were read.
    pub fn contents(&self) -> &[(PathBuf, Vec<u8>)] {
        &self.contents
    }

    /// What the command line said.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The fields in which `other` differs, as they are written in the file.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields: BTreeSet<&String> = self.fields.keys().chain(other.fields.keys()).collect();
        let differ = |field: &&String| self.fields.get(*field) != other.fields.get(*field);
        fields.into_iter().filter(differ).cloned().collect()
    }
}

fn remove_others(folder: &Path, stays: impl Fn(&str) -> bool) -> std::io::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if !file.file_name().to_str().is_some_and(&stays) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// The subscription by field: the parts that a restart would take over.
fn fields(object: &WebhookSubscription) -> BTreeMap<String, Value> {
    let metadata = &object.metadata;
    let mut fields = BTreeMap::from([
        ("metadata.name".to_owned(), json!(metadata.name)),
        ("metadata.namespace".to_owned(), json!(metadata.namespace)),
    ]);
    if let Ok(Value::Object(spec)) = serde_json::to_value(&object.spec) {
        let named = |(name, value): (String, Value)| (format!("spec.{name}"), value);
        fields.extend(spec.into_iter().map(named));
    }
    fields
}

/// Reads files whole.
///
/// # Errors
/// Every one that cannot be read, a line each.
pub fn read_files(files: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let mut contents = Vec::new();
    let mut problems = Vec::new();
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => contents.push((file.clone(), bytes)),
            Err(error) => problems.push(format!(
                "cannot read {}: {error}; give a YAML file with a WebhookSubscription and its Secret, like those in examples/",
                file.display()
            )),
        }
    }
    if problems.is_empty() {
        Ok(contents)
    } else {
        Err(problems.join("\n"))
    }
}

fn read_all(contents: &[(PathBuf, Vec<u8>)]) -> Result<manifest::Manifests, String> {
    let names: Vec<String> = contents
        .iter()
        .map(|(file, _)| file.display().to_string())
        .collect();
    let files = names
        .iter()
        .zip(contents)
        .map(|(name, (_, bytes))| (name.as_str(), bytes.as_slice()));
    manifest::read_all(files).map_err(|mistakes| {
        let count = mistakes.0.len();
        let what = if count == 1 { "mistake" } else { "mistakes" };
        format!("{count} {what} in the manifests:\n{mistakes}")
    })
}

fn the_one(subscriptions: &[SubscriptionManifest]) -> Result<&SubscriptionManifest, String> {
    match subscriptions {
        [one] => Ok(one),
        [] => Err(
            "there is no WebhookSubscription in these files; add one, like examples/minimal.yaml"
                .to_owned(),
        ),
        several => {
            let names: Vec<&str> = several.iter().map(SubscriptionManifest::name).collect();
            Err(format!(
                "there are {} WebhookSubscriptions in these files ({}); run one process for each, with ports and a --data-dir of its own",
                several.len(),
                names.join(", ")
            ))
        }
    }
}

fn credentials_of(
    found: &manifest::Manifests,
    subscription: &SubscriptionManifest,
) -> Result<Credentials, String> {
    let name = &subscription.object.spec.credentials_secret_ref.name;
    let secret = found
        .secret(subscription.namespace(), name)
        .ok_or_else(|| {
            format!(
                "Secret {}/{name} is not in these files; add it, or another -f FILE that holds it",
                subscription.namespace()
            )
        })?;
    secret.credentials()
}

/// The Secrets that sinks name.
fn sink_secrets(
    found: &manifest::Manifests,
    subscription: &SubscriptionManifest,
) -> Result<Vec<SecretManifest>, String> {
    let mut wanted = BTreeMap::new();
    for sink in &subscription.object.spec.sinks {
        let Some(http) = &sink.http else { continue };
        if let Some(headers) = &http.headers_from {
            wanted.insert(headers.secret_ref.name.as_str(), &sink.name);
        }
        if let Some(ca) = &http.ca_secret_ref {
            wanted.insert(ca.name.as_str(), &sink.name);
        }
    }
    let namespace = subscription.namespace();
    let secret = |(name, sink): (&str, &String)| {
        found.secret(namespace, name).cloned().ok_or_else(|| {
            format!("Secret {namespace}/{name}, which sink `{sink}` names, is not in these files; add it")
        })
    };
    wanted.into_iter().map(secret).collect()
}
