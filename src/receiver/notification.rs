//! What a notification's body says, read in two steps.
//!
//! Owns: step 1, the `signature` object out of raw bytes (so that the signature can be checked);
//! step 2, from a [`Verified`] only, the identifiers as an entity key.
//!
//! Never here: an error that echoes content; a look at anything but `signature` before it is
//! verified; a number read as a float (the signature is over the integer's decimal digits).

mod fields;

use self::fields::{Field, Identifiers, Scalar, Top};
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
    /// A `timestamp` at the top of the body, in Unix seconds, to be shown: nobody knows what it
    /// means, and it is not signed.
    pub shown_timestamp: Option<i64>,
}

/// Step 2: reads the identifiers that a notification of type `kind` carries. Fields nobody knows
/// are ignored; identifiers that are missing, doubled or invalid make the shape unknown.
pub fn named(kind: NotificationType, verified: &Verified) -> Named {
    let unknown = Named {
        key: None,
        operation: None,
        shown_timestamp: None,
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
        shown_timestamp: seconds(&fields.timestamp),
    }
}

/// Unix seconds, or a date and time as text; anything else is not shown.
fn seconds(field: &Field<'_>) -> Option<i64> {
    match field {
        Field::Once(Scalar::Integer(seconds)) => Some(*seconds),
        Field::Once(Scalar::Text(text)) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            Some(time.as_second())
        }
        _ => None,
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
