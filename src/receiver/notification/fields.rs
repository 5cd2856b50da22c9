//! The JSON fields of a notification, borrowed from the body, each with how often it was there.
//!
//! Owns: reading just these fields and skipping all others without keeping them. Never here: what is
//! wrong with one that is missing, but for its name; a number read as a float.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::BadBody;

/// A value that is a text, an integer, or something else that was skipped.
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Integer(i64),
    Other,
}

/// How often a field was there.
#[derive(Default)]
pub(super) enum Field<'a> {
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

    pub(super) fn once(self, name: &'static str) -> Result<Scalar<'a>, BadBody> {
        match self {
            Self::Once(value) => Ok(value),
            Self::Missing => Err(BadBody::Missing(name)),
            Self::Twice => Err(BadBody::Twice(name)),
        }
    }
}

#[derive(Default)]
pub(super) struct SignatureFields<'a> {
    pub(super) sum: Field<'a>,
    pub(super) timestamp: Field<'a>,
    pub(super) token: Field<'a>,
}

/// The whole body, of which only `signature` is looked at.
pub(super) enum Top<'a> {
    NotAnObject,
    Object {
        signatures: usize,
        signature: Option<SignatureFields<'a>>,
    },
}

#[derive(Default)]
pub(super) struct Identifiers<'a> {
    supplier: Field<'a>,
    product: Field<'a>,
    rate: Field<'a>,
    booking: Field<'a>,
    pub(super) operation: Field<'a>,
    pub(super) timestamp: Field<'a>,
}

impl<'a> Identifiers<'a> {
    pub(super) fn get(&self, name: &str) -> &Field<'a> {
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
                        "timestamp" => fields.timestamp.add(map.next_value()?),
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
