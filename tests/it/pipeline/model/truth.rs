//! What is true at the provider: every entity, and every state it ever had.
//!
//! Owns: the oracle. A consumer's state is right when it is the newest one here, and an event is
//! right when it shows a state that the entity had, no older than what the consumer saw before.
//!
//! Never here: anything that Bellhop computed.

use std::collections::BTreeMap;

use bellhop::api::{EntityKey, NotificationType};
use serde_json::{Value, json};

use super::sim::BASE;

/// One state of an entity.
#[derive(Clone)]
pub struct Snapshot {
    /// Since when, in the model's time.
    pub at: u64,
    /// `None`: it does not exist.
    pub data: Option<Value>,
    /// The `version` that its answers carry.
    pub version: Option<i64>,
    /// Whose notification tells of it, if not its own: it came or went with that parent.
    pub with: Option<EntityKey>,
}

pub struct Entity {
    pub versions: Vec<Snapshot>,
    /// Never an older state than this one is answered, where an answer does not show its age.
    pub answered: usize,
    /// The one time that it is denied although it exists: from, until.
    pub denied: Option<(u64, u64)>,
    /// A consumer has it: Bellhop committed it.
    pub published: bool,
    /// Notifications of it that were answered with 200: when they were written.
    pub acknowledged: Vec<u64>,
    /// Whether its answers carry a `version`.
    pub versioned: bool,
    /// What is added to a state's number to make its `version`; it falls when the provider was
    /// restored from a backup.
    pub base: i64,
}

#[derive(Default)]
pub struct Truth {
    pub entities: BTreeMap<EntityKey, Entity>,
}

impl Entity {
    pub fn newest(&self) -> &Snapshot {
        self.versions.last().expect("made with one")
    }

    /// The place of the state that held at `at`.
    pub fn as_of(&self, at: u64) -> usize {
        self.versions
            .iter()
            .rposition(|version| version.at <= at)
            .unwrap_or(0)
    }

    /// Whether it ever said nothing at all.
    pub fn was_empty(&self) -> bool {
        let empty = Some(json!({"availability": []}));
        self.versions.iter().any(|version| version.data == empty)
    }

    /// Whether it was there, then gone.
    pub fn was_removed(&self) -> bool {
        self.versions
            .windows(2)
            .any(|pair| pair[0].data.is_some() && pair[1].data.is_none())
    }
}

pub fn key(kind: NotificationType, ids: &[&str]) -> EntityKey {
    EntityKey::new(kind, ids).unwrap()
}

/// The `truth` days ahead: all within every window that is ever asked for.
fn day(ahead: i64) -> String {
    bellhop::clock::UnixMillis(BASE.0 + (2 + ahead) * 86_400_000).rfc3339()[..10].to_owned()
}

/// The data of state number `number` of an entity. `variant` picks among the shapes it can have.
pub fn data(key: &EntityKey, number: usize, version: Option<i64>, variant: u64) -> Value {
    let ids = key.ids();
    match key.kind() {
        NotificationType::Availability if variant == 1 => json!({"availability": []}),
        NotificationType::Availability => json!({"availability": [
            {"start": format!("{}T10:00:00Z", day(0)), "capacity": number},
            {"start": format!("{}T10:00:00Z", day(number as i64 % 3)), "capacity": 7},
        ]}),
        NotificationType::PriceSchedule if variant == 1 => json!({}),
        NotificationType::PriceSchedule => json!({day(0): [{"net": {"amount": number}}]}),
        NotificationType::ChannelBinding => {
            json!({"supplierID": ids[0], "productID": ids[1], "rateIDs": []})
        }
        _ => {
            let mut object = json!({"id": ids.last().unwrap(), "state": number});
            if let Some(version) = version {
                object["version"] = json!(version);
            }
            if key.kind() == NotificationType::Rate {
                object["type"] = json!(if variant == 1 { "FREESALE" } else { "RESERVED" });
            }
            object
        }
    }
}

impl Truth {
    pub fn get(&self, key: &EntityKey) -> Option<&Entity> {
        self.entities.get(key)
    }

    pub fn exists(&self, key: &EntityKey) -> bool {
        self.get(key)
            .is_some_and(|entity| entity.newest().data.is_some())
    }

    /// Adds a state; gives its number.
    pub fn change(
        &mut self,
        key: &EntityKey,
        at: u64,
        with: Option<&EntityKey>,
        versioned: bool,
        make: impl FnOnce(usize, Option<i64>) -> Option<Value>,
    ) -> usize {
        let entity = self.entities.entry(key.clone()).or_insert_with(|| Entity {
            versions: vec![Snapshot {
                at: 0,
                data: None,
                version: None,
                with: None,
            }],
            answered: 0,
            denied: None,
            published: false,
            acknowledged: Vec::new(),
            versioned,
            base: 0,
        });
        let number = entity.versions.len();
        let version = entity.versioned.then_some(number as i64 + entity.base);
        entity.versions.push(Snapshot {
            at,
            data: make(number, version),
            version,
            with: with.cloned(),
        });
        number
    }

    /// Whether consumers must hold the newest state of an entity: some notification that was
    /// written at or after its last change was answered with 200.
    pub fn owed(&self, key: &EntityKey) -> bool {
        let Some(entity) = self.get(key) else {
            return false;
        };
        let last = entity.newest();
        let told = |entity: &Entity| {
            entity
                .acknowledged
                .iter()
                .any(|written| *written >= last.at)
        };
        let parent = last.with.as_ref().and_then(|parent| self.get(parent));
        // A parent that is gone tells only of what went with it.
        let tells = |parent: &Entity| parent.newest().data.is_some() || last.data.is_none();
        told(entity) || parent.is_some_and(|parent| told(parent) && tells(parent))
    }
}
