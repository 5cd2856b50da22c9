//! The hand that steers a running simulator: everything the HTTP control API can do, typed.
//!
//! Owns: [`Control`]. Never here: something that only one of the two, HTTP or handle, can do.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::catalogue::{AlterError, Catalogue, Event, Shape, Window};
use super::core::{Core, cache_rules, payload};
use super::faults::{FaultError, Faults};
use super::http::{RequestCounts, RequestRecord};
use super::kind::{Key, Kind};
use super::record::{Delivery, DeliveryCounts, Origin};
use super::sender::{Outgoing, Signer};
use super::signing::Scheme;
use super::{derive, now_ms};

pub(super) mod http;

/// Why the control API cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The catalogue cannot be changed like that.
    #[error(transparent)]
    Alter(#[from] AlterError),
    /// These are no faults.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// There is no rule of that kind.
    #[error("there is no rule of kind {0}; create it through the registry first")]
    NoRule(&'static str),
    /// The delivery is not remembered.
    #[error("delivery {0} is not remembered (any more)")]
    NoDelivery(u64),
    /// The request does not fit.
    #[error("{0}")]
    Request(String),
}

/// What a change led to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The key of what changed.
    pub key: String,
    /// Ids of the deliveries that were made for it, repeats by faults not included.
    pub deliveries: Vec<u64>,
}

/// Many changes at once, of things chosen at random.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Burst {
    /// How many changes.
    pub count: usize,
    /// Only of these kinds; empty for all that can be changed without removing anything:
    /// supplier, product, rate, availability, price-schedule, booking.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// Only of these entities; empty for all.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Whether none changes twice: `count` different ones, in random order.
    #[serde(default)]
    pub each: bool,
    /// Changes a second; absent for as fast as possible.
    #[serde(default)]
    pub per_second: Option<f64>,
    /// Whether the changes are notified.
    #[serde(default = "yes")]
    pub notify: bool,
}

fn yes() -> bool {
    true
}

/// A notification that nothing caused.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notification {
    /// The key of the entity that it names; it need not exist.
    pub entity: String,
    /// Its operation; absent for what the kind would have.
    #[serde(default)]
    pub operation: Option<String>,
    /// Seconds that its timestamp is ahead of now (negative: in the past).
    #[serde(default)]
    pub timestamp_offset_s: i64,
    /// Sign with a key that is not the rule's.
    #[serde(default)]
    pub wrong_key: bool,
    /// Sign with this scheme instead of the fault `sign`.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// More fields of the body; they win over the usual ones.
    #[serde(default)]
    pub fields: Map<String, Value>,
    /// How often it is sent, each time with a signature of its own.
    #[serde(default = "once")]
    pub times: usize,
}

fn once() -> usize {
    1
}

/// A window of days for availability and prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// The first day, as days since 1970-01-01.
    pub first: i32,
    /// How many days.
    pub count: u32,
}

impl Days {
    /// `count` days from today (UTC) on.
    pub fn from_today(count: u32) -> Self {
        Self {
            first: derive::day_of(now_ms()),
            count,
        }
    }

    /// `count` days from a date (`YYYY-MM-DD`) on. `None`: it is no date.
    pub fn from_date(date: &str, count: u32) -> Option<Self> {
        Some(Self {
            first: derive::day(date.parse().ok()?)?,
            count,
        })
    }

    fn window(self) -> Window {
        Window {
            from: self.first,
            until: self
                .first
                .saturating_add(i32::try_from(self.count).unwrap_or(i32::MAX)),
        }
    }
}

/// Steers a running simulator. Cheap to clone; outlives it harmlessly.
#[derive(Debug, Clone)]
pub struct Control {
    pub(super) core: Arc<Core>,
}

impl Control {
    /// The faults in force.
    pub fn faults(&self) -> Faults {
        (*self.core.faults()).clone()
    }

    /// Replaces the faults in force.
    pub fn set_faults(&self, faults: Faults) {
        self.core.faults.store(Arc::new(faults));
    }

    /// Changes some faults, given as a JSON object of names and values.
    ///
    /// # Errors
    /// An unknown name, or a value that does not fit; nothing is changed then.
    pub fn merge_faults(&self, changes: &Value) -> Result<Faults, ControlError> {
        let merged = self.faults().merged(changes)?;
        self.set_faults(merged.clone());
        Ok(merged)
    }

    /// From the next attempt on, every delivery goes to this base address and the path of its
    /// rule's URL; `None`: to the rule's URL.
    ///
    /// # Errors
    /// It is no http or https address.
    pub fn deliver_to(&self, base: Option<String>) -> Result<(), ControlError> {
        let base = base.map(super::base_address).transpose();
        let base = base.map_err(|error| ControlError::Request(error.to_string()))?;
        self.core.sender.set_deliver_to(base);
        Ok(())
    }

    /// Replaces the catalogue by a new one, without a notification. `shape` gives the numbers of
    /// suppliers, products of each, rates of each product, and bookings.
    pub fn reseed(&self, seed: u64, [suppliers, products, rates, bookings]: [usize; 4]) {
        let shape = Shape {
            suppliers,
            products,
            rates,
            bookings,
        };
        *self.core.catalogue() = Catalogue::new(seed, &shape, now_ms());
    }

    /// The keys of everything that the channel can see, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.core.catalogue().keys()
    }

    /// What an uncached read of the v1.3 reseller API returns as the inner object of an entity
    /// now; `None` when it does not exist or the channel cannot see it.
    pub fn truth(&self, key: &str, days: Days) -> Option<Value> {
        let key = Key::parse(key)?;
        self.core.catalogue().truth(&key, days.window(), now_ms())
    }

    /// The truth of every entity whose key begins with `prefix`, at one instant.
    pub fn truths(&self, prefix: &str, days: Days) -> Vec<(String, Value)> {
        let catalogue = self.core.catalogue();
        let now = now_ms();
        catalogue
            .keys()
            .into_iter()
            .filter(|key| key.starts_with(prefix))
            .filter_map(|text| {
                let key = Key::parse(&text)?;
                let truth = catalogue.truth(&key, days.window(), now)?;
                Some((text, truth))
            })
            .collect()
    }

    /// Creates a supplier, product (with `rates` rates), rate, booking or binding, with `fields`
    /// laid over the derived ones. `notify`: whether the channel is told.
    ///
    /// # Errors
    /// It exists, its parent does not, or `fields` do not fit.
    pub fn create(
        &self,
        key: &str,
        fields: Map<String, Value>,
        rates: Option<usize>,
        notify: bool,
    ) -> Result<Changed, ControlError> {
        let parsed = parse(key)?;
        let events = self
            .core
            .catalogue()
            .create(&parsed, fields, rates, now_ms())?;
        Ok(self.announce(key, events, notify))
    }

    /// Changes an entity. An empty `body` changes it at random. Otherwise: fields to lay over a
    /// supplier, product, rate or booking (`null` takes one away); `{"days":[{"date","slot",
    /// "capacity"}]}` for availability; `{"days":[{"date","retail"}]}` for prices;
    /// `{"rateIDs":[…]}` for a binding.
    ///
    /// # Errors
    /// It does not exist, or `body` does not fit.
    pub fn change(
        &self,
        key: &str,
        body: &Map<String, Value>,
        notify: bool,
    ) -> Result<Changed, ControlError> {
        let parsed = parse(key)?;
        let faults = self.core.faults();
        let cache = cache_rules(&faults);
        let mut rng = self.core.rng().fork();
        let events = self
            .core
            .catalogue()
            .change(&parsed, body, &mut rng, cache, now_ms())?;
        Ok(self.announce(key, events, notify))
    }

    /// Takes an entity away: the reads answer 404 then. Availability and prices stay, empty.
    ///
    /// # Errors
    /// It does not exist.
    pub fn remove(&self, key: &str, notify: bool) -> Result<Changed, ControlError> {
        let parsed = parse(key)?;
        let cache = cache_rules(&self.core.faults());
        let events = self.core.catalogue().remove(&parsed, cache, now_ms())?;
        Ok(self.announce(key, events, notify))
    }

    fn announce(&self, key: &str, events: Vec<Event>, notify: bool) -> Changed {
        let events = if notify { events } else { Vec::new() };
        Changed {
            key: key.to_owned(),
            deliveries: self.core.announce_all(events),
        }
    }

    /// Makes many random changes. Returns the keys that changed, in order.
    ///
    /// # Errors
    /// Nothing fits the selection, or less than `count` with `each`.
    pub async fn burst(&self, burst: Burst) -> Result<Vec<String>, ControlError> {
        let keys = self.candidates(&burst)?;
        let begun = tokio::time::Instant::now();
        let mut changed = Vec::new();
        for n in 0..burst.count {
            if let Some(rate) = burst.per_second.filter(|rate| *rate > 0.0) {
                let due = Duration::try_from_secs_f64(n as f64 / rate).unwrap_or_default();
                tokio::time::sleep_until(begun + due).await;
            } else if n % 64 == 63 {
                tokio::task::yield_now().await;
            }
            let pick = if burst.each {
                n
            } else {
                self.core.rng().usize(0..keys.len())
            };
            let key = &keys[pick];
            // A binding that hid a rate earlier in the burst may have taken this one with it.
            if self.change(key, &Map::new(), burst.notify).is_ok() {
                changed.push(key.clone());
            }
        }
        Ok(changed)
    }

    /// What a burst chooses from; with `each` in the order of the changes.
    fn candidates(&self, burst: &Burst) -> Result<Vec<String>, ControlError> {
        let wanted = |key: &String| {
            let kind = Key::parse(key).map(|key| key.kind);
            (burst.keys.is_empty() || burst.keys.contains(key))
                && kind.is_some_and(|kind| {
                    if burst.kinds.is_empty() && burst.keys.is_empty() {
                        kind != Kind::ChannelBinding
                    } else {
                        burst.kinds.is_empty() || burst.kinds.contains(&kind)
                    }
                })
        };
        let mut keys: Vec<String> = self.keys().into_iter().filter(wanted).collect();
        if keys.is_empty() {
            return Err(ControlError::Request(
                "no entity fits `kinds` and `keys`".to_owned(),
            ));
        }
        if burst.each {
            if burst.count > keys.len() {
                return Err(ControlError::Request(format!(
                    "`count` is {}, and only {} entities fit: with `each` none changes twice",
                    burst.count,
                    keys.len()
                )));
            }
            self.core.rng().shuffle(&mut keys);
        }
        Ok(keys)
    }

    /// Sends a notification that nothing caused, to the rule of its kind, whatever that rule asks
    /// for. Returns the deliveries' ids.
    ///
    /// # Errors
    /// The entity is no key, or there is no rule of its kind.
    pub fn notify(&self, wanted: &Notification) -> Result<Vec<u64>, ControlError> {
        let key = parse(&wanted.entity)?;
        let operation = key.kind.operations().first().copied().unwrap_or("updated");
        let event = Event::about(&key, operation);
        let faults = self.core.faults();
        let rule = self
            .core
            .rules()
            .rules
            .get(&key.kind)
            .cloned()
            .ok_or(ControlError::NoRule(key.kind.name()))?;
        let mut fields = payload(&event, &faults);
        if let Some(operation) = &wanted.operation {
            fields.insert("operation".to_owned(), operation.clone().into());
        }
        fields.extend(wanted.fields.clone());
        let outgoing = Outgoing {
            kind: key.kind,
            entity: wanted.entity.clone(),
            url: rule.url.into(),
            fields: Arc::new(fields),
            signer: Signer {
                scheme: wanted.scheme.unwrap_or(faults.sign),
                key: if wanted.wrong_key {
                    self.core.new_key()
                } else {
                    rule.key
                },
                skew_s: faults.timestamp_skew_s + wanted.timestamp_offset_s,
            },
            anew: faults.sign_retry_anew,
            retry_network: faults.retry_network_errors,
            origin: Origin::Control,
        };
        Ok((0..wanted.times)
            .map(|_| self.core.sender.post(outgoing.clone(), Duration::ZERO))
            .collect())
    }

    /// Sends a remembered notification again, byte for byte. Returns the new delivery's id.
    ///
    /// # Errors
    /// It is not remembered.
    pub fn replay(&self, delivery: u64) -> Result<u64, ControlError> {
        self.core
            .sender
            .repeat(delivery, Duration::ZERO)
            .ok_or(ControlError::NoDelivery(delivery))
    }

    /// Gives a rule a new `securityKey`, as the provider may do at any time. Returns it.
    ///
    /// # Errors
    /// There is no such rule.
    pub fn rotate_key(&self, kind: Kind) -> Result<String, ControlError> {
        let key = self.core.new_key();
        let mut rules = self.core.rules();
        let rule = rules
            .rules
            .get_mut(&kind)
            .ok_or(ControlError::NoRule(kind.name()))?;
        rule.key.clone_from(&key);
        rule.updated_ms = now_ms();
        Ok(key)
    }

    /// The rules as the registry would return them, by kind.
    pub fn rules(&self) -> Vec<(Kind, Value)> {
        let faults = self.core.faults();
        let rules = self.core.rules();
        rules
            .rules
            .iter()
            .map(|(kind, rule)| (*kind, rule.json(&faults)))
            .collect()
    }

    /// Remembered requests with an id above `after`, oldest first, at most `limit`.
    pub fn requests(&self, after: u64, limit: usize) -> Vec<RequestRecord> {
        let log = self.core.requests();
        let records = log.records.iter().filter(|record| record.id > after);
        records.take(limit).cloned().collect()
    }

    /// Numbers over all requests.
    pub fn request_counts(&self) -> RequestCounts {
        self.core.requests().counts.clone()
    }

    /// Remembered deliveries with an id above `after`, oldest first, at most `limit`.
    pub fn deliveries(&self, after: u64, limit: usize) -> Vec<Delivery> {
        self.core.sender.deliveries(after, limit)
    }

    /// Numbers over all deliveries.
    pub fn delivery_counts(&self) -> DeliveryCounts {
        self.core.sender.counts()
    }

    /// Waits until no delivery is pending; false when `limit` passed first.
    pub async fn idle(&self, limit: Duration) -> bool {
        self.core.sender.idle(limit).await
    }

    /// Seed, addresses and numbers: what `GET /control/status` answers.
    pub fn status(&self) -> Value {
        json!({
            "seed": self.core.seed,
            "baseUrl": self.core.base_url,
            "rules": self.core.rules().rules.keys().collect::<Vec<_>>(),
            "requests": self.request_counts(),
            "deliveries": self.delivery_counts(),
        })
    }
}

fn parse(key: &str) -> Result<Key, ControlError> {
    Key::parse(key).ok_or_else(|| AlterError::Key(key.to_owned()).into())
}
