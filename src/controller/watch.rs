//! Watches: what changes in the cluster becomes passes.
//!
//! Owns: one watch of subscriptions and one of Secrets per namespace (or of all), with receivers one
//! of their pods and one of each kind of their objects, by label; the first list of each, and what
//! is waited for until they are there. All but subscriptions and pods come as metadata only. A kind
//! that the cluster may not have is looked for before.
//!
//! An expired or broken watch is begun again with growing delay; objects that went meanwhile are
//! noticed by the list that follows.
//!
//! Never here: a Secret's content; an object that stops the others because it cannot be decoded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod as KubePod, Secret as KubeSecret};
use kube::api::DynamicObject;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Client, Resource};

use super::Context;
use super::build::{COMPONENT, Kind, RECEIVER};
use super::fleet::Key;
use super::owned::{MANAGED_BY, MANAGER};
use super::pods::Pod;
use super::waiting::Waiting;
use crate::api::v1alpha1::WebhookSubscription;
use crate::provider::backoff;

/// What readiness waits for.
pub const SUBSCRIPTIONS: &str = "the list of subscriptions";
/// What readiness waits for.
pub const SECRETS: &str = "the list of Secrets (metadata)";
/// What readiness waits for.
pub const PODS: &str = "the list of receiver pods";

/// How often is looked for a kind that the cluster does not have.
const LOOK_FOR_KIND: Duration = Duration::from_secs(30);

/// After this long without a failure the waits begin small again.
const WELL_AGAIN: Duration = Duration::from_mins(2);

/// What readiness waits for, of the kinds that every cluster has.
const fn listed(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::ServiceAccount => "the list of ServiceAccounts (metadata)",
        Kind::ConfigMap => "the list of ConfigMaps (metadata)",
        Kind::Secret => "the list of Bellhop's Secrets (metadata)",
        Kind::PersistentVolumeClaim => "the list of PersistentVolumeClaims (metadata)",
        Kind::Service => "the list of Services (metadata)",
        Kind::NetworkPolicy => "the list of NetworkPolicies (metadata)",
        Kind::PodDisruptionBudget => "the list of PodDisruptionBudgets (metadata)",
        Kind::StatefulSet => "the list of StatefulSets (metadata)",
        Kind::Ingress => "the list of Ingresses (metadata)",
        Kind::HttpRoute => return None,
    })
}

/// From now on waited for: the pods and objects of receivers.
pub fn begin_objects(waiting: &Waiting, namespace: Option<&str>) {
    waiting.begin(PODS, namespace);
    for what in Kind::ALL.into_iter().filter_map(listed) {
        waiting.begin(what, namespace);
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn key(object: &impl Resource) -> Key {
    let metadata = object.meta();
    Key {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// Watches subscriptions for ever.
pub async fn subscriptions(context: Arc<Context>, namespace: Option<String>) {
    let api: Api<DeserializeGuard<WebhookSubscription>> =
        api(&context.client, namespace.as_deref());
    let mut events = stream(api, Config::default());
    let mut listed = HashSet::new();
    let fleet = &context.fleet;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object)) => context.ask_all(fleet.apply(object)),
            Ok(Event::Delete(object)) => context.ask_all(fleet.remove(&key(&object))),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(key(&object));
                context.ask_all(fleet.apply(object));
            }
            Ok(Event::InitDone) => {
                context.ask_all(fleet.retain(namespace.as_deref(), &listed));
                listed = HashSet::new();
                context.waiting.done(SUBSCRIPTIONS, namespace.as_deref());
            }
            Err(error) => {
                let list = Some(SUBSCRIPTIONS);
                broke(
                    &context,
                    "WebhookSubscription",
                    list,
                    namespace.as_deref(),
                    &error,
                );
            }
        }
    }
}

/// Watches the metadata of Secrets for ever.
pub async fn secrets(context: Arc<Context>, namespace: Option<String>) {
    let api: Api<PartialObjectMeta<KubeSecret>> = api(&context.client, namespace.as_deref());
    let mut events = stream(api, Config::default());
    let mut listed = HashSet::new();
    let fleet = &context.fleet;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(secret)) => context.ask_all(fleet.secret(&secret, false)),
            Ok(Event::Delete(secret)) => context.ask_all(fleet.secret(&secret, true)),
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(secret)) => {
                listed.insert(key(&secret));
                context.ask_all(fleet.secret(&secret, false));
            }
            Ok(Event::InitDone) => {
                context.ask_all(fleet.only_secrets(namespace.as_deref(), &listed));
                listed = HashSet::new();
                context.waiting.done(SECRETS, namespace.as_deref());
            }
            Err(error) => {
                broke(
                    &context,
                    "Secret",
                    Some(SECRETS),
                    namespace.as_deref(),
                    &error,
                );
            }
        }
    }
}

/// Watches the receivers' pods for ever.
pub async fn pods(context: Arc<Context>, namespace: Option<String>) {
    let Some(tender) = &context.tender else {
        return;
    };
    let api: Api<KubePod> = api(&context.client, namespace.as_deref());
    let selector = format!("{MANAGED_BY}={MANAGER},{COMPONENT}={RECEIVER}");
    let mut events = stream(api, Config::default().labels(&selector));
    let receivers = &tender.receivers;
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) => context.ask_all(receivers.saw(&pod)),
            Ok(Event::Delete(pod)) => context.ask_all(receivers.lost(&pod)),
            Ok(Event::Init) => names.clear(),
            Ok(Event::InitApply(pod)) => {
                names.extend(Pod::of(&pod).map(|(key, pod)| (key, pod.name)));
                context.ask_all(receivers.saw(&pod));
            }
            Ok(Event::InitDone) => {
                context.ask_all(receivers.only(namespace.as_deref(), &names));
                names = Vec::new();
                context.waiting.done(PODS, namespace.as_deref());
            }
            Err(error) => {
                broke(&context, "Pod", Some(PODS), namespace.as_deref(), &error);
            }
        }
    }
}

/// Watches the metadata of one kind of the receivers' objects for ever.
pub async fn objects(context: Arc<Context>, kind: Kind, namespace: Option<String>) {
    let Some(tender) = &context.tender else {
        return;
    };
    if kind == Kind::HttpRoute {
        until_served(&context, kind).await;
    }
    let resource = kind.resource();
    let client = context.client.clone();
    let api: Api<PartialObjectMeta<DynamicObject>> = match &namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let selector = format!("{MANAGED_BY}={MANAGER}");
    let mut events = stream(api, Config::default().labels(&selector));
    let objects = &tender.objects;
    let mut there = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(found)) => context.ask_all(objects.saw(kind, &found.metadata)),
            Ok(Event::Delete(found)) => context.ask_all(objects.lost(kind, &found.metadata)),
            Ok(Event::Init) => there.clear(),
            Ok(Event::InitApply(found)) => {
                there.extend(super::objects::named(kind, &found.metadata));
                context.ask_all(objects.saw(kind, &found.metadata));
            }
            Ok(Event::InitDone) => {
                context.ask_all(objects.only(kind, namespace.as_deref(), &there));
                there = HashSet::new();
                if let Some(what) = listed(kind) {
                    context.waiting.done(what, namespace.as_deref());
                }
            }
            Err(error) => {
                let list = listed(kind);
                broke(&context, kind.as_str(), list, namespace.as_deref(), &error);
            }
        }
    }
}

/// Returns when the cluster has a kind.
async fn until_served(context: &Context, kind: Kind) {
    let resource = kind.resource();
    loop {
        let known = context
            .client
            .list_api_group_resources(&resource.api_version)
            .await;
        if let Ok(known) = known
            && known
                .resources
                .iter()
                .any(|one| one.name == resource.plural)
        {
            return;
        }
        context.clock.sleep(LOOK_FOR_KIND).await;
    }
}

fn stream<K>(
    api: Api<K>,
    config: Config,
) -> std::pin::Pin<Box<dyn Stream<Item = Result<Event<K>, Error>> + Send>>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    Box::pin(watcher(api, config).backoff(Again::default()))
}

/// The waits before a watch that broke is begun again: those of every other call out, at most 10 s,
/// so that an API server that was away is not missed for a minute (the watcher's own may take that).
#[derive(Default)]
struct Again {
    failures: u32,
    last: Option<Instant>,
}

impl Again {
    fn after_failure(&mut self, now: Instant) -> Duration {
        let last = self.last.replace(now);
        if last.is_none_or(|last| now - last > WELL_AGAIN) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        backoff(self.failures)
    }
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after_failure(Instant::now()))
    }
}

impl Backoff for Again {
    /// Called at every event, and the mere begin of a list is one: a list that is refused for ever
    /// would be asked for each second. Time alone resets ([`WELL_AGAIN`]).
    fn reset(&mut self) {}
}

/// A watch of a kind broke, of which readiness waits for `list`. What is forbidden may stay so for ever:
/// the other namespaces do not wait for it.
fn broke(
    context: &Context,
    kind: &'static str,
    list: Option<&'static str>,
    namespace: Option<&str>,
    error: &Error,
) {
    context.metrics.watch_broke(kind);
    tracing::warn!(kind, %error, "a watch broke and is begun again");
    if let Error::InitialListFailed(kube::Error::Api(status)) = error
        && status.code == 403
        && let Some(list) = list
    {
        context.waiting.forbidden(list, namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_it_was_well_for_a_while() {
        let mut waits = Again::default();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..60 {
            waits.reset();
            let wait = waits.after_failure(now);
            now += wait;
            seen.push(wait);
        }
        let most = *seen.iter().max().unwrap();
        let bounds = Duration::from_secs(2)..=Duration::from_secs(10);
        assert!(bounds.contains(&most), "{seen:?}");
        now += WELL_AGAIN * 2;
        let first = waits.after_failure(now);
        assert!(first <= Duration::from_millis(500), "{first:?}");
    }
}
