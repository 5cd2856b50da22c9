//! An operator of one namespace in this process, whose calls go through a breaker, and a simulated
//! provider.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bellhop::api::v1alpha1::WebhookSubscription;
use bellhop::clock::{Clock, SystemClock, Ticks, UnixMillis};
use bellhop::controller::access::Access;
use bellhop::controller::budget::{Budget, Rates};
use bellhop::controller::build::PodOptions;
use bellhop::controller::client::guarded;
use bellhop::controller::lease::Leadership;
use bellhop::controller::metrics::ControllerMetrics;
use bellhop::controller::providers::{Addresses, HttpProviders};
use bellhop::controller::tend::ProviderUrls;
use bellhop::controller::waiting::Waiting;
use bellhop::controller::{Parts, ReceiverParts, Settings, run};
use bellhop::metrics::Metrics;
use bellhop::provider::base::BaseUrl;
use bellhop::registration::probe::Prober;
use bellhop::simulator::{Config, Kind, Simulator};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::rules::smallest;
use super::super::space::Space;
use super::breaker::{Breaker, BrokenProviders, broken_client};

/// Looks at the API server over a minute: often at first, then rarely, since each takes from the time
/// that the operators need of it.
pub struct Looks {
    begun: Instant,
    limit: Duration,
    pause: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            limit: Duration::from_mins(1),
            pause: Duration::ZERO,
        }
    }
}

/// Looks for what is to come, for so many seconds at most.
pub async fn within<T>(seconds: u64, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut looks = Looks {
        limit: Duration::from_secs(seconds),
        ..Looks::default()
    };
    while looks.again().await {
        if let Some(found) = look().await {
            return found;
        }
    }
    panic!("not so after {seconds} s: {what}");
}

impl Looks {
    /// Waits for the time of the next one; `false` when the time is over.
    pub async fn again(&mut self) -> bool {
        tokio::time::sleep(self.pause).await;
        let next = (self.pause * 2).max(Duration::from_millis(25));
        self.pause = next.min(Duration::from_millis(200));
        self.begun.elapsed() < self.limit
    }
}

/// A clock that shows a later time of day, and runs as the others do.
struct Ahead(SystemClock, Duration);

#[async_trait]
impl Clock for Ahead {
    fn now(&self) -> UnixMillis {
        self.0.now().after(self.1)
    }

    fn ticks(&self) -> Ticks {
        self.0.ticks()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }
}

/// One operator of the namespace.
pub struct Operator {
    pub breaker: Arc<Breaker>,
    pub metrics: Metrics,
    pub waiting: Waiting,
    token: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), String>>,
}

impl Operator {
    /// As kill -9 does it.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// As SIGTERM does it.
    pub async fn stop(self) {
        self.token.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// See the module.
pub struct Rig {
    pub space: Space,
    pub simulator: Simulator,
    /// Another account, where a test wants one.
    other: Option<Simulator>,
}

pub const KEY: &str = "an-api-key";
pub const OTHER_KEY: &str = "another-api-key";

async fn provider(key: &str) -> Simulator {
    let config = Config {
        api_key: key.to_owned(),
        api_secret: "an-api-secret".to_owned(),
        suppliers: 1,
        products: 1,
        rates: 1,
        bookings: 1,
        ..Config::default()
    };
    Simulator::start(config).await.unwrap()
}

impl Rig {
    /// A namespace and a provider, no operator yet.
    pub async fn new(test: &str) -> Option<Self> {
        Some(Self::on(Space::new(test).await?).await)
    }

    /// The same in a namespace that is there.
    pub async fn on(space: Space) -> Self {
        Self {
            space,
            simulator: provider(KEY).await,
            other: None,
        }
    }

    /// The same with another account beside it.
    pub async fn with_two_accounts(test: &str) -> Option<Self> {
        Some(Self {
            other: Some(provider(OTHER_KEY).await),
            ..Self::new(test).await?
        })
    }

    /// The other account's provider.
    pub fn other(&self) -> &Simulator {
        self.other.as_ref().unwrap()
    }

    /// An operator that nothing happens to.
    pub fn operator(&self) -> Operator {
        self.operator_with(Arc::default(), "me")
    }

    /// An operator whose calls go through `breaker`.
    pub fn operator_with(&self, breaker: Arc<Breaker>, identity: &str) -> Operator {
        let client = self.space.client.clone();
        self.start(client, breaker, identity, None, None)
    }

    /// An operator for whom it is later than for everybody else.
    pub fn operator_ahead(&self, ahead: Duration) -> Operator {
        let clock = Arc::new(Ahead(SystemClock::new(), ahead));
        let client = self.space.client.clone();
        self.start_at(clock, client, Arc::default(), "ahead", None, None)
    }

    /// An operator that runs receivers with this image, which it asks by `access`.
    pub fn operator_with_receivers(&self, image: &str, access: Arc<dyn Access>) -> Operator {
        self.with_receivers(image, access, Arc::default(), None)
    }

    /// The same in a namespace of the cluster.
    pub fn operator_in(&self, namespace: &str, access: Arc<dyn Access>) -> Operator {
        self.with_receivers("an-image:1", access, Arc::default(), Some(namespace))
    }

    /// The same with calls that go through `breaker`.
    pub fn operator_with_receivers_through(
        &self,
        breaker: Arc<Breaker>,
        access: Arc<dyn Access>,
    ) -> Operator {
        self.with_receivers("an-image:1", access, breaker, None)
    }

    fn with_receivers(
        &self,
        image: &str,
        access: Arc<dyn Access>,
        breaker: Arc<Breaker>,
        namespace: Option<&str>,
    ) -> Operator {
        let client = self.space.client.clone();
        let urls = (self.simulator.registry_url(), self.simulator.api_url());
        let receivers = ReceiverParts {
            options: PodOptions {
                image: image.to_owned(),
                operator_namespace: namespace.map(str::to_owned),
                monitoring_namespaces: vec!["monitoring".to_owned()],
            },
            urls: ProviderUrls {
                production: urls.clone(),
                sandbox: urls,
                authorities: None,
            },
            allow_plain_http: false,
            access,
            max_rollouts: 1,
        };
        self.start(client, breaker, "me", None, Some(receivers))
    }

    /// An operator that probes public URLs.
    pub fn operator_probing(&self, prober: Prober) -> Operator {
        self.operator_probing_with(prober, Arc::default())
    }

    /// The same with calls that go through `breaker`.
    pub fn operator_probing_with(&self, prober: Prober, breaker: Arc<Breaker>) -> Operator {
        let client = self.space.client.clone();
        self.start(client, breaker, "me", Some(prober), None)
    }

    /// The same with another way to the API server.
    pub fn operator_through(
        &self,
        client: Client,
        breaker: Arc<Breaker>,
        identity: &str,
    ) -> Operator {
        self.start(client, breaker, identity, None, None)
    }

    fn start(
        &self,
        client: Client,
        breaker: Arc<Breaker>,
        identity: &str,
        prober: Option<Prober>,
        receivers: Option<ReceiverParts>,
    ) -> Operator {
        let clock = Arc::new(SystemClock::new());
        self.start_at(clock, client, breaker, identity, prober, receivers)
    }

    fn start_at(
        &self,
        clock: Arc<dyn Clock>,
        client: Client,
        breaker: Arc<Breaker>,
        identity: &str,
        prober: Option<Prober>,
        receivers: Option<ReceiverParts>,
    ) -> Operator {
        let metrics = Metrics::new();
        let controller_metrics = ControllerMetrics::new(&metrics);
        let leadership = Leadership::alone(clock.clone());
        let providers = |simulator: &Simulator| {
            let address = BaseUrl::parse(&simulator.registry_url(), false).unwrap();
            let addresses = Addresses {
                production: address.clone(),
                sandbox: address,
            };
            let rates = Rates {
                account: 1_000,
                operator: 1_000,
            };
            let budget = Budget::new(rates, leadership.clone(), clock.clone());
            HttpProviders::new(addresses, None, budget, clock.clone(), &Metrics::new()).unwrap()
        };
        let inner = providers(&self.simulator);
        let other = providers(self.other.as_ref().unwrap_or(&self.simulator));
        let client = broken_client(client, breaker.clone());
        let waiting = Waiting::default();
        let parts = Parts {
            client: guarded(client, leadership.clone(), controller_metrics.clone()),
            providers: Arc::new(BrokenProviders {
                inner,
                other,
                breaker: breaker.clone(),
            }),
            clock,
            metrics: metrics.clone(),
            controller_metrics,
            waiting: waiting.clone(),
            prober,
            receivers,
        };
        let settings = Settings {
            namespaces: vec![self.space.name.clone()],
            cluster_id: Some("a-cluster".to_owned()),
            concurrency: 8,
            identity: identity.to_owned(),
        };
        let token = CancellationToken::new();
        Operator {
            breaker,
            metrics,
            waiting,
            token: token.clone(),
            task: tokio::spawn(run(parts, settings, token)),
        }
    }

    /// Secrets of the namespace.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.space.client.clone(), &self.space.name)
    }

    /// Subscriptions of the namespace.
    pub fn subscriptions(&self) -> Api<WebhookSubscription> {
        Api::namespaced(self.space.client.clone(), &self.space.name)
    }

    /// The user's Secret.
    pub async fn create_keys(&self, name: &str, key: &str) {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            string_data: Some(BTreeMap::from([
                ("apiKey".to_owned(), key.to_owned()),
                ("apiSecret".to_owned(), "an-api-secret".to_owned()),
            ])),
            ..Secret::default()
        };
        let secrets = self.secrets();
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
    }

    /// A subscription to rates and bookings, with something changed.
    pub async fn create(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = smallest(name);
        object["spec"]["url"] = json!(format!("https://hooks.example.com/{name}"));
        object["spec"]["notifications"] = json!([{ "type": "Rate" }, { "type": "Booking" }]);
        change(&mut object);
        let object: WebhookSubscription = serde_json::from_value(object).unwrap();
        let all = self.subscriptions();
        all.create(&PostParams::default(), &object).await.unwrap();
    }

    /// Merges a patch into a subscription.
    pub async fn patch(&self, name: &str, patch: Value) {
        let patch = kube::api::Patch::Merge(patch);
        let params = kube::api::PatchParams::default();
        let all = self.subscriptions();
        all.patch(name, &params, &patch).await.unwrap();
    }

    /// Merges a patch into a subscription's status.
    pub async fn patch_status(&self, name: &str, status: Value) {
        let patch = kube::api::Patch::Merge(json!({ "status": status }));
        let params = kube::api::PatchParams::default();
        let all = self.subscriptions();
        all.patch_status(name, &params, &patch).await.unwrap();
    }

    /// The subscription; `None`: it is gone.
    pub async fn get(&self, name: &str) -> Option<WebhookSubscription> {
        self.subscriptions().get_opt(name).await.unwrap()
    }

    /// Status and reason of a condition, as `True Ok`.
    pub async fn condition(&self, name: &str, kind: &str) -> Option<String> {
        let status = self.get(name).await?.status?;
        let mut all = status.conditions.into_iter();
        let found = all.find(|condition| condition.type_ == kind)?;
        Some(format!("{} {}", found.status, found.reason))
    }

    /// Waits until a condition says this.
    pub async fn until(&self, name: &str, kind: &str, says: &str) {
        let mut last = None;
        let mut looks = Looks::default();
        while looks.again().await {
            last = self.condition(name, kind).await;
            if last.as_deref() == Some(says) {
                return;
            }
        }
        panic!("{name}: {kind} is {last:?}, not {says:?}, after 60 s");
    }

    /// Waits until a value of `reconcile-at` is acknowledged, which a pass does last of all.
    pub async fn until_acknowledged(&self, name: &str, value: &str) {
        let mut last = None;
        let mut looks = Looks::default();
        while looks.again().await {
            let status = self.get(name).await.unwrap().status.unwrap_or_default();
            last = status.acknowledged.and_then(|known| known.reconcile_at);
            if last.as_deref() == Some(value) {
                return;
            }
        }
        panic!("{name}: {last:?} is acknowledged, not {value:?}, after 60 s");
    }

    /// Waits until the object is gone.
    pub async fn until_gone(&self, name: &str) {
        let mut looks = Looks::default();
        while looks.again().await {
            if self.get(name).await.is_none() {
                return;
            }
        }
        panic!("{name} is still there after 60 s");
    }

    /// Changes the user's Secret.
    pub async fn change_keys(&self, name: &str, key: &str, secret: &str) {
        let patch = json!({ "stringData": { "apiKey": key, "apiSecret": secret } });
        let params = kube::api::PatchParams::default();
        let secrets = self.secrets();
        secrets
            .patch(name, &params, &kube::api::Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Waits until something holds.
    pub async fn eventually(&self, what: &str, holds: impl Fn() -> bool) {
        within(60, what, async || holds().then_some(())).await;
    }

    /// The message of a condition.
    pub async fn message(&self, name: &str, kind: &str) -> String {
        let status = self.get(name).await.unwrap().status.unwrap();
        let mut all = status.conditions.into_iter();
        all.find(|one| one.type_ == kind).unwrap().message
    }

    /// Deletes a subscription, without waiting.
    pub async fn delete(&self, name: &str) {
        let all = self.subscriptions();
        all.delete(name, &kube::api::DeleteParams::default())
            .await
            .unwrap();
    }

    /// What the provider's registry holds, by kind.
    pub fn rules(&self) -> BTreeMap<Kind, Value> {
        self.simulator.control().rules().into_iter().collect()
    }

    /// Takes a rule out of the registry, as somebody with the same keys does it.
    pub async fn remove_rule(&self, path: &str) {
        let url = format!("{}/{path}", self.simulator.registry_url());
        let request = reqwest::Client::new().delete(url);
        let request = request.header("X-API-Key", KEY);
        let request = request.header("X-API-Secret", "an-api-secret");
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// The first key in the owned Secret, per type.
    pub async fn stored_key(&self, name: &str, segment: &str) -> Option<String> {
        let secret = self.secrets().get_opt(&format!("{name}-bellhop")).await;
        let data = secret.unwrap()?.data?;
        let text = String::from_utf8(data.get(segment)?.0.clone()).unwrap();
        text.lines().next().map(str::to_owned)
    }

    /// Exactly the rules for rates and bookings, live, below this subscription's URL, and the keys
    /// of both in the Secret.
    pub async fn check_registered(&self, name: &str) {
        self.check_registered_at(name, name).await;
    }

    /// The same for a url of another path.
    pub async fn check_registered_at(&self, name: &str, path: &str) {
        let rules = self.rules();
        let kinds: Vec<Kind> = rules.keys().copied().collect();
        assert_eq!(kinds, [Kind::Rate, Kind::Booking]);
        for (kind, segment) in [(Kind::Rate, "rate"), (Kind::Booking, "booking")] {
            let rule = &rules[&kind];
            assert_eq!(rule["disabled"], json!(false), "{kind:?}");
            let url = rule["url"].as_str().unwrap();
            let below = format!("https://hooks.example.com/{path}/{segment}/");
            assert!(url.starts_with(&below), "{url}");
            let stored = self.stored_key(name, segment).await;
            assert_eq!(rule["securityKey"].as_str(), stored.as_deref(), "{kind:?}");
        }
    }

    /// How many resyncs were called for since the owned Secret was made, by type.
    pub async fn resyncs(&self, name: &str) -> Value {
        let secret = self.secrets().get(&format!("{name}-bellhop")).await;
        let text = secret.unwrap().data.unwrap()["resyncs"].0.clone();
        let numbers: BTreeMap<String, u64> = serde_json::from_slice(&text).unwrap();
        // The first one is as of a whole second.
        let counts = numbers.into_iter();
        let counts: BTreeMap<_, _> = counts.map(|(kind, number)| (kind, number % 1000)).collect();
        json!(counts)
    }

    /// Nothing is left of a subscription, at the provider and in the cluster.
    pub async fn check_gone(&self, name: &str) {
        self.until_gone(name).await;
        assert_eq!(self.rules(), BTreeMap::new());
        let owned = self.secrets().get_opt(&format!("{name}-bellhop")).await;
        assert!(owned.unwrap().is_none(), "the owned Secret stays behind");
    }
}
