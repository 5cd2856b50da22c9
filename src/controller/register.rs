//! The pass at the provider: which credentials, which types, and then the executor.
//!
//! Owns: the order that makes every call safe to break: the credentials' copy before the first
//! rule, the look at whose rules are there before a contested type is touched, the note of a
//! rotation before the first delete.
//!
//! Never here: a status; a rule of another owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Context;
use super::fleet::Key;
use super::owned::{Content, Rotation};
use super::session::{Line, RECONCILE_AT, ROTATE_KEYS, Session};
use super::status::Findings;
use super::teller::Teller;
use super::validate::{Checked, account};
use super::vault::Vault;
use crate::api::v1alpha1::WebhookSubscription;
use crate::api::{Condition, ConditionStatus, ConditionType, NotificationType, Owner, Reason};
use crate::provider::{Registry as _, RegistryError};
use crate::registration::conflict::{Rival, Verdict};
use crate::registration::{DeletionPolicy, DesiredRules, Mode, Report};
use crate::secrets::Credentials;
use kube::ResourceExt as _;

/// How long a write that another operator began may still take effect.
const LATE: Duration = Duration::from_secs(30);

/// What a pass came to.
pub struct Outcome {
    /// What to say.
    pub findings: Findings,
    /// Try again soon, not before this time.
    pub retry: Option<Duration>,
    /// Look again after this time, if the interval is not over before.
    pub again: Option<Duration>,
}

impl Outcome {
    fn settled(findings: Findings) -> Self {
        Self {
            findings,
            retry: None,
            again: None,
        }
    }

    fn trouble(findings: Findings) -> Self {
        Self {
            findings,
            retry: Some(Duration::ZERO),
            again: None,
        }
    }
}

/// What the user's credentials are, compared with the copy that the rules were made with.
enum Standing {
    /// Use them.
    Good,
    /// They belong to an account that has none of our rules, and nobody has said that it is meant.
    OtherAccount,
    /// They cannot be judged now.
    Unclear(RegistryError),
}

/// One pass.
pub struct Pass<'a> {
    /// The whole.
    pub context: &'a Context,
    /// Which subscription.
    pub key: &'a Key,
    /// Its newest version.
    pub subscription: &'a Arc<WebhookSubscription>,
    /// What is wanted, checked.
    pub checked: Checked,
    /// The owned Secret, just read.
    pub vault: Arc<Vault>,
    /// Says how far it came.
    pub teller: &'a Teller<'a>,
    /// Another operator's write may still be on its way.
    pub unfinished: bool,
}

impl Pass<'_> {
    /// Does it.
    ///
    /// # Errors
    /// When the API server does not take a write of ours.
    pub async fn run(self, session: &mut Session) -> Result<Outcome, kube::Error> {
        let findings = Findings::accepted(self.subscription);
        let manages = self.checked.desired.mode == Mode::Manage;
        let content = self.vault.content().await;
        let account = self.checked.account.clone();
        let line = match session.line(self.context, account, &self.checked.live, &self.vault) {
            Ok(line) => line,
            Err(problem) => return Ok(Outcome::settled(no_credentials(findings, &problem))),
        };
        if let Some(copy) = content.credentials.as_ref()
            && *copy != self.checked.live
        {
            match self.standing(line, &content).await {
                Standing::Good => {}
                Standing::OtherAccount if manages && self.told_to_move() => {
                    if let Some(stays) = self.leave(copy, findings.clone()).await {
                        return Ok(stays);
                    }
                }
                Standing::OtherAccount => {
                    let valid = ConditionType::CredentialsValid;
                    let valid = Condition::new(valid, true, Reason::CredentialsAccepted);
                    let kind = ConditionType::Registered;
                    let changed = Condition::new(kind, false, Reason::ChannelChanged);
                    return Ok(Outcome::settled(findings.with(valid).with(changed)));
                }
                Standing::Unclear(error) => return Ok(unclear(findings, &error)),
            }
        }
        if manages {
            // Before the first rule: whoever removes the rules needs what they were made with.
            let credentials = self.checked.live.clone();
            self.vault
                .change(|content| {
                    let new = content.credentials.as_ref() != Some(&credentials);
                    content.credentials = Some(credentials);
                    new
                })
                .await?;
        }
        let verdict = self.contest(line).await;
        if let Some(rival) = verdict
            .as_ref()
            .and_then(|verdict| verdict.url.as_ref().err())
        {
            let kind = ConditionType::Accepted;
            let in_use = Condition::new(kind, false, Reason::UrlInUse).about(&rival.to_string());
            return Ok(Outcome::settled(findings.with(in_use)));
        }
        let claimed = claimed(verdict);
        let mut desired = self.checked.desired.clone();
        desired.rules.retain(|kind, _| !claimed.contains_key(kind));

        let mut findings = findings;
        let rotated = self.rotate(line, &desired, &content).await?;
        let stopped = matches!(rotated, Rotated::Stopped(_));
        let report = match rotated {
            Rotated::Stopped(report) => report,
            Rotated::Done(asked) => {
                findings.rotate_keys = asked;
                self.carry_out(line, &desired, claimed.len()).await
            }
        };
        self.tell_fleet(line);
        let again = self.finish(session, &report).await?;
        findings.reconcile_at = self.annotation(RECONCILE_AT);
        let retry =
            (stopped || report.should_retry()).then(|| report.retry_after.unwrap_or_default());
        findings = findings.with_report(&report, desired.mode, &claimed);
        if stopped && report.is_complete() {
            let kind = ConditionType::Registered;
            findings = findings.with(Condition::new(kind, false, Reason::RotatingKeys));
        }
        Ok(Outcome {
            findings,
            retry,
            again,
        })
    }

    fn annotation(&self, name: &str) -> Option<String> {
        self.subscription.annotations().get(name).cloned()
    }

    /// A new value of `reconcile-at` is the word that a new account is meant.
    fn told_to_move(&self) -> bool {
        let told = self.annotation(RECONCILE_AT);
        let status = self.subscription.status.as_ref();
        let acknowledged = status.and_then(|status| status.acknowledged.as_ref());
        let before = acknowledged.and_then(|known| known.reconcile_at.clone());
        told.is_some() && told != before
    }

    /// Judges credentials that are not those of the copy, with reads only.
    async fn standing(&self, line: &Line, content: &Content) -> Standing {
        let copy = content.credentials.as_ref();
        let other = copy.is_some_and(|copy| copy.api_key != self.checked.live.api_key);
        let owner = &self.checked.desired.owner;
        // The types that have a key were registered; of another secret for the same key one
        // answer is enough to know that it works.
        let mut kinds: Vec<NotificationType> = content.keys.keys().copied().collect();
        if kinds.is_empty() || !other {
            kinds = vec![NotificationType::ChannelBinding];
        }
        let registered = !content.keys.is_empty();
        for kind in kinds {
            match line.registry.get(kind).await {
                Ok(Some(rule)) if owner.owns(&rule.url) => return Standing::Good,
                Ok(_) | Err(RegistryError::UnsupportedType { .. }) => {}
                Err(error) => return Standing::Unclear(error),
            }
        }
        if other && registered {
            Standing::OtherAccount
        } else {
            Standing::Good
        }
    }

    /// Takes our rules out of the account that is left. `Some`: not all are gone yet.
    async fn leave(&self, copy: &Credentials, findings: Findings) -> Option<Outcome> {
        let environment = self.subscription.spec.environment;
        let old = account(environment, copy);
        let line = match Line::new(self.context, old, copy, &self.vault) {
            Ok(line) => line,
            Err(problem) => return Some(Outcome::settled(no_credentials(findings, &problem))),
        };
        let owner: Owner = self.checked.desired.owner.clone();
        let report = line
            .executor
            .deregister(owner, DeletionPolicy::Delete)
            .await;
        self.context.ask_all(
            self.context
                .fleet
                .saw(&line.account, line.registry.take_seen()),
        );
        // Refused credentials are no reason to stay: nobody can remove those rules with them.
        if report.is_complete() || report.credentials_valid == Some(false) {
            tracing::info!("left the account that its old credentials belong to");
            return None;
        }
        let none = BTreeMap::new();
        Some(Outcome::trouble(findings.with_report(
            &report,
            Mode::Manage,
            &none,
        )))
    }

    /// Enters the contest for URL and types. Where others use the same account, whose rules are
    /// there is looked at first: who has one keeps it.
    async fn contest(&self, line: &Line) -> Option<Verdict> {
        let fleet = &self.context.fleet;
        self.context
            .ask_all(fleet.set_account(self.key, &line.account));
        if fleet.shares_account(self.key, &line.account) {
            for kind in self.checked.desired.rules.keys() {
                // What cannot be read stays as it was known; the executor will say so.
                let _ = line.registry.get(*kind).await;
            }
            self.tell_fleet(line);
        }
        fleet.verdict(self.key)
    }

    fn tell_fleet(&self, line: &Line) {
        let seen = line.registry.take_seen();
        let concerned = self.context.fleet.saw(&line.account, seen);
        self.context
            .ask_all(concerned.into_iter().filter(|key| key != self.key));
    }

    /// Makes each rule anew, one type at a time, when that was asked for. What is to be replaced is
    /// written down first, so that a rotation that is broken off goes on and does nothing twice.
    async fn rotate(
        &self,
        line: &Line,
        desired: &DesiredRules,
        content: &Content,
    ) -> Result<Rotated, kube::Error> {
        let status = self.subscription.status.as_ref();
        let acknowledged = status.and_then(|status| status.acknowledged.as_ref());
        let before = acknowledged.and_then(|known| known.rotate_keys.clone());
        let asked = self.annotation(ROTATE_KEYS);
        let Some(asked) = asked.filter(|asked| Some(asked) != before.as_ref()) else {
            // Acknowledged, so the note has done its work.
            self.vault
                .change(|content| content.rotation.take().is_some())
                .await?;
            return Ok(Rotated::Done(None));
        };
        if desired.mode == Mode::Observe {
            return Ok(Rotated::Done(None));
        }
        let going_on = content.rotation.clone();
        let rotation = match going_on.filter(|rotation| rotation.asked == asked) {
            Some(rotation) => rotation,
            None => self.note_rotation(asked.clone()).await?,
        };
        for (kind, replaces) in &rotation.replaces {
            if !desired.rules.contains_key(kind) {
                continue;
            }
            if let Err(report) = self.rotate_one(line, desired, *kind, replaces).await {
                return Ok(Rotated::Stopped(report));
            }
        }
        Ok(Rotated::Done(Some(asked)))
    }

    async fn note_rotation(&self, asked: String) -> Result<Rotation, kube::Error> {
        let mut noted = Rotation {
            asked,
            replaces: BTreeMap::new(),
        };
        self.vault
            .change(|content| {
                noted.replaces = content
                    .keys
                    .iter()
                    .map(|(kind, keys)| (*kind, keys.current.fingerprint().to_string()))
                    .collect();
                content.rotation = Some(noted.clone());
                true
            })
            .await?;
        Ok(noted)
    }

    /// One type: the rule with the old key goes, and comes back with a new one at once.
    async fn rotate_one(
        &self,
        line: &Line,
        desired: &DesiredRules,
        kind: NotificationType,
        replaces: &str,
    ) -> Result<(), Report> {
        let Ok(rule) = line.registry.get(kind).await else {
            // The executor meets the same and words it.
            return Err(line.executor.reconcile(desired).await);
        };
        let begun = Instant::now();
        match &rule {
            Some(rule) if !desired.owner.owns(&rule.url) => return Ok(()),
            Some(rule) => {
                let key = rule.security_key.as_ref();
                let key = key.map(|key| key.fingerprint().to_string());
                if key.is_some_and(|key| key != replaces) {
                    return Ok(());
                }
                if line.registry.delete(kind).await.is_err() {
                    return Err(line.executor.reconcile(desired).await);
                }
            }
            // Deleted by a pass that ended there.
            None => {}
        }
        let report = line.executor.reconcile_types(desired, &[kind]).await;
        if !report.is_complete() {
            return Err(line.executor.reconcile(desired).await);
        }
        let gap = begun.elapsed();
        self.context.metrics.rotated(gap);
        tracing::info!(%kind, gap_milliseconds = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX), "the rule was made anew with another key; its type is compared in full");
        Ok(())
    }

    /// The executor's pass. A first registration says how far it came, rule by rule, for whoever
    /// watches.
    async fn carry_out(&self, line: &Line, desired: &DesiredRules, claimed: usize) -> Report {
        let work = line.executor.reconcile(desired);
        let status = self.subscription.status.as_ref();
        let known = status.is_some_and(|status| !status.rules.is_empty());
        if known || desired.mode == Mode::Observe || desired.suspend {
            return work.await;
        }
        let mut enabled = line.registry.enabled();
        let before = *enabled.borrow_and_update();
        self.tell_progress(0, desired.rules.len() + claimed).await;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                report = &mut work => return report,
                Ok(()) = enabled.changed() => {
                    let done = *enabled.borrow_and_update() - before;
                    self.tell_progress(done, desired.rules.len() + claimed).await;
                }
            }
        }
    }

    /// A courtesy: the status after the pass matters.
    async fn tell_progress(&self, done: usize, wanted: usize) {
        let kind = ConditionType::Registered;
        let pending = Condition::new(kind, false, Reason::RegistrationPending);
        let mut findings = Findings::accepted(self.subscription).with(pending);
        findings.registered = Some(format!("{done}/{wanted}"));
        if let Err(error) = self.teller.say(&findings).await {
            tracing::info!(%error, "how far the registration came could not be said");
        }
    }

    /// The last writes of the pass, and when the next thing is due.
    async fn finish(
        &self,
        session: &mut Session,
        report: &Report,
    ) -> Result<Option<Duration>, kube::Error> {
        let clock = &self.context.clock;
        let mut again = None;
        let mut done = !report.should_retry();
        if self.unfinished {
            // Another operator's write may land after our look: look once more when it no longer
            // can, and keep the note until then.
            let now = clock.ticks();
            let until = *session.late_until.get_or_insert_with(|| now.after(LATE));
            if now < until {
                again = Some(until.since(now));
                done = false;
            }
        }
        let now = clock.now();
        self.vault
            .change(|content| {
                let dropped = content.drop_expired(now);
                let cleared = done && content.pending.take().is_some();
                dropped || cleared
            })
            .await?;
        if done {
            session.late_until = None;
            self.context.fleet.finished(self.key);
        }
        let expiry = self.vault.content().await.next_expiry();
        let expiry = expiry.map(|end| end.since(now) + Duration::from_secs(1));
        Ok(again.into_iter().chain(expiry).min())
    }
}

enum Rotated {
    /// Nothing (more) to rotate; the value to acknowledge.
    Done(Option<String>),
    /// The provider stood in the way: what it looks like there.
    Stopped(Report),
}

fn claimed(verdict: Option<Verdict>) -> BTreeMap<NotificationType, Rival> {
    let types = verdict.map(|verdict| verdict.types).unwrap_or_default();
    let rivals = types.into_iter();
    rivals
        .filter_map(|(kind, verdict)| Some((kind, verdict.err()?)))
        .collect()
}

fn no_credentials(findings: Findings, problem: &str) -> Findings {
    let kind = ConditionType::CredentialsValid;
    findings.with(Condition::new(kind, false, Reason::SecretMissing).about(problem))
}

/// The registry gave no answer that tells whose account it is.
fn unclear(findings: Findings, error: &RegistryError) -> Outcome {
    let (kind, unknown) = (ConditionType::CredentialsValid, ConditionStatus::Unknown);
    let condition = match error {
        RegistryError::Unauthorized { .. } => Condition::new(kind, false, Reason::Unauthorized),
        error => {
            Condition::new(kind, unknown, Reason::ProviderUnavailable).about(&error.to_string())
        }
    };
    Outcome::trouble(findings.with(condition))
}
