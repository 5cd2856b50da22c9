//! Changes of the catalogue, and the events that they are.
//!
//! Owns: what may be created, changed and removed, which versions rise, and which notifications a
//! change deserves (provider reference, payload page: suppliers and products have only `updated`;
//! what appears or disappears shows as a channel-binding event of its product). Never here:
//! whether a notification is really sent.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Booking, CacheRules, Cached, Catalogue, HORIZON_DAYS, Product, Rate, Supplier, Tracked,
};
use crate::simulator::derive;
use crate::simulator::kind::{Key, Kind};

/// Something that happened and that the channel may be told.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::simulator) struct Event {
    pub(in crate::simulator) kind: Kind,
    pub(in crate::simulator) operation: &'static str,
    pub(in crate::simulator) supplier: Option<String>,
    pub(in crate::simulator) product: Option<String>,
    /// The rate of rate-level kinds; the rates concerned, for filters, of a channel binding.
    pub(in crate::simulator) rates: Vec<String>,
    pub(in crate::simulator) booking: Option<String>,
    /// First and last day concerned.
    pub(in crate::simulator) days: Option<(i32, i32)>,
}

impl Event {
    /// An event of `kind` about the entity of `key`.
    pub(in crate::simulator) fn about(key: &Key, operation: &'static str) -> Self {
        let id = |n: usize| key.ids.get(n).cloned();
        let booking = key.kind == Kind::Booking;
        Self {
            kind: key.kind,
            operation,
            supplier: id(0).filter(|_| !booking),
            product: id(1),
            rates: id(2).into_iter().collect(),
            booking: id(0).filter(|_| booking),
            days: None,
        }
    }

    /// The entity key that the notification names.
    pub(in crate::simulator) fn key(&self) -> String {
        let rate = self.rates.first().filter(|_| self.kind.id_count() == 3);
        [Some(&self.kind.name().to_owned())]
            .into_iter()
            .chain(if self.kind == Kind::Booking {
                [self.booking.as_ref(), None, None]
            } else {
                [self.supplier.as_ref(), self.product.as_ref(), rate]
            })
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// Why the catalogue cannot be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum AlterError {
    /// Nothing the channel can see has this key.
    #[error("there is no `{0}` that the channel can see; GET /control/entities lists all keys")]
    Unknown(String),
    /// It exists already.
    #[error("`{0}` exists already; change it with PATCH")]
    Exists(String),
    /// The text is no key.
    #[error(
        "`{0}` is no entity key; the forms are supplier/S, product/S/P, channel-binding/S/P, rate/S/P/R, availability/S/P/R, price-schedule/S/P/R, booking/B"
    )]
    Key(String),
    /// The body does not fit.
    #[error("{0}")]
    Body(String),
}

type Altered = Result<Vec<Event>, AlterError>;

fn binding(s: &str, p: &str, rates: Vec<String>, operation: &'static str) -> Event {
    let key = Key {
        kind: Kind::ChannelBinding,
        ids: vec![s.to_owned(), p.to_owned()],
    };
    Event {
        rates,
        ..Event::about(&key, operation)
    }
}

fn unknown(key: &Key) -> AlterError {
    AlterError::Unknown(text(key))
}

fn text(key: &Key) -> String {
    format!("{}/{}", key.kind.name(), key.ids.join("/"))
}

impl Catalogue {
    /// Makes something new. A product comes with `rates` rates; a channel binding makes an
    /// existing product visible again.
    pub(in crate::simulator) fn create(
        &mut self,
        key: &Key,
        fields: Map<String, Value>,
        rates: Option<usize>,
        now_ms: i64,
    ) -> Altered {
        check_fields(&fields)?;
        let exists = || AlterError::Exists(text(key));
        let ids: Vec<&str> = key.ids.iter().map(String::as_str).collect();
        let first_version = self.retired.get(&text(key)).map_or(1, |last| last + 1);
        let content = Tracked::at(first_version, fields.clone());
        match (key.kind, ids.as_slice()) {
            (Kind::Supplier, [s]) => {
                if self.suppliers.contains_key(*s) {
                    return Err(exists());
                }
                let supplier = Supplier {
                    ordinal: self.suppliers.len(),
                    content,
                    products: std::collections::BTreeMap::new(),
                };
                self.suppliers.insert((*s).to_owned(), supplier);
                Ok(Vec::new())
            }
            (Kind::Product, [s, p]) => {
                let count = rates.unwrap_or(self.rates_by_default).max(1);
                let made: Vec<String> = (0..count).map(|_| self.next_id("rate")).collect();
                let supplier = self
                    .suppliers
                    .get_mut(*s)
                    .ok_or_else(|| AlterError::Unknown(format!("supplier/{s}")))?;
                if supplier.products.contains_key(*p) {
                    return Err(exists());
                }
                let product = Product {
                    ordinal: supplier.products.len(),
                    bound: true,
                    content,
                    rates: made
                        .iter()
                        .enumerate()
                        .map(|(n, r)| (r.clone(), Rate::new(n, Map::new())))
                        .collect(),
                };
                supplier.products.insert((*p).to_owned(), product);
                Ok(vec![binding(s, p, made, "created")])
            }
            (Kind::Rate, [s, p, r]) => {
                let product = self
                    .product_mut(s, p)
                    .ok_or_else(|| AlterError::Unknown(format!("product/{s}/{p}")))?;
                if product.rates.contains_key(*r) {
                    return Err(exists());
                }
                let mut rate = Rate::new(product.rates.len(), Map::new());
                rate.content = content;
                product.rates.insert((*r).to_owned(), rate);
                let operation = if product.bound { "updated" } else { "created" };
                product.bound = true;
                Ok(vec![binding(s, p, vec![(*r).to_owned()], operation)])
            }
            (Kind::ChannelBinding, [s, p]) => {
                let product = self.product_mut(s, p).ok_or_else(|| unknown(key))?;
                if product.bound {
                    return Err(exists());
                }
                if product.rates.is_empty() {
                    return Err(AlterError::Body(
                        "the product has no rate to bind".to_owned(),
                    ));
                }
                product.bound = true;
                for rate in product.rates.values_mut() {
                    rate.bound = true;
                }
                let rates = product.rates.keys().cloned().collect();
                Ok(vec![binding(s, p, rates, "created")])
            }
            (Kind::Booking, [b]) => {
                if self.bookings.contains_key(*b) {
                    return Err(exists());
                }
                let items = fields.get("items").cloned();
                let items = match items.or_else(|| self.some_items(now_ms)) {
                    Some(items) => items,
                    None => return Err(AlterError::Body("there is no rate to book".to_owned())),
                };
                let mut fields = fields;
                fields.remove("items");
                self.add_booking(Some((*b).to_owned()), items, fields, now_ms);
                if let Some(booking) = self.bookings.get_mut(*b) {
                    booking.content.now.version = first_version;
                }
                Ok(vec![self.booking_event(b)])
            }
            _ => Err(AlterError::Body(format!(
                "{} exists with its rate; change it with PATCH",
                key.kind.name()
            ))),
        }
    }

    /// Changes something, as `body` says or, when that is empty, by itself.
    pub(in crate::simulator) fn change(
        &mut self,
        key: &Key,
        body: &Map<String, Value>,
        rng: &mut fastrand::Rng,
        cache: CacheRules,
        now_ms: i64,
    ) -> Altered {
        let ids: Vec<&str> = key.ids.iter().map(String::as_str).collect();
        let event = Event::about(key, "updated");
        match (key.kind, ids.as_slice()) {
            (Kind::Availability, [s, p, r]) => {
                let days = self.change_slots([s, p, r], body, rng, cache, now_ms)?;
                Ok(vec![Event { days, ..event }])
            }
            (Kind::PriceSchedule, [s, p, r]) => {
                let days = self.change_prices([s, p, r], body, rng, now_ms)?;
                Ok(vec![Event { days, ..event }])
            }
            (Kind::ChannelBinding, [s, p]) => self.change_binding(s, p, body, rng),
            _ => {
                check_fields(body)?;
                let tracked = self.tracked_mut(key).ok_or_else(|| unknown(key))?;
                let mut fields = body.clone();
                if fields.is_empty() {
                    let change = (tracked.now.version + 1).to_string();
                    fields.insert("ext".into(), json!({ "change": change }));
                }
                tracked.change(&fields, now_ms);
                Ok(vec![match ids.as_slice() {
                    [b] if key.kind == Kind::Booking => self.booking_event(b),
                    _ => event,
                }])
            }
        }
    }

    /// Takes something away. Availability and prices stay, without a slot or a price.
    pub(in crate::simulator) fn remove(
        &mut self,
        key: &Key,
        cache: CacheRules,
        now_ms: i64,
    ) -> Altered {
        let ids: Vec<&str> = key.ids.iter().map(String::as_str).collect();
        let event = Event::about(key, "updated");
        match (key.kind, ids.as_slice()) {
            (Kind::Supplier, [s]) => {
                let supplier = self.suppliers.remove(*s).ok_or_else(|| unknown(key))?;
                self.retire(key, &supplier.content);
                let visible = supplier.products.iter().filter(|(_, p)| p.bound);
                Ok(visible
                    .map(|(p, product)| {
                        binding(s, p, product.rates.keys().cloned().collect(), "removed")
                    })
                    .collect())
            }
            (Kind::Product, [s, p]) => {
                let products = self.suppliers.get_mut(*s).map(|s| &mut s.products);
                let product = products
                    .and_then(|products| products.remove(*p))
                    .ok_or_else(|| unknown(key))?;
                self.retire(key, &product.content);
                let rates = product.rates.into_keys().collect();
                Ok(vec![binding(s, p, rates, "removed")])
            }
            (Kind::Rate, [s, p, r]) => {
                let product = self.product_mut(s, p).ok_or_else(|| unknown(key))?;
                let rate = product.rates.remove(*r).ok_or_else(|| unknown(key))?;
                let operation = product.rebind();
                self.retire(key, &rate.content);
                Ok(vec![binding(s, p, vec![(*r).to_owned()], operation)])
            }
            (Kind::ChannelBinding, [s, p]) => {
                let product = self
                    .product_mut(s, p)
                    .filter(|product| product.bound)
                    .ok_or_else(|| unknown(key))?;
                product.bound = false;
                let rates = product.rates.keys().cloned().collect();
                Ok(vec![binding(s, p, rates, "removed")])
            }
            (Kind::Booking, [b]) => {
                let event = self.booking_event(b);
                let booking = self.bookings.remove(*b).ok_or_else(|| unknown(key))?;
                self.retire(key, &booking.content);
                Ok(vec![event])
            }
            (Kind::Availability, [s, p, r]) => {
                let (seed, today) = (self.seed, derive::day_of(now_ms));
                let rate = self.reserved_mut(s, p, r)?;
                rate.settle_fill(now_ms);
                let slots = Arc::make_mut(&mut rate.slots);
                for capacity in slots.values_mut() {
                    *capacity = None;
                }
                for day in today..=today + HORIZON_DAYS {
                    for slot in 0..derive::capacities(seed, r, day).len() {
                        slots.insert((day, slot as u8), None);
                    }
                }
                rate.reload(cache, now_ms);
                Ok(vec![event])
            }
            (Kind::PriceSchedule, [s, p, r]) => {
                let today = derive::day_of(now_ms);
                let rate = self.rate_mut(s, p, r).ok_or_else(|| unknown(key))?;
                for day in today..=today + HORIZON_DAYS {
                    rate.prices.insert(day, None);
                }
                Ok(vec![event])
            }
            _ => Err(unknown(key)),
        }
    }

    fn retire(&mut self, key: &Key, content: &Tracked) {
        self.retired.insert(text(key), content.now.version);
    }

    /// A product whether the channel can see it or not.
    fn product_mut(&mut self, s: &str, p: &str) -> Option<&mut Product> {
        self.suppliers.get_mut(s)?.products.get_mut(p)
    }

    fn reserved_mut(&mut self, s: &str, p: &str, r: &str) -> Result<&mut Rate, AlterError> {
        let rate = self.rate_mut(s, p, r);
        rate.filter(|rate| rate.reserved()).ok_or_else(|| {
            AlterError::Unknown(format!(
                "availability/{s}/{p}/{r} (only RESERVED rates have it)"
            ))
        })
    }

    fn tracked_mut(&mut self, key: &Key) -> Option<&mut Tracked> {
        let ids: Vec<&str> = key.ids.iter().map(String::as_str).collect();
        match (key.kind, ids.as_slice()) {
            (Kind::Supplier, [s]) => self.suppliers.get_mut(*s).map(|s| &mut s.content),
            (Kind::Product, [s, p]) => self
                .product_mut(s, p)
                .filter(|product| product.bound)
                .map(|product| &mut product.content),
            (Kind::Rate, [s, p, r]) => self.rate_mut(s, p, r).map(|rate| &mut rate.content),
            (Kind::Booking, [b]) => self.bookings.get_mut(*b).map(|b| &mut b.content),
            _ => None,
        }
    }

    fn booking_event(&self, b: &str) -> Event {
        let key = Key {
            kind: Kind::Booking,
            ids: vec![b.to_owned()],
        };
        let item = self
            .bookings
            .get(b)
            .and_then(|booking| booking.base.get("items")?.get(0).cloned())
            .unwrap_or_default();
        let id = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
        Event {
            supplier: id("supplierId"),
            product: id("productId"),
            rates: id("rateId").into_iter().collect(),
            ..Event::about(&key, "updated")
        }
    }

    fn some_items(&mut self, now_ms: i64) -> Option<Value> {
        let id = self.seed_booking(now_ms)?;
        self.bookings.remove(&id)?.base.remove("items")
    }

    fn change_slots(
        &mut self,
        [s, p, r]: [&str; 3],
        body: &Map<String, Value>,
        rng: &mut fastrand::Rng,
        cache: CacheRules,
        now_ms: i64,
    ) -> Result<Option<(i32, i32)>, AlterError> {
        let seed = self.seed;
        let rate = self.reserved_mut(s, p, r)?;
        rate.settle_fill(now_ms);
        let mut changes = Vec::new();
        for (day, entry) in days_of(body)? {
            let slot = entry.get("slot").map_or(Some(0), Value::as_u64);
            let slot = slot
                .and_then(|slot| u8::try_from(slot).ok())
                .filter(|slot| *slot < 60)
                .ok_or_else(|| AlterError::Body("slot: a number from 0 to 59".to_owned()))?;
            let capacity = match entry.get("capacity") {
                Some(Value::Null) => None,
                Some(value) => Some(
                    value
                        .as_u64()
                        .and_then(|n| u32::try_from(n).ok())
                        .ok_or_else(|| {
                            AlterError::Body("capacity: a number, or null for no slot".to_owned())
                        })?,
                ),
                None => return Err(AlterError::Body("each day needs `capacity`".to_owned())),
            };
            changes.push(((day, slot), capacity));
        }
        if changes.is_empty() {
            let day = derive::day_of(now_ms) + rng.i32(1..=30);
            let derived = derive::capacities(seed, r, day).first().copied();
            let old = rate.slots.get(&(day, 0)).copied().unwrap_or(derived);
            changes.push(((day, 0), Some(old.unwrap_or(0) + rng.u32(1..=20))));
        }
        let span = span(changes.iter().map(|((day, _), _)| *day));
        Arc::make_mut(&mut rate.slots).extend(changes);
        rate.reload(cache, now_ms);
        Ok(span)
    }

    fn change_prices(
        &mut self,
        [s, p, r]: [&str; 3],
        body: &Map<String, Value>,
        rng: &mut fastrand::Rng,
        now_ms: i64,
    ) -> Result<Option<(i32, i32)>, AlterError> {
        let seed = self.seed;
        let rate = self
            .rate_mut(s, p, r)
            .ok_or_else(|| AlterError::Unknown(format!("price-schedule/{s}/{p}/{r}")))?;
        let mut changes = Vec::new();
        for (day, entry) in days_of(body)? {
            let retail = match entry.get("retail") {
                Some(Value::Null) => None,
                Some(value) => Some(value.as_i64().filter(|n| *n >= 0).ok_or_else(|| {
                    AlterError::Body(
                        "retail: the adult price in minor units, or null for not on sale"
                            .to_owned(),
                    )
                })?),
                None => return Err(AlterError::Body("each day needs `retail`".to_owned())),
            };
            changes.push((day, retail));
        }
        if changes.is_empty() {
            let day = derive::day_of(now_ms) + rng.i32(1..=30);
            let derived = derive::retail(seed, r, day);
            let old = rate.prices.get(&day).copied().unwrap_or(derived);
            changes.push((day, Some(old.unwrap_or(1000) + 100 * rng.i64(1..=20))));
        }
        let span = span(changes.iter().map(|(day, _)| *day));
        rate.prices.extend(changes);
        Ok(span)
    }

    /// Shows and hides rates of a visible product: as `rateIDs` says, else one of them.
    fn change_binding(
        &mut self,
        s: &str,
        p: &str,
        body: &Map<String, Value>,
        rng: &mut fastrand::Rng,
    ) -> Altered {
        let product = self
            .product_mut(s, p)
            .filter(|product| product.bound)
            .ok_or_else(|| AlterError::Unknown(format!("channel-binding/{s}/{p}")))?;
        let before: Vec<bool> = product.rates.values().map(|rate| rate.bound).collect();
        if let Some(wanted) = body.get("rateIDs") {
            let wanted: Vec<&str> = wanted
                .as_array()
                .map(|ids| ids.iter().filter_map(Value::as_str).collect())
                .ok_or_else(|| AlterError::Body("rateIDs: a list of rate ids".to_owned()))?;
            if let Some(id) = wanted.iter().find(|id| !product.rates.contains_key(**id)) {
                return Err(AlterError::Unknown(format!("rate/{s}/{p}/{id}")));
            }
            for (id, rate) in &mut product.rates {
                rate.bound = wanted.contains(&id.as_str());
            }
        } else if let Some(hidden) = product.rates.values_mut().find(|rate| !rate.bound) {
            hidden.bound = true;
        } else if product.rates.len() > 1 {
            let pick = rng.usize(0..product.rates.len());
            if let Some(rate) = product.rates.values_mut().nth(pick) {
                rate.bound = false;
            }
        }
        let operation = product.rebind();
        let changed = product
            .rates
            .iter()
            .zip(before)
            .filter(|((_, rate), before)| rate.bound != *before)
            .map(|((id, _), _)| id.clone())
            .collect();
        Ok(vec![binding(s, p, changed, operation)])
    }

    /// A booking for the reseller's own calls.
    pub(in crate::simulator) fn cancel_booking(&mut self, b: &str, now_ms: i64) -> Option<Event> {
        let booking: &mut Booking = self.bookings.get_mut(b)?;
        let fields = json!({ "status": "CANCELLED", "cancelable": false });
        if let Value::Object(fields) = fields {
            booking.content.change(&fields, now_ms);
        }
        Some(self.booking_event(b))
    }
}

impl Product {
    /// A product is visible while one of its rates is. The operation that the change was.
    fn rebind(&mut self) -> &'static str {
        self.bound = self.rates.values().any(|rate| rate.bound);
        if self.bound { "updated" } else { "removed" }
    }
}

impl Rate {
    fn reload(&mut self, cache: CacheRules, now_ms: i64) {
        if cache.reload_on_change && cache.max_age_ms > 0 {
            self.fill_due = None;
            self.cached = Some(Cached {
                at_ms: now_ms,
                slots: Arc::clone(&self.slots),
            });
        }
    }
}

/// Fields that make an object what it is cannot be laid over.
fn check_fields(fields: &Map<String, Value>) -> Result<(), AlterError> {
    ["id", "supplierId", "productId", "version"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
        .map_or(Ok(()), |name| {
            Err(AlterError::Body(format!("`{name}` cannot be changed")))
        })
}

/// The entries of `days` with their day numbers.
fn days_of(body: &Map<String, Value>) -> Result<Vec<(i32, &Value)>, AlterError> {
    let Some(days) = body.get("days") else {
        return match body.keys().next() {
            Some(name) => Err(AlterError::Body(format!(
                "`{name}` is not known here; give `days`, or nothing for a random change"
            ))),
            None => Ok(Vec::new()),
        };
    };
    let days = days
        .as_array()
        .ok_or_else(|| AlterError::Body("days: a list".to_owned()))?;
    days.iter()
        .map(|entry| {
            entry
                .get("date")
                .and_then(Value::as_str)
                .and_then(|date| date.parse().ok())
                .and_then(derive::day)
                .map(|day| (day, entry))
                .ok_or_else(|| AlterError::Body("each day needs `date`, YYYY-MM-DD".to_owned()))
        })
        .collect()
}

fn span(days: impl Iterator<Item = i32> + Clone) -> Option<(i32, i32)> {
    Some((days.clone().min()?, days.max()?))
}
