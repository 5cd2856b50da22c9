//! The data plane as the demo sees it: addresses, and a way to start, kill and ask it.
//!
//! Owns: the demo's manifest, the choice between "in this process" and "a process that can be
//! killed". Never here: a shortcut into the data plane's memory; it is asked over HTTP like any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::HORIZON_DAYS;
use crate::cli::dataplane::Ports;
use crate::cli::manifests::{Manifests, Overrides};
use crate::cli::standalone::Standalone;
use crate::shutdown::Supervisor;
use crate::simulator::Simulator;

/// How long the end may take.
const DRAIN: Duration = Duration::from_secs(5);

/// The demo's subscription, as a person would write it.
fn manifest() -> String {
    format!(
        "apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: {{ name: demo, namespace: default }}
spec:
  environment: sandbox
  url: https://hooks.example.com/redeam
  credentialsSecretRef: {{ name: demo-keys }}
  fetch:
    requestsPerSecond: 500
    minInterval: 200ms
    availabilityHorizonDays: {HORIZON_DAYS}
---
apiVersion: v1
kind: Secret
metadata: {{ name: demo-keys, namespace: default }}
stringData: {{ apiKey: demo-key, apiSecret: demo-secret }}
"
    )
}

/// Where the three ports are.
pub struct Addresses {
    /// For the provider.
    pub public: SocketAddr,
    /// For monitoring.
    pub admin: SocketAddr,
    /// For consumers.
    pub feed: SocketAddr,
}

impl Addresses {
    /// Three free ports on loopback.
    pub async fn free() -> Result<Self, String> {
        let ports = bind([SocketAddr::from(([127, 0, 0, 1], 0)); 3]).await?;
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .map_err(|error| format!("cannot find a free port: {error}"))
        };
        Ok(Self {
            public: address(&ports.public)?,
            admin: address(&ports.admin)?,
            feed: address(&ports.feed)?,
        })
    }
}

async fn bind([public, admin, feed]: [SocketAddr; 3]) -> Result<Ports, String> {
    let listen = async |address: SocketAddr| {
        TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    Ok(Ports {
        public: listen(public).await?,
        admin: listen(admin).await?,
        feed: listen(feed).await?,
    })
}

enum Kind {
    /// In this process.
    Inside {
        token: CancellationToken,
        task: JoinHandle<()>,
    },
    /// `bellhop run`, to be killed.
    Outside {
        child: Child,
        arguments: Vec<String>,
    },
}

/// The running data plane.
pub struct Plane {
    kind: Kind,
    admin: String,
    feed: String,
    http: reqwest::Client,
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Kind::Outside { child, .. } = &mut self.kind {
            let _ = end(child);
        }
    }
}

impl Plane {
    /// Starts it: in this process, or with `killable` in one of its own.
    pub async fn start(
        killable: bool,
        simulator: &Simulator,
        addresses: &Addresses,
        folder: &Path,
    ) -> Result<Self, String> {
        let kind = if killable {
            outside(simulator, addresses, folder)?
        } else {
            inside(simulator, addresses, folder).await?
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            kind,
            admin: format!("http://{}", addresses.admin),
            feed: format!("http://{}", addresses.feed),
            http,
        })
    }

    /// Where consumers find the feed.
    pub fn feed(&self) -> String {
        self.feed.clone()
    }

    /// `/status`; `None` while it does not answer.
    pub async fn status(&self) -> Option<Value> {
        let answer = self
            .http
            .get(format!("{}/status", self.admin))
            .send()
            .await
            .ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// The samples of `/metrics`, by name and labels; `None` while it does not answer.
    pub async fn metrics(&self) -> Option<BTreeMap<String, f64>> {
        let answer = self
            .http
            .get(format!("{}/metrics", self.admin))
            .send()
            .await
            .ok()?;
        let text = answer.text().await.ok()?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        Some(
            samples
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// Names entities to look at again, as a consumer may.
    pub async fn refresh(&self, keys: &BTreeSet<String>) -> Result<(), String> {
        for some in keys.iter().collect::<Vec<_>>().chunks(100) {
            let body = serde_json::json!({ "entities": some }).to_string();
            let answer = self
                .http
                .post(format!("{}/v1/refresh", self.feed))
                .header("content-type", "application/json")
                .body(body)
                .send()
                .await
                .map_err(|error| format!("cannot ask for a refresh: {error}"))?;
            if !answer.status().is_success() {
                return Err(format!("the feed refused to refresh: {}", answer.status()));
            }
        }
        Ok(())
    }

    /// Kills the process (SIGKILL) and starts it again on the same store.
    pub fn crash(&mut self) -> Result<(), String> {
        if let Kind::Outside { child, arguments } = &mut self.kind {
            end(child).map_err(|error| format!("cannot kill the receiver: {error}"))?;
            *child = spawn(arguments)?;
        }
        Ok(())
    }

    /// Ends it.
    pub async fn stop(mut self) {
        if let Kind::Inside { token, task } = &mut self.kind {
            token.cancel();
            let _ = tokio::time::timeout(2 * DRAIN, task).await;
        }
    }
}

/// SIGKILL: nothing is flushed, nothing is said.
fn end(child: &mut Child) -> std::io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

async fn inside(
    simulator: &Simulator,
    addresses: &Addresses,
    folder: &Path,
) -> Result<Kind, String> {
    let overrides = Overrides {
        registry_url: Some(simulator.registry_url()),
        api_url: Some(simulator.api_url()),
        feed_token_file: None,
        data_dir: folder.to_owned(),
    };
    let text = vec![(PathBuf::from("demo.yaml"), manifest().into_bytes())];
    let manifests = Manifests::parse(text, overrides)?;
    let standalone = Standalone {
        move_account: false,
        manifests,
        data_dir: folder.to_owned(),
        tls: None,
        drain: DRAIN,
        allow_plain_http: false,
    };
    let mut supervisor = Supervisor::new();
    let token = supervisor.token();
    let ports = bind([addresses.public, addresses.admin, addresses.feed]).await?;
    let plane = standalone.start(ports, &mut supervisor).await?;
    let task = tokio::spawn(async move {
        if let Err(error) = supervisor.run_until_cancelled(DRAIN).await {
            eprintln!("bellhop: {error}");
        }
        plane.close().await;
    });
    Ok(Kind::Inside { token, task })
}

fn outside(simulator: &Simulator, addresses: &Addresses, folder: &Path) -> Result<Kind, String> {
    let file = folder.join("demo.yaml");
    std::fs::write(&file, manifest())
        .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let text = |path: &Path| path.display().to_string();
    let arguments = [
        "--log",
        "error",
        "run",
        "-f",
        &text(&file),
        "--data-dir",
        &text(&folder.join("data")),
        "--registry-url",
        &simulator.registry_url(),
        "--api-url",
        &simulator.api_url(),
        "--public-listen",
        &addresses.public.to_string(),
        "--admin-listen",
        &addresses.admin.to_string(),
        "--feed-listen",
        &addresses.feed.to_string(),
    ]
    .map(str::to_owned)
    .to_vec();
    Ok(Kind::Outside {
        child: spawn(&arguments)?,
        arguments,
    })
}

fn spawn(arguments: &[String]) -> Result<Child, String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot find the program to start again: {error}"))?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the receiver's process: {error}"))
}
