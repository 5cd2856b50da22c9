//! `bellhop crd`: the CustomResourceDefinition, or its field reference. Never here: its content.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::Failure;
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
}

/// Prints.
pub fn run(args: CrdArgs) -> Result<(), Failure> {
    use std::io::Write;
    let text = if args.reference {
        reference()
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
