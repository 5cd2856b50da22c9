//! Conditions, what they come to, and the Events of what changed. The oracles are tables written
//! by hand, and Kubernetes' own rules for `metav1.Condition` and Events.

use bellhop::api::condition::{
    Condition, ConditionStatus, ConditionType, EventType, Merged, Progress, Reason, merge, summary,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, Time};

use ConditionStatus::{False, True, Unknown};
use ConditionType::{
    Accepted, CredentialsValid, Delivering, Reachable, Ready, ReceiverAvailable, Reconciling,
    Registered, Stalled, WeakSignature,
};

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_735_689_600 + second, 123_456_789).unwrap()
}

/// Without a fraction, as an API server keeps it.
fn kept(second: i64) -> Time {
    Time(Timestamp::from_second(1_735_689_600 + second).unwrap())
}

fn is(kind: ConditionType, status: ConditionStatus, reason: Reason) -> Condition {
    Condition::new(kind, status, reason)
}

#[test]
fn reasons_are_words_with_a_sentence_that_names_the_next_step() {
    assert!(Reason::ALL.len() > 60);
    for (position, reason) in Reason::ALL.iter().enumerate() {
        let word = reason.as_str();
        assert_eq!(
            Reason::ALL.iter().position(|one| one == reason),
            Some(position)
        );
        assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
        assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        let sentence = reason.sentence();
        assert!(sentence.ends_with('.'), "{word}");
        assert!(
            sentence.len() < 512 && !reason.when().ends_with('.'),
            "{word}"
        );
        for text in [sentence, reason.when()] {
            assert!(!text.contains(['|', '\n']), "{word} breaks the table");
        }
        if reason.event() == Some(EventType::Warning) {
            let what_then_step = sentence.trim_end_matches('.').contains(". ");
            assert!(what_then_step, "{word}: what is wrong. What to do next.");
        }
    }
    let shown = is(Registered, False, Reason::RuleOwnedElsewhere).about("Booking");
    assert_eq!(
        serde_json::to_string(&shown).unwrap(),
        "{\"type\":\"Registered\",\"status\":\"False\",\"reason\":\"RuleOwnedElsewhere\",\"message\":\"Booking: The provider has a rule that is not ours; it was not touched. Remove it there, or set `registration.adoption: Always` to take it over.\"}"
    );
}

/// The words of the design: who is Reconciling, who is Stalled, what keeps Ready.
#[test]
fn reasons_fit_together() {
    for reason in Reason::ALL {
        let all_true = reason
            .conditions()
            .iter()
            .all(|(_, status)| *status == True);
        let goes_on = reason.progress() != Progress::Settled;
        assert!(
            !goes_on || reason.blocks_ready(),
            "{reason} goes on beside Ready"
        );
        assert!(
            !all_true || !reason.blocks_ready(),
            "{reason} is true and blocks"
        );
        for (kind, status) in reason.conditions() {
            if kind.only_while_true() {
                assert_eq!(*status, True, "{reason}");
            }
            if *kind == Reachable || *status == True {
                assert!(!reason.blocks_ready(), "{reason}");
            }
        }
    }
    for reason in [
        Reason::SecretMissing,
        Reason::ProviderUnavailable,
        Reason::RolloutInProgress,
    ] {
        assert_eq!(reason.progress(), Progress::Reconciling, "{reason}");
    }
    for reason in [
        Reason::Invalid,
        Reason::UrlInUse,
        Reason::RuleOwnedElsewhere,
        Reason::ChannelChanged,
        Reason::Unauthorized,
    ] {
        assert_eq!(reason.progress(), Progress::Stalled, "{reason}");
    }
    for reason in [Reason::DeadLetters, Reason::ReceiverNotManaged] {
        assert!(!reason.blocks_ready(), "{reason}");
    }
}

#[test]
fn parts_come_to_ready_and_to_reconciling_or_stalled() {
    let well = [
        is(Accepted, True, Reason::SpecValid),
        is(CredentialsValid, True, Reason::CredentialsAccepted),
        is(Registered, True, Reason::RulesInPlace),
        is(ReceiverAvailable, True, Reason::ReceiverReady),
        is(Reachable, True, Reason::Reachable),
        is(Delivering, True, Reason::DeliveryOk),
    ];
    let reconciling = Some(Reconciling);
    let stalled = Some(Stalled);
    // What differs from all being well; Ready; the reason; Reconciling or Stalled.
    let table: &[(&[Condition], ConditionStatus, Reason, Option<ConditionType>)] = &[
        (&[], True, Reason::Ok, None),
        (
            &[is(Registered, True, Reason::Suspended)],
            True,
            Reason::Suspended,
            None,
        ),
        (
            &[is(Delivering, False, Reason::DeadLetters)],
            True,
            Reason::Ok,
            None,
        ),
        (
            &[is(Delivering, False, Reason::SinkUnavailable)],
            False,
            Reason::SinkUnavailable,
            None,
        ),
        (
            &[is(Reachable, False, Reason::TlsFailed)],
            True,
            Reason::Ok,
            None,
        ),
        (
            &[is(Reachable, Unknown, Reason::ProbeOff)],
            True,
            Reason::Ok,
            None,
        ),
        (
            &[is(WeakSignature, True, Reason::Md5InUse)],
            True,
            Reason::Ok,
            None,
        ),
        (
            &[
                is(ReceiverAvailable, Unknown, Reason::ReceiverNotManaged),
                is(Delivering, Unknown, Reason::ReceiverNotManaged),
            ],
            True,
            Reason::Ok,
            None,
        ),
        (
            &[is(ReceiverAvailable, Unknown, Reason::ReceiverUnreachable)],
            Unknown,
            Reason::ReceiverUnreachable,
            reconciling,
        ),
        (
            &[is(CredentialsValid, False, Reason::SecretMissing)],
            False,
            Reason::SecretMissing,
            reconciling,
        ),
        (
            // The one that stalls is named, although another is shown first.
            &[
                is(CredentialsValid, Unknown, Reason::CredentialsUnchecked),
                is(Registered, False, Reason::RuleOwnedElsewhere),
            ],
            False,
            Reason::RuleOwnedElsewhere,
            stalled,
        ),
        (
            // False before unknown.
            &[
                is(CredentialsValid, Unknown, Reason::CredentialsUnchecked),
                is(Registered, False, Reason::RegistrationPending),
            ],
            False,
            Reason::RegistrationPending,
            reconciling,
        ),
        (
            &[is(Accepted, False, Reason::UrlInUse)],
            False,
            Reason::UrlInUse,
            stalled,
        ),
        (
            &[is(Accepted, Unknown, Reason::Paused)],
            Unknown,
            Reason::Paused,
            stalled,
        ),
        (
            &[is(Registered, False, Reason::ObserveOnly)],
            False,
            Reason::ObserveOnly,
            None,
        ),
    ];
    for (differs, status, reason, progress) in table {
        let mut parts: Vec<Condition> = differs.to_vec();
        for part in &well {
            if !parts.iter().any(|one| one.kind == part.kind) {
                parts.push(part.clone());
            }
        }
        let all = summary(parts.clone());
        let find = |kind| all.iter().find(|one: &&Condition| one.kind == kind);
        let ready = find(Ready).unwrap();
        assert_eq!(
            (ready.status, ready.reason),
            (*status, *reason),
            "{differs:?}"
        );
        let there: Vec<_> = [Reconciling, Stalled]
            .into_iter()
            .filter(|&kind| find(kind).is_some())
            .collect();
        assert_eq!(
            there,
            progress.iter().copied().collect::<Vec<_>>(),
            "{differs:?}"
        );
        assert!(all.is_sorted_by_key(|one| one.kind), "{differs:?}");
        assert_eq!(summary(all.clone()), all, "a summary of itself is the same");
    }
}

fn meta(kind: &str, status: &str, reason: Reason, generation: i64, second: i64) -> MetaCondition {
    MetaCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: reason.sentence().to_owned(),
        observed_generation: Some(generation),
        last_transition_time: kept(second),
    }
}

fn events(merged: &Merged) -> Vec<(EventType, Reason)> {
    merged
        .events
        .iter()
        .map(|event| (event.type_, event.reason))
        .collect()
}

#[test]
fn time_moves_with_the_status_only() {
    let registered = meta("Registered", "False", Reason::ProviderUnavailable, 1, 0);
    // What is found; for which generation; what is then written.
    for (status, reason, generation, written) in [
        (False, Reason::ProviderUnavailable, 1, None),
        (
            False,
            Reason::ProviderUnavailable,
            2,
            Some(meta(
                "Registered",
                "False",
                Reason::ProviderUnavailable,
                2,
                0,
            )),
        ),
        (
            False,
            Reason::DriftFound,
            1,
            Some(meta("Registered", "False", Reason::DriftFound, 1, 0)),
        ),
        (
            Unknown,
            Reason::ProviderUnavailable,
            1,
            Some(meta(
                "Registered",
                "Unknown",
                Reason::ProviderUnavailable,
                1,
                9,
            )),
        ),
        (
            True,
            Reason::RulesInPlace,
            1,
            Some(meta("Registered", "True", Reason::RulesInPlace, 1, 9)),
        ),
    ] {
        let merged = merge(
            std::slice::from_ref(&registered),
            &[is(Registered, status, reason)],
            generation,
            at(9),
        );
        assert_eq!(
            merged.map(|merged| merged.conditions),
            written.map(|one| vec![one]),
            "{reason}"
        );
    }
}

#[test]
fn what_is_not_spoken_of_stays_unless_it_is_there_only_while_true() {
    let old = [
        meta("Ready", "False", Reason::Unauthorized, 1, 0),
        meta("Reachable", "True", Reason::Reachable, 1, 0),
        meta("Reconciling", "True", Reason::SecretMissing, 1, 0),
        meta("WeakSignature", "True", Reason::Md5InUse, 1, 0),
        meta("DurabilityReduced", "True", Reason::Ok, 1, 0),
    ];
    let merged = merge(&old, &[is(Ready, False, Reason::Unauthorized)], 1, at(9)).unwrap();
    let kinds: Vec<_> = merged
        .conditions
        .iter()
        .map(|one| one.type_.as_str())
        .collect();
    assert_eq!(kinds, ["Ready", "Reachable", "DurabilityReduced"]);
    assert!(
        merged.events.is_empty(),
        "that something is over is told by what is new"
    );
    // The order alone is no difference.
    let mut shuffled = merged.conditions;
    shuffled.reverse();
    assert_eq!(
        merge(
            &shuffled,
            &[is(Ready, False, Reason::Unauthorized)],
            1,
            at(9)
        ),
        None
    );
}

#[test]
fn events_tell_of_transitions_once() {
    let refused = summary(vec![
        is(Accepted, True, Reason::SpecValid),
        is(CredentialsValid, False, Reason::Unauthorized),
        is(Registered, False, Reason::Unauthorized),
    ]);
    let first = merge(&[], &refused, 1, at(0)).unwrap();
    assert_eq!(events(&first), [(EventType::Warning, Reason::Unauthorized)]);
    assert_eq!(first.events[0].action, CredentialsValid);
    assert_eq!(first.events[0].note, Reason::Unauthorized.sentence());
    assert_eq!(
        merge(&first.conditions, &refused, 1, at(60)),
        None,
        "a repeat"
    );

    let newer = merge(&first.conditions, &refused, 2, at(60)).unwrap();
    assert_eq!(events(&newer), [], "another generation, the same trouble");

    let told_otherwise = [is(CredentialsValid, False, Reason::Unauthorized).about("apiKey")];
    let otherwise = merge(&newer.conditions, &told_otherwise, 2, at(60)).unwrap();
    assert_eq!(events(&otherwise), [], "other words are no transition");

    let well = summary(vec![
        is(Accepted, True, Reason::SpecValid),
        is(CredentialsValid, True, Reason::CredentialsAccepted),
        is(Registered, True, Reason::RulesInPlace),
    ]);
    let healed = merge(&newer.conditions, &well, 2, at(120)).unwrap();
    assert_eq!(
        events(&healed),
        [
            (EventType::Normal, Reason::Ok),
            (EventType::Normal, Reason::CredentialsAccepted),
            (EventType::Normal, Reason::RulesInPlace),
        ]
    );
    let times: Vec<_> = healed
        .conditions
        .iter()
        .map(|one| (one.type_.as_str(), &one.last_transition_time))
        .collect();
    assert_eq!(
        times,
        [
            ("Ready", &kept(120)),
            ("Accepted", &kept(0)),
            ("CredentialsValid", &kept(120)),
            ("Registered", &kept(120)),
        ]
    );
    assert_eq!(merge(&healed.conditions, &well, 2, at(180)), None);
}

/// Steps on the way (`RegistrationPending`) are no news.
#[test]
fn steps_on_the_way_have_no_event() {
    let pending = summary(vec![is(Registered, Unknown, Reason::RegistrationPending)]);
    assert_eq!(events(&merge(&[], &pending, 1, at(0)).unwrap()), []);
}

#[test]
fn long_messages_are_cut_where_kubernetes_would_refuse_them() {
    let long = "é".repeat(40_000);
    let condition = is(Delivering, False, Reason::SinkUnavailable).about(&long);
    let merged = merge(&[], &[condition], 1, at(0)).unwrap();
    assert_eq!(merged.conditions[0].message.chars().count(), 32_768);
    assert_eq!(merged.events[0].note.len(), 1024);
}
