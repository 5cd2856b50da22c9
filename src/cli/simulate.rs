//! `bellhop simulate`: the simulated provider as a process of its own.
//!
//! Owns: its flags. Never here: behaviour of the provider; that is [`crate::simulator`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Failure;
use crate::shutdown::asked_to_end;
use crate::simulator::{Config, Faults, Simulator, TlsPair};

/// Run a simulated provider: registry, reseller API, and a control API to steer it
///
/// Runs until Ctrl-C. The registry is at /registry/v1, the reseller API at /v1.3 and /v1.2, and
/// the control API, which needs no credentials, at /control: never expose it.
#[derive(Debug, Args)]
#[command(after_long_help = after_help())]
pub struct SimulateArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(
        long,
        env = "BELLHOP_LISTEN",
        default_value = "127.0.0.1:8090",
        value_parser = super::address,
        value_name = "IP:PORT"
    )]
    listen: SocketAddr,

    /// Certificate chain (PEM) to serve https with; without it, http
    #[arg(
        long,
        env = "BELLHOP_TLS_CERT",
        requires = "tls_key",
        value_name = "FILE"
    )]
    tls_cert: Option<PathBuf>,

    /// Private key (PEM) of --tls-cert
    #[arg(
        long,
        env = "BELLHOP_TLS_KEY",
        requires = "tls_cert",
        value_name = "FILE"
    )]
    tls_key: Option<PathBuf>,

    /// Send every delivery to this base address, keeping the path of the rule's URL: rule URLs
    /// must be https, this need not be
    #[arg(long, env = "BELLHOP_DELIVER_TO", value_name = "URL")]
    deliver_to: Option<String>,

    /// The X-API-Key that is accepted
    #[arg(
        long,
        env = "BELLHOP_API_KEY",
        default_value = "demo-key",
        value_name = "KEY"
    )]
    api_key: String,

    /// The X-API-Secret that is accepted
    #[arg(
        long,
        env = "BELLHOP_API_SECRET",
        default_value = "demo-secret",
        value_name = "SECRET"
    )]
    api_secret: String,

    /// Suppliers in the catalogue
    #[arg(long, env = "BELLHOP_SUPPLIERS", default_value_t = 2, value_name = "N")]
    suppliers: usize,

    /// Products of each supplier
    #[arg(long, env = "BELLHOP_PRODUCTS", default_value_t = 3, value_name = "N")]
    products: usize,

    /// Rates of each product
    #[arg(long, env = "BELLHOP_RATES", default_value_t = 3, value_name = "N")]
    rates: usize,

    /// Bookings at the start
    #[arg(long, env = "BELLHOP_BOOKINGS", default_value_t = 5, value_name = "N")]
    bookings: usize,

    /// Where all randomness comes from: equal seeds make equal catalogues and keys
    #[arg(long, env = "BELLHOP_SEED", value_name = "N")]
    seed: Option<u64>,

    /// A switch of the provider, for example `duplicate=0.3`; can be given several times.
    /// `--help` lists all
    #[arg(
        long = "fault",
        env = "BELLHOP_FAULT",
        value_delimiter = ';',
        value_name = "NAME=VALUE"
    )]
    faults: Vec<String>,

    /// A CA certificate (PEM) that is trusted for deliveries, beside the system's
    #[arg(long, env = "BELLHOP_EXTRA_CA", value_name = "FILE")]
    extra_ca: Option<PathBuf>,

    /// Delays before the retries of a delivery, in milliseconds; their number is the number of
    /// retries (the real provider: three, growing)
    #[arg(
        long,
        env = "BELLHOP_RETRY_DELAYS_MS",
        value_delimiter = ',',
        default_value = "5000,30000,120000",
        value_name = "MS,MS,MS"
    )]
    retry_delays_ms: Vec<u64>,
}

fn after_help() -> String {
    use std::fmt::Write as _;
    let mut text = String::from("Faults, with --fault NAME=VALUE or PATCH /control/faults:\n");
    for (name, meaning) in Faults::names() {
        let _ = write!(text, "  {name}\n      {meaning}\n");
    }
    text
}

/// Runs the simulator until it is asked to end.
pub async fn run(args: SimulateArgs) -> Result<(), Failure> {
    let mut faults = Faults::default();
    for fault in &args.faults {
        faults
            .apply(fault)
            .map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let extra_ca = match &args.extra_ca {
        None => None,
        Some(file) => Some(std::fs::read(file).map_err(|error| {
            Failure::Usage(format!(
                "cannot read --extra-ca {}: {error}",
                file.display()
            ))
        })?),
    };
    let tls = args.tls_cert.zip(args.tls_key);
    let config = Config {
        listen: args.listen,
        tls: tls.map(|(cert, key)| TlsPair { cert, key }),
        deliver_to: args.deliver_to,
        api_key: args.api_key,
        api_secret: args.api_secret,
        suppliers: args.suppliers,
        products: args.products,
        rates: args.rates,
        bookings: args.bookings,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        faults,
        extra_ca,
        retry_delays: args
            .retry_delays_ms
            .into_iter()
            .map(Duration::from_millis)
            .collect(),
        ..Config::default()
    };
    let simulator = Simulator::start(config)
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    println!("simulated provider, seed {}", simulator.seed());
    println!("  registry     {}", simulator.registry_url());
    println!("  reseller API {}", simulator.api_url());
    println!("  control API  {}/control/status", simulator.base_url());
    println!("Ctrl-C ends it.");
    asked_to_end().await;
    simulator.stop().await;
    Ok(())
}
