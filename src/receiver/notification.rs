//! What a notification's body says, read in two steps.
//!
//! Owns: step 1, the `signature` object out of raw bytes (so that the signature can be checked);
//! step 2, from a [`Verified`] only, the identifiers as an entity key.
//!
//! Never here: an error that echoes content; a look at anything but `signature` before it is
//! verified; a number read as a float (the signature is over the integer's decimal digits).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::signature::{Sum, Verified};
use crate::api::{EntityKey, NotificationType, Operation};

/// Why a body has no usable `signature` object: the field, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// Nothing was sent.
    #[error("body: expected a JSON object, found nothing")]
    Empty,
    /// Bytes that are no UTF-8.
    #[error("body: expected UTF-8, which ends at byte {0}")]
    NotUtf8(usize),
    /// A byte order mark.
    #[error("body: expected JSON without a byte order mark")]
    ByteOrderMark,
    /// A syntax error.
    #[error("body: expected JSON; it cannot be read as such at line {line} column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// JSON of another kind.
    #[error("body: expected a JSON object")]
    NotAnObject,
    /// A field that must be there is not.
    #[error("{0}: missing")]
    Missing(&'static str),
    /// A field is there twice, and readers would disagree about which one counts.
    #[error("{0}: expected once, found twice")]
    Twice(&'static str),
    /// A field's value is of the wrong kind.
    #[error("{field}: expected {expected}")]
    Wrong {
        /// Its path.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// The usable `signature` object of a body.
#[derive(Clone)]
pub struct SignatureObject {
    /// `sum`, decoded.
    pub sum: Sum,
    /// `timestamp`, Unix seconds.
    pub timestamp: i64,
    /// `token`.
    pub token: String,
}

/// Step 1: finds `signature` in raw bytes and checks its shape. All the rest of the body is only
/// checked to be JSON.
///
/// # Errors
/// Which field, and what was expected.
pub fn signature_object(raw: &[u8]) -> Result<SignatureObject, BadBody> {
    if raw.is_empty() {
        return Err(BadBody::Empty);
    }
    let text = std::str::from_utf8(raw).map_err(|error| BadBody::NotUtf8(error.valid_up_to()))?;
    if text.starts_with('\u{feff}') {
        return Err(BadBody::ByteOrderMark);
    }
    let top: Top<'_> = serde_json::from_str(text).map_err(|error| BadBody::NotJson {
        line: error.line(),
        column: error.column(),
    })?;
    let signature = match top {
        Top::NotAnObject => return Err(BadBody::NotAnObject),
        Top::Object { signatures: 0, .. } => return Err(BadBody::Missing("signature")),
        Top::Object {
            signatures: 1,
            signature: Some(fields),
        } => fields,
        Top::Object { signatures: 1, .. } => {
            return Err(BadBody::Wrong {
                field: "signature",
                expected: "an object with sum, timestamp and token",
            });
        }
        Top::Object { .. } => return Err(BadBody::Twice("signature")),
    };
    let sum = match signature.sum.once("signature.sum")? {
        Scalar::Text(text) => Sum::from_hex(&text),
        _ => None,
    }
    .ok_or(BadBody::Wrong {
        field: "signature.sum",
        expected: "a string of 64 or 32 hex digits",
    })?;
    let Scalar::Integer(timestamp) = signature.timestamp.once("signature.timestamp")? else {
        return Err(BadBody::Wrong {
            field: "signature.timestamp",
            expected: "Unix seconds as a JSON integer of at most 64 bits, without fraction, \
                       exponent or quotes",
        });
    };
    let Scalar::Text(token) = signature.token.once("signature.token")? else {
        return Err(BadBody::Wrong {
            field: "signature.token",
            expected: "a string",
        });
    };
    Ok(SignatureObject {
        sum,
        timestamp,
        token: token.into_owned(),
    })
}

/// What a verified notification names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The entity; `None` when the shape is unknown: authentic all the same.
    pub key: Option<EntityKey>,
    /// What it says happened; `None` when it says nothing or something unknown ("go and look").
    pub operation: Option<Operation>,
}

/// Step 2: reads the identifiers that a notification of type `kind` carries. Fields nobody knows
/// are ignored; identifiers that are missing, doubled or invalid make the shape unknown.
pub fn named(kind: NotificationType, verified: &Verified) -> Named {
    let unknown = Named {
        key: None,
        operation: None,
    };
    let Ok(text) = std::str::from_utf8(verified.body()) else {
        return unknown;
    };
    let Ok(fields) = serde_json::from_str::<Identifiers<'_>>(text) else {
        return unknown;
    };
    let mut ids: [&str; 3] = [""; 3];
    let wanted = kind.identifier_fields();
    for (slot, name) in ids.iter_mut().zip(wanted) {
        match fields.get(name) {
            Field::Once(Scalar::Text(id)) => *slot = id,
            _ => return unknown,
        }
    }
    Named {
        key: EntityKey::new(kind, &ids[..wanted.len()]).ok(),
        operation: match &fields.operation {
            Field::Once(Scalar::Text(word)) => Operation::parse(word),
            _ => None,
        },
    }
}

/// A value that is a text, an integer, or something else that was skipped.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Other,
}

/// How often a field was there.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Missing,
    Once(Scalar<'a>),
    Twice,
}

impl<'a> Field<'a> {
    fn add(&mut self, value: Scalar<'a>) {
        *self = match self {
            Self::Missing => Self::Once(value),
            _ => Self::Twice,
        };
    }

    fn once(self, name: &'static str) -> Result<Scalar<'a>, BadBody> {
        match self {
            Self::Once(value) => Ok(value),
            Self::Missing => Err(BadBody::Missing(name)),
            Self::Twice => Err(BadBody::Twice(name)),
        }
    }
}

#[derive(Default)]
struct SignatureFields<'a> {
    sum: Field<'a>,
    timestamp: Field<'a>,
    token: Field<'a>,
}

/// The whole body, of which only `signature` is looked at.
enum Top<'a> {
    NotAnObject,
    Object {
        signatures: usize,
        signature: Option<SignatureFields<'a>>,
    },
}

#[derive(Default)]
struct Identifiers<'a> {
    supplier: Field<'a>,
    product: Field<'a>,
    rate: Field<'a>,
    booking: Field<'a>,
    operation: Field<'a>,
}

impl<'a> Identifiers<'a> {
    fn get(&self, name: &str) -> &Field<'a> {
        match name {
            "supplierID" => &self.supplier,
            "productID" => &self.product,
            "rateID" => &self.rate,
            _ => &self.booking,
        }
    }
}

/// A JSON key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Takes any JSON value; `map` says what to make of an object.
macro_rules! any_value {
    ($visitor:ident, $value:ty, text: $text:expr, integer: $integer:expr, other: $other:expr,
     map($de:lifetime, $map:ident) $body:block) => {
        struct $visitor;
        impl<$de> Visitor<$de> for $visitor {
            type Value = $value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_borrowed_str<E>(self, text: &$de str) -> Result<Self::Value, E> {
                Ok($text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok($text(Cow::Owned(text.to_owned())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok($integer(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(number).map_or($other, $integer))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok($other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok($other)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok($other)
            }
            fn visit_seq<A: SeqAccess<$de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok($other)
            }
            fn visit_map<A: MapAccess<$de>>(self, mut $map: A) -> Result<Self::Value, A::Error> $body
        }
    };
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        any_value!(ScalarVisitor, Scalar<'de>, text: Scalar::Text, integer: Scalar::Integer,
            other: Scalar::Other, map('de, map) {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        );
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// `signature`: its fields when it is an object.
struct Signature<'a>(Option<SignatureFields<'a>>);

impl<'de> Deserialize<'de> for Signature<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        any_value!(SignatureVisitor, Signature<'de>, text: |_: Cow<'de, str>| Signature(None),
            integer: |_| Signature(None), other: Signature(None), map('de, map) {
                let mut fields = SignatureFields::default();
                while let Some(Key(key)) = map.next_key()? {
                    match key.as_ref() {
                        "sum" => fields.sum.add(map.next_value()?),
                        "timestamp" => fields.timestamp.add(map.next_value()?),
                        "token" => fields.token.add(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Signature(Some(fields)))
            }
        );
        deserializer.deserialize_any(SignatureVisitor)
    }
}

impl<'de> Deserialize<'de> for Top<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        any_value!(TopVisitor, Top<'de>, text: |_: Cow<'de, str>| Top::NotAnObject,
            integer: |_| Top::NotAnObject, other: Top::NotAnObject, map('de, map) {
                let mut signatures = 0;
                let mut signature = None;
                while let Some(Key(key)) = map.next_key()? {
                    if key == "signature" {
                        signatures += 1;
                        signature = map.next_value::<Signature<'de>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Top::Object { signatures, signature })
            }
        );
        deserializer.deserialize_any(TopVisitor)
    }
}

impl<'de> Deserialize<'de> for Identifiers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        any_value!(IdentifiersVisitor, Identifiers<'de>,
            text: |_: Cow<'de, str>| Identifiers::default(),
            integer: |_| Identifiers::default(), other: Identifiers::default(), map('de, map) {
                let mut fields = Identifiers::default();
                while let Some(Key(key)) = map.next_key()? {
                    match key.as_ref() {
                        "supplierID" => fields.supplier.add(map.next_value()?),
                        "productID" => fields.product.add(map.next_value()?),
                        "rateID" => fields.rate.add(map.next_value()?),
                        "bookingID" => fields.booking.add(map.next_value()?),
                        "operation" => fields.operation.add(map.next_value()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        );
        deserializer.deserialize_any(IdentifiersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "67b1f7eb22debe0c1dd6619ab2c02920532e47284b63332b29918d73be87bf03";

    fn with(signature: &str) -> String {
        format!(r#"{{"supplierID":"s","signature":{signature}}}"#)
    }

    fn refusal(body: &str) -> String {
        match signature_object(body.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(_) => "accepted".to_owned(),
        }
    }

    #[test]
    fn a_usable_signature_is_found_whatever_surrounds_it() {
        let plain = format!(r#"{{"sum":"{SUM}","timestamp":-5,"token":"t","more":[{{}}]}}"#);
        let escaped = format!(r#"{{"\u0073um":"{SUM}","timestamp":-5,"token":"\u0074"}}"#);
        for signature in [plain, escaped] {
            let found = signature_object(with(&signature).as_bytes()).unwrap_or_else(|error| {
                unreachable!("{error}");
            });
            assert_eq!((found.timestamp, found.token.as_str()), (-5, "t"));
        }
        let deep = format!(
            r#"{{"x":{}{},"y":1e999999,"signature":{{"sum":"{SUM}","timestamp":1,"token":""}}}}"#,
            "[".repeat(20_000),
            "]".repeat(20_000)
        );
        assert!(signature_object(deep.as_bytes()).is_ok());
    }

    #[test]
    fn each_mistake_is_named_with_its_field() {
        let cases = [
            ("", "body: expected a JSON object, found nothing"),
            (
                "\u{feff}{}",
                "body: expected JSON without a byte order mark",
            ),
            ("[1]", "body: expected a JSON object"),
            ("7", "body: expected a JSON object"),
            (
                "{} x",
                "body: expected JSON; it cannot be read as such at line 1 column 4",
            ),
            (
                "{",
                "body: expected JSON; it cannot be read as such at line 1 column 1",
            ),
            ("{}", "signature: missing"),
            (
                r#"{"signature":3}"#,
                "signature: expected an object with sum, timestamp and token",
            ),
            (
                r#"{"signature":{},"signature":{}}"#,
                "signature: expected once, found twice",
            ),
            (r#"{"signature":{}}"#, "signature.sum: missing"),
        ];
        for (body, expected) in cases {
            assert_eq!(refusal(body), expected, "{body}");
        }
        assert_eq!(
            signature_object(b"{\"a\":\"\xff\"}").err(),
            Some(BadBody::NotUtf8(6))
        );
    }

    #[test]
    fn timestamps_are_integers_only() {
        for timestamp in [
            "1735689600.0",
            "1.7e9",
            "\"1735689600\"",
            "null",
            "9223372036854775808",
            "99999999999999999999999999",
            "-0",
            "[1]",
            "{}",
        ] {
            let body = with(&format!(
                r#"{{"sum":"{SUM}","timestamp":{timestamp},"token":"t"}}"#
            ));
            assert!(
                refusal(&body).starts_with("signature.timestamp: expected Unix seconds"),
                "{timestamp}: {}",
                refusal(&body)
            );
        }
        for (body, expected) in [
            (
                format!(r#"{{"sum":"{SUM}","timestamp":1}}"#),
                "signature.token: missing",
            ),
            (
                format!(r#"{{"sum":"{SUM}","timestamp":1,"timestamp":1,"token":""}}"#),
                "signature.timestamp: expected once, found twice",
            ),
            (
                format!(r#"{{"sum":"{SUM}","timestamp":1,"token":5}}"#),
                "signature.token: expected a string",
            ),
            (
                r#"{"sum":"zz","timestamp":1,"token":""}"#.to_owned(),
                "signature.sum: expected a string of 64 or 32 hex digits",
            ),
            (
                format!(
                    r#"{{"sum":"{}","timestamp":1,"token":""}}"#,
                    SUM.replace('6', "g")
                ),
                "signature.sum: expected a string of 64 or 32 hex digits",
            ),
        ] {
            assert_eq!(refusal(&with(&body)), expected);
        }
    }
}
