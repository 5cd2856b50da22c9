//! What changes at the provider of a schedule, and what goes wrong beside it.
//!
//! Owns: the catalogue and its changes, each with the notification that tells of it; the steps of
//! our clock, refused credentials and crashes at any moment; the end of all faults.
//!
//! Never here: a change that no notification could tell of (`Snapshot::with` says whose it is).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::clock::Clock;
use bellhop::state::State;
use serde_json::json;

use super::disk::Disk;
use super::provider::rate_ids;
use super::schedule::World;
use super::truth;

impl World {
    /// What happens at the provider, until the faults end; then dead letters are replayed.
    pub async fn drive(self: Arc<Self>) {
        self.found().await;
        let gap = self.plan.calm_at / (self.plan.changes + 1);
        for _ in 0..self.plan.changes {
            self.sim.sleep_ms(self.sim.below(2 * gap)).await;
            self.hazard();
            self.something().await;
        }
        if self.plan.purge {
            self.purge().await;
        }
        let left = self.plan.calm_at.saturating_sub(self.sim.ticks().0);
        self.sim.sleep_ms(left).await;
        self.sim.note(8, || "the faults end".into());
        self.sim.calm();
        self.provider.refuse_until(0);
        self.driving.store(0, Ordering::Relaxed);
        loop {
            self.sim.sleep_ms(60_000).await;
            if let Some(disk) = self.disk() {
                tokio::select! {
                    biased;
                    () = replay_all(&disk) => {}
                    () = disk.died() => {}
                }
            }
        }
    }

    /// Something that is nobody's answer: clocks, credentials, crashes.
    fn hazard(&self) {
        let sim = &self.sim;
        let now = sim.ticks().0;
        if self.plan.clock_steps && sim.percent(40) {
            let by = [-3_600_000, -1_000, 1_000, 3_600_000][sim.below(4) as usize];
            let wall = sim.now().0 - super::sim::BASE.0 - now as i64;
            if (wall + by).abs() <= 3_700_000 {
                sim.note(9, || format!("our wall clock steps by {by} ms"));
                sim.step_wall(by);
            }
        }
        if sim.percent(8) {
            self.provider.refuse_until(now + 1_000 + sim.below(40_000));
        }
        if self.plan.crashes > 0 && sim.percent(20) {
            sim.note(10, || "CRASH".into());
            sim.crash();
        }
    }

    /// The catalogue that is there at the beginning.
    async fn found(self: &Arc<Self>) {
        for product in 0..=self.sim.below(2) {
            let product = format!("p{product}");
            self.add_product(&product);
            self.sim.pause().await;
        }
        for booking in 0..=self.sim.below(3) {
            let key = truth::key(Kind::Booking, &[&format!("b{booking}")]);
            self.update(&key);
            self.tell(&key, false);
        }
    }

    fn add_product(self: &Arc<Self>, product: &str) {
        let now = self.sim.ticks().0;
        let supplier = truth::key(Kind::Supplier, &["s"]);
        let binding = truth::key(Kind::ChannelBinding, &["s", product]);
        if !self.truth(|truth| truth.exists(&supplier)) {
            self.put(&supplier, now, Some(&binding), 0);
        }
        let key = truth::key(Kind::Product, &["s", product]);
        self.put(&key, now, Some(&binding), 0);
        let rates: Vec<String> = (0..=self.sim.below(3)).map(|n| format!("r{n}")).collect();
        for rate in &rates {
            self.add_rate(product, rate);
        }
        self.bind(product, &rates);
    }

    fn add_rate(&self, product: &str, rate: &str) {
        let now = self.sim.ticks().0;
        let ids = ["s", product, rate];
        let freesale = u64::from(self.sim.percent(25));
        let binding = truth::key(Kind::ChannelBinding, &ids[..2]);
        let with = Some(&binding);
        self.put(&truth::key(Kind::Rate, &ids), now, with, freesale);
        self.put(&truth::key(Kind::PriceSchedule, &ids), now, with, 0);
        if freesale == 0 {
            self.put(&truth::key(Kind::Availability, &ids), now, with, 0);
        }
    }

    fn remove_rate(&self, product: &str, rate: &str) {
        let ids = ["s", product, rate];
        for kind in [Kind::Rate, Kind::PriceSchedule, Kind::Availability] {
            let binding = truth::key(Kind::ChannelBinding, &ids[..2]);
            self.remove(&truth::key(kind, &ids), Some(&binding));
        }
    }

    /// Sets the rates of a product and tells of it.
    fn bind(self: &Arc<Self>, product: &str, rates: &[String]) {
        let key = truth::key(Kind::ChannelBinding, &["s", product]);
        let now = self.sim.ticks().0;
        let data = json!({"supplierID": "s", "productID": product, "rateIDs": rates});
        let data = (!rates.is_empty()).then_some(data);
        let removed = data.is_none();
        self.truth(|truth| truth.change(&key, now, None, false, |_, _| data));
        self.tell(&key, removed && self.sim.percent(60));
    }

    fn put(&self, key: &EntityKey, at: u64, with: Option<&EntityKey>, variant: u64) {
        let versioned = !matches!(key.kind(), Kind::PriceSchedule | Kind::Availability)
            && !key.as_str().len().is_multiple_of(4);
        self.truth(|truth| {
            truth.change(key, at, with, versioned, |number, version| {
                Some(truth::data(key, number, version, variant))
            })
        });
        self.sim.note(11, || format!("PROVIDER changes {key}"));
    }

    fn update(self: &Arc<Self>, key: &EntityKey) {
        let now = self.sim.ticks().0;
        let freesale = self.truth(|truth| {
            let newest = truth
                .get(key)
                .and_then(|entity| entity.newest().data.clone());
            newest.is_some_and(|data| data["type"] == "FREESALE")
        });
        let empty =
            matches!(key.kind(), Kind::Availability | Kind::PriceSchedule) && self.sim.percent(15);
        let turns = key.kind() == Kind::Rate && self.sim.percent(25);
        if self.sim.percent(4) {
            self.truth(|truth| {
                if let Some(entity) = truth.entities.get_mut(key) {
                    entity.base -= 3;
                }
            });
        }
        let variant = u64::from((freesale != turns) || empty);
        self.put(key, now, None, variant);
        if turns {
            let availability = truth::key(Kind::Availability, &key.ids());
            if freesale && self.truth(|truth| truth.get(&availability).is_some()) {
                // Who had it before is not told of it by the rate.
                self.put(&availability, now, None, 0);
                self.tell(&availability, false);
            } else if freesale {
                self.put(&availability, now, Some(key), 0);
            } else {
                self.remove(&availability, Some(key));
            }
        }
    }

    fn remove(&self, key: &EntityKey, with: Option<&EntityKey>) {
        let now = self.sim.ticks().0;
        if self.truth(|truth| truth.exists(key)) {
            self.truth(|truth| truth.change(key, now, with, false, |_, _| None));
            self.sim.note(12, || format!("PROVIDER removes {key}"));
        }
    }

    /// One thing changes.
    async fn something(self: &Arc<Self>) {
        let sim = &self.sim;
        let existing: Vec<EntityKey> = self.truth(|truth| {
            let exists = |(key, entity): (&EntityKey, &truth::Entity)| {
                let single = key.kind() != Kind::ChannelBinding;
                (single && entity.newest().data.is_some()).then(|| key.clone())
            };
            truth.entities.iter().filter_map(exists).collect()
        });
        let Some(key) = existing.get(sim.below(existing.len() as u64) as usize) else {
            return;
        };
        match sim.below(100) {
            0..50 => {
                self.update(key);
                self.tell(key, false);
            }
            50..65 => {
                for _ in 0..2 + sim.below(4) {
                    self.update(key);
                    self.tell(key, false);
                    let gap = if sim.percent(50) { 2_500 } else { 9_000 };
                    sim.sleep_ms(sim.below(gap)).await;
                }
            }
            65..70 => self.tell(key, false),
            70..85 => self.rebind(),
            85..90 => self.come_and_go().await,
            _ if key.kind() == Kind::Booking => {
                self.remove(key, None);
                self.tell(key, false);
                if sim.percent(50) {
                    sim.sleep_ms(sim.below(90_000)).await;
                    self.update(key);
                    self.tell(key, false);
                }
            }
            _ => {
                self.update(key);
                sim.sleep_ms(sim.below(1_000)).await;
                self.tell(key, false);
            }
        }
    }

    /// More bookings than the guard lets through at once are made, and removed.
    async fn purge(self: &Arc<Self>) {
        let keys: Vec<EntityKey> = (0..24)
            .map(|n| truth::key(Kind::Booking, &[&format!("purged{n}")]))
            .collect();
        for key in &keys {
            self.update(key);
            self.tell(key, false);
        }
        self.sim.sleep_ms(20_000).await;
        for key in &keys {
            self.remove(key, None);
            self.tell(key, false);
        }
    }

    /// A product that was withdrawn comes back; its entities are told of one by one.
    fn bring_back(self: &Arc<Self>, product: &str) {
        self.add_product(product);
        let ids = ["s", product];
        let below: Vec<EntityKey> = self.truth(|truth| {
            let keys = truth.entities.iter_mut().filter(|(key, entity)| {
                key.ids().starts_with(&ids)
                    && key.kind() != Kind::ChannelBinding
                    && entity.newest().data.is_some()
            });
            keys.map(|(key, entity)| {
                entity.versions.last_mut().expect("made with one").with = None;
                key.clone()
            })
            .collect()
        });
        for key in below {
            self.tell(&key, false);
        }
    }

    /// One part of a rate is told of by itself, and all of the rate is withdrawn before any list has
    /// shown it: while that part is first read, nothing leads from the binding to it.
    async fn come_and_go(self: &Arc<Self>) {
        let bound = self.bound_products();
        let Some((product, rates, number)) = bound.get(self.sim.below(bound.len() as u64) as usize)
        else {
            return;
        };
        let rate = format!("q{number}");
        self.add_rate(product, &rate);
        let kind = match self.sim.below(10) {
            0 => Kind::Rate,
            1 => Kind::PriceSchedule,
            _ => Kind::Availability,
        };
        let key = truth::key(kind, &["s", product, &rate]);
        if self.truth(|truth| truth.exists(&key)) {
            self.tell(&key, false);
        }
        self.sim.sleep_ms(self.sim.below(3_000)).await;
        self.remove_rate(product, &rate);
        self.bind(product, rates);
    }

    /// The products that have rates: each with those, and with the number of its binding's states.
    fn bound_products(&self) -> Vec<(String, Vec<String>, u64)> {
        self.truth(|truth| {
            let bindings = truth.entities.iter();
            bindings
                .filter(|(key, _)| key.kind() == Kind::ChannelBinding)
                .map(|(key, entity)| {
                    let rates = rate_ids(entity.newest().data.as_ref());
                    (key.ids()[1].to_owned(), rates, entity.versions.len() as u64)
                })
                .filter(|(_, rates, _)| !rates.is_empty())
                .collect()
        })
    }

    /// A product's rates come and go.
    fn rebind(self: &Arc<Self>) {
        let sim = &self.sim;
        let withdrawn = self.truth(|truth| {
            let mut gone = truth.entities.iter().filter(|(key, entity)| {
                key.kind() == Kind::ChannelBinding && entity.newest().data.is_none()
            });
            gone.next().map(|(key, _)| key.ids()[1].to_owned())
        });
        if let Some(product) = withdrawn.filter(|_| sim.percent(40)) {
            self.bring_back(&product);
            return;
        }
        let products = self.bound_products();
        let Some((product, mut rates, number)) = products
            .get(sim.below(products.len() as u64) as usize)
            .cloned()
        else {
            return;
        };
        let binding = truth::key(Kind::ChannelBinding, &["s", &product]);
        let product_key = truth::key(Kind::Product, &["s", &product]);
        match sim.below(10) {
            0..5 => {
                let rate = format!("n{number}");
                self.add_rate(&product, &rate);
                rates.push(rate);
                rates.sort_unstable();
            }
            5..8 => {
                let rate = rates.remove(sim.below(rates.len() as u64) as usize);
                self.remove_rate(&product, &rate);
                if rates.is_empty() {
                    self.remove(&product_key, Some(&binding));
                }
            }
            _ => {
                for rate in std::mem::take(&mut rates) {
                    self.remove_rate(&product, &rate);
                }
                self.remove(&product_key, Some(&binding));
            }
        }
        self.bind(&product, &rates);
    }
}

async fn replay_all(disk: &Disk) {
    for letter in disk.dead_letters(0, 1000).await.unwrap_or_default() {
        let _ = disk.replay(letter.id, false).await;
    }
}
