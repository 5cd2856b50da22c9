//! Changes of what a rate has for each day: capacities and prices.
//!
//! Owns: the values laid over the derived ones. Never here: a change that leaves the availability
//! cache with capacities newer than the time it was filled.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{AlterError, CacheRules, Cached, Catalogue, HORIZON_DAYS, Rate};
use crate::simulator::derive;

impl Catalogue {
    fn reserved_mut(&mut self, s: &str, p: &str, r: &str) -> Result<&mut Rate, AlterError> {
        let rate = self.rate_mut(s, p, r);
        rate.filter(|rate| rate.reserved()).ok_or_else(|| {
            AlterError::Unknown(format!(
                "availability/{s}/{p}/{r} (only RESERVED rates have it)"
            ))
        })
    }

    pub(super) fn change_slots(
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

    pub(super) fn change_prices(
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

    /// Closes every slot from today to the horizon.
    pub(super) fn remove_slots(
        &mut self,
        [s, p, r]: [&str; 3],
        cache: CacheRules,
        now_ms: i64,
    ) -> Result<(), AlterError> {
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
        Ok(())
    }

    /// Takes every day from today to the horizon off sale.
    pub(super) fn remove_prices(
        &mut self,
        [s, p, r]: [&str; 3],
        now_ms: i64,
    ) -> Result<(), AlterError> {
        let today = derive::day_of(now_ms);
        let rate = self
            .rate_mut(s, p, r)
            .ok_or_else(|| AlterError::Unknown(format!("price-schedule/{s}/{p}/{r}")))?;
        for day in today..=today + HORIZON_DAYS {
            rate.prices.insert(day, None);
        }
        Ok(())
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
