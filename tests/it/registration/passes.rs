//! Passes beside the ordinary one: refusals, the gate, suspend, observe, adoption, teardown, the
//! provider's less likely readings, and the loop.

use std::sync::Arc;
use std::time::Duration;

use bellhop::api::NotificationType;
use bellhop::clock::Clock;
use bellhop::registration::{Adoption, DeletionPolicy, DriftCheck, Mode, Phase, Reason};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::fake::{FAULTS, OWNER, State, Switches, World};
use super::{WANTED, broken_pass, desired, foreign, mixed, ours};
use NotificationType::{Booking, ChannelBinding, PriceSchedule, Product, Rate, Supplier};

fn writes(world: &World) -> usize {
    let looks = ["get", "known", "live", "loaded"];
    world
        .state()
        .calls
        .iter()
        .filter(|(name, _)| !looks.contains(name))
        .count()
}

#[tokio::test]
async fn observe_says_what_it_would_do_and_writes_nothing() {
    let world = World::new(mixed(Switches::default()));
    let mut desired = desired(&WANTED);
    desired.mode = Mode::Observe;
    let report = world.executor().reconcile(&desired).await;
    assert_eq!(writes(&world), 0);
    let rule = &report.rules[&ChannelBinding];
    assert_eq!(rule.reason, Reason::WouldChange);
    assert!(
        rule.message.contains("create (there is no rule"),
        "{}",
        rule.message
    );
    assert_eq!(
        report.rules[&PriceSchedule].reason,
        Reason::RuleOwnedElsewhere
    );
}

#[tokio::test]
async fn a_suspended_subscription_has_disabled_rules_and_comes_back_with_a_resync() {
    let world = World::new(mixed(Switches::default()));
    let mut desired = desired(&[ChannelBinding, Supplier, Product]);
    desired.suspend = true;
    let report = world.executor().reconcile(&desired).await;
    assert_eq!(report.registered(), "3/3");
    assert_eq!(report.verdict().reason, Reason::Suspended);
    assert_eq!(report.verdict().status, Some(true));
    for kind in desired.rules.keys() {
        let state = world.state();
        assert!(state.rules[kind].disabled, "{kind}");
        assert_eq!(state.keys[kind], state.rules[kind].key, "{kind}");
    }
    desired.suspend = false;
    let report = world.executor().reconcile(&desired).await;
    assert_eq!(report.resyncs(), [ChannelBinding, Supplier, Product]);
    assert_eq!(world.state().begun.len(), 3);
}

#[tokio::test]
async fn adoption_takes_a_foreign_rule_over_in_two_phases() {
    let mut start = mixed(Switches::default());
    start.adoption = true;
    let world = World::new(start);
    let mut desired = desired(&WANTED);
    desired.adoption = Adoption::Always;
    let report = world.executor().reconcile(&desired).await;
    assert_eq!(report.registered(), "5/5");
    let state = world.state();
    assert_eq!(state.violations, Vec::<String>::new());
    assert_eq!(state.keys[&PriceSchedule], "their-key-1");
    assert_eq!(
        state.rules[&Booking],
        foreign("their-key-2"),
        "not wanted: not adopted"
    );
}

#[tokio::test]
async fn rules_stay_disabled_until_receivers_have_the_keys() {
    let mut start = mixed(Switches::default());
    start.receivers_ready = false;
    let world = World::new(start);
    world.expire();
    let report = world.executor().reconcile(&desired(&WANTED)).await;
    let rule = &report.rules[&ChannelBinding];
    assert_eq!(
        (rule.phase, rule.reason),
        (Phase::Pending, Reason::KeysNotLoaded)
    );
    assert!(rule.message.contains("0 of 1 receivers ready"));
    assert!(world.state().rules[&ChannelBinding].disabled);
    assert!(report.should_retry());
    assert_eq!(
        report.rules[&Product].phase,
        Phase::Registered,
        "was live before"
    );
}

#[tokio::test]
async fn refused_credentials_end_the_pass() {
    let mut start = mixed(Switches::default());
    start.unauthorized = true;
    let world = World::new(start);
    let report = world.executor().reconcile(&desired(&WANTED)).await;
    assert_eq!(
        world
            .state()
            .calls
            .iter()
            .filter(|(name, _)| *name == "get")
            .count(),
        1
    );
    assert_eq!(report.credentials_valid, Some(false));
    for kind in WANTED {
        assert_eq!(report.rules[&kind].reason, Reason::CredentialsInvalid);
    }
    assert!(report.verdict().message.contains("deletionPolicy: Retain"));
}

#[tokio::test]
async fn one_types_failure_does_not_stop_the_others() {
    let mut start = State {
        receivers_ready: true,
        ..State::default()
    };
    start.broken.insert(("create", Supplier));
    start.unsupported.insert(Rate);
    let world = World::new(start);
    let report = world
        .executor()
        .reconcile(&desired(&NotificationType::ALL))
        .await;
    assert_eq!(report.registered(), "5/7");
    assert_eq!(report.rules[&Supplier].reason, Reason::ProviderUnavailable);
    assert_eq!(report.rules[&Rate].reason, Reason::UnsupportedType);
}

#[tokio::test]
async fn a_rule_without_a_readable_key_is_never_enabled() {
    let world = World::new(State {
        switches: Switches {
            never_a_key: true,
            ..Switches::default()
        },
        receivers_ready: true,
        ..State::default()
    });
    for _ in 0..2 {
        let report = world.executor().reconcile(&desired(&[Supplier])).await;
        assert_eq!(report.rules[&Supplier].reason, Reason::KeyMissing);
        assert!(world.state().rules[&Supplier].disabled);
    }
    assert_eq!(
        world
            .state()
            .calls
            .iter()
            .filter(|(name, _)| *name == "create")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_provider_whose_put_makes_new_keys_converges() {
    let switches = Switches {
        put_regenerates: true,
        ..Switches::default()
    };
    let world = World::new(mixed(switches));
    world.executor().reconcile(&desired(&WANTED)).await;
    for kind in [ChannelBinding, Supplier, Product] {
        let state = world.state();
        assert!(!state.rules[&kind].disabled);
        assert_eq!(state.keys[&kind], state.rules[&kind].key);
    }
    let before = writes(&world);
    world.executor().reconcile(&desired(&WANTED)).await;
    assert_eq!(writes(&world), before, "the second pass only looks");
}

#[tokio::test]
async fn what_the_provider_does_not_take_is_said_and_not_sent_for_ever() {
    let switches = Switches {
        drops_config: true,
        ..Switches::default()
    };
    let world = World::new(State {
        switches,
        receivers_ready: true,
        ..State::default()
    });
    let mut desired = desired(&[Supplier]);
    let config = &mut desired.rules.get_mut(&Supplier).unwrap().config;
    config.insert("filter".to_owned(), json!(["x"]));
    let executor = world.executor();
    let report = executor.reconcile(&desired).await;
    let rule = &report.rules[&Supplier];
    assert_eq!(
        (rule.phase, rule.reason),
        (Phase::Registered, Reason::NotApplied)
    );
    assert!(rule.message.contains("config.filter"), "{}", rule.message);
    let before = writes(&world);
    let again = executor.reconcile(&desired).await;
    assert_eq!(again.rules[&Supplier].reason, Reason::NotApplied);
    assert_eq!((writes(&world), again.resyncs()), (before, vec![]));
}

#[tokio::test]
async fn deregistering_removes_ours_only_whatever_breaks() {
    let none =
        bellhop::registration::DesiredRules::none(OWNER.parse().unwrap(), DeletionPolicy::Delete);
    for fault in FAULTS {
        for at in 0.. {
            let world = World::new(mixed(Switches::default()));
            if !broken_pass(&world, &none, at, fault).await {
                break;
            }
            let owner = OWNER.parse().unwrap();
            let report = world
                .executor()
                .deregister(owner, DeletionPolicy::Delete)
                .await;
            assert!(report.is_complete(), "call {at}, {fault:?}: {report:?}");
            let state = world.state();
            assert_eq!(state.violations, Vec::<String>::new());
            assert_eq!(
                state.rules.keys().copied().collect::<Vec<_>>(),
                [PriceSchedule, Booking]
            );
            assert!(state.keys.is_empty());
        }
    }
}

#[tokio::test]
async fn retained_rules_stay_disabled_with_their_keys() {
    let world = World::new(mixed(Switches::default()));
    let owner = OWNER.parse().unwrap();
    let report = world
        .executor()
        .deregister(owner, DeletionPolicy::Retain)
        .await;
    assert!(report.is_complete());
    let state = world.state();
    let rate = ours(Rate, true, "rate-key", json!({"operations": ["updated"]}));
    assert_eq!(state.rules[&Rate], rate);
    assert_eq!(state.keys[&Rate], "rate-key");
    assert_eq!(state.rules[&Booking], foreign("their-key-2"));
}

#[tokio::test]
async fn a_teardown_that_cannot_look_is_not_complete() {
    let mut start = mixed(Switches::default());
    start.broken.insert(("get", Rate));
    let world = World::new(start);
    let owner = OWNER.parse().unwrap();
    let report = world
        .executor()
        .deregister(owner, DeletionPolicy::Delete)
        .await;
    assert!(!report.is_complete());
    assert!(world.state().rules.contains_key(&Rate));
}

#[tokio::test]
async fn the_loop_checks_at_once_when_asked_and_when_something_else_is_wanted() {
    let world = World::new(mixed(Switches::default()));
    let (want, wanted) = tokio::sync::watch::channel(Arc::new(desired(&[Supplier])));
    let clock: Arc<dyn Clock> = world.clone();
    let (check, handle) = DriftCheck::new(world.executor(), clock, wanted, Duration::from_hours(1));
    let token = CancellationToken::new();
    let mut seen = handle.watch();
    let journey = async {
        seen.changed().await.unwrap();
        assert_eq!(handle.status().unwrap().registered, "1/1");

        world.state().rules.get_mut(&Supplier).unwrap().disabled = true;
        handle.check_now();
        seen.changed().await.unwrap();
        assert!(
            !world.state().rules[&Supplier].disabled,
            "drift was not corrected"
        );

        want.send(Arc::new(desired(&[Supplier, Product]))).unwrap();
        seen.changed().await.unwrap();
        let status = handle.status().unwrap();
        assert_eq!(status.registered, "2/2");
        let pause = status.next_check.since(world.now());
        assert!(
            pause > Duration::from_mins(53) && pause < Duration::from_mins(67),
            "{pause:?}"
        );

        world.state().broken.insert(("get", Supplier));
        handle.check_now();
        seen.changed().await.unwrap();
        let pause = handle.status().unwrap().next_check.since(world.now());
        assert!(pause < Duration::from_secs(6), "{pause:?}");

        // The clock lets the delay pass.
        world.state().broken.clear();
        world.expire();
        seen.changed().await.unwrap();
        assert_eq!(handle.status().unwrap().registered, "2/2");
        token.cancel();
    };
    tokio::join!(check.run(token.clone()), journey);
}
