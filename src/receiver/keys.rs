//! The signing keys of our rules, and how a changed one is learned.
//!
//! Owns: the keys per type, newest first; the folder they are mounted in, where the probe's own key
//! lies too; the question to the registry when no key fits. A request only ever reads what is in memory; reading files and
//! asking the registry happen in [`KeyRing::run`].
//!
//! Never here: a call out while a request waits, a write to the registry, more than one re-read
//! per type and minute, a key in a log line (fingerprints only).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::signature::SigningKey;
use crate::api::{NotificationType, probe};
use crate::clock::{Clock, Ticks};
use crate::metrics::Metrics;
use crate::provider::Registry;
use crate::secrets::{Fingerprint, Secret};

/// How long a re-read counts: after one that finished, a signature that no key fits is refused
/// for this long; and no two re-reads of a type begin closer together.
const REREAD_INTERVAL: Duration = Duration::from_mins(1);

/// How long a replaced key stays valid by default. The provider's four attempts of 60 s and their
/// unknown delays must fit in.
pub const KEY_GRACE: Duration = Duration::from_mins(15);

/// How often the key folder is looked at.
const FOLDER_INTERVAL: Duration = Duration::from_secs(2);

/// The longest key file that is read: a rule has one key, and a few older ones for a while.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// Where a changed key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// In the key folder: somebody has stored it already.
    Folder,
    /// At the registry: it must be stored.
    Registry,
}

/// A type's key turned out to have changed: its notifications may have been refused meanwhile, so
/// that type must be resynced.
#[derive(Debug, Clone)]
pub struct KeyChange {
    /// Whose.
    pub kind: NotificationType,
    /// The new key.
    pub key: Secret,
    /// Where it was found.
    pub source: KeySource,
}

/// Asking the registry for a changed key.
pub struct Learning {
    /// Only [`Registry::get`] is called.
    pub registry: Arc<dyn Registry>,
    /// Whether a rule with this URL is ours: another's key must not be believed.
    pub ours: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// Whether MD5 signatures are still believed under a key. Kept in the store; this is the copy.
const MD5_UNKNOWN: u8 = 0;
const MD5_ALLOWED: u8 = 1;
const MD5_OVER: u8 = 2;

/// A key of a rule.
#[derive(Debug)]
pub struct RuleKey {
    /// The key itself.
    pub signing: SigningKey,
    md5: AtomicU8,
    /// Serialises the first look at, and the one write of, the stored fact.
    pub(super) md5_fact: tokio::sync::Mutex<()>,
    /// Tick from which it is no longer valid; `u64::MAX`: never.
    expires: AtomicU64,
}

impl RuleKey {
    fn new(secret: Secret) -> Arc<Self> {
        Arc::new(Self {
            signing: SigningKey::new(secret),
            md5: AtomicU8::new(MD5_UNKNOWN),
            md5_fact: tokio::sync::Mutex::new(()),
            expires: AtomicU64::new(u64::MAX),
        })
    }

    /// `Some(true)`: MD5 is over under this key; `None`: the store has not been asked yet.
    pub(super) fn md5_over(&self) -> Option<bool> {
        match self.md5.load(Ordering::Acquire) {
            MD5_UNKNOWN => None,
            state => Some(state == MD5_OVER),
        }
    }

    pub(super) fn set_md5_over(&self, over: bool) {
        let state = if over { MD5_OVER } else { MD5_ALLOWED };
        self.md5.store(state, Ordering::Release);
    }

    /// Whether it may be used at `now`.
    pub fn valid(&self, now: Ticks) -> bool {
        now.0 < self.expires.load(Ordering::Relaxed)
    }

    fn retire(&self, at: Ticks) {
        self.expires.fetch_min(at.0, Ordering::Relaxed);
    }
}

/// What to answer to a well-formed signature that no key fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The keys are known to be current: 401.
    Refuse,
    /// A re-read is under way or due: 503, come back.
    Wait,
}

#[derive(Default)]
struct Reread {
    /// When the last one began.
    begun: Option<Ticks>,
    /// When the last good one ended.
    finished: Option<Ticks>,
    wanted: bool,
}

struct Slot {
    keys: ArcSwap<Vec<Arc<RuleKey>>>,
    reread: Mutex<Reread>,
}

/// The keys of all types.
pub struct KeyRing {
    clock: Arc<dyn Clock>,
    grace: Duration,
    folder: Option<PathBuf>,
    learning: Option<Learning>,
    changes: mpsc::Sender<KeyChange>,
    slots: [Slot; 7],
    probe: ArcSwap<Vec<Secret>>,
    /// The folder's content when it was last read, by type.
    seen: Mutex<BTreeMap<NotificationType, Vec<Secret>>>,
    wanted: Notify,
    rereads: [[Counter; REREAD_RESULTS.len()]; 7],
}

/// How a re-read can end.
const REREAD_RESULTS: [&str; 4] = ["unchanged", "changed", "failed", "not_ours"];

impl KeyRing {
    /// An empty ring. `folder` holds one file per type, named by its URL segment
    /// (`channel-binding`), and the probe's; one key per line, newest first. `changes` hears of each key that turned
    /// out to have changed. Nothing is read before [`KeyRing::load`] or [`KeyRing::run`].
    pub fn new(
        clock: Arc<dyn Clock>,
        grace: Duration,
        folder: Option<PathBuf>,
        learning: Option<Learning>,
        changes: mpsc::Sender<KeyChange>,
        metrics: &Metrics,
    ) -> Self {
        let family = Family::<[(&'static str, &'static str); 2], Counter>::default();
        metrics.register(|registry| {
            registry.register(
                "receiver_key_rereads",
                "Re-reads of a rule's key after a signature that no key fitted, by type and result",
                family.clone(),
            );
        });
        Self {
            clock,
            grace,
            folder,
            learning,
            changes,
            slots: std::array::from_fn(|_| Slot {
                keys: ArcSwap::from_pointee(Vec::new()),
                reread: Mutex::new(Reread::default()),
            }),
            probe: ArcSwap::default(),
            seen: Mutex::new(BTreeMap::new()),
            wanted: Notify::new(),
            rereads: NotificationType::ALL.map(|kind| {
                REREAD_RESULTS.map(|result| {
                    family
                        .get_or_create(&[("type", kind.as_str()), ("result", result)])
                        .clone()
                })
            }),
        }
    }

    /// Replaces a type's keys, newest first. A key that is no longer among them stays valid for the
    /// grace period.
    pub fn set(&self, kind: NotificationType, keys: Vec<Secret>) {
        let now = self.clock.ticks();
        self.slot(kind).keys.rcu(|old| {
            let mut new: Vec<Arc<RuleKey>> = Vec::new();
            for secret in &keys {
                // A key that was retired and comes back is made anew: it no longer expires.
                let kept = old
                    .iter()
                    .find(|key| key.signing.secret() == secret && !key.retiring());
                if !new.iter().any(|key| key.signing.secret() == secret) {
                    new.push(kept.map_or_else(|| RuleKey::new(secret.clone()), Arc::clone));
                }
            }
            for key in old.iter().filter(|key| key.valid(now)) {
                if !keys.iter().any(|secret| key.signing.secret() == secret) {
                    key.retire(now.after(self.grace));
                    new.push(Arc::clone(key));
                }
            }
            new
        });
    }

    /// Replaces the probe's keys, newest first, at once.
    pub fn set_probe(&self, keys: Vec<Secret>) {
        self.probe.store(Arc::new(keys));
    }

    /// The probe's keys, newest first.
    pub fn probe(&self) -> arc_swap::Guard<Arc<Vec<Secret>>> {
        self.probe.load()
    }

    /// Forgets a type's keys at once, without grace (its rule is gone).
    pub fn clear(&self, kind: NotificationType) {
        self.slot(kind).keys.store(Arc::new(Vec::new()));
    }

    /// The keys of a type, newest first; check [`RuleKey::valid`] before use.
    pub fn keys(&self, kind: NotificationType) -> arc_swap::Guard<Arc<Vec<Arc<RuleKey>>>> {
        self.slot(kind).keys.load()
    }

    /// Fingerprints of the valid keys of a type, newest first.
    pub fn fingerprints(&self, kind: NotificationType) -> Vec<Fingerprint> {
        let now = self.clock.ticks();
        self.keys(kind)
            .iter()
            .filter(|key| key.valid(now))
            .map(|key| key.signing.fingerprint().clone())
            .collect()
    }

    /// A well-formed signature came in that no key of `kind` fits. Asks for a re-read if none began
    /// in the last minute; never waits for one.
    pub fn mismatch(&self, kind: NotificationType) -> Mismatch {
        let now = self.clock.ticks();
        let recent = |at: Option<Ticks>| at.is_some_and(|at| now.since(at) < REREAD_INTERVAL);
        let mut reread = lock(&self.slot(kind).reread);
        if recent(reread.finished) {
            return Mismatch::Refuse;
        }
        if !recent(reread.begun) {
            reread.begun = Some(now);
            reread.wanted = true;
            drop(reread);
            self.wanted.notify_one();
        }
        Mismatch::Wait
    }

    /// Watches the key folder and does the re-reads that requests asked for, until `token` is
    /// cancelled. A vital task.
    ///
    /// # Errors
    /// None at present; the type is that of vital tasks.
    pub async fn run(self: Arc<Self>, token: CancellationToken) -> Result<(), String> {
        let _ = self.load().await;
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = self.wanted.notified() => {}
                () = self.clock.sleep(FOLDER_INTERVAL), if self.folder.is_some() => {
                    let _ = self.load().await;
                }
            }
            for kind in NotificationType::ALL {
                if std::mem::take(&mut lock(&self.slot(kind).reread).wanted) {
                    tokio::select! {
                        () = token.cancelled() => return Ok(()),
                        () = self.reread(kind) => {}
                    }
                }
            }
        }
    }

    /// Reads the key folder, if there is one, and takes over what changed since the last time.
    ///
    /// # Errors
    /// Which files could not be read; their types keep the keys they have.
    pub async fn load(&self) -> Result<(), String> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let read = tokio::task::spawn_blocking(move || {
            let of = |kind: NotificationType| read_key_file(&folder.join(kind.segment()));
            let probes = read_key_file(&folder.join(probe::KEY_FILE));
            (NotificationType::ALL.map(|kind| (kind, of(kind))), probes)
        });
        let (files, probes) = read.await.map_err(|error| error.to_string())?;
        let mut problems = Vec::new();
        match probes {
            Ok(Some(keys)) => self.set_probe(keys),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
        for (kind, file) in files {
            match file {
                Ok(keys) => self.take_over(kind, keys).await,
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let problems = problems.join("; ");
        tracing::warn!(%problems, "cannot read signing keys; keeping those that are loaded");
        Err(problems)
    }

    /// `None`: there is no such file, which says nothing (the rule may not exist yet).
    async fn take_over(&self, kind: NotificationType, file: Option<Vec<Secret>>) {
        let Some(keys) = file.filter(|keys| !keys.is_empty()) else {
            return;
        };
        let before = lock(&self.seen).insert(kind, keys.clone());
        if before.as_ref() == Some(&keys) {
            return;
        }
        let newest = keys[0].clone();
        let known = self
            .keys(kind)
            .iter()
            .any(|key| *key.signing.secret() == newest);
        self.set(kind, keys);
        tracing::info!(rule = %kind, key = %newest.fingerprint(), "signing key loaded");
        if before.is_some() && !known {
            self.announce(kind, newest, KeySource::Folder).await;
        }
    }

    async fn announce(&self, kind: NotificationType, key: Secret, source: KeySource) {
        let change = KeyChange { kind, key, source };
        if self.changes.send(change).await.is_err() {
            tracing::debug!(rule = %kind, "nobody listens for key changes");
        }
    }

    async fn reread(&self, kind: NotificationType) {
        let result = self.reread_now(kind).await;
        let index = REREAD_RESULTS.iter().position(|name| *name == result);
        self.rereads[kind as usize][index.unwrap_or(0)].inc();
        if result != "failed" {
            lock(&self.slot(kind).reread).finished = Some(self.clock.ticks());
        }
    }

    async fn reread_now(&self, kind: NotificationType) -> &'static str {
        let newest = || self.fingerprints(kind).into_iter().next();
        let before = newest();
        if self.load().await.is_err() {
            return "failed";
        }
        let Some(learning) = &self.learning else {
            return if newest() == before {
                "unchanged"
            } else {
                "changed"
            };
        };
        let rule = match learning.registry.get(kind).await {
            Ok(rule) => rule,
            Err(error) => {
                tracing::warn!(rule = %kind, %error, "cannot re-read the signing key; will try again in a minute when asked");
                return "failed";
            }
        };
        let Some(rule) = rule.filter(|rule| (learning.ours)(&rule.url)) else {
            tracing::warn!(rule = %kind, "a signature fits no key, and the registry has no rule of ours for this type");
            return "not_ours";
        };
        let Some(key) = rule.security_key else {
            return "failed";
        };
        let now = self.clock.ticks();
        let known = self
            .keys(kind)
            .iter()
            .any(|known| *known.signing.secret() == key && known.valid(now) && !known.retiring());
        if known {
            return if newest() == before {
                "unchanged"
            } else {
                "changed"
            };
        }
        tracing::info!(rule = %kind, key = %key.fingerprint(), "the signing key has changed at the registry");
        self.set(kind, vec![key.clone()]);
        self.announce(kind, key, KeySource::Registry).await;
        "changed"
    }

    fn slot(&self, kind: NotificationType) -> &Slot {
        &self.slots[kind as usize]
    }
}

impl RuleKey {
    fn retiring(&self) -> bool {
        self.expires.load(Ordering::Relaxed) != u64::MAX
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One key per line, newest first; blank lines and surrounding white space do not count.
fn read_key_file(path: &std::path::Path) -> Result<Option<Vec<Secret>>, String> {
    use std::io::Read;
    let problem = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(error)),
    };
    let mut text = String::new();
    file.take(MAX_KEY_FILE + 1)
        .read_to_string(&mut text)
        .map_err(problem)?;
    if text.len() as u64 > MAX_KEY_FILE {
        return Err(format!(
            "{}: a key file has at most {MAX_KEY_FILE} bytes",
            path.display()
        ));
    }
    let keys = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(Secret::new)
        .collect();
    Ok(Some(keys))
}
