//! What the owned Secret `NAME-bellhop` says, and how it is written down. Pure.
//!
//! Owns: its keys and annotations. It holds a copy of the credentials (so that the rules can be
//! removed when the user's Secret is gone), the rules' keys as the receivers mount them (a file per
//! type, the newest key first), and the notes that make a pass safe to break anywhere.
//!
//! Never here: IO; a secret in an annotation.
//!
//! | where | what |
//! |---|---|
//! | data `apiKey`, `apiSecret` | the credentials that the rules were registered with |
//! | data `booking`, `price-schedule`, … | the rule's key, then the one before it for a while, a line each |
//! | data `probe` | the key of the reachability probe, which is never a rule's |
//! | data `admin-token` | what the operator asks the receivers' admin port with |
//! | data `resyncs` | per type, the number of the last resync that was called for: a receiver does one when it is another |
//! | annotation `bellhop.dev/resync-owed` | types whose resync begins when their rule is live |
//! | annotation `bellhop.dev/previous-keys` | until when each previous key is kept |
//! | annotation `bellhop.dev/pending-write` | who has begun to write rules and has not finished |
//! | annotation `bellhop.dev/account` | the fingerprint of the API key, for an operator that starts |
//! | annotation `bellhop.dev/rotation` | the rotation that is going on, with the keys it replaces |

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};
use serde::{Deserialize, Serialize};

use crate::api::v1alpha1::WebhookSubscription;
use crate::api::{NotificationType, probe};
use crate::clock::UnixMillis;
use crate::files::token::usable;
use crate::secrets::{Credentials, Fingerprint, Secret};

/// The finalizer of the subscription and of its owned Secret.
pub const FINALIZER: &str = "bellhop.dev/registration";

/// Who wrote an owned object: the field manager, and the value of the label `managed-by`.
pub const MANAGER: &str = "bellhop";

/// The label that marks an owned object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The label with the subscription's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

/// See the module's table.
pub const RESYNCS: &str = "resyncs";
/// See the module's table.
pub const ADMIN_TOKEN: &str = "admin-token";
const OWED: &str = "bellhop.dev/resync-owed";
const PREVIOUS_UNTIL: &str = "bellhop.dev/previous-keys";
/// See the module's table; read from metadata alone when an operator starts.
pub const PENDING: &str = "bellhop.dev/pending-write";
/// See the module's table; read from metadata alone when an operator starts.
pub const ACCOUNT: &str = "bellhop.dev/account";
const ROTATION: &str = "bellhop.dev/rotation";

/// The name of the owned Secret.
pub fn secret_name(subscription: &str) -> String {
    format!("{subscription}-bellhop")
}

/// The keys of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// What the provider signs with.
    pub current: Secret,
    /// The one before, and until when it is kept.
    pub previous: Option<(Secret, UnixMillis)>,
}

/// A rotation that is going on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rotation {
    /// The value of the annotation `bellhop.dev/rotate-keys` that asked for it.
    pub asked: String,
    /// The fingerprint of each key that is to be replaced: a rule with another key is done.
    pub replaces: BTreeMap<NotificationType, String>,
    /// Per type, the time just before its live rule was deleted.
    #[serde(default)]
    pub begun: BTreeMap<NotificationType, UnixMillis>,
    /// Per type, how many milliseconds after that the new rule was live.
    #[serde(default)]
    pub gaps: BTreeMap<NotificationType, u64>,
}

/// What of a subscription is in its owned Secret: all that is kept of it between passes.
#[derive(Debug, Clone, PartialEq)]
pub struct Whose {
    /// Its name.
    pub name: String,
    namespace: Option<String>,
    owner: Option<OwnerReference>,
}

impl Whose {
    /// Of this subscription.
    pub fn of(subscription: &WebhookSubscription) -> Self {
        Self {
            name: subscription.name_any(),
            namespace: subscription.namespace(),
            owner: owner(subscription),
        }
    }
}

/// What the owned Secret says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// What the rules were registered with.
    pub credentials: Option<Credentials>,
    /// Per registered type.
    pub keys: BTreeMap<NotificationType, Keys>,
    /// The key of the reachability probe.
    pub probe: Option<Secret>,
    /// What the receivers' admin port is asked with, once there are receivers.
    pub admin_token: Option<Secret>,
    /// Per type, the number of the resync that was called for last.
    pub resyncs: BTreeMap<NotificationType, u64>,
    /// Types whose next resync waits for their rule.
    pub owed: BTreeSet<NotificationType>,
    /// Who writes rules and has not finished.
    pub pending: Option<String>,
    /// The rotation that is going on.
    pub rotation: Option<Rotation>,
}

impl Content {
    /// Reads a Secret. What is not understood is left out, and so made anew: all of it can be
    /// learned from the provider and the user's Secret.
    pub fn of(secret: &KubeSecret) -> Self {
        let data = secret.data.clone().unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key)?;
            String::from_utf8(bytes.0.clone()).ok()
        };
        let noted = |key: &str| secret.annotations().get(key);
        let until: BTreeMap<NotificationType, String> = noted(PREVIOUS_UNTIL)
            .and_then(|note| serde_json::from_str(note).ok())
            .unwrap_or_default();
        let keys = NotificationType::ALL.into_iter().filter_map(|kind| {
            let text = text(kind.segment())?;
            let mut lines = text.lines().filter(|line| !line.is_empty());
            let current = Secret::new(lines.next()?);
            let until = until.get(&kind);
            let until = until.and_then(|until| UnixMillis::parse_rfc3339(until));
            let previous = lines.next().map(Secret::new).zip(until);
            Some((kind, Keys { current, previous }))
        });
        Self {
            credentials: text("apiKey")
                .zip(text("apiSecret"))
                .map(|(key, secret)| Credentials {
                    api_key: Secret::new(key),
                    api_secret: Secret::new(secret),
                }),
            keys: keys.collect(),
            probe: text(probe::KEY_FILE).map(|text| Secret::new(text.trim())),
            admin_token: text(ADMIN_TOKEN)
                .filter(|text| usable(text.trim()))
                .map(|text| Secret::new(text.trim())),
            resyncs: text(RESYNCS)
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default(),
            owed: noted(OWED)
                .and_then(|note| serde_json::from_str(note).ok())
                .unwrap_or_default(),
            pending: noted(PENDING).cloned(),
            rotation: noted(ROTATION).and_then(|note| serde_json::from_str(note).ok()),
        }
    }

    /// The whole Secret as it is applied: what is not in it any more goes. `version` is what it is
    /// based on; a Secret that moved meanwhile refuses it.
    pub fn build(&self, whose: &Whose, version: Option<String>) -> KubeSecret {
        let name = whose.name.clone();
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: String| {
            data.insert(key.to_owned(), ByteString(text.into_bytes()));
        };
        if let Some(credentials) = &self.credentials {
            put("apiKey", credentials.api_key.expose().to_owned());
            put("apiSecret", credentials.api_secret.expose().to_owned());
        }
        let mut until = BTreeMap::new();
        for (kind, keys) in &self.keys {
            let mut lines = format!("{}\n", keys.current.expose());
            if let Some((previous, end)) = &keys.previous {
                lines.push_str(previous.expose());
                lines.push('\n');
                until.insert(*kind, end.rfc3339());
            }
            put(kind.segment(), lines);
        }
        if let Some(key) = &self.probe {
            put(probe::KEY_FILE, format!("{}\n", key.expose()));
        }
        if let Some(token) = &self.admin_token {
            put(ADMIN_TOKEN, format!("{}\n", token.expose()));
        }
        if !self.resyncs.is_empty() {
            put(RESYNCS, json(&self.resyncs));
        }
        let mut annotations = BTreeMap::new();
        let mut note = |key: &str, text: Option<String>| {
            annotations.extend(text.map(|text| (key.to_owned(), text)));
        };
        note(PREVIOUS_UNTIL, (!until.is_empty()).then(|| json(&until)));
        note(OWED, (!self.owed.is_empty()).then(|| json(&self.owed)));
        note(PENDING, self.pending.clone());
        let account = self.credentials.as_ref();
        let account = account.map(|credentials| credentials.api_key.fingerprint());
        note(ACCOUNT, account.map(|account| account.to_string()));
        note(ROTATION, self.rotation.as_ref().map(json));
        KubeSecret {
            metadata: ObjectMeta {
                name: Some(secret_name(&name)),
                namespace: whose.namespace.clone(),
                resource_version: version,
                labels: Some(BTreeMap::from([
                    (MANAGED_BY.to_owned(), MANAGER.to_owned()),
                    (INSTANCE.to_owned(), name),
                ])),
                annotations: Some(annotations),
                finalizers: Some(vec![FINALIZER.to_owned()]),
                owner_references: whose.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..KubeSecret::default()
        }
    }

    /// The fingerprint of a type's key.
    pub fn fingerprint(&self, kind: NotificationType) -> Option<Fingerprint> {
        self.keys.get(&kind).map(|keys| keys.current.fingerprint())
    }

    /// Takes a key. The one before it stays until `keep_until`.
    pub fn put_key(&mut self, kind: NotificationType, key: &Secret, keep_until: UnixMillis) {
        let before = self.keys.remove(&kind);
        let previous = match before {
            Some(before) if before.current == *key => before.previous,
            Some(before) => Some((before.current, keep_until)),
            None => None,
        };
        let current = key.clone();
        self.keys.insert(kind, Keys { current, previous });
    }

    /// Drops previous keys whose time is over; whether there were any.
    pub fn drop_expired(&mut self, now: UnixMillis) -> bool {
        let mut dropped = false;
        for keys in self.keys.values_mut() {
            if keys.previous.as_ref().is_some_and(|(_, end)| *end <= now) {
                keys.previous = None;
                dropped = true;
            }
        }
        dropped
    }

    /// When the next previous key has to go.
    pub fn next_expiry(&self) -> Option<UnixMillis> {
        let ends = self.keys.values().filter_map(|keys| keys.previous.as_ref());
        ends.map(|(_, end)| *end).min()
    }

    /// The rule is live: what was owed becomes one more resync. Whether anything was.
    ///
    /// The first number is made of the time: where a Secret begins anew beside a store that was kept,
    /// none comes that the store has done already.
    pub fn begin_resync(&mut self, kind: NotificationType, now: UnixMillis) -> bool {
        let owed = self.owed.remove(&kind);
        if owed {
            // In milliseconds, as of the whole second: the last three digits count.
            let before = u64::try_from(now.0 / 1000 * 1000).unwrap_or(0);
            *self.resyncs.entry(kind).or_insert(before) += 1;
        }
        owed
    }
}

/// Whether a Secret of this name is an owned one, and not the user's own.
pub fn is_owned(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .map(String::as_str)
        == Some(MANAGER)
}

/// The owner reference of what belongs to a subscription: foreground deletion waits for it.
pub fn owner(subscription: &WebhookSubscription) -> Option<OwnerReference> {
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..subscription.controller_owner_ref(&())?
    })
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("maps of words and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::super::sample::subscription;
    use super::*;
    use NotificationType::{Booking, PriceSchedule, Rate};

    fn full() -> Content {
        let mut content = Content {
            credentials: Some(Credentials {
                api_key: Secret::new("k"),
                api_secret: Secret::new("s"),
            }),
            admin_token: Some(Secret::new("sixteen or more.".replace(' ', "-"))),
            resyncs: BTreeMap::from([(Rate, 3)]),
            owed: BTreeSet::from([Booking]),
            pending: Some("me".to_owned()),
            rotation: Some(Rotation {
                asked: "now".to_owned(),
                replaces: BTreeMap::from([(Booking, "0123456789ab".to_owned())]),
                begun: BTreeMap::from([(Booking, UnixMillis(1_700_000_000_000))]),
                gaps: BTreeMap::from([(Booking, 120)]),
            }),
            ..Content::default()
        };
        content.put_key(Booking, &Secret::new("old"), UnixMillis(0));
        content.put_key(Booking, &Secret::new("new"), UnixMillis(1_700_000_000_000));
        content.put_key(PriceSchedule, &Secret::new("only"), UnixMillis(0));
        content
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let content = full();
        let secret = content.build(
            &Whose::of(&subscription(|object| {
                object["metadata"]["generation"] = 1.into();
            })),
            Some("7".to_owned()),
        );
        assert_eq!(Content::of(&secret), content);
        // As the receiver's key folder reads it: newest first, a line each.
        let data = secret.data.expect("data");
        assert_eq!(data["booking"].0, b"new\nold\n");
        assert_eq!(data["price-schedule"].0, b"only\n");
        let metadata = secret.metadata;
        assert!(is_owned(&metadata));
        assert_eq!(metadata.name.as_deref(), Some("shop-bellhop"));
        let owner = &metadata.owner_references.expect("an owner")[0];
        assert_eq!(
            (owner.uid.as_str(), owner.block_owner_deletion),
            ("u-1", Some(true))
        );
        let notes = format!("{:?}", metadata.annotations);
        for secret in ["old", "new", "only"] {
            assert!(!notes.contains(&format!("\"{secret}\"")), "{notes}");
        }
    }

    #[test]
    fn a_previous_key_goes_when_its_time_is_over() {
        let mut content = full();
        let end = UnixMillis(1_700_000_000_000);
        assert_eq!(content.next_expiry(), Some(end));
        assert!(!content.drop_expired(UnixMillis(end.0 - 1)));
        content.put_key(Booking, &Secret::new("new"), UnixMillis(i64::MAX));
        assert_eq!(
            content.next_expiry(),
            Some(end),
            "the same key again keeps it"
        );
        assert!(content.drop_expired(end));
        assert_eq!(content.next_expiry(), None);
        assert_eq!(
            content.fingerprint(Booking),
            Some(Secret::new("new").fingerprint())
        );
    }

    #[test]
    fn an_owed_resync_is_counted_once() {
        let mut content = full();
        let now = UnixMillis(1_700_000_000_999);
        assert!(content.begin_resync(Booking, now));
        assert!(!content.begin_resync(Booking, now));
        assert!(!content.begin_resync(Rate, now));
        let number = 1_700_000_000_001;
        assert_eq!(
            content.resyncs,
            BTreeMap::from([(Booking, number), (Rate, 3)])
        );
        // The next one is one more, whatever the clock says.
        content.owed.insert(Booking);
        assert!(content.begin_resync(Booking, UnixMillis(0)));
        assert_eq!(content.resyncs[&Booking], number + 1);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let secret = KubeSecret {
            data: Some(BTreeMap::from([
                ("booking".to_owned(), ByteString(vec![0xff])),
                ("resyncs".to_owned(), ByteString(b"{".to_vec())),
                ("apiKey".to_owned(), ByteString(b"k".to_vec())),
            ])),
            ..KubeSecret::default()
        };
        assert_eq!(Content::of(&secret), Content::default());
    }
}
