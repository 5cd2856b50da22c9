//! Last step: what the pass found becomes the status. Pure.
//!
//! Owns: the status and whether it is worth a patch: only if it differs by more than time. Never
//! here: IO; a value that moves by itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use serde_json::{Map, Value, json};

use super::reach::{found_before, probes};
use super::receivers::{Heard, Numbers};
use super::rotate::Gaps;
use crate::api::condition::{ConditionEvent, merge, summary};
use crate::api::v1alpha1::{
    Acknowledged, RulePhase, RuleStatus, WebhookSubscription, WebhookSubscriptionStatus,
};
use crate::api::{Condition, ConditionStatus, ConditionType, NotificationType, Reason};
use crate::registration::Phase;
use crate::registration::conflict::Rival;
use crate::registration::report::{Reason as RuleReason, Report, RuleReport, registered};

/// What a pass found out. What it did not look at stays as it was.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Each condition that was found, other than those that sum up.
    pub conditions: Vec<Condition>,
    /// The rules, when they were looked at.
    pub rules: Option<Vec<RuleStatus>>,
    /// `7/7`, when the rules were looked at.
    pub registered: Option<String>,
    /// `bellhop.dev/reconcile-at`, when it was acted on.
    pub reconcile_at: Option<String>,
    /// `bellhop.dev/rotate-keys`, when it was acted on.
    pub rotate_keys: Option<String>,
    /// What the receivers came to, when they were looked at.
    pub heard: Option<Heard>,
    /// What moves by itself, when it may be written.
    pub numbers: Option<Numbers>,
    /// What happened beside the conditions' changes; told only with a change of the status.
    pub events: Vec<ConditionEvent>,
}

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The merge patch of `status`.
    pub patch: Value,
    /// What deserves an Event.
    pub events: Vec<ConditionEvent>,
}

impl Change {
    /// The status after the patch, as the API server makes it.
    #[allow(
        clippy::missing_panics_doc,
        reason = "a status is JSON, and its own parts are one"
    )]
    pub fn over(&self, old: Option<&WebhookSubscriptionStatus>) -> WebhookSubscriptionStatus {
        let mut status =
            serde_json::to_value(old.cloned().unwrap_or_default()).expect("a status is JSON");
        json_patch::merge(&mut status, &self.patch);
        serde_json::from_value(status).expect("its own parts, put together")
    }
}

impl Findings {
    /// Findings of a spec that is accepted. `heard`: what its receivers came to.
    pub fn accepted(subscription: &WebhookSubscription, heard: Heard) -> Self {
        let registration = &subscription.spec.registration;
        let reachable = if probes(registration.mode, registration.reachability) {
            Condition::of(found_before(subscription).unwrap_or(Reason::ProbePending))
        } else {
            Condition::of(Reason::ProbeOff)
        };
        let kind = ConditionType::ReceiverAvailable;
        let status = subscription.status.as_ref();
        let said = status.and_then(|status| status.condition(kind));
        let mut findings = Self::default()
            .with(Condition::new(
                ConditionType::Accepted,
                true,
                Reason::SpecValid,
            ))
            .with(reachable);
        if heard == Heard::Nothing && said.is_none() {
            // Before the first one: none is ready.
            let kind = ConditionType::Delivering;
            let (none, unknown) = (Reason::ReceiverNotReady, ConditionStatus::Unknown);
            findings = findings
                .with(Condition::of(none))
                .with(Condition::new(kind, unknown, none));
        }
        findings.with_heard(heard)
    }

    /// Adds what the receivers came to.
    #[must_use]
    pub fn with_heard(mut self, heard: Heard) -> Self {
        match &heard {
            Heard::NotManaged => {
                let unknown = ConditionStatus::Unknown;
                let none = Reason::ReceiverNotManaged;
                for kind in [ConditionType::ReceiverAvailable, ConditionType::Delivering] {
                    self = self.with(Condition::new(kind, unknown, none));
                }
            }
            Heard::Nothing => {}
            Heard::Found(found) => {
                for condition in &found.conditions {
                    self = self.with(condition.clone());
                }
            }
        }
        self.heard = Some(heard);
        self
    }

    /// Adds a condition, or puts it in the place of the one of its type.
    #[must_use]
    pub fn with(mut self, condition: Condition) -> Self {
        self.conditions.retain(|one| one.kind != condition.kind);
        self.conditions.push(condition);
        self
    }

    /// Why a condition is as it was found.
    pub fn reason(&self, kind: ConditionType) -> Option<Reason> {
        let found = self.conditions.iter().find(|one| one.kind == kind);
        found.map(|found| found.reason)
    }

    /// Adds what registration says. `claimed`: wanted types that others have, and who.
    #[must_use]
    pub fn with_report(
        mut self,
        report: &Report,
        claimed: &BTreeMap<NotificationType, Rival>,
    ) -> Self {
        let credentials = match report.credentials_valid {
            Some(true) => Some((true.into(), Reason::CredentialsAccepted)),
            Some(false) => Some((ConditionStatus::False, Reason::Unauthorized)),
            // Nothing was heard: what was known before still is the best that is known.
            None => None,
        };
        if let Some((status, reason)) = credentials {
            let kind = ConditionType::CredentialsValid;
            self = self.with(Condition::new(kind, status, reason));
        }
        let mut verdict = registered(Some(report));
        if !claimed.is_empty() && verdict.reason != Reason::Unauthorized {
            let who: Vec<String> = claimed
                .iter()
                .map(|(kind, rival)| format!("{kind} ({rival})"))
                .collect();
            let kind = ConditionType::Registered;
            verdict =
                Condition::new(kind, false, Reason::TypeClaimedElsewhere).about(&who.join(", "));
        }
        self = self.with(verdict);
        let mut rules: Vec<RuleStatus> = report
            .rules
            .iter()
            .filter(|(_, rule)| rule.phase != Phase::Removed)
            .map(|(kind, rule)| status_of(*kind, rule))
            .collect();
        rules.extend(claimed.keys().map(|kind| RuleStatus {
            kind: *kind,
            phase: RulePhase::Foreign,
            url: None,
            key_fingerprint: None,
        }));
        rules.sort_by_key(|rule| rule.kind);
        self.rules = Some(rules);
        let wanted = report.wanted + claimed.len();
        self.registered = Some(format!("{}/{wanted}", report.in_place));
        self
    }

    /// A rotation is through, and for so long each type had no live rule. An Event says so in any
    /// case, the condition if nothing is more pressing.
    #[must_use]
    pub fn with_rotation(mut self, gaps: &Gaps) -> Self {
        let reason = Reason::KeysRotated;
        let mut condition = Condition::of(reason);
        if !gaps.is_empty() {
            let gaps: Vec<String> = gaps
                .iter()
                .map(|(kind, gap)| format!("{kind} for {} ms", gap.as_millis()))
                .collect();
            condition = condition.about(&format!("without a live rule were {}", gaps.join(", ")));
        }
        self.events
            .extend(reason.event().map(|type_| ConditionEvent {
                type_,
                reason,
                action: condition.kind,
                note: condition.message.clone(),
            }));
        if self.reason(ConditionType::Registered) == Some(Reason::RulesInPlace) {
            self = self.with(condition);
        }
        self
    }

    /// What the status says of the last rotation stays until there is something else to say.
    #[must_use]
    pub fn with_last_rotation(self, subscription: &WebhookSubscription) -> Self {
        if self.reason(ConditionType::Registered) != Some(Reason::RulesInPlace) {
            return self;
        }
        let status = subscription.status.as_ref();
        let conditions = status.into_iter().flat_map(|status| &status.conditions);
        let mut said = conditions.filter_map(known);
        match said.find(|said| said.reason == Reason::KeysRotated) {
            Some(said) if said.kind == ConditionType::Registered => self.with(said),
            _ => self,
        }
    }

    /// What differs from the object's status; `None`: nothing but time.
    pub fn change(&self, subscription: &WebhookSubscription, now: Timestamp) -> Option<Change> {
        let empty = WebhookSubscriptionStatus::default();
        let old = subscription.status.as_ref().unwrap_or(&empty);
        let generation = subscription.metadata.generation.unwrap_or_default();
        let mut patch = Map::new();
        let mut events = Vec::new();
        // What was not looked at now stays as it is, of the generation that it was found for; what
        // would go by not being named is named.
        let found = |one: &Condition| self.reason(one.kind).is_some();
        let mut all = summary(self.with_kept(old));
        all.retain(|one| found(one) || one.kind.is_summary() || one.kind.only_while_true());
        if let Some(merged) = merge(&old.conditions, &all, generation, now) {
            patch.insert("conditions".to_owned(), json!(merged.conditions));
            events = merged.events;
        }
        if old.observed_generation != generation {
            patch.insert("observedGeneration".to_owned(), json!(generation));
        }
        if let Some(rules) = self.rules.as_ref().filter(|rules| **rules != old.rules) {
            patch.insert("rules".to_owned(), json!(rules));
        }
        if self.registered.is_some() && self.registered != old.registered {
            patch.insert("registered".to_owned(), json!(self.registered));
        }
        self.receivers(old, &mut patch);
        let acknowledged = self.acknowledged(old);
        if acknowledged != old.acknowledged {
            patch.insert("acknowledged".to_owned(), json!(acknowledged));
        }
        if patch.is_empty() {
            return None;
        }
        let told = |new: &&ConditionEvent| !events.iter().any(|one| one.reason == new.reason);
        let others: Vec<ConditionEvent> = self.events.iter().filter(told).cloned().collect();
        events.extend(others);
        Some(Change {
            patch: Value::Object(patch),
            events,
        })
    }

    /// Pods and numbers. Without receivers there is nothing to say of them.
    fn receivers(&self, old: &WebhookSubscriptionStatus, patch: &mut Map<String, Value>) {
        let mut put = |name: &str, differs: bool, value: Value| {
            if differs {
                patch.insert(name.to_owned(), value);
            }
        };
        match &self.heard {
            Some(Heard::Found(found)) => {
                let counts = Some(found.counts);
                put("receivers", counts != old.receivers, json!(counts));
            }
            Some(Heard::NotManaged) => {
                put("receivers", old.receivers.is_some(), Value::Null);
                put("backlog", old.backlog.is_some(), Value::Null);
                let time = &old.last_notification_time;
                put("lastNotificationTime", time.is_some(), Value::Null);
            }
            Some(Heard::Nothing) | None => {}
        }
        if let Some(numbers) = &self.numbers {
            let (backlog, time) = (numbers.backlog, &numbers.last_notification_time);
            let other = backlog.is_some() && backlog != old.backlog;
            put("backlog", other, json!(backlog));
            let other = time.is_some() && *time != old.last_notification_time;
            put("lastNotificationTime", other, json!(time));
        }
    }

    /// What was found, and of the rest what was known before: the summary is about all of it.
    fn with_kept(&self, old: &WebhookSubscriptionStatus) -> Vec<Condition> {
        let mut parts = self.conditions.clone();
        // Of what is there only while it is true, receivers are the ones who know.
        let asked = !matches!(self.heard, Some(Heard::Nothing) | None);
        for before in &old.conditions {
            if let Some(kept) = known(before)
                && !kept.kind.is_summary()
                && !(kept.kind.only_while_true() && asked)
                && !parts.iter().any(|part| part.kind == kept.kind)
            {
                parts.push(kept);
            }
        }
        parts
    }

    fn acknowledged(&self, old: &WebhookSubscriptionStatus) -> Option<Acknowledged> {
        let mut all = old.acknowledged.clone().unwrap_or_default();
        if let Some(value) = &self.reconcile_at {
            all.reconcile_at = Some(value.clone());
        }
        if let Some(value) = &self.rotate_keys {
            all.rotate_keys = Some(value.clone());
        }
        (all != Acknowledged::default()).then_some(all)
    }
}

/// The status of an object that this version cannot read. `why` names the field.
pub fn undecodable(metadata: &ObjectMeta, why: &str, now: Timestamp) -> Value {
    let about = format!("this version of Bellhop cannot read the object ({why})");
    let invalid = Condition::new(ConditionType::Accepted, false, Reason::Invalid).about(&about);
    let generation = metadata.generation.unwrap_or_default();
    let merged = merge(&[], &summary(vec![invalid]), generation, now);
    json!({
        "observedGeneration": generation,
        "conditions": merged.map(|merged| merged.conditions).unwrap_or_default(),
    })
}

/// A condition of the resource in our own words; `None` for one of another version.
fn known(
    condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition,
) -> Option<Condition> {
    let kind = ConditionType::ALL
        .into_iter()
        .find(|kind| kind.as_str() == condition.type_)?;
    let reason = Reason::ALL
        .iter()
        .copied()
        .find(|reason| reason.as_str() == condition.reason)?;
    let status = match condition.status.as_str() {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    };
    Some(Condition {
        kind,
        status,
        reason,
        message: condition.message.clone(),
    })
}

fn status_of(kind: NotificationType, rule: &RuleReport) -> RuleStatus {
    // Whatever is wrong with a rule or to be done about it, it is what it was seen to be.
    let seen = match rule.enabled {
        Some(true) => RulePhase::Enabled,
        Some(false) => RulePhase::Created,
        None => RulePhase::Missing,
    };
    let phase = match (rule.phase, rule.reason) {
        (_, RuleReason::RuleOwnedElsewhere) => RulePhase::Foreign,
        (_, RuleReason::UnsupportedType) => RulePhase::Unsupported,
        // Only a stranger's rule is waited with before there is one of ours.
        (_, RuleReason::AwaitingReachability) if rule.enabled.is_none() => RulePhase::Foreign,
        (Phase::Registered, _) => RulePhase::Enabled,
        (Phase::Disabled, _) => RulePhase::Disabled,
        (Phase::Unknown, _) => RulePhase::Unknown,
        (Phase::Pending | Phase::Blocked | Phase::Removed, _) => seen,
    };
    RuleStatus {
        kind,
        phase,
        url: rule.url.clone(),
        key_fingerprint: rule.key_fingerprint.clone(),
    }
}

#[cfg(test)]
mod tests;
