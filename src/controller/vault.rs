//! The owned Secret in the cluster: where a registration keeps its keys and notes.
//!
//! Owns: reading and writing it within a pass, and the seams of the executor over it: the key
//! store, the gate of an operator without receivers, the notes of owed resyncs.
//!
//! What it holds in memory is what was read or written last; a write carries the version it rests
//! on, so that a writer who is not alone notices. A write whose answer is lost is not believed.
//!
//! Never here: a decision about a rule; a Secret that is not ours.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::sync::Mutex;

use super::owned::{Content, MANAGER, Whose, secret_name};
use crate::api::NotificationType;
use crate::api::v1alpha1::WebhookSubscription;
use crate::clock::Clock;
use crate::registration::{Gate, KeyStore, Resyncs, StoreError};
use crate::secrets::{Fingerprint, Secret};

/// How long a replaced key stays valid. The provider's four attempts of 60 s and their unknown
/// delays must fit in; the same as the receiver's own grace for a key that it learned itself.
pub const KEY_GRACE: Duration = Duration::from_mins(15);

struct Held {
    whose: Whose,
    content: Content,
    version: Option<String>,
    /// Changed in memory, and written with the next change.
    unwritten: bool,
}

/// Versions that need no look.
#[derive(Default)]
struct Known {
    exists: bool,
    /// Those that were read or written last.
    versions: Vec<String>,
}

impl Known {
    fn saw(&mut self, version: Option<&String>) {
        self.exists = version.is_some();
        self.versions.extend(version.cloned());
        // A pass writes a few times per type; the watch shows all of them soon.
        let surplus = self.versions.len().saturating_sub(64);
        self.versions.drain(..surplus);
    }
}

/// One subscription's owned Secret.
pub struct Vault {
    secrets: Api<KubeSecret>,
    held: Mutex<Held>,
    /// What is known of its versions, to tell our own writes from others' in the watch.
    known: std::sync::Mutex<Known>,
    clock: Arc<dyn Clock>,
    identity: String,
}

impl Vault {
    /// The owned Secret of a subscription, `found` as it was read (`None`: it does not exist).
    /// `identity` is this process's.
    pub fn new(
        secrets: Api<KubeSecret>,
        subscription: &WebhookSubscription,
        found: Option<&KubeSecret>,
        clock: Arc<dyn Clock>,
        identity: String,
    ) -> Self {
        let held = Held {
            whose: Whose::of(subscription),
            content: found.map(Content::of).unwrap_or_default(),
            version: found.and_then(|found| found.metadata.resource_version.clone()),
            unwritten: false,
        };
        let mut known = Known::default();
        known.saw(held.version.as_ref());
        Self {
            secrets,
            held: Mutex::new(held),
            known: std::sync::Mutex::new(known),
            clock,
            identity,
        }
    }

    /// What is known after a new look, for a new pass.
    pub async fn load(&self, subscription: &WebhookSubscription, found: Option<&KubeSecret>) {
        let mut held = self.held.lock().await;
        held.whose = Whose::of(subscription);
        held.content = found.map(Content::of).unwrap_or_default();
        held.version = found.and_then(|found| found.metadata.resource_version.clone());
        held.unwritten = false;
        self.known().saw(held.version.as_ref());
    }

    /// It was removed, by us.
    pub fn removed(&self) {
        self.known().saw(None);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        let known = self.known.lock();
        known.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What it says now.
    pub async fn content(&self) -> Content {
        self.held.lock().await.content.clone()
    }

    /// The version of the Secret that was read or written last.
    pub async fn version(&self) -> Option<String> {
        self.held.lock().await.version.clone()
    }

    /// Whether what the watch shows (`None`: it is gone) is what was read or written here.
    pub fn knows(&self, version: Option<&String>) -> bool {
        let known = self.known();
        match version {
            None => !known.exists,
            Some(version) => known.versions.contains(version),
        }
    }

    /// Changes it, durably when this returns. `change` says whether it did anything.
    ///
    /// # Errors
    /// What the API server said; then nothing is changed here either.
    pub async fn change(
        &self,
        change: impl FnOnce(&mut Content) -> bool,
    ) -> Result<(), kube::Error> {
        let mut held = self.held.lock().await;
        let mut content = held.content.clone();
        if !change(&mut content) && !held.unwritten {
            return Ok(());
        }
        self.write(&mut held, content).await
    }

    /// Changes it in memory: it is written with the next change. For what costs little when it is
    /// lost. `change` says whether it did anything.
    pub async fn note(&self, change: impl FnOnce(&mut Content) -> bool) {
        let mut held = self.held.lock().await;
        held.unwritten |= change(&mut held.content);
    }

    async fn write(&self, held: &mut Held, content: Content) -> Result<(), kube::Error> {
        let secret = content.build(&held.whose, held.version.clone());
        let params = PatchParams::apply(MANAGER).force();
        let name = secret_name(&held.whose.name);
        let answer = self
            .secrets
            .patch(&name, &params, &Patch::Apply(&secret))
            .await?;
        held.version = answer.metadata.resource_version;
        held.content = content;
        held.unwritten = false;
        self.known().saw(held.version.as_ref());
        Ok(())
    }

    /// Notes that this process is about to write rules; the first write of a pass does it.
    ///
    /// # Errors
    /// What to say of it.
    pub async fn begin_writes(&self) -> Result<(), String> {
        let me = self.identity.clone();
        self.change(|content| {
            if content.pending.as_ref() == Some(&me) {
                return false;
            }
            content.pending = Some(me);
            true
        })
        .await
        .map_err(|error| problem(&error).0)
    }
}

fn problem(error: &kube::Error) -> StoreError {
    // The API server's message names the object and the rule that it broke, never its content.
    let said = match error {
        kube::Error::Api(status) => format!("{} ({})", status.reason, status.code),
        other => other.to_string(),
    };
    StoreError(format!(
        "the Secret of this subscription cannot be written: {said}"
    ))
}

#[async_trait]
impl KeyStore for Vault {
    async fn store(&self, kind: NotificationType, key: &Secret) -> Result<(), StoreError> {
        let keep_until = self.clock.now().after(KEY_GRACE);
        self.change(|content| {
            content.put_key(kind, key, keep_until);
            true
        })
        .await
        .map_err(|error| problem(&error))
    }

    async fn known(&self, kind: NotificationType) -> Result<Option<Fingerprint>, StoreError> {
        Ok(self.held.lock().await.content.fingerprint(kind))
    }

    async fn forget(&self, kind: NotificationType) -> Result<(), StoreError> {
        self.change(|content| content.keys.remove(&kind).is_some())
            .await
            .map_err(|error| problem(&error))
    }
}

/// An operator that runs no receivers: who reads the Secret has the key as soon as it is written.
#[async_trait]
impl Gate for Vault {
    async fn loaded(&self, _kind: NotificationType, _key: &Fingerprint) -> bool {
        true
    }

    fn waiting_for(&self) -> String {
        "the key to be written to the Secret".to_owned()
    }
}

#[async_trait]
impl Resyncs for Vault {
    async fn due(&self, kind: NotificationType) -> Result<(), StoreError> {
        self.change(|content| content.owed.insert(kind))
            .await
            .map_err(|error| problem(&error))
    }

    /// In memory only: all types become live in one write at the end of the pass, and a pass that
    /// does not get there says it again.
    async fn live(&self, kind: NotificationType) {
        let now = self.clock.now();
        self.note(|content| content.begin_resync(kind, now)).await;
    }
}
