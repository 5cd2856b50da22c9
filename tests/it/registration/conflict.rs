//! Who comes first. The oracle is the sentence of the design, spelled out over a plain list: has a
//! rule there already, may take new things, is older, has the smaller UID.

use std::collections::{BTreeMap, BTreeSet};

use bellhop::api::v1alpha1::Environment;
use bellhop::api::{NotificationType, Owner};
use bellhop::registration::conflict::{
    Account, Contender, Contenders, Place, Rival, SeenRule, Verdict,
};
use bellhop::secrets::Fingerprint;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use NotificationType::{Booking, Rate, Supplier};

const KINDS: [NotificationType; 3] = [Booking, Rate, Supplier];
const UIDS: [&str; 5] = ["u0", "u1", "u2", "u3", "u4"];

fn owner(uid: &str) -> Owner {
    Owner::of("cluster", "shop", uid)
}

fn account(key: &str) -> Account {
    Account {
        environment: Environment::Sandbox,
        api_key: Fingerprint::of(key.as_bytes()),
    }
}

fn place(path: &str) -> Place {
    Place::of(&format!("https://hooks.example.com/{path}")).unwrap()
}

/// A subscription to bookings, with defaults to deviate from.
fn contender(uid: &str, created: i64, key: &str, path: &str) -> Contender {
    Contender {
        namespace: "shop".to_owned(),
        name: format!("sub-{uid}"),
        owner: owner(uid),
        created: Timestamp::from_second(created).unwrap(),
        takes: true,
        account: Some(account(key)),
        place: Some(place(path)),
        types: BTreeSet::from([Booking]),
    }
}

fn rule(uid: &str, path: &str) -> SeenRule {
    let url = owner(uid).rule_url(&format!("https://hooks.example.com/{path}"), Booking);
    SeenRule::of(&url).unwrap()
}

fn names(uids: &[&str]) -> BTreeSet<String> {
    uids.iter().map(|uid| (*uid).to_owned()).collect()
}

/// The types that it may register: none without the URL.
fn may_register(all: &Contenders, uid: &str) -> BTreeSet<NotificationType> {
    let verdict = all.verdict(uid).unwrap();
    let own = verdict.types.iter().filter(|(_, types)| types.is_ok());
    own.filter(|_| verdict.url.is_ok())
        .map(|(kind, _)| *kind)
        .collect()
}

fn rival(uid: &str) -> Rival {
    Rival {
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        name: format!("sub-{uid}"),
    }
}

#[test]
fn the_older_object_has_the_type_until_it_goes() {
    let mut all = Contenders::default();
    assert_eq!(
        all.put("young", contender("young", 20, "key", "a")),
        names(&[])
    );
    assert_eq!(
        all.put("old", contender("old", 10, "key", "b")),
        names(&["young"])
    );
    let verdict = all.verdict("young").unwrap();
    assert_eq!(verdict.url, Ok(()));
    assert_eq!(verdict.types, [(Booking, Err(rival("old")))].into());
    assert_eq!(rival("old").to_string(), "shop/sub-old");
    assert!(may_register(&all, "young").is_empty());
    assert_eq!(may_register(&all, "old"), [Booking].into());
    assert_eq!(all.remove("old"), names(&["young"]));
    assert_eq!(may_register(&all, "young"), [Booking].into());
    assert_eq!(all.verdict("old"), None);
}

#[test]
fn who_has_the_rule_is_not_moved_out_by_an_older_object() {
    let mut all = Contenders::default();
    all.put("young", contender("young", 20, "key", "a"));
    all.saw(&account("key"), Booking, Some(rule("young", "a")));
    assert_eq!(all.put("old", contender("old", 10, "key", "b")), names(&[]));
    assert_eq!(may_register(&all, "young"), [Booking].into());
    assert_eq!(
        all.saw(&account("key"), Booking, None),
        names(&["old", "young"]),
        "the rule is gone: the older object may have it"
    );
    assert_eq!(may_register(&all, "old"), [Booking].into());
}

/// A running subscription whose url an older one is edited to must go on running.
#[test]
fn who_has_a_rule_below_a_url_keeps_it() {
    let mut all = Contenders::default();
    all.put("young", contender("young", 20, "key", "a"));
    all.saw(&account("key"), Booking, Some(rule("young", "a")));
    all.put("old", contender("old", 10, "other key", "b"));
    assert_eq!(
        all.put("old", contender("old", 10, "other key", "a")),
        names(&[])
    );
    assert_eq!(all.verdict("old").unwrap().url, Err(rival("young")));
    assert!(may_register(&all, "old").is_empty());
    assert_eq!(all.verdict("young").unwrap().url, Ok(()));
}

#[test]
fn who_has_lost_its_url_takes_no_type_from_others_but_keeps_its_rule() {
    let mut all = Contenders::default();
    all.put("first", contender("first", 5, "elsewhere", "a"));
    all.put("old", contender("old", 10, "key", "a"));
    all.put("young", contender("young", 20, "key", "b"));
    assert_eq!(may_register(&all, "young"), [Booking].into());
    // `old` still has its rule from the time before its url was edited.
    all.saw(&account("key"), Booking, Some(rule("old", "where-it-was")));
    assert_eq!(
        all.verdict("young").unwrap().types[&Booking],
        Err(rival("old"))
    );
}

#[test]
fn who_takes_nothing_is_in_nobodys_way_and_is_told() {
    let mut all = Contenders::default();
    let observer = Contender {
        takes: false,
        ..contender("old", 10, "key", "a")
    };
    all.put("old", observer);
    all.put("young", contender("young", 20, "key", "a"));
    assert_eq!(may_register(&all, "young"), [Booking].into());
    assert_eq!(all.verdict("old").unwrap().url, Err(rival("young")));
}

#[test]
fn another_environment_is_another_account_and_the_url_is_shared_all_the_same() {
    let mut all = Contenders::default();
    let production = Contender {
        account: Some(Account {
            environment: Environment::Production,
            ..account("key")
        }),
        ..contender("old", 10, "key", "a")
    };
    all.put("old", production);
    all.put("young", contender("young", 20, "key", "b"));
    assert_eq!(may_register(&all, "young"), [Booking].into());
    all.put("young", contender("young", 20, "key", "a"));
    assert_eq!(all.verdict("young").unwrap().url, Err(rival("old")));
}

#[test]
fn places_differ_in_what_decides_who_answers() {
    let same = [
        "https://hooks.example.com/redeam",
        "https://HOOKS.example.com/redeam/",
        "https://hooks.example.com:443/redeam",
        "https://hooks.example.com./redeam",
        "https://hooks.example.com/x/../redeam",
    ];
    for url in same {
        assert_eq!(Place::of(url), Place::of(same[0]), "{url}");
    }
    for url in [
        "https://hooks.example.com/Redeam",
        "https://hooks.example.com/redeam/more",
        "https://hooks.example.com:8443/redeam",
        "https://other.example.com/redeam",
    ] {
        assert!(Place::of(url).is_some());
        assert_ne!(Place::of(url), Place::of(same[0]), "{url}");
    }
    for url in ["", "hooks.example.com", "http://hooks.example.com/redeam"] {
        assert_eq!(Place::of(url), None, "{url}");
    }
    assert_eq!(
        SeenRule::of("https://hooks.example.com/redeam/rate/0123456789").unwrap(),
        SeenRule {
            owner: "0123456789".parse().unwrap(),
            place: place("redeam"),
        }
    );
    for foreign in [
        "https://hooks.example.com/redeam/rate",
        "https://hooks.example.com/0123456789",
        "",
    ] {
        assert_eq!(SeenRule::of(foreign), None, "{foreign}");
    }
}

/// What was told, as plain lists.
#[derive(Debug, Clone, Default)]
struct World {
    all: BTreeMap<String, Contender>,
    seen: BTreeMap<(Account, NotificationType), SeenRule>,
}

impl World {
    fn has(&self, one: &Contender, wanted: impl Fn(NotificationType, &SeenRule) -> bool) -> bool {
        self.seen.iter().any(|((account, kind), rule)| {
            one.account.as_ref() == Some(account) && rule.owner == one.owner && wanted(*kind, rule)
        })
    }

    fn first(mut queue: Vec<(bool, bool, Timestamp, String)>) -> Option<String> {
        queue.sort();
        queue.into_iter().next().map(|(.., uid)| uid)
    }

    fn has_url(&self, place: &Place) -> Option<String> {
        let rivals = self
            .all
            .iter()
            .filter(|(_, one)| one.place.as_ref() == Some(place));
        let queue = rivals.map(|(uid, one)| {
            let has = self.has(one, |_, rule| rule.place == *place);
            (!has, !one.takes, one.created, uid.clone())
        });
        Self::first(queue.collect())
    }

    fn has_type(&self, account: &Account, kind: NotificationType) -> Option<String> {
        let rivals = self
            .all
            .iter()
            .filter(|(_, one)| one.account.as_ref() == Some(account));
        let queue = rivals.filter_map(|(uid, one)| {
            let has = self.has(one, |seen, _| seen == kind);
            let own_url = one.place.as_ref().and_then(|at| self.has_url(at)).as_ref() == Some(uid);
            (has || one.types.contains(&kind))
                .then(|| (!has, !(one.takes && own_url), one.created, uid.clone()))
        });
        Self::first(queue.collect())
    }

    fn verdict(&self, uid: &str) -> Option<Verdict> {
        let one = self.all.get(uid)?;
        let other = |first: Option<String>| match first {
            Some(first) if first != uid => Err(Rival {
                uid: first.clone(),
                namespace: self.all[&first].namespace.clone(),
                name: self.all[&first].name.clone(),
            }),
            _ => Ok(()),
        };
        let mut types = BTreeMap::new();
        if let Some(account) = &one.account {
            for kind in &one.types {
                types.insert(*kind, other(self.has_type(account, *kind)));
            }
        }
        Some(Verdict {
            url: other(one.place.as_ref().and_then(|at| self.has_url(at))),
            types,
        })
    }

    /// What was seen of an account counts as long as somebody has it.
    fn forget(&mut self) {
        let all = &self.all;
        self.seen.retain(|(account, _), _| {
            all.values()
                .any(|one| one.account.as_ref() == Some(account))
        });
    }
}

#[derive(Debug, Clone)]
enum Told {
    Put(String, Contender),
    Remove(String),
    Saw(Account, NotificationType, Option<SeenRule>),
}

fn told() -> impl Strategy<Value = Told> {
    let keys = || select(vec!["k0", "k1"]);
    let paths = || select(vec!["p0", "p1", "p2"]);
    let put = (
        select(&UIDS[..]),
        0..3_i64,
        proptest::option::weighted(0.9, keys()),
        paths(),
        prop::bool::weighted(0.8),
        subsequence(KINDS.to_vec(), 0..=3),
    )
        .prop_map(|(uid, created, key, path, takes, types)| {
            let one = Contender {
                takes,
                account: key.map(account),
                types: types.into_iter().collect(),
                ..contender(uid, created, "", path)
            };
            Told::Put(uid.to_owned(), one)
        });
    let remove = select(&UIDS[..]).prop_map(|uid| Told::Remove(uid.to_owned()));
    let seen = (
        keys(),
        select(&KINDS[..]),
        proptest::option::of((select(&UIDS[..]), paths())),
    );
    let saw = seen.prop_map(|(key, kind, seen)| {
        let seen = seen.map(|(uid, path)| rule(uid, path));
        Told::Saw(account(key), kind, seen)
    });
    prop_oneof![4 => put, 1 => remove, 3 => saw]
}

proptest! {
    /// Whatever is told in whatever order: the verdicts are the oracle's, exactly those whose
    /// verdict differs are named, and each thing that somebody wants has exactly one taker.
    #[test]
    fn every_history_ends_in_the_verdicts_of_its_last_state(
        history in prop::collection::vec(told(), 1..40),
        seed in any::<u64>(),
    ) {
        let mut world = World::default();
        let mut all = Contenders::default();
        for step in history {
            let before = world.clone();
            let (named, own) = match step {
                Told::Put(uid, one) => {
                    world.all.insert(uid.clone(), one.clone());
                    (all.put(&uid, one), uid)
                }
                Told::Remove(uid) => {
                    world.all.remove(&uid);
                    (all.remove(&uid), uid)
                }
                Told::Saw(account, kind, rule) => {
                    match &rule {
                        Some(rule) => world.seen.insert((account.clone(), kind), rule.clone()),
                        None => world.seen.remove(&(account.clone(), kind)),
                    };
                    (all.saw(&account, kind, rule), String::new())
                }
            };
            world.forget();
            let differ = |uid: &&&str| before.verdict(uid) != world.verdict(uid) && **uid != own;
            prop_assert_eq!(named, UIDS.iter().filter(differ).map(|uid| (*uid).to_owned()).collect());
            for uid in UIDS {
                prop_assert_eq!(all.verdict(uid), world.verdict(uid), "{}", uid);
            }
        }
        let mut takers = BTreeMap::new();
        for (uid, one) in &world.all {
            for (kind, verdict) in all.verdict(uid).unwrap().types {
                let taken: &mut usize = takers.entry((one.account.clone(), kind)).or_default();
                *taken += usize::from(verdict.is_ok());
            }
        }
        for ((account, kind), taken) in takers {
            let kept_unwanted = world.all.values().any(|one| {
                one.account == account
                    && !one.types.contains(&kind)
                    && world.has(one, |seen, _| seen == kind)
            });
            prop_assert_eq!(taken, usize::from(!kept_unwanted), "{}", kind);
        }
        // The same end, told in another order, from nothing.
        let mut order: Vec<_> = world.all.iter().collect();
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut order);
        let mut again = Contenders::default();
        for (uid, one) in order {
            again.put(uid, one.clone());
        }
        let mut rules: Vec<_> = world.seen.iter().collect();
        random.shuffle(&mut rules);
        for ((account, kind), rule) in rules {
            again.saw(account, *kind, Some(rule.clone()));
        }
        for uid in UIDS {
            prop_assert_eq!(again.verdict(uid), all.verdict(uid));
        }
    }
}
