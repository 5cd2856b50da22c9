//! Which entities a read makes necessary to look at, beside its own.
//!
//! Owns: the expansion of a channel binding into supplier, product, rates, availabilities and
//! price schedules, and what a rate's read means for its own two. Children are marked in the same
//! step as the parent's commit.
//!
//! Never here: a removal. What a list no longer has is marked, and read singly.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::live;
use crate::api::{EntityKey, NotificationType};
use crate::provider::{Answer, ListItem, ReadError};
use crate::state::{ChangeKind, Claim, MarkAfter, NewMark, Outcome, Settlement, State, StateError};

/// The rates of this type have capacities; the others are limited by opening hours alone
/// (provider reference §6.4).
const RESERVED: &str = "RESERVED";

#[derive(serde::Deserialize)]
struct RateKind {
    #[serde(rename = "type", default)]
    kind: Option<serde_json::Value>,
}

#[derive(serde::Deserialize)]
struct Versioned {
    #[serde(default)]
    version: Option<serde_json::Value>,
}

/// The integer `version` of an object, if it has one.
fn version(json: &[u8]) -> Option<i64> {
    serde_json::from_slice::<Versioned>(json)
        .ok()?
        .version?
        .as_i64()
}

/// Whether a rate's JSON says that it is RESERVED.
pub(super) fn reserved(rate: &str) -> bool {
    serde_json::from_str::<RateKind>(rate)
        .ok()
        .and_then(|rate| rate.kind)
        .is_some_and(|kind| kind.as_str() == Some(RESERVED))
}

/// What there is of a rate.
const RATE_KINDS: [NotificationType; 3] = [
    NotificationType::Rate,
    NotificationType::Availability,
    NotificationType::PriceSchedule,
];

#[derive(serde::Deserialize)]
struct Binding {
    #[serde(rename = "rateIDs", default)]
    rates: Vec<String>,
}

/// The rates of a binding as consumers have it.
fn former_rates(claim: &Claim) -> Vec<String> {
    live(claim)
        .and_then(|binding| serde_json::from_slice::<Binding>(binding.data.as_deref()?).ok())
        .map(|binding| binding.rates)
        .unwrap_or_default()
}

/// Whether both have a version, and that of `listed` is the higher one.
fn is_newer(listed: &[u8], known: &[u8]) -> bool {
    version(listed)
        .zip(version(known))
        .is_some_and(|(listed, known)| listed > known)
}

/// Which children a parent makes necessary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// Those that consumers do not have.
    New,
    /// Those that consumers have, or will have when a read that is on its way comes back.
    Known,
}

/// Collects child marks. An identifier that no key can hold is left alone: the provider could not
/// be asked for it.
struct Children<'a> {
    state: &'a dyn State,
    covered: &'a [NotificationType],
    claim: &'a Claim,
    /// Entities of which a read was on its way when these were asked for.
    in_flight: Vec<EntityKey>,
    marks: BTreeSet<EntityKey>,
}

/// The children of a decided settlement. `in_flight` was taken after `answer`, and before this
/// looks anything up: what is in neither the store nor the list can only become known by one of them.
pub(super) async fn children_of(
    state: &dyn State,
    covered: &[NotificationType],
    claim: &Claim,
    answer: &Result<Answer, ReadError>,
    settlement: &Settlement,
    in_flight: Vec<EntityKey>,
) -> Result<Vec<NewMark>, StateError> {
    let mut children = Children {
        state,
        covered,
        claim,
        in_flight,
        marks: BTreeSet::new(),
    };
    let committed = matches!(
        settlement.outcome,
        Outcome::Changed | Outcome::Unchanged | Outcome::Provisional | Outcome::Unconfirmed
    );
    // What never was an entity for consumers may have children that are: notifications of their
    // own came first.
    let gone = settlement.outcome == Outcome::Removed
        || (settlement.outcome == Outcome::Absent && settlement.mark == MarkAfter::Clear);
    match (claim.key.kind(), answer) {
        (NotificationType::ChannelBinding, Ok(Answer::Many(items))) if committed => {
            children.of_binding(items).await?;
        }
        (NotificationType::ChannelBinding, _) if gone => children.of_gone_binding().await?,
        (NotificationType::Rate, Ok(Answer::One(document))) if committed => {
            children.of_rate(reserved(document.data.get())).await?;
        }
        (NotificationType::Rate, _) if gone => {
            for kind in [
                NotificationType::Availability,
                NotificationType::PriceSchedule,
            ] {
                children
                    .add_wanted(Wanted::All, kind, &claim.key.ids())
                    .await?;
            }
        }
        _ => {}
    }
    Ok(children
        .marks
        .into_iter()
        .map(|key| NewMark {
            key,
            class: claim.class,
            noticed: claim.noticed,
            urgent: false,
        })
        .collect())
}

impl Children<'_> {
    async fn is_known(&self, key: &EntityKey) -> Result<bool, StateError> {
        let newest = self.state.entity(key).await?;
        Ok(newest.is_some_and(|event| event.change != ChangeKind::Removed))
    }

    /// Marks a listed rate if it is wanted, or if consumers have an older version of it: the
    /// notification of a binding names the product also when only a rate below it changed
    /// (provider reference §3.2).
    async fn add_rate(
        &mut self,
        wanted: Wanted,
        ids: &[&str],
        item: &ListItem,
    ) -> Result<(), StateError> {
        let Ok(key) = EntityKey::new(NotificationType::Rate, ids) else {
            return Ok(());
        };
        if !self.covered.contains(&NotificationType::Rate) {
            return Ok(());
        }
        let fits = wanted == Wanted::All
            || match self.state.entity(&key).await?.and_then(|event| event.data) {
                Some(known) => is_newer(item.data.get().as_bytes(), &known),
                None => true,
            };
        if fits {
            self.marks.insert(key);
        }
        Ok(())
    }

    /// Marks it, if it is wanted.
    async fn add_wanted(
        &mut self,
        wanted: Wanted,
        kind: NotificationType,
        ids: &[&str],
    ) -> Result<(), StateError> {
        let Ok(key) = EntityKey::new(kind, ids) else {
            return Ok(());
        };
        let fits = match wanted {
            Wanted::All => true,
            Wanted::New => !self.is_known(&key).await?,
            Wanted::Known => self.in_flight.contains(&key) || self.is_known(&key).await?,
        };
        if fits && self.covered.contains(&kind) {
            self.marks.insert(key);
        }
        Ok(())
    }

    /// Marks what consumers have of a product's rates that are not among `listed`.
    async fn add_unlisted(
        &mut self,
        product: &[&str; 2],
        listed: &BTreeMap<&str, &ListItem>,
    ) -> Result<(), StateError> {
        for kind in RATE_KINDS {
            let known = self.state.known(kind, product).await?;
            let unlisted = known.into_iter().filter(|key| {
                let rate = key.ids().last().copied().unwrap_or_default();
                !listed.contains_key(rate)
            });
            self.marks.extend(unlisted);
        }
        let read_now = self.in_flight.iter().filter(|key| {
            let ids = key.ids();
            RATE_KINDS.contains(&key.kind())
                && ids.starts_with(product)
                && ids.last().is_some_and(|rate| !listed.contains_key(rate))
        });
        self.marks.extend(read_now.cloned());
        // A read of a rate that was listed may be on its way, and not be known yet.
        for rate in former_rates(self.claim) {
            if !listed.contains_key(rate.as_str()) {
                let ids = [product[0], product[1], rate.as_str()];
                for kind in RATE_KINDS {
                    self.add_wanted(Wanted::All, kind, &ids).await?;
                }
            }
        }
        Ok(())
    }

    async fn of_binding(&mut self, items: &[ListItem]) -> Result<(), StateError> {
        let claim = self.claim;
        let ids = claim.key.ids();
        let [supplier, product] = ids[..] else {
            return Ok(());
        };
        // All of a binding's entities when it is first seen, then those that are new.
        let wanted = if live(claim).is_none() {
            Wanted::All
        } else {
            Wanted::New
        };
        self.add_wanted(wanted, NotificationType::Supplier, &[supplier])
            .await?;
        self.add_wanted(wanted, NotificationType::Product, &ids)
            .await?;
        let listed: BTreeMap<&str, &ListItem> =
            items.iter().map(|item| (item.id.as_str(), item)).collect();
        for (rate, item) in &listed {
            let ids = [supplier, product, rate];
            self.add_rate(wanted, &ids, item).await?;
            self.add_wanted(wanted, NotificationType::PriceSchedule, &ids)
                .await?;
            // Of a rate that is not RESERVED, what was there while it was.
            let availability = if reserved(item.data.get()) {
                wanted
            } else {
                Wanted::Known
            };
            self.add_wanted(availability, NotificationType::Availability, &ids)
                .await?;
        }
        self.add_unlisted(&[supplier, product], &listed).await
    }

    async fn of_gone_binding(&mut self) -> Result<(), StateError> {
        let claim = self.claim;
        let ids = claim.key.ids();
        let [supplier, product] = ids[..] else {
            return Ok(());
        };
        self.add_wanted(Wanted::All, NotificationType::Supplier, &[supplier])
            .await?;
        self.add_wanted(Wanted::All, NotificationType::Product, &ids)
            .await?;
        self.add_unlisted(&[supplier, product], &BTreeMap::new())
            .await
    }

    async fn of_rate(&mut self, reserved: bool) -> Result<(), StateError> {
        let claim = self.claim;
        let ids = claim.key.ids();
        self.add_wanted(Wanted::New, NotificationType::PriceSchedule, &ids)
            .await?;
        if reserved {
            self.add_wanted(Wanted::New, NotificationType::Availability, &ids)
                .await?;
        } else {
            let before = live(claim).and_then(|rate| rate.data.as_deref());
            let was_reserved =
                before.is_some_and(|rate| std::str::from_utf8(rate).is_ok_and(self::reserved));
            let wanted = if was_reserved {
                Wanted::All
            } else {
                Wanted::Known
            };
            self.add_wanted(wanted, NotificationType::Availability, &ids)
                .await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_type_reserved_is_reserved() {
        assert!(super::reserved(r#"{"id":"r","type":"RESERVED"}"#));
        for other in [r#"{"type":"FREESALE"}"#, r#"{"type":7}"#, "{}", "[]"] {
            assert!(!super::reserved(other), "{other}");
        }
    }
}
