//! Log set-up: structured, to stderr, quiet when all is well.
//!
//! Owns: the subscriber and its format. Never here: what is logged (each module's own matter),
//! and never a secret or an unverified body in any of it.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: one readable line.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Installs the process's log subscriber. `filter` is in `tracing`'s syntax
/// (`info`, `bellhop=debug,warn`).
///
/// # Errors
/// A sentence that says what is wrong with `filter`.
pub fn install(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("--log `{filter}`: {error}; write `info`, or `bellhop=debug,warn`")
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(|error| format!("a log subscriber is already installed: {error}"))
}
