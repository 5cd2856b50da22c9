//! Step six: the status is patched, if there is anything new, and Events tell of what changed.
//!
//! Owns: what the status is by our own last write, as long as the watch is behind it: a difference
//! is looked for against that; and whether that status is still there once the watch is past it.
//!
//! Never here: what to say (`status` decides); an Event that matters to a pass (it is a courtesy,
//! and a namespace that is going takes none).

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::Context;
use super::apply::patch_status;
use super::events::tell;
use super::fleet::Key;
use super::status::Findings;
use crate::api::v1alpha1::{WebhookSubscription, WebhookSubscriptionStatus};

/// What was written last.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    uid: Option<String>,
    version: Option<String>,
    status: WebhookSubscriptionStatus,
}

/// Writes the status of one subscription within a pass.
pub struct Teller<'a> {
    context: &'a Context,
    key: &'a Key,
    current: Mutex<Arc<WebhookSubscription>>,
}

impl<'a> Teller<'a> {
    /// For the newest version that the watch has brought, and what was written last.
    pub fn new(
        context: &'a Context,
        key: &'a Key,
        seen: &Arc<WebhookSubscription>,
        said: Option<&Said>,
    ) -> Self {
        let mut current = seen.clone();
        if let Some(said) = said.filter(|said| said.is_ahead_of(seen)) {
            let object = Arc::make_mut(&mut current);
            object.status = Some(said.status.clone());
            // With its version: a pass that says nothing must not make this write look older than
            // what the watch shows next.
            object.metadata.resource_version.clone_from(&said.version);
        }
        Self {
            context,
            key,
            current: Mutex::new(current),
        }
    }

    /// The object with its newest status.
    pub async fn current(&self) -> Arc<WebhookSubscription> {
        self.current.lock().await.clone()
    }

    /// Says it, unless only time differs.
    ///
    /// # Errors
    /// What the API server said.
    pub async fn say(&self, findings: &Findings) -> Result<(), kube::Error> {
        let mut current = self.current.lock().await;
        let now: Timestamp = self.context.now();
        let Some(change) = findings.change(&current, now) else {
            return Ok(());
        };
        let client = &self.context.client;
        let version = patch_status(client, self.key, change.patch.clone()).await?;
        let object = Arc::make_mut(&mut current);
        object.status = Some(change.over(object.status.as_ref()));
        object.metadata.resource_version = version;
        tell(client, object, &self.context.identity, &change.events, now).await;
        Ok(())
    }

    /// What is to be remembered for the next pass.
    pub fn into_said(self) -> Option<Said> {
        let current = self.current.into_inner();
        Some(Said {
            uid: current.metadata.uid.clone(),
            version: current.metadata.resource_version.clone(),
            status: current.status.clone()?,
        })
    }
}

impl Said {
    /// Whether the watch has not shown this write yet. Versions of one object rise as numbers; one
    /// that is no number is taken for new.
    fn is_ahead_of(&self, seen: &WebhookSubscription) -> bool {
        self.uid == seen.metadata.uid
            && self
                .with_version_of(seen)
                .is_some_and(|(said, seen)| seen < said)
    }

    /// Whether the watch shows another status than was written last: somebody else's write, or one
    /// of our own that was given up and took effect all the same.
    pub fn is_overwritten_in(&self, seen: &WebhookSubscription) -> bool {
        self.uid == seen.metadata.uid
            && self
                .with_version_of(seen)
                .is_some_and(|(said, seen)| seen > said)
            && seen.status.as_ref() != Some(&self.status)
    }

    fn with_version_of(&self, seen: &WebhookSubscription) -> Option<(u64, u64)> {
        let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
        number(&self.version).zip(number(&seen.metadata.resource_version))
    }
}
