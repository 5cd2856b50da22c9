//! The seven notification types, and the keys of the entities that they speak of.
//!
//! Owns: names in every spelling (resource, URL, key), the identifier rules, the key format
//! (design: "What consumers get"). Never here: a key built from an identifier that was not checked.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a rule, a notification and an entity can be about. One enum for all three: the provider
/// has one rule per type, and a notification of a type names an entity of that type.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum NotificationType {
    /// A product (or a rate below it) became visible to, changed for, or was withdrawn from us.
    ChannelBinding,
    /// A supplier's description changed.
    Supplier,
    /// A product's description changed.
    Product,
    /// A rate's description or prices changed.
    Rate,
    /// Capacity of a rate changed.
    Availability,
    /// Prices of a rate changed.
    PriceSchedule,
    /// A booking changed.
    Booking,
}

impl NotificationType {
    /// All seven, in the order of the provider's reference.
    pub const ALL: [Self; 7] = [
        Self::ChannelBinding,
        Self::Supplier,
        Self::Product,
        Self::Rate,
        Self::Availability,
        Self::PriceSchedule,
        Self::Booking,
    ];

    /// As in the resource: `ChannelBinding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelBinding => "ChannelBinding",
            Self::Supplier => "Supplier",
            Self::Product => "Product",
            Self::Rate => "Rate",
            Self::Availability => "Availability",
            Self::PriceSchedule => "PriceSchedule",
            Self::Booking => "Booking",
        }
    }

    /// As in rule URLs and entity keys, kebab case: `channel-binding`.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::ChannelBinding => "channel-binding",
            Self::Supplier => "supplier",
            Self::Product => "product",
            Self::Rate => "rate",
            Self::Availability => "availability",
            Self::PriceSchedule => "price-schedule",
            Self::Booking => "booking",
        }
    }

    /// The reverse of [`Self::segment`].
    pub fn from_segment(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.segment() == segment)
    }

    /// The identifier fields that a notification of this type carries and an entity key is made
    /// of, in order (provider reference §3.2).
    pub const fn identifier_fields(self) -> &'static [&'static str] {
        match self {
            Self::Supplier => &["supplierID"],
            Self::Product | Self::ChannelBinding => &["supplierID", "productID"],
            Self::Rate | Self::Availability | Self::PriceSchedule => {
                &["supplierID", "productID", "rateID"]
            }
            Self::Booking => &["bookingID"],
        }
    }

    /// The operations a rule of this type can select; empty when the type has none
    /// (provider reference §2.2).
    pub const fn operations(self) -> &'static [Operation] {
        match self {
            Self::ChannelBinding => &[Operation::Created, Operation::Updated, Operation::Removed],
            Self::Supplier | Self::Product | Self::Rate | Self::Booking => &[Operation::Updated],
            Self::Availability | Self::PriceSchedule => &[],
        }
    }
}

impl fmt::Display for NotificationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happened to the entity, as the provider says it. Optional everywhere but on channel
/// bindings; an unknown value means "go and look".
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// It is new.
    Created,
    /// It changed.
    Updated,
    /// It is gone.
    Removed,
}

impl Operation {
    /// As on the wire: `created`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Removed => "removed",
        }
    }

    /// The reverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Updated, Self::Removed]
            .into_iter()
            .find(|op| op.as_str() == text)
    }
}

/// Why a text is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentifier {
    /// Empty or over 128 bytes.
    #[error("an identifier has 1 to 128 bytes")]
    Length,
    /// `/`, a control character, or `.` / `..` as a whole.
    #[error("an identifier has no `/` and no control character and is neither `.` nor `..`")]
    Character,
}

/// Checks one identifier: 1 to 128 bytes, no control characters, no `/`, not `.` or `..`.
/// Identifiers in a notification are *not signed*: they are never trusted for more than
/// "go and look", and are percent-encoded in every path.
pub fn check_identifier(id: &str) -> Result<(), InvalidIdentifier> {
    if id.is_empty() || id.len() > 128 {
        return Err(InvalidIdentifier::Length);
    }
    if id == "." || id == ".." || id.chars().any(|c| c == '/' || c.is_control()) {
        return Err(InvalidIdentifier::Character);
    }
    Ok(())
}

/// The name of an entity, `rate/{supplierID}/{productID}/{rateID}`: CloudEvents `subject` and
/// `partitionkey`. Always valid: type, number of identifiers and each identifier are checked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityKey(Arc<str>);

/// Why a text or a list of identifiers is not an entity key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntityKey {
    /// The first segment is none of the seven.
    #[error(
        "`{0}` is no entity type; use one of supplier, product, rate, availability, price-schedule, booking, channel-binding"
    )]
    Type(String),
    /// Wrong number of identifiers.
    #[error("{kind} takes {expected} identifiers ({fields}), found {found}")]
    Count {
        /// The entity type's segment.
        kind: &'static str,
        /// How many it takes.
        expected: usize,
        /// Their names.
        fields: String,
        /// How many there were.
        found: usize,
    },
    /// One of the identifiers.
    #[error("{field}: {source}")]
    Identifier {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        source: InvalidIdentifier,
    },
}

impl EntityKey {
    /// Builds a key from its identifiers, in the order of [`NotificationType::identifier_fields`].
    pub fn new<S: AsRef<str>>(kind: NotificationType, ids: &[S]) -> Result<Self, InvalidEntityKey> {
        let fields = kind.identifier_fields();
        if ids.len() != fields.len() {
            return Err(InvalidEntityKey::Count {
                kind: kind.segment(),
                expected: fields.len(),
                fields: fields.join(", "),
                found: ids.len(),
            });
        }
        let length = |id: &S| 1 + id.as_ref().len();
        let ids_length: usize = ids.iter().map(length).sum();
        let mut key = String::with_capacity(kind.segment().len() + ids_length);
        key.push_str(kind.segment());
        for (field, id) in fields.iter().zip(ids) {
            check_identifier(id.as_ref())
                .map_err(|source| InvalidEntityKey::Identifier { field, source })?;
            key.push('/');
            key.push_str(id.as_ref());
        }
        Ok(Self(key.into()))
    }

    /// What the key names.
    #[allow(
        clippy::missing_panics_doc,
        reason = "a key's type is checked when it is made"
    )]
    pub fn kind(&self) -> NotificationType {
        let segment = self.0.split('/').next().unwrap_or_default();
        NotificationType::from_segment(segment).expect("checked when the key was made")
    }

    /// The identifiers, in order.
    pub fn ids(&self) -> Vec<&str> {
        self.0.split('/').skip(1).collect()
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntityKey {
    type Err = InvalidEntityKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (segment, rest) = text.split_once('/').unwrap_or((text, ""));
        let kind = NotificationType::from_segment(segment)
            .ok_or_else(|| InvalidEntityKey::Type(segment.chars().take(40).collect()))?;
        let ids: Vec<&str> = if rest.is_empty() {
            Vec::new()
        } else {
            rest.split('/').collect()
        };
        Self::new(kind, &ids)
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for EntityKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntityKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_refuse_what_is_not_an_identifier() {
        for text in [
            "supplier/s",
            "rate/s/p/r",
            "booking/b 1%2e",
            "channel-binding/s/p",
        ] {
            let key: EntityKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(key.kind().identifier_fields().len(), key.ids().len());
        }
        for text in [
            "",
            "rate",
            "rate/s/p",
            "rate/s//r",
            "shop/s",
            "booking/..",
            "booking/a\u{7}",
        ] {
            assert!(text.parse::<EntityKey>().is_err(), "{text:?}");
        }
        let long = "x".repeat(129);
        assert!(EntityKey::new(NotificationType::Booking, &[long.as_str()]).is_err());
        assert!(EntityKey::new(NotificationType::Booking, &["a/b"]).is_err());
    }
}
