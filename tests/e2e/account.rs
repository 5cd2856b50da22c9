//! The account of a load: what became of each notification by the provider's own record, and whether
//! consumers lack one that got its 200. A booking is told of once in the life of a provider, and no
//! list shows it: only that one notification brings it to consumers, and no resync mends its loss.
//! What never got a 200 may differ until it is named to the feed; nothing else may.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::provider::{Counts, Provider};
use crate::shop::{Seen, Shop};

/// How long after the last 200 a consumer may lack something, in seconds.
const PATIENCE: u64 = 30;

/// One try at a delivery.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began, Unix milliseconds.
    pub at_ms: i64,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// How long that took, in milliseconds.
    pub latency_ms: f64,
}

/// A notification and what became of it, as the provider remembers it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Counts up from 1.
    pub id: u64,
    /// What it is about.
    pub entity: String,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// What was sent.
    pub body: String,
    /// Every try.
    pub attempts: Vec<Attempt>,
}

impl Delivery {
    /// Whether it got its 200.
    pub fn got_through(&self) -> bool {
        self.attempts.iter().any(|one| one.status == Some(200))
    }
}

/// The entities that the provider has told of.
#[derive(Debug, Default)]
pub struct Told {
    /// Of these the last notification got its 200: consumers must have them as they are now.
    pub got: BTreeSet<String>,
    /// Of these it never did: consumers may have them as they were, or not at all.
    pub missed: BTreeSet<String>,
}

impl Told {
    /// By all notifications so far.
    pub fn by(deliveries: &[Delivery]) -> Self {
        let mut told = Self::default();
        for delivery in deliveries {
            let (now, before) = if delivery.got_through() {
                (&mut told.got, &mut told.missed)
            } else {
                (&mut told.missed, &mut told.got)
            };
            before.remove(&delivery.entity);
            now.insert(delivery.entity.clone());
        }
        told
    }
}

/// What consumers must have.
#[derive(Debug)]
pub struct Truth {
    /// The objects, by key.
    pub entities: Map<String, Value>,
    /// The kinds of which consumers have nothing else.
    kinds: Vec<&'static str>,
    /// Of these nothing is said.
    excused: BTreeSet<String>,
}

impl Truth {
    /// These are all of their kinds.
    pub fn new(kinds: &[&'static str], entities: Map<String, Value>) -> Self {
        Self {
            entities,
            kinds: kinds.to_vec(),
            excused: BTreeSet::new(),
        }
    }

    /// Of bookings only those that were told of: nobody can know of another one.
    pub fn owed(mut self, told: &Told) -> Self {
        let known = |key: &String| told.got.contains(key) || told.missed.contains(key);
        self.entities
            .retain(|key, _| !is_booking(key) || known(key));
        self
    }

    /// Says nothing of these any more.
    pub fn excuse(mut self, entities: &BTreeSet<String>) -> Self {
        self.entities.retain(|key, _| !entities.contains(key));
        self.excused.extend(entities.iter().cloned());
        self
    }

    /// Whether consumers should not have it.
    pub fn lacks(&self, key: &str) -> bool {
        let kind = key.split('/').next().unwrap_or_default();
        self.kinds.contains(&kind)
            && !self.entities.contains_key(key)
            && !self.excused.contains(key)
    }
}

/// Whether this is the key of a booking.
pub fn is_booking(key: &str) -> bool {
    key.starts_with("booking/")
}

/// The notifications that got a 200 for nothing: what they are about differs at a consumer.
fn lost<'a>(deliveries: &'a [Delivery], differing: &[String]) -> Vec<&'a Delivery> {
    let lost = |one: &&Delivery| one.got_through() && differing.contains(&one.entity);
    deliveries.iter().filter(lost).collect()
}

/// Checks that nothing was lost over a stretch of load, and says the numbers.
#[track_caller]
pub fn check(what: &str, provider: &Provider<'_>, shop: &Shop<'_>, before: Counts) -> Counts {
    let total = provider.counts();
    let counts = total.since(before);
    let deliveries = provider.deliveries();
    assert_eq!(deliveries.len() as u64, total.made, "all are remembered");
    let told = Told::by(&deliveries);
    let bookings = deliveries.iter().map(|one| &one.entity);
    let bookings = bookings.filter(|key| is_booking(key));
    let different: BTreeSet<&String> = bookings.clone().collect();
    assert_eq!(bookings.count(), different.len(), "each is told of once");

    let truth = provider.truth(&["rate", "booking"]).owed(&told);
    let differing = shop.differing(&truth.excuse(&told.missed), PATIENCE);
    // Their numbers count up with the notifications.
    let stretch = &deliveries[usize::try_from(before.made).unwrap()..];
    let lost = lost(stretch, &differing);
    println!("{what}: {counts}; lost: {}", lost.len());
    let never: Vec<&str> = stretch
        .iter()
        .filter(|one| !one.got_through())
        .map(|one| one.entity.as_str())
        .collect();
    if !never.is_empty() {
        println!("{what}: never delivered: {}", never.join(" "));
    }
    assert!(lost.is_empty(), "{what}: lost: {lost:#?}");
    assert!(differing.is_empty(), "{what}: {differing:?}");
    assert_eq!(counts.refused, 0, "{what}: answers that are not retried");
    assert!(counts.delivered > 0, "{what}: {counts}");
    counts
}

/// What never got a 200 is named to the feed. After that nothing differs any more.
#[track_caller]
pub fn mend(provider: &Provider<'_>, shop: &Shop<'_>) {
    shop.refresh(&Told::by(&provider.deliveries()).missed);
    shop.until_equal(&provider.owed(), 60);
}

/// A booking that changes without a notification is to consumers what one is whose 200 was a lie:
/// the account must name it. Nothing may differ before.
#[track_caller]
pub fn a_change_behind_its_back_is_noticed(provider: &Provider<'_>, shop: &Shop<'_>) {
    let deliveries = provider.deliveries();
    let mut got = deliveries.iter().filter(|one| one.got_through());
    let victim = got.find(|one| is_booking(&one.entity)).unwrap();
    provider.change_unnoticed(&victim.entity);
    let differing = shop.differing(&provider.owed(), 1);
    assert!(!differing.is_empty(), "{victim:?}");
    assert!(
        differing.iter().all(|one| *one == victim.entity),
        "{differing:?}"
    );
    let lost: Vec<u64> = lost(&deliveries, &differing)
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(lost, [victim.id]);
    shop.refresh(&BTreeSet::from([victim.entity.clone()]));
    shop.until_equal(&provider.owed(), 60);
}

/// The account of notifications that are made up here, without a cluster: one was lost.
pub fn a_lost_notification_is_noticed() {
    let deliveries = made_up();
    let told = Told::by(&deliveries);
    let missed = ["booking/cut", "booking/never", "rate/1/1/late"].map(str::to_owned);
    assert_eq!(told.missed, BTreeSet::from(missed));
    let newest = json!({ "version": 2 });
    let all = deliveries.iter().map(|one| one.entity.clone());
    let all = all.chain(["booking/untold".to_owned()]);
    let entities: Map<String, Value> = all.map(|key| (key, newest.clone())).collect();
    let truth = || Truth::new(&["rate", "booking"], entities.clone()).owed(&told);
    let seen = |versions: &[(&str, u64)]| {
        let event = |version| json!({ "type": "updated", "data": { "version": version } });
        let one = |(key, version): &(&str, u64)| ((*key).to_owned(), event(*version));
        Seen {
            events: 0,
            entities: versions.iter().map(one).collect(),
        }
    };
    let all_but_one = [
        ("booking/whole", 2),
        ("booking/retried", 2),
        ("rate/1/1/late", 1),
        ("rate/1/1/again", 2),
    ];
    let differing = seen(&all_but_one).differences(&truth().excuse(&told.missed));
    assert_eq!(differing, ["booking/lost"]);
    let found: Vec<u64> = lost(&deliveries, &differing)
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(found, [5], "what got its 200");
    // In the end nothing is excused, and what is old or strange is no better than what is missing.
    let differing = seen(&all_but_one).differences(&truth());
    let mut all = told.missed.clone();
    all.insert("booking/lost".to_owned());
    assert_eq!(BTreeSet::from_iter(differing), all);
    let others = [("booking/whole", 1), ("booking/untold", 2)];
    let differing = seen(&others).differences(&truth().excuse(&told.missed));
    for key in ["booking/whole", "booking/untold, which is not there"] {
        assert!(differing.iter().any(|one| one == key), "{differing:?}");
    }
}

/// Of each fate one; the fifth is what the account must find. No status is a connection that failed.
fn made_up() -> Vec<Delivery> {
    const FATES: [(&str, &[Option<u16>]); 9] = [
        ("booking/whole", &[Some(200)]),
        ("booking/retried", &[Some(503), Some(200)]),
        (
            "booking/never",
            &[Some(503), Some(503), Some(503), Some(503)],
        ),
        ("booking/cut", &[None]),
        ("booking/lost", &[Some(200)]),
        ("rate/1/1/late", &[Some(200)]),
        ("rate/1/1/late", &[None]),
        ("rate/1/1/again", &[Some(503), None]),
        ("rate/1/1/again", &[Some(200)]),
    ];
    let attempt = |status: &Option<u16>| Attempt {
        at_ms: 0,
        status: *status,
        latency_ms: 1.0,
    };
    let fates = FATES.iter().zip(1..);
    let made = fates.map(|((entity, statuses), id)| Delivery {
        id,
        entity: (*entity).to_owned(),
        created_ms: 0,
        body: String::new(),
        attempts: statuses.iter().map(attempt).collect(),
    });
    made.collect()
}
