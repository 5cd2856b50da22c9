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
//! | `POST /control/burst` | many random changes: `{"count","kinds","keys","each","perSecond","notify"}`, with `each` of different entities; answers when they are made |
//! | `POST /control/notify` | a notification that nothing caused: `{"entity","operation","timestampOffsetS","wrongKey","scheme","fields","times"}` |
//! | `GET /control/rules` | the rules by kind; `POST /control/rules/{kind}/rotate` gives one a new key |
//! | `PUT /control/deliver-to` | `{"url"}`: sends every delivery to that base address from now on; `null`: to the rules' URLs |
//! | `GET /control/requests?after=&limit=` | the requests it got, and their numbers |
//! | `GET /control/deliveries?after=&limit=` | the notifications it made with each attempt, and their numbers |
//! | `POST /control/deliveries/{id}/replay` | sends one again, byte for byte |
//! | `GET /control/idle?seconds=` | answers when no delivery is pending, or with `"idle": false` after that time |
//! | `GET /control/truth/{key}?from=&days=` | the inner object that an uncached read returns now; 404 if there is none |
//! | `GET /control/truth?prefix=&from=&days=` | the same of all entities, by key; `from` is today and `days` 90 unless given |
//!
//! `notify=false` is a change that nobody is told of.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum_server::tls_rustls::RustlsConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

mod catalogue;
mod control;
mod core;
mod derive;
mod faults;
mod http;
mod kind;
mod record;
mod registry;
mod reseller;
mod sender;
mod signing;

pub use catalogue::AlterError;
pub use control::{Burst, Changed, Control, ControlError, Days, Notification};
pub use faults::{Api, ErrorShape, FaultError, Faults, FilterScope, PostExisting, WhileDisabled};
pub use http::{RequestCounts, RequestRecord};
pub use kind::Kind;
pub use record::{Attempt, Delivery, DeliveryCounts, Origin, Outcome};
pub use signing::{Scheme, sum};

use self::core::Core;
use catalogue::{Catalogue, Shape};
use sender::{Sender, SenderMetrics, SenderSettings};

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
    /// The certificate or its key cannot be used.
    #[error("cannot serve TLS with {} and {}: {source}", .files.cert.display(), .files.key.display())]
    Tls {
        /// What was given.
        files: TlsPair,
        /// Why not.
        source: std::io::Error,
    },
    /// The sender cannot be made, for example because the extra CA is no certificate.
    #[error("cannot set up the sender: {0}")]
    Sender(reqwest::Error),
}

/// Files in PEM with which a simulator serves https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPair {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a simulator is like; [`Default`] is small, well-behaved and on a free port.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where all its HTTP is served.
    pub listen: SocketAddr,
    /// Serve https instead of http.
    pub tls: Option<TlsPair>,
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
            tls: None,
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
            delivery_timeout: Duration::from_mins(1),
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
    /// The address cannot be bound, `deliver_to` is no address, or a certificate cannot be used.
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
            SenderMetrics::new(&config.metrics),
            deliver_to,
            client(&config).map_err(Error::Sender)?,
            Arc::clone(&rng),
        ));
        let shape = Shape {
            suppliers: config.suppliers,
            products: config.products,
            rates: config.rates,
            bookings: config.bookings,
        };
        let core = Arc::new(Core {
            seed: config.seed,
            base_url: match config.tls {
                None => format!("http://{address}"),
                Some(_) => format!("https://{address}"),
            },
            api_key: config.api_key.clone(),
            api_secret: config.api_secret.clone(),
            remembered: config.remembered.max(1),
            faults: ArcSwap::from_pointee(config.faults.clone()),
            rng,
            catalogue: Mutex::new(Catalogue::new(config.seed, &shape, now_ms())),
            rules: Mutex::default(),
            holds: Mutex::default(),
            requests: Mutex::default(),
            sender: Arc::clone(&sender),
        });
        let token = CancellationToken::new();
        let handle = axum_server::Handle::new();
        let service = http::router(Arc::clone(&core)).into_make_service();
        let server: Serving = match &config.tls {
            None => {
                let server = axum_server::from_tcp(listener).map_err(listen)?;
                let mut server = server.handle(handle.clone());
                limit(server.http_builder());
                Box::pin(server.serve(service))
            }
            Some(files) => {
                let tls = RustlsConfig::from_pem_file(&files.cert, &files.key).await;
                let tls = tls.map_err(|source| Error::Tls {
                    files: files.clone(),
                    source,
                })?;
                let server = axum_server::from_tcp_rustls(listener, tls).map_err(listen)?;
                let mut server = server.handle(handle.clone());
                limit(server.http_builder());
                Box::pin(server.serve(service))
            }
        };
        let serving = tokio::spawn(async move {
            if let Err(error) = server.await {
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

    /// `http://address` (or `https://`), without a slash at the end.
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

    /// Runs until `token` is cancelled, then stops: for a process's supervisor.
    ///
    /// # Errors
    /// Serving or sending ended by itself.
    pub async fn run(mut self, token: CancellationToken) -> Result<(), String> {
        let ended = {
            let tasks = futures_util::future::select_all(self.tasks.iter_mut());
            tokio::select! {
                () = token.cancelled() => None,
                (result, index, _) = tasks => Some((result, index)),
            }
        };
        let Some((result, index)) = ended else {
            self.stop().await;
            return Ok(());
        };
        // A task that has ended cannot be waited for again.
        drop(self.tasks.remove(index));
        self.stop().await;
        Err(match result {
            Ok(()) => "the simulated provider ended by itself".to_owned(),
            Err(error) => format!("the simulated provider failed: {error}"),
        })
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

/// A server at work, with or without TLS.
type Serving = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// No connection stays silent for ever.
fn limit<E>(builder: &mut hyper_util::server::conn::auto::Builder<E>) {
    builder
        .http1()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10));
}

/// Checks a base address and takes the slash off its end.
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
