//! What the parts of a simulator share, and the way from an event to its deliveries.
//!
//! Owns: the locks (each is held for one step and never while another is taken), the seeded
//! randomness, and which notification an event becomes. Never here: sending.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Map, Value};

use super::catalogue::{CacheRules, Catalogue, Event};
use super::faults::{Faults, WhileDisabled};
use super::record::Origin;
use super::registry::Rules;
use super::sender::{Outgoing, Sender, Signer};
use super::{Kind, derive, http};

/// What all parts of a simulator share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) seed: u64,
    pub(super) base_url: String,
    pub(super) api_key: String,
    pub(super) api_secret: String,
    pub(super) remembered: usize,
    pub(super) faults: ArcSwap<Faults>,
    pub(super) rng: Arc<Mutex<fastrand::Rng>>,
    pub(super) catalogue: Mutex<Catalogue>,
    pub(super) rules: Mutex<Rules>,
    pub(super) holds: Mutex<BTreeMap<String, Value>>,
    pub(super) requests: Mutex<http::RequestLog>,
    pub(super) sender: Arc<Sender>,
}

/// A panic while a lock was held is a failed test already; the data is still the best there is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(super) fn faults(&self) -> Arc<Faults> {
        self.faults.load_full()
    }

    pub(super) fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        lock(&self.rng)
    }

    pub(super) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        lock(&self.catalogue)
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    pub(super) fn holds(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        lock(&self.holds)
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, http::RequestLog> {
        lock(&self.requests)
    }

    /// True with a probability. Never draws when the answer is certain.
    pub(super) fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.rng().f64() < probability)
    }

    /// A number from `low` to `high`; `low` when `high` is not above it.
    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        if high > low {
            self.rng().u64(low..=high)
        } else {
            low
        }
    }

    pub(super) fn pick(&self, from: &[u16]) -> Option<u16> {
        self.rng().choice(from).copied()
    }

    /// A key or id that looks like the provider's.
    pub(super) fn new_key(&self) -> String {
        uuid::Builder::from_random_bytes(self.rng().u128(..).to_be_bytes())
            .into_uuid()
            .to_string()
    }

    /// Tells the channel of events, as far as its rules ask for them. The deliveries' ids.
    pub(super) fn announce_all(&self, events: impl IntoIterator<Item = Event>) -> Vec<u64> {
        events
            .into_iter()
            .filter_map(|event| self.announce(event))
            .collect()
    }

    pub(super) fn announce(&self, event: Event) -> Option<u64> {
        let faults = self.faults();
        let (url, key) = {
            let mut rules = self.rules();
            let rule = rules.rules.get(&event.kind);
            match rule.filter(|rule| rule.asks_for(&event, &faults)) {
                None => {
                    drop(rules);
                    self.sender.count_unasked();
                    return None;
                }
                Some(rule) if rule.disabled => {
                    // Bounded like the sending queue would be.
                    if faults.while_disabled == WhileDisabled::Queue
                        && rules.held.len() < self.remembered
                    {
                        rules.held.push(event);
                    } else {
                        drop(rules);
                        self.sender.count_unasked();
                    }
                    return None;
                }
                Some(rule) => (rule.url.clone(), rule.key.clone()),
            }
        };
        let key = if self.chance(faults.wrong_signature) {
            self.new_key()
        } else {
            key
        };
        let outgoing = Outgoing {
            kind: event.kind,
            entity: event.key(),
            url: url.into(),
            fields: Arc::new(payload(&event, &faults)),
            signer: Signer {
                scheme: faults.sign,
                key,
                skew_s: faults.timestamp_skew_s,
            },
            anew: faults.sign_retry_anew,
            retry_network: faults.retry_network_errors,
            origin: Origin::Change,
        };
        if self.chance(faults.drop) {
            return Some(self.sender.post_dropped(outgoing));
        }
        let id = self.sender.post(outgoing, self.delay(&faults));
        if self.chance(faults.duplicate) {
            self.sender.repeat(id, self.delay(&faults));
        }
        if self.chance(faults.replay) {
            let pick = self.rng().u64(..);
            self.sender.repeat_any(pick);
        }
        Some(id)
    }

    pub(super) fn delay(&self, faults: &Faults) -> Duration {
        let mut millis = self.between(faults.delay_min_ms, faults.delay_max_ms);
        if self.chance(faults.reorder) {
            millis += self.between(0, faults.reorder_ms);
        }
        Duration::from_millis(millis)
    }

    /// Sends what waited for a rule to be enabled.
    pub(super) fn release_held(&self, kind: Kind) {
        let waiting: Vec<Event> = {
            let mut rules = self.rules();
            let (now, later) = std::mem::take(&mut rules.held)
                .into_iter()
                .partition(|event| event.kind == kind);
            rules.held = later;
            now
        };
        self.announce_all(waiting);
    }
}

/// How the availability cache works under these faults.
pub(super) fn cache_rules(faults: &Faults) -> CacheRules {
    let millis = |value: u64| i64::try_from(value).unwrap_or(i64::MAX / 4);
    CacheRules {
        max_age_ms: millis(faults.cache_max_age_ms),
        fill_ms: millis(faults.cache_fill_ms),
        reload_on_change: faults.cache_reload,
        times_ms: faults.cache_times_ms,
    }
}

/// The fields of a notification without its signature.
pub(super) fn payload(event: &Event, faults: &Faults) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value.clone().into());
        }
    };
    put("bookingID", event.booking.as_ref());
    if event.kind != Kind::Booking || faults.booking_parents {
        put("supplierID", event.supplier.as_ref());
        put("productID", event.product.as_ref());
    }
    if event.kind.id_count() == 3 {
        put("rateID", event.rates.first());
    }
    let always = matches!(
        event.kind,
        Kind::ChannelBinding | Kind::Supplier | Kind::Product | Kind::Rate
    );
    if always || faults.operation_everywhere {
        fields.insert("operation".to_owned(), event.operation.into());
    }
    if let Some((first, last)) = event.days.filter(|_| faults.date_range) {
        let midnight = |day: i32| derive::rfc3339(i64::from(day) * 86_400_000, false);
        fields.insert("start".to_owned(), midnight(first).into());
        fields.insert("end".to_owned(), midnight(last + 1).into());
    }
    fields
}
