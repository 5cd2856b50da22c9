//! The charts, as `helm` renders them, and what goes with them: rights, alerts, dashboard, plain YAML.
//! Oracles: Helm, the JSON schemas of Kubernetes' own API description, checkov, promtool, the
//! program's own parser for its arguments. What happens in a cluster is for the tests there.
//!
//! Nothing here runs where the tools are not installed (`make tools`): such a test says
//! `skipped: why`, and fails with CI=true.

mod argo;
mod lint;
mod metrics;
mod monitoring;
mod plain;
mod pod_monitor;
mod render;
mod rights;
mod schemas;
mod values;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub use metrics::check_types;

/// The values that the chart is rendered with: none, and those of tests/charts/values.
fn cases() -> Vec<(String, Option<PathBuf>)> {
    let mut cases = vec![("defaults".to_owned(), None)];
    for entry in std::fs::read_dir("tests/charts/values").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        cases.push((name, Some(path)));
    }
    cases.sort();
    assert!(cases.len() > 4);
    cases
}

/// Helm; none, with a word, where it is not installed.
struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    fn find() -> Option<Self> {
        let program = crate::cluster::tools::find("helm")?;
        let home = tempfile::tempdir().unwrap();
        Some(Self { program, home })
    }

    /// With these arguments. It sees no settings of whoever runs the test, and no cluster.
    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        let mut command = Command::new(&self.program);
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.home.path());
        }
        command.env("KUBECONFIG", self.home.path().join("none"));
        command.args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// The chart with values, for a version of Kubernetes.
    fn template(&self, values: Option<&Path>, kubernetes: &str, more: &[&str]) -> Output {
        let mut arguments = vec!["template", "bellhop", "charts/bellhop"];
        arguments.extend([
            "--namespace",
            "bellhop-system",
            "--kube-version",
            kubernetes,
        ]);
        let values = values.map(|path| path.to_str().unwrap());
        arguments.extend(values.into_iter().flat_map(|path| ["--values", path]));
        arguments.extend(more);
        self.run(arguments)
    }

    /// What it makes of the chart, when it has to.
    fn rendered(&self, values: Option<&Path>) -> String {
        fine(self.template(values, NEWEST, &[]))
    }
}

/// Versions of Kubernetes, as `schemas` has them: the newest, and the oldest that is supported.
const NEWEST: &str = "1.35.0";
const OLDEST: &str = "1.30.0";

/// What a program printed, when it had to end well.
#[track_caller]
fn fine(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{error}");
    text
}

/// What a program complained about, when it had to fail.
#[track_caller]
fn refused(output: Output) -> String {
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line == "---" {
            documents.push(String::new());
        } else {
            let document = documents.last_mut().unwrap();
            document.push_str(line);
            document.push('\n');
        }
    }
    let said = |text: &String| {
        text.lines()
            .any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    };
    documents
        .iter()
        .filter(|text| said(text))
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
        .collect()
}

/// The one document of a kind.
#[track_caller]
fn only<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let all: Vec<&Value> = documents
        .iter()
        .filter(|document| document["kind"] == kind)
        .collect();
    assert_eq!(all.len(), 1, "{kind}");
    all[0]
}
