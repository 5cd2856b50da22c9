//! The provider of the model: answers reads, from the truth or from a cache, and fails.
//!
//! Owns: every way in which an answer may be late, old, missing or wrong, within what the rules
//! allow for (`docs/architecture.md`):
//! - what carries no `retrieved` may be what held up to [`STALE_MS`] ago, after a change;
//! - an availability may be from a cache for minutes, and says when it was retrieved;
//! - it may be empty for a moment when nothing is cached;
//! - what exists is denied with a 404 for less than the time that two signals must be apart;
//! - a list may lack everything for as long.
//!
//! Never here: an answer that shows a state which the entity never had, other than those.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::{Clock, UnixMillis};
use bellhop::provider::{Answer, Document, ListItem, Read, ReadError, Reads};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::sim::{BASE, Sim};
use super::truth::{self, Truth};

/// How long after a change the catalogue's answers may show what was before.
pub const STALE_MS: u64 = 4_500;

/// How this provider misbehaves, in percent of the answers unless it says otherwise.
#[derive(Debug, Clone, Default)]
pub struct Temper {
    pub fails: u64,
    pub stale: u64,
    pub denies: u64,
    pub empties: u64,
    /// An availability is kept in a cache for up to this long; 0: never.
    pub cache_ms: u64,
    /// Two caches that do not know of each other.
    pub two_caches: bool,
    /// `retrieved` in milliseconds instead of whole seconds.
    pub fine_retrieved: bool,
    /// Answers that are on their way for seconds.
    pub slow: u64,
    /// Reads that take longer than a claim's lease, in a thousand.
    pub endless: u64,
    /// The provider's clock against true time.
    pub skew_ms: i64,
}

#[derive(Clone)]
struct Cached {
    retrieved: u64,
    until: u64,
    number: usize,
}

pub struct Provider {
    sim: Arc<Sim>,
    pub temper: Temper,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    truth: Truth,
    caches: BTreeMap<(EntityKey, u64), Cached>,
    /// The one moment per entity in which nothing was cached.
    empty: BTreeMap<EntityKey, u64>,
    refuses_until: u64,
    reads: u64,
}

/// What an entity's state is answered as.
enum Shown {
    Nothing,
    State(usize),
}

impl Provider {
    pub fn new(sim: &Arc<Sim>, temper: Temper) -> Arc<Self> {
        Arc::new(Self {
            sim: sim.clone(),
            temper,
            inner: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn truth<T>(&self, look: impl FnOnce(&mut Truth) -> T) -> T {
        look(&mut self.lock().truth)
    }

    /// The provider's time of day.
    pub fn now(&self) -> UnixMillis {
        self.time_of(self.sim.ticks().0)
    }

    fn time_of(&self, ticks: u64) -> UnixMillis {
        UnixMillis(BASE.0 + ticks as i64 + self.temper.skew_ms)
    }

    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Until then all credentials are refused.
    pub fn refuse_until(&self, ticks: u64) {
        self.lock().refuses_until = ticks;
    }

    fn chance(&self, percent: u64) -> bool {
        !self.sim.is_calm() && self.sim.percent(percent)
    }

    fn trouble(&self) -> Option<ReadError> {
        if self.lock().refuses_until > self.sim.ticks().0 {
            return Some(ReadError::Unauthorized { status: 401 });
        }
        self.chance(self.temper.fails).then(|| ReadError::Retry {
            reason: "the model says 503".into(),
            after: self
                .sim
                .percent(30)
                .then(|| Duration::from_millis(500 + self.sim.below(60_000))),
        })
    }

    /// Which state of an entity that shows no `retrieved` is answered now.
    fn shown(&self, inner: &mut Inner, key: &EntityKey) -> Shown {
        let now = self.sim.ticks().0;
        let Some(entity) = inner.truth.entities.get_mut(key) else {
            return Shown::Nothing;
        };
        if let Some((from, until)) = entity.denied {
            if (from..until).contains(&now) && !entity.was_removed() {
                return Shown::Nothing;
            }
        } else if entity.published
            && entity.newest().data.is_some()
            && !entity.was_removed()
            && self.chance(self.temper.denies)
        {
            entity.denied = Some((now, now + 1_000 + self.sim.below(20_000)));
            return Shown::Nothing;
        }
        let newest = entity.versions.len() - 1;
        let oldest = if self.chance(self.temper.stale) {
            entity.as_of(now.saturating_sub(STALE_MS))
        } else {
            newest
        };
        // Going back shows only in what carries a version.
        let shows_age = |number: usize| entity.versions[number].version.is_some();
        let back = entity.versions[oldest].data.is_some() && shows_age(oldest) && entity.base == 0;
        let oldest = if back {
            oldest
        } else {
            oldest.max(entity.answered)
        };
        let number = oldest + self.sim.below((newest - oldest + 1) as u64) as usize;
        entity.answered = entity.answered.max(number);
        if entity.versions[number].data.is_some() {
            Shown::State(number)
        } else {
            Shown::Nothing
        }
    }

    fn single(&self, key: &EntityKey) -> Result<Answer, ReadError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Shown::State(number) = self.shown(inner, key) else {
            return Err(gone());
        };
        let version = &inner.truth.entities[key].versions[number];
        let data = version.data.clone().expect("shown because it exists");
        let empty = key.kind() == NotificationType::PriceSchedule && data == json!({});
        Ok(Answer::One(Document {
            data: self.spell(&data),
            version: version.version,
            retrieved: None,
            expires: None,
            empty,
        }))
    }

    fn rates(&self, key: &EntityKey) -> Result<Answer, ReadError> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let now = self.sim.ticks().0;
        let Shown::State(number) = self.shown(inner, key) else {
            // What is not there has an empty list, or none.
            return if self.sim.percent(50) {
                Ok(Answer::Many(Vec::new()))
            } else {
                Err(gone())
            };
        };
        let data = inner.truth.entities[key].versions[number].data.clone();
        let ids = key.ids();
        let items = rate_ids(data.as_ref())
            .iter()
            .map(|rate| {
                let key = truth::key(NotificationType::Rate, &[ids[0], ids[1], rate]);
                let rate_now = inner.truth.get(&key).and_then(|entity| {
                    let at = entity.as_of(now);
                    entity.versions[..=at]
                        .iter()
                        .rev()
                        .find_map(|version| version.data.clone())
                });
                ListItem {
                    id: rate.clone(),
                    data: self.spell(&rate_now.unwrap_or_else(|| json!({"id": rate}))),
                }
            })
            .collect();
        Ok(Answer::Many(items))
    }

    fn list(&self, kind: NotificationType, above: &[&str]) -> Answer {
        let inner = self.lock();
        let items = inner
            .truth
            .entities
            .iter()
            .filter(|(key, entity)| {
                key.kind() == kind
                    && key.ids()[..above.len()] == *above
                    && entity.newest().data.is_some()
            })
            .map(|(key, entity)| ListItem {
                id: key.ids().last().unwrap().to_string(),
                data: self.spell(entity.newest().data.as_ref().unwrap()),
            })
            .filter(|_| !self.chance(self.temper.empties))
            .collect();
        Answer::Many(items)
    }

    fn availability(&self, key: &EntityKey) -> Result<Answer, ReadError> {
        let now = self.sim.ticks().0;
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(entity) = inner.truth.get(key) else {
            return Err(gone());
        };
        let number = entity.versions.len() - 1;
        if entity.newest().data.is_none() {
            // A cache does not keep what is gone.
            return Err(gone());
        }
        let node = if self.temper.two_caches {
            self.sim.below(2)
        } else {
            0
        };
        let place = (key.clone(), node);
        let since = inner.empty.get(key).copied();
        let nothing_cached = match since {
            Some(since) => now < since + 4_000,
            // What was truly empty would confirm it.
            None => !entity.was_empty() && self.chance(self.temper.empties),
        };
        if nothing_cached {
            inner.empty.entry(key.clone()).or_insert(now);
            return Ok(self.retrieved(&json!({"availability": []}), now, None));
        }
        let kept = inner
            .caches
            .get(&place)
            .filter(|cached| cached.until > now)
            // What was gone in between is not in a cache.
            .filter(|cached| {
                entity.versions[cached.number..]
                    .iter()
                    .all(|version| version.data.is_some())
            })
            .cloned();
        let cached = kept.unwrap_or_else(|| Cached {
            retrieved: now,
            until: match self.temper.cache_ms {
                0 => now,
                most => now + self.sim.below(most),
            },
            number,
        });
        let data = entity.versions[cached.number].data.clone();
        inner.caches.insert(place, cached.clone());
        let expires = (cached.until > now).then_some(cached.until);
        Ok(self.retrieved(&data.expect("filtered"), cached.retrieved, expires))
    }

    fn retrieved(&self, data: &Value, retrieved: u64, expires: Option<u64>) -> Answer {
        let mut time = self.time_of(retrieved);
        if !self.temper.fine_retrieved {
            time = UnixMillis::from_secs(time.as_secs());
        }
        Answer::One(Document {
            empty: data["availability"] == json!([]),
            data: self.spell(data),
            version: None,
            retrieved: Some((time.rfc3339(), time)),
            expires: expires.map(|until| self.time_of(until)),
        })
    }

    /// The same JSON, not always spelt the same.
    fn spell(&self, data: &Value) -> Box<RawValue> {
        let text = if self.sim.percent(50) {
            serde_json::to_string(data).unwrap()
        } else {
            serde_json::to_string(data)
                .unwrap()
                .replacen(':', " :  ", 1)
        };
        RawValue::from_string(text).unwrap()
    }

    fn answer(&self, read: &Read) -> Result<Answer, ReadError> {
        use NotificationType as Kind;
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        match read {
            Read::Suppliers => Ok(self.list(Kind::Supplier, &[])),
            Read::Products { supplier } => Ok(self.list(Kind::Product, &[supplier])),
            _ => {
                let key = key_of(read).expect("the lists are answered above");
                match read {
                    Read::Rates { .. } => self.rates(&key),
                    Read::Availability { .. } => self.availability(&key),
                    _ => self.single(&key),
                }
            }
        }
    }
}

fn gone() -> ReadError {
    ReadError::Gone {
        status: 404,
        code: "not found".into(),
    }
}

pub fn rate_ids(binding: Option<&Value>) -> Vec<String> {
    let Some(rates) = binding.and_then(|data| data["rateIDs"].as_array()) else {
        return Vec::new();
    };
    rates
        .iter()
        .filter_map(|rate| rate.as_str().map(str::to_owned))
        .collect()
}

/// The entity that a single read shows.
fn key_of(read: &Read) -> Option<EntityKey> {
    use NotificationType as Kind;
    Some(match read {
        Read::Suppliers | Read::Products { .. } => return None,
        Read::Supplier { supplier } => truth::key(Kind::Supplier, &[supplier]),
        Read::Product { supplier, product } => truth::key(Kind::Product, &[supplier, product]),
        Read::Rates { supplier, product } => truth::key(Kind::ChannelBinding, &[supplier, product]),
        Read::Rate {
            supplier,
            product,
            rate,
        } => truth::key(Kind::Rate, &[supplier, product, rate]),
        Read::Availability {
            supplier,
            product,
            rate,
            ..
        } => truth::key(Kind::Availability, &[supplier, product, rate]),
        Read::PriceSchedule {
            supplier,
            product,
            rate,
            ..
        } => truth::key(Kind::PriceSchedule, &[supplier, product, rate]),
        Read::Booking { booking } => truth::key(Kind::Booking, &[booking]),
    })
}

#[async_trait]
impl Reads for Provider {
    async fn read(&self, read: &Read) -> Result<Answer, ReadError> {
        self.lock().reads += 1;
        self.sim.pause().await;
        let answer = self.answer(read);
        self.sim.note(5, || {
            let name = key_of(read).map_or_else(|| format!("{read:?}"), |key| key.to_string());
            let words = match &answer {
                Ok(Answer::One(document)) => format!(
                    "{}{}",
                    document.data.get(),
                    document
                        .retrieved
                        .as_ref()
                        .map_or(String::new(), |(text, _)| format!(" retrieved {text}"))
                ),
                Ok(Answer::Many(items)) => {
                    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
                    format!("{ids:?}")
                }
                Err(error) => error.to_string(),
            };
            format!("read {name} -> {words}")
        });
        self.sim.pause().await;
        if self.chance(self.temper.slow) {
            self.sim.sleep_ms(500 + self.sim.below(15_000)).await;
        }
        if !self.sim.is_calm() && self.sim.below(1000) < self.temper.endless {
            self.sim.sleep_ms(self.sim.beyond_a_lease()).await;
        }
        answer
    }

    async fn reload_credentials(&self) -> bool {
        self.sim.give_way(1).await;
        self.sim.percent(20)
    }
}
