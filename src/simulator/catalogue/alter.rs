//! Changes of the catalogue, and the events that they are.
//!
//! Owns: what may be created, changed and removed, which versions rise, and which notifications a
//! change deserves (provider reference, payload page: suppliers and products have only `updated`;
//! what appears or disappears shows as a channel-binding event of its product). Never here:
//! whether a notification is really sent.

use serde_json::{Map, Value, json};

use super::{Booking, CacheRules, Catalogue, Product, Rate, Supplier, Tracked};
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
                let Some(items) = items.or_else(|| self.some_items(&self.bookable(), now_ms))
                else {
                    return Err(AlterError::Body("there is no rate to book".to_owned()));
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
                self.remove_slots([s, p, r], cache, now_ms)?;
                Ok(vec![event])
            }
            (Kind::PriceSchedule, [s, p, r]) => {
                self.remove_prices([s, p, r], now_ms)?;
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

/// Fields that make an object what it is cannot be laid over.
fn check_fields(fields: &Map<String, Value>) -> Result<(), AlterError> {
    ["id", "supplierId", "productId", "version"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
        .map_or(Ok(()), |name| {
            Err(AlterError::Body(format!("`{name}` cannot be changed")))
        })
}
