//! `bellhop remaining`: what would be left behind without an operator.
//!
//! Owns: its flags, and what to do about it. Never here: how it is found
//! ([`crate::controller::remaining`]).

use clap::Args;

use super::Failure;
use super::cluster::connect;
use crate::controller::remaining::{Found, Remaining, remaining};

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
    if found == Found::default() {
        println!("no subscription is left; the operator can go");
        return Ok(());
    }
    print!("{}", refusal(&found));
    Err(Failure::Told)
}

/// What is in the way, and the way out.
fn refusal(found: &Found) -> String {
    let mut text = String::new();
    if !found.left.is_empty() {
        text += &of_those_left(&found.left);
    }
    if !found.forbidden.is_empty() {
        text += &of_forbidden(&found.forbidden);
    }
    text
}

/// Which they are, and how they go.
fn of_those_left(left: &[Remaining]) -> String {
    let mut lines = vec!["These subscriptions still need the operator:".to_owned()];
    let listed = left.iter().map(|one| {
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
    let to_delete = left.iter().filter(|one| !one.deleting);
    lines.extend(to_delete.map(|one| {
        let (namespace, name) = (&one.key.namespace, &one.key.name);
        format!("  kubectl delete whs --namespace {namespace} {name}")
    }));
    if left.iter().any(|one| one.deleting) {
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

/// Where somebody else must look.
fn of_forbidden(namespaces: &[String]) -> String {
    let mut lines = vec![
        "In these namespaces the operator may not look for subscriptions (403): its Role is missing\n\
         there, or the namespace is gone. Look yourself:"
            .to_owned(),
    ];
    let commands = namespaces.iter();
    lines.extend(commands.map(|one| format!("  kubectl get whs --namespace {one}")));
    lines.push(
        "If nothing is there, and nothing else is listed here: `helm uninstall` with --no-hooks, which\n\
         does not ask. What is there needs the Role, which `helm rollback` to the last revision brings\n\
         back. In a namespace that is being deleted it cannot come back: `bellhop release` frees what\n\
         is there, and the rules stay at the provider.\n"
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

    fn left(left: Vec<Remaining>) -> Found {
        Found {
            left,
            forbidden: Vec::new(),
        }
    }

    #[test]
    fn what_is_left_is_named_with_the_way_out() {
        let text = refusal(&left(vec![one("a", false), one("b", true)]));
        for line in [
            "  shop/a",
            "  shop/b  (being deleted)",
            "  kubectl delete whs --namespace shop a",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert!(!text.contains("--namespace shop b"), "{text}");
        assert!(!text.contains("403"), "{text}");
        assert!(!refusal(&left(vec![one("a", false)])).contains("already"));
    }

    #[test]
    fn a_namespace_that_could_not_be_looked_into_is_named_with_the_way_out() {
        let forbidden = vec!["gone".to_owned()];
        let mut found = left(vec![one("a", false)]);
        found.forbidden = forbidden.clone();
        let both = refusal(&found);
        let none_left = Found {
            forbidden,
            ..Found::default()
        };
        let alone = refusal(&none_left);
        for text in [&both, &alone] {
            let line = "  kubectl get whs --namespace gone";
            assert!(text.lines().any(|other| other == line), "{text}");
            assert!(text.contains("`helm uninstall` with --no-hooks"), "{text}");
            assert!(text.ends_with('\n'), "{text}");
        }
        assert!(both.contains("  shop/a\n"), "{both}");
        assert!(!alone.contains("still need"), "{alone}");
    }
}
