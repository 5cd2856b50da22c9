//! What the Reseller API's answers look like, and how little of them is believed.
//!
//! Owns: the envelopes (provider reference §6) and error objects. The inner objects stay byte for
//! byte what the provider sent; only the few fields that Bellhop acts on are looked at.
//!
//! Never here: HTTP; text of an answer in a reason, beyond an error's code and its cleaned message.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use super::json::{NotUnderstood, checked, entries, entry, fields, string};
use super::{Document, ListItem, Window};
use crate::clock::UnixMillis;
use crate::secrets::Credentials;

/// The longest message of the provider that is repeated in a reason, in characters.
const MAX_MESSAGE: usize = 200;

/// Printable ASCII only, runs of anything else as one space, cut at [`MAX_MESSAGE`].
pub(super) fn clean(text: &str) -> String {
    let mut cleaned = String::new();
    for c in text.chars() {
        if cleaned.len() >= MAX_MESSAGE {
            break;
        }
        if c.is_ascii_graphic() {
            cleaned.push(c);
        } else if !cleaned.is_empty() && !cleaned.ends_with(' ') {
            cleaned.push(' ');
        }
    }
    cleaned.truncate(cleaned.trim_end().len());
    cleaned
}

/// [`clean`] for text of an answer, which may repeat the key that the provider does not like.
/// The key goes before the text is cut: half a key would not be found any more.
pub(super) fn clean_answer(text: &str, credentials: &Credentials) -> String {
    let mut text = Cow::Borrowed(text);
    for secret in [&credentials.api_key, &credentials.api_secret] {
        if text.contains(secret.expose()) {
            text = Cow::Owned(text.replace(secret.expose(), "[redacted]"));
        }
    }
    clean(&text)
}

/// The provider's error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorObject {
    /// `code`, cleaned; never empty.
    pub code: String,
    /// `message`, cleaned; may be empty.
    pub message: String,
    /// Whether it stood under `error`, as the reference shows it, rather than at the top.
    pub nested: bool,
}

impl fmt::Display for ErrorObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if self.message.is_empty() {
            return Ok(());
        }
        write!(f, ", \"{}\"", self.message)
    }
}

/// Reads an error object: `{"error":{"code","message"}}`, or the same without `error`. Without a
/// textual code it is somebody else's error (a gateway's), not the provider's.
pub(super) fn error_object(body: &[u8], credentials: &Credentials) -> Option<ErrorObject> {
    let text = checked(body).ok()?;
    let [error, code, message] = fields(text, ["error", "code", "message"]).ok()?;
    let nested = error.is_some();
    let (code, message) = match error {
        Some(error) => {
            let [code, message] = fields(error.get(), ["code", "message"]).ok()?;
            (code, message)
        }
        None => (code, message),
    };
    let code: String = clean_answer(&string(code?)?, credentials)
        .chars()
        .take(64)
        .collect();
    let message = message.and_then(string).unwrap_or_default();
    (!code.is_empty()).then(|| ErrorObject {
        code,
        message: clean_answer(&message, credentials),
        nested,
    })
}

/// An inner object: its envelope's key, its id, and the parents it must name if it names any.
pub(super) struct Expected<'a> {
    /// `supplier`, `product`, `rate`, `booking`.
    pub envelope: &'static str,
    /// The `id` that was asked for.
    pub id: &'a str,
    /// `supplierId` or `productId`, and its value.
    pub parent: Option<(&'static str, &'a str)>,
}

/// One catalogue object or booking.
pub(super) fn single(body: &[u8], expected: &Expected<'_>) -> Result<Document, NotUnderstood> {
    let inner = enveloped(checked(body)?, expected.envelope)?;
    let place = format!("`{}`", expected.envelope);
    let parent = expected.parent.map_or("", |(field, _)| field);
    let [id, version, parent] =
        fields(inner.get(), ["id", "version", parent]).map_err(|problem| problem.at(&place))?;
    same_id(&place, "id", id, expected.id)?;
    if let (Some((field, value)), Some(_)) = (expected.parent, parent) {
        same_id(&place, field, parent, value)?;
    }
    Ok(Document {
        data: inner.to_owned(),
        version: version.and_then(|version| version.get().parse().ok()),
        retrieved: None,
        expires: None,
        empty: false,
    })
}

/// A catalogue list. `null` is an empty list: that is how some servers write one.
pub(super) fn list(
    body: &[u8],
    envelope: &'static str,
    parent: Option<(&'static str, &str)>,
) -> Result<Vec<ListItem>, NotUnderstood> {
    let text = checked(body)?;
    let [items] = fields(text, [envelope]).map_err(|problem| problem.at("it"))?;
    let items = items.ok_or_else(|| NotUnderstood::new(format!("has no `{envelope}`")))?;
    let items: Option<Vec<&RawValue>> = serde_json::from_str(items.get())
        .map_err(|_| NotUnderstood::new(format!("has a `{envelope}` that is not a list")))?;
    let mut found = Vec::new();
    for (at, item) in items.unwrap_or_default().into_iter().enumerate() {
        let place = format!("item {at} of `{envelope}`");
        let parent_field = parent.map_or("", |(field, _)| field);
        let [id, named_parent] =
            fields(item.get(), ["id", parent_field]).map_err(|problem| problem.at(&place))?;
        let id = id
            .and_then(string)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| NotUnderstood::new(format!("has no textual `id` in {place}")))?;
        if let (Some((field, value)), Some(_)) = (parent, named_parent) {
            same_id(&place, field, named_parent, value)?;
        }
        found.push(ListItem {
            id: id.into_owned(),
            data: item.to_owned(),
        });
    }
    Ok(found)
}

/// One rate's part of an availability answer (reference §6.6). `byProduct` is no longer used.
pub(super) fn availability(
    body: &[u8],
    product: &str,
    rate: &str,
    window: Window,
) -> Result<Document, NotUnderstood> {
    let inner = enveloped(checked(body)?, "availabilities")?;
    let place = "`availabilities`";
    let [named_product, retrieved, expires, by_rate] =
        fields(inner.get(), ["productId", "retrieved", "expires", "byRate"])
            .map_err(|problem| problem.at(place))?;
    if named_product.is_some() {
        same_id(place, "productId", named_product, product)?;
    }
    let ours = match by_rate.filter(|raw| raw.get() != "null") {
        Some(by_rate) => entry(by_rate.get(), rate).map_err(|problem| problem.at("`byRate`"))?,
        None => None,
    };
    let retrieved = retrieved.and_then(string).and_then(|text| {
        let parsed = UnixMillis::parse_rfc3339(&text)?;
        Some((text.into_owned(), parsed))
    });
    let expires = expires
        .and_then(string)
        .and_then(|text| UnixMillis::parse_rfc3339(&text));
    let (data, empty) = match ours {
        Some(ours) => (ours.to_owned(), no_availability(ours, window)?),
        None => (literal(r#"{"availability":[]}"#), true),
    };
    Ok(Document {
        data,
        version: None,
        retrieved,
        expires,
        empty,
    })
}

/// One rate's part of a price schedule (reference §6.5), which has no envelope.
pub(super) fn price_schedule(
    body: &[u8],
    rate: &str,
    window: Window,
) -> Result<Document, NotUnderstood> {
    let text = checked(body)?;
    let ours = entry(text, rate).map_err(|problem| problem.at("it"))?;
    let (data, empty) = if let Some(ours) = ours {
        (ours.to_owned(), no_prices(ours, window)?)
    } else {
        // Any JSON object could pass as a schedule without this rate; an error under status 200
        // must not empty a shop.
        for (key, value) in entries(text).map_err(|problem| problem.at("it"))? {
            if key != "meta" && !is_schedule(value) {
                return Err(NotUnderstood::new("is not a price schedule"));
            }
        }
        (literal("{}"), true)
    };
    Ok(Document {
        data,
        version: None,
        retrieved: None,
        expires: None,
        empty,
    })
}

/// Whether no entry of a rate's `availability` starts within the window.
fn no_availability(rate: &RawValue, window: Window) -> Result<bool, NotUnderstood> {
    let [entries] = fields(rate.get(), ["availability"])
        .map_err(|problem| problem.at("the rate's availability"))?;
    let Some(entries) = entries else {
        return Ok(true);
    };
    let entries: Option<Vec<&RawValue>> = serde_json::from_str(entries.get())
        .map_err(|_| NotUnderstood::new("has an `availability` that is not a list"))?;
    let mut empty = true;
    for (at, entry) in entries.unwrap_or_default().into_iter().enumerate() {
        let [start] = fields(entry.get(), ["start"])
            .map_err(|problem| problem.at(&format!("item {at} of `availability`")))?;
        let day = start
            .and_then(string)
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map(|time| time.to_zoned(jiff::tz::TimeZone::UTC).date());
        // An entry whose day cannot be told is still an entry.
        empty &= day.is_some_and(|day| day < window.start || window.end < day);
    }
    Ok(empty)
}

/// Whether no day of the window has a price.
fn no_prices(rate: &RawValue, window: Window) -> Result<bool, NotUnderstood> {
    let days = entries(rate.get()).map_err(|problem| problem.at("the rate's price schedule"))?;
    let mut empty = true;
    for (day, prices) in days {
        let prices: Option<Vec<&RawValue>> = serde_json::from_str(prices.get()).map_err(|_| {
            NotUnderstood::new("has a day in the rate's price schedule that is not a list")
        })?;
        let outside = day
            .parse::<jiff::civil::Date>()
            .is_ok_and(|day| day < window.start || window.end < day);
        empty &= outside || prices.is_none_or(|prices| prices.is_empty());
    }
    Ok(empty)
}

/// Whether a value could be some rate's schedule: `null` or a map from dates.
fn is_schedule(value: &RawValue) -> bool {
    value.get() == "null"
        || entries(value.get()).is_ok_and(|days| {
            days.iter()
                .all(|(day, _)| day.parse::<jiff::civil::Date>().is_ok())
        })
}

fn enveloped<'a>(text: &'a str, envelope: &'static str) -> Result<&'a RawValue, NotUnderstood> {
    let [inner] = fields(text, [envelope]).map_err(|problem| problem.at("it"))?;
    inner.ok_or_else(|| NotUnderstood::new(format!("has no `{envelope}`")))
}

fn same_id(
    place: &str,
    field: &str,
    found: Option<&RawValue>,
    asked: &str,
) -> Result<(), NotUnderstood> {
    let found = found
        .and_then(string)
        .ok_or_else(|| NotUnderstood::new(format!("has no textual `{field}` in {place}")))?;
    if found == asked {
        return Ok(());
    }
    Err(NotUnderstood::new(format!(
        "has another `{field}` in {place} than was asked for"
    )))
}

fn literal(text: &'static str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("it is JSON")
}

#[cfg(test)]
mod tests;
