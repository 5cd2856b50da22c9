//! Tests of `registration`. The oracle is the fake provider's own state (written from the provider
//! reference) and the promises it checks at each write: nothing foreign touched, no rule live
//! before its key was stored and a resync noted.

mod check;
mod conflict;
mod fake;
mod passes;
mod planning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellhop::api::NotificationType;
use bellhop::registration::{
    Adoption, DeletionPolicy, DesiredRule, DesiredRules, Mode, Phase, Reason,
};
use fake::{FAULTS, Fault, OWNER, State, StoredRule, Switches, World};
use serde_json::{Map, Value, json};

use NotificationType::{
    Availability, Booking, ChannelBinding, PriceSchedule, Product, Rate, Supplier,
};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn ours(kind: NotificationType, disabled: bool, key: &str, config: Value) -> StoredRule {
    StoredRule {
        url: format!(
            "https://hooks.example.com/redeam/{}/{OWNER}",
            kind.segment()
        ),
        disabled,
        config: object(config),
        key: key.to_owned(),
    }
}

fn foreign(key: &str) -> StoredRule {
    StoredRule {
        url: "https://other.example.net/in?token=their-secret-token".to_owned(),
        disabled: false,
        config: object(json!({"operations": ["updated"]})),
        key: key.to_owned(),
    }
}

fn desired(kinds: &[NotificationType]) -> DesiredRules {
    DesiredRules {
        url: "https://hooks.example.com/redeam".to_owned(),
        owner: OWNER.parse().unwrap(),
        rules: kinds
            .iter()
            .map(|kind| (*kind, DesiredRule::default()))
            .collect(),
        mode: Mode::Manage,
        adoption: Adoption::Never,
        deletion: DeletionPolicy::Delete,
        suspend: false,
        hold: BTreeSet::new(),
    }
}

/// One type in each state that a pass can meet.
fn mixed(switches: Switches) -> State {
    let mut moved = ours(
        Availability,
        false,
        "availability-key",
        json!({"supplierIDs": ["s1"]}),
    );
    moved.url = format!("https://old.example.com/availability/{OWNER}");
    State {
        rules: BTreeMap::from([
            (
                Supplier,
                ours(
                    Supplier,
                    true,
                    "supplier-key",
                    json!({"operations": ["updated"]}),
                ),
            ),
            (
                Product,
                ours(
                    Product,
                    false,
                    "product-key-2",
                    json!({"operations": ["updated"]}),
                ),
            ),
            (Availability, moved),
            (PriceSchedule, foreign("their-key-1")),
            (
                Rate,
                ours(Rate, false, "rate-key", json!({"operations": ["updated"]})),
            ),
            (Booking, foreign("their-key-2")),
        ]),
        keys: BTreeMap::from([
            (Product, "product-key-1".to_owned()),
            (Availability, "availability-key".to_owned()),
            (Rate, "rate-key".to_owned()),
        ]),
        switches,
        receivers_ready: true,
        ..State::default()
    }
}

const WANTED: [NotificationType; 5] = [
    ChannelBinding,
    Supplier,
    Product,
    Availability,
    PriceSchedule,
];

/// The end that every way through [`mixed`] must lead to.
fn assert_converged(world: &World, context: &str) {
    let state = world.state();
    assert!(
        state.violations.is_empty(),
        "{context}: {:?}",
        state.violations
    );
    for kind in [ChannelBinding, Supplier, Product, Availability] {
        let rule = state
            .rules
            .get(&kind)
            .unwrap_or_else(|| panic!("{context}: no {kind} rule"));
        assert_eq!(
            rule.url,
            format!(
                "https://hooks.example.com/redeam/{}/0123456789",
                kind.segment()
            ),
            "{context}"
        );
        assert!(!rule.disabled, "{context}: {kind} is disabled");
        assert_eq!(
            state.keys.get(&kind),
            Some(&rule.key),
            "{context}: {kind} key"
        );
        assert!(
            state.begun.contains(&kind),
            "{context}: no resync of {kind} began"
        );
    }
    let mut operations: Vec<&str> = state.rules[&ChannelBinding].config["operations"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    operations.sort_unstable();
    assert_eq!(operations, ["created", "removed", "updated"], "{context}");
    assert_eq!(
        state.rules[&Availability].config["supplierIDs"],
        json!(["s1"]),
        "{context}"
    );
    assert_eq!(
        state.rules[&PriceSchedule],
        foreign("their-key-1"),
        "{context}"
    );
    assert_eq!(state.rules[&Booking], foreign("their-key-2"), "{context}");
    assert!(
        !state.rules.contains_key(&Rate),
        "{context}: Rate is not wanted"
    );
    assert!(
        !state.keys.contains_key(&Rate),
        "{context}: the key of Rate is still there"
    );
    assert!(
        !state.keys.contains_key(&PriceSchedule),
        "{context}: a foreign key was stored"
    );
}

fn all_switches() -> Vec<Switches> {
    let none = Switches::default();
    vec![
        none,
        Switches {
            post_replaces: true,
            ..none
        },
        Switches {
            post_without_key: true,
            put_without_key: true,
            ..none
        },
        Switches {
            put_merges: true,
            reorders: true,
            ..none
        },
    ]
}

#[tokio::test]
async fn one_pass_brings_every_state_to_where_it_should_be() {
    for switches in all_switches() {
        let world = World::new(mixed(switches));
        let report = world.executor().reconcile(&desired(&WANTED)).await;
        assert_converged(&world, &format!("{switches:?}"));
        assert_eq!(report.registered(), "4/5");
        assert_eq!(report.credentials_valid, Some(true));
        let theirs = &report.rules[&PriceSchedule];
        assert_eq!(
            (theirs.phase, theirs.reason),
            (Phase::Blocked, Reason::RuleOwnedElsewhere)
        );
        assert!(
            theirs.message.contains("other.example.net"),
            "{}",
            theirs.message
        );
        assert_eq!(report.verdict().reason, Reason::RuleOwnedElsewhere);
        assert_eq!(
            report.resyncs(),
            [ChannelBinding, Supplier, Product, Availability]
        );
        assert!(report.rules[&Product].changes.key_changed);
        assert!(report.rules[&ChannelBinding].changes.created);

        // Nothing that may not be shown is shown.
        let shown = format!("{report:?} {}", serde_json::to_string(&report).unwrap());
        for hidden in ["their-secret-token", "-key-", "made-key"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        // The url is the provider's own, and of somebody else's rule none.
        for (kind, rule) in &report.rules {
            let at_provider = world.state().rules[kind].url.clone();
            let ours = at_provider.ends_with(OWNER);
            assert_eq!(rule.url, ours.then_some(at_provider), "{kind}");
        }

        // A second pass only looks.
        world.state().calls.clear();
        let again = world.executor().reconcile(&desired(&WANTED)).await;
        assert_eq!(again.resyncs(), []);
        let writes: Vec<_> = world
            .state()
            .calls
            .iter()
            .filter(|(name, _)| !matches!(*name, "get" | "known" | "live"))
            .copied()
            .collect();
        assert_eq!(writes, []);
    }
}

/// Breaks call number `at` of a pass; `false` when the pass has fewer calls.
async fn broken_pass(world: &Arc<World>, desired: &DesiredRules, at: usize, fault: Fault) -> bool {
    world.state().fault = Some((at, fault));
    let executor = world.executor();
    tokio::select! {
        biased;
        () = world.died.notified() => {}
        _ = executor.reconcile(desired) => {}
    }
    let mut state = world.state();
    state.fault = None;
    state.calls.len() > at
}

#[tokio::test]
async fn any_call_may_fail_or_be_the_last_one_before_a_crash() {
    let mut tried = 0;
    for switches in all_switches() {
        for fault in FAULTS {
            for at in 0.. {
                let context = format!("{switches:?}, call {at}, {fault:?}");
                let world = World::new(mixed(switches));
                if !broken_pass(&world, &desired(&WANTED), at, fault).await {
                    break;
                }
                tried += 1;
                let call = world.state().calls[at];
                world.executor().reconcile(&desired(&WANTED)).await;
                assert_converged(&world, &format!("{context} = {call:?}"));
            }
        }
    }
    assert!(tried > 500, "only {tried} crash points were tried");
}
