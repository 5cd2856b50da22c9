//! `bellhop receiver`: the data plane of one subscription, as the pods run it.
//!
//! Owns: its flags, and the lives of the data plane within one process: when the settings file
//! changes, the data plane drains, ends and starts anew on the same sockets, so that no connection
//! is refused and no pod has to be replaced. Keys, credentials, tokens, headers and certificates
//! are read again by the parts that use them, without an end. While the store cannot be opened, the
//! process stands by ([`super::standby`]) and tries again.
//!
//! Never here: a write to the registry; anything of Kubernetes: what a pod is told are files.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::dataplane::{DataPlane, Parts, Ports, StartError};
use super::resyncs::Asked;
use super::standby;
use crate::clock::{Clock, SystemClock};
use crate::files::Stamp;
use crate::files::token::TokenFile;
use crate::pipeline::Pipeline;
use crate::provider::credentials::CredentialSource;
use crate::receiver::keys::{KeyChange, KeySource};
use crate::receiver::server::TlsFiles;
use crate::settings::ReceiverConfig;
use crate::shutdown::{Supervisor, asked_to_end};

/// How often the settings file is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the end may take beyond the drain.
const CLOSING: Duration = Duration::from_secs(5);

/// Receive, fetch and publish for one subscription: what the pods run
///
/// The data plane without registration: rules are written by `bellhop operator`, which also writes
/// the settings file. Signing keys, credentials, tokens and certificates are files that may change
/// at any time, as those of a mounted Secret do. Ends with SIGTERM or Ctrl-C.
#[derive(Debug, Args)]
pub struct ReceiverArgs {
    /// The settings file, as the operator writes it; taken over when it changes
    #[arg(long, env = "BELLHOP_CONFIG", value_name = "FILE")]
    config: PathBuf,

    /// Where the provider's notifications arrive; without it, port 8080 on all addresses
    #[arg(
        long,
        env = "BELLHOP_PUBLIC_LISTEN",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    public_listen: Option<SocketAddr>,

    /// Where /livez, /readyz, /metrics, /status, /dead-letters, /removals and /resync are; without
    /// it, port 8081 on all addresses
    #[arg(
        long,
        env = "BELLHOP_ADMIN_LISTEN",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    admin_listen: Option<SocketAddr>,

    /// Where consumers read the feed; without it, port 8082 on all addresses
    #[arg(
        long,
        env = "BELLHOP_FEED_LISTEN",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    feed_listen: Option<SocketAddr>,
}

/// Runs until it is asked to end.
pub async fn run(args: ReceiverArgs) -> Result<(), Failure> {
    let mut file = SettingsFile::open(args.config.clone()).map_err(Failure::Usage)?;
    let sockets = Sockets {
        public: Socket::bind("--public-listen", args.public_listen, 8080)?,
        admin: Socket::bind("--admin-listen", args.admin_listen, 8081)?,
        feed: Socket::bind("--feed-listen", args.feed_listen, 8082)?,
    };
    let stop = asked_to_end();
    tokio::pin!(stop);
    loop {
        let config = file.config.clone();
        let mut supervisor = Supervisor::new();
        let token = supervisor.token();
        let started = {
            let starting = start(&config, &sockets, &mut supervisor);
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                started = starting => started,
            }
        };
        let plane = match started {
            Ok(plane) => plane,
            Err(StartError::Other(problem)) => return Err(Failure::Failed(problem)),
            Err(StartError::Store(problem)) => {
                tracing::error!(%problem, "the store cannot be opened; notifications are answered with 503 until it can");
                let ports = sockets.ports().map_err(Failure::Failed)?;
                let standing = standby::stand_by(&config, ports);
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    ended = standing => ended.map_err(Failure::Failed)?,
                }
                // It may be the settings that are mended meanwhile.
                file = SettingsFile::open(file.path.clone()).unwrap_or(file);
                continue;
            }
        };
        let next = Arc::new(Mutex::new(None));
        supervisor.spawn("settings", watch(file, next.clone(), token.clone()));
        tracing::info!(
            public = %sockets.public.address, admin = %sockets.admin.address,
            feed = %sockets.feed.address, "running"
        );
        let running = supervisor.run_until_cancelled(config.process.drain + CLOSING);
        tokio::pin!(running);
        let (ended, asked) = tokio::select! {
            ended = &mut running => (ended, false),
            () = &mut stop => {
                tracing::info!("shutting down");
                token.cancel();
                let ended = tokio::select! {
                    ended = &mut running => ended,
                    () = asked_to_end() => Ok(()),
                };
                (ended, true)
            }
        };
        plane.close().await;
        ended.map_err(Failure::Failed)?;
        let changed = next.lock().unwrap_or_else(PoisonError::into_inner).take();
        match changed {
            Some(changed) if !asked => {
                tracing::info!("other settings are taken over");
                file = changed;
            }
            _ => return Ok(()),
        }
    }
}

/// One life of the data plane, as vital tasks of `supervisor`.
async fn start(
    config: &ReceiverConfig,
    sockets: &Sockets,
    supervisor: &mut Supervisor,
) -> Result<Arc<DataPlane>, StartError> {
    let process = &config.process;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let parts = Parts {
        settings: config.settings.clone(),
        base_path: process.base_path.clone(),
        store: process.data_dir.join("store"),
        keys: process.keys_dir.clone(),
        credentials: CredentialSource::folder(&process.credentials_dir, clock.clone()),
        allow_plain_http: process.allow_plain_http,
        tls: process.tls_dir.as_deref().map(tls_files),
        admin_token: process.admin_token_file.clone(),
        registers: false,
        drain: process.drain,
        ports: sockets.ports()?,
        clock: clock.clone(),
    };
    let (plane, changes) = DataPlane::start(parts, supervisor).await?;
    let asked = Asked::new(
        process.resyncs_file.clone(),
        plane.state.clone(),
        plane.pipeline.clone(),
        clock,
    );
    supervisor.spawn("resyncs", asked.run(supervisor.token()));
    let learned = key_changes(changes, plane.pipeline.clone(), supervisor.token());
    supervisor.spawn("key changes", learned);
    Ok(Arc::new(plane))
}

/// As a Secret of type `kubernetes.io/tls` is mounted.
pub(super) fn tls_files(folder: &Path) -> TlsFiles {
    TlsFiles {
        cert: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    }
}

/// A key that the receiver learned by itself: what came until then was refused, so its type is
/// compared in full. Of a key that came with the folder the operator says itself whether a resync is
/// owed.
async fn key_changes(
    mut changes: mpsc::Receiver<KeyChange>,
    pipeline: Arc<Pipeline>,
    token: CancellationToken,
) -> Result<(), String> {
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = token.cancelled() => return Ok(()),
        };
        let Some(change) = change else {
            token.cancelled().await;
            return Ok(());
        };
        if change.source != KeySource::Registry {
            continue;
        }
        let why = "the rule has another key at the registry";
        if let Err(error) = pipeline.request_resync(&[change.kind], why).await {
            tracing::warn!(kind = %change.kind, %error, "the resync that a changed key calls for cannot be noted; the next full one finds what was missed");
        }
    }
}

/// The settings as they were read last.
struct SettingsFile {
    path: PathBuf,
    stamp: Stamp,
    config: ReceiverConfig,
}

impl SettingsFile {
    fn open(path: PathBuf) -> Result<Self, String> {
        let stamp = Stamp::of_file(&path);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            format!(
                "cannot read the settings file {}: {error}; `bellhop operator` writes it into a ConfigMap; without a cluster, use `bellhop run`",
                path.display()
            )
        })?;
        let config = ReceiverConfig::parse(&text).map_err(|error| {
            format!(
                "the settings file {} is not as this version writes it: {error}; run operator and receivers of the same version",
                path.display()
            )
        })?;
        Ok(Self {
            path,
            stamp,
            config,
        })
    }

    /// Other settings than these, whose files are there; `None`: they say the same.
    async fn other(&mut self) -> Result<Option<Self>, String> {
        let new = Self::open(self.path.clone())?;
        if new.config == self.config {
            self.stamp = new.stamp;
            return Ok(None);
        }
        files_are_there(&new.config).await?;
        Ok(Some(new))
    }
}

/// Ends this life when there are other settings; they are left in `next`. Settings that cannot be
/// used are told, and those in use stay: their files may come a moment later, or only with a pod that
/// mounts them.
async fn watch(
    mut file: SettingsFile,
    next: Arc<Mutex<Option<SettingsFile>>>,
    token: CancellationToken,
) -> Result<(), String> {
    let mut told = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = token.cancelled() => return Ok(()),
        }
        let stamp = Stamp::of_file(&file.path);
        if stamp == file.stamp && told.is_none() {
            continue;
        }
        file.stamp = stamp;
        match file.other().await {
            Ok(None) => told = None,
            Ok(Some(new)) => {
                *next.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
                token.cancel();
                return Ok(());
            }
            Err(problem) => {
                if told.as_ref() != Some(&problem) {
                    tracing::warn!(%problem, "the settings in use stay");
                }
                told = Some(problem);
            }
        }
    }
}

/// Whether the data plane could start with the files that these settings name.
async fn files_are_there(config: &ReceiverConfig) -> Result<(), String> {
    if let Some(folder) = &config.process.tls_dir {
        tls_files(folder).check().await?;
    }
    let feed = config.settings.feed.token_file.as_ref();
    let tokens = [feed, config.process.admin_token_file.as_ref()];
    for file in tokens.into_iter().flatten() {
        let clock = Arc::new(SystemClock::new());
        TokenFile::open(file.clone(), clock).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Sockets that outlive the lives of the data plane: what connects between two waits.
struct Sockets {
    public: Socket,
    admin: Socket,
    feed: Socket,
}

impl Sockets {
    fn ports(&self) -> Result<Ports, String> {
        Ok(Ports {
            public: self.public.listener()?,
            admin: self.admin.listener()?,
            feed: self.feed.listener()?,
        })
    }
}

struct Socket {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Socket {
    /// Without an address: the port on all addresses, of IPv6 too where there is any.
    fn bind(flag: &str, address: Option<SocketAddr>, port: u16) -> Result<Self, Failure> {
        let listener = match address {
            Some(address) => std::net::TcpListener::bind(address),
            None => std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
                .or_else(|_| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))),
        };
        let problem = |error: std::io::Error| {
            let at = address.map_or_else(|| format!("port {port}"), |address| address.to_string());
            Failure::Failed(format!(
                "cannot listen on {at}: {error}; give {flag} another address"
            ))
        };
        let listener = listener.map_err(problem)?;
        listener.set_nonblocking(true).map_err(problem)?;
        let address = listener.local_addr().map_err(problem)?;
        Ok(Self { listener, address })
    }

    fn listener(&self) -> Result<tokio::net::TcpListener, String> {
        self.listener
            .try_clone()
            .and_then(tokio::net::TcpListener::from_std)
            .map_err(|error| format!("cannot listen on {}: {error}", self.address))
    }
}
