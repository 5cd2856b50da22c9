//! Watches: what changes in the cluster becomes passes.
//!
//! Owns: one watch of subscriptions and one of Secrets per namespace (or of all), the first list of
//! each, and what is waited for until they are there. Secrets come as metadata only.
//!
//! An expired or broken watch is begun again with growing delay; objects that went meanwhile are
//! noticed by the list that follows.
//!
//! Never here: a Secret's content; an object that stops the others because it cannot be decoded.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Error, Event, watcher};
use kube::{Api, Client, Resource};

use super::Context;
use super::fleet::Key;
use crate::api::v1alpha1::WebhookSubscription;

/// What readiness waits for.
pub const SUBSCRIPTIONS: &str = "the list of subscriptions";
/// What readiness waits for.
pub const SECRETS: &str = "the list of Secrets (metadata)";

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
    let mut events = stream(api);
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
            Err(error) => broke(&context, "WebhookSubscription", &error),
        }
    }
}

/// Watches the metadata of Secrets for ever.
pub async fn secrets(context: Arc<Context>, namespace: Option<String>) {
    let api: Api<PartialObjectMeta<KubeSecret>> = api(&context.client, namespace.as_deref());
    let mut events = stream(api);
    let fleet = &context.fleet;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(secret) | Event::InitApply(secret)) => {
                context.ask_all(fleet.secret(&secret, false));
            }
            Ok(Event::Delete(secret)) => context.ask_all(fleet.secret(&secret, true)),
            Ok(Event::Init) => {}
            Ok(Event::InitDone) => context.waiting.done(SECRETS, namespace.as_deref()),
            Err(error) => broke(&context, "Secret", &error),
        }
    }
}

fn stream<K>(api: Api<K>) -> std::pin::Pin<Box<dyn Stream<Item = Result<Event<K>, Error>> + Send>>
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    Box::pin(watcher(api, Config::default()).default_backoff())
}

fn broke(context: &Context, kind: &'static str, error: &Error) {
    context.metrics.watch_broke(kind);
    tracing::warn!(kind, %error, "a watch broke and is begun again");
}
