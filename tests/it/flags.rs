//! Flags that texts name: each exists. Oracle: the command tree that the program parses with.
//!
//! Texts are the sentences of all reasons, the documents, the examples, and every text in the source
//! that names a flag (messages, help and comments alike).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bellhop::api::condition::Reason;
use bellhop::cli::Cli;
use clap::CommandFactory as _;

/// Flags of other programs, and who has them. A line may name one only beside its program.
const FOREIGN: [(&str, &[&str]); 8] = [
    (
        "kubectl",
        &[
            "namespace",
            "for",
            "timeout",
            "clusterrole",
            "serviceaccount",
            "all",
            "all-namespaces",
            "from-literal",
            "previous",
            "server-side",
            "watch",
            "overwrite",
            "replicas",
            "wait",
        ],
    ),
    (
        "cargo",
        &[
            "release",
            "path",
            "all",
            "all-targets",
            "features",
            "test",
            "bench",
        ],
    ),
    ("BENCH_ARGS", &["help"]),
    ("git", &["check"]),
    ("sqlite3", &[]),
    ("prettier", &[]),
    (
        "helm",
        &[
            "create-namespace",
            "logs",
            "no-hooks",
            "set",
            "take-ownership",
            "values",
            "wait",
        ],
    ),
    ("curl", &["retry", "retry-connrefused"]),
];

/// The flags of all commands, without the dashes, and their environment variables.
fn known() -> BTreeMap<String, Option<String>> {
    fn of(command: &clap::Command, all: &mut BTreeMap<String, Option<String>>) {
        for argument in command.get_arguments() {
            let env = argument
                .get_env()
                .map(|env| env.to_string_lossy().into_owned());
            for name in argument
                .get_long_and_visible_aliases()
                .into_iter()
                .flatten()
            {
                all.insert(name.to_owned(), env.clone());
            }
        }
        for command in command.get_subcommands() {
            of(command, all);
        }
    }
    let mut all = BTreeMap::new();
    let mut command = Cli::command();
    command.build();
    of(&command, &mut all);
    all
}

/// Each `--flag` of a text.
fn named(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("--") {
        let starts = text[..at]
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_alphanumeric() && before != '-');
        let flag = &text[at + 2..];
        let end = flag.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
        let flag = &flag[..end.unwrap_or(flag.len())];
        if starts && flag.starts_with(|c: char| c.is_ascii_lowercase()) {
            found.insert(flag.trim_end_matches('-'));
        }
    }
    found
}

/// A line's flags that nobody knows.
fn unknown<'a>(line: &'a str, known: &BTreeMap<String, Option<String>>) -> Vec<&'a str> {
    let foreign = |flag: &&str| {
        let mut beside = FOREIGN.iter().filter(|(program, _)| line.contains(program));
        beside.any(|(_, flags)| flags.contains(flag))
    };
    let all = named(line).into_iter();
    all.filter(|flag| !known.contains_key(*flag) && !foreign(flag))
        .collect()
}

fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ends));
        } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_search_finds_what_is_there() {
    let text = "`--a-flag`, --two=x (--three), not --- or a--b, `cmd --four.`";
    assert_eq!(
        named(text),
        BTreeSet::from(["a-flag", "four", "three", "two"])
    );
    let known = known();
    assert_eq!(unknown("start it with --probe-private", &known), [""; 0]);
    let gone = "start it with --no-such-flag";
    assert_eq!(unknown(gone, &known), ["no-such-flag"]);
    assert_eq!(unknown("kubectl wait --for=x", &known), [""; 0]);
    assert_eq!(unknown("wait --for=x", &known), ["for"]);
}

#[test]
fn every_flag_that_a_text_names_exists() {
    let known = known();
    let mut wrong = Vec::new();
    for reason in Reason::ALL {
        for text in [reason.sentence(), reason.when()] {
            for flag in unknown(text, &known) {
                wrong.push(format!("{reason}: --{flag}"));
            }
        }
    }
    let mut texts = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    texts.extend(files(Path::new("docs"), &[".md"]));
    texts.extend(files(Path::new("examples"), &[".yaml"]));
    texts.extend(files(Path::new("deploy"), &[".yaml"]));
    texts.extend(files(Path::new("crds"), &[".yaml"]));
    texts.extend(files(Path::new("src"), &[".rs"]));
    assert!(texts.len() > 100);
    for path in texts {
        let text = fs::read_to_string(&path).unwrap();
        // A command may go on in the next line.
        let text = text.replace("\\\n", " ");
        for line in text.lines() {
            for flag in unknown(line, &known) {
                wrong.push(format!("{}: --{flag} in: {line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Design: every flag has an environment variable `BELLHOP_…`; and the operator has these.
#[test]
fn flags_have_their_variables_and_the_operator_has_what_scripts_rely_on() {
    for (flag, env) in known() {
        if matches!(flag.as_str(), "help" | "version") {
            continue;
        }
        let variable = format!("BELLHOP_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(env, Some(variable), "--{flag}");
    }
    let command = Cli::command();
    let operator = command.find_subcommand("operator").unwrap();
    let flags: BTreeSet<&str> = operator
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .collect();
    for flag in [
        "namespaces",
        "cluster-id",
        "leader-elect",
        "probe-private",
        "sandbox-registry-url",
        "sandbox-api-url",
        "production-registry-url",
        "production-api-url",
    ] {
        assert!(flags.contains(flag), "--{flag}");
    }
}
