//! Which entities a read makes necessary to look at, beside its own.
//!
//! Owns: the expansion of a channel binding into supplier, product, rates, availabilities and
//! price schedules, and what a rate's read means for its own two. Children are marked in the same
//! step as the parent's commit.
//!
//! Never here: a removal. What a list no longer has is marked, and read singly.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::{live, memo_of};
use super::memo::Memo;
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

/// Collects child marks.
struct Children<'a> {
    state: &'a dyn State,
    covered: &'a [NotificationType],
    claim: &'a Claim,
    marks: BTreeSet<EntityKey>,
}

/// The children of a decided settlement. Also notes in its memo whether a rate is RESERVED.
pub(super) async fn children_of(
    state: &dyn State,
    covered: &[NotificationType],
    claim: &Claim,
    answer: &Result<Answer, ReadError>,
    settlement: &mut Settlement,
) -> Result<Vec<NewMark>, StateError> {
    let mut children = Children {
        state,
        covered,
        claim,
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
            let now = reserved(document.data.get());
            children.of_rate(now).await?;
            if let Some(bytes) = &mut settlement.memo {
                let mut memo = Memo::decode(bytes);
                memo.reserved = now;
                *bytes = memo.encode();
            }
        }
        (NotificationType::Rate, _) if gone => {
            let ids = claim.key.ids();
            children
                .add_known(NotificationType::Availability, &ids)
                .await?;
            children
                .add_known(NotificationType::PriceSchedule, &ids)
                .await?;
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
        })
        .collect())
}

impl Children<'_> {
    /// Marks an entity of a covered type. An identifier that no key can hold is left alone: the
    /// provider could not be asked for it.
    fn add(&mut self, kind: NotificationType, ids: &[&str]) {
        if self.covered.contains(&kind)
            && let Ok(key) = EntityKey::new(kind, ids)
        {
            self.marks.insert(key);
        }
    }

    async fn is_known(&self, key: &EntityKey) -> Result<bool, StateError> {
        let newest = self.state.entity(key).await?;
        Ok(newest.is_some_and(|event| event.change != ChangeKind::Removed))
    }

    /// Marks it if consumers do not have it.
    async fn add_new(&mut self, kind: NotificationType, ids: &[&str]) -> Result<(), StateError> {
        if let Ok(key) = EntityKey::new(kind, ids)
            && self.covered.contains(&kind)
            && !self.is_known(&key).await?
        {
            self.marks.insert(key);
        }
        Ok(())
    }

    /// Marks a listed rate if consumers do not have it, or have an older version: the notification
    /// of a binding names the product also when only a rate below it changed.
    async fn add_rate_of_list(&mut self, ids: &[&str], item: &ListItem) -> Result<(), StateError> {
        let Ok(key) = EntityKey::new(NotificationType::Rate, ids) else {
            return Ok(());
        };
        if !self.covered.contains(&NotificationType::Rate) {
            return Ok(());
        }
        let known = self.state.entity(&key).await?.and_then(|event| event.data);
        let newer = match known {
            None => true,
            Some(known) => version(item.data.get().as_bytes())
                .zip(version(&known))
                .is_some_and(|(listed, known)| listed > known),
        };
        if newer {
            self.marks.insert(key);
        }
        Ok(())
    }

    /// Marks it if consumers have it.
    async fn add_known(&mut self, kind: NotificationType, ids: &[&str]) -> Result<(), StateError> {
        if let Ok(key) = EntityKey::new(kind, ids)
            && self.is_known(&key).await?
        {
            self.marks.insert(key);
        }
        Ok(())
    }

    /// Marks what consumers have of a product's rates that are not among `listed`.
    async fn add_unlisted(
        &mut self,
        product: &[&str],
        listed: &BTreeMap<&str, &ListItem>,
    ) -> Result<(), StateError> {
        for kind in [
            NotificationType::Rate,
            NotificationType::Availability,
            NotificationType::PriceSchedule,
        ] {
            let known = self.state.known(kind, product).await?;
            let unlisted = known.into_iter().filter(|key| {
                let rate = key.ids().last().copied().unwrap_or_default();
                !listed.contains_key(rate)
            });
            self.marks.extend(unlisted);
        }
        Ok(())
    }

    async fn of_binding(&mut self, items: &[ListItem]) -> Result<(), StateError> {
        let claim = self.claim;
        let ids = claim.key.ids();
        let [supplier, product] = ids[..] else {
            return Ok(());
        };
        let first_seen = live(claim).is_none();
        if first_seen {
            self.add(NotificationType::Supplier, &[supplier]);
            self.add(NotificationType::Product, &ids);
        } else {
            self.add_new(NotificationType::Supplier, &[supplier])
                .await?;
            self.add_new(NotificationType::Product, &ids).await?;
        }
        let listed: BTreeMap<&str, &ListItem> =
            items.iter().map(|item| (item.id.as_str(), item)).collect();
        for (rate, item) in &listed {
            let ids = [supplier, product, rate];
            let reserved = reserved(item.data.get());
            if first_seen {
                self.add(NotificationType::Rate, &ids);
                self.add(NotificationType::PriceSchedule, &ids);
                if reserved {
                    self.add(NotificationType::Availability, &ids);
                }
            } else {
                self.add_rate_of_list(&ids, item).await?;
                self.add_new(NotificationType::PriceSchedule, &ids).await?;
                if reserved {
                    self.add_new(NotificationType::Availability, &ids).await?;
                }
            }
        }
        self.add_unlisted(&ids, &listed).await
    }

    async fn of_gone_binding(&mut self) -> Result<(), StateError> {
        let claim = self.claim;
        let ids = claim.key.ids();
        let supplier = ids.first().copied().unwrap_or_default();
        self.add_known(NotificationType::Supplier, &[supplier])
            .await?;
        self.add_known(NotificationType::Product, &ids).await?;
        self.add_unlisted(&ids, &BTreeMap::new()).await
    }

    async fn of_rate(&mut self, reserved: bool) -> Result<(), StateError> {
        let claim = self.claim;
        let ids = claim.key.ids();
        self.add_new(NotificationType::PriceSchedule, &ids).await?;
        if reserved {
            self.add_new(NotificationType::Availability, &ids).await?;
        } else if memo_of(claim).reserved {
            self.add(NotificationType::Availability, &ids);
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
