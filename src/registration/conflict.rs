//! Which subscription may have what, when several want the same: a rule (there is one per account
//! and type), or a public URL.
//!
//! Owns: the order of precedence, and who has to be looked at again when somebody comes, goes or
//! changes. Pure: it knows what it is told and nothing else, in whatever order it was told.
//!
//! # The order
//! Whoever has a rule there already comes first (the owner at the end of the rule's URL), then who
//! may take new things at all, then the older object, then the smaller UID. It is total: of those
//! who want a thing exactly one gets it, and the arrival of another claimant moves nobody out.
//!
//! Never here: Kubernetes; a decision about a rule whose owner is not known here (the planner
//! refuses those); a claim by an API key itself, only by its fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::v1alpha1::Environment;
use crate::api::{NotificationType, Owner, Route};
use crate::secrets::Fingerprint;

/// What the provider takes for one customer: there is one rule per type in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// Production or sandbox.
    pub environment: Environment,
    /// Of the API key.
    pub api_key: Fingerprint,
}

/// Where a URL leads: host, port and path, as far as they matter to who answers there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(String);

impl Place {
    /// `None` for what is no https URL. The case of the host, its final dot, the port 443 and a
    /// slash at the end make no difference.
    pub fn of(url: &str) -> Option<Self> {
        let url = reqwest::Url::parse(url).ok()?;
        if url.scheme() != "https" {
            return None;
        }
        let host = url.host_str()?.trim_end_matches('.');
        let port = url.port().map(|port| format!(":{port}"));
        let path = url.path().trim_end_matches('/');
        Some(Self(format!("{host}{}{path}", port.unwrap_or_default())))
    }
}

/// A rule at the provider that carries an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRule {
    /// Whose it is.
    pub owner: Owner,
    /// The `url` that it was made for.
    pub place: Place,
}

impl SeenRule {
    /// Reads a rule's URL, `url/{type}/{owner}`. `None`: it names no owner.
    pub fn of(rule_url: &str) -> Option<Self> {
        let owner = Route::of(rule_url)?.owner?;
        let mut place = Place::of(rule_url)?;
        for _ in 0..2 {
            let parent = place.0.rfind('/')?;
            place.0.truncate(parent);
        }
        Some(Self { owner, place })
    }
}

/// One subscription, as far as it can be in another's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The marker in its rules' URLs.
    pub owner: Owner,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// False for who takes nothing new: `mode: Observe`, being deleted, an invalid spec. It keeps
    /// what it has a rule for, and stands behind everyone else for the rest.
    pub takes: bool,
    /// `None` while the credentials are not there.
    pub account: Option<Account>,
    /// `None` for a `url` that is no https URL.
    pub place: Option<Place>,
    /// The subscribed types.
    pub types: BTreeSet<NotificationType>,
}

/// Who has it instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{namespace}/{name}")]
pub struct Rival {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// What one subscription may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its `url`, or who has it: `Accepted=False`, `UrlInUse`.
    pub url: Result<(), Rival>,
    /// Each of its types, or who has it: `TypeClaimedElsewhere`. Empty without credentials.
    pub types: BTreeMap<NotificationType, Result<(), Rival>>,
}

/// The place in the queue: the smallest gets it.
type Rank<'a> = (bool, bool, Timestamp, &'a str);

/// All subscriptions of a cluster, by UID.
#[derive(Debug, Clone, Default)]
pub struct Contenders {
    all: BTreeMap<String, Contender>,
    accounts: BTreeMap<Account, Members>,
    places: BTreeMap<Place, Members>,
}

/// Who wants the same, and who has it.
#[derive(Debug, Clone, Default)]
struct Members {
    uids: BTreeSet<String>,
    /// Of an account: the rules that carry an owner.
    seen: BTreeMap<NotificationType, SeenRule>,
    /// Of an account: per type. Of a place: the one under `None`.
    first: BTreeMap<Option<NotificationType>, String>,
}

impl Contenders {
    /// Takes in a subscription, new or changed. Returns the others that now have more or less than
    /// before, or another rival: they must be looked at again.
    pub fn put(&mut self, uid: &str, contender: Contender) -> BTreeSet<String> {
        let (account, place) = (contender.account.clone(), contender.place.clone());
        // Before the old one is taken out: a group that stays must not forget what was seen.
        if let Some(account) = &account {
            join(&mut self.accounts, account, uid);
        }
        if let Some(place) = &place {
            join(&mut self.places, place, uid);
        }
        let old = self.all.insert(uid.to_owned(), contender);
        self.leave(uid, old, account, place)
    }

    /// A subscription is gone, its rules too. Returns the others that must be looked at again.
    pub fn remove(&mut self, uid: &str) -> BTreeSet<String> {
        let old = self.all.remove(uid);
        self.leave(uid, old, None, None)
    }

    /// What the registry showed for a type: `None` for no rule, or one without an owner. Returns
    /// all that must be looked at again.
    pub fn saw(
        &mut self,
        account: &Account,
        kind: NotificationType,
        rule: Option<SeenRule>,
    ) -> BTreeSet<String> {
        let Some(members) = self.accounts.get_mut(account) else {
            return BTreeSet::new();
        };
        let before = match &rule {
            Some(rule) => members.seen.insert(kind, rule.clone()),
            None => members.seen.remove(&kind),
        };
        if before == rule {
            return BTreeSet::new();
        }
        let places = members.uids.iter().filter_map(|uid| self.all.get(uid));
        let places = places.filter_map(|one| one.place.clone()).collect();
        self.refresh(places, BTreeSet::from([account.clone()]))
    }

    /// Whether anything is known of an account's rule of a type, since somebody has the account.
    pub fn has_seen(&self, account: &Account, kind: NotificationType) -> bool {
        let members = self.accounts.get(account);
        members.is_some_and(|members| members.seen.contains_key(&kind))
    }

    /// What a subscription may have; `None` for one that was not put in.
    pub fn verdict(&self, uid: &str) -> Option<Verdict> {
        let one = self.all.get(uid)?;
        let place = one.place.as_ref().and_then(|at| self.places.get(at));
        let account = one.account.as_ref().and_then(|own| self.accounts.get(own));
        let types = account.map(|members| {
            let kinds = one.types.iter();
            kinds.map(|&kind| (kind, self.unless_own(uid, members.first.get(&Some(kind)))))
        });
        Some(Verdict {
            url: self.unless_own(uid, place.and_then(|members| members.first.get(&None))),
            types: types.into_iter().flatten().collect(),
        })
    }

    fn unless_own(&self, uid: &str, first: Option<&String>) -> Result<(), Rival> {
        let rival = first.filter(|&first| first != uid);
        match rival.and_then(|rival| self.all.get_key_value(rival)) {
            None => Ok(()),
            Some((uid, rival)) => Err(Rival {
                uid: uid.clone(),
                namespace: rival.namespace.clone(),
                name: rival.name.clone(),
            }),
        }
    }

    /// Takes `uid` out of the groups that it was in as `old` and is no longer, and decides anew.
    fn leave(
        &mut self,
        uid: &str,
        old: Option<Contender>,
        account: Option<Account>,
        place: Option<Place>,
    ) -> BTreeSet<String> {
        let (old_account, old_place) = old.map_or((None, None), |old| (old.account, old.place));
        if let Some(left) = old_account
            .as_ref()
            .filter(|&old| Some(old) != account.as_ref())
        {
            part(&mut self.accounts, left, uid);
        }
        if let Some(left) = old_place
            .as_ref()
            .filter(|&old| Some(old) != place.as_ref())
        {
            part(&mut self.places, left, uid);
        }
        let places = [old_place, place].into_iter().flatten().collect();
        let accounts = [old_account, account].into_iter().flatten().collect();
        let mut others = self.refresh(places, accounts);
        others.remove(uid);
        others
    }

    /// Decides these groups anew, and those that depend on them. Returns whose verdict differs.
    fn refresh(
        &mut self,
        places: BTreeSet<Place>,
        mut accounts: BTreeSet<Account>,
    ) -> BTreeSet<String> {
        let mut affected = BTreeSet::new();
        for place in places {
            let first = self.first_at(&place).map(str::to_owned);
            let Some(members) = self.places.get_mut(&place) else {
                continue;
            };
            let before = replace(&mut members.first, None, first.clone());
            if before != first {
                affected.extend(members.uids.iter().cloned());
                // Whether one has its URL decides whether it may take a type.
                let moved = [before, first].into_iter().flatten();
                let moved = moved.filter_map(|uid| self.all.get(&uid)?.account.clone());
                accounts.extend(moved);
            }
        }
        for account in accounts {
            for kind in NotificationType::ALL {
                let first = self.first_of_type(&account, kind).map(str::to_owned);
                let Some(members) = self.accounts.get_mut(&account) else {
                    continue;
                };
                if replace(&mut members.first, Some(kind), first.clone()) != first {
                    let wants = |uid: &&String| {
                        let one = self.all.get(*uid);
                        one.is_some_and(|one| one.types.contains(&kind))
                    };
                    affected.extend(members.uids.iter().filter(wants).cloned());
                }
            }
        }
        affected
    }

    /// Who has the URL.
    fn first_at(&self, place: &Place) -> Option<&str> {
        self.first(self.places.get(place)?, |_, one| {
            let account = one.account.as_ref().and_then(|own| self.accounts.get(own));
            let mut rules = account.into_iter().flat_map(|own| own.seen.values());
            let has = rules.any(|rule| rule.owner == one.owner && rule.place == *place);
            Some((has, one.takes))
        })
    }

    /// Who has the rule. One that has lost its URL cannot take a type, only keep it.
    fn first_of_type(&self, account: &Account, kind: NotificationType) -> Option<&str> {
        let members = self.accounts.get(account)?;
        let rule = members.seen.get(&kind);
        self.first(members, |uid, one| {
            let has = rule.is_some_and(|rule| rule.owner == one.owner);
            let at = one.place.as_ref().and_then(|at| self.places.get(at));
            let has_url = at.is_some_and(|at| at.first.get(&None).is_some_and(|it| it == uid));
            (has || one.types.contains(&kind)).then_some((has, one.takes && has_url))
        })
    }

    /// The first in the order, among those of whom `says` knows (whether it has a rule there,
    /// whether it takes new things).
    fn first<'a>(
        &'a self,
        members: &'a Members,
        says: impl Fn(&str, &Contender) -> Option<(bool, bool)>,
    ) -> Option<&'a str> {
        let rank = |uid: &'a String| -> Option<Rank<'a>> {
            let one = self.all.get(uid)?;
            let (has, takes) = says(uid, one)?;
            Some((!has, !takes, one.created, uid.as_str()))
        };
        let first = members.uids.iter().filter_map(rank).min()?;
        Some(first.3)
    }
}

fn join<K: Ord + Clone>(groups: &mut BTreeMap<K, Members>, key: &K, uid: &str) {
    let members = groups.entry(key.clone()).or_default();
    members.uids.insert(uid.to_owned());
}

/// What was seen in an account that nobody has any more is not kept.
fn part<K: Ord>(groups: &mut BTreeMap<K, Members>, key: &K, uid: &str) {
    if let Some(members) = groups.get_mut(key) {
        members.uids.remove(uid);
        if members.uids.is_empty() {
            groups.remove(key);
        }
    }
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}
