//! Whether two JSON texts say the same.
//!
//! Owns: the canonical text (members sorted, the last of equal names counts, no white space,
//! strings and numbers in one spelling), and the comparison of availability and price data on
//! some days only. Numbers are compared as exact decimals: `1`, `1.0` and `1e0` are one number,
//! and two long ones that a double could not tell apart are two.
//!
//! Never here: what is published (that stays byte for byte as the provider sent it).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::civil::Date;
use serde_json::value::RawValue;

use super::window::{covers, day_of};
use crate::api::NotificationType;
use crate::clock::UnixMillis;
use crate::provider::Window;

/// The canonical text; `None` when `json` is not JSON or is nested deeper than the parser goes.
pub(super) fn canonical(json: &str) -> Option<String> {
    let mut text = String::with_capacity(json.len());
    write_value(json, &mut text, 0)?;
    Some(text)
}

/// As the parser's own limit.
const DEEPEST: u32 = 127;

fn write_value(json: &str, out: &mut String, depth: u32) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    let json = json.trim_matches([' ', '\t', '\n', '\r']);
    match json.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            out.push('{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_string(name, out)?;
                out.push(':');
                write_value(value.get(), out, depth + 1)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(item.get(), out, depth + 1)?;
            }
            out.push(']');
        }
        b'"' => write_string(&serde_json::from_str::<String>(json).ok()?, out)?,
        b't' | b'f' | b'n' => out.push_str(json),
        _ => write_number(json, out)?,
    }
    Some(())
}

fn write_string(text: &str, out: &mut String) -> Option<()> {
    out.push_str(&serde_json::to_string(text).ok()?);
    Some(())
}

/// Writes `[-]digits e exponent` without leading or trailing zeros: one text for one number.
fn write_number(json: &str, out: &mut String) -> Option<()> {
    let (negative, rest) = match json.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, json),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let Ok(exponent) = exponent.parse::<i64>() else {
        // An exponent beyond i64 is compared by its text.
        out.push_str(json);
        return Some(());
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let short = digits.trim_end_matches('0');
    if short.is_empty() {
        out.push('0');
        return Some(());
    }
    let exponent =
        i128::from(exponent) - fraction.len() as i128 + (digits.len() - short.len()) as i128;
    if negative {
        out.push('-');
    }
    out.push_str(short);
    if exponent != 0 {
        write!(out, "e{exponent}").ok()?;
    }
    Some(())
}

/// Whether two texts say the same. What cannot be read is the same only byte for byte.
pub(super) fn same(one: &str, other: &str) -> bool {
    one == other
        || matches!((canonical(one), canonical(other)), (Some(one), Some(other)) if one == other)
}

/// The canonical text of availability or price data, with only the days that `keep` wants.
/// What has no readable day is kept always.
fn on_days(kind: NotificationType, json: &str, keep: impl Fn(Date) -> bool) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
    let mut out = String::from("{");
    for (name, value) in members {
        if kind == NotificationType::PriceSchedule {
            if name.parse::<Date>().is_ok_and(|day| !keep(day)) {
                continue;
            }
            write_string(&name, &mut out)?;
            write_value(value.get(), &mut out, 1)?;
        } else if name == "availability" {
            write_string(&name, &mut out)?;
            write_slots(value.get(), &mut out, &keep)?;
        } else {
            write_string(&name, &mut out)?;
            write_value(value.get(), &mut out, 1)?;
        }
        out.push(',');
    }
    Some(out)
}

/// The day of one availability entry, from its `start`.
#[derive(serde::Deserialize)]
struct Slot {
    #[serde(default)]
    start: Option<serde_json::Value>,
}

fn slot_day(json: &str) -> Option<Date> {
    let slot: Slot = serde_json::from_str(json).ok()?;
    let start = slot.start?;
    UnixMillis::parse_rfc3339(start.as_str()?).map(day_of)
}

fn write_slots(json: &str, out: &mut String, keep: impl Fn(Date) -> bool) -> Option<()> {
    let Ok(slots) = serde_json::from_str::<Vec<&RawValue>>(json) else {
        return write_value(json, out, 1);
    };
    for slot in slots {
        if slot_day(slot.get()).is_none_or(&keep) {
            write_value(slot.get(), out, 2)?;
            out.push(';');
        }
    }
    Some(())
}

/// Whether availability or price data says the same on the days of `shared`.
pub(super) fn same_on(kind: NotificationType, one: &str, other: &str, shared: Window) -> bool {
    let keep = |day| covers(shared, day);
    one == other
        || matches!(
            (on_days(kind, one, keep), on_days(kind, other, keep)),
            (Some(one), Some(other)) if one == other
        )
}

#[derive(serde::Deserialize)]
struct Slots<'a> {
    #[serde(borrow, default)]
    availability: Vec<&'a RawValue>,
}

/// Whether availability or price data has anything on a day after `last`.
pub(super) fn has_after(kind: NotificationType, json: &str, last: Date) -> bool {
    if kind == NotificationType::PriceSchedule {
        return serde_json::from_str::<BTreeMap<String, &RawValue>>(json).is_ok_and(|days| {
            days.iter().any(|(day, prices)| {
                day.parse::<Date>().is_ok_and(|day| day > last)
                    && !matches!(
                        canonical(prices.get()).as_deref(),
                        Some("[]" | "{}" | "null")
                    )
            })
        });
    }
    serde_json::from_str::<Slots<'_>>(json).is_ok_and(|slots| {
        slots
            .availability
            .iter()
            .any(|slot| slot_day(slot.get()).is_some_and(|day| day > last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_and_order_of_members_do_not_matter_but_values_do() {
        for (one, other) in [
            (
                r#"{"a":1,"b":[true,null]}"#,
                " { \"b\" : [ true,null ] , \"a\":1.0 } ",
            ),
            (r#"{"a":"é"}"#, r#"{"a":"\u00e9"}"#),
            ("[100, 1e2, 1.00E+2]", "[1e2,100,100]"),
            ("[0, -0, 0.0, 0e9]", "[0,0,0,0]"),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            ("-12.50", "-125e-1"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("[1,2]", "[2,1]"),
            ("1", "-1"),
            ("9007199254740993", "9007199254740992"),
            ("1234567890123456789012345", "1234567890123456789012346"),
            ("0.1", "0.10000000000000001"),
            (r#"{"a":null}"#, "{}"),
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            ("1e1", "1e2"),
            ("[]", "{}"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
        assert!(same("not json", "not json") && !same("not json", "not  json"));
    }

    #[test]
    fn availability_and_prices_are_compared_on_shared_days_only() {
        let shared = Window {
            start: "2026-01-02".parse().unwrap(),
            end: "2026-01-03".parse().unwrap(),
        };
        let slot = |day: u32, capacity: u32| {
            format!(r#"{{"start":"2026-01-0{day}T23:00:00Z","capacity":{capacity}}}"#)
        };
        let slots = |slots: &[String]| format!(r#"{{"availability":[{}]}}"#, slots.join(","));
        let kind = NotificationType::Availability;
        let old = slots(&[slot(1, 5), slot(2, 6)]);
        let new = slots(&[slot(2, 6), slot(4, 1)]);
        assert!(same_on(kind, &old, &new, shared));
        assert!(!same_on(kind, &old, &slots(&[slot(2, 7)]), shared));
        assert!(!same_on(
            kind,
            &old,
            &slots(&[slot(2, 6), slot(3, 1)]),
            shared
        ));
        assert!(has_after(kind, &new, shared.end) && !has_after(kind, &old, shared.end));

        let kind = NotificationType::PriceSchedule;
        let old = r#"{"2026-01-01":[1],"2026-01-02":[2]}"#;
        let new = r#"{"2026-01-02":[2.0],"2026-01-04":[9]}"#;
        assert!(same_on(kind, old, new, shared));
        assert!(!same_on(kind, old, r#"{"2026-01-02":[3]}"#, shared));
        assert!(has_after(kind, new, shared.end));
        assert!(!has_after(kind, r#"{"2026-01-04":[]}"#, shared.end));
    }
}
