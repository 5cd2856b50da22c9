//! The pass at the provider: which credentials, which types, and then the executor.
//!
//! Owns: the order that makes every call safe to break: the credentials' copy before the first
//! rule, the look at whose rules are there before a contested type is touched, a rotation
//! ([`super::rotate`]) before what else is to be done.
//!
//! Never here: a status; a rule of another owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::fleet::Key;
use super::gate::KeyGate;
use super::owned::Content;
use super::reach::{Looked, probes};
use super::receivers::Heard;
use super::rotate::Rotated;
use super::session::{Line, RECONCILE_AT, Session, annotation};
use super::status::Findings;
use super::teller::Teller;
use super::tend::{Task, Tended};
use super::validate::{Checked, account};
use super::vault::Vault;
use crate::api::v1alpha1::{RulePhase, WebhookSubscription};
use crate::api::{Condition, ConditionStatus, ConditionType, NotificationType, Owner, Reason};
use crate::provider::{Registry as _, RegistryError};
use crate::registration::conflict::{Rival, Verdict};
use crate::registration::probe::new_key;
use crate::registration::{DeletionPolicy, DesiredRules, Mode, Report};
use crate::secrets::{Credentials, Secret};

/// How often a pass that waits for receivers looks how they are.
const LOOK: Duration = Duration::from_secs(1);

/// How long a write that another operator began may still take effect.
const LATE: Duration = Duration::from_secs(30);

/// Why a pass is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Not before this time.
    pub at_least: Duration,
    /// In the words of the metric: who is in the way.
    pub reason: &'static str,
}

/// What a pass came to.
pub struct Outcome {
    /// What to say.
    pub findings: Findings,
    /// Try again soon.
    pub retry: Option<Retry>,
    /// Look again after this time, if the interval is not over before.
    pub again: Option<Duration>,
    /// The subscription has changed meanwhile: there is nothing to say, and work to do at once.
    pub superseded: bool,
}

impl Outcome {
    fn settled(findings: Findings) -> Self {
        Self {
            findings,
            retry: None,
            again: None,
            superseded: false,
        }
    }

    fn superseded() -> Self {
        Self {
            superseded: true,
            ..Self::settled(Findings::default())
        }
    }

    fn trouble(findings: Findings) -> Self {
        Self {
            findings,
            retry: Some(Retry {
                at_least: Duration::ZERO,
                reason: "registration",
            }),
            again: None,
            superseded: false,
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
        let findings = self.accepted();
        let manages = self.checked.desired.mode == Mode::Manage;
        let content = self.vault.content().await;
        let account = self.checked.account.clone();
        let gate = session.gate.clone();
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
                    self.keep_receivers(session).await?;
                    let valid = ConditionType::CredentialsValid;
                    let valid = Condition::new(valid, true, Reason::CredentialsAccepted);
                    let kind = ConditionType::Registered;
                    let changed = Condition::new(kind, false, Reason::ChannelChanged);
                    return Ok(Outcome::settled(findings.with(valid).with(changed)));
                }
                Standing::Unclear(error) => {
                    self.keep_receivers(session).await?;
                    return Ok(unclear(findings.with_heard(self.heard()), &error));
                }
            }
        }
        if manages {
            // Before the first rule: whoever removes the rules needs what they were made with.
            let credentials = self.checked.live.clone();
            let probe = self.probe_key(&content);
            let token = self.admin_token(&content);
            self.vault
                .change(|content| {
                    let new = content.credentials.as_ref() != Some(&credentials)
                        || content.probe != probe
                        || content.admin_token != token;
                    content.credentials = Some(credentials);
                    content.probe = probe;
                    content.admin_token = token;
                    new
                })
                .await?;
        }
        let looked = self.look().await;
        let findings = findings.with(Condition::of(looked.reason));
        let verdict = self.contest(line).await;
        if let Some(rival) = verdict
            .as_ref()
            .and_then(|verdict| verdict.url.as_ref().err())
        {
            let kind = ConditionType::Accepted;
            self.context.leave_objects(self.key, session);
            let in_use = Condition::new(kind, false, Reason::UrlInUse).about(&rival.to_string());
            return Ok(Outcome::settled(findings.with(in_use)));
        }
        let tended = self.tend(gate.as_deref()).await?;
        let findings = findings.with_heard(self.heard());
        let claimed = claimed(verdict);
        let mut desired = self.checked.desired.clone();
        desired.rules.retain(|kind, _| !claimed.contains_key(kind));
        if looked.holds {
            desired.hold = self.not_live(&desired, &content);
        }

        let mut findings = findings;
        let rotated = self.rotate(line, &mut desired, &content).await?;
        let stopped = matches!(rotated, Rotated::Stopped(_));
        let (report, gaps) = match rotated {
            Rotated::Stopped(report) => (report, None),
            Rotated::Done { asked, gaps } => {
                findings.rotate_keys = Some(asked);
                (
                    self.carry_out(line, &desired, claimed.len()).await,
                    Some(gaps),
                )
            }
            Rotated::NotAsked => (self.carry_out(line, &desired, claimed.len()).await, None),
        };
        self.tell_fleet(line);
        session.tended = tended.is_some();
        if !session.tended {
            // An observer, whose objects stay as they are.
            self.context.leave_objects(self.key, session);
        }
        let again = self.finish(session, &report).await?;
        if let Some(gate) = &gate {
            if gate.gave_up() {
                return Ok(Outcome::superseded());
            }
            // Numbers of resyncs were written last.
            gate.poke().await;
        }
        findings = findings.with_heard(self.heard());
        findings.reconcile_at = self.annotation(RECONCILE_AT);
        let reason = retry_reason(stopped, &report, tended);
        let retry = reason.map(|reason| Retry {
            at_least: report.retry_after.unwrap_or_default(),
            reason,
        });
        findings = findings.with_report(&report, &claimed);
        if stopped && report.is_as_far_as_it_may() {
            let kind = ConditionType::Registered;
            findings = findings.with(Condition::new(kind, false, Reason::RotatingKeys));
        }
        findings = match gaps {
            Some(gaps) => findings.with_rotation(&gaps),
            None => findings.with_last_rotation(self.subscription),
        };
        Ok(Outcome {
            findings,
            retry,
            again,
            superseded: false,
        })
    }

    fn accepted(&self) -> Findings {
        Findings::accepted(self.subscription, self.heard())
    }

    fn heard(&self) -> Heard {
        self.context.heard(self.key, self.subscription)
    }

    /// Whatever becomes of the account, notifications still come: the receivers follow the spec.
    async fn keep_receivers(&self, session: &mut Session) -> Result<(), kube::Error> {
        let gate = session.gate.clone();
        session.tended |= self.tend(gate.as_deref()).await?.is_some();
        Ok(())
    }

    /// The objects of its receivers; `None`: it has none.
    async fn tend(&self, gate: Option<&KeyGate>) -> Result<Option<Tended>, kube::Error> {
        let (Some(tender), Some(gate)) = (self.context.tender(self.subscription), gate) else {
            return Ok(None);
        };
        // Written at the first registration, before the objects.
        let Some(admin_token) = self.vault.content().await.admin_token else {
            return Ok(None);
        };
        let task = Task {
            client: &self.context.client,
            tender,
            key: self.key,
            subscription: self.subscription,
            admin_token,
            gate,
        };
        task.run().await.map(Some)
    }

    /// What its receivers' admin port is asked with: the one there is, or a new one.
    fn admin_token(&self, content: &Content) -> Option<Secret> {
        let manages = self.context.tender(self.subscription).is_some();
        let made = || new_key().ok().filter(|_| manages);
        content.admin_token.clone().or_else(made)
    }

    /// The key of the probe: the one there is, or a new one.
    fn probe_key(&self, content: &Content) -> Option<Secret> {
        let wanted = self.subscription.spec.registration.reachability;
        if !probes(self.checked.desired.mode, wanted) {
            return content.probe.clone();
        }
        // Without randomness there is no probe, which the condition then says.
        content.probe.clone().or_else(|| new_key().ok())
    }

    /// What is known of the URL.
    async fn look(&self) -> Looked {
        let reach = &self.context.reach;
        let probe = self.vault.content().await.probe;
        let desired = &self.checked.desired;
        let looked = reach.look(self.key, self.subscription, desired, probe.as_ref());
        if self.told_to_move() {
            reach.again(self.key);
        }
        looked
    }

    /// The types whose rules wait for the probe: those that were not live before. A rule that lost
    /// its place by drift or by a rotation comes back at once.
    fn not_live(&self, desired: &DesiredRules, content: &Content) -> BTreeSet<NotificationType> {
        let status = self.subscription.status.as_ref();
        let rules = status.map(|status| status.rules.as_slice());
        let enabled = |kind: NotificationType| {
            let mut rules = rules.unwrap_or_default().iter();
            rules.any(|rule| rule.kind == kind && rule.phase == RulePhase::Enabled)
        };
        let rotation = content.rotation.as_ref();
        let rotating = |kind| rotation.is_some_and(|rotation| rotation.begun.contains_key(&kind));
        let kinds = desired.rules.keys().copied();
        kinds
            .filter(|kind| !enabled(*kind) && !rotating(*kind))
            .collect()
    }

    pub(super) fn annotation(&self, name: &str) -> Option<String> {
        annotation(self.subscription, name)
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
        let gate = self.vault.clone();
        let line = match Line::new(self.context, old, copy, &self.vault, gate) {
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
        Some(Outcome::trouble(findings.with_report(&report, &none)))
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

    /// The executor's pass. A first registration says how far it came, rule by rule, for whoever
    /// watches; any says how the receivers come up that it waits for.
    async fn carry_out(&self, line: &Line, desired: &DesiredRules, claimed: usize) -> Report {
        let work = line.executor.reconcile(desired);
        let status = self.subscription.status.as_ref();
        let known = status.is_some_and(|status| !status.rules.is_empty());
        let first = !known && desired.mode != Mode::Observe && !desired.suspend;
        let mut enabled = line.registry.enabled();
        let before = *enabled.borrow_and_update();
        let mut done = 0;
        let wanted = desired.rules.len() + claimed;
        let mut told = self.heard();
        if first {
            self.tell_progress(Some((0, wanted))).await;
        }
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                report = &mut work => return report,
                Ok(()) = enabled.changed(), if first => {
                    done = *enabled.borrow_and_update() - before;
                    self.tell_progress(Some((done, wanted))).await;
                }
                () = self.context.clock.sleep(LOOK) => {
                    let heard = self.heard();
                    if heard != told {
                        told = heard;
                        self.tell_progress(first.then_some((done, wanted))).await;
                    }
                }
            }
        }
    }

    /// A courtesy: the status after the pass matters.
    async fn tell_progress(&self, registered: Option<(usize, usize)>) {
        let mut findings = Findings::default().with_heard(self.heard());
        if let Some((done, wanted)) = registered {
            let kind = ConditionType::Registered;
            let pending = Condition::new(kind, false, Reason::RegistrationPending);
            // There are some, or the pass would not have come here.
            let kind = ConditionType::CredentialsValid;
            let credentials = if done > 0 {
                Condition::new(kind, true, Reason::CredentialsAccepted)
            } else {
                Condition::new(kind, ConditionStatus::Unknown, Reason::CredentialsUnchecked)
            };
            findings = self.accepted().with(pending).with(credentials);
            findings.registered = Some(format!("{done}/{wanted}"));
        }
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

/// Who is in the way of what is still to be done; `None`: nobody.
fn retry_reason(stopped: bool, report: &Report, tended: Option<Tended>) -> Option<&'static str> {
    if tended == Some(Tended::Refused) {
        Some("objects")
    } else if report.waits_for_receivers() {
        Some("receivers")
    } else {
        (stopped || report.should_retry()).then_some("registration")
    }
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
