//! The data plane of one subscription, assembled: receiver, state engine, pipeline, sinks, feed.
//!
//! Owns: which parts a process has, how they are wired, and in which order they end: the public
//! port first (it drains while the store still works), the store last. Never here: registration
//! (that is [`super::standalone`]'s or the operator's), a decision about a notification.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::watch::ManifestStatus;
use super::{deadletters, removals, resync, status};
use crate::admin;
use crate::api::owner::Route;
use crate::clock::Clock;
use crate::files::token::TokenFile;
use crate::metrics::Metrics;
use crate::pipeline::deliver::{Deliverer, DeliveryMetrics};
use crate::pipeline::{Pipeline, PipelineSettings, workers};
use crate::provider::base::BaseUrl;
use crate::provider::client::{ClientSettings, HttpClient};
use crate::provider::credentials::CredentialSource;
use crate::provider::registry::{RegistryClient, RegistryOptions};
use crate::provider::reseller::ResellerClient;
use crate::publish::SinkStatus;
use crate::publish::event::Origin;
use crate::publish::feed::{Feed, FeedLimits};
use crate::publish::http::HttpSink;
use crate::receiver::ingest::{Limits, Receiver, ReceiverOptions};
use crate::receiver::keys::{KEY_GRACE, KeyChange, KeyRing, Learning};
use crate::receiver::server::{ServerOptions, TlsFiles, serve};
use crate::registration::Handle;
use crate::settings::Settings;
use crate::shutdown::Supervisor;
use crate::state::State;
use crate::state::embedded::{Engine, Options};

/// Key changes that may wait to be handled: one per type is enough, a few more do no harm.
const KEY_CHANGES: usize = 16;

/// The ports of a process, bound before anything is started, so that a taken port is the first
/// thing a person hears of.
pub struct Ports {
    /// For the provider.
    pub public: TcpListener,
    /// For monitoring.
    pub admin: TcpListener,
    /// For consumers.
    pub feed: TcpListener,
}

/// Why a data plane cannot be started, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Its store cannot be opened.
    #[error("{0}")]
    Store(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<String> for StartError {
    fn from(problem: String) -> Self {
        Self::Other(problem)
    }
}

impl From<StartError> for String {
    fn from(error: StartError) -> Self {
        error.to_string()
    }
}

/// What a data plane is made of.
pub struct Parts {
    /// What the resource says, resolved.
    pub settings: Settings,
    /// The path of the subscription's `url`.
    pub base_path: String,
    /// Folder of the store.
    pub store: PathBuf,
    /// Folder of the signing keys.
    pub keys: PathBuf,
    /// The API credentials.
    pub credentials: Arc<CredentialSource>,
    /// Whether provider URLs may be plain http on other hosts than this one.
    pub allow_plain_http: bool,
    /// Certificate of the public port.
    pub tls: Option<TlsFiles>,
    /// The token of the admin port; `None`: none is asked for.
    pub admin_token: Option<PathBuf>,
    /// Whether rules are registered by this process, and not by an operator.
    pub registers: bool,
    /// How long requests in flight may take at the end.
    pub drain: Duration,
    /// Listening already.
    pub ports: Ports,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// A running data plane: handles for registration, status and the end.
pub struct DataPlane {
    /// What it was told.
    pub settings: Arc<Settings>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// All metrics of the process.
    pub metrics: Metrics,
    /// The rules at the provider.
    pub registry: Arc<RegistryClient>,
    /// The store.
    pub state: Arc<Engine>,
    /// The signing keys.
    pub ring: Arc<KeyRing>,
    /// From marks to events.
    pub pipeline: Arc<Pipeline>,
    /// The endpoint.
    pub receiver: Receiver,
    /// Where each http sink stands.
    pub sinks: Vec<watch::Receiver<SinkStatus>>,
    /// Whether rules are registered by this process, and not by an operator.
    pub registers: bool,
    /// Registration, once somebody runs it beside this data plane.
    pub registration: Arc<OnceLock<Handle>>,
    /// How the manifest files compare with what runs, once somebody watches them.
    pub manifests: Arc<OnceLock<watch::Receiver<ManifestStatus>>>,
}

impl DataPlane {
    /// Opens the store and starts every part as a vital task of `supervisor`. Also gives the keys
    /// that turn out to have changed: somebody has to store them and ask for a resync.
    ///
    /// # Errors
    /// What cannot be started, and what to do about it.
    pub async fn start(
        parts: Parts,
        supervisor: &mut Supervisor,
    ) -> Result<(Self, mpsc::Receiver<KeyChange>), StartError> {
        let clock = parts.clock;
        let metrics = Metrics::new();
        let settings = Arc::new(parts.settings);
        let provider = Provider::new(
            &settings,
            &parts.credentials,
            parts.allow_plain_http,
            &clock,
            &metrics,
        )?;
        let state = open(&parts.store, &settings, &clock, &metrics)?;
        let sinks = settings.sinks.iter().map(|sink| sink.name.clone());
        let kept = state.keep_sinks(sinks.collect()).await;
        kept.map_err(|error| StartError::Store(error.to_string()))?;
        let (changed, key_changes) = mpsc::channel(KEY_CHANGES);
        let ring = Arc::new(KeyRing::new(
            clock.clone(),
            KEY_GRACE,
            Some(parts.keys),
            Some(learning(&settings, provider.registry.clone())),
            changed,
            &metrics,
        ));
        // What cannot be read is told by the ring itself; without a key the answer is 503.
        let _ = ring.load().await;
        let receiver = Receiver::new(
            ReceiverOptions {
                types: settings.notifications.iter().map(|one| one.kind).collect(),
                owner: settings.subscription.owner.clone(),
                base_path: parts.base_path,
                signature: settings.signature.clone(),
                limits: Limits::default(),
            },
            state.clone(),
            ring.clone(),
            clock.clone(),
            &metrics,
        );
        let pipeline = Arc::new(Pipeline::new(
            PipelineSettings::from_settings(&settings),
            state.clone(),
            provider.reads,
            clock.clone(),
            fastrand::u64(..),
            &metrics,
        ));
        let mut plane = Self {
            settings,
            clock,
            metrics,
            registry: provider.registry,
            state,
            ring,
            pipeline,
            receiver,
            sinks: Vec::new(),
            registers: parts.registers,
            registration: Arc::default(),
            manifests: Arc::default(),
        };
        plane.watch_store(supervisor);
        plane.start_pipeline(supervisor);
        plane.start_sinks(supervisor)?;
        let doors = Doors {
            ports: parts.ports,
            tls: parts.tls,
            admin_token: parts.admin_token,
            drain: parts.drain,
        };
        plane.start_ports(doors, supervisor)?;
        Ok((plane, key_changes))
    }

    /// A store that failed for good takes the process down: it must be opened again.
    fn watch_store(&self, supervisor: &mut Supervisor) {
        let (state, token) = (self.state.clone(), supervisor.token());
        supervisor.spawn("state engine", async move {
            tokio::select! {
                problem = state.failure() => Err(problem),
                () = token.cancelled() => Ok(()),
            }
        });
    }

    /// Ends the store after all tasks have ended.
    pub async fn close(self: Arc<Self>) {
        let state = self.state.clone();
        drop(self);
        // Somebody who still holds it (a request that outlived the drain) keeps it open; whatever
        // was answered is synced all the same.
        if let Some(engine) = Arc::into_inner(state)
            && let Err(error) = engine.close().await
        {
            tracing::error!(%error, "the store could not be closed; what was answered is in its write-ahead log");
        }
    }

    fn start_pipeline(&self, supervisor: &mut Supervisor) {
        for _ in 0..workers(self.settings.fetch.requests_per_second) {
            let (pipeline, token) = (self.pipeline.clone(), supervisor.token());
            supervisor.spawn("pipeline worker", async move {
                tokio::select! {
                    ended = pipeline.work() => ended.map_err(|error| error.to_string()),
                    () = token.cancelled() => Ok(()),
                }
            });
        }
        let (pipeline, token) = (self.pipeline.clone(), supervisor.token());
        supervisor.spawn("resync", async move {
            tokio::select! {
                ended = pipeline.resync() => ended.map_err(|error| error.to_string()),
                () = token.cancelled() => Ok(()),
            }
        });
        supervisor.spawn("signing keys", self.ring.clone().run(supervisor.token()));
    }

    fn start_sinks(&mut self, supervisor: &mut Supervisor) -> Result<(), String> {
        let origin = self.origin();
        let metrics = DeliveryMetrics::new(&self.metrics);
        for sink in &self.settings.sinks {
            let http = HttpSink::new(sink, origin.clone(), self.clock.clone())
                .map_err(|error| error.to_string())?;
            let deliverer = Deliverer::new(
                sink,
                self.state.clone(),
                self.clock.clone(),
                Arc::new(http),
                &metrics,
            );
            self.sinks.push(deliverer.status());
            supervisor.spawn("delivery", deliverer.run(supervisor.token()));
        }
        Ok(())
    }

    fn start_ports(&self, doors: Doors, supervisor: &mut Supervisor) -> Result<(), String> {
        let token = supervisor.token();
        let (ports, drain) = (doors.ports, doors.drain);
        let public = ServerOptions {
            tls: doors.tls,
            drain,
            ..ServerOptions::default()
        };
        let inner = ServerOptions {
            drain,
            refuse_while_draining: false,
            max_connections: 1024,
            ..ServerOptions::default()
        };
        let feed = Feed::new(
            &self.settings.feed,
            self.origin(),
            self.state.clone(),
            self.clock.clone(),
            FeedLimits::default(),
            &self.metrics,
            token.clone(),
        )
        .map_err(|error| error.to_string())?;
        let mut admin = admin::router(self.metrics.clone(), self.waiting(), status::of(self))
            .merge(deadletters::router(self.state.clone()))
            .merge(removals::router(self.pipeline.clone()))
            .merge(resync::router(self.pipeline.clone()));
        if let Some(file) = doors.admin_token {
            let file = TokenFile::open(file, self.clock.clone());
            admin = admin::with_token(admin, file.map_err(|error| error.to_string())?);
        }
        supervisor.spawn(
            "public port",
            serve(ports.public, self.receiver.router(), public, token.clone()),
        );
        supervisor.spawn(
            "feed port",
            serve(ports.feed, feed.router(), inner.clone(), token.clone()),
        );
        supervisor.spawn("admin port", serve(ports.admin, admin, inner, token));
        Ok(())
    }

    /// What `/readyz` waits for: the first signing key. Without any, every answer is 503; with
    /// one, notifications are taken, and one type without a key (its rule may not be ours, or the
    /// provider may not know the type) is for the conditions to tell, not a reason to take the
    /// others out of service.
    fn waiting(&self) -> admin::Waiting {
        let (ring, settings) = (self.ring.clone(), self.settings.clone());
        Arc::new(move || {
            let kinds = settings.notifications.iter().map(|one| one.kind);
            if kinds
                .clone()
                .any(|kind| !ring.fingerprints(kind).is_empty())
            {
                return Vec::new();
            }
            kinds
                .map(|kind| format!("the signing key of {kind}"))
                .collect()
        })
    }

    fn origin(&self) -> Origin {
        Origin::new(
            &self.settings.subscription,
            &self.settings.provider.api_url,
            self.state.epoch(),
        )
    }
}

/// What the ports are opened with.
struct Doors {
    ports: Ports,
    tls: Option<TlsFiles>,
    admin_token: Option<PathBuf>,
    drain: Duration,
}

/// The clients of the provider.
pub struct Provider {
    /// Rules.
    pub registry: Arc<RegistryClient>,
    /// Data.
    pub reads: Arc<ResellerClient>,
}

impl Provider {
    /// Clients for the addresses in `settings`.
    ///
    /// # Errors
    /// An address that cannot be used, and why.
    pub fn new(
        settings: &Settings,
        credentials: &Arc<CredentialSource>,
        allow_plain_http: bool,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let base = |flag: &str, url: &str| {
            BaseUrl::parse(url, allow_plain_http).map_err(|error| format!("{flag}: {error}"))
        };
        let registry = base("--registry-url", &settings.provider.registry_url)?;
        let api = base("--api-url", &settings.provider.api_url)?;
        let client = ClientSettings {
            authorities: settings.provider.authorities.clone(),
            ..ClientSettings::default()
        };
        let http = HttpClient::new(client, &[&registry, &api], clock.clone(), metrics)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            registry: Arc::new(RegistryClient::new(
                http.clone(),
                registry,
                credentials.clone(),
                RegistryOptions::default(),
                clock.clone(),
            )),
            reads: Arc::new(ResellerClient::new(http, api, credentials.clone())),
        })
    }
}

fn open(
    folder: &Path,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Arc<Engine>, StartError> {
    Engine::open(
        folder,
        Options::from_settings(settings),
        clock.clone(),
        metrics,
    )
    .map(Arc::new)
    .map_err(|error| StartError::Store(error.to_string()))
}

/// A changed key is believed only from a rule of ours.
fn learning(settings: &Settings, registry: Arc<RegistryClient>) -> Learning {
    let owner = settings.subscription.owner.clone();
    Learning {
        registry,
        ours: Box::new(move |url| {
            Route::of(url)
                .and_then(|route| route.owner)
                .is_some_and(|found| found.as_str() == owner)
        }),
    }
}
