//! The receivers' objects within a pass: built, applied, and what came of it told to whoever asks
//! the receivers.
//!
//! Owns: the order (everything the pods need before the pods; the pods, and the settings that only
//! they understand, when there is a slot for their rollout), the feed's token that is made once and
//! kept, the poke when what is mounted has changed.
//!
//! Never here: what is in an object ([`super::build`]); a rule.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client, ResourceExt as _};

use super::build::{
    Blueprint, Built, FEED_TOKEN_KEY, Kind, PodOptions, Surroundings, config, digest, objects,
    template_hash,
};
use super::fleet::Key;
use super::gate::KeyGate;
use super::objects::Objects;
use super::receivers::{Receivers, Wanted};
use super::rollouts::Rollouts;
use crate::api::v1alpha1::{Environment, FeedAuth, WebhookSubscription};
use crate::files::token::usable;
use crate::registration::probe::new_key;
use crate::secrets::Secret;
use crate::settings::ReceiverConfig;

/// Where the provider's services are and whom to trust for them, as receivers are told it.
#[derive(Debug, Clone)]
pub struct ProviderUrls {
    /// Registry and reseller API of production.
    pub production: (String, String),
    /// Those of the sandbox.
    pub sandbox: (String, String),
    /// Certificate authorities (PEM) to trust for all of them, beside the system's.
    pub authorities: Option<String>,
}

/// What an operator with receivers has for it.
pub struct Tender {
    /// Those who are asked.
    pub receivers: Arc<Receivers>,
    /// What is in the cluster.
    pub objects: Objects,
    /// Whose pods are replaced.
    pub rollouts: Rollouts,
    /// What pods are made of.
    pub options: PodOptions,
    /// Where the provider is.
    pub urls: ProviderUrls,
    /// Whether it may be asked over plain http.
    pub allow_plain_http: bool,
    /// What tells this cluster's rules from another's.
    pub cluster_id: String,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tended {
    /// All is written.
    Done,
    /// The pods wait for a slot to be replaced in.
    Waits,
    /// Something was not taken.
    Refused,
}

/// One subscription's objects.
pub struct Task<'a> {
    /// A guarded client.
    pub client: &'a Client,
    /// The whole.
    pub tender: &'a Tender,
    /// Which subscription.
    pub key: &'a Key,
    /// Its newest version, validated.
    pub subscription: &'a WebhookSubscription,
    /// What the receivers' admin port is asked with.
    pub admin_token: Secret,
    /// Knows what is mounted.
    pub gate: &'a KeyGate,
}

impl Tender {
    /// After a start, when all is listed and before anything is written: what a former operator has
    /// begun to replace goes on in a slot.
    pub fn resume(&self) {
        for (key, template) in self.objects.templates() {
            if !self.receivers.are_ready(&key, &template) {
                self.rollouts.resume(&key, &template);
            }
        }
    }

    /// They are gone.
    pub fn forget(&self, key: &Key) {
        self.receivers.forget(key);
        self.objects.forget(key);
        self.rollouts.forget(key);
    }
}

impl Task<'_> {
    /// Writes them.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn run(&self) -> Result<Tended, kube::Error> {
        let (config, built) = self.build().await?;
        let tender = self.tender;
        let (template, now) = (template_hash(&built), tender.objects.template(self.key));
        let replaces = now.is_some_and(|now| now != template);
        if !replaces {
            tender.rollouts.leave(self.key);
        }
        let ready = tender.receivers.is_one_ready(self.key);
        let lacks = self.lacks().await?;
        // Pods that could not start must not take the place of one that answers.
        let broken = lacks.clone().filter(|_| replaces && ready);
        let waits =
            broken.is_some() || (replaces && !tender.rollouts.begin(self.key, &template, ready));
        // The pods that are there go on with the settings that they understand, and with all that
        // they mount.
        let held = |one: &Built| matches!(one.kind, Kind::StatefulSet | Kind::ConfigMap);
        let written = built.iter().filter(|one| !(waits && held(one)));
        let objects = &tender.objects;
        let applied = objects.apply(self.client, self.key, written).await?;
        if waits {
            objects.hold(self.key);
        } else {
            self.gate.mounts(digest(config.text().as_bytes()));
            objects
                .prune(self.client, self.key, self.subscription, &built)
                .await?;
        }
        let broken = broken.map(|lacks| format!("StatefulSet {}: {lacks}", self.key.name));
        let refused = applied.refused.first().map(|why| why.0.clone()).or(broken);
        let ended = match (&refused, waits) {
            (Some(_), _) => Tended::Refused,
            (None, true) => Tended::Waits,
            (None, false) => Tended::Done,
        };
        self.want(template, refused, lacks);
        self.gate.poke().await;
        Ok(ended)
    }

    /// After a start: whether a former operator left all of them as this one would write them.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn stand(&self) -> Result<bool, kube::Error> {
        let (config, built) = self.build().await?;
        let stand = self.tender.objects.stand(self.key, &built);
        if stand {
            self.want(template_hash(&built), None, None);
            self.gate.mounts(digest(config.text().as_bytes()));
        }
        Ok(stand)
    }

    fn want(&self, template: String, refused: Option<String>, lacks: Option<String>) {
        let wanted = Wanted {
            template,
            replicas: self.subscription.spec.receiver.replicas,
            token: self.admin_token.clone(),
            refused,
            lacks,
        };
        self.tender.receivers.want(self.key, wanted);
    }

    async fn build(&self) -> Result<(ReceiverConfig, Vec<Built>), kube::Error> {
        let tender = self.tender;
        let urls = match self.subscription.spec.environment {
            Environment::Production => &tender.urls.production,
            Environment::Sandbox => &tender.urls.sandbox,
        };
        let around = Surroundings {
            cluster_id: tender.cluster_id.clone(),
            registry_url: urls.0.clone(),
            api_url: urls.1.clone(),
            authorities: tender.urls.authorities.clone(),
            allow_plain_http: tender.allow_plain_http,
        };
        let config = config(self.subscription, &around).expect("a pass validates first");
        let token = self.feed_token().await?;
        let plan = Blueprint {
            subscription: self.subscription,
            config: &config,
            feed_token: token.as_ref(),
            options: &tender.options,
        };
        let built = objects(&plan);
        Ok((config, built))
    }

    /// What the pods mount that somebody else has to make, and is not there.
    async fn lacks(&self) -> Result<Option<String>, kube::Error> {
        let name = &self.subscription.spec.receiver.tls.secret_name;
        if name.is_empty() {
            return Ok(None);
        }
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let there = secrets.get_metadata_opt(name).await?.is_some();
        let lacks = format!("the Secret {name}, which spec.receiver.tls names, is not there");
        Ok((!there).then_some(lacks))
    }

    /// The token that consumers know; a new one only where there is none that can be used.
    async fn feed_token(&self) -> Result<Option<Secret>, kube::Error> {
        if self.subscription.spec.feed.auth == FeedAuth::None {
            return Ok(None);
        }
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let name = format!("{}-feed", self.subscription.name_any());
        let found = secrets.get_opt(&name).await?;
        let bytes = found.and_then(|found| found.data?.remove(FEED_TOKEN_KEY));
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.0).ok());
        let token = text.filter(|text| usable(text.trim()));
        let token = token.map(|text| Secret::new(text.trim()));
        let made = || new_key().map_err(|why| kube::Error::Service(why.into()));
        token.map_or_else(made, Ok).map(Some)
    }
}
