//! All subscriptions that this operator knows, and what connects them: who names which Secret, and
//! who wants the same account or URL.
//!
//! Owns: the newest version of each object, as the watch brought it, without what nobody reads
//! (memory for thousands of them); and the list of whom a change concerns.
//!
//! Never here: IO; a secret (accounts are fingerprints).

mod secrets;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;

use super::metrics::ControllerMetrics;
use super::providers::SeenRules;
use super::vault::Vault;
use crate::api::v1alpha1::{Mode, WebhookSubscription};
use crate::api::validate::validate;
use crate::api::{ConditionType, NotificationType, Owner, Reason};
use crate::registration::conflict::{Account, Contender, Contenders, Place, SeenRule, Verdict};
use crate::secrets::Fingerprint;

/// Which subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Key {
    fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// An object as it was read.
#[derive(Debug, Clone)]
pub enum Object {
    /// Understood.
    Known(Arc<WebhookSubscription>),
    /// Made for another version of Bellhop: its metadata, and why it cannot be read.
    Undecodable(Arc<ObjectMeta>, String),
}

impl Object {
    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Known(object) => &object.metadata,
            Self::Undecodable(metadata, _) => metadata,
        }
    }

    fn uid(&self) -> Option<&String> {
        self.metadata().uid.as_ref()
    }
}

/// What the watch showed of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// `None`: it is gone.
    version: Option<String>,
}

struct Entry {
    object: Object,
    account: Option<Account>,
    /// Rises when somebody around it has come, gone or changed.
    changes: u64,
    /// The version of the user's Secret that the last pass read (`None`: there was none).
    credentials_read: Option<String>,
    /// What the watch showed last of the user's Secret, if it showed anything.
    credentials_seen: Option<Seen>,
    /// What the watch showed last of the owned Secret, if it showed anything.
    owned_seen: Option<Seen>,
    /// Another operator had begun to write rules and was not seen to finish.
    unfinished: bool,
    vault: Option<Arc<Vault>>,
}

impl Entry {
    fn moved(&self) -> bool {
        let credentials = self.credentials_seen.as_ref();
        let owned = self.owned_seen.as_ref();
        credentials.is_some_and(|seen| seen.version != self.credentials_read)
            || owned.is_some_and(|seen| {
                let vault = self.vault.as_ref();
                vault.is_none_or(|vault| !vault.knows(seen.version.as_ref()))
            })
    }
}

/// What a pass needs to know.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The newest version.
    pub object: Object,
    /// Rises when somebody around it has come, gone or changed.
    pub changes: u64,
    /// A Secret of it is not what the last pass has read or written.
    pub moved: bool,
    /// Another operator had begun to write rules and was not seen to finish.
    pub unfinished: bool,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// By namespace and name of the Secret.
    by_secret: HashMap<(String, String), BTreeSet<String>>,
    by_uid: HashMap<String, Key>,
    contenders: Contenders,
    /// What owned Secrets said before their subscription was known.
    early: HashMap<Key, (Option<Fingerprint>, bool)>,
}

/// See the module.
pub struct Fleet {
    inner: Mutex<Inner>,
    cluster_id: String,
    identity: String,
    metrics: ControllerMetrics,
}

impl Fleet {
    /// An empty one. `identity` is this process's.
    pub fn new(cluster_id: String, identity: String, metrics: ControllerMetrics) -> Self {
        Self {
            inner: Mutex::default(),
            cluster_id,
            identity,
            metrics,
        }
    }

    /// The owner of a subscription's rules.
    pub fn owner(&self, key: &Key) -> Owner {
        Owner::of(&self.cluster_id, &key.namespace, &key.name)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new or changed object. Returns whom it concerns.
    pub fn apply(&self, found: DeserializeGuard<WebhookSubscription>) -> BTreeSet<Key> {
        let object = match found.0 {
            Ok(mut object) => {
                object.metadata.managed_fields = None;
                object
                    .annotations_mut()
                    .remove("kubectl.kubernetes.io/last-applied-configuration");
                Object::Known(Arc::new(object))
            }
            Err(invalid) => {
                let mut metadata = invalid.metadata;
                metadata.managed_fields = None;
                Object::Undecodable(Arc::new(metadata), invalid.error)
            }
        };
        let key = Key::of(object.metadata());
        let mut inner = self.lock();
        let mut concerned = inner.unlink(&key, object.uid());
        let early = inner.early.remove(&key);
        let entry = inner.entries.entry(key.clone()).or_insert_with(|| Entry {
            object: object.clone(),
            account: None,
            changes: 0,
            credentials_read: None,
            credentials_seen: None,
            owned_seen: None,
            unfinished: false,
            vault: None,
        });
        if names_another_secret(&entry.object, &object) {
            (entry.credentials_read, entry.credentials_seen) = (None, None);
        }
        entry.object = object.clone();
        if let Some((account, unfinished)) = early {
            entry.unfinished = unfinished;
            if let Object::Known(object) = &object {
                let environment = object.spec.environment;
                entry.account = account.map(|api_key| Account {
                    environment,
                    api_key,
                });
            }
        }
        if let Object::Known(object) = &object {
            let secret = (
                key.namespace.clone(),
                object.spec.credentials_secret_ref.name.clone(),
            );
            let named = inner.by_secret.entry(secret).or_default();
            named.insert(key.name.clone());
        }
        concerned.extend(inner.contend(&key, self.owner(&key)));
        concerned.insert(key);
        self.count(&inner);
        concerned
    }

    /// Forgets an object. Returns whom that concerns.
    pub fn remove(&self, key: &Key) -> BTreeSet<Key> {
        let mut inner = self.lock();
        let mut concerned = inner.unlink(key, None);
        inner.entries.remove(key);
        concerned.insert(key.clone());
        self.count(&inner);
        concerned
    }

    /// Forgets all objects of a namespace (`None`: of all) that are not in `kept`.
    pub fn retain(&self, namespace: Option<&str>, kept: &HashSet<Key>) -> BTreeSet<Key> {
        let gone: Vec<Key> = {
            let inner = self.lock();
            let keys = inner.entries.keys();
            keys.filter(|key| namespace.is_none_or(|one| one == key.namespace))
                .filter(|key| !kept.contains(key))
                .cloned()
                .collect()
        };
        gone.iter().flat_map(|key| self.remove(key)).collect()
    }

    /// What a pass starts from.
    pub fn get(&self, key: &Key) -> Option<Snapshot> {
        let inner = self.lock();
        let entry = inner.entries.get(key)?;
        Some(Snapshot {
            object: entry.object.clone(),
            changes: entry.changes,
            moved: entry.moved(),
            unfinished: entry.unfinished,
        })
    }

    /// How many are not ready, by the reason that their status gives.
    pub fn not_ready(&self) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::new();
        for entry in self.lock().entries.values() {
            if let Some(reason) = not_ready(&entry.object) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        counts
    }

    /// A pass has read the user's Secret at this version, and works with this owned Secret.
    pub fn read(&self, key: &Key, version: Option<String>, vault: Arc<Vault>) {
        if let Some(entry) = self.lock().entries.get_mut(key) {
            entry.credentials_read = version;
            entry.vault = Some(vault);
        }
    }

    /// A pass has looked at all rules long enough after another operator's unfinished write.
    pub fn finished(&self, key: &Key) {
        if let Some(entry) = self.lock().entries.get_mut(key) {
            entry.unfinished = false;
        }
    }

    /// A pass knows the account now. Returns whom that concerns.
    pub fn set_account(&self, key: &Key, account: &Account) -> BTreeSet<Key> {
        let mut inner = self.lock();
        match inner.entries.get_mut(key) {
            Some(entry) if entry.account.as_ref() != Some(account) => {
                entry.account = Some(account.clone());
            }
            _ => return BTreeSet::new(),
        }
        inner.contend(key, self.owner(key))
    }

    /// The registry showed these rules. Returns whom that concerns.
    pub fn saw(&self, account: &Account, seen: SeenRules) -> BTreeSet<Key> {
        let mut inner = self.lock();
        let mut concerned = BTreeSet::new();
        for (kind, rule) in seen {
            concerned.extend(inner.contenders.saw(account, kind, rule));
        }
        inner.keys(concerned)
    }

    /// What a subscription may have.
    pub fn verdict(&self, key: &Key) -> Option<Verdict> {
        let inner = self.lock();
        let uid = inner.entries.get(key)?.object.uid()?.clone();
        inner.contenders.verdict(&uid)
    }

    /// Whether another subscription uses the same account.
    pub fn shares_account(&self, key: &Key, account: &Account) -> bool {
        let inner = self.lock();
        let mut others = inner.entries.iter();
        others.any(|(other, entry)| other != key && entry.account.as_ref() == Some(account))
    }

    /// How many subscriptions there are.
    pub fn size(&self) -> usize {
        self.lock().entries.len()
    }

    fn count(&self, inner: &Inner) {
        let undecodable = inner.entries.values();
        let undecodable =
            undecodable.filter(|entry| matches!(entry.object, Object::Undecodable(..)));
        self.metrics.known(inner.entries.len(), undecodable.count());
    }
}

/// What was seen of the Secret that was named before says nothing of the one that is named now.
fn names_another_secret(before: &Object, now: &Object) -> bool {
    match (before, now) {
        (Object::Known(before), Object::Known(now)) => {
            before.spec.credentials_secret_ref != now.spec.credentials_secret_ref
        }
        _ => false,
    }
}

/// Why one is not ready; `None`: it is.
fn not_ready(object: &Object) -> Option<&'static str> {
    let Object::Known(object) = object else {
        return Some(Reason::Invalid.as_str());
    };
    let status = object.status.as_ref();
    match status.and_then(|status| status.condition(ConditionType::Ready)) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(Reason::parse(&ready.reason).map_or("Unknown", Reason::as_str)),
        None => Some("Unknown"),
    }
}

impl Inner {
    /// Takes an object out of the indexes, unless it is still the same one.
    fn unlink(&mut self, key: &Key, uid: Option<&String>) -> BTreeSet<Key> {
        let Some(entry) = self.entries.get_mut(key) else {
            return BTreeSet::new();
        };
        let before = entry.object.clone();
        if before.uid() != uid {
            // Another object of the same name: nothing of the old one holds for it.
            (entry.account, entry.vault, entry.credentials_read) = (None, None, None);
            (entry.credentials_seen, entry.owned_seen) = (None, None);
            entry.changes += 1;
        }
        if let Object::Known(object) = &before {
            let secret = (
                key.namespace.clone(),
                object.spec.credentials_secret_ref.name.clone(),
            );
            if let Some(named) = self.by_secret.get_mut(&secret) {
                named.remove(&key.name);
                if named.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
        match before.uid() {
            Some(old) if Some(old) != uid => {
                let concerned = self.contenders.remove(old);
                self.by_uid.remove(old);
                self.keys(concerned)
            }
            _ => BTreeSet::new(),
        }
    }

    /// Enters an object, or its newest version, into the contest.
    fn contend(&mut self, key: &Key, owner: Owner) -> BTreeSet<Key> {
        let Some(entry) = self.entries.get(key) else {
            return BTreeSet::new();
        };
        let Object::Known(object) = entry.object.clone() else {
            return BTreeSet::new();
        };
        let Some(uid) = object.metadata.uid.clone() else {
            return BTreeSet::new();
        };
        let account = entry.account.clone();
        let deleting = object.metadata.deletion_timestamp.is_some();
        let contender = Contender {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            owner: owner.clone(),
            created: object
                .creation_timestamp()
                .map(|time| time.0)
                .unwrap_or_default(),
            takes: !deleting
                && object.spec.registration.mode == Mode::Manage
                && validate(&object).is_empty(),
            account: account.clone(),
            place: Place::of(&object.spec.url),
            types: kinds(&object),
        };
        self.by_uid.insert(uid.clone(), key.clone());
        let mut concerned = self.contenders.put(&uid, contender);
        if let Some(account) = &account {
            // What the status says was registered, until the registry itself was looked at.
            for (kind, seen) in registered(&object, &owner) {
                if !self.contenders.has_seen(account, kind) {
                    concerned.extend(self.contenders.saw(account, kind, Some(seen)));
                }
            }
        }
        concerned.remove(&uid);
        self.keys(concerned)
    }

    /// The keys of these UIDs, each told that something around it has changed.
    fn keys(&mut self, uids: BTreeSet<String>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for uid in uids {
            if let Some(key) = self.by_uid.get(&uid)
                && let Some(entry) = self.entries.get_mut(key)
            {
                entry.changes += 1;
                keys.insert(key.clone());
            }
        }
        keys
    }
}

fn kinds(object: &WebhookSubscription) -> BTreeSet<NotificationType> {
    let notifications = object.spec.notifications();
    notifications.into_iter().map(|one| one.kind).collect()
}

/// The rules that the status shows as this owner's.
fn registered(
    object: &WebhookSubscription,
    owner: &Owner,
) -> impl Iterator<Item = (NotificationType, SeenRule)> {
    use crate::api::v1alpha1::RulePhase::{Created, Disabled, Enabled};
    let rules = object.status.iter().flat_map(|status| &status.rules);
    rules.filter_map(move |rule| {
        if !matches!(rule.phase, Enabled | Disabled | Created) {
            return None;
        }
        let seen = SeenRule::of(rule.url.as_deref()?)?;
        (seen.owner == *owner).then_some((rule.kind, seen))
    })
}
