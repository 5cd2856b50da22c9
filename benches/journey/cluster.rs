//! A real API server for the operator, and the subscriptions in it.
//!
//! Owns: the control plane (that of the tests: the same programs, flags and audit log), and the
//! objects: each with an API key of its own, so that each is a channel of its own. Never here: the
//! operator; a number.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellhop::api::Owner;
use bellhop::api::v1alpha1::WebhookSubscription;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::roles::text;

/// What tells this cluster's rules from another's.
pub const CLUSTER_ID: &str = "bench";

/// Calls at a time.
const AT_A_TIME: usize = 32;

#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with the tests"
)]
#[path = "../../tests/it/cluster/plane.rs"]
mod plane;
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with the tests"
)]
#[path = "../../tests/it/cluster/supervise.rs"]
mod supervise;
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with the tests"
)]
#[path = "../../tests/it/cluster/tools.rs"]
mod tools;

/// See the module.
pub struct Cluster {
    plane: &'static plane::Plane,
    runtime: Runtime,
    client: Client,
}

/// Subscriptions of one namespace, by number.
#[derive(Debug, Clone, Copy)]
pub struct Shops {
    pub namespace: &'static str,
    pub from: usize,
    pub count: usize,
    /// How the API keys begin.
    pub keys: &'static str,
    /// All seven types, as by default, or rates only.
    pub all_types: bool,
}

impl Shops {
    fn name(self, number: usize) -> String {
        format!("{}-{number:05}", self.namespace)
    }

    fn key(self, number: usize) -> String {
        format!("{}-{}-{number:05}", self.keys, self.namespace)
    }

    fn secret(self, number: usize) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": self.name(number) },
            "stringData": { "apiKey": self.key(number), "apiSecret": "bench-secret" },
        })
    }

    fn subscription(self, number: usize) -> Value {
        let name = self.name(number);
        let mut object = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WebhookSubscription",
            "metadata": { "name": name },
            "spec": {
                "environment": "sandbox",
                // Of the documentation range: no resolver of the machine is measured.
                "url": format!("https://192.0.2.1/{name}"),
                "credentialsSecretRef": { "name": name },
                // None falls into a measurement of what an idle operator does.
                "registration": { "driftCheckInterval": "24h" },
            },
        });
        if !self.all_types {
            object["spec"]["notifications"] = json!([{ "type": "Rate" }]);
        }
        object
    }
}

/// As the API takes it.
fn typed<K: serde::de::DeserializeOwned>(value: Value) -> Result<K, String> {
    serde_json::from_value(value).map_err(text)
}

impl Cluster {
    /// Starts it; none where the programs are missing, which has been said then.
    pub fn start() -> Result<Option<Self>, String> {
        let runtime = Runtime::new().map_err(text)?;
        let Some(plane) = plane::shared() else {
            return Ok(None);
        };
        let client = runtime.block_on(plane::client(&plane.admin));
        Ok(Some(Self {
            plane,
            runtime,
            client,
        }))
    }

    /// Which Kubernetes it is.
    pub fn version() -> String {
        tools::version()
    }

    /// The kubeconfig of a user who may do everything.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.plane.kubeconfig(user, "system:masters")
    }

    /// The writes of a user so far, as the API server has noted them: all, and those of Leases.
    pub fn writes(&self, user: &str) -> (usize, usize) {
        let calls = self.plane.calls(user).into_iter();
        let writes: Vec<_> = calls
            .filter(|call| !matches!(call.verb.as_str(), "get" | "list" | "watch"))
            .collect();
        let leases = |call: &&plane::Call| call.what.ends_with("/leases");
        (writes.len(), writes.iter().filter(leases).count())
    }

    /// Makes a namespace.
    pub fn namespace(&self, name: &str) -> Result<(), String> {
        let namespace: Namespace = typed(json!({ "metadata": { "name": name } }))?;
        let all: Api<Namespace> = Api::all(self.client.clone());
        let params = PostParams::default();
        let made = self.runtime.block_on(all.create(&params, &namespace));
        made.map(drop).map_err(text)
    }

    fn secrets(&self, shops: Shops) -> Api<Secret> {
        Api::namespaced(self.client.clone(), shops.namespace)
    }

    fn subscriptions(&self, shops: Shops) -> Api<WebhookSubscription> {
        Api::namespaced(self.client.clone(), shops.namespace)
    }

    /// Makes their Secrets.
    pub fn secrets_of(&self, shops: Shops) -> Result<(), String> {
        let secrets = self.secrets(shops);
        self.each(shops, async |number| {
            let secret: Secret = typed(shops.secret(number))?;
            let made = secrets.create(&PostParams::default(), &secret).await;
            made.map(drop).map_err(text)
        })
    }

    /// Makes the subscriptions themselves.
    pub fn create(&self, shops: Shops) -> Result<(), String> {
        let all = self.subscriptions(shops);
        self.each(shops, async |number| {
            let object: WebhookSubscription = typed(shops.subscription(number))?;
            let made = all.create(&PostParams::default(), &object).await;
            made.map(drop).map_err(text)
        })
    }

    /// Changes each of them in the same way.
    pub fn patch(&self, shops: Shops, patch: &Value) -> Result<(), String> {
        let all = self.subscriptions(shops);
        self.each(shops, async |number| {
            let patch = Patch::Merge(patch);
            let name = shops.name(number);
            let done = all.patch(&name, &PatchParams::default(), &patch).await;
            done.map(drop).map_err(text)
        })
    }

    fn each(
        &self,
        shops: Shops,
        work: impl AsyncFn(usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let numbers = shops.from..shops.from + shops.count;
        let all = stream::iter(numbers)
            .map(|number| work(number))
            .buffer_unordered(AT_A_TIME)
            .try_collect::<Vec<()>>();
        self.runtime.block_on(all).map(drop)
    }

    /// How many of a namespace are Ready.
    pub fn ready(&self, shops: Shops) -> Result<usize, String> {
        let all = self.subscriptions(shops);
        let listed = self.runtime.block_on(all.list(&ListParams::default()));
        let listed = listed.map_err(text)?;
        Ok(listed.iter().filter(|object| is_ready(object)).count())
    }

    /// Waits until so many are Ready, and says how long that took.
    pub fn until_ready(
        &self,
        shops: Shops,
        count: usize,
        patience: Duration,
    ) -> Result<Duration, String> {
        let begun = Instant::now();
        loop {
            let looked = Instant::now();
            let ready = self.ready(shops)?;
            if ready >= count {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > patience {
                let what = shops.namespace;
                return Err(format!(
                    "{ready} of {count} of `{what}` are Ready after {patience:?}"
                ));
            }
            // A list of a thousand is work for the API server, which the operator waits for as well.
            let pause = (looked.elapsed() * 5).max(Duration::from_millis(200));
            std::thread::sleep(pause.min(Duration::from_secs(5)));
        }
    }

    /// From the creation of one subscription, its Secret being there, until it is Ready.
    pub fn one(&self, shops: Shops) -> Result<Duration, String> {
        self.secrets_of(shops)?;
        let all = self.subscriptions(shops);
        let name = shops.name(shops.from);
        let begun = Instant::now();
        self.create(shops)?;
        while begun.elapsed() < Duration::from_mins(1) {
            let object = self.runtime.block_on(all.get(&name)).map_err(text)?;
            if is_ready(&object) {
                return Ok(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{name} is not Ready after a minute"))
    }

    /// Makes more of them as they are once they are registered: copies of the first one, with its
    /// owned Secret, its status and its rules.
    pub fn copies(
        &self,
        original: Shops,
        shops: Shops,
        provider: SocketAddr,
    ) -> Result<(), String> {
        let (name, key) = (original.name(original.from), original.key(original.from));
        let owner = |name: &str| Owner::of(CLUSTER_ID, original.namespace, name).to_string();
        let (object, template) = self.runtime.block_on(async {
            let object = self.subscriptions(original).get(&name).await;
            let secret = self.secrets(original).get(&format!("{name}-bellhop")).await;
            Ok::<_, String>((
                serde_json::to_string(&object.map_err(text)?).map_err(text)?,
                secret.map_err(text)?,
            ))
        })?;
        let (all, secrets) = (self.subscriptions(shops), self.secrets(shops));
        self.each(shops, async |number| {
            let new = shops.name(number);
            let text_of = object
                .replace(&owner(&name), &owner(&new))
                .replace(&name, &new);
            let copy: WebhookSubscription = serde_json::from_str(&text_of).map_err(text)?;
            let mut status = copy.status.clone().unwrap_or_default();
            // Of its first generation, however often the original was changed.
            status.observed_generation = 1;
            for condition in &mut status.conditions {
                condition.observed_generation = Some(1);
            }
            let mut made = WebhookSubscription::new(&new, copy.spec);
            made.metadata.finalizers = copy.metadata.finalizers;
            let made = all.create(&PostParams::default(), &made).await;
            let made = made.map_err(text)?;
            let patch = Patch::Merge(json!({ "status": status }));
            let params = PatchParams::default();
            all.patch_status(&new, &params, &patch)
                .await
                .map_err(text)?;
            let secret = copied(&template, &made, &shops.key(number), &new);
            let made = secrets.create(&PostParams::default(), &secret).await;
            made.map(drop).map_err(text)
        })?;
        let lines = (shops.from..shops.from + shops.count).map(|number| {
            let new = shops.name(number);
            let (old_owner, new_owner) = (owner(&name), owner(&new));
            format!(
                "{key} {} {name} {new} {old_owner} {new_owner}\n",
                shops.key(number)
            )
        });
        let body: String = lines.collect();
        let url = format!("http://{provider}/control/copies");
        let sent = self
            .runtime
            .block_on(async { reqwest::Client::new().post(url).body(body).send().await });
        let answer = sent.map_err(text)?;
        answer.error_for_status().map(drop).map_err(text)
    }
}

fn is_ready(object: &WebhookSubscription) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

/// The owned Secret of another subscription.
fn copied(owned: &Secret, of: &WebhookSubscription, key: &str, name: &str) -> Secret {
    let mut copy = owned.clone();
    let metadata = &mut copy.metadata;
    metadata.name = Some(format!("{name}-bellhop"));
    (metadata.uid, metadata.resource_version) = (None, None);
    (metadata.creation_timestamp, metadata.managed_fields) = (None, None);
    for owner in metadata.owner_references.iter_mut().flatten() {
        name.clone_into(&mut owner.name);
        owner.uid = of.uid().unwrap_or_default();
    }
    if let Some(labels) = &mut metadata.labels {
        labels.insert("app.kubernetes.io/instance".to_owned(), name.to_owned());
    }
    if let Some(notes) = &mut metadata.annotations {
        let account = bellhop::secrets::Fingerprint::of(key.as_bytes()).to_string();
        notes.insert("bellhop.dev/account".to_owned(), account);
    }
    if let Some(data) = &mut copy.data {
        let key = k8s_openapi::ByteString(key.as_bytes().to_vec());
        data.insert("apiKey".to_owned(), key);
    }
    copy
}
