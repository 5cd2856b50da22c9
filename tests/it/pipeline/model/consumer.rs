//! The consumers of the model: one that lists and watches, and sinks that are sometimes not well.
//!
//! Owns: what each consumer has seen, which it keeps over every crash of Bellhop, and the rules
//! that each event must keep: whoever drops repeated revisions never sees an entity go back, no
//! revision comes after a newer one, and what an event says was once true.
//!
//! Never here: a look into the store. All is read from the CloudEvents that Bellhop makes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::EntityKey;
use bellhop::publish::event::Origin;
use bellhop::publish::{Class, Sink, Verdict};
use bellhop::settings::Identity;
use bellhop::state::{Epoch, State, StoredEvent};
use serde_json::Value;

use super::disk::Disk;
use super::provider::Provider;
use super::sim::Sim;

/// Attempts after the first before a sink's event is a dead letter.
pub const RETRY: u32 = 5;

/// What one consumer has of one entity.
#[derive(Default)]
struct Held {
    revisions: BTreeSet<u64>,
    /// How often it turned a revision down, for good or for once.
    turned_down: BTreeMap<u64, u32>,
    newest: u64,
    /// Which of the entity's states that was.
    number: usize,
    data: Option<Value>,
}

/// One consumer.
pub struct Consumer {
    pub name: String,
    /// Whether it lists first: then what it watches may be older than what it has.
    lists: bool,
    sim: Arc<Sim>,
    provider: Arc<Provider>,
    held: Mutex<BTreeMap<EntityKey, Held>>,
}

pub fn origin(epoch: &Epoch) -> Origin {
    let identity = Identity {
        namespace: "shop".into(),
        name: "redeam".into(),
        uid: "uid".into(),
        owner: "0123456789".into(),
        environment: "sandbox".into(),
    };
    Origin::new(&identity, "https://provider.example/v1.3", epoch)
}

impl Consumer {
    pub fn new(name: &str, lists: bool, sim: &Arc<Sim>, provider: &Arc<Provider>) -> Arc<Self> {
        Arc::new(Self {
            lists,
            name: name.into(),
            sim: sim.clone(),
            provider: provider.clone(),
            held: Mutex::default(),
        })
    }

    /// Takes in one CloudEvent, structured.
    pub fn take(&self, event: &[u8]) {
        let event: Value = serde_json::from_slice(event).expect("structured JSON");
        let key: EntityKey = event["subject"].as_str().unwrap().parse().unwrap();
        let revision: u64 = event["sequence"].as_str().unwrap().parse().unwrap();
        let removed = event["type"].as_str().unwrap().ends_with(".removed");
        let data = event.get("data").cloned();
        self.sim.note(revision, || {
            let what = data.as_ref().map_or("removed".into(), Value::to_string);
            format!("{} gets {key} {revision} {what}", self.name)
        });
        if removed == data.is_some() {
            self.wrong(&key, "an event has data exactly if it is no removal");
        }
        let mut held = self.held.lock().unwrap();
        let held = held.entry(key.clone()).or_default();
        if !held.revisions.insert(revision) {
            return;
        }
        if revision < held.newest {
            // It was given up; a crash before that was durable sends it once more. And whoever
            // lists sees newer states than those that follow its cursor.
            if held.turned_down.get(&revision) > Some(&RETRY) || self.lists {
                return;
            }
            self.wrong(&key, "an event came after a newer one of its entity");
            return;
        }
        held.newest = revision;
        let shows = self.provider.truth(|truth| {
            let entity = truth.entities.get_mut(&key)?;
            let versions = entity.versions.iter().enumerate().skip(held.number);
            let mut fitting = versions.filter(|(_, version)| version.data == data);
            let (number, _) = fitting.next()?;
            entity.published = true;
            Some(number)
        });
        match shows {
            Some(number) => held.number = number,
            None if removed => self.wrong(&key, "it was reported removed while it existed"),
            None => self.wrong(&key, "an event shows what was never true, or went back"),
        }
        held.data = data;
    }

    /// It does not take an event; `for_good` makes it a dead letter at once.
    fn turn_down(&self, event: &StoredEvent, for_good: bool) {
        let mut held = self.held.lock().unwrap();
        let held = held.entry(event.key.clone()).or_default();
        let times = held.turned_down.entry(event.revision).or_default();
        *times += if for_good { RETRY + 1 } else { 1 };
    }

    fn wrong(&self, key: &EntityKey, what: &str) {
        self.sim.fail(format!("{}: {key}: {what}", self.name));
    }

    /// Compares what it holds with the truth, wherever the truth is owed.
    pub fn compare(&self) {
        let held = self.held.lock().unwrap();
        self.provider.truth(|truth| {
            for (key, entity) in &truth.entities {
                let has = held.get(key).and_then(|held| held.data.as_ref());
                let is = entity.newest().data.as_ref();
                if truth.owed(key) && has != is {
                    let words =
                        |data: Option<&Value>| data.map_or("nothing".into(), Value::to_string);
                    self.sim.fail(format!(
                        "{}: {key}: holds {} while the provider has {}",
                        self.name,
                        words(has),
                        words(is)
                    ));
                }
            }
        });
    }
}

/// Lists, then watches, over every crash.
pub struct Watcher {
    pub consumer: Arc<Consumer>,
    cursor: Mutex<Option<u64>>,
}

impl Watcher {
    pub fn new(consumer: Arc<Consumer>) -> Self {
        Self {
            consumer,
            cursor: Mutex::new(None),
        }
    }

    pub fn cursor(&self) -> u64 {
        self.cursor.lock().unwrap().unwrap_or(0)
    }

    /// Reads what there is, and waits for more; ends with the process it reads from.
    pub async fn watch(&self, disk: &Disk) {
        let sim = &self.consumer.sim;
        let origin = origin(disk.epoch());
        let mut head = disk.head();
        loop {
            let at = *self.cursor.lock().unwrap();
            let Some(after) = at else {
                self.list(disk, &origin).await;
                continue;
            };
            let newest = *head.borrow_and_update();
            if newest <= after {
                let _ = head.changed().await;
                continue;
            }
            match disk
                .events(after, 1 + sim.below(20) as usize, 1 << 20)
                .await
            {
                // What was there is no longer kept: a newer event of its entity was before.
                Ok(Ok(events)) if events.is_empty() => {
                    *self.cursor.lock().unwrap() = Some(newest);
                }
                Ok(Ok(events)) => {
                    for event in events {
                        let mut cursor = self.cursor.lock().unwrap();
                        if Some(event.sequence) <= *cursor {
                            sim.fail("the sequence of events does not rise".into());
                        }
                        *cursor = Some(event.sequence);
                        drop(cursor);
                        self.consumer.take(&origin.structured(&event));
                    }
                }
                Ok(Err(gone)) => sim.fail(format!("the watcher must list again: {gone}")),
                Err(_) => sim.sleep_ms(500).await,
            }
            if sim.failure().is_some() {
                return;
            }
        }
    }

    async fn list(&self, disk: &Disk, origin: &Origin) {
        let cursor = *disk.head().borrow();
        let mut after = None;
        loop {
            let limit = 1 + self.consumer.sim.below(5) as usize;
            match disk.list(None, after.as_ref(), limit).await {
                Ok(page) => {
                    for event in page.items {
                        self.consumer.take(&origin.structured(&event));
                    }
                    after = page.next;
                    if after.is_none() {
                        *self.cursor.lock().unwrap() = Some(cursor);
                        return;
                    }
                }
                Err(_) => self.consumer.sim.sleep_ms(500).await,
            }
        }
    }
}

/// How a sink misbehaves, in percent of the attempts.
#[derive(Debug, Clone, Default)]
pub struct Mood {
    pub not_well: u64,
    pub fails: u64,
    pub refuses: u64,
    pub hangs: u64,
    /// It takes the event, and its answer is lost.
    pub takes_silently: u64,
    /// Every third entity fails until the model calms down.
    pub chokes: bool,
}

/// A sink.
pub struct Shop {
    pub consumer: Arc<Consumer>,
    pub mood: Mood,
    pub epoch: Epoch,
}

impl Shop {
    fn chokes_on(&self, key: &EntityKey) -> bool {
        self.mood.chokes && key.as_str().bytes().map(u32::from).sum::<u32>() % 3 == 0
    }

    fn hit(&self, percent: u64) -> bool {
        !self.consumer.sim.is_calm() && self.consumer.sim.percent(percent)
    }
}

#[async_trait]
impl Sink for Shop {
    async fn send(&self, event: &StoredEvent) -> Verdict {
        let sim = &self.consumer.sim;
        sim.pause().await;
        let not_well = |class| Verdict::NotWell {
            class,
            retry_after: None,
        };
        if self.hit(self.mood.hangs) {
            sim.sleep_ms(60_000).await;
        }
        if self.hit(self.mood.refuses) {
            self.consumer.turn_down(event, true);
            return Verdict::Refused {
                class: Class::Rejected,
                reason: "the model says 422".into(),
            };
        }
        if self.hit(self.mood.fails) || (!sim.is_calm() && self.chokes_on(&event.key)) {
            self.consumer.turn_down(event, false);
            return Verdict::Failed {
                class: Class::Other,
                reason: "the model says 418".into(),
            };
        }
        if self.hit(self.mood.not_well) {
            return Verdict::NotWell {
                class: Class::Throttled,
                retry_after: sim
                    .percent(40)
                    .then(|| Duration::from_secs(1 + sim.below(40))),
            };
        }
        self.consumer.take(&origin(&self.epoch).structured(event));
        let silently = self.hit(self.mood.takes_silently);
        sim.pause().await;
        if silently {
            return not_well(Class::Connection);
        }
        Verdict::Delivered
    }
}
