//! `bellhop operator`: the controller.
//!
//! Owns: its flags, and the assembly: client, leader election, admin port, controller. Never here:
//! a pass.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Failure;
use super::cluster::connect;
use crate::admin;
use crate::api::v1alpha1::Environment;
use crate::clock::{Clock, SystemClock};
use crate::controller::access::{Access, ByAddress, ByProxy};
use crate::controller::budget::{Budget, Rates};
use crate::controller::build::PodOptions;
use crate::controller::client::guarded;
use crate::controller::lease::{Election, Leadership};
use crate::controller::metrics::ControllerMetrics;
use crate::controller::providers::{Addresses, HttpProviders};
use crate::controller::tend::ProviderUrls;
use crate::controller::waiting::Waiting;
use crate::controller::{self, Parts, ReceiverParts, Settings};
use crate::metrics::Metrics;
use crate::provider::base::{BaseUrl, InvalidBaseUrl};
use crate::provider::client;
use crate::receiver::server::{self, ServerOptions};
use crate::registration::SystemResolver;
use crate::registration::probe::{Limits, Prober, Trust};
use crate::shutdown::Supervisor;

/// How long everything may take to end, the lease's return included.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(8);

/// Run the operator: WebhookSubscriptions in a cluster become rules at the provider
///
/// Turns WebhookSubscription objects into rules at the provider and an honest status, until SIGTERM
/// or Ctrl-C. The cluster comes from KUBECONFIG, `~/.kube/config` or the pod.
#[derive(Debug, Args)]
#[command(
    after_help = "Example, out of the cluster:\n  kubectl apply -f crds/ -f examples/\n  \
    bellhop operator --leader-elect=false\n\nOn a new cluster kubectl wants the first line twice: \
    it looks up all kinds before it makes the first object. Then `kubectl get whs -A -w` shows the \
    operator at work."
)]
#[allow(clippy::struct_excessive_bools, reason = "flags")]
pub struct OperatorArgs {
    /// The namespaces to work in; without it, the whole cluster
    #[arg(
        long,
        env = "BELLHOP_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    namespaces: Vec<String>,

    /// What tells this cluster's rules from another's; without it, the UID of kube-system.
    /// Changing it makes all rules foreign
    #[arg(long, env = "BELLHOP_CLUSTER_ID", value_name = "ID")]
    cluster_id: Option<String>,

    /// Whether several operators may run, of which one works at a time
    #[arg(
        long,
        env = "BELLHOP_LEADER_ELECT",
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    leader_elect: bool,

    /// The namespace of the Lease; without it, the pod's own, or the context's
    #[arg(long, env = "BELLHOP_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// The name of the Lease
    #[arg(
        long,
        env = "BELLHOP_LEASE_NAME",
        default_value = "bellhop-operator",
        value_name = "NAME"
    )]
    lease_name: String,

    /// How this process is called in the Lease and in Events; without it, the pod's name
    #[arg(long, env = "BELLHOP_IDENTITY", value_name = "NAME")]
    identity: Option<String>,

    /// The context in the kubeconfig; without it, the current one
    #[arg(long, env = "BELLHOP_CONTEXT", value_name = "NAME")]
    context: Option<String>,

    /// The sandbox's Notification Registry, instead of its own
    #[arg(long, env = "BELLHOP_SANDBOX_REGISTRY_URL", value_name = "URL")]
    sandbox_registry_url: Option<String>,

    /// The production's Notification Registry, instead of its own
    #[arg(long, env = "BELLHOP_PRODUCTION_REGISTRY_URL", value_name = "URL")]
    production_registry_url: Option<String>,

    /// The sandbox's reseller API, instead of its own, for the receivers that read it
    #[arg(long, env = "BELLHOP_SANDBOX_API_URL", value_name = "URL")]
    sandbox_api_url: Option<String>,

    /// The production's reseller API, likewise
    #[arg(long, env = "BELLHOP_PRODUCTION_API_URL", value_name = "URL")]
    production_api_url: Option<String>,

    /// Allow plain http to provider URLs on other hosts than this one (keys travel in the clear)
    #[arg(long, env = "BELLHOP_ALLOW_PLAIN_HTTP")]
    allow_plain_http: bool,

    /// Certificate authorities (PEM) to trust for provider URLs beside the system's, also by
    /// receivers: where the provider is reached through a TLS proxy of one's own
    #[arg(long, env = "BELLHOP_PROVIDER_CA_FILE", value_name = "FILE")]
    provider_ca_file: Option<PathBuf>,

    /// Let the probe of a public URL connect to private, loopback and link-local addresses too:
    /// for tests inside a network
    #[arg(long, env = "BELLHOP_PROBE_PRIVATE")]
    probe_private: bool,

    /// The image that receivers run; without it, that of the operator's own pod, if POD_NAME and
    /// POD_NAMESPACE say which that is; with neither, no receivers are run
    #[arg(long, env = "BELLHOP_RECEIVER_IMAGE", value_name = "IMAGE")]
    receiver_image: Option<String>,

    /// How receivers are asked how they are: by their pods' addresses, or, from outside of the
    /// cluster, through the API server
    #[arg(
        long,
        env = "BELLHOP_RECEIVER_ACCESS",
        value_enum,
        default_value = "pod",
        value_name = "WAY"
    )]
    receiver_access: ReceiverAccess,

    /// Of how many subscriptions receivers are replaced at a time, as after a new image
    #[arg(
        long,
        env = "BELLHOP_MAX_CONCURRENT_ROLLOUTS",
        default_value_t = 5,
        value_name = "N"
    )]
    max_concurrent_rollouts: usize,

    /// The namespaces from which the metrics of receivers are read, for their NetworkPolicies
    #[arg(
        long,
        env = "BELLHOP_MONITORING_NAMESPACES",
        value_delimiter = ',',
        default_value = "monitoring",
        value_name = "NAMES"
    )]
    monitoring_namespaces: Vec<String>,

    /// Requests a second to the registry with one API key; after a pause, those of 2.8 seconds at once
    #[arg(
        long,
        env = "BELLHOP_REQUESTS_PER_ACCOUNT",
        default_value_t = 5,
        value_name = "N"
    )]
    requests_per_account: u32,

    /// Requests a second to the registry over all
    #[arg(
        long,
        env = "BELLHOP_REQUESTS_PER_SECOND",
        default_value_t = 50,
        value_name = "N"
    )]
    requests_per_second: u32,

    /// How many subscriptions are worked on at a time
    #[arg(
        long,
        env = "BELLHOP_CONCURRENCY",
        default_value_t = 64,
        value_name = "N"
    )]
    concurrency: usize,

    /// Where /livez, /readyz, /metrics and /status are
    #[arg(
        long,
        env = "BELLHOP_ADMIN_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "ADDRESS"
    )]
    admin_listen: SocketAddr,
}

/// How receivers are asked how they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ReceiverAccess {
    /// By their pods' addresses.
    Pod,
    /// Through the API server.
    Proxy,
}

/// Runs until it is asked to end.
pub async fn run(args: OperatorArgs) -> Result<(), Failure> {
    let bases = Bases::of(&args)?;
    let client = connect(args.context.clone()).await?;
    let own = OwnPod::from_environment();
    let image = match (&args.receiver_image, &own) {
        (Some(image), _) => Some(image.clone()).filter(|image| !image.is_empty()),
        (None, Some(own)) => Some(own.image(&client).await?),
        (None, None) => None,
    };
    if let Some(image) = &image {
        tracing::info!(image, "receivers are run with this image");
    } else {
        tracing::warn!(
            "no receivers are run: there is neither --receiver-image nor a pod of the operator's own"
        );
    }
    let listener = TcpListener::bind(args.admin_listen)
        .await
        .map_err(|error| {
            Failure::Failed(format!(
                "cannot listen on {}: {error}; give --admin-listen another address",
                args.admin_listen
            ))
        })?;
    let metrics = Metrics::new();
    let controller_metrics = ControllerMetrics::new(&metrics);
    let waiting = Waiting::default();
    let mut supervisor = Supervisor::new();
    supervisor.spawn(
        "admin",
        serve(
            listener,
            &metrics,
            &waiting,
            bases.shown(),
            supervisor.token(),
        ),
    );
    let work = Work {
        identity: identity(&args),
        image,
        namespace: own.map(|own| own.namespace),
        args,
        bases,
        client,
        metrics,
        controller_metrics,
        waiting,
        token: supervisor.token(),
    };
    supervisor.spawn("operator", work.run());
    supervisor.run(DRAIN).await.map_err(Failure::Failed)
}

struct Work {
    args: OperatorArgs,
    bases: Bases,
    /// Of the receivers; `None`: none are run.
    image: Option<String>,
    /// Where the operator's own pod is.
    namespace: Option<String>,
    client: Client,
    metrics: Metrics,
    controller_metrics: ControllerMetrics,
    waiting: Waiting,
    identity: String,
    token: CancellationToken,
}

impl Work {
    async fn run(self) -> Result<(), String> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        if !self.args.leader_elect {
            return self.control(Leadership::alone(clock.clone()), clock).await;
        }
        let namespace = self
            .args
            .lease_namespace
            .clone()
            .unwrap_or_else(|| self.client.default_namespace().to_owned());
        let (mut election, leadership) = Election::new(
            self.client.clone(),
            &namespace,
            &self.args.lease_name,
            self.identity.clone(),
            clock.clone(),
            self.controller_metrics.clone(),
        );
        tokio::select! {
            () = election.acquire() => {}
            () = self.token.cancelled() => return Ok(()),
        }
        let ended = tokio::select! {
            ended = self.control(leadership, clock) => ended,
            // Nothing of this process may write any more: it ends, passes in progress included.
            lost = election.hold() => return Err(lost),
        };
        election.release().await;
        ended
    }

    async fn control(&self, leadership: Leadership, clock: Arc<dyn Clock>) -> Result<(), String> {
        let rates = Rates {
            account: self.args.requests_per_account,
            operator: self.args.requests_per_second,
        };
        let budget = Budget::new(rates, leadership.clone(), clock.clone());
        let providers = HttpProviders::new(
            self.bases.registry.clone(),
            self.bases.authorities.clone(),
            budget,
            clock.clone(),
            &self.metrics,
        )?;
        let client = guarded(
            self.client.clone(),
            leadership,
            self.controller_metrics.clone(),
        );
        let parts = Parts {
            receivers: self.receivers(&client)?,
            client,
            providers: Arc::new(providers),
            clock,
            metrics: self.metrics.clone(),
            controller_metrics: self.controller_metrics.clone(),
            waiting: self.waiting.clone(),
            prober: Some(self.prober()?),
        };
        let settings = Settings {
            namespaces: self.args.namespaces.clone(),
            cluster_id: self.args.cluster_id.clone(),
            concurrency: self.args.concurrency,
            identity: self.identity.clone(),
        };
        controller::run(parts, settings, self.token.clone()).await
    }

    fn receivers(&self, client: &Client) -> Result<Option<ReceiverParts>, String> {
        let Some(image) = self.image.clone() else {
            return Ok(None);
        };
        let by_address = self.args.receiver_access == ReceiverAccess::Pod;
        let access: Arc<dyn Access> = if by_address {
            Arc::new(ByAddress::new()?)
        } else {
            Arc::new(ByProxy::new(client.clone()))
        };
        Ok(Some(ReceiverParts {
            options: PodOptions {
                image,
                operator_namespace: self.namespace.clone().filter(|_| by_address),
                monitoring_namespaces: self.args.monitoring_namespaces.clone(),
            },
            urls: self.bases.urls(),
            allow_plain_http: self.args.allow_plain_http,
            access,
            max_rollouts: self.args.max_concurrent_rollouts,
        }))
    }

    fn prober(&self) -> Result<Prober, String> {
        Prober::new(
            Arc::new(SystemResolver),
            Trust::System,
            self.args.probe_private,
            Limits::default(),
            &self.metrics,
        )
    }
}

/// The pod that this process runs in, as the downward API tells it.
struct OwnPod {
    namespace: String,
    name: String,
}

impl OwnPod {
    fn from_environment() -> Option<Self> {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self {
            namespace: given("POD_NAMESPACE")?,
            name: given("POD_NAME")?,
        })
    }

    /// The image of its container `operator`, or of the only one.
    async fn image(&self, client: &Client) -> Result<String, Failure> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let failed = |why: &str| {
            Failure::Failed(format!(
                "cannot tell the image of the operator's own pod {}/{}: {why}; give --receiver-image, or the right to get this pod",
                self.namespace, self.name
            ))
        };
        let pod = pods.get(&self.name).await;
        let pod = pod.map_err(|error| failed(&error.to_string()))?;
        let containers = pod.spec.map(|spec| spec.containers).unwrap_or_default();
        let named = containers.iter().find(|one| one.name == "operator");
        let only = (containers.len() == 1).then(|| &containers[0]);
        let image = named.or(only).and_then(|one| one.image.clone());
        image.ok_or_else(|| failed("it has no container `operator`"))
    }
}

/// A name that no other process has, even one of the same pod before it.
fn identity(args: &OperatorArgs) -> String {
    let name = args
        .identity
        .clone()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "bellhop".to_owned());
    let unique = Uuid::new_v4().simple().to_string();
    format!("{name}_{}", &unique[..8])
}

/// The certificate authorities in a file, in PEM.
fn authorities(file: &Path) -> Result<String, Failure> {
    let unusable = |why: String| {
        let file = file.display();
        Failure::Usage(format!(
            "cannot use --provider-ca-file {file}: {why}; give a PEM file with CA certificates"
        ))
    };
    let pem = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    client::authorities(&pem).map_err(unusable)?;
    Ok(pem)
}

/// Where the provider is, per environment.
struct Bases {
    registry: Addresses,
    api: Addresses,
    /// In PEM.
    authorities: Option<String>,
}

impl Bases {
    fn of(args: &OperatorArgs) -> Result<Self, Failure> {
        let base = |flag: &str, given: Option<&String>, own: &str| {
            let url = given.map_or(own, String::as_str);
            BaseUrl::parse(url, args.allow_plain_http).map_err(|error| {
                let way_out = match error {
                    InvalidBaseUrl::Plain => " (--allow-plain-http)",
                    _ => "",
                };
                Failure::Usage(format!("{flag}: {error}{way_out}"))
            })
        };
        let (production, sandbox) = (Environment::Production, Environment::Sandbox);
        Ok(Self {
            authorities: args
                .provider_ca_file
                .as_deref()
                .map(authorities)
                .transpose()?,
            registry: Addresses {
                production: base(
                    "--production-registry-url",
                    args.production_registry_url.as_ref(),
                    production.registry_url(),
                )?,
                sandbox: base(
                    "--sandbox-registry-url",
                    args.sandbox_registry_url.as_ref(),
                    sandbox.registry_url(),
                )?,
            },
            api: Addresses {
                production: base(
                    "--production-api-url",
                    args.production_api_url.as_ref(),
                    production.api_url(),
                )?,
                sandbox: base(
                    "--sandbox-api-url",
                    args.sandbox_api_url.as_ref(),
                    sandbox.api_url(),
                )?,
            },
        })
    }

    /// As receivers are told them.
    fn urls(&self) -> ProviderUrls {
        let both = |registry: &BaseUrl, api: &BaseUrl| {
            (registry.as_str().to_owned(), api.as_str().to_owned())
        };
        ProviderUrls {
            production: both(&self.registry.production, &self.api.production),
            sandbox: both(&self.registry.sandbox, &self.api.sandbox),
            authorities: self.authorities.clone(),
        }
    }

    /// For people; a base URL holds no secret.
    fn shown(&self) -> serde_json::Value {
        let both = |registry: &BaseUrl, api: &BaseUrl| json!({ "registryUrl": registry.as_str(), "apiUrl": api.as_str() });
        json!({
            "production": both(&self.registry.production, &self.api.production),
            "sandbox": both(&self.registry.sandbox, &self.api.sandbox),
        })
    }
}

fn serve(
    listener: TcpListener,
    metrics: &Metrics,
    waiting: &Waiting,
    provider: serde_json::Value,
    token: CancellationToken,
) -> impl Future<Output = Result<(), String>> + use<> {
    let (for_ready, for_status) = (waiting.clone(), waiting.clone());
    let router = admin::router(
        metrics.clone(),
        Arc::new(move || for_ready.phrases()),
        Arc::new(move || json!({ "waitingFor": for_status.phrases(), "provider": provider })),
    );
    // A probe's answer is short: nothing on this port is worth waiting for at the end.
    let options = ServerOptions {
        drain: std::time::Duration::from_secs(1),
        linger: std::time::Duration::ZERO,
        ..ServerOptions::default()
    };
    server::serve(listener, router, options, token)
}
