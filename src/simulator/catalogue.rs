//! The simulated provider's truth: suppliers, products, rates, availability, prices, bookings.
//!
//! Owns: what exists, versions, visibility to the channel (bindings), what was changed by hand,
//! and the availability cache that stands before the (equally simulated) reservation systems.
//! Never here: HTTP, notifications, and a full year of days in memory (see `derive`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::derive;

mod alter;
mod days;
mod render;

pub use alter::AlterError;
pub(super) use alter::Event;
pub(super) use render::{View, Window};

/// Days ahead of today that are on sale.
pub(super) const HORIZON_DAYS: i32 = 365;

/// How large the catalogue is at the start, and what it is made from.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) suppliers: usize,
    pub(super) products: usize,
    pub(super) rates: usize,
    pub(super) bookings: usize,
}

/// The part of an object that changes: its version, and fields laid over the derived ones
/// (`null` takes a field away).
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    version: u64,
    fields: Option<Arc<Map<String, Value>>>,
}

/// Content with its predecessor, for answers from a stale cache.
#[derive(Debug, Clone, Default)]
struct Tracked {
    now: Content,
    before: Option<(Content, i64)>,
}

impl Tracked {
    fn new(fields: Map<String, Value>) -> Self {
        Self::at(1, fields)
    }

    fn at(version: u64, fields: Map<String, Value>) -> Self {
        Self {
            now: Content {
                version,
                fields: (!fields.is_empty()).then(|| Arc::new(fields)),
            },
            before: None,
        }
    }

    fn change(&mut self, fields: &Map<String, Value>, now_ms: i64) {
        let before = self.now.clone();
        self.now.version += 1;
        if !fields.is_empty() {
            let mut all = self.now.fields.as_deref().cloned().unwrap_or_default();
            all.extend(fields.clone());
            self.now.fields = Some(Arc::new(all));
        }
        self.before = Some((before, now_ms));
    }
}

#[derive(Debug)]
struct Supplier {
    ordinal: usize,
    content: Tracked,
    products: BTreeMap<String, Product>,
}

#[derive(Debug)]
struct Product {
    ordinal: usize,
    bound: bool,
    content: Tracked,
    rates: BTreeMap<String, Rate>,
}

/// Capacities laid over the derived ones; `None` takes a slot away. Key: day, slot.
type Slots = BTreeMap<(i32, u8), Option<u32>>;

#[derive(Debug)]
struct Rate {
    ordinal: usize,
    bound: bool,
    content: Tracked,
    slots: Arc<Slots>,
    /// Adult retail prices laid over the derived ones; `None`: not for sale. Key: day.
    prices: BTreeMap<i32, Option<i64>>,
    cached: Option<Cached>,
    /// When the reservation system's late answer will have filled the cache.
    fill_due: Option<i64>,
}

#[derive(Debug, Clone)]
struct Cached {
    at_ms: i64,
    slots: Arc<Slots>,
}

/// RESERVED rates have availabilities, the others do not.
const RATE_TYPES: [&str; 4] = ["RESERVED", "RESERVED", "FREESALE", "PASS"];

impl Rate {
    fn new(ordinal: usize, fields: Map<String, Value>) -> Self {
        Self {
            ordinal,
            bound: true,
            content: Tracked::new(fields),
            slots: Arc::default(),
            prices: BTreeMap::new(),
            cached: None,
            fill_due: None,
        }
    }

    fn kind(&self) -> &str {
        self.content
            .now
            .fields
            .as_ref()
            .and_then(|fields| fields.get("type"))
            .and_then(Value::as_str)
            .unwrap_or(RATE_TYPES[self.ordinal % RATE_TYPES.len()])
    }

    fn reserved(&self) -> bool {
        self.kind() == "RESERVED"
    }

    /// What a late answer of the reservation system brought, if its time has come.
    fn settle_fill(&mut self, now_ms: i64) {
        if let Some(due) = self.fill_due.filter(|due| *due <= now_ms) {
            self.fill_due = None;
            self.cached = Some(Cached {
                at_ms: due,
                slots: Arc::clone(&self.slots),
            });
        }
    }
}

#[derive(Debug)]
struct Booking {
    base: Map<String, Value>,
    content: Tracked,
}

/// How reads see the world under the faults of the moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CacheRules {
    pub(super) max_age_ms: i64,
    pub(super) fill_ms: i64,
    pub(super) reload_on_change: bool,
    pub(super) times_ms: bool,
}

/// All of the simulated provider's data.
#[derive(Debug)]
pub(super) struct Catalogue {
    seed: u64,
    /// The first day that is derived: a day before the start.
    first_day: i32,
    suppliers: BTreeMap<String, Supplier>,
    bookings: BTreeMap<String, Booking>,
    made: u64,
    /// Last versions of what was removed: whoever comes back continues there.
    retired: BTreeMap<String, u64>,
    /// Rates of a product that is created without saying how many.
    rates_by_default: usize,
}

impl Catalogue {
    pub(super) fn new(seed: u64, shape: &Shape, now_ms: i64) -> Self {
        let mut this = Self {
            seed,
            first_day: derive::day_of(now_ms) - 1,
            suppliers: BTreeMap::new(),
            bookings: BTreeMap::new(),
            made: 0,
            retired: BTreeMap::new(),
            rates_by_default: shape.rates.max(1),
        };
        for s in 0..shape.suppliers {
            let products = (0..shape.products)
                .map(|p| {
                    let rates = (0..shape.rates)
                        .map(|r| {
                            let id = derive::uuid(seed, &format!("s{s}/p{p}/r{r}"));
                            (id, Rate::new(r, Map::new()))
                        })
                        .collect();
                    let product = Product {
                        ordinal: p,
                        bound: shape.rates > 0,
                        content: Tracked::new(Map::new()),
                        rates,
                    };
                    (derive::uuid(seed, &format!("s{s}/p{p}")), product)
                })
                .collect();
            let supplier = Supplier {
                ordinal: s,
                content: Tracked::new(Map::new()),
                products,
            };
            this.suppliers
                .insert(derive::uuid(seed, &format!("s{s}")), supplier);
        }
        let rates = this.bookable();
        for _ in 0..shape.bookings {
            if let Some(items) = this.some_items(&rates, now_ms) {
                this.add_booking(None, items, Map::new(), now_ms);
            }
        }
        this
    }

    /// A new identifier, never made before.
    fn next_id(&mut self, what: &str) -> String {
        self.made += 1;
        derive::uuid(self.seed, &format!("{what}#{}", self.made))
    }

    /// Supplier, product and id of each rate that the channel can see.
    fn bookable(&self) -> Vec<[String; 3]> {
        let mut rates = Vec::new();
        for (s, supplier) in &self.suppliers {
            for (p, product) in supplier.products.iter().filter(|(_, p)| p.bound) {
                let bound = product.rates.iter().filter(|(_, rate)| rate.bound);
                rates.extend(bound.map(|(r, _)| [s.clone(), p.clone(), r.clone()]));
            }
        }
        rates
    }

    /// The items of a made-up booking, of one of `rates`.
    fn some_items(&self, rates: &[[String; 3]], now_ms: i64) -> Option<Value> {
        let pick = derive::mix(self.seed, "booking", self.made + self.bookings.len() as u64);
        let [s, p, r] = rates.get(pick as usize % rates.len().max(1))?;
        let day = derive::day_of(now_ms) + 1 + ((pick >> 32) % 60) as i32;
        Some(json!([{
            "supplierId": s, "productId": p, "rateId": r,
            "priceId": format!("{r}-ADULT"),
            "startTime": format!("{}T08:00:00Z", derive::date(day)?),
            "quantity": 1 + pick % 4,
        }]))
    }

    /// Stores a booking; `items` are as the caller gave them.
    pub(super) fn add_booking(
        &mut self,
        id: Option<String>,
        items: Value,
        fields: Map<String, Value>,
        now_ms: i64,
    ) -> String {
        let id = id.unwrap_or_else(|| self.next_id("booking"));
        let mut items = items;
        for (n, item) in items.as_array_mut().into_iter().flatten().enumerate() {
            if let Value::Object(item) = item {
                item.insert(
                    "id".into(),
                    derive::uuid(self.seed, &format!("{id}/{n}")).into(),
                );
                item.insert("status".into(), "OPEN".into());
            }
        }
        let base = json!({
            "id": id,
            "status": "OPEN",
            "cancelable": true,
            "resellerBookingRef": format!("REF-{}", &id[..id.len().min(8)]),
            "customer": { "firstName": "Demo", "lastName": "Traveler", "email": "traveler@example.com" },
            "ext": {},
            "items": items,
            "tickets": [{ "barcode": { "format": "QRCODE", "value": format!("T-{id}") }, "status": "OPEN" }],
            "timeline": [{ "timestamp": derive::rfc3339(now_ms, false), "typeOf": "CREATED" }],
        });
        let Value::Object(base) = base else {
            return id;
        };
        let booking = Booking {
            base,
            content: Tracked::new(fields),
        };
        self.bookings.insert(id.clone(), booking);
        id
    }

    fn supplier(&self, s: &str) -> Option<&Supplier> {
        self.suppliers.get(s)
    }

    /// A product that the channel can see.
    fn product(&self, s: &str, p: &str) -> Option<&Product> {
        self.supplier(s)?.products.get(p).filter(|p| p.bound)
    }

    /// A rate that the channel can see.
    fn rate(&self, s: &str, p: &str, r: &str) -> Option<&Rate> {
        self.product(s, p)?.rates.get(r).filter(|r| r.bound)
    }

    fn rate_mut(&mut self, s: &str, p: &str, r: &str) -> Option<&mut Rate> {
        let product = self.suppliers.get_mut(s)?.products.get_mut(p)?;
        let rate = product.rates.get_mut(r)?;
        (product.bound && rate.bound).then_some(rate)
    }

    /// The keys of everything that the channel can see, in order.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for (s, supplier) in &self.suppliers {
            keys.push(format!("supplier/{s}"));
            for (p, product) in supplier.products.iter().filter(|(_, p)| p.bound) {
                keys.push(format!("product/{s}/{p}"));
                keys.push(format!("channel-binding/{s}/{p}"));
                for (r, rate) in product.rates.iter().filter(|(_, r)| r.bound) {
                    keys.push(format!("rate/{s}/{p}/{r}"));
                    keys.push(format!("price-schedule/{s}/{p}/{r}"));
                    if rate.reserved() {
                        keys.push(format!("availability/{s}/{p}/{r}"));
                    }
                }
            }
        }
        keys.extend(self.bookings.keys().map(|b| format!("booking/{b}")));
        keys.sort();
        keys
    }
}
