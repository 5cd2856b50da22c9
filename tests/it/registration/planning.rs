//! Properties of the plan, over random desired and observed states. The oracle is a small model of
//! what each action does to a provider (replace semantics), in this file.

use std::collections::BTreeMap;

use bellhop::api::{NotificationType, Operation};
use bellhop::provider::{Rule, RuleBody};
use bellhop::registration::{
    Action, Adoption, DeletionPolicy, DesiredRule, DesiredRules, Mode, Observed, Refusal, plan,
};
use bellhop::secrets::Secret;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::fake::OWNER;

fn config() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        Just(json!(["a", "b"])),
        Just(json!(["b", "a"])),
        Just(json!("x")),
        Just(json!(["created"])),
        Just(json!([])),
    ];
    let key = prop_oneof![Just("operations"), Just("supplierIDs"), Just("other")];
    prop::collection::btree_map(key, value, 0..3)
        .prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

fn wanted() -> impl Strategy<Value = DesiredRule> {
    let extra = prop::option::of(prop_oneof![Just(json!(["b", "a"])), Just(Value::Null)]);
    (any::<bool>(), extra).prop_map(|(narrow, extra)| DesiredRule {
        operations: if narrow {
            vec![Operation::Updated]
        } else {
            Vec::new()
        },
        config: extra
            .map(|value| ("supplierIDs".to_owned(), value))
            .into_iter()
            .collect(),
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let url = prop_oneof![
        Just(format!("https://h.example/supplier/{OWNER}")),
        Just(format!("https://old.example/booking/{OWNER}")),
        Just("https://h.example/supplier/9876543210".to_owned()),
        Just("https://theirs.example/hook".to_owned()),
        Just("nonsense".to_owned()),
    ];
    let key = prop::option::weighted(0.9, prop_oneof![Just("k1"), Just("k2")]);
    (url, any::<bool>(), config(), key).prop_map(|(url, disabled, config, key)| Rule {
        url,
        disabled,
        config,
        security_key: key.map(Secret::new),
        updated_on: None,
    })
}

fn observed() -> impl Strategy<Value = Observed> {
    let key = || prop::option::of(prop_oneof![Just("k1"), Just("k2")]);
    (prop::option::of(rule()), key(), key()).prop_map(|(rule, stored, loaded)| Observed {
        rule,
        stored: stored.map(|key| Secret::new(key).fingerprint()),
        loaded: loaded.map(|key| Secret::new(key).fingerprint()),
    })
}

fn kind() -> impl Strategy<Value = NotificationType> {
    prop::sample::select(NotificationType::ALL.to_vec())
}

prop_compose! {
    fn desired()(
        rules in prop::collection::btree_map(kind(), wanted(), 0..7),
        adopt in any::<bool>(),
        retain in any::<bool>(),
        suspend in any::<bool>(),
        hold in prop::collection::btree_set(kind(), 0..7),
    ) -> DesiredRules {
        DesiredRules {
            url: "https://h.example".to_owned(),
            owner: OWNER.parse().unwrap(),
            rules,
            mode: Mode::Manage,
            adoption: if adopt { Adoption::Always } else { Adoption::Never },
            deletion: if retain { DeletionPolicy::Retain } else { DeletionPolicy::Delete },
            suspend,
            hold,
        }
    }
}

/// What an action does to the world.
fn apply(seen: &mut Observed, action: &Action) {
    let key = |seen: &Observed| {
        let rule = seen.rule.as_ref()?;
        rule.security_key.as_ref().map(Secret::fingerprint)
    };
    let put = |seen: &mut Observed, body: &RuleBody| {
        let rule = seen.rule.as_mut().expect("PUT needs a rule");
        rule.url.clone_from(&body.url);
        rule.disabled = body.disabled;
        rule.config.clone_from(&body.config);
    };
    match action {
        Action::Create(body) => {
            assert!(seen.rule.is_none(), "POST over a rule");
            assert!(body.disabled, "created live");
            seen.rule = Some(Rule {
                url: body.url.clone(),
                disabled: true,
                config: body.config.clone(),
                security_key: Some(Secret::new("new")),
                updated_on: None,
            });
        }
        Action::Adopt(body) | Action::Disable(body) => {
            assert!(body.disabled);
            put(seen, body);
        }
        Action::Update(body) => {
            assert_eq!(
                seen.rule.as_ref().map(|rule| rule.disabled),
                Some(body.disabled)
            );
            put(seen, body);
        }
        Action::Enable(body) => {
            assert!(!body.disabled);
            assert!(
                seen.stored.is_some() && seen.stored == key(seen),
                "key not stored"
            );
            assert_eq!(seen.loaded, seen.stored, "key not loaded");
            put(seen, body);
        }
        Action::StoreKey => seen.stored = Some(key(seen).expect("a key to store")),
        Action::AwaitReceiver => seen.loaded = seen.stored.clone(),
        Action::Delete => seen.rule = None,
        Action::ForgetKey => {
            assert!(
                seen.rule
                    .as_ref()
                    .is_none_or(|rule| !rule.url.ends_with(OWNER))
            );
            seen.stored = None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_carried_out_plan_leaves_nothing_to_do(
        desired in desired(),
        start in prop::collection::btree_map(kind(), observed(), 0..7),
    ) {
        let first = plan(&desired, &start);
        let mut world = start.clone();
        for (kind, planned) in &first.rules {
            for step in &planned.steps {
                apply(world.get_mut(kind).unwrap(), &step.action);
            }
        }
        let second = plan(&desired, &world);
        for (kind, planned) in &second.rules {
            prop_assert!(planned.steps.is_empty(), "{kind}: {}", planned.describe());
            let before = &start[kind];
            let after = &world[kind];
            let foreign = before.rule.as_ref().is_some_and(|rule| !rule.url.ends_with(OWNER));
            match &planned.refusal {
                Some(Refusal::RuleOwnedElsewhere { host }) => {
                    prop_assert!(foreign && !host.contains("hook"));
                }
                Some(Refusal::KeyMissing) => {
                    prop_assert!(after.rule.as_ref().is_some_and(|r| r.security_key.is_none()));
                }
                None => {}
            }
            let keyless = before.rule.as_ref().is_some_and(|r| r.security_key.is_none());
            let wanted = desired.rules.contains_key(kind);
            let held = desired.hold.contains(kind) && !desired.suspend;
            let adopted = desired.adoption == Adoption::Always && wanted && !keyless && !held;
            if foreign && !adopted {
                prop_assert_eq!(&before.rule, &after.rule);
                continue;
            }
            match (desired.rules.get(kind), &after.rule) {
                (Some(_), Some(rule)) if rule.security_key.is_some() => {
                    prop_assert_eq!(&rule.url, &format!("https://h.example/{}/{OWNER}", kind.segment()));
                    let live = before.rule.as_ref().is_some_and(|rule| !rule.disabled);
                    prop_assert_eq!(rule.disabled, desired.suspend || held && !live);
                    if kind.operations().is_empty() {
                        let given = before.rule.as_ref().and_then(|r| r.config.get("operations"));
                        prop_assert_eq!(rule.config.get("operations"), given);
                    } else {
                        let sent = rule.config["operations"].as_array().unwrap();
                        prop_assert!(!sent.is_empty());
                    }
                }
                (Some(_), rule) => prop_assert!(rule.is_some()),
                (None, Some(rule)) => {
                    prop_assert!(rule.disabled && desired.deletion == DeletionPolicy::Retain);
                }
                (None, None) => {}
            }
        }
    }
}

#[test]
fn equal_lists_in_another_order_are_no_drift_and_unknown_keys_stay() {
    let mut wanted = DesiredRule::default();
    wanted
        .config
        .insert("supplierIDs".to_owned(), json!(["a", "b"]));
    wanted.config.insert("gone".to_owned(), Value::Null);
    let kind = NotificationType::ChannelBinding;
    let seen = json!({"operations": ["removed", "created", "updated"], "supplierIDs": ["b", "a"], "theirs": 1});
    let Value::Object(seen) = seen else {
        unreachable!()
    };
    let mut desired = DesiredRules::none(OWNER.parse().unwrap(), DeletionPolicy::Delete);
    desired.url = "https://h.example/".to_owned();
    desired.rules.insert(kind, wanted);
    let mut rule = Rule {
        url: format!("https://h.example/channel-binding/{OWNER}"),
        disabled: false,
        config: seen,
        security_key: Some(Secret::new("k")),
        updated_on: None,
    };
    let observe = |rule: &Rule| {
        let seen = Observed {
            rule: Some(rule.clone()),
            stored: Some(Secret::new("k").fingerprint()),
            loaded: None,
        };
        plan(&desired, &BTreeMap::from([(kind, seen)]))
            .rules
            .remove(&kind)
            .unwrap()
    };
    assert!(observe(&rule).is_settled());

    rule.config.insert("gone".to_owned(), json!(1));
    rule.config.insert("supplierIDs".to_owned(), json!(["b"]));
    let planned = observe(&rule);
    let [step] = planned.steps.as_slice() else {
        panic!("{planned:?}")
    };
    assert!(step.reason.contains("config.gone") && step.reason.contains("config.supplierIDs"));
    let Action::Update(body) = &step.action else {
        panic!("{step:?}")
    };
    assert_eq!(body.config["supplierIDs"], json!(["a", "b"]));
    assert_eq!(body.config["theirs"], json!(1));
    assert!(!body.config.contains_key("gone"));
}
