//! Objects of the catalogue as JSON, as the reseller API returns them.
//!
//! Owns: shapes and field names (provider reference, reseller API). Never here: a change of the
//! truth; only the availability cache moves when it is read.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    CacheRules, Catalogue, Content, HORIZON_DAYS, Product, Rate, Slots, Supplier, Tracked,
};
use crate::simulator::derive;
use crate::simulator::kind::{Key, Kind};

/// Days of availability and prices: from the first to before the end, in days since 1970-01-01.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulator) struct Window {
    pub(in crate::simulator) from: i32,
    pub(in crate::simulator) until: i32,
}

/// How a read looks at objects.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::simulator) struct View {
    /// Objects changed after this instant are shown as they were before.
    pub(in crate::simulator) stale_since: Option<i64>,
    /// Leave `version` out.
    pub(in crate::simulator) no_versions: bool,
    /// Include v1.3's rich content.
    pub(in crate::simulator) content: bool,
    /// The older API lacks some fields.
    pub(in crate::simulator) v12: bool,
}

impl View {
    fn content(self, tracked: &Tracked) -> &Content {
        match (&tracked.before, self.stale_since) {
            (Some((before, at)), Some(since)) if *at >= since => before,
            _ => &tracked.now,
        }
    }

    /// The derived fields with the changed ones laid over them.
    fn finish(self, tracked: &Tracked, base: Value) -> Value {
        let content = self.content(tracked);
        let mut object = match base {
            Value::Object(object) => object,
            _ => Map::new(),
        };
        for (name, value) in content.fields.iter().flat_map(|fields| fields.iter()) {
            if value.is_null() {
                object.remove(name);
            } else {
                object.insert(name.clone(), value.clone());
            }
        }
        if !self.no_versions {
            object.insert("version".into(), content.version.into());
        }
        Value::Object(object)
    }
}

/// One answer of the availability read.
#[derive(Debug)]
pub(in crate::simulator) struct Availabilities {
    pub(in crate::simulator) retrieved_ms: i64,
    pub(in crate::simulator) by_rate: Map<String, Value>,
    /// Whether the reservation system was asked and did not answer in time.
    pub(in crate::simulator) waited: bool,
}

impl Catalogue {
    pub(in crate::simulator) fn supplier_json(&self, s: &str, view: View) -> Option<Value> {
        self.supplier(s).map(|supplier| supplier.json(s, view))
    }

    pub(in crate::simulator) fn suppliers_json(&self, view: View) -> Vec<Value> {
        self.suppliers
            .iter()
            .map(|(s, supplier)| supplier.json(s, view))
            .collect()
    }

    pub(in crate::simulator) fn product_json(&self, s: &str, p: &str, view: View) -> Option<Value> {
        Some(self.product(s, p)?.json(s, p, view))
    }

    pub(in crate::simulator) fn products_json(&self, s: &str, view: View) -> Option<Vec<Value>> {
        let supplier = self.supplier(s)?;
        let bound = supplier
            .products
            .iter()
            .filter(|(_, product)| product.bound);
        Some(bound.map(|(p, product)| product.json(s, p, view)).collect())
    }

    pub(in crate::simulator) fn rate_json(
        &self,
        [s, p, r]: [&str; 3],
        view: View,
    ) -> Option<Value> {
        Some(self.rate(s, p, r)?.json(self.seed, p, r, view))
    }

    pub(in crate::simulator) fn rates_json(
        &self,
        s: &str,
        p: &str,
        view: View,
    ) -> Option<Vec<Value>> {
        let product = self.product(s, p)?;
        let bound = product.rates.iter().filter(|(_, rate)| rate.bound);
        Some(
            bound
                .map(|(r, rate)| rate.json(self.seed, p, r, view))
                .collect(),
        )
    }

    pub(in crate::simulator) fn booking_json(&self, b: &str, view: View) -> Option<Value> {
        let booking = self.bookings.get(b)?;
        Some(view.finish(&booking.content, Value::Object(booking.base.clone())))
    }

    /// The ids of the product's visible rates, or of the one that is asked for.
    /// `None`: no such product, or no such rate.
    pub(in crate::simulator) fn rate_ids(
        &self,
        s: &str,
        p: &str,
        only: Option<&str>,
    ) -> Option<Vec<String>> {
        let product = self.product(s, p)?;
        match only {
            Some(r) => product
                .rates
                .get(r)
                .filter(|rate| rate.bound)
                .map(|_| vec![r.to_owned()]),
            None => Some(
                product
                    .rates
                    .iter()
                    .filter(|(_, rate)| rate.bound)
                    .map(|(r, _)| r.clone())
                    .collect(),
            ),
        }
    }

    /// Availability of some rates through the cache. `slow` says whether the reservation system
    /// would be slow this time. Entries that start in `[start_ms, end_ms)`.
    pub(in crate::simulator) fn availabilities(
        &mut self,
        [s, p]: [&str; 2],
        rates: &[String],
        (start_ms, end_ms): (i64, i64),
        per_traveler: bool,
        (cache, slow, now_ms): (CacheRules, bool, i64),
    ) -> Availabilities {
        let (seed, first) = (self.seed, self.first_day);
        let mut found = Availabilities {
            retrieved_ms: now_ms,
            by_rate: Map::new(),
            waited: false,
        };
        for r in rates {
            let Some(rate) = self.rate_mut(s, p, r).filter(|rate| rate.reserved()) else {
                continue;
            };
            let answer = rate.through_cache(cache, slow, now_ms);
            found.waited |= rate.fill_due.is_some();
            let Some((at_ms, slots)) = answer else {
                continue;
            };
            found.retrieved_ms = found.retrieved_ms.min(at_ms);
            let window = Window {
                from: derive::day_of(start_ms),
                until: derive::day_of(end_ms) + 1,
            };
            let entries = entries(
                seed,
                r,
                &slots,
                bounded(window, first, now_ms),
                per_traveler,
            )
            .into_iter()
            .filter(|(at, _)| (start_ms..end_ms).contains(at))
            .map(|(_, entry)| entry)
            .collect::<Vec<_>>();
            found
                .by_rate
                .insert(r.clone(), json!({ "availability": entries }));
        }
        found
    }

    /// The price schedule of some rates over days.
    pub(in crate::simulator) fn schedule(
        &self,
        [s, p]: [&str; 2],
        rates: &[String],
        window: Window,
        now_ms: i64,
    ) -> Map<String, Value> {
        rates
            .iter()
            .filter_map(|r| Some((r.clone(), self.rate_schedule([s, p, r], window, now_ms)?)))
            .collect()
    }

    fn rate_schedule(&self, [s, p, r]: [&str; 3], window: Window, now_ms: i64) -> Option<Value> {
        let rate = self.rate(s, p, r)?;
        let window = bounded(window, self.first_day, now_ms);
        let mut days = Map::new();
        for day in window.from..window.until {
            let adult = match rate.prices.get(&day) {
                Some(changed) => *changed,
                None => derive::retail(self.seed, r, day),
            };
            if let (Some(adult), Some(date)) = (adult, derive::date(day)) {
                days.insert(date.to_string(), Value::Array(prices(r, adult)));
            }
        }
        Some(Value::Object(days))
    }

    /// What an uncached read of the current API version would return as the inner object of an
    /// entity; for a channel binding, its supplier, product and sorted rate ids.
    pub(in crate::simulator) fn truth(
        &self,
        key: &Key,
        window: Window,
        now_ms: i64,
    ) -> Option<Value> {
        let ids: Vec<&str> = key.ids.iter().map(String::as_str).collect();
        let view = View::default();
        match (key.kind, ids.as_slice()) {
            (Kind::Supplier, [s]) => self.supplier_json(s, view),
            (Kind::Product, [s, p]) => self.product_json(s, p, view),
            (Kind::Rate, [s, p, r]) => self.rate_json([s, p, r], view),
            (Kind::Booking, [b]) => self.booking_json(b, view),
            (Kind::PriceSchedule, [s, p, r]) => self.rate_schedule([s, p, r], window, now_ms),
            (Kind::ChannelBinding, [s, p]) => {
                let rates = self.rate_ids(s, p, None)?;
                Some(json!({ "supplierID": s, "productID": p, "rateIDs": rates }))
            }
            (Kind::Availability, [s, p, r]) => {
                let rate = self.rate(s, p, r).filter(|rate| rate.reserved())?;
                let window = bounded(window, self.first_day, now_ms);
                let entries: Vec<Value> = entries(self.seed, r, &rate.slots, window, false)
                    .into_iter()
                    .map(|(_, entry)| entry)
                    .collect();
                Some(json!({ "availability": entries }))
            }
            _ => None,
        }
    }
}

/// The days that exist: from the day before the start of the simulator to the sales horizon.
fn bounded(window: Window, first: i32, now_ms: i64) -> Window {
    Window {
        from: window.from.max(first),
        until: window.until.min(derive::day_of(now_ms) + HORIZON_DAYS + 1),
    }
}

/// Availability entries with the instants they start at, in order.
fn entries(
    seed: u64,
    rate: &str,
    slots: &Slots,
    window: Window,
    per_traveler: bool,
) -> Vec<(i64, Value)> {
    let mut found = Vec::new();
    for day in window.from..window.until {
        let mut capacities: Vec<Option<u32>> = derive::capacities(seed, rate, day)
            .into_iter()
            .map(Some)
            .collect();
        for (&(_, slot), capacity) in slots.range((day, 0)..=(day, u8::MAX)) {
            let slot = usize::from(slot);
            if capacities.len() <= slot {
                capacities.resize(slot + 1, None);
            }
            capacities[slot] = *capacity;
        }
        let Some(date) = derive::date(day) else {
            continue;
        };
        for (slot, capacity) in capacities.into_iter().enumerate() {
            let Some(capacity) = capacity else { continue };
            let start = i64::from(day) * 86_400_000 + slot_start(slot);
            let compact = date.to_string().replace('-', "");
            let prefix = rate.get(..6).unwrap_or(rate);
            let entry = json!({
                "id": format!("{prefix}-{compact}-{slot}"),
                "start": derive::rfc3339(start, false),
                "end": derive::rfc3339(start + 15 * 60_000, false),
                "capacity": capacity,
                "maxCapacity": -1,
            });
            if per_traveler {
                for (band, ..) in derive::TRAVELERS {
                    let mut entry = entry.clone();
                    entry["unit_id"] = Value::from(band);
                    found.push((start, entry));
                }
            } else {
                found.push((start, entry));
            }
        }
    }
    found
}

/// Slots are spread over the day from 08:00 UTC on, 15 minutes each.
fn slot_start(slot: usize) -> i64 {
    8 * 3_600_000 + (slot as i64 % 60) * 15 * 60_000
}

fn prices(rate: &str, adult: i64) -> Vec<Value> {
    let money = |amount: i64| json!({ "amount": amount, "currency": "EUR" });
    derive::TRAVELERS
        .iter()
        .map(|(band, name, percent)| {
            let retail = adult * percent / 100;
            json!({
                "id": format!("{rate}-{band}"), "name": name, "labels": [],
                "net": money(retail * 3 / 4), "retail": money(retail), "original": money(retail),
                "travelerType": { "ageBand": band, "name": name },
            })
        })
        .collect()
}

fn hours() -> Value {
    json!([{
        "daysOfWeek": [1, 2, 3, 4, 5, 6],
        "times": [{ "open": "08:00", "close": "18:00" }],
        "timezone": "UTC",
    }])
}

fn rich(view: View, base: &mut Value) {
    if view.content {
        base["content"] = json!({ "en": { "highlights": ["Small groups"], "images": [] } });
    }
}

impl Supplier {
    fn json(&self, s: &str, view: View) -> Value {
        let n = self.ordinal;
        let mut base = json!({
            "id": s,
            "code": format!("DEMO-{n}"),
            "name": format!("Demo Museum {n}"),
            "partnerId": format!("dm-{n}"),
            "businessType": ["ATTRACTION"],
            "contacts": [{ "name": "Front desk", "email": "desk@example.com", "primary": true }],
            "mainLocation": { "countryCode": "NL", "locality": "Amsterdam", "postalCode": "1011 AB" },
            "otherLocations": [],
            "hours": hours(),
            "travelerTypes": [{ "ageBand": "ADULT", "name": "Adult", "minAge": 18, "maxAge": 99 }],
            "ext": {},
        });
        rich(view, &mut base);
        view.finish(&self.content, base)
    }
}

impl Product {
    fn json(&self, s: &str, p: &str, view: View) -> Value {
        let n = self.ordinal;
        let mut base = json!({
            "id": p,
            "supplierId": s,
            "code": format!("TOUR-{n}"),
            "name": format!("Guided tour {n}"),
            "title": format!("Guided tour {n}, 90 minutes"),
            "description": "A walk through the collection.",
            "location": { "countryCode": "NL", "locality": "Amsterdam" },
            "hours": hours(),
            "ext": {},
        });
        if !view.v12 {
            base["capabilities"] = json!([]);
        }
        rich(view, &mut base);
        view.finish(&self.content, base)
    }
}

impl Rate {
    fn json(&self, seed: u64, p: &str, r: &str, view: View) -> Value {
        let n = self.ordinal;
        // The static price: the first weekday's of the derived ones.
        let adult = (0..7)
            .find_map(|day| derive::retail(seed, r, day))
            .unwrap_or(1000);
        let mut base = json!({
            "id": r,
            "productId": p,
            "code": format!("RATE-{n}"),
            "name": format!("Rate {n}"),
            "title": format!("Rate {n}"),
            "type": self.kind(),
            "partnerId": format!("rate-{n}"),
            "pricingType": "UNIT",
            "cancelable": true,
            "refundable": true,
            "cutoff": 60,
            "holdable": self.reserved(),
            "holdablePeriod": 30,
            "minTravelers": 1,
            "maxTravelers": 10,
            "hours": hours(),
            "prices": prices(r, adult),
        });
        rich(view, &mut base);
        view.finish(&self.content, base)
    }

    /// What the cache in front of the reservation system answers: when it was retrieved, and the
    /// capacities. `None`: nothing is cached and the system is slow.
    fn through_cache(
        &mut self,
        cache: CacheRules,
        slow: bool,
        now_ms: i64,
    ) -> Option<(i64, Arc<Slots>)> {
        if cache.max_age_ms == 0 {
            return Some((now_ms, Arc::clone(&self.slots)));
        }
        self.settle_fill(now_ms);
        let fresh = self
            .cached
            .as_ref()
            .is_some_and(|cached| now_ms - cached.at_ms <= cache.max_age_ms);
        if !fresh {
            if slow {
                self.fill_due.get_or_insert(now_ms + cache.fill_ms);
            } else {
                self.fill_due = None;
                self.cached = Some(super::Cached {
                    at_ms: now_ms,
                    slots: Arc::clone(&self.slots),
                });
            }
        }
        self.cached
            .as_ref()
            .map(|cached| (cached.at_ms, Arc::clone(&cached.slots)))
    }
}
