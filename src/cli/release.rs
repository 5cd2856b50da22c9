//! `bellhop release`: frees what is being deleted and waits for an operator that is gone.
//!
//! Owns: its flags, and the plain warning before it does anything. Never here: how
//! ([`crate::controller::release`]).

use clap::Args;

use super::Failure;
use super::cluster::connect;
use crate::controller::release::{Stuck, release, stuck};

/// Free subscriptions that are being deleted and whose operator is gone
///
/// Takes Bellhop's finalizers off WebhookSubscriptions that are being deleted, and off their
/// Secrets NAME-bellhop. THE RULES AT THE PROVIDER STAY AS THEY ARE and go on sending
/// notifications: only for objects whose operator will not come back.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bellhop release -n shop redeam-sandbox --yes")]
pub struct ReleaseArgs {
    /// The subscriptions to free; none: all that are being deleted
    #[arg(env = "BELLHOP_NAMES", value_delimiter = ',', value_name = "NAME")]
    names: Vec<String>,

    /// Their namespace; without it, all namespaces
    #[arg(short, long, env = "BELLHOP_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// The context in the kubeconfig; without it, the current one
    #[arg(long, env = "BELLHOP_CONTEXT", value_name = "NAME")]
    context: Option<String>,

    /// Do it; without this it is only said what would be done
    #[arg(long, env = "BELLHOP_YES")]
    yes: bool,
}

/// Frees.
pub async fn run(args: ReleaseArgs) -> Result<(), Failure> {
    let client = connect(args.context).await?;
    let found = stuck(&client, args.namespace.as_deref())
        .await
        .map_err(|error| Failure::Failed(format!("cannot look for them: {error}")))?;
    let named = |one: &Stuck| args.names.is_empty() || args.names.contains(&one.key.name);
    let chosen: Vec<Stuck> = found.into_iter().filter(named).collect();
    if chosen.is_empty() {
        println!("nothing is being deleted that waits for an operator");
        return Ok(());
    }
    println!(
        "Rules of these subscriptions may be live at the provider and stay there; remove them there \
         by hand, or deploy an operator again and let it do so:"
    );
    for one in &chosen {
        println!("  {}", one.key);
    }
    if !args.yes {
        return Err(Failure::Failed(
            "nothing was done; add --yes to free them".to_owned(),
        ));
    }
    for one in &chosen {
        release(&client, one)
            .await
            .map_err(|error| Failure::Failed(format!("cannot free {}: {error}", one.key)))?;
        println!("freed {}", one.key);
    }
    Ok(())
}
