//! The removal guard: a broken gateway that answers 404 to everything must not empty a shop.
//!
//! Owns: the removals of the last ten minutes, how many are let through, and which entities are
//! held back. A parent and its children count once. Never here: the decision that an entity is
//! gone (that took two signals before anyone asks here); a count that a restart empties.
//!
//! The count is kept in memory and begins with the removals that the store holds as events: they
//! became durable in the same step as the removal itself, so that no crash parts the two. How long
//! ago those were only the wall clock can say. One that was set back makes them count for longer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use crate::api::EntityKey;
use crate::clock::{Ticks, UnixMillis};
use crate::state::{ChangeKind, State, StateError};

/// Removals are counted over this long.
const SPAN: Duration = Duration::from_mins(10);
/// So many are always let through.
const AT_LEAST: u64 = 20;
/// Keys remembered as held back; beyond that they are only counted by their next read.
const MOST_HELD: usize = 100_000;

/// Old removals are dropped from the count this often, so that one more costs little.
const PRUNE: Duration = Duration::from_secs(5);

/// So many of those held back are noted in the store, to be shown again right after a restart.
const MOST_NOTED: usize = 1_000;

/// Events that are read from the store at once while the count is put together.
const PAGE: u64 = 512;
/// The same in bytes of their data.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The removals that were committed within the last ten minutes, and how long ago: what a guard
/// starts with. Goes back from the newest event until all are older.
pub(super) async fn recent_removals(
    state: &dyn State,
    now: UnixMillis,
) -> Result<Vec<(Duration, EntityKey)>, StateError> {
    let mut removals = BTreeMap::new();
    let (mut above, mut stretch) = (state.stats().head, PAGE);
    while above > 0 {
        let below = above.saturating_sub(stretch);
        let (mut cursor, mut found, mut young) = (below, false, false);
        while cursor < above {
            let page = state.kept(cursor, PAGE as usize, PAGE_BYTES).await?;
            let Some(last) = page.last() else { break };
            cursor = last.sequence;
            for event in page.into_iter().filter(|event| event.sequence <= above) {
                found = true;
                let age = now.since(event.time);
                if age < SPAN {
                    young = true;
                    if event.change == ChangeKind::Removed {
                        removals.insert(event.sequence, (age, event.key));
                    }
                }
            }
        }
        if found && !young {
            break;
        }
        if !found {
            // Retention has left a gap, which may be wide.
            stretch = stretch.saturating_mul(2);
        }
        above = below;
    }
    Ok(removals.into_values().collect())
}

/// Counts removals.
#[derive(Debug)]
pub(super) struct Guard {
    percent: u64,
    /// Until when each counts, in that order.
    removed: VecDeque<(Ticks, EntityKey)>,
    /// The families of `removed`, without those that belong to another.
    families: BTreeSet<String>,
    pruned: Ticks,
    held: BTreeSet<EntityKey>,
    /// What the store has of them.
    noted: Vec<EntityKey>,
    /// Removals that a person confirmed: those whose first signal is not after this ...
    confirmed: Option<Ticks>,
    /// ... and, whenever that was, of these entities.
    meant: BTreeSet<EntityKey>,
}

impl Guard {
    pub(super) fn new(percent: u32) -> Self {
        Self {
            percent: u64::from(percent),
            removed: VecDeque::new(),
            families: BTreeSet::new(),
            pruned: Ticks(0),
            held: BTreeSet::new(),
            noted: Vec::new(),
            confirmed: None,
            meant: BTreeSet::new(),
        }
    }

    /// Counts removals that were committed before this guard was made, oldest first.
    pub(super) fn recall(&mut self, removals: Vec<(Duration, EntityKey)>, now: Ticks) {
        for (age, key) in removals.into_iter().rev() {
            add(&mut self.families, family(&key));
            let until = now.after(SPAN.saturating_sub(age));
            self.removed.push_front((until, key));
        }
    }

    /// Whether one more removal is let through now; counts it if so. `live` entities are known.
    /// `first` is when this one was first seen to be gone.
    pub(super) fn admit(&mut self, key: &EntityKey, first: Ticks, now: Ticks, live: u64) -> bool {
        self.prune(now);
        let known = live.saturating_add(self.removed.len() as u64);
        let allowed = (known.saturating_mul(self.percent) / 100).max(AT_LEAST);
        let confirmed =
            self.meant.contains(key) || self.confirmed.is_some_and(|confirmed| first <= confirmed);
        let counted = within(&self.families, &family(key)) || {
            // A parent takes the place of its children.
            let family = family(key);
            let below = descendants(&self.families, &family).count() as u64;
            self.families.len() as u64 - below < allowed
        };
        let admitted = self.percent >= 100 || confirmed || counted;
        if admitted {
            self.held.remove(key);
            self.removed.push_back((now.after(SPAN), key.clone()));
            add(&mut self.families, family(key));
        } else if self.held.len() < MOST_HELD {
            self.held.insert(key.clone());
        }
        admitted
    }

    fn prune(&mut self, now: Ticks) {
        let over = |until: Ticks| now >= until;
        if now.since(self.pruned) >= PRUNE && self.removed.front().is_some_and(|(at, _)| over(*at))
        {
            self.pruned = now;
            self.removed.retain(|(until, _)| !over(*until));
            self.recount();
        }
    }

    fn recount(&mut self) {
        self.families.clear();
        for (_, key) in &self.removed {
            add(&mut self.families, family(key));
        }
    }

    /// Takes back what [`Self::admit`] counted: the removal was not committed.
    pub(super) fn withdraw(&mut self, key: &EntityKey) {
        if let Some(at) = self.removed.iter().rposition(|(_, removed)| removed == key) {
            self.removed.remove(at);
            self.recount();
        }
    }

    /// It is there after all, or was removed after an hour of agreement.
    pub(super) fn release(&mut self, key: &EntityKey) {
        self.held.remove(key);
        self.meant.remove(key);
    }

    /// A person says that the removals held back until now are meant. Gives them, to look again.
    pub(super) fn confirm(&mut self, now: Ticks) -> Vec<EntityKey> {
        self.confirmed = Some(now);
        let held = std::mem::take(&mut self.held);
        self.meant.extend(held.iter().cloned());
        held.into_iter().collect()
    }

    /// Takes up what an earlier run held back and noted.
    pub(super) fn hold_again(&mut self, noted: Vec<EntityKey>) {
        self.held.extend(noted.iter().cloned());
        self.noted = noted;
    }

    /// What the store should have noted, if it has something else.
    pub(super) fn unnoted(&self) -> Option<Vec<EntityKey>> {
        let same = self.held.iter().take(MOST_NOTED).eq(&self.noted);
        (!same).then(|| self.held_after(None, MOST_NOTED))
    }

    /// The store has it.
    pub(super) fn note(&mut self, noted: Vec<EntityKey>) {
        self.noted = noted;
    }

    /// How many are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Those held back after `after`, in key order.
    pub(super) fn held_after(&self, after: Option<&EntityKey>, limit: usize) -> Vec<EntityKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let held = self.held.range((from, Bound::Unbounded));
        held.take(limit).cloned().collect()
    }
}

/// Whether `family`, or one that it belongs to, is in the set.
fn within(families: &BTreeSet<String>, family: &str) -> bool {
    family
        .match_indices('/')
        .any(|(at, _)| families.contains(&family[..=at]))
}

fn descendants<'a>(
    families: &'a BTreeSet<String>,
    family: &'a str,
) -> impl Iterator<Item = &'a String> {
    families
        .range::<str, _>((Bound::Included(family), Bound::Unbounded))
        .take_while(move |other| other.starts_with(family))
}

fn add(families: &mut BTreeSet<String>, family: String) {
    if !within(families, &family) {
        let below: Vec<String> = descendants(families, &family).cloned().collect();
        for child in below {
            families.remove(&child);
        }
        families.insert(family);
    }
}

/// The identifiers, each closed by a separator: a parent's family starts each of its children's.
fn family(key: &EntityKey) -> String {
    let group = if key.kind() == crate::api::NotificationType::Booking {
        "booking/"
    } else {
        "catalogue/"
    };
    let mut path = String::from(group);
    for id in key.ids() {
        path.push_str(id);
        path.push('/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: String) -> EntityKey {
        text.parse().unwrap()
    }

    #[test]
    fn twenty_or_the_percentage_within_ten_minutes() {
        let mut guard = Guard::new(10);
        let now = Ticks(1_000);
        for n in 0..20 {
            assert!(guard.admit(&key(format!("booking/{n}")), now, now, 100));
        }
        assert!(!guard.admit(&key("booking/20".into()), now, now, 100));
        assert_eq!(guard.held(), 1);
        // Ten minutes later the count is empty again.
        let later = Ticks(601_000);
        assert!(guard.admit(&key("booking/20".into()), now, later, 80));
        assert_eq!(guard.held(), 0);

        let mut guard = Guard::new(10);
        let admitted = (0..1000)
            .filter(|n| guard.admit(&key(format!("booking/{n}")), now, now, 1000 - *n))
            .count();
        assert_eq!(admitted, 100);
    }

    #[test]
    fn a_parent_counts_once_with_its_children_in_any_order() {
        let mut guard = Guard::new(0);
        let now = Ticks(0);
        for n in 0..20 {
            assert!(guard.admit(&key(format!("rate/s/p/{n}")), now, now, 100));
            assert!(guard.admit(&key(format!("availability/s/p/{n}")), now, now, 100));
        }
        assert!(!guard.admit(&key("rate/s/p/20".into()), now, now, 100));
        // The parent folds them into one; a neighbour whose name only starts alike is apart.
        assert!(guard.admit(&key("product/s/p".into()), now, now, 100));
        assert!(guard.admit(&key("rate/s/p/20".into()), now, now, 100));
        assert_eq!(guard.families.len(), 1);
        assert!(guard.admit(&key("product/s/p2".into()), now, now, 100));
        assert_eq!(guard.families.len(), 2);
    }

    #[test]
    fn confirmed_or_turned_off() {
        let mut guard = Guard::new(0);
        let all: Vec<_> = (0..30).map(|n| key(format!("booking/{n}"))).collect();
        for key in &all {
            guard.admit(key, Ticks(5), Ticks(5), 0);
        }
        assert_eq!(guard.held(), 10);
        let again = guard.confirm(Ticks(9));
        assert_eq!(again.len(), 10);
        assert!(
            again
                .iter()
                .all(|key| guard.admit(key, Ticks(5), Ticks(10), 0))
        );
        assert!(!guard.admit(&key("booking/new".into()), Ticks(10), Ticks(10), 0));

        let mut off = Guard::new(100);
        assert!(all.iter().all(|key| off.admit(key, Ticks(0), Ticks(0), 0)));
    }

    #[test]
    fn removals_of_an_earlier_run_count_for_the_rest_of_their_time() {
        let mut guard = Guard::new(0);
        let minutes = Duration::from_mins;
        let before = (0..20).map(|n| {
            let age = if n < 5 { minutes(9) } else { minutes(1) };
            (age, key(format!("booking/{n}")))
        });
        guard.recall(before.collect(), Ticks(50));
        let admits = |guard: &mut Guard, name: &str, at: u64| {
            let at = Ticks(at);
            guard.admit(&key(format!("booking/{name}")), at, at, 100)
        };
        assert!(!admits(&mut guard, "a", 50));
        // A minute later the five oldest are ten minutes old.
        for name in ["a", "b", "c", "d", "e"] {
            assert!(admits(&mut guard, name, 60_050), "{name}");
        }
        assert!(!admits(&mut guard, "f", 60_050));
        assert_eq!(guard.held_after(None, 9), [key("booking/f".into())]);
        let after = key("booking/f".into());
        assert_eq!(guard.held_after(Some(&after), 9), []);
    }

    #[test]
    fn what_was_not_committed_does_not_count() {
        let mut guard = Guard::new(0);
        for n in 0..20 {
            guard.admit(&key(format!("booking/{n}")), Ticks(0), Ticks(0), 0);
        }
        guard.withdraw(&key("booking/3".into()));
        assert!(guard.admit(&key("booking/x".into()), Ticks(0), Ticks(0), 0));
    }
}
