//! `bellhop check`: a subscription held against the real provider, without writing anything.
//!
//! Owns: its flags and lines. Never here: a check itself ([`crate::registration::check`]).

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::Failure;
use super::dataplane::Provider;
use super::manifests::{Manifests, Overrides};
use super::standalone::credentials;
use crate::clock::{Clock, SystemClock};
use crate::metrics::Metrics;
use crate::registration::{SystemResolver, check, exit_code};

/// Validate a subscription against the real provider, without writing anything
///
/// Checks the file, the credentials at registry and reseller API, each rule and who owns it, the
/// public URL and the clock. One line per check: `ok`, `warn` or `fail`, what was looked at, what
/// was found and what to do next. Fails if one check fails.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bellhop check -f examples/minimal.yaml")]
pub struct CheckArgs {
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

    /// The Notification Registry, instead of the environment's own
    #[arg(long, env = "BELLHOP_REGISTRY_URL", value_name = "URL")]
    registry_url: Option<String>,

    /// The Reseller API, instead of the environment's own; ends in /v1.3 or /v1.2
    #[arg(long, env = "BELLHOP_API_URL", value_name = "URL")]
    api_url: Option<String>,

    /// Allow plain http to provider URLs on other hosts than this one (keys travel in the clear)
    #[arg(long, env = "BELLHOP_ALLOW_PLAIN_HTTP", value_parser = BoolishValueParser::new())]
    allow_plain_http: bool,
}

/// Checks and prints.
pub async fn run(args: CheckArgs) -> Result<(), Failure> {
    let overrides = Overrides {
        registry_url: args.registry_url,
        api_url: args.api_url,
        ..Overrides::default()
    };
    let manifests = Manifests::read(&args.files, overrides)?;
    super::check_addresses(&manifests.settings, args.allow_plain_http)?;
    println!(
        "ok    manifest              {} of {} notification types subscribed",
        manifests.settings.notifications.len(),
        crate::api::NotificationType::ALL.len()
    );
    for line in &manifests.unused {
        println!("{:<4}  {:<20}  {line}", "warn", "only in a cluster");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let credentials = credentials(&manifests, clock.clone()).map_err(Failure::Usage)?;
    let provider = Provider::new(
        &manifests.settings,
        &credentials,
        args.allow_plain_http,
        &clock,
        &Metrics::new(),
    )
    .map_err(Failure::Usage)?;
    let checks = check(
        manifests.settings.signature.max_skew,
        &manifests.desired,
        provider.registry.as_ref(),
        provider.reads.as_ref(),
        &SystemResolver,
    )
    .await;
    for check in &checks {
        println!("{check}");
    }
    if exit_code(&checks) == 0 {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}
