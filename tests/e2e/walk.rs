//! The walk of the README on Kubernetes, as it is written there. Oracle: what the README shows.

use std::fmt::Write as _;
use std::process::Command;

use crate::cluster::project;
use crate::kubectl::run;
use crate::operator::image_values;
use crate::world::World;

/// A command of the README and what it shows of the answer.
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The first block of commands below a heading.
fn steps(heading: &str) -> Vec<Step> {
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    let section = readme.split(heading).nth(1).unwrap();
    let block = section.split("```console\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let steps = block.split("$ ").skip(1).map(|text| {
        let (mut command, mut shown) = (String::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if command.is_empty() || command.ends_with('\\') {
                command = command.trim_end_matches('\\').to_owned() + line.trim_start_matches("> ");
            } else {
                shown.push(line.to_owned());
            }
        }
        Step { command, shown }
    });
    steps.collect()
}

/// A line without what differs: widths of columns, and ages.
fn plain(line: &str) -> String {
    let age = |word: &str| {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < word.len() && ["s", "m"].contains(&unit)
    };
    let words = line.split_whitespace();
    let words = words.map(|word| if age(word) { "AGE" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether the lines that are shown came in this order; `...` stands for any others, at the end of a
/// line for the rest of it. Without it they are all there is.
fn fits(shown: &[String], out: &str) -> bool {
    let same = |line: &str, found: &str| {
        line.strip_suffix("...").map_or_else(
            || found == line,
            |begin| found.starts_with(begin.trim_end()),
        )
    };
    let lines = out.lines().filter(|line| !line.trim().is_empty());
    let mut lines = lines.map(plain);
    let mut gap = false;
    for line in shown {
        if line.trim() == "..." {
            gap = true;
            continue;
        }
        let line = plain(line);
        let fits = if gap {
            lines.any(|found| same(&line, &found))
        } else {
            lines.next().is_some_and(|found| same(&line, &found))
        };
        if !fits {
            return false;
        }
        gap = false;
    }
    gap || lines.next().is_none()
}

/// The commands as one script, so that variables and what runs in the background go on; a line before
/// each says which it is.
fn script(steps: &[Step]) -> String {
    let mut text =
        "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (at, step) in steps.iter().enumerate() {
        let _ = write!(text, "echo '{MARK}{at}'\n{}\n", step.command);
    }
    text
}

/// The same with an image of another name, as the README says how to give it.
fn with_image(mut steps: Vec<Step>, image: &str) -> Vec<Step> {
    const PROVIDER: &str = "examples/simulated-provider/provider.yaml";
    let mut named = 0;
    for step in &mut steps {
        let command = &mut step.command;
        if *command == format!("kubectl apply -f {PROVIDER}") {
            *command =
                format!("sed 's#localhost/bellhop:.*#{image}#' {PROVIDER} | kubectl apply -f -");
        } else if command.starts_with("helm install bellhop charts/bellhop ") {
            for value in image_values(image) {
                let _ = write!(command, " --set {value}");
            }
        } else {
            continue;
        }
        named += 1;
    }
    assert_eq!(named, 2, "the provider and the operator");
    steps
}

/// Before the number of a step, in the script's output.
const MARK: &str = "=== step ";

/// The namespaces that the walk leaves behind, beside the one of the release.
pub const NAMESPACES: [&str; 2] = ["shop", "simulated-provider"];

/// Runs before anything else is installed; the walk takes away what it makes, but for namespaces.
pub fn the_readme_is_what_happens(world: &World) {
    let kubectl = &world.cluster.kubectl;
    let tools = ["target/tools/bin", "target/tools/bin/kubernetes-1.35"].map(project);
    let usual = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(tools.into_iter().chain(std::env::split_paths(&usual)));
    let mut steps = steps("### With Helm");
    if !world.cluster.own {
        steps = with_image(steps, &world.cluster.image);
    }
    assert!(steps.len() > 6, "{}", steps.len());
    let mut shell = Command::new("bash");
    shell.args(["-c", &script(&steps)]);
    shell.current_dir(project("")).env("PATH", path.unwrap());
    shell.env("KUBECONFIG", &kubectl.kubeconfig);
    let said = run(&mut shell, "");
    if !said.well {
        // As long as there is an operator to remove its rules.
        let subscription = project("examples/minimal.yaml");
        let left = subscription.display();
        kubectl.say(&format!(
            "delete -f {left} --ignore-not-found --timeout=60s"
        ));
    }
    let outs: Vec<&str> = said.out.split(MARK).skip(1).collect();
    for (step, out) in steps.iter().zip(&outs) {
        let out = out.split_once('\n').map_or("", |(_, out)| out);
        assert!(
            fits(&step.shown, out),
            "$ {}\n{out}\nThe README shows:\n{}",
            step.command,
            step.shown.join("\n")
        );
    }
    let last = &steps[outs.len() - 1].command;
    assert!(
        said.well && outs.len() == steps.len(),
        "$ {last}\n{}",
        said.err
    );
    kubectl.fine(&format!("get namespaces {}", NAMESPACES.join(" ")));
}
