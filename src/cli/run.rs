//! `bellhop run`: one subscription without a cluster.
//!
//! Owns: its flags, and what a person is told at start and end. Never here: the assembly itself
//! ([`super::standalone`]).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tokio::net::TcpListener;

use super::Failure;
use super::dataplane::Ports;
use super::manifests::{Manifests, Overrides};
use super::standalone::Standalone;
use crate::files::token::check_token_file;
use crate::receiver::server::TlsFiles;
use crate::settings::FeedSettings;
use crate::shutdown::Supervisor;

/// Run one subscription without a cluster: register, receive, fetch, publish
///
/// Reads WebhookSubscription and Secret manifests, registers one rule per notification type with
/// the provider, receives, fetches and publishes, until SIGTERM or Ctrl-C. The rules stay at the
/// provider when it ends; --deregister removes them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bellhop run -f examples/minimal.yaml --data-dir ./data\n\n\
    Then `curl -s localhost:8081/status` says how it is, and\n  \
    curl -N localhost:8082/v1/events -H 'Accept: text/event-stream'\nis a consumer."
)]
pub struct RunArgs {
    /// A YAML file with the WebhookSubscription, its Secret, or both; can be given several times
    #[arg(
        short = 'f',
        long = "file",
        env = "BELLHOP_FILE",
        required = true,
        value_delimiter = ',',
        value_name = "FILE"
    )]
    files: Vec<PathBuf>,

    /// Folder for everything that must survive a restart: store and signing keys. Made if missing
    #[arg(
        long,
        env = "BELLHOP_DATA_DIR",
        default_value = "bellhop-data",
        value_name = "FOLDER"
    )]
    data_dir: PathBuf,

    /// The Notification Registry, instead of the environment's own
    #[arg(long, env = "BELLHOP_REGISTRY_URL", value_name = "URL")]
    registry_url: Option<String>,

    /// The Reseller API, instead of the environment's own; ends in /v1.3 or /v1.2
    #[arg(long, env = "BELLHOP_API_URL", value_name = "URL")]
    api_url: Option<String>,

    /// Allow plain http to provider URLs on other hosts than this one (keys travel in the clear)
    #[arg(long, env = "BELLHOP_ALLOW_PLAIN_HTTP", value_parser = BoolishValueParser::new())]
    allow_plain_http: bool,

    /// Certificate chain (PEM) of the public port; without it, put a TLS proxy in front
    #[arg(
        long,
        env = "BELLHOP_TLS_CERT",
        requires = "tls_key",
        value_name = "FILE"
    )]
    tls_cert: Option<PathBuf>,

    /// Private key (PEM) of --tls-cert; both are read again when they change
    #[arg(
        long,
        env = "BELLHOP_TLS_KEY",
        requires = "tls_cert",
        value_name = "FILE"
    )]
    tls_key: Option<PathBuf>,

    /// Where the provider's notifications arrive; port 0 takes a free one, and the log says which
    #[arg(
        long,
        env = "BELLHOP_PUBLIC_LISTEN",
        default_value = "0.0.0.0:8080",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    public_listen: SocketAddr,

    /// Where /livez, /readyz, /metrics, /status, /dead-letters, /removals and /resync are
    #[arg(
        long,
        env = "BELLHOP_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    admin_listen: SocketAddr,

    /// Where consumers read the feed; beyond loopback it needs --feed-token-file
    #[arg(
        long,
        env = "BELLHOP_FEED_LISTEN",
        default_value = "127.0.0.1:8082",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    feed_listen: SocketAddr,

    /// A file with the bearer token that the feed asks for; read again when it changes
    #[arg(long, env = "BELLHOP_FEED_TOKEN_FILE", value_name = "FILE")]
    feed_token_file: Option<PathBuf>,

    /// How many seconds requests in flight may take at the end
    #[arg(
        long,
        env = "BELLHOP_DRAIN_SECONDS",
        default_value_t = 20,
        value_name = "SECONDS"
    )]
    drain_seconds: u64,

    /// Remove (or disable, with deletionPolicy: Retain) this subscription's rules, and end
    #[arg(long, env = "BELLHOP_DEREGISTER", value_parser = BoolishValueParser::new())]
    deregister: bool,

    /// The credentials may be of another account than the one that rules were registered in: make
    /// them anew there. For one start; the old rules need the old credentials to be removed
    #[arg(long, env = "BELLHOP_MOVE_ACCOUNT", value_parser = BoolishValueParser::new())]
    move_account: bool,
}

/// Runs until it is asked to end.
pub async fn run(args: RunArgs) -> Result<(), Failure> {
    let overrides = Overrides {
        registry_url: args.registry_url.clone(),
        api_url: args.api_url.clone(),
        feed_token_file: args.feed_token_file.clone(),
        data_dir: args.data_dir.clone(),
    };
    let manifests = Manifests::read(&args.files, overrides)?;
    refuse_open_feed(args.feed_listen, &manifests.settings.feed)?;
    super::check_addresses(&manifests.settings, args.allow_plain_http)?;
    if let Some(file) = &args.feed_token_file {
        check_token_file(file).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let tls = tls.map(|(cert, key)| TlsFiles { cert, key });
    if let Some(files) = &tls {
        let problem = |error| Failure::Usage(format!("--tls-cert and --tls-key: {error}"));
        files.check().await.map_err(problem)?;
    }
    let standalone = Standalone {
        manifests,
        data_dir: args.data_dir.clone(),
        tls,
        drain: Duration::from_secs(args.drain_seconds),
        allow_plain_http: args.allow_plain_http,
        move_account: args.move_account,
    };
    if args.deregister {
        return deregister(standalone).await;
    }
    let ports = Ports {
        public: listen("--public-listen", args.public_listen).await?,
        admin: listen("--admin-listen", args.admin_listen).await?,
        feed: listen("--feed-listen", args.feed_listen).await?,
    };
    let address = |listener: &TcpListener| {
        let address = listener.local_addr();
        address.map_or_else(|error| error.to_string(), |address| address.to_string())
    };
    let (public, admin, feed) = (
        address(&ports.public),
        address(&ports.admin),
        address(&ports.feed),
    );
    let mut supervisor = Supervisor::new();
    let plane = standalone
        .start(ports, &mut supervisor)
        .await
        .map_err(Failure::Failed)?;
    tracing::info!(
        public, admin, feed, data = %args.data_dir.display(), "running"
    );
    let ended = supervisor
        .run(Duration::from_secs(args.drain_seconds + 5))
        .await;
    plane.close().await;
    ended.map_err(Failure::Failed)
}

/// Only the settings know whether the feed will ask for a token: `feed.auth` may say None although
/// a file was given.
fn refuse_open_feed(listen: SocketAddr, feed: &FeedSettings) -> Result<(), Failure> {
    if listen.ip().is_loopback() || feed.token_file.is_some() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--feed-listen {listen} can be reached from outside, and the feed would ask for no token; \
         give --feed-token-file FILE (and leave spec.feed.auth at Token), or listen on 127.0.0.1"
    )))
}

async fn listen(flag: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::Failed(format!(
            "cannot listen on {address}: {error}; give {flag} another address"
        ))
    })
}

async fn deregister(standalone: Standalone) -> Result<(), Failure> {
    let report = standalone.deregister().await.map_err(Failure::Failed)?;
    for (kind, rule) in &report.rules {
        println!(
            "{:<15} {:<10} {}",
            kind.as_str(),
            rule.phase.as_str(),
            rule.message
        );
    }
    if report.is_complete() {
        println!("all rules of this subscription are gone or disabled, as the provider shows them");
        return Ok(());
    }
    let verdict = report.verdict();
    Err(Failure::Failed(format!(
        "not all rules are gone ({}): {}",
        verdict.reason.as_str(),
        verdict.message
    )))
}
