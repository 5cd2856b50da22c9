//! The simulated provider: registry, reseller API and sender in one, steered while it runs.
//!
//! Owns: everything that stands for the provider in demos and tests. It shares no code with the
//! client and the verifier, not the wire types and not the signing, so that one mistake cannot
//! pass on both sides. What never happens here: leniency towards a caller that its documentation
//! does not promise (unknown paths, parameters, fields and operations are refused), a followed
//! redirect, or a retry that the provider would not make.
//!
//! # Addresses
//! The registry is at `/registry/v1`, the reseller API at `/v1.3` and `/v1.2`, the control API at
//! `/control`. Registry and reseller API want `X-API-Key` and `X-API-Secret`; the control API wants
//! nothing: never expose it.
//!
//! # Control API
//! Bodies and answers are JSON. Entities are named by keys: `supplier/S`, `product/S/P`,
//! `channel-binding/S/P`, `rate/S/P/R`, `availability/S/P/R`, `price-schedule/S/P/R`, `booking/B`.
//!
//! | call | what it does |
//! |---|---|
//! | `GET /control/status` | seed, rules, numbers of requests and deliveries |
//! | `GET /control/faults` | the faults in force; `GET /control/faults/names` explains each |
//! | `PATCH /control/faults` | changes the faults in the body; `PUT` replaces all, `DELETE` turns all off |
//! | `PUT /control/catalogue` | a new catalogue: `{"suppliers","products","rates","bookings","seed"}`, without notification |
//! | `GET /control/entities?prefix=` | the keys of all that the channel can see |
//! | `PUT /control/entities/{key}?notify=&rates=` | creates it; body: fields laid over the made-up ones; `rates`: of a product |
//! | `PATCH /control/entities/{key}?notify=` | changes it: no body for a random change, else fields (`null` takes one away); availability: `{"days":[{"date","slot","capacity"}]}`; prices: `{"days":[{"date","retail"}]}`; binding: `{"rateIDs"}` |
//! | `DELETE /control/entities/{key}?notify=` | removes it; availability and prices become empty |
//! | `POST /control/burst` | many random changes: `{"count","kinds","keys","perSecond","notify"}`; answers when they are made |
//! | `POST /control/notify` | a notification that nothing caused: `{"entity","operation","timestampOffsetS","wrongKey","scheme","fields","times"}` |
//! | `GET /control/rules` | the rules by kind; `POST /control/rules/{kind}/rotate` gives one a new key |
//! | `GET /control/requests?after=&limit=` | the requests it got, and their numbers |
//! | `GET /control/deliveries?after=&limit=` | the notifications it made with each attempt, and their numbers |
//! | `POST /control/deliveries/{id}/replay` | sends one again, byte for byte |
//! | `GET /control/idle?seconds=` | answers when no delivery is pending, or with `"idle": false` after that time |
//! | `GET /control/truth/{key}?from=&days=` | the inner object that an uncached read returns now; 404 if there is none |
//! | `GET /control/truth?prefix=&from=&days=` | the same of all entities, by key; `from` is today and `days` 90 unless given |
//!
//! `notify=false` is a change that nobody is told of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

mod catalogue;
mod control;
mod derive;
mod faults;
mod http;
mod kind;
mod registry;
mod reseller;
mod sender;
mod signing;

pub use catalogue::AlterError;
pub use control::{Burst, Changed, Control, ControlError, Days, Notification};
pub use faults::{Api, ErrorShape, FaultError, Faults, FilterScope, PostExisting, WhileDisabled};
pub use http::{RequestCounts, RequestRecord};
pub use kind::Kind;
pub use sender::{Attempt, Delivery, DeliveryCounts, Origin, Outcome};
pub use signing::{Scheme, sum};

use catalogue::{CacheRules, Catalogue, Event, Shape};
use registry::Rules;
use sender::{Outgoing, Sender, SenderSettings, Signer};

/// Why a simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; choose another address, or port 0 for a free one"
    )]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// `deliver_to` is not an address.
    #[error("`{0}` is no base address to deliver to; give one like http://127.0.0.1:8080")]
    DeliverTo(String),
    /// The sender cannot be made, for example because the extra CA is no certificate.
    #[error("cannot set up the sender: {0}")]
    Sender(reqwest::Error),
}

/// What a simulator is like; [`Default`] is small, well-behaved and on a free port.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where all its HTTP is served.
    pub listen: SocketAddr,
    /// Every delivery goes to this base address, keeping the path of the rule's URL.
    pub deliver_to: Option<String>,
    /// The `X-API-Key` that it accepts.
    pub api_key: String,
    /// The `X-API-Secret` that it accepts.
    pub api_secret: String,
    /// Suppliers in the catalogue.
    pub suppliers: usize,
    /// Products of each supplier.
    pub products: usize,
    /// Rates of each product.
    pub rates: usize,
    /// Bookings at the start.
    pub bookings: usize,
    /// What all randomness comes from; equal seeds make equal catalogues and keys.
    pub seed: u64,
    /// The faults at the start.
    pub faults: Faults,
    /// A CA in PEM that is trusted for deliveries beside the system's.
    pub extra_ca: Option<Vec<u8>>,
    /// The delays before each retry of a delivery; their number is the number of retries.
    pub retry_delays: Vec<Duration>,
    /// How long a delivery may take; the provider allows 60 s.
    pub delivery_timeout: Duration,
    /// Deliveries at the same time.
    pub concurrency: usize,
    /// Deliveries that may wait; more are dropped and counted.
    pub queue: usize,
    /// Requests, and deliveries, that are remembered.
    pub remembered: usize,
    /// Where its metrics are registered.
    pub metrics: Metrics,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            deliver_to: None,
            api_key: "demo-key".to_owned(),
            api_secret: "demo-secret".to_owned(),
            suppliers: 2,
            products: 3,
            rates: 3,
            bookings: 5,
            seed: fastrand::u64(..),
            faults: Faults::default(),
            extra_ca: None,
            retry_delays: [5, 30, 120].map(Duration::from_secs).to_vec(),
            delivery_timeout: Duration::from_secs(60),
            concurrency: 64,
            queue: 100_000,
            remembered: 10_000,
            metrics: Metrics::new(),
        }
    }
}

/// Milliseconds since the epoch, by the machine's clock.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// What all parts of a simulator share.
#[derive(Debug)]
struct Core {
    seed: u64,
    base_url: String,
    api_key: String,
    api_secret: String,
    deliver_to: Option<String>,
    remembered: usize,
    faults: ArcSwap<Faults>,
    rng: Arc<Mutex<fastrand::Rng>>,
    catalogue: Mutex<Catalogue>,
    rules: Mutex<Rules>,
    holds: Mutex<BTreeMap<String, Value>>,
    requests: Mutex<http::RequestLog>,
    sender: Arc<Sender>,
    announced: Counter,
}

/// A panic while a lock was held is a failed test already; the data is still the best there is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn faults(&self) -> Arc<Faults> {
        self.faults.load_full()
    }

    fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        lock(&self.rng)
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        lock(&self.catalogue)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    fn holds(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        lock(&self.holds)
    }

    fn requests(&self) -> MutexGuard<'_, http::RequestLog> {
        lock(&self.requests)
    }

    /// True with a probability. Never draws when the answer is certain.
    fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.rng().f64() < probability)
    }

    /// A number from `low` to `high`; `low` when `high` is not above it.
    fn between(&self, low: u64, high: u64) -> u64 {
        if high > low {
            self.rng().u64(low..=high)
        } else {
            low
        }
    }

    fn pick(&self, from: &[u16]) -> Option<u16> {
        self.rng().choice(from).copied()
    }

    /// A key or id that looks like the provider's.
    fn new_key(&self) -> String {
        uuid::Builder::from_random_bytes(self.rng().u128(..).to_be_bytes())
            .into_uuid()
            .to_string()
    }

    fn cache_rules(&self, faults: &Faults) -> CacheRules {
        let millis = |value: u64| i64::try_from(value).unwrap_or(i64::MAX / 4);
        CacheRules {
            max_age_ms: millis(faults.cache_max_age_ms),
            fill_ms: millis(faults.cache_fill_ms),
            reload_on_change: faults.cache_reload,
            times_ms: faults.cache_times_ms,
        }
    }

    /// Where a delivery for a rule really goes.
    fn target(&self, rule_url: &str) -> Arc<str> {
        let Some(base) = &self.deliver_to else {
            return rule_url.into();
        };
        match reqwest::Url::parse(rule_url) {
            Ok(url) => {
                let query = url.query().map_or_else(String::new, |q| format!("?{q}"));
                format!("{base}{}{query}", url.path()).into()
            }
            // The registry let in what parses only.
            Err(_) => rule_url.into(),
        }
    }

    /// The fields of a notification without its signature.
    fn payload(&self, event: &Event, faults: &Faults) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<&String>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value.clone().into());
            }
        };
        put("bookingID", event.booking.as_ref());
        if event.kind != Kind::Booking || faults.booking_parents {
            put("supplierID", event.supplier.as_ref());
            put("productID", event.product.as_ref());
        }
        if event.kind.id_count() == 3 {
            put("rateID", event.rates.first());
        }
        let always = matches!(
            event.kind,
            Kind::ChannelBinding | Kind::Supplier | Kind::Product | Kind::Rate
        );
        if always || faults.operation_everywhere {
            fields.insert("operation".to_owned(), event.operation.into());
        }
        if let Some((first, last)) = event.days.filter(|_| faults.date_range) {
            let midnight = |day: i32| derive::rfc3339(i64::from(day) * 86_400_000, false);
            fields.insert("start".to_owned(), midnight(first).into());
            fields.insert("end".to_owned(), midnight(last + 1).into());
        }
        fields
    }

    /// Tells the channel of events, as far as its rules ask for them. The deliveries' ids.
    fn announce_all(&self, events: impl IntoIterator<Item = Event>) -> Vec<u64> {
        events
            .into_iter()
            .filter_map(|event| self.announce(event))
            .collect()
    }

    fn announce(&self, event: Event) -> Option<u64> {
        let faults = self.faults();
        let (url, key) = {
            let mut rules = self.rules();
            let rule = rules.rules.get(&event.kind);
            match rule.filter(|rule| rule.asks_for(&event, &faults)) {
                None => {
                    drop(rules);
                    self.sender.count_unasked();
                    return None;
                }
                Some(rule) if rule.disabled => {
                    // Bounded like the sending queue would be.
                    if faults.while_disabled == WhileDisabled::Queue
                        && rules.held.len() < self.remembered
                    {
                        rules.held.push(event);
                    } else {
                        drop(rules);
                        self.sender.count_unasked();
                    }
                    return None;
                }
                Some(rule) => (rule.url.clone(), rule.key.clone()),
            }
        };
        self.announced.inc();
        let key = if self.chance(faults.wrong_signature) {
            self.new_key()
        } else {
            key
        };
        let outgoing = Outgoing {
            kind: event.kind,
            entity: event.key(),
            url: self.target(&url),
            fields: Arc::new(self.payload(&event, &faults)),
            signer: Signer {
                scheme: faults.sign,
                key,
                skew_s: faults.timestamp_skew_s,
            },
            anew: faults.sign_retry_anew,
            retry_network: faults.retry_network_errors,
            origin: Origin::Change,
        };
        if self.chance(faults.drop) {
            return Some(self.sender.post_dropped(outgoing));
        }
        let id = self.sender.post(outgoing, self.delay(&faults));
        if self.chance(faults.duplicate) {
            self.sender.repeat(id, self.delay(&faults));
        }
        if self.chance(faults.replay) {
            let pick = self.rng().u64(..);
            self.sender.repeat_any(pick);
        }
        Some(id)
    }

    fn delay(&self, faults: &Faults) -> Duration {
        let mut millis = self.between(faults.delay_min_ms, faults.delay_max_ms);
        if self.chance(faults.reorder) {
            millis += self.between(0, faults.reorder_ms);
        }
        Duration::from_millis(millis)
    }

    /// Sends what waited for a rule to be enabled.
    fn release_held(&self, kind: Kind) {
        let waiting: Vec<Event> = {
            let mut rules = self.rules();
            let (now, later) = std::mem::take(&mut rules.held)
                .into_iter()
                .partition(|event| event.kind == kind);
            rules.held = later;
            now
        };
        self.announce_all(waiting);
    }
}

/// A running simulated provider. Dropping it ends it at once; [`Simulator::stop`] waits.
#[derive(Debug)]
pub struct Simulator {
    core: Arc<Core>,
    address: SocketAddr,
    token: CancellationToken,
    server: axum_server::Handle<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Simulator {
    /// Starts one. Installs the process's default TLS provider if there is none yet.
    ///
    /// # Errors
    /// The address cannot be bound, `deliver_to` is no address, or the extra CA is no certificate.
    pub async fn start(config: Config) -> Result<Self, Error> {
        // An error means that there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listen = |source| Error::Listen {
            address: config.listen,
            source,
        };
        let listener = std::net::TcpListener::bind(config.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let deliver_to = config.deliver_to.clone().map(base_address).transpose()?;
        let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(config.seed)));
        let sender = Arc::new(Sender::new(
            SenderSettings {
                retry_delays: config.retry_delays.clone(),
                concurrency: config.concurrency.max(1),
                queue: config.queue,
                remembered: config.remembered,
            },
            client(&config).map_err(Error::Sender)?,
            Arc::clone(&rng),
        ));
        let announced = Counter::default();
        config.metrics.register(|registry| {
            registry.register(
                "simulator_notifications",
                "Notifications that changes led to, repeats not included",
                announced.clone(),
            );
        });
        let shape = Shape {
            suppliers: config.suppliers,
            products: config.products,
            rates: config.rates,
            bookings: config.bookings,
        };
        let core = Arc::new(Core {
            seed: config.seed,
            base_url: format!("http://{address}"),
            api_key: config.api_key.clone(),
            api_secret: config.api_secret.clone(),
            deliver_to,
            remembered: config.remembered.max(1),
            faults: ArcSwap::from_pointee(config.faults.clone()),
            rng,
            catalogue: Mutex::new(Catalogue::new(config.seed, &shape, now_ms())),
            rules: Mutex::default(),
            holds: Mutex::default(),
            requests: Mutex::default(),
            sender: Arc::clone(&sender),
            announced,
        });
        let token = CancellationToken::new();
        let handle = axum_server::Handle::new();
        let mut server = axum_server::from_tcp(listener)
            .map_err(listen)?
            .handle(handle.clone());
        server
            .http_builder()
            .http1()
            .timer(hyper_util::rt::TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10));
        let service = http::router(Arc::clone(&core)).into_make_service();
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve(service).await {
                tracing::error!(%error, "the simulator's server ended");
            }
        });
        let sending = tokio::spawn(sender.run(token.clone()));
        tracing::info!(%address, seed = config.seed, "simulated provider started");
        Ok(Self {
            core,
            address,
            token,
            server: handle,
            tasks: vec![serving, sending],
        })
    }

    /// Where it listens; with the real port when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`, without a slash at the end.
    pub fn base_url(&self) -> String {
        self.core.base_url.clone()
    }

    /// The registry's base URL.
    pub fn registry_url(&self) -> String {
        format!("{}/registry/v1", self.core.base_url)
    }

    /// The reseller API's base URL, v1.3.
    pub fn api_url(&self) -> String {
        format!("{}/v1.3", self.core.base_url)
    }

    /// What all its randomness comes from.
    pub fn seed(&self) -> u64 {
        self.core.seed
    }

    /// The typed control API.
    pub fn control(&self) -> Control {
        Control {
            core: Arc::clone(&self.core),
        }
    }

    /// Stops sending and serving, and waits until both have ended; a second for open connections.
    pub async fn stop(mut self) {
        self.token.cancel();
        self.server.graceful_shutdown(Some(Duration::from_secs(1)));
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the simulator failed");
            }
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.token.cancel();
        self.server.shutdown();
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn base_address(text: String) -> Result<String, Error> {
    let fits = reqwest::Url::parse(&text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.has_host()
    });
    if fits {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(Error::DeliverTo(text))
    }
}

/// The provider's HTTP client: no redirects, no proxy, and only HTTP/1.1 as most senders speak.
fn client(config: &Config) -> Result<reqwest::Client, reqwest::Error> {
    let extra = match &config.extra_ca {
        Some(pem) => reqwest::Certificate::from_pem_bundle(pem)?,
        None => Vec::new(),
    };
    let builder = || {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .timeout(config.delivery_timeout)
            .pool_max_idle_per_host(config.concurrency)
            .user_agent("bellhop-simulator")
    };
    // A container without the system's certificates can still deliver to http and to the extra CA.
    builder()
        .tls_certs_merge(extra.clone())
        .build()
        .or_else(|_| builder().tls_certs_only(extra).build())
}
