//! The walk of the README with the operator outside of the cluster, as it is written there: the real
//! kubectl, the operator with the rights of deploy/rbac.yaml and the simulated provider. Oracle:
//! what the page shows.

use std::process::Command;

use super::eventually;
use super::plane::{self, free_port};
use super::process::{bellhop, start};
use super::rights;
use super::space::{Said, Space};
use super::supervise::Supervised;

/// What is walked.
const PAGE: &str = "README.md";

/// A command of the page and what it shows of the answer.
struct Step {
    command: Vec<String>,
    shown: Vec<String>,
}

/// The block that begins with ```console.
fn steps() -> Vec<Step> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let block = page.split("```console\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let mut steps = Vec::new();
    for text in block.split("$ ").skip(1) {
        let mut lines = text.lines().map(str::to_owned);
        let command = lines.next().unwrap();
        let words = command.split_whitespace().map(str::to_owned);
        steps.push(Step {
            command: words.collect(),
            shown: lines.filter(|line| !line.is_empty()).collect(),
        });
    }
    steps
}

/// The arguments that the page gives to a command of ours, with another address of the provider.
fn arguments(command: &str, provider: &str) -> Vec<String> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(command));
    let line = line.unwrap_or_else(|| panic!("no line of {PAGE} begins with `{command}`"));
    let words = line.split_whitespace();
    words
        .map(|word| word.replace("127.0.0.1:8090", provider))
        .collect()
}

/// A line without what differs: widths of columns, ages, and what newer kubectls add.
fn plain(line: &str) -> String {
    let line = line.replace(" from shop namespace", "");
    let age = |word: &str| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < word.len() && ["s", "m"].contains(&unit)
    };
    let words = line.split_whitespace();
    let words = words.map(|word| if age(word) { "AGE" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether the lines that are shown came in this order; `...` stands for any others, and without it
/// they are all there is.
fn fits(shown: &[String], out: &str) -> bool {
    let mut out = out
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(plain);
    let mut gap = false;
    for line in shown {
        if line.trim() == "..." {
            gap = true;
        } else if gap {
            gap = false;
            if !out.any(|found| found == plain(line)) {
                return false;
            }
        } else if out.next().is_none_or(|found| found != plain(line)) {
            return false;
        }
    }
    gap || out.next().is_none()
}

#[tokio::test]
async fn the_page_is_what_happens() {
    let Some(plane) = tokio::task::spawn_blocking(plane::own).await.unwrap() else {
        return;
    };
    let space = Space::on(plane, "elsewhere").await;
    space
        .kubectl_in("bellhop-system", ["apply", "-f", "deploy/rbac.yaml"])
        .fine();
    let address = format!("127.0.0.1:{}", free_port());
    let mut simulate = bellhop(&["simulate", "--listen", &address]);
    simulate.args(arguments("bellhop simulate", &address));
    let _provider = start("simulate", &simulate);
    let mut operator = bellhop(&["operator", "--admin-listen", "127.0.0.1:0"]);
    // As in a pod, whose namespace it would find by itself.
    operator.args(["--lease-namespace", "bellhop-system"]);
    operator.args(arguments("bellhop operator", &address));
    operator.env("KUBECONFIG", rights::kubeconfig(&space));
    let operator = start("operator", &operator);

    let steps = steps();
    assert!(steps.len() > 6);
    for Step { command, shown } in steps {
        let mut kubectl = plane.kubectl();
        kubectl.args(&command[1..]);
        let out = if command.contains(&"-w".into()) {
            watch(&kubectl, shown.last().unwrap())
        } else {
            Said::of(kubectl, "").fine()
        };
        assert!(
            fits(&shown, &out),
            "$ {}\n{out}\nThe page shows:\n{}\n\nThe operator said:\n{}",
            command.join(" "),
            shown.join("\n"),
            operator.log()
        );
    }
    the_line_of_the_help(&space, &operator);
    let calls = plane.calls(rights::ACCOUNT);
    rights::check_nothing_forbidden(&calls);
}

/// The definition goes and comes again below the running operator, as its `--help` says: in one line
/// with the examples, which kubectl wants twice.
fn the_line_of_the_help(space: &Space, operator: &Supervised) {
    space.kubectl(["delete", "-f", "crds/"]).fine();
    let help = Said::of(bellhop(&["operator", "--help"]), "").fine();
    let line = help.lines().find_map(|line| {
        let words = line.trim().strip_prefix("kubectl ")?;
        words.starts_with("apply").then_some(words)
    });
    let line = line.expect("a line of kubectl");
    // Who comes to a new cluster remembers nothing of its kinds.
    let home = tempfile::tempdir().unwrap();
    let run = || {
        let mut kubectl = space.plane.kubectl();
        kubectl.env("HOME", home.path());
        kubectl.args(line.split_whitespace());
        Said::of(kubectl, "")
    };
    let once = run();
    let unknown = "ensure CRDs are installed first";
    assert!(!once.well && once.err.contains(unknown), "{once:?}");
    eventually("all of it is there", || run().well.then_some(()));
    let ready = "whs/redeam-sandbox";
    let ready = space.kubectl_in(
        "shop",
        ["wait", "--for=condition=Ready", ready, "--timeout=60s"],
    );
    assert!(ready.well, "{ready:?}\n{}", operator.log());
}

/// What `kubectl get -w` prints until a line comes, at which a person stops it.
fn watch(kubectl: &Command, until: &str) -> String {
    let watch = start("kubectl", kubectl);
    eventually(&format!("`kubectl get -w` shows {until}"), || {
        let out = watch.log();
        let lines: Vec<&str> = out.lines().collect();
        let at = lines.iter().position(|line| plain(line) == plain(until))?;
        Some(lines[..=at].join("\n"))
    })
}
