//! The command line: parse, assemble, run.
//!
//! Owns: flags and their environment variables, exit codes, how the modules are put together into
//! a process, and the words a person reads on the terminal.
//!
//! Never here: a decision about notifications, rules or entities; those belong to the modules that
//! are assembled here.

pub mod ask;
pub mod check;
pub mod cluster;
pub mod conditions;
pub mod crd;
pub mod dataplane;
pub mod deadletters;
pub mod demo;
pub mod keystore;
pub mod manifests;
pub mod operator;
pub mod receiver;
mod refusal;
pub mod release;
pub mod remaining;
pub mod removals;
mod resync;
mod resyncs;
pub mod run;
pub mod simulate;
pub mod standalone;
mod standby;
pub mod status;
pub mod unused;
pub mod watch;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::provider::base::{BaseUrl, InvalidBaseUrl};
use crate::settings::Settings;
use crate::telemetry::{self, LogFormat};

/// Receives the data-free webhook notifications of Redeam / Travel Curious, makes them durable,
/// fetches what changed and publishes it in order as CloudEvents.
///
/// Start with `bellhop demo`: it needs no account, no cluster and no set-up.
#[derive(Debug, Parser)]
#[command(
    name = "bellhop",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 fine, 1 failed, 2 wrong usage (a flag, or a file that a flag names).\n\
    Every flag can be given as an environment variable: --data-dir is BELLHOP_DATA_DIR."
)]
pub struct Cli {
    /// What is logged, in tracing's syntax: `warn`, `info`, `bellhop=debug,warn`
    #[arg(
        long,
        global = true,
        help_heading = "Logging",
        env = "BELLHOP_LOG",
        value_name = "FILTER"
    )]
    log: Option<String>,

    /// How a log line looks (logs go to stderr)
    #[arg(
        long,
        global = true,
        env = "BELLHOP_LOG_FORMAT",
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Logging"
    )]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

/// What each does is said where its flags are.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(
        about = "Show the whole journey with a simulated provider, in one process",
        long_about = "Show the whole journey with a simulated provider, in one process\n\n\
            Starts the provider and Bellhop, and shows how notifications arrive, are verified, \
            made durable, coalesced, fetched and published. Ends with Ctrl-C, or with --count by \
            itself.",
        after_help = "Examples:\n  bellhop demo\n  bellhop demo --count 200"
    )]
    Demo(demo::DemoArgs),
    Run(run::RunArgs),
    Operator(operator::OperatorArgs),
    Receiver(receiver::ReceiverArgs),
    Release(release::ReleaseArgs),
    Remaining(remaining::RemainingArgs),
    Ask(ask::AskArgs),
    Simulate(simulate::SimulateArgs),
    Check(check::CheckArgs),
    Crd(crd::CrdArgs),
}

impl Command {
    /// Long-running services say what they do; commands that talk to a person keep the log for
    /// what went wrong.
    const fn default_filter(&self) -> &'static str {
        match self {
            Self::Run(_) | Self::Operator(_) | Self::Receiver(_) | Self::Simulate(_) => "info",
            Self::Demo(_)
            | Self::Release(_)
            | Self::Remaining(_)
            | Self::Ask(_)
            | Self::Check(_)
            | Self::Crd(_) => "error",
        }
    }
}

/// Why a command ended without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// The input is wrong: exit code 2.
    Usage(String),
    /// The work failed: exit code 1.
    Failed(String),
    /// Already told on stdout (a list of checks, a comparison): exit code 1 and no more words.
    Told,
}

/// An address to listen on, from a flag.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port, such as 0.0.0.0:8080, 127.0.0.1:8080 or [::1]:8080"
            .to_owned()
    })
}

/// The provider's addresses, before anything is begun.
fn check_addresses(settings: &Settings, allow_plain_http: bool) -> Result<(), Failure> {
    let provider = &settings.provider;
    let problems: Vec<String> = [
        ("--registry-url", &provider.registry_url),
        ("--api-url", &provider.api_url),
    ]
    .into_iter()
    .filter_map(|(flag, url)| {
        let error = BaseUrl::parse(url, allow_plain_http).err()?;
        let way_out = match error {
            InvalidBaseUrl::Plain => " (--allow-plain-http)",
            _ => "",
        };
        Some(format!("{flag}: {error}{way_out}"))
    })
    .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::Usage(problems.join("\n")))
    }
}

/// Runs the program and says how it ended: 0 fine, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = cli.log.as_deref().unwrap_or(cli.command.default_filter());
    if let Err(error) = telemetry::install(cli.log_format, filter) {
        eprintln!("bellhop: {error}");
        return ExitCode::from(2);
    }
    crate::provider::client::install_crypto_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(1024 * 1024)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bellhop: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Run(args) => run::run(args).await,
            Command::Operator(args) => operator::run(args).await,
            Command::Receiver(args) => receiver::run(args).await,
            Command::Release(args) => release::run(args).await,
            Command::Remaining(args) => remaining::run(args).await,
            Command::Ask(args) => ask::run(args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Crd(args) => crd::run(args),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::FAILURE,
        Err(Failure::Failed(message)) => {
            eprintln!("bellhop: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Usage(message)) => {
            eprintln!("bellhop: {message}");
            ExitCode::from(2)
        }
    }
}
