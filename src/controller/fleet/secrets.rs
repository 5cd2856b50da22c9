//! What the watch of Secrets shows, and whom it concerns.
//!
//! Never here: a Secret's content; whether what is seen is news for a pass (it finds that out).

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::Resource as _;
use kube::core::PartialObjectMeta;

use super::{Fleet, Key, Object, Seen};
use crate::controller::owned::{ACCOUNT, INSTANCE, PENDING, is_owned, secret_name};
use crate::registration::conflict::Account;
use crate::secrets::Fingerprint;

impl Fleet {
    /// A Secret came, changed or went. Returns whom that concerns. Whether it is news for them is
    /// found out when they get their turn: the watch may be ahead of an answer to a write.
    pub fn secret(&self, found: &PartialObjectMeta<KubeSecret>, gone: bool) -> BTreeSet<Key> {
        let metadata = found.meta();
        let version = metadata.resource_version.clone().filter(|_| !gone);
        let mut inner = self.lock();
        let mut concerned = BTreeSet::new();
        let at = Key::of(metadata);
        let named = (at.namespace.clone(), at.name.clone());
        for name in inner.by_secret.get(&named).cloned().unwrap_or_default() {
            let key = Key {
                namespace: at.namespace.clone(),
                name,
            };
            if let Some(entry) = inner.entries.get_mut(&key) {
                entry.credentials_seen = Some(Seen {
                    version: version.clone(),
                });
                concerned.insert(key);
            }
        }
        // The feed's Secret has the same labels, and is one of the receivers' objects.
        if is_owned(metadata)
            && let Some(name) = metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(INSTANCE))
            && at.name == secret_name(name)
        {
            let key = Key {
                namespace: at.namespace,
                name: name.clone(),
            };
            let note = |key: &str| metadata.annotations.as_ref()?.get(key);
            let account = note(ACCOUNT).and_then(|text| Fingerprint::parse(text));
            let unfinished = note(PENDING).is_some_and(|by| *by != self.identity);
            match inner.entries.get_mut(&key) {
                None if gone => {
                    inner.early.remove(&key);
                }
                None => {
                    inner.early.insert(key, (account, unfinished));
                }
                Some(entry) => {
                    entry.unfinished |= unfinished && !gone;
                    entry.owned_seen = Some(Seen { version });
                    concerned.insert(key.clone());
                    if entry.account.is_none()
                        && let (Some(api_key), Object::Known(object)) = (account, &entry.object)
                    {
                        entry.account = Some(Account {
                            environment: object.spec.environment,
                            api_key,
                        });
                        let owner = self.owner(&key);
                        concerned.extend(inner.contend(&key, owner));
                    }
                }
            }
        }
        concerned
    }

    /// A list of the Secrets of a namespace (`None`: of all) has ended: there are no others. Returns
    /// whom those concern that went while nobody watched.
    pub fn only_secrets(&self, namespace: Option<&str>, listed: &HashSet<Key>) -> BTreeSet<Key> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let gone = |at: &Key| {
            let in_scope = namespace.is_none_or(|one| one == at.namespace);
            in_scope && !listed.contains(at)
        };
        // A Secret that was read before the watch showed it was there as well.
        let went = |seen: &mut Option<Seen>, read: bool| {
            let was = seen.as_ref().map_or(read, |seen| seen.version.is_some());
            if was {
                *seen = Some(Seen { version: None });
            }
            was
        };
        let owned = |of: &Key| Key {
            namespace: of.namespace.clone(),
            name: secret_name(&of.name),
        };
        let mut concerned = BTreeSet::new();
        for ((namespace, secret), names) in &inner.by_secret {
            let at = |name: &String| Key {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            if !gone(&at(secret)) {
                continue;
            }
            for key in names.iter().map(at) {
                let entry = inner.entries.get_mut(&key);
                if entry.is_some_and(|entry| {
                    let read = entry.credentials_read.is_some();
                    went(&mut entry.credentials_seen, read)
                }) {
                    concerned.insert(key);
                }
            }
        }
        for (key, entry) in &mut inner.entries {
            if gone(&owned(key)) && went(&mut entry.owned_seen, entry.vault.is_some()) {
                concerned.insert(key.clone());
            }
        }
        inner.early.retain(|key, _| !gone(&owned(key)));
        concerned
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Request, Response};
    use kube::client::Body;
    use kube::{Api, Client};
    use serde_json::json;

    use super::super::super::by_hand::ByHand;
    use super::super::super::metrics::ControllerMetrics;
    use super::super::super::sample::subscription;
    use super::super::super::vault::Vault;
    use super::*;
    use crate::api::v1alpha1::WebhookSubscription;
    use crate::metrics::Metrics;

    fn secret(name: &str, version: &str) -> PartialObjectMeta<KubeSecret> {
        let object = json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": { "name": name, "namespace": "ns", "resourceVersion": version },
        });
        serde_json::from_value(object).expect("metadata")
    }

    /// A pass has read the credentials at this version.
    fn read(fleet: &Fleet, key: &Key, object: &WebhookSubscription, version: Option<&str>) {
        let nobody = tower::service_fn(async |_: Request<Body>| {
            Err::<Response<Body>, _>(std::io::Error::other("nobody"))
        });
        let vault = Vault::new(
            Api::namespaced(Client::new(nobody, "ns"), "ns"),
            object,
            None,
            ByHand::new(),
            "me".to_owned(),
        );
        fleet.read(key, version.map(str::to_owned), Arc::new(vault));
    }

    #[tokio::test]
    async fn a_secret_that_went_unseen_is_missed_when_all_are_listed() {
        let metrics = ControllerMetrics::new(&Metrics::new());
        let fleet = Fleet::new("a-cluster".to_owned(), "me".to_owned(), metrics);
        let object = subscription(|_| {});
        let named = object.spec.credentials_secret_ref.name.clone();
        // The Secret is there first, as it mostly is.
        assert_eq!(fleet.secret(&secret(&named, "7"), false), BTreeSet::new());
        let given = serde_json::to_value(&object).expect("JSON");
        let asked = fleet.apply(serde_json::from_value(given).expect("an object"));
        let key = asked.first().expect("itself").clone();
        let at = |name: &str| Key {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        };
        let moved = || fleet.get(&key).expect("it").moved;

        let none = HashSet::new();
        assert_eq!(
            fleet.only_secrets(None, &none),
            BTreeSet::new(),
            "not read yet"
        );
        read(&fleet, &key, &object, Some("7"));
        assert!(!moved());
        let there = HashSet::from([at(&named), at("shop-bellhop")]);
        assert_eq!(fleet.only_secrets(None, &there), BTreeSet::new());
        // A list of another namespace says nothing of it.
        assert_eq!(
            fleet.only_secrets(Some("elsewhere"), &none),
            BTreeSet::new()
        );
        let owned = HashSet::from([at("shop-bellhop")]);
        assert_eq!(fleet.only_secrets(Some("ns"), &owned), [key.clone()].into());
        assert!(moved());
        assert_eq!(fleet.only_secrets(None, &owned), BTreeSet::new(), "once");
        read(&fleet, &key, &object, None);
        assert!(!moved());
    }
}
