//! The simulated provider in a pod, over TLS, with a certificate of an authority of this run. It
//! keeps the truth: the state that consumers must end with, and what became of each delivery.

use std::sync::Mutex;

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::account::{Delivery, Told, Truth};
use crate::cluster::Cluster;
use crate::kubectl::eventually;

/// Its namespace.
pub const NAMESPACE: &str = "bellhop-e2e-provider";

/// What the provider knows a shop by.
pub const API_KEY: &str = "e2e-key";
/// And its secret.
pub const API_SECRET: &str = "e2e-secret";

/// The delays before the retries of a delivery; the real ones are longer.
const RETRY_DELAYS_MS: &str = "1000,3000,9000";

/// Changes a second.
const PER_SECOND: usize = 20;

/// Of these, changes of rates.
const OF_RATES: usize = 4;

/// Enough for minutes of load.
const BOOKINGS: usize = 4_000;

/// So many of its notifications and requests it remembers.
const REMEMBERED: usize = 10_000;

/// A certificate authority of this run.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "bellhop-e2e");
        let pem = ca.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(ca, key);
        Self { issuer, pem }
    }

    /// A Secret of type kubernetes.io/tls for a Service.
    pub fn secret(&self, namespace: &str, name: &str, service: &str) -> Value {
        let names = [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": name, "namespace": namespace },
            "stringData": {
                "tls.crt": certificate.pem(), "tls.key": key.serialize_pem(), "ca.crt": self.pem,
            },
        })
    }
}

/// Numbers over all deliveries so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Notifications that were made.
    pub made: u64,
    /// Answered 200.
    pub delivered: u64,
    /// Attempts beyond the first ones.
    pub retried: u64,
    /// Attempts answered 503.
    pub unavailable: u64,
    /// Attempts without an answer: connection refused, reset, timed out. Not retried, as the
    /// provider does not promise it.
    pub unanswered: u64,
    /// Never answered 200.
    pub never: u64,
    /// Of these, those answered something that is not retried: always a mistake of ours.
    pub refused: u64,
}

impl Counts {
    /// What came since.
    pub fn since(self, before: Self) -> Self {
        Self {
            made: self.made - before.made,
            delivered: self.delivered - before.delivered,
            retried: self.retried - before.retried,
            unavailable: self.unavailable - before.unavailable,
            unanswered: self.unanswered - before.unanswered,
            never: self.never - before.never,
            refused: self.refused - before.refused,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} notifications, {} got 200, {} attempts retried ({} answers 503), {} without an \
             answer (not retried), {} never delivered",
            self.made, self.delivered, self.retried, self.unavailable, self.unanswered, self.never
        )
    }
}

/// The provider, and the way to its control API.
pub struct Provider<'a> {
    cluster: &'a Cluster,
    rates: Vec<String>,
    /// The bookings of which nobody was told.
    fresh: Mutex<Vec<String>>,
}

impl<'a> Provider<'a> {
    /// A new one, without rules, with a catalogue of its own.
    pub fn start(cluster: &'a Cluster, authority: &Authority) -> Self {
        let all = manifests(&cluster.image, authority);
        cluster.kubectl.apply(&all.to_string());
        let here = format!("--namespace={NAMESPACE}");
        // Its state is in its memory.
        cluster
            .kubectl
            .fine(&format!("{here} rollout restart deployment/provider"));
        let rollout = format!("{here} rollout status deployment/provider --timeout=60s");
        cluster.kubectl.fine(&rollout);
        let mut provider = Self {
            cluster,
            rates: Vec::new(),
            fresh: Mutex::default(),
        };
        eventually("the provider answers", 30, || provider.get("status"));
        provider.rates = provider.keys("rate/");
        provider.fresh = Mutex::new(provider.keys("booking/"));
        provider
    }

    /// What there is of a kind.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let keys = self.get(&format!("entities?prefix={prefix}")).unwrap();
        serde_json::from_value(keys).unwrap()
    }

    /// Its base address inside the cluster.
    pub fn base() -> String {
        format!("https://provider.{NAMESPACE}.svc")
    }

    fn path(call: &str) -> String {
        let service = format!("/api/v1/namespaces/{NAMESPACE}/services/https:provider:443/proxy");
        format!("{service}/control/{call}")
    }

    /// GET of the control API.
    pub fn get(&self, call: &str) -> Result<Value, String> {
        self.cluster.kubectl.get_raw(&Self::path(call))
    }

    /// POST.
    pub fn post(&self, call: &str, body: &Value) -> Value {
        self.cluster
            .kubectl
            .post_raw(&Self::path(call), body)
            .unwrap()
    }

    /// The rules, by kind.
    pub fn rules(&self) -> serde_json::Map<String, Value> {
        match self.get("rules").unwrap() {
            Value::Object(rules) => rules,
            other => panic!("no rules: {other}"),
        }
    }

    /// The state that consumers must end with: all objects of these kinds.
    pub fn truth(&self, kinds: &[&'static str]) -> Truth {
        let mut entities = serde_json::Map::new();
        for kind in kinds {
            match self.get(&format!("truth?prefix={kind}/")).unwrap() {
                Value::Object(found) => entities.extend(found),
                other => panic!("no truth of {kind}: {other}"),
            }
        }
        Truth::new(kinds, entities)
    }

    /// Rates, and the bookings that were told of: what consumers must end with.
    pub fn owed(&self) -> Truth {
        let told = Told::by(&self.deliveries());
        self.truth(&["rate", "booking"]).owed(&told)
    }

    /// Every notification so far, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        let page = self.get(&format!("deliveries?limit={REMEMBERED}"));
        serde_json::from_value(page.unwrap()["deliveries"].take()).unwrap()
    }

    /// Every request that it got so far, in order.
    pub fn requests(&self) -> Vec<Value> {
        let page = self.get(&format!("requests?limit={REMEMBERED}")).unwrap();
        page["requests"].as_array().unwrap().clone()
    }

    /// From now on it has these faults, and no others.
    pub fn has_faults(&self, faults: &Value) {
        let path = Self::path("faults");
        self.cluster.kubectl.put_raw(&path, faults).unwrap();
    }

    /// Changes, made evenly over some seconds: some of rates, and most of bookings of which nobody was
    /// told before. Returns when the last one is made.
    pub fn load(&self, seconds: usize) {
        for _ in 0..seconds {
            let rates = fastrand::choose_multiple(&self.rates, OF_RATES);
            let mut keys = self.fresh(PER_SECOND - OF_RATES);
            keys.extend(rates.into_iter().cloned());
            self.burst(&keys, true);
        }
    }

    /// Bookings of which nobody was told, each given once.
    fn fresh(&self, count: usize) -> Vec<String> {
        let mut fresh = self.fresh.lock().unwrap();
        let left = fresh.len().checked_sub(count);
        fresh.split_off(left.expect("more bookings than the provider has"))
    }

    /// Changes one rate.
    pub fn change_a_rate(&self) {
        self.burst(&[fastrand::choice(&self.rates).unwrap().clone()], true);
    }

    /// Changes this, and tells nobody.
    pub fn change_unnoticed(&self, key: &str) {
        self.burst(&[key.to_owned()], false);
    }

    /// Changes each of these once.
    fn burst(&self, keys: &[String], notify: bool) {
        let burst = json!({
            "count": keys.len(), "keys": keys, "each": true,
            "perSecond": PER_SECOND, "notify": notify,
        });
        let made = self.post("burst", &burst);
        let changed = made["changed"].as_array().map(Vec::len);
        assert_eq!(changed, Some(keys.len()), "{made}");
    }

    /// Numbers over all deliveries so far; waits until each has come to its end.
    pub fn counts(&self) -> Counts {
        let idle = self.get("idle?seconds=50").unwrap();
        assert_eq!(idle["idle"], json!(true), "deliveries are pending: {idle}");
        let counts = self.get("deliveries?limit=1").unwrap()["counts"].take();
        let number = |name: &str| counts[name].as_u64().unwrap_or_default();
        let unanswered = counts["errors"]
            .as_object()
            .map_or(0, |errors| errors.values().filter_map(Value::as_u64).sum());
        Counts {
            made: number("made"),
            delivered: number("delivered"),
            retried: number("attempts") - number("made"),
            unavailable: counts["statuses"]["503"].as_u64().unwrap_or_default(),
            unanswered,
            never: number("refused") + number("gaveUp") + number("lost"),
            refused: number("refused"),
        }
    }
}

fn manifests(image: &str, authority: &Authority) -> Value {
    let labels = json!({ "app": "provider" });
    let args = [
        "simulate",
        "--listen=0.0.0.0:8443",
        "--tls-cert=/tls/tls.crt",
        "--tls-key=/tls/tls.key",
        "--extra-ca=/tls/ca.crt",
        &format!("--api-key={API_KEY}"),
        &format!("--api-secret={API_SECRET}"),
        &format!("--retry-delays-ms={RETRY_DELAYS_MS}"),
        &format!("--bookings={BOOKINGS}"),
    ];
    list(vec![
        namespace(NAMESPACE),
        authority.secret(NAMESPACE, "provider-tls", "provider"),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "provider", "namespace": NAMESPACE },
            "spec": { "selector": labels, "ports": [{ "port": 443, "targetPort": 8443 }] },
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "provider", "namespace": NAMESPACE },
            "spec": {
                "selector": { "matchLabels": labels },
                "strategy": { "type": "Recreate" },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "securityContext": pod_security(),
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "provider", "image": image, "imagePullPolicy": "IfNotPresent",
                            "args": args,
                            "securityContext": container_security(),
                            "readinessProbe": { "tcpSocket": { "port": 8443 }, "periodSeconds": 1 },
                            "volumeMounts": [{ "name": "tls", "mountPath": "/tls" }],
                        }],
                        "volumes": [{ "name": "tls", "secret": { "secretName": "provider-tls" } }],
                    },
                },
            },
        }),
    ])
}

/// A namespace that lets in only pods of the restricted Pod Security Standard.
pub fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
    })
}

/// Several objects as one manifest.
pub fn list(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// What the restricted standard asks of a pod.
pub fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// And of a container.
pub fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}
