//! The operator: `WebhookSubscription` objects become rules at the provider and an honest status.
//!
//! Owns: everything that talks to Kubernetes. A pass over one object is six steps, a file each:
//! `dereference` reads what it names, `validate` makes checked values of it, `tend` has the objects
//! of its receivers built (`build`) and written (`objects`), `register` (or `finalize`) carries the
//! plan for the rules out, and `status` says what was found. `validate`, `build`, `owned` and
//! `status` are pure.
//!
//! # What holds at every moment
//! 1. Every write, to Kubernetes and to the provider, has asked [`lease::Leadership`] first.
//! 2. The owned Secret with the credentials' copy exists before the first rule, and goes after the
//!    last one.
//! 3. A pass may be dropped anywhere, and so may the process: the next pass reads what is there.
//! 4. A pass assumes nothing about why it runs. While nothing that it rests on has changed and no
//!    look is due, it makes no call at all.
//! 5. With receivers, a rule is enabled when they have its key, and not before.
//!
//! Never here: an apply on the subscription itself; a secret in status, Event, log line or metric;
//! a rule decision (`registration` makes them all).

pub mod access;
pub mod apply;
mod between;
pub mod budget;
pub mod build;
#[cfg(test)]
mod by_hand;
pub mod client;
pub mod dereference;
pub mod events;
pub mod finalize;
pub mod fleet;
mod gate;
pub mod lease;
pub mod metrics;
pub mod objects;
pub mod owned;
mod pace;
pub mod pods;
pub mod providers;
pub mod queue;
pub mod reach;
pub mod receivers;
mod reconcile;
pub mod register;
pub mod release;
pub mod remaining;
pub mod rollouts;
mod rotate;
#[cfg(test)]
mod sample;
pub mod session;
pub mod status;
pub mod teller;
pub mod tend;
pub mod validate;
pub mod vault;
pub mod waiting;
pub mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use self::access::Access;
use self::build::{Kind, PodOptions};
use self::fleet::{Fleet, Key};
use self::metrics::ControllerMetrics;
use self::providers::Providers;
use self::queue::{Asker, Parking, Queue};
use self::reach::Reach;
use self::receivers::{Heard, Receivers};
use self::rollouts::Rollouts;
use self::session::Session;
use self::tend::{ProviderUrls, Tender};
use self::waiting::Waiting;
use crate::api::v1alpha1::{Mode, WebhookSubscription};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::registration::RegistrationMetrics;
use crate::registration::conflict::Account;
use crate::registration::probe::Prober;

/// How often something that must be there before the start is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How often those that are not ready are counted.
const COUNT: Duration = Duration::from_secs(10);

/// How often rollouts that are through make room for others.
const ROLLOUT_TURN: Duration = Duration::from_secs(2);

/// How passes in progress are ended: after this time they are dropped, which is safe.
const DRAIN: Duration = Duration::from_secs(2);

/// What an operator is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespaces to work in; empty: all.
    pub namespaces: Vec<String>,
    /// What tells this cluster's rules from another's; `None`: the UID of kube-system.
    pub cluster_id: Option<String>,
    /// Passes at a time.
    pub concurrency: usize,
    /// This process, as nobody else is called.
    pub identity: String,
}

/// What all passes share.
pub struct Context {
    client: Client,
    fleet: Arc<Fleet>,
    asker: Asker<Key>,
    parking: Parking,
    providers: Arc<dyn Providers>,
    sessions: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Session>>>>,
    /// Accounts that a pass is working on.
    busy: Mutex<HashSet<Account>>,
    clock: Arc<dyn Clock>,
    metrics: ControllerMetrics,
    registration_metrics: RegistrationMetrics,
    waiting: Waiting,
    reach: Reach,
    /// `None`: the operator runs no receivers.
    tender: Option<Tender>,
    identity: String,
}

impl Context {
    fn ask_all(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            self.asker.ask(key);
        }
    }

    fn session(&self, key: &Key) -> Arc<tokio::sync::Mutex<Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.entry(key.clone()).or_default().clone()
    }

    fn forget(&self, key: &Key) {
        self.sessions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        self.reach.forget(key);
        if let Some(tender) = &self.tender {
            tender.forget(key);
        }
    }

    /// Its receivers' objects are left as they are until a pass takes them up again.
    fn leave_objects(&self, key: &Key, session: &mut Session) {
        session.tended = false;
        if let Some(tender) = &self.tender {
            tender.rollouts.forget(key);
        }
    }

    /// What tends this subscription's receivers. An observer has none: nothing is written.
    fn tender(&self, subscription: &WebhookSubscription) -> Option<&Tender> {
        let manages = subscription.spec.registration.mode == Mode::Manage;
        self.tender.as_ref().filter(|_| manages)
    }

    /// What its receivers came to.
    fn heard(&self, key: &Key, subscription: &WebhookSubscription) -> Heard {
        self.tender(subscription)
            .map_or(Heard::NotManaged, |tender| tender.receivers.heard(key))
    }

    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_millisecond(now.0).unwrap_or_default()
    }
}

/// The parts that an operator is put together from.
pub struct Parts {
    /// A client that every write of is guarded ([`client::guarded`]).
    pub client: Client,
    /// How the provider is reached.
    pub providers: Arc<dyn Providers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where everything is counted.
    pub metrics: Metrics,
    /// The operator's own, registered there once.
    pub controller_metrics: ControllerMetrics,
    /// What is still waited for.
    pub waiting: Waiting,
    /// What probes public URLs; `None`: nobody does, and what waits for it waits.
    pub prober: Option<Prober>,
    /// How receivers are run; `None`: somebody else does.
    pub receivers: Option<ReceiverParts>,
}

/// How an operator runs receivers.
pub struct ReceiverParts {
    /// What their pods are made of.
    pub options: PodOptions,
    /// Where the provider is.
    pub urls: ProviderUrls,
    /// Whether it may be asked over plain http.
    pub allow_plain_http: bool,
    /// How they are asked.
    pub access: Arc<dyn Access>,
    /// Of how many subscriptions pods are replaced at a time.
    pub max_rollouts: usize,
}

/// Runs the operator until `token` is cancelled; must be the leader. What is missing at the start
/// (API server, CRD, rights) is waited for.
///
/// # Errors
/// When a part of it ended that must not.
pub async fn run(parts: Parts, settings: Settings, token: CancellationToken) -> Result<(), String> {
    let started = tokio::select! {
        started = start(parts, &settings) => started,
        () = token.cancelled() => return Ok(()),
    };
    let (context, queue) = started;
    let mut watches = tokio::task::JoinSet::new();
    for namespace in scopes(&settings) {
        watches.spawn(watch::subscriptions(context.clone(), namespace.clone()));
        watches.spawn(watch::secrets(context.clone(), namespace.clone()));
        if context.tender.is_some() {
            watches.spawn(watch::pods(context.clone(), namespace.clone()));
            for kind in Kind::ALL {
                watches.spawn(watch::objects(context.clone(), kind, namespace.clone()));
            }
        }
    }
    let probing = {
        let context = context.clone();
        let token = token.clone();
        async move {
            let changed = |key| context.asker.ask(key);
            context.reach.run(changed, token).await
        }
    };
    tokio::pin!(probing);
    let asking = ask_receivers(context.clone(), token.clone());
    tokio::pin!(asking);
    let counting = count(context.clone());
    tokio::pin!(counting);
    let working = CancellationToken::new();
    let worker = {
        let (context, working) = (context.clone(), working.clone());
        async move {
            // Both lists first: who is whose rival must be known before anything is registered.
            context.waiting.listed().await;
            if let Some(tender) = &context.tender {
                tender.resume();
            }
            let work = move |key, due| reconcile::reconcile(context.clone(), key, due);
            queue.run(working, work).await;
        }
    };
    tokio::pin!(worker);
    let ended = tokio::select! {
        () = &mut worker => Err("the queue ended by itself".to_owned()),
        _ = watches.join_next() => Err("a watch ended by itself".to_owned()),
        ended = &mut probing => ended,
        ended = &mut asking => ended,
        () = &mut counting => Err("the count ended by itself".to_owned()),
        () = token.cancelled() => Ok(()),
    };
    working.cancel();
    if tokio::time::timeout(DRAIN, worker).await.is_err() {
        tracing::info!("passes in progress are broken off; the next operator goes on");
    }
    ended
}

/// Counts those that are not ready, for ever.
async fn count(context: Arc<Context>) {
    loop {
        context.metrics.not_ready(&context.fleet.not_ready());
        context.clock.sleep(COUNT).await;
    }
}

/// Asks the receivers how they are, and gives rollouts their turns.
async fn ask_receivers(context: Arc<Context>, token: CancellationToken) -> Result<(), String> {
    let Some(tender) = &context.tender else {
        token.cancelled().await;
        return Ok(());
    };
    let changed = |key| context.asker.ask(key);
    let turns = async {
        loop {
            context.clock.sleep(ROLLOUT_TURN).await;
            let settled = |key: &Key| tender.receivers.settled(key);
            let stuck = |key: &Key| {
                tracing::warn!(subscription = %key, "its new receivers do not get ready; mend the image or what `spec.receiver` asks for");
                context.metrics.rollout_given_up();
            };
            context.ask_all(tender.rollouts.free(settled, stuck));
            context.metrics.rollouts(tender.rollouts.counts());
            let wanted = tender.receivers.count_wanted();
            context.metrics.receivers_wanted(wanted);
        }
    };
    tokio::select! {
        ended = tender.receivers.run(changed, token.clone()) => ended,
        () = turns => Ok(()),
    }
}

fn scopes(settings: &Settings) -> Vec<Option<String>> {
    if settings.namespaces.is_empty() {
        return vec![None];
    }
    settings.namespaces.iter().cloned().map(Some).collect()
}

async fn start(parts: Parts, settings: &Settings) -> (Arc<Context>, Queue<Key>) {
    let waiting = parts.waiting;
    let cluster_id = match &settings.cluster_id {
        Some(id) => id.clone(),
        None => cluster_id(&parts.client, &waiting).await,
    };
    for namespace in scopes(settings) {
        waiting.begin(watch::SUBSCRIPTIONS, namespace.as_deref());
        waiting.begin(watch::SECRETS, namespace.as_deref());
        if parts.receivers.is_some() {
            watch::begin_objects(&waiting, namespace.as_deref());
        }
    }
    definition(&parts.client, settings, &waiting).await;
    let metrics = parts.controller_metrics;
    let (queue, asker) = Queue::new(settings.concurrency, parts.clock.clone(), metrics.clone());
    let tender = parts.receivers.map(|receivers| Tender {
        receivers: Arc::new(Receivers::new(
            parts.client.clone(),
            receivers.access,
            parts.clock.clone(),
            metrics.clone(),
        )),
        objects: objects::Objects::default(),
        rollouts: Rollouts::new(receivers.max_rollouts, parts.clock.clone()),
        options: receivers.options,
        urls: receivers.urls,
        allow_plain_http: receivers.allow_plain_http,
        cluster_id: cluster_id.clone(),
    });
    let fleet = Fleet::new(cluster_id, settings.identity.clone(), metrics.clone());
    let context = Context {
        client: parts.client,
        reach: Reach::new(parts.prober, parts.clock.clone()),
        fleet: Arc::new(fleet),
        asker,
        parking: queue.parking(),
        providers: parts.providers,
        sessions: Mutex::default(),
        busy: Mutex::default(),
        clock: parts.clock,
        registration_metrics: RegistrationMetrics::shared(&parts.metrics),
        metrics,
        waiting,
        tender,
        identity: settings.identity.clone(),
    };
    (Arc::new(context), queue)
}

/// The UID of kube-system: the same for the life of a cluster, and another in a copy of it.
async fn cluster_id(client: &Client, waiting: &Waiting) -> String {
    const WHAT: &str =
        "the namespace kube-system (its UID names this cluster; or give --cluster-id)";
    waiting.begin(WHAT, None);
    let api: Api<Namespace> = Api::all(client.clone());
    loop {
        match api.get_metadata("kube-system").await {
            Ok(found) => {
                if let Some(uid) = found.metadata.uid {
                    waiting.done(WHAT, None);
                    return uid;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the namespace kube-system; trying again");
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Returns when subscriptions can be listed somewhere: they are known to the cluster.
async fn definition(client: &Client, settings: &Settings, waiting: &Waiting) {
    const WHAT: &str =
        "the CustomResourceDefinition webhooksubscriptions.bellhop.dev (kubectl apply -f crds/)";
    waiting.begin(WHAT, None);
    let mut told = false;
    while !listable(client, settings, &mut told).await {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    waiting.done(WHAT, None);
}

/// Whether any of the namespaces can be listed. `told`: that the kind is unknown has been logged.
async fn listable(client: &Client, settings: &Settings, told: &mut bool) -> bool {
    for namespace in scopes(settings) {
        let api: Api<WebhookSubscription> = match &namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                if !std::mem::replace(told, true) {
                    tracing::warn!(
                        "waiting for the CustomResourceDefinition webhooksubscriptions.bellhop.dev (kubectl apply -f crds/)"
                    );
                }
            }
            Err(error) => tracing::warn!(?namespace, %error, "cannot list subscriptions"),
        }
    }
    false
}
