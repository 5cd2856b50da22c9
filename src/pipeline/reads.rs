//! What to ask the provider for each entity, and which entities a subscription covers.
//!
//! Owns: the table "notification → read" (provider reference §5). Every claim is one read; what
//! a parent makes necessary beyond that are child marks, which are claims of their own.

use crate::api::{EntityKey, NotificationType};
use crate::provider::{Read, Window};

/// The read that shows an entity's state. A channel binding shows in the list of its rates.
pub(super) fn read_of(key: &EntityKey, window: Window) -> Read {
    let ids = key.ids();
    let id = |at: usize| ids.get(at).map(ToString::to_string).unwrap_or_default();
    match key.kind() {
        NotificationType::Supplier => Read::Supplier { supplier: id(0) },
        NotificationType::Product => Read::Product {
            supplier: id(0),
            product: id(1),
        },
        NotificationType::ChannelBinding => Read::Rates {
            supplier: id(0),
            product: id(1),
        },
        NotificationType::Rate => Read::Rate {
            supplier: id(0),
            product: id(1),
            rate: id(2),
        },
        NotificationType::Availability => Read::Availability {
            supplier: id(0),
            product: id(1),
            rate: id(2),
            window,
        },
        NotificationType::PriceSchedule => Read::PriceSchedule {
            supplier: id(0),
            product: id(1),
            rate: id(2),
            window,
        },
        NotificationType::Booking => Read::Booking { booking: id(0) },
    }
}

/// Whether what is read covers a window of days.
pub(super) const fn has_window(kind: NotificationType) -> bool {
    matches!(
        kind,
        NotificationType::Availability | NotificationType::PriceSchedule
    )
}

/// The entity types that a subscription covers: those subscribed, and with channel bindings the
/// whole catalogue, since a binding publishes every entity that it makes Bellhop read.
pub(super) fn covered(subscribed: &[NotificationType]) -> Vec<NotificationType> {
    let bindings = subscribed.contains(&NotificationType::ChannelBinding);
    NotificationType::ALL
        .into_iter()
        .filter(|kind| {
            subscribed.contains(kind) || (bindings && *kind != NotificationType::Booking)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_cover_the_catalogue_but_no_bookings() {
        use NotificationType::{Booking, ChannelBinding, Rate};
        assert_eq!(covered(&[Rate, Booking]), [Rate, Booking]);
        assert_eq!(covered(&[ChannelBinding]).len(), 6);
        assert_eq!(covered(&NotificationType::ALL), NotificationType::ALL);
    }
}
