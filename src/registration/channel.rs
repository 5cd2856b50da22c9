//! Whose account the rules were made in, and what other credentials mean.
//!
//! Owns: the note of the API key that rules were registered with, and the judgement of another one:
//! it is the same account if it shows one of our rules, else nothing is written until somebody says
//! that the new account is meant. For a process without a cluster; the controller judges with the
//! copy of the credentials that it keeps.
//!
//! Never here: a write to the provider; an API key itself: the note is its fingerprint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::execute::{KeyStore, StoreError};
use super::judge::Stop;
use super::plan::DesiredRules;
use crate::api::NotificationType;
use crate::provider::credentials::CredentialSource;
use crate::provider::{Registry, RegistryError};
use crate::secrets::Fingerprint;

/// Where the API key is noted that rules were registered with.
#[async_trait]
pub trait ChannelNote: Send + Sync + 'static {
    /// The one that was noted last.
    async fn noted(&self) -> Result<Option<Fingerprint>, StoreError>;
    /// Notes another one. Durable when it returns.
    async fn note(&self, key: &Fingerprint) -> Result<(), StoreError>;
}

/// Judges the credentials in use before a pass.
pub struct Channel {
    registry: Arc<dyn Registry>,
    keys: Arc<dyn KeyStore>,
    note: Arc<dyn ChannelNote>,
    credentials: Arc<CredentialSource>,
    /// Somebody said that another account is meant. Counts once.
    moving: AtomicBool,
}

impl Channel {
    /// `moving`: the account may be another one than before, once.
    pub fn new(
        registry: Arc<dyn Registry>,
        keys: Arc<dyn KeyStore>,
        note: Arc<dyn ChannelNote>,
        credentials: Arc<CredentialSource>,
        moving: bool,
    ) -> Self {
        Self {
            registry,
            keys,
            note,
            credentials,
            moving: AtomicBool::new(moving),
        }
    }

    /// Whether a pass may write with the credentials in use; with reads only, and none at all
    /// while they are those that were noted.
    pub(super) async fn judge(&self, desired: &DesiredRules) -> Result<(), Stop> {
        // A source in memory always has some.
        let Ok(current) = self.credentials.current() else {
            return Ok(());
        };
        let now = current.credentials.api_key.fingerprint();
        let noted = self.note.noted().await?;
        if noted.as_ref() == Some(&now) {
            return Ok(());
        }
        if noted.is_some() && !self.is_ours(desired).await? {
            if !self.moving.swap(false, Ordering::Relaxed) {
                return Err(Stop::ChannelChanged);
            }
            tracing::warn!(
                "moving to the account of the new credentials; rules in the old one can only be removed with its own"
            );
        }
        // Before the first rule.
        self.note.note(&now).await?;
        Ok(())
    }

    /// Whether the account shows a rule of ours, or none was registered anywhere.
    async fn is_ours(&self, desired: &DesiredRules) -> Result<bool, Stop> {
        let mut registered = false;
        for kind in NotificationType::ALL {
            if self.keys.known(kind).await?.is_none() {
                continue;
            }
            registered = true;
            match self.registry.get(kind).await {
                Ok(Some(rule)) if desired.owner.owns(&rule.url) => return Ok(true),
                Ok(_) | Err(RegistryError::UnsupportedType { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(!registered)
    }
}
