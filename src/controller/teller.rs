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
use crate::api::v1alpha1::WebhookSubscription;

/// What was written last: the object with that status and its version. Where the watch shows the
/// same, it is the watch's own object: thousands of them are kept once.
#[derive(Debug, Clone)]
pub struct Said(Arc<WebhookSubscription>);

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
            object.status.clone_from(&said.0.status);
            // With its version: a pass that says nothing must not make this write look older than
            // what the watch shows next.
            let version = &said.0.metadata.resource_version;
            object.metadata.resource_version.clone_from(version);
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
    pub fn into_said(self) -> Said {
        Said(self.current.into_inner())
    }
}

impl Said {
    /// Whether the watch has not shown this write yet. Versions of one object rise as numbers; one
    /// that is no number is taken for new.
    fn is_ahead_of(&self, seen: &WebhookSubscription) -> bool {
        let versions = self.with_version_of(seen);
        versions.is_some_and(|(said, seen)| seen < said)
    }

    /// Whether the watch shows another status than was written last: somebody else's write, or one
    /// of our own that was given up and took effect all the same.
    pub fn is_overwritten_in(&mut self, seen: &Arc<WebhookSubscription>) -> bool {
        let Some((said, now)) = self.with_version_of(seen).filter(|(said, now)| said <= now) else {
            return false;
        };
        let overwritten = said < now && seen.status != self.0.status;
        if !overwritten {
            self.0 = seen.clone();
        }
        overwritten
    }

    fn with_version_of(&self, seen: &WebhookSubscription) -> Option<(u64, u64)> {
        let metadata = &self.0.metadata;
        let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
        let versions =
            number(&metadata.resource_version).zip(number(&seen.metadata.resource_version));
        versions.filter(|_| metadata.uid == seen.metadata.uid)
    }
}
