//! A user's namespace: a subscription with its Secrets, a consumer that reads the feed and one that
//! gets http events, each in a pod. The namespace refuses pods below the restricted standard.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::account::Truth;
use crate::forward::Forward;
use crate::kubectl::eventually;
use crate::provider::{API_KEY, API_SECRET, container_security, list, namespace, pod_security};
use crate::world::World;

/// The label of the namespaces of scenarios.
pub const LABEL: &str = "bellhop.dev/e2e";

/// How every subscription of these tests is called.
pub const NAME: &str = "redeam";

/// The Secret with the certificate of its receiver.
pub const TLS: &str = "redeam-tls";

/// The namespace of one scenario.
pub struct Shop<'a> {
    /// Its name.
    pub namespace: String,
    world: &'a World,
}

/// What a consumer in a pod has got.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Different events.
    pub events: u64,
    /// The newest event of each entity.
    pub entities: BTreeMap<String, Value>,
}

impl Seen {
    /// When the first event came, Unix milliseconds; of the newest ones.
    pub fn first_at(&self) -> Option<i64> {
        self.entities
            .values()
            .filter_map(|one| one["at"].as_i64())
            .min()
    }

    /// What is not as the provider has it: another state or none, and what the provider does not have.
    pub fn differences(&self, truth: &Truth) -> Vec<String> {
        let differs = |(key, object): (&String, &Value)| {
            let has = self.entities.get(key).map(|one| &one["data"]);
            (has != Some(object)).then(|| key.clone())
        };
        let there = |one: &Value| !one["type"].as_str().unwrap().ends_with(".removed");
        let strange = |(key, one): (&String, &Value)| {
            (there(one) && truth.lacks(key)).then(|| format!("{key}, which is not there"))
        };
        let differing = truth.entities.iter().filter_map(differs);
        differing
            .chain(self.entities.iter().filter_map(strange))
            .collect()
    }
}

impl<'a> Shop<'a> {
    /// A new namespace with Secrets and consumers, without a subscription.
    pub fn open(world: &'a World, scenario: &str) -> Self {
        let namespace_name = format!("e2e-{scenario}-{:06x}", fastrand::u32(..1 << 24));
        let shop = Self {
            namespace: namespace_name,
            world,
        };
        let at = &shop.namespace;
        let kubectl = &world.cluster.kubectl;
        let mut labelled = namespace(at);
        labelled["metadata"]["labels"][LABEL] = json!("yes");
        kubectl.apply(&labelled.to_string());
        // Without it no pod is let in.
        shop.kubectl("wait serviceaccount/default --for=create --timeout=30s");
        kubectl.apply(
            &list(vec![
                json!({
                    "apiVersion": "v1", "kind": "Secret",
                    "metadata": { "name": "redeam-keys", "namespace": at },
                    "stringData": { "apiKey": API_KEY, "apiSecret": API_SECRET },
                }),
                world.authority.secret(at, TLS, NAME),
                shop.pod(
                    "feed",
                    &[
                        "feed",
                        &format!("http://{NAME}-feed:8082/v1/events"),
                        "/token/token",
                    ],
                    true,
                ),
                shop.pod("orders", &["sink"], false),
                shop.service("feed-consumer", "feed", 8080),
                shop.service("orders", "orders", 8080),
            ])
            .to_string(),
        );
        shop
    }

    fn pod(&self, name: &str, args: &[&str], token: bool) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": self.namespace, "labels": { "app": name } },
            "spec": {
                "securityContext": pod_security(),
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": name, "image": self.world.cluster.pods, "imagePullPolicy": "IfNotPresent",
                    "args": args, "securityContext": container_security(),
                }],
            },
        });
        if token {
            let secret = json!({ "secretName": format!("{NAME}-feed") });
            pod["spec"]["volumes"] = json!([{ "name": "token", "secret": secret }]);
            pod["spec"]["containers"][0]["volumeMounts"] =
                json!([{ "name": "token", "mountPath": "/token" }]);
        }
        pod
    }

    fn service(&self, name: &str, app: &str, port: u16) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": { "selector": { "app": app }, "ports": [{ "port": port }] },
        })
    }

    /// The subscription, with something changed.
    pub fn subscribe(&self, change: impl FnOnce(&mut Value)) {
        let mut object = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WebhookSubscription",
            "metadata": { "name": NAME, "namespace": self.namespace },
            "spec": {
                "environment": "sandbox",
                "url": format!("https://{NAME}.{}.svc.cluster.local:8080/redeam", self.namespace),
                "credentialsSecretRef": { "name": "redeam-keys" },
                "notifications": [{ "type": "Rate" }, { "type": "Booking" }],
                "fetch": { "requestsPerSecond": 100 },
                "receiver": { "tls": { "secretName": TLS } },
                "sinks": [{
                    "name": "orders",
                    "http": { "ref": { "kind": "Service", "name": "orders", "port": 8080, "path": "/events" } },
                }],
            },
        });
        change(&mut object);
        self.world.cluster.kubectl.apply(&object.to_string());
    }

    /// kubectl's words, in this namespace.
    #[track_caller]
    pub fn kubectl(&self, arguments: &str) -> String {
        let arguments = format!("--namespace={} {arguments}", self.namespace);
        self.world.cluster.kubectl.fine(&arguments)
    }

    /// One object of this namespace.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        let what = format!("{what} --namespace={}", self.namespace);
        self.world.cluster.kubectl.get(&what)
    }

    /// One object of this namespace, if it is there.
    pub fn find(&self, what: &str) -> Option<Value> {
        let all = format!(
            "--namespace={} get {what} --ignore-not-found -o json",
            self.namespace
        );
        serde_json::from_str(&self.world.cluster.kubectl.fine(&all)).ok()
    }

    /// Whether there is such an object.
    pub fn has(&self, what: &str) -> bool {
        let arguments = format!(
            "--namespace={} get {what} --ignore-not-found -o name",
            self.namespace
        );
        !self
            .world
            .cluster
            .kubectl
            .fine(&arguments)
            .trim()
            .is_empty()
    }

    /// Merges a patch into the subscription.
    pub fn patch(&self, patch: &Value) {
        let what = format!("whs {NAME} --namespace={}", self.namespace);
        self.world.cluster.kubectl.patch(&what, patch);
    }

    /// Waits until the subscription is ready, as the resource says it.
    #[track_caller]
    pub fn until_ready(&self) {
        let what = format!("whs/{NAME} --namespace={}", self.namespace);
        self.world
            .cluster
            .kubectl
            .wait(&what, "condition=Ready", 90);
    }

    /// The receiver's pod.
    pub fn receiver(&self) -> Value {
        self.get(&format!("pod {NAME}-0"))
    }

    /// Waits until the receiver's pod is another than this and ready.
    #[track_caller]
    pub fn until_replaced(&self, uid: &Value, seconds: u64) {
        eventually("another receiver is ready", seconds, || {
            let arguments = format!("--namespace={} get pod {NAME}-0 -o json", self.namespace);
            let said = self.world.cluster.kubectl.say(&arguments);
            let pod: Value = serde_json::from_str(&said.out).map_err(|_| said.err)?;
            if &pod["metadata"]["uid"] != uid && is_ready(&pod) {
                return Ok(());
            }
            Err(format!("{}", pod["status"]["conditions"]))
        });
    }

    /// What the consumer of the feed has got, or the one that gets http events.
    pub fn seen(&self, service: &str) -> Result<Seen, String> {
        let path = format!(
            "/api/v1/namespaces/{}/services/http:{service}:8080/proxy/",
            self.namespace
        );
        let shown = self.world.cluster.kubectl.get_raw(&path)?;
        let errors = shown["errors"].as_array().cloned().unwrap_or_default();
        assert!(errors.is_empty(), "{service}: {errors:?}");
        let entities = shown["entities"].as_object().cloned().unwrap_or_default();
        Ok(Seen {
            events: shown["events"].as_u64().unwrap_or_default(),
            entities: entities.into_iter().collect(),
        })
    }

    /// What is at the consumers not as the provider has it, when nothing is or the time is over.
    pub fn differing(&self, truth: &Truth, seconds: u64) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let found: Vec<String> = ["feed-consumer", "orders"]
                .iter()
                .flat_map(|service| match self.seen(service) {
                    Ok(seen) => seen.differences(truth),
                    Err(why) => vec![format!("{service}: {why}")],
                })
                .collect();
            if found.is_empty() || begun.elapsed() >= Duration::from_secs(seconds) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    /// Waits until both consumers have exactly what the provider has.
    #[track_caller]
    pub fn until_equal(&self, truth: &Truth, seconds: u64) {
        let found = self.differing(truth, seconds);
        let some = found.iter().take(5).collect::<Vec<_>>();
        assert!(
            found.is_empty(),
            "{} differ after {seconds} s: {some:?}",
            found.len()
        );
    }

    /// Asks the feed as a consumer with its token does; with a body it is a POST.
    #[track_caller]
    pub fn feed(&self, path: &str, body: Option<&Value>) -> (u16, String) {
        let token = self.secret(&format!("{NAME}-feed"), "token");
        let token = String::from_utf8(token).unwrap();
        self.forward(8082).unwrap().ask(path, &token, body).unwrap()
    }

    /// Names these to the feed, which has them read anew: a hundred at a time, and not all at once.
    #[track_caller]
    pub fn refresh(&self, entities: &BTreeSet<String>) {
        let mut left = entities.clone();
        eventually("the feed takes what is named to it", 60, || {
            while !left.is_empty() {
                let some: Vec<&String> = left.iter().take(100).collect();
                let (status, said) = self.feed("/v1/refresh", Some(&json!({ "entities": some })));
                let taken: Value = serde_json::from_str(&said).unwrap_or_default();
                let taken = taken["accepted"].as_array().filter(|_| status == 202);
                for key in taken.ok_or(said)? {
                    left.remove(key.as_str().unwrap());
                }
            }
            Ok(())
        });
    }

    /// A way to a port of the receiver's pod.
    ///
    /// # Errors
    /// There is none now.
    pub fn forward(&self, port: u16) -> Result<Forward, String> {
        let kubectl = &self.world.cluster.kubectl;
        Forward::to(kubectl, &self.namespace, &format!("{NAME}-0"), port)
    }

    /// What is below a key of a Secret.
    #[track_caller]
    pub fn secret(&self, name: &str, key: &str) -> Vec<u8> {
        let secret = self.get(&format!("secret {name}"));
        BASE64_STANDARD
            .decode(secret["data"][key].as_str().unwrap())
            .unwrap()
    }

    /// GET of a path of the API server, as text.
    pub fn raw(&self, path: &str) -> Result<String, String> {
        let said = self.world.cluster.kubectl.say(&format!("get --raw {path}"));
        if said.well {
            Ok(said.out)
        } else {
            Err(said.err)
        }
    }

    /// Deletes the subscription, and waits until it is gone.
    #[track_caller]
    pub fn unsubscribe(&self) {
        self.kubectl(&format!("delete whs {NAME} --timeout=60s"));
    }

    /// Deletes the namespace, and waits until it is gone.
    #[track_caller]
    pub fn close(self) {
        let at = &self.namespace;
        self.world
            .cluster
            .kubectl
            .fine(&format!("delete namespace {at} --timeout=90s"));
    }

    /// What a person would look at when something is wrong.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for arguments in [
            "get pods,pvc,services,statefulsets -o wide".to_owned(),
            "get whs -o yaml".to_owned(),
            "get events --sort-by=.lastTimestamp".to_owned(),
            format!("logs {NAME}-0 --tail=60"),
            format!("logs {NAME}-0 --tail=30 --previous"),
        ] {
            let all = format!("--namespace={} {arguments}", self.namespace);
            let said = self.world.cluster.kubectl.say(&all);
            let _ = write!(text, "$ kubectl {all}\n{}{}\n", said.out, said.err);
        }
        text
    }
}

impl Drop for Shop<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.dump());
        }
    }
}

/// Whether a pod is ready, or a subscription.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
}
