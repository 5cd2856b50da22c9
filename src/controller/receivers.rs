//! The receivers of all subscriptions: which pods there are, how they say they are, and what that
//! comes to.
//!
//! Owns: the pods as the watch shows them, the rounds in which each receiver is asked how it is, and
//! the answers. Whoever asks gets what is known now ([`Receivers::heard`]); whoever runs the rounds
//! hears of what changed.
//!
//! Never here: a write, but the poke of a pod; a pass that waits for a receiver (the gate of a
//! pass does, and gives up when there is something else to do); a receiver that is believed to be
//! unwell because it could not be asked once.

mod judge;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use k8s_openapi::api::core::v1::Pod as KubePod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use judge::{Found, Heard, Numbers};

use super::access::{Access, Answer, Unreachable};
use super::fleet::Key;
use super::metrics::ControllerMetrics;
use super::owned::MANAGER;
use super::pods::{POKE, Pod};
use crate::api::NotificationType;
use crate::clock::{Clock, Ticks};
use crate::secrets::{Fingerprint, Secret};

/// How often a receiver is asked.
const EVERY: Duration = Duration::from_secs(20);

/// How soon after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How many are asked at a time.
const AT_ONCE: usize = 32;

/// How long after a poke there is another: a kubelet may look before it has heard that there is
/// something new to see.
const POKE_AGAIN: Duration = Duration::from_secs(2);

/// An answer this new is new enough for the gate of a pass.
const FRESH: Duration = Duration::from_millis(300);

/// As often in a row must nobody have answered before that is said.
const BELIEVED: u32 = 2;

/// What the pods of a subscription should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The digest of their template.
    pub template: String,
    /// How many.
    pub replicas: i32,
    /// What their admin port is asked with.
    pub token: Secret,
    /// What the API server refused of their objects, and why.
    pub refused: Option<String>,
    /// What they cannot start without, and is not there.
    pub lacks: Option<String>,
}

/// One round's answers, by pod.
type Answers = BTreeMap<String, Result<Answer, Unreachable>>;

#[derive(Default)]
struct Entry {
    pods: BTreeMap<String, Pod>,
    wanted: Option<Wanted>,
    answers: Answers,
    /// When the answers were given.
    asked: Option<Ticks>,
    /// How often in a row nobody answered.
    failures: u32,
    due: Ticks,
    /// The status lacks what they said, since it may not be written so often.
    unsaid: bool,
    /// When pods are poked once more, and with what.
    again: Option<(Ticks, String)>,
    /// One round at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// See the module.
pub struct Receivers {
    client: Client,
    access: Arc<dyn Access>,
    clock: Arc<dyn Clock>,
    metrics: ControllerMetrics,
    entries: Mutex<HashMap<Key, Entry>>,
    woken: Notify,
}

impl Receivers {
    /// Nobody's yet.
    pub fn new(
        client: Client,
        access: Arc<dyn Access>,
        clock: Arc<dyn Clock>,
        metrics: ControllerMetrics,
    ) -> Self {
        Self {
            client,
            access,
            clock,
            metrics,
            entries: Mutex::default(),
            woken: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch shows a pod. Returns whom it concerns, if it is news.
    pub fn saw(&self, pod: &KubePod) -> Option<Key> {
        let (key, pod) = Pod::of(pod)?;
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        let before = entry.pods.insert(pod.name.clone(), pod.clone());
        if before.as_ref() == Some(&pod) {
            return None;
        }
        if before.is_none_or(|before| before.ready != pod.ready) {
            self.bring_forward(entry);
        }
        Some(key)
    }

    /// The watch shows that a pod is gone. Returns whom it concerns.
    pub fn lost(&self, pod: &KubePod) -> Option<Key> {
        let (key, pod) = Pod::of(pod)?;
        let mut entries = self.lock();
        let entry = entries.get_mut(&key)?;
        entry.pods.remove(&pod.name);
        entry.answers.remove(&pod.name);
        if entry.pods.is_empty() && entry.wanted.is_none() {
            entries.remove(&key);
        }
        Some(key)
    }

    /// A list of the pods of a namespace (`None`: of all) has ended: there are no others.
    pub fn only(&self, namespace: Option<&str>, listed: &[(Key, String)]) -> Vec<Key> {
        let mut changed = Vec::new();
        for (key, entry) in self.lock().iter_mut() {
            if namespace.is_some_and(|one| one != key.namespace) {
                continue;
            }
            let before = entry.pods.len();
            let stays = |name: &String| listed.iter().any(|(of, one)| of == key && one == name);
            entry.pods.retain(|name, _| stays(name));
            entry.answers.retain(|name, _| stays(name));
            if entry.pods.len() != before {
                changed.push(key.clone());
            }
        }
        changed
    }

    /// What the pods of a subscription should be; from now on they are asked how they are.
    pub fn want(&self, key: &Key, wanted: Wanted) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        if entry.wanted.as_ref() == Some(&wanted) {
            return;
        }
        let token = entry.wanted.as_ref().map(|before| &before.token);
        if token != Some(&wanted.token) {
            self.bring_forward(entry);
        }
        entry.wanted = Some(wanted);
    }

    /// Whether the status lacks something of what they said: then that is to be tried again.
    pub fn leave_unsaid(&self, key: &Key, unsaid: bool) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.unsaid = unsaid;
        }
    }

    fn bring_forward(&self, entry: &mut Entry) {
        entry.due = self.clock.ticks();
        self.woken.notify_one();
    }

    /// They are asked no more.
    pub fn forget(&self, key: &Key) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(key) {
            entry.wanted = None;
            entry.answers = Answers::default();
            if entry.pods.is_empty() {
                entries.remove(key);
            }
        }
    }

    /// What is known of a subscription's receivers.
    pub fn heard(&self, key: &Key) -> Heard {
        let entries = self.lock();
        let none = Entry::default();
        judge::judge(entries.get(key).unwrap_or(&none))
    }

    /// Whether the pods are all of this template, and ready; before it is said how many are wanted.
    pub fn are_ready(&self, key: &Key, template: &str) -> bool {
        let entries = self.lock();
        entries.get(key).is_some_and(|entry| {
            let good = |pod: &Pod| pod.ready && pod.template.as_deref() == Some(template);
            !entry.pods.is_empty() && entry.pods.values().all(good)
        })
    }

    /// Of how many subscriptions it was said what they want.
    pub fn count_wanted(&self) -> usize {
        let entries = self.lock();
        let wanted = entries.values().filter(|entry| entry.wanted.is_some());
        wanted.count()
    }

    /// Whether there is a pod that is ready, of whatever template.
    pub fn is_one_ready(&self, key: &Key) -> bool {
        let entries = self.lock();
        let entry = entries.get(key);
        entry.is_some_and(|entry| entry.pods.values().any(|pod| pod.ready))
    }

    /// Whether the pods are those that are wanted, and ready: a rollout is through.
    pub fn settled(&self, key: &Key) -> bool {
        let entries = self.lock();
        entries.get(key).is_none_or(|entry| {
            let Some(wanted) = &entry.wanted else {
                // After a start nobody has said it yet.
                return !entry.pods.is_empty() && entry.pods.values().all(|pod| pod.ready);
            };
            let good = |pod: &&Pod| pod.ready && pod.template.as_ref() == Some(&wanted.template);
            let good = entry.pods.values().filter(good).count();
            good == entry.pods.len() && good >= usize::try_from(wanted.replicas).unwrap_or(0)
        })
    }

    /// Whether at least one receiver is ready and all ready ones have this key, as they say now.
    pub async fn have_key(&self, key: &Key, kind: NotificationType, is: &Fingerprint) -> bool {
        self.ask(key, FRESH).await;
        let entries = self.lock();
        let Some(entry) = entries.get(key) else {
            return false;
        };
        let mut ready = entry.pods.values().filter(|pod| pod.ready).peekable();
        let has = |pod: &Pod| {
            let answer = entry.answers.get(&pod.name);
            answer.is_some_and(|answer| {
                let answer = answer.as_ref();
                answer.is_ok_and(|answer| answer.has_key(kind, is))
            })
        };
        ready.peek().is_some() && ready.all(has)
    }

    /// What a gate waits for, for people.
    pub fn waiting_for(&self, key: &Key) -> String {
        let entries = self.lock();
        let (ready, answering, wanted) = entries.get(key).map_or((0, 0, 0), |entry| {
            let ready = entry.pods.values().filter(|pod| pod.ready);
            let answering = ready.clone().filter(|pod| {
                let answer = entry.answers.get(&pod.name);
                answer.is_some_and(Result::is_ok)
            });
            let wanted = entry.wanted.as_ref().map_or(0, |wanted| wanted.replicas);
            (ready.count(), answering.count(), wanted)
        });
        format!("{ready} of {wanted} receivers ready, {answering} of these answer the operator")
    }

    /// Has the kubelets look at once at what the pods mount, and once more a moment later; `value`
    /// stands for its content.
    pub async fn poke(&self, key: &Key, value: &str) {
        let again = format!("{value}-again");
        let told = |pod: &Pod| {
            let poke = pod.poke.as_deref();
            poke == Some(value) || poke == Some(&again)
        };
        let names = self.to_poke(key, value, told);
        if names.is_empty() {
            return;
        }
        self.poke_all(key, &names, value).await;
        if let Some(entry) = self.lock().get_mut(key) {
            entry.again = Some((self.clock.ticks().after(POKE_AGAIN), again));
        }
        self.woken.notify_one();
    }

    /// The pods that were not told, which then count as told: not again by those who wait beside
    /// us. The watch shows what came of it.
    fn to_poke(&self, key: &Key, value: &str, told: impl Fn(&Pod) -> bool) -> Vec<String> {
        let mut entries = self.lock();
        let entry = entries.get_mut(key).into_iter();
        let pods = entry.flat_map(|entry| entry.pods.values_mut());
        pods.filter(|pod| !pod.ending && !told(pod))
            .map(|pod| {
                pod.poke = Some(value.to_owned());
                pod.name.clone()
            })
            .collect()
    }

    async fn poke_all(&self, key: &Key, names: &[String], value: &str) {
        let api: Api<KubePod> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { POKE: value } } }));
        for name in names {
            // A courtesy: without it the kubelet looks a minute later.
            match api.patch_metadata(name, &params, &patch).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => tracing::info!(%error, "a pod could not be told to look at its keys"),
                Ok(_) => {}
            }
        }
    }

    /// The second pokes that are due.
    async fn poke_again(&self) {
        let now = self.clock.ticks();
        let due: Vec<(Key, String)> = {
            let mut entries = self.lock();
            let all = entries.iter_mut().filter_map(|(key, entry)| {
                let (_, value) = entry.again.take_if(|(at, _)| *at <= now)?;
                Some((key.clone(), value))
            });
            all.collect()
        };
        for (key, value) in due {
            let names = self.to_poke(&key, &value, |_| false);
            self.poke_all(&key, &names, &value).await;
        }
    }

    /// Asks the receivers of a subscription, unless their answers are newer than this. Whether they
    /// answer something else than before.
    async fn ask(&self, key: &Key, fresh: Duration) -> bool {
        let Some(turn) = self.lock().get(key).map(|entry| entry.turn.clone()) else {
            return false;
        };
        let _turn = turn.lock().await;
        let (pods, token) = {
            let entries = self.lock();
            let Some(entry) = entries.get(key) else {
                return false;
            };
            let now = self.clock.ticks();
            if entry.asked.is_some_and(|at| now.since(at) < fresh) {
                return false;
            }
            let Some(wanted) = &entry.wanted else {
                return false;
            };
            let pods = entry.pods.values();
            let pods = pods.filter(|pod| pod.address.is_some() && !pod.ending);
            (pods.cloned().collect::<Vec<_>>(), wanted.token.clone())
        };
        let mut answers = Answers::new();
        for pod in pods {
            let answer = self.access.status(&key.namespace, &pod, &token).await;
            // That one does not answer which is not ready is told by its pod already.
            if pod.ready || answer.is_ok() {
                let outcome = answer.as_ref().map_or_else(|why| why.as_str(), |_| "ok");
                self.metrics.asked_receiver(outcome);
            }
            answers.insert(pod.name, answer);
        }
        self.take(key, answers)
    }

    fn take(&self, key: &Key, answers: Answers) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            return false;
        };
        let before = judge::judge(entry);
        let now = self.clock.ticks();
        let failed = !answers.is_empty() && answers.values().all(Result::is_err);
        entry.failures = if failed {
            entry.failures.saturating_add(1)
        } else {
            0
        };
        entry.asked = Some(now);
        entry.due = now.after(if failed { AFTER_FAILURE } else { EVERY });
        // One lost answer says nothing: what was said before stands.
        if !failed || entry.failures >= BELIEVED {
            entry.answers = answers;
        }
        entry.unsaid || judge::judge(entry) != before
    }

    /// Asks in rounds until `token` is cancelled; `changed` hears of each subscription whose
    /// receivers say something else, or something that is not said yet. A vital task.
    ///
    /// # Errors
    /// None at present; the type is that of vital tasks.
    pub async fn run(
        &self,
        changed: impl Fn(Key) + Send + Sync,
        token: CancellationToken,
    ) -> Result<(), String> {
        loop {
            let (due, next) = self.due();
            let changed = &changed;
            let asking = async {
                self.poke_again().await;
                let due = stream::iter(due);
                due.for_each_concurrent(AT_ONCE, |key| async move {
                    if self.ask(&key, Duration::ZERO).await {
                        changed(key);
                    }
                })
                .await;
            };
            tokio::select! {
                () = asking => {}
                () = token.cancelled() => return Ok(()),
            }
            tokio::select! {
                () = self.clock.sleep(next) => {}
                () = self.woken.notified() => {}
                () = token.cancelled() => return Ok(()),
            }
        }
    }

    /// Who is due, and after which time somebody else may be.
    fn due(&self) -> (Vec<Key>, Duration) {
        let now = self.clock.ticks();
        let mut next = EVERY;
        let mut due = Vec::new();
        for (key, entry) in self.lock().iter_mut() {
            if let Some((at, _)) = &entry.again {
                next = next.min(at.since(now));
            }
            if entry.wanted.is_none() || entry.pods.is_empty() {
                continue;
            }
            if entry.due <= now {
                // Until the answers say when.
                entry.due = now.after(EVERY);
                due.push(key.clone());
            } else {
                next = next.min(entry.due.since(now));
            }
        }
        (due, next)
    }
}
