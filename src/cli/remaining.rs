//! `bellhop remaining`: what would be left behind without an operator.
//!
//! Owns: its flags, and what to do about it. Never here: how it is found
//! ([`crate::controller::remaining`]).

use clap::Args;

use super::Failure;
use super::cluster::connect;
use crate::controller::remaining::{Remaining, remaining};

/// List the subscriptions that still need an operator; fails if there is one
///
/// To be asked before an operator is taken away: without one, the rules of a subscription stay at
/// the provider, and nobody removes them when it is deleted. The chart asks before it is uninstalled.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  bellhop remaining && helm uninstall bellhop -n bellhop-system")]
pub struct RemainingArgs {
    /// The namespaces to look in; without it, the whole cluster
    #[arg(
        long,
        env = "BELLHOP_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    namespaces: Vec<String>,

    /// The context in the kubeconfig; without it, the current one
    #[arg(long, env = "BELLHOP_CONTEXT", value_name = "NAME")]
    context: Option<String>,
}

/// Lists.
pub async fn run(args: RemainingArgs) -> Result<(), Failure> {
    let client = connect(args.context).await?;
    let found = remaining(&client, &args.namespaces)
        .await
        .map_err(|error| Failure::Failed(format!("cannot look for subscriptions: {error}")))?;
    if found.is_empty() {
        println!("no subscription is left; the operator can go");
        return Ok(());
    }
    print!("{}", refusal(&found));
    Err(Failure::Told)
}

/// Which they are, and the way out.
fn refusal(found: &[Remaining]) -> String {
    let mut lines = vec!["These subscriptions still need the operator:".to_owned()];
    let listed = found.iter().map(|one| {
        let state = if one.deleting {
            "  (being deleted)"
        } else {
            ""
        };
        format!("  {}{state}", one.key)
    });
    lines.extend(listed);
    lines.push(
        "Without it their rules stay at the provider, and go on sending. Delete them first; the\n\
         operator removes the rules:"
            .to_owned(),
    );
    let to_delete = found.iter().filter(|one| !one.deleting);
    lines.extend(to_delete.map(|one| {
        let (namespace, name) = (&one.key.namespace, &one.key.name);
        format!("  kubectl delete whs --namespace {namespace} {name}")
    }));
    if found.iter().any(|one| one.deleting) {
        lines.push(
            "What is being deleted already is gone once its rules are; if it does not go, its\n\
             conditions say why."
                .to_owned(),
        );
    }
    lines.push(
        "Then uninstall again. To leave them as they are: `helm uninstall` with --no-hooks. To keep\n\
         the operator after all: `helm rollback` to the last revision that `helm history` lists; an\n\
         upgrade is refused before that.\n"
            .to_owned(),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fleet::Key;

    fn one(name: &str, deleting: bool) -> Remaining {
        let key = Key {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        Remaining { key, deleting }
    }

    #[test]
    fn what_is_left_is_named_with_the_way_out() {
        let text = refusal(&[one("a", false), one("b", true)]);
        for line in [
            "  shop/a",
            "  shop/b  (being deleted)",
            "  kubectl delete whs --namespace shop a",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert!(!text.contains("--namespace shop b"), "{text}");
        assert!(!refusal(&[one("a", false)]).contains("already"));
    }
}
