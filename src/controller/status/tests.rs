//! What findings come to. Oracle: by hand.

use super::super::sample::subscription;
use super::*;
use crate::registration::report::Changes;

fn looked_at(status: Option<WebhookSubscriptionStatus>) -> WebhookSubscription {
    let mut made = subscription(|object| object["metadata"]["generation"] = json!(3));
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
        enabled: None,
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
    let object = looked_at(None);
    let good = report(
        rule(Phase::Registered, RuleReason::Registered, Some("f")),
        1,
    );
    let mut findings =
        Findings::accepted(&object, Heard::NotManaged).with_report(&good, &BTreeMap::new());
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
    let object = looked_at(None);
    let good = report(
        rule(Phase::Registered, RuleReason::Registered, Some("f")),
        1,
    );
    let findings =
        Findings::accepted(&object, Heard::NotManaged).with_report(&good, &BTreeMap::new());
    let object = patched(&object, &findings.change(&object, at(1)).expect("new"));
    let missing = Condition::new(
        ConditionType::CredentialsValid,
        false,
        Reason::SecretMissing,
    );
    let findings = Findings::accepted(&object, Heard::NotManaged).with(missing);
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

/// What was found for another spec does not become a finding about this one: it may be of another URL.
#[test]
fn what_was_not_looked_at_keeps_its_generation() {
    let object = looked_at(None);
    let findings =
        Findings::accepted(&object, Heard::NotManaged).with(Condition::of(Reason::Reachable));
    let mut object = patched(&object, &findings.change(&object, at(1)).expect("new"));
    object.metadata.generation = Some(4);
    // A pause looks at nothing.
    let (kind, unknown) = (ConditionType::Accepted, ConditionStatus::Unknown);
    let paused = Condition::new(kind, unknown, Reason::Paused);
    let findings = Findings::default().with(paused);
    let object = patched(&object, &findings.change(&object, at(2)).expect("other"));
    let status = object.status.as_ref().expect("a status");
    assert_eq!(status.observed_generation, 4);
    let generation = |kind: &str| {
        let mut all = status.conditions.iter();
        all.find(|one| one.type_ == kind)?.observed_generation
    };
    assert_eq!(generation("Reachable"), Some(3));
    assert_eq!(generation("Accepted"), Some(4));
    assert_eq!(generation("Ready"), Some(4));
    assert_eq!(crate::controller::reach::found_before(&object), None);
}

#[test]
fn a_type_that_another_one_has_is_wanted_all_the_same() {
    let object = looked_at(None);
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
    let findings = Findings::accepted(&object, Heard::NotManaged).with_report(&good, &claimed);
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
    use RuleReason::{
        AwaitingReachability, KeyMissing, KeysNotLoaded, ProviderRefused, ProviderUnavailable,
        RuleOwnedElsewhere, Suspended, UnsupportedType, WouldChange,
    };
    for (phase, reason, enabled, expected) in [
        (
            Phase::Pending,
            KeysNotLoaded,
            Some(false),
            RulePhase::Created,
        ),
        (
            Phase::Pending,
            AwaitingReachability,
            Some(false),
            RulePhase::Created,
        ),
        (
            Phase::Pending,
            AwaitingReachability,
            None,
            RulePhase::Foreign,
        ),
        (Phase::Blocked, RuleOwnedElsewhere, None, RulePhase::Foreign),
        (
            Phase::Blocked,
            UnsupportedType,
            None,
            RulePhase::Unsupported,
        ),
        (Phase::Blocked, ProviderRefused, None, RulePhase::Missing),
        (Phase::Disabled, Suspended, Some(false), RulePhase::Disabled),
        (
            Phase::Unknown,
            ProviderUnavailable,
            None,
            RulePhase::Unknown,
        ),
        // What is live is live, whatever is wrong with it or would be done about it.
        (
            Phase::Pending,
            ProviderUnavailable,
            Some(true),
            RulePhase::Enabled,
        ),
        (Phase::Pending, WouldChange, Some(true), RulePhase::Enabled),
        (Phase::Blocked, KeyMissing, Some(true), RulePhase::Enabled),
        // An observer's, whose key may still be stored.
        (Phase::Pending, WouldChange, None, RulePhase::Missing),
    ] {
        let mut rule = rule(phase, reason, Some("f"));
        rule.enabled = enabled;
        let status = status_of(NotificationType::Rate, &rule);
        assert_eq!(status.phase, expected, "{phase:?} {reason:?} {enabled:?}");
    }
}
