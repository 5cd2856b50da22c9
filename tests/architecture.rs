//! Holds the layers of `docs/architecture.md`: a module may name only modules to its right.
//! Reads the sources as text, so that a new arrow fails here before anybody has to find it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Left to right. Modules in one row may not name each other, unless the row is a chain.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["controller", "receiver", "simulator"],
    &["registration", "pipeline"],
    &["publish"],
    &["state"],
    &["provider", "settings"],
    &["api"],
    &["admin"],
    &["files"],
    &[
        "secrets",
        "clock",
        "metrics",
        "telemetry",
        "shutdown",
        "planted",
    ],
];

/// These never name Kubernetes: the data plane must not depend on it.
const WITHOUT_KUBERNETES: &[&str] = &["receiver", "pipeline", "state", "publish", "simulator"];

/// The simulator shares no code with what it tests: not the wire types, not the signing.
const SIMULATOR_MAY_NAME: &[&str] = &["metrics", "telemetry", "shutdown", "simulator"];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the source folder is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Every top-level module that a source text names by `crate::x` or `bellhop::x`, comments aside,
/// with the line of its first mention.
fn named_modules(text: &str) -> BTreeMap<String, usize> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut named = BTreeMap::new();
    for prefix in ["crate::", "bellhop::"] {
        for (at, _) in code.match_indices(prefix) {
            let line = code[..at].lines().count().max(1);
            let rest = &code[at + prefix.len()..];
            let group = match rest.strip_prefix('{') {
                Some(group) => top_level_names(group),
                None => vec![rest],
            };
            for name in group {
                let module: String = name
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if !module.is_empty() {
                    named.entry(module).or_insert(line);
                }
            }
        }
    }
    named
}

/// The names directly inside a `use` group, up to its closing brace.
fn top_level_names(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut names = Vec::new();
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                names.push(group[start..at].trim());
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

#[test]
fn arrows_point_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let Some(own) = rank(&module) else {
            wrong.push(format!(
                "src/{} is in no layer: add it here",
                relative.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&file).expect("readable");
        for (named, line) in named_modules(&text) {
            if named == module {
                continue;
            }
            if module == "simulator" && !SIMULATOR_MAY_NAME.contains(&named.as_str()) {
                wrong.push(format!("src/{}:{line} names {named}", relative.display()));
            }
            if rank(&named).is_some_and(|other| other <= own) {
                wrong.push(format!(
                    "src/{}:{line}: {module} → {named} points left",
                    relative.display()
                ));
            }
        }
        if WITHOUT_KUBERNETES.contains(&module.as_str()) {
            for word in ["kube::", "k8s_openapi"] {
                if text.contains(word) {
                    wrong.push(format!("src/{} names {word}", relative.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_this_test_sees_what_it_looks_for() {
    let named = named_modules(
        "use crate::{api, state::State};\nlet x = crate::clock::now(); // crate::cli",
    );
    assert_eq!(
        named.keys().map(String::as_str).collect::<Vec<_>>(),
        ["api", "clock", "state"]
    );
}
