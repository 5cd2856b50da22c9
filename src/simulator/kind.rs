//! The seven kinds of the simulated provider, in its own words.
//!
//! Owns: default registry paths, allowed operations, identifier fields, and the spelling in
//! entity keys (provider reference, registry and payload pages). Never here: anything read from
//! the rest of the crate; a mistake there must not be repeated here by sharing.

use serde::{Deserialize, Serialize};

/// What a rule, a notification or an object of the simulated provider is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A product's visibility to the channel.
    ChannelBinding,
    /// An operator.
    Supplier,
    /// What an operator sells.
    Product,
    /// One way to sell a product.
    Rate,
    /// Capacity of a RESERVED rate.
    Availability,
    /// Prices of a rate by day.
    PriceSchedule,
    /// A sale.
    Booking,
}

impl Kind {
    /// All seven.
    pub const ALL: [Self; 7] = [
        Self::ChannelBinding,
        Self::Supplier,
        Self::Product,
        Self::Rate,
        Self::Availability,
        Self::PriceSchedule,
        Self::Booking,
    ];

    /// First segment of an entity key, and the name in the control API: `price-schedule`.
    pub const fn name(self) -> &'static str {
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

    /// The reverse of [`Kind::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The registry's path segment unless the fault `registry-paths` renames it.
    pub const fn registry_segment(self) -> &'static str {
        match self {
            Self::ChannelBinding => "channelbindings",
            Self::Supplier => "suppliers",
            Self::Product => "products",
            Self::Rate => "rates",
            Self::Availability => "availabilities",
            Self::PriceSchedule => "priceschedules",
            Self::Booking => "bookings",
        }
    }

    /// Values that `config.operations` of this kind may hold; none where the kind has none.
    pub const fn operations(self) -> &'static [&'static str] {
        match self {
            Self::ChannelBinding => &["created", "updated", "removed"],
            Self::Supplier | Self::Product | Self::Rate | Self::Booking => &["updated"],
            Self::Availability | Self::PriceSchedule => &[],
        }
    }

    /// How many identifiers an entity key of this kind has.
    pub const fn id_count(self) -> usize {
        match self {
            Self::Supplier | Self::Booking => 1,
            Self::Product | Self::ChannelBinding => 2,
            Self::Rate | Self::Availability | Self::PriceSchedule => 3,
        }
    }
}

/// An entity key taken apart: `rate/{supplier}/{product}/{rate}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) ids: Vec<String>,
}

impl Key {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut segments = text.split('/');
        let kind = Kind::from_name(segments.next()?)?;
        let ids: Vec<String> = segments.map(str::to_owned).collect();
        (ids.len() == kind.id_count() && ids.iter().all(|id| !id.is_empty()))
            .then_some(Self { kind, ids })
    }
}
