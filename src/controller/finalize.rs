//! Deletion: the rules go first, verified; then the owned Secret; then our finalizer.
//!
//! Owns: which credentials are tried (the user's, else the copy; both when they are of different
//! accounts), and when an object may go although rules remain: only as `deletionPolicy: Retain`
//! says, or when there never was a rule.
//!
//! Never here: a creation, which a namespace that is going would refuse; a finalizer taken off
//! while a rule of ours may be live and nobody has said that it may stay (`mode: Observe` says so:
//! nothing is written at the provider).

use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use super::Context;
use super::apply::{remove_finalizer, remove_secret};
use super::dereference::Dereferenced;
use super::fleet::Key;
use super::owned::is_owned;
use super::session::Line;
use super::status::Findings;
use super::validate::{account, credentials};
use super::vault::Vault;
use crate::api::v1alpha1::WebhookSubscription;
use crate::api::{Condition, ConditionType, Reason};
use crate::registration::report::{Reason as RuleReason, Report};
use crate::registration::{DeletionPolicy, Mode};
use crate::secrets::Credentials;

/// How long a deletion with `Retain` tries to disable the rules before it leaves them as they are.
const RETAIN_PATIENCE: Duration = Duration::from_mins(2);

/// How far a deletion came.
pub enum Deleted {
    /// Nothing is left to do.
    Done,
    /// Something stands in the way.
    Waits {
        /// What to say.
        findings: Box<Findings>,
        /// Not before this time.
        at_least: Duration,
    },
}

/// One try.
pub struct Deletion<'a> {
    /// The whole.
    pub context: &'a Context,
    /// Which subscription.
    pub key: &'a Key,
    /// Its newest version.
    pub subscription: &'a Arc<WebhookSubscription>,
    /// The Secrets.
    pub read: &'a Dereferenced,
    /// The owned one.
    pub vault: Arc<Vault>,
}

impl Deletion<'_> {
    /// Does it.
    ///
    /// # Errors
    /// When the API server does not take a write of ours.
    pub async fn run(self) -> Result<Deleted, kube::Error> {
        if self.subscription.spec.registration.mode == Mode::Manage {
            if let Some(waits) = self.deregister().await {
                return Ok(waits);
            }
        } else if self.has_registered() {
            tracing::warn!(
                "it is deleted with mode: Observe, in which nothing is written at the provider: its rules stay as they are there"
            );
        }
        release(&self.context.client, self.key, self.subscription, self.read).await?;
        self.vault.removed();
        Ok(Deleted::Done)
    }

    /// `Some`: rules may be left, and the object must stay.
    async fn deregister(&self) -> Option<Deleted> {
        let copy = self.vault.content().await.credentials;
        let live = credentials(self.subscription, self.read.credentials.as_ref()).ok();
        let lines: Vec<Line> = self.lines(live, copy);
        let mut reports = Vec::new();
        for line in &lines {
            let owner = self.context.fleet.owner(self.key);
            let report = line.executor.deregister(owner, self.policy()).await;
            self.context.ask_all(
                self.context
                    .fleet
                    .saw(&line.account, line.registry.take_seen()),
            );
            let complete = report.is_complete();
            reports.push((line.account.clone(), report));
            // The same account once more would say the same.
            let next = lines.get(reports.len());
            if complete && next.is_none_or(|next| next.account == line.account) {
                break;
            }
        }
        self.judge(&reports)
    }

    fn policy(&self) -> DeletionPolicy {
        self.subscription.spec.registration.deletion_policy
    }

    /// The user's credentials first: a copy may be outdated.
    fn lines(&self, live: Option<Credentials>, copy: Option<Credentials>) -> Vec<Line> {
        let environment = self.subscription.spec.environment;
        let copy = copy.filter(|copy| Some(copy) != live.as_ref());
        live.into_iter()
            .chain(copy)
            .filter_map(|credentials| {
                let account = account(environment, &credentials);
                // A copy that no header can carry was never used.
                let gate = self.vault.clone();
                Line::new(self.context, account, &credentials, &self.vault, gate).ok()
            })
            .collect()
    }

    /// Whether the object may go after these looks.
    fn judge(
        &self,
        reports: &[(crate::registration::conflict::Account, Report)],
    ) -> Option<Deleted> {
        let refused = |report: &Report| report.credentials_valid == Some(false);
        let complete = reports.iter().any(|(_, report)| report.is_complete());
        // Refused credentials say nothing, if others of the same subscription were heard.
        let stuck = reports
            .iter()
            .map(|(_, report)| report)
            .find(|report| !(report.is_complete() || complete && refused(report)));
        let findings = match (stuck, reports.is_empty()) {
            (None, false) => return None,
            (None, true) if !self.has_registered() => return None,
            (None, true) => Self::blocked(
                Reason::SecretMissing,
                "there are no credentials left to remove the rules with; put the Secret back",
            ),
            (Some(report), _) if refused(report) => Self::blocked(
                Reason::Unauthorized,
                "the provider refuses the credentials; put valid ones into the Secret",
            ),
            (Some(report), _) => Self::waiting(report),
        };
        if self.policy() == DeletionPolicy::Retain && self.may_leave_rules(stuck) {
            tracing::warn!(
                "the rules could not be disabled and stay as they are, as deletionPolicy: Retain lets them"
            );
            return None;
        }
        let after = stuck.and_then(|report| report.retry_after);
        Some(Deleted::Waits {
            findings: Box::new(findings),
            at_least: after.unwrap_or_default(),
        })
    }

    /// With Retain the rules may stay anyway. Disabling them is tried for a while, unless nobody
    /// can: without credentials that are taken.
    fn may_leave_rules(&self, stuck: Option<&Report>) -> bool {
        let transient = stuck.is_some_and(|report| report.credentials_valid != Some(false));
        let since = self.subscription.metadata.deletion_timestamp.as_ref();
        let since = since.map(|time| time.0.as_millisecond());
        let waited = since.is_none_or(|since| {
            let since = crate::clock::UnixMillis(since);
            self.context.clock.now().since(since) >= RETAIN_PATIENCE
        });
        !transient || waited
    }

    /// Whether the status knows of a rule of ours.
    fn has_registered(&self) -> bool {
        let status = self.subscription.status.as_ref();
        let mut rules = status.into_iter().flat_map(|status| &status.rules);
        rules.any(|rule| rule.key_fingerprint.is_some())
    }

    fn blocked(reason: Reason, about: &str) -> Findings {
        let credentials = match reason {
            Reason::Unauthorized | Reason::SecretMissing => Some(Condition::new(
                ConditionType::CredentialsValid,
                false,
                reason,
            )),
            _ => None,
        };
        let kind = ConditionType::Registered;
        let registered = Condition::new(kind, false, Reason::DeletionBlocked).about(about);
        let findings = Findings::default().with(registered);
        credentials.into_iter().fold(findings, Findings::with)
    }

    fn waiting(report: &Report) -> Findings {
        let verdict = report.verdict();
        match verdict.reason {
            RuleReason::Removed | RuleReason::Retained => Findings::default().with(Condition::new(
                ConditionType::Registered,
                false,
                Reason::Deleting,
            )),
            _ => Self::blocked(Reason::DeletionBlocked, &verdict.message),
        }
    }
}

/// Lets go of the owned Secret and of the object, in this order: as long as the object is there,
/// somebody can see that something is left.
///
/// # Errors
/// What the API server said.
pub async fn release(
    client: &Client,
    key: &Key,
    subscription: &WebhookSubscription,
    read: &Dereferenced,
) -> Result<(), kube::Error> {
    if let Some(owned) = read
        .owned
        .as_ref()
        .filter(|found| is_owned(&found.metadata))
    {
        remove_secret(client, &key.namespace, &owned.metadata).await?;
    }
    remove_finalizer(client, key, &subscription.metadata).await
}
