//! The objects of receivers in the cluster: what is there, what was written, what is not as it was
//! written.
//!
//! Owns: the metadata of each owned object as the watch shows it; the marks of what this process
//! wrote, to tell its own writes from others'; the order of a write: applied by server-side apply
//! with force, then what is not wanted any more is deleted.
//!
//! Never here: what is in an object; an object that is not ours: one of the same name without our
//! labels, or of another subscription, is left alone and told; a deletion of the volume.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::{
    DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions, ValidationDirective,
};
use kube::core::Status;
use kube::{Api, Client};

use super::build::{Built, INTENT_HASH, Kind, TEMPLATE_HASH, digest};
use super::fleet::Key;
use super::owned::{INSTANCE, MANAGED_BY, MANAGER, is_owned, secret_name};
use crate::api::v1alpha1::WebhookSubscription;

/// How many of its own versions of an object are remembered: the watch may be some behind.
const REMEMBERED: usize = 8;

/// The longest part of an API server's message that is said in a condition.
const MAX_MESSAGE: usize = 300;

/// Why a kind that only some clusters have cannot be written.
const NO_SUCH_KIND: &str = "the cluster does not have this kind; install what brings it (for an HTTPRoute the Gateway API, gateway.networking.k8s.io/v1), or ask for another one in spec.exposure";

/// Which object of a subscription.
type Id = (Kind, String);

/// What the watch shows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    uid: Option<String>,
    /// The UID of the subscription that it belongs to; a volume that outlives it has none.
    owner: Option<String>,
    /// Stands for all that somebody could change by hand.
    mark: String,
    /// The digest of the pods' template, on a StatefulSet.
    template: Option<String>,
    /// The digest of what it was meant to be when it was written last.
    intent: Option<String>,
}

#[derive(Debug, Default)]
struct Entry {
    seen: BTreeMap<Id, Seen>,
    /// The marks of what was written last.
    known: BTreeMap<Id, Vec<String>>,
    /// An object went since the last write.
    gone: bool,
}

impl Entry {
    fn moved(&self) -> bool {
        let strange = |(id, seen): (&Id, &Seen)| match self.known.get(id) {
            Some(known) => !known.contains(&seen.mark),
            // Something to prune; what nobody owns is none of ours, whatever its labels say.
            None => seen.owner.is_some(),
        };
        // Before the first write of this process nothing is known to compare with.
        self.gone || (!self.known.is_empty() && self.seen.iter().any(strange))
    }
}

/// Why an object could not be written although the API server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// How a write of all objects ended.
#[derive(Debug, Default)]
pub struct Applied {
    /// What the API server did not take; the others were written all the same.
    pub refused: Vec<Refused>,
}

/// See the module.
#[derive(Default)]
pub struct Objects {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Objects {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch shows an object with our labels. Returns whom it concerns, if it is news.
    pub fn saw(&self, kind: Kind, metadata: &ObjectMeta) -> Option<Key> {
        let (key, id) = identify(kind, metadata)?;
        let seen = Seen {
            uid: metadata.uid.clone(),
            owner: owner(metadata),
            mark: mark(metadata),
            template: note(metadata, TEMPLATE_HASH),
            intent: note(metadata, INTENT_HASH),
        };
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        let before = entry.seen.insert(id, seen.clone());
        (before.as_ref() != Some(&seen)).then_some(key)
    }

    /// The watch shows that an object is gone. Returns whom it concerns.
    pub fn lost(&self, kind: Kind, metadata: &ObjectMeta) -> Option<Key> {
        let (key, id) = identify(kind, metadata)?;
        let mut entries = self.lock();
        let entry = entries.get_mut(&key)?;
        entry.seen.remove(&id);
        // One that was pruned is not missed.
        entry.gone |= entry.known.contains_key(&id);
        if entry.seen.is_empty() && entry.known.is_empty() {
            entries.remove(&key);
        }
        Some(key)
    }

    /// A list of a kind in a namespace (`None`: in all) has ended: there are no others.
    pub fn only(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        listed: &HashSet<(Key, String)>,
    ) -> Vec<Key> {
        let mut changed = Vec::new();
        for (key, entry) in self.lock().iter_mut() {
            if namespace.is_some_and(|one| one != key.namespace) {
                continue;
            }
            let before = entry.seen.len();
            entry.seen.retain(|(of, name), _| {
                *of != kind || listed.contains(&(key.clone(), name.clone()))
            });
            if entry.seen.len() != before {
                entry.gone = true;
                changed.push(key.clone());
            }
        }
        changed
    }

    /// Whether something is not as this process wrote it.
    pub fn moved(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(Entry::moved)
    }

    /// The subscription is gone; what the watch still shows goes with it.
    pub fn forget(&self, key: &Key) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key) {
            (entry.known, entry.gone) = (BTreeMap::new(), false);
            if entry.seen.is_empty() {
                entries.remove(key);
            }
        }
    }

    /// The digest of the template that the pods were last made from; `None`: there are none.
    pub fn template(&self, key: &Key) -> Option<String> {
        let entries = self.lock();
        let seen = &entries.get(key)?.seen;
        let mut all = seen.iter();
        let (_, set) = all.find(|((kind, _), _)| *kind == Kind::StatefulSet)?;
        set.template.clone()
    }

    /// Of each subscription that has a StatefulSet, the digest of its pods' template.
    pub fn templates(&self) -> Vec<(Key, String)> {
        let entries = self.lock();
        let of = |(key, entry): (&Key, &Entry)| {
            let mut sets = entry.seen.iter();
            let (_, set) = sets.find(|((kind, _), _)| *kind == Kind::StatefulSet)?;
            Some((key.clone(), set.template.clone()?))
        };
        entries.iter().filter_map(of).collect()
    }

    /// Whether the watch shows all of these, each as it is meant now: what a former operator left
    /// behind is as this one would write it, as far as can be told without a call.
    pub fn stand(&self, key: &Key, wanted: &[Built]) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            return false;
        };
        let found = wanted.iter().map(|one| {
            let id = (one.kind, one.name.clone());
            let meant = one.object["metadata"]["annotations"][INTENT_HASH].as_str();
            let seen = entry.seen.get(&id)?;
            (seen.intent.as_deref() == meant).then(|| (id, vec![seen.mark.clone()]))
        });
        let Some(found) = found.collect() else {
            return false;
        };
        // What is changed from now on is noticed, and what there is beside them.
        entry.known = found;
        true
    }

    /// For now the others are left as they are; what is changed from now on is noticed.
    pub fn hold(&self, key: &Key) {
        if let Some(entry) = self.lock().get_mut(key) {
            for (id, seen) in &entry.seen {
                let known = entry.known.entry(id.clone());
                known.or_insert_with(|| vec![seen.mark.clone()]);
            }
        }
    }

    /// Applies these, in this order.
    ///
    /// # Errors
    /// When the API server does not answer: then it must be done again.
    pub async fn apply(
        &self,
        client: &Client,
        key: &Key,
        written: impl Iterator<Item = &Built>,
    ) -> Result<Applied, kube::Error> {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.gone = false;
        }
        let mut applied = Applied::default();
        let mut claimed = true;
        for one in written {
            // The settings tell the store how large its volume is: they wait until it may be so.
            if one.kind == Kind::ConfigMap && !claimed {
                continue;
            }
            match self.apply_one(client, key, one).await {
                Ok(metadata) => self.wrote(key, one, &metadata),
                Err(Trouble::Refused(why)) => {
                    claimed &= one.kind != Kind::PersistentVolumeClaim;
                    applied.refused.push(why);
                }
                Err(Trouble::Api(error)) => return Err(error),
            }
        }
        Ok(applied)
    }

    async fn apply_one(
        &self,
        client: &Client,
        key: &Key,
        one: &Built,
    ) -> Result<ObjectMeta, Trouble> {
        let api = api(client, key, one.kind);
        if !self.is_seen(key, one) {
            match api.get_metadata_opt(&one.name).await {
                Ok(Some(there)) => ours(key, one, &there.metadata)?,
                Ok(None) => {}
                // Not of an object, but of the path: there is no such kind.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    return Err(Trouble::refused(one, NO_SUCH_KIND));
                }
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    return Err(Trouble::refused(one, "the operator may not read it"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let params = PatchParams {
            // A field that this cluster does not know, since it is older, must not be dropped in
            // silence.
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply(MANAGER).force()
        };
        let answer = api
            .patch(&one.name, &params, &Patch::Apply(&one.object))
            .await;
        match answer {
            Ok(object) => Ok(object.metadata),
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                let message = match one.kind {
                    // What it says of a Secret may be of its content.
                    Kind::Secret => status.reason.clone(),
                    _ => status.message.chars().take(MAX_MESSAGE).collect(),
                };
                Err(Trouble::refused(one, &message))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_seen(&self, key: &Key, one: &Built) -> bool {
        let entries = self.lock();
        let id = (one.kind, one.name.clone());
        entries
            .get(key)
            .is_some_and(|entry| entry.seen.contains_key(&id))
    }

    fn wrote(&self, key: &Key, one: &Built, metadata: &ObjectMeta) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        let known = entry.known.entry((one.kind, one.name.clone())).or_default();
        let mark = mark(metadata);
        if !known.contains(&mark) {
            known.push(mark);
        }
        let surplus = known.len().saturating_sub(REMEMBERED);
        known.drain(..surplus);
    }

    /// Deletes what there is of this subscription beside `wanted`. What the watch has not shown yet
    /// goes with the pass that it brings.
    ///
    /// # Errors
    /// When the API server does not answer: then it must be done again.
    pub async fn prune(
        &self,
        client: &Client,
        key: &Key,
        subscription: &WebhookSubscription,
        wanted: &[Built],
    ) -> Result<(), kube::Error> {
        let is_wanted = |(kind, name): &Id| {
            wanted
                .iter()
                .any(|one| one.kind == *kind && one.name == *name)
        };
        let surplus: Vec<(Id, Option<String>)> = {
            let mut entries = self.lock();
            let Some(entry) = entries.get_mut(key) else {
                return Ok(());
            };
            entry.known.retain(|id, _| is_wanted(id));
            let seen = entry.seen.iter();
            seen.filter(|(id, seen)| {
                !is_wanted(id)
                    && id.0 != Kind::PersistentVolumeClaim
                    && seen.owner.is_some()
                    && seen.owner == subscription.metadata.uid
            })
            .map(|(id, seen)| (id.clone(), seen.uid.clone()))
            .collect()
        };
        for ((kind, name), uid) in surplus {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid,
                    resource_version: None,
                }),
                ..DeleteParams::background()
            };
            tracing::info!(
                kind = kind.as_str(),
                name,
                "an object is not wanted any more"
            );
            match api(client, key, kind).delete(&name, &params).await {
                // 409: another object of that name, made meanwhile.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                result => drop(result?),
            }
        }
        Ok(())
    }
}

enum Trouble {
    Refused(Refused),
    Api(kube::Error),
}

impl Trouble {
    fn refused(one: &Built, why: &str) -> Self {
        Self::Refused(Refused(format!(
            "{} {}: {why}",
            one.kind.as_str(),
            one.name
        )))
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

/// What concerns this object alone, so that the others are written all the same. 409 is a quota, or
/// an owner that is just going. 500 mostly is trouble of the API server's own, which passes, but also
/// an admission webhook that does not answer and a field that a kind does not have.
fn is_refusal(status: &Status) -> bool {
    let of_this = ["failed calling webhook", "typed patch object"];
    match status.code {
        400 | 403 | 404 | 409 | 422 => true,
        500 => of_this.iter().any(|part| status.message.contains(part)),
        _ => false,
    }
}

/// An object of this name that was there before us.
fn ours(key: &Key, one: &Built, there: &ObjectMeta) -> Result<(), Trouble> {
    if !is_owned(there) {
        let why = format!(
            "it is there already and not Bellhop's; rename or remove it, or, if it is meant for this subscription, give it the labels {MANAGED_BY}={MANAGER} and {INSTANCE}={}",
            key.name
        );
        return Err(Trouble::refused(one, &why));
    }
    match there
        .labels
        .as_ref()
        .and_then(|labels| labels.get(INSTANCE))
    {
        Some(name) if *name == key.name => Ok(()),
        other => {
            let whose = other.map_or("nobody", String::as_str);
            let why = format!("it belongs to the subscription {whose}; give one another name");
            Err(Trouble::refused(one, &why))
        }
    }
}

fn api(client: &Client, key: &Key, kind: Kind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), &key.namespace, &kind.resource())
}

fn identify(kind: Kind, metadata: &ObjectMeta) -> Option<(Key, Id)> {
    if !is_owned(metadata) {
        return None;
    }
    let key = Key {
        namespace: metadata.namespace.clone()?,
        name: metadata.labels.as_ref()?.get(INSTANCE)?.clone(),
    };
    let name = metadata.name.clone()?;
    // The owned Secret has a keeper of its own, the vault.
    let kept = kind == Kind::Secret && name == secret_name(&key.name);
    (!kept).then_some((key, (kind, name)))
}

/// Of which subscription an object is, and its name; `None`: of none.
pub fn named(kind: Kind, metadata: &ObjectMeta) -> Option<(Key, String)> {
    let (key, (_, name)) = identify(kind, metadata)?;
    Some((key, name))
}

fn owner(metadata: &ObjectMeta) -> Option<String> {
    let mut owners = metadata.owner_references.iter().flatten();
    let ours = owners.find(|owner| owner.kind == "WebhookSubscription");
    ours.map(|owner| owner.uid.clone())
}

fn note(metadata: &ObjectMeta, name: &str) -> Option<String> {
    metadata.annotations.as_ref()?.get(name).cloned()
}

/// Of kinds with a generation, only the spec and what is said beside it: a status changes all the
/// time.
fn mark(metadata: &ObjectMeta) -> String {
    let version = match metadata.generation {
        Some(generation) => format!("generation {generation}"),
        None => format!("version {:?}", metadata.resource_version),
    };
    let content = serde_json::json!([
        metadata.uid,
        version,
        metadata.labels,
        metadata.annotations,
        metadata.owner_references,
        metadata.deletion_timestamp,
    ]);
    digest(content.to_string().as_bytes())
}

#[cfg(test)]
mod tests;
