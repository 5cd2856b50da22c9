//! What the catalogue does not store: identifiers, capacities and prices that follow from the seed.
//!
//! Owns: pure functions of (seed, identifier, day). Never here: state. A catalogue of thousands of
//! rates with a year of days each would not fit in memory; what was changed by hand is laid over
//! these values by the catalogue.

use jiff::civil::Date;

/// One sold kind of traveler: age band, name, share of the adult price in percent.
pub(super) const TRAVELERS: [(&str, &str, i64); 2] =
    [("ADULT", "Adult", 100), ("CHILD", "Child", 60)];

/// A well-mixed number from a seed and some text (FNV-1a, then a `SplitMix` finish).
pub(super) fn mix(seed: u64, text: &str, salt: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut z = hash ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An identifier that looks like the provider's (a version 4 UUID), from a path like `s1/p2`.
pub(super) fn uuid(seed: u64, path: &str) -> String {
    let bits = (u128::from(mix(seed, path, 1)) << 64) | u128::from(mix(seed, path, 2));
    uuid::Builder::from_random_bytes(bits.to_be_bytes())
        .into_uuid()
        .to_string()
}

/// Days since 1970-01-01 as a calendar date; `None` outside the years that exist.
pub(super) fn date(day: i32) -> Option<Date> {
    Date::constant(1970, 1, 1)
        .checked_add(jiff::Span::new().try_days(i64::from(day)).ok()?)
        .ok()
}

/// A calendar date as days since 1970-01-01.
pub(super) fn day(date: Date) -> Option<i32> {
    Some(Date::constant(1970, 1, 1).until(date).ok()?.get_days())
}

/// The day of an instant in milliseconds.
pub(super) fn day_of(at_ms: i64) -> i32 {
    at_ms.div_euclid(86_400_000) as i32
}

/// RFC 3339 in UTC, in whole seconds or with milliseconds.
pub(super) fn rfc3339(at_ms: i64, with_ms: bool) -> String {
    let time = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
    if with_ms {
        format!("{time:.3}")
    } else {
        format!("{time:.0}")
    }
}

/// Capacities of a rate's slots on a day; no slot on about one day in eight.
pub(super) fn capacities(seed: u64, rate: &str, day: i32) -> Vec<u32> {
    let hash = mix(seed, rate, u64::from(day.unsigned_abs()) << 1 | 1);
    if hash.is_multiple_of(8) {
        return Vec::new();
    }
    let slots = 1 + mix(seed, rate, 7) % 2;
    (0..slots)
        .map(|slot| (hash >> (8 * (slot + 1)) & 0xff) as u32 % 40 + 1)
        .collect()
}

/// The adult retail price of a rate on a day in minor units; `None` (not for sale) on about one
/// day in thirty.
pub(super) fn retail(seed: u64, rate: &str, day: i32) -> Option<i64> {
    let hash = mix(seed, rate, u64::from(day.unsigned_abs()) << 1);
    if hash.is_multiple_of(31) {
        return None;
    }
    let base = 1000 + (mix(seed, rate, 9) % 90) as i64 * 100;
    let weekend = matches!(day.rem_euclid(7), 2 | 3);
    Some(if weekend { base + base / 5 } else { base })
}
