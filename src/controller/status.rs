//! Last step: what the pass found becomes the status. Pure.
//!
//! Owns: the status and whether it is worth a patch: only if it differs by more than time. Never
//! here: IO; a value that moves by itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::reach::{found_before, probes};
use super::rotate::Gaps;
use crate::api::condition::{ConditionEvent, merge, summary};
use crate::api::v1alpha1::{
    Acknowledged, RulePhase, RuleStatus, WebhookSubscription, WebhookSubscriptionStatus,
};
use crate::api::{Condition, ConditionStatus, ConditionType, NotificationType, Reason};
use crate::registration::conflict::Rival;
use crate::registration::report::{Reason as RuleReason, Report, RuleReport, registered};
use crate::registration::{Mode, Phase};

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
    /// Findings of a spec that is accepted, by an operator that runs no receivers.
    pub fn accepted(subscription: &WebhookSubscription) -> Self {
        let registration = &subscription.spec.registration;
        let reachable = if probes(registration.mode, registration.reachability) {
            Condition::of(found_before(subscription).unwrap_or(Reason::ProbePending))
        } else {
            Condition::of(Reason::ProbeOff)
        };
        let unknown = |kind, reason| Condition::new(kind, ConditionStatus::Unknown, reason);
        Self::default()
            .with(Condition::new(
                ConditionType::Accepted,
                true,
                Reason::SpecValid,
            ))
            .with(unknown(
                ConditionType::ReceiverAvailable,
                Reason::ReceiverNotManaged,
            ))
            .with(reachable)
            .with(unknown(
                ConditionType::Delivering,
                Reason::ReceiverNotManaged,
            ))
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
        mode: Mode,
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
            .map(|(kind, rule)| status_of(*kind, rule, mode))
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
        let mut patch = serde_json::Map::new();
        let mut events = Vec::new();
        let parts = self.with_kept(old);
        if let Some(merged) = merge(&old.conditions, &summary(parts), generation, now) {
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

    /// What was found, and of the rest what was known before: the summary is about all of it.
    fn with_kept(&self, old: &WebhookSubscriptionStatus) -> Vec<Condition> {
        let mut parts = self.conditions.clone();
        for before in &old.conditions {
            if let Some(kept) = known(before)
                && !kept.kind.is_summary()
                && !kept.kind.only_while_true()
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

fn status_of(kind: NotificationType, rule: &RuleReport, mode: Mode) -> RuleStatus {
    let there = rule.key_fingerprint.is_some();
    let phase = match (rule.phase, rule.reason) {
        (_, RuleReason::RuleOwnedElsewhere) => RulePhase::Foreign,
        (_, RuleReason::UnsupportedType) => RulePhase::Unsupported,
        (Phase::Registered, _) => RulePhase::Enabled,
        (Phase::Disabled, _) => RulePhase::Disabled,
        (Phase::Pending, _) if mode == Mode::Observe && !there => RulePhase::Missing,
        (Phase::Pending, RuleReason::AwaitingReachability) if !there => RulePhase::Foreign,
        (Phase::Pending, _) => RulePhase::Created,
        (Phase::Blocked, _) if there => RulePhase::Created,
        (Phase::Blocked | Phase::Removed, _) => RulePhase::Missing,
        (Phase::Unknown, _) => RulePhase::Unknown,
    };
    RuleStatus {
        kind,
        phase,
        url: rule.url.clone(),
        key_fingerprint: rule.key_fingerprint.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::report::Changes;

    fn subscription(status: Option<WebhookSubscriptionStatus>) -> WebhookSubscription {
        let mut made: WebhookSubscription = serde_json::from_value(json!({
            "apiVersion": "bellhop.dev/v1alpha1",
            "kind": "WebhookSubscription",
            "metadata": { "name": "shop", "namespace": "ns", "generation": 3 },
            "spec": {
                "environment": "sandbox",
                "url": "https://hooks.example.com/r",
                "credentialsSecretRef": { "name": "keys" },
            },
        }))
        .expect("a subscription");
        made.status = status;
        made
    }

    fn rule(phase: Phase, reason: RuleReason, key: Option<&str>) -> RuleReport {
        RuleReport {
            phase,
            reason,
            message: "m".to_owned(),
            url: Some("https://hooks.example.com/r/rate".to_owned()),
            key_fingerprint: key.map(str::to_owned),
            changes: Changes::default(),
        }
    }

    fn report(rule: RuleReport, in_place: usize) -> Report {
        Report {
            rules: BTreeMap::from([(NotificationType::Rate, rule)]),
            wanted: 1,
            in_place,
            credentials_valid: Some(true),
            retry_after: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn patched(object: &WebhookSubscription, change: &Change) -> WebhookSubscription {
        let status = change.over(object.status.as_ref());
        WebhookSubscription {
            status: Some(status),
            ..object.clone()
        }
    }

    fn condition(object: &WebhookSubscription, kind: &str) -> Option<(String, String)> {
        let status = object.status.as_ref()?;
        let mut all = status.conditions.iter();
        let found = all.find(|condition| condition.type_ == kind)?;
        Some((found.status.clone(), found.reason.clone()))
    }

    #[allow(clippy::unnecessary_wraps, reason = "as `condition` answers")]
    fn is(status: &str, reason: &str) -> Option<(String, String)> {
        Some((status.to_owned(), reason.to_owned()))
    }

    #[test]
    fn the_same_findings_again_are_no_patch() {
        let object = subscription(None);
        let good = report(
            rule(Phase::Registered, RuleReason::Registered, Some("f")),
            1,
        );
        let mut findings =
            Findings::accepted(&object).with_report(&good, Mode::Manage, &BTreeMap::new());
        findings.reconcile_at = Some("now".to_owned());
        let change = findings
            .change(&object, at(100))
            .expect("everything is new");
        let object = patched(&object, &change);
        assert_eq!(condition(&object, "Ready"), is("True", "Ok"));
        let status = object.status.clone().expect("a status");
        assert_eq!(status.observed_generation, 3);
        assert_eq!(status.registered.as_deref(), Some("1/1"));
        assert_eq!(status.rules[0].phase, RulePhase::Enabled);
        assert_eq!(
            findings.change(&object, at(9_999)),
            None,
            "only time differs"
        );
        findings.reconcile_at = None;
        assert_eq!(
            findings.change(&object, at(9_999)),
            None,
            "acknowledged stays"
        );
    }

    #[test]
    fn the_summary_is_about_what_was_not_looked_at_as_well() {
        let object = subscription(None);
        let good = report(
            rule(Phase::Registered, RuleReason::Registered, Some("f")),
            1,
        );
        let findings =
            Findings::accepted(&object).with_report(&good, Mode::Manage, &BTreeMap::new());
        let object = patched(&object, &findings.change(&object, at(1)).expect("new"));
        let missing = Condition::new(
            ConditionType::CredentialsValid,
            false,
            Reason::SecretMissing,
        );
        let findings = Findings::accepted(&object).with(missing);
        let change = findings.change(&object, at(2)).expect("other");
        assert!(change.patch.get("rules").is_none(), "not looked at");
        let object = patched(&object, &change);
        assert_eq!(condition(&object, "Ready"), is("False", "SecretMissing"));
        assert_eq!(condition(&object, "Registered"), is("True", "RulesInPlace"));
        assert_eq!(
            condition(&object, "Reconciling"),
            is("True", "SecretMissing")
        );
        assert_eq!(condition(&object, "Stalled"), None);
    }

    #[test]
    fn a_type_that_another_one_has_is_wanted_all_the_same() {
        let object = subscription(None);
        let good = report(
            rule(Phase::Registered, RuleReason::Registered, Some("f")),
            1,
        );
        let rival = Rival {
            uid: "u".to_owned(),
            namespace: "other".to_owned(),
            name: "first".to_owned(),
        };
        let claimed = BTreeMap::from([(NotificationType::Booking, rival)]);
        let findings = Findings::accepted(&object).with_report(&good, Mode::Manage, &claimed);
        let object = patched(&object, &findings.change(&object, at(1)).expect("new"));
        assert_eq!(
            condition(&object, "Stalled"),
            is("True", "TypeClaimedElsewhere")
        );
        let status = object.status.expect("a status");
        assert_eq!(status.registered.as_deref(), Some("1/2"));
        assert_eq!(status.rules[1].phase, RulePhase::Foreign);
        let registered = &status
            .conditions
            .iter()
            .find(|one| one.type_ == "Registered");
        let message = &registered.expect("there").message;
        assert!(message.contains("Booking (other/first)"), "{message}");
    }

    #[test]
    fn phases() {
        for (phase, reason, key, expected) in [
            (
                Phase::Pending,
                RuleReason::KeysNotLoaded,
                Some("f"),
                RulePhase::Created,
            ),
            (
                Phase::Blocked,
                RuleReason::RuleOwnedElsewhere,
                None,
                RulePhase::Foreign,
            ),
            (
                Phase::Blocked,
                RuleReason::UnsupportedType,
                None,
                RulePhase::Unsupported,
            ),
            (
                Phase::Blocked,
                RuleReason::ProviderRefused,
                None,
                RulePhase::Missing,
            ),
            (
                Phase::Disabled,
                RuleReason::Suspended,
                Some("f"),
                RulePhase::Disabled,
            ),
            (
                Phase::Unknown,
                RuleReason::ProviderUnavailable,
                Some("f"),
                RulePhase::Unknown,
            ),
        ] {
            let status = status_of(
                NotificationType::Rate,
                &rule(phase, reason, key),
                Mode::Manage,
            );
            assert_eq!(status.phase, expected, "{phase:?} {reason:?}");
        }
        let observed = rule(Phase::Pending, RuleReason::WouldChange, None);
        let status = status_of(NotificationType::Rate, &observed, Mode::Observe);
        assert_eq!(status.phase, RulePhase::Missing);
    }
}
