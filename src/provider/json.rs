//! Reading JSON from somebody who may send anything.
//!
//! Owns: the checks that everything behind them relies on, and access to single fields of an
//! object whose other bytes nobody touches.
//!
//! Never here: a panic, whatever the bytes; text of an answer in a reason. What [`checked`] lets
//! through parses as `serde_json::Value`, whole or in parts.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper nesting than this is nothing the provider sends. Below serde_json's own limit of 128,
/// so that everybody after this module can parse what it lets through.
pub(super) const MAX_DEPTH: usize = 100;

/// Why a successful answer was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotUnderstood {
    /// A sentence's end: "the answer …".
    pub reason: String,
    /// Whether asking again cannot help.
    pub hopeless: bool,
}

impl NotUnderstood {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hopeless: false,
        }
    }
}

/// A JSON string's text; `None` for any other value.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    // A plain `Cow` always copies; this borrows where there is nothing to unescape.
    #[derive(Deserialize)]
    struct Borrowing<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Borrowing<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// Why an object's fields could not be read.
pub(super) enum Problem {
    NotAnObject,
    Duplicate(String),
}

impl Problem {
    pub(super) fn at(&self, place: &str) -> NotUnderstood {
        NotUnderstood::new(match self {
            Self::NotAnObject => format!("has something else than an object where {place} stands"),
            Self::Duplicate(key) => format!("names `{key}` twice in {place}"),
        })
    }
}

/// The values of `wanted` in an object. A wanted key that comes twice is refused: which one is
/// meant cannot be known. An empty name wants nothing.
pub(super) fn fields<'a, const N: usize>(
    text: &'a str,
    wanted: [&str; N],
) -> Result<[Option<&'a RawValue>; N], Problem> {
    let mut found = [None; N];
    visit(text, |key, value| {
        if let Some(at) = wanted
            .iter()
            .position(|name| *name == key && !key.is_empty())
            && found[at].replace(value).is_some()
        {
            return Err(key.into_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// The value of one key that the provider or we chose; like [`fields`].
pub(super) fn entry<'a>(text: &'a str, wanted: &str) -> Result<Option<&'a RawValue>, Problem> {
    let mut found = None;
    visit(text, |key, value| {
        if key == wanted && found.replace(value).is_some() {
            return Err("a rate".to_owned());
        }
        Ok(())
    })?;
    Ok(found.filter(|value: &&RawValue| value.get() != "null"))
}

/// All keys and values of an object.
pub(super) fn entries(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, Problem> {
    let mut all = Vec::new();
    visit(text, |key, value| {
        all.push((key, value));
        Ok(())
    })?;
    Ok(all)
}

fn visit<'a>(
    text: &'a str,
    take: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), String>,
) -> Result<(), Problem> {
    struct Each<F>(F);

    impl<'de, F> Visitor<'de> for Each<F>
    where
        F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), String>,
    {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
            #[derive(Deserialize)]
            struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
            let mut duplicate = None;
            while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                if let Err(key) = (self.0)(key, value) {
                    duplicate.get_or_insert(key);
                }
            }
            Ok(duplicate)
        }
    }

    let mut json = serde_json::Deserializer::from_str(text);
    // The text was checked before: all that can be wrong here is that it is no object.
    match json.deserialize_map(Each(take)) {
        Ok(None) => Ok(()),
        Ok(Some(key)) => Err(Problem::Duplicate(key)),
        Err(_) => Err(Problem::NotAnObject),
    }
}

/// The body as JSON text that every later parser will take: UTF-8, one value, not too deep, all
/// numbers and escapes in range. A byte order mark is ignored, as RFC 8259 §8.1 allows.
pub(super) fn checked(body: &[u8]) -> Result<&str, NotUnderstood> {
    let text = std::str::from_utf8(body).map_err(|_| NotUnderstood::new("is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(NotUnderstood::new("is empty"));
    }
    if text.starts_with('<') {
        return Err(NotUnderstood::new("is HTML or XML, not JSON"));
    }
    if deeper_than(text, MAX_DEPTH) {
        return Err(NotUnderstood {
            reason: format!("is nested deeper than {MAX_DEPTH} levels"),
            hopeless: true,
        });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    Walk.deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| {
            let (line, column) = (error.line(), error.column());
            NotUnderstood::new(if error.is_eof() {
                format!("is cut off or no JSON (ends early at line {line}, column {column})")
            } else {
                format!("is no valid JSON (line {line}, column {column})")
            })
        })?;
    Ok(text)
}

/// Looks at brackets outside of strings only, without recursion.
fn deeper_than(text: &str, limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Reads a value as `serde_json::Value` would, and keeps nothing.
struct Walk;

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Self)?.is_some() {
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}
