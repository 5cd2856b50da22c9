//! `bellhop crd`: the CustomResourceDefinition, or a page about its fields or conditions.
//! Never here: their content.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::Failure;
use crate::api::condition::page::page;
use crate::api::crd::{crd_yaml, reference};

/// Print the CustomResourceDefinition
///
/// Prints it as YAML: `bellhop crd | kubectl apply -f -`. The rules that it enforces are those of
/// `bellhop check`.
#[derive(Debug, Args)]
pub struct CrdArgs {
    /// Print the reference of all fields, as Markdown, instead
    #[arg(long, env = "BELLHOP_REFERENCE", value_parser = BoolishValueParser::new())]
    reference: bool,

    /// Print all conditions and reasons, with what to do about them, as Markdown, instead
    #[arg(long, env = "BELLHOP_CONDITIONS", conflicts_with = "reference")]
    conditions: bool,
}

/// Prints.
pub fn run(args: CrdArgs) -> Result<(), Failure> {
    use std::io::Write;
    let text = if args.reference {
        reference()
    } else if args.conditions {
        page()
    } else {
        crd_yaml()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `bellhop crd | head` is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
