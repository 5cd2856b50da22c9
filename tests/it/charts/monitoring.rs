//! Alerts and dashboard. Oracles: promtool, the metrics that the code registers, docs/operations.md,
//! and the labels that the PodMonitor gives.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::metrics::{SOURCE, samples};
use super::{Helm, documents, fine, only};
use crate::cluster::tools;
use bellhop::api::condition::Reason;

const ALERTS: &str = "charts/bellhop/files/alerts.yaml";
const DASHBOARD: &str = "charts/bellhop/files/dashboard.json";

/// Labels that no metric has by itself: from Prometheus and from the PodMonitor.
const TARGET: [&str; 6] = [
    "namespace",
    "pod",
    "component",
    "subscription",
    "le",
    "alertname",
];

fn alerts() -> Vec<Value> {
    let text = std::fs::read_to_string(ALERTS).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(DASHBOARD).unwrap()).unwrap()
}

/// The queries of the dashboard with the panel that asks, Grafana's variables filled in.
fn panels() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "5m");
            queries.push((title.to_owned(), query.replace('$', "")));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // label_values(QUERY, label)
        if let Some(values) = variable["definition"].as_str() {
            let query = values.strip_prefix("label_values(").unwrap();
            let (query, _) = query.rsplit_once(',').unwrap();
            queries.push(("a variable".to_owned(), query.replace('$', "")));
        }
    }
    assert!(queries.len() > 30);
    queries
}

fn queries() -> Vec<(String, String)> {
    let of_alerts = alerts().into_iter().map(|alert| {
        let text = |key: &str| alert[key].as_str().unwrap().to_owned();
        (text("alert"), text("expr"))
    });
    of_alerts.chain(panels()).collect()
}

/// The names in a query that are not in quotes, and the texts that are, each after its label.
fn words(query: &str) -> (Vec<&str>, Vec<(&str, &str)>) {
    let (mut names, mut matched) = (Vec::new(), Vec::new());
    for (index, part) in query.split('"').enumerate() {
        if index % 2 == 0 {
            let of = part.split(|c: char| !c.is_alphanumeric() && c != '_');
            names.extend(of.filter(|word| !word.is_empty()));
        } else {
            matched.push((*names.last().unwrap(), part));
        }
    }
    (names, matched)
}

#[test]
fn every_metric_and_label_that_is_asked_for_exists() {
    let samples = samples();
    let mut wrong = Vec::new();
    for (whose, query) in queries() {
        let (names, matched) = words(&query);
        for name in names.iter().filter(|name| name.starts_with("bellhop_")) {
            if !samples.contains(*name) {
                wrong.push(format!("{whose}: no metric {name}"));
            }
        }
        for (label, text) in matched {
            if !has_label(label) {
                wrong.push(format!("{whose}: no label {label}"));
            }
            // What the PodMonitor says, and what a variable of Grafana's stands for.
            if TARGET.contains(&label) {
                continue;
            }
            for value in text.split('|') {
                let literal = SOURCE.contains(&format!("\"{value}\""));
                if !literal && Reason::parse(value).is_none() {
                    wrong.push(format!("{whose}: {label} is never {value}"));
                }
            }
        }
        for (at, by) in ["by (", "without (", "ignoring (", "on ("]
            .iter()
            .flat_map(|by| query.match_indices(by))
        {
            let list = &query[at + by.len()..];
            for label in list[..list.find(')').unwrap()].split(", ") {
                if !has_label(label) {
                    wrong.push(format!("{whose}: no label {label}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether Prometheus, the PodMonitor or a metric of ours has it.
fn has_label(label: &str) -> bool {
    let written = [
        format!("(\"{label}\", "),
        format!(" {label}: &'static str"),
        format!("r#{label}: &'static str"),
        format!(" {label}: String"),
    ];
    TARGET.contains(&label) || written.iter().any(|text| SOURCE.contains(text))
}

#[test]
fn the_search_finds_what_is_not_there() {
    let (names, matched) = words("sum by (a) (rate(bellhop_x_total{answer=~\"b|c\"}[5m]))");
    assert!(names.contains(&"bellhop_x_total"));
    assert_eq!(matched, [("answer", "b|c")]);
    assert!(!samples().contains("bellhop_store_marks_total"));
    assert!(samples().contains("bellhop_store_full_total"));
    assert!(has_label("outcome") && !has_label("no_such_label"));
}

fn promtool() -> Option<PathBuf> {
    tools::find("promtool")
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let Some(promtool) = promtool() else {
        return;
    };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&promtool);
        fine(command.args(arguments).output().unwrap())
    };
    run(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS]);
    run(&["test", "rules", "tests/charts/alerts_test.yaml"]);
}

/// Each alert has a test in which it fires.
#[test]
fn no_alert_is_without_a_test() {
    let tests = std::fs::read_to_string("tests/charts/alerts_test.yaml").unwrap();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        let fires = [
            format!("alertname=\"{name}\""),
            format!("- alertname: {name}\n"),
        ];
        assert!(fires.iter().any(|text| tests.contains(text)), "{name}");
    }
}

/// docs/operations.md has a section of its own for each alert, and for no other; the link of
/// `runbookUrl` leads to it.
#[test]
fn every_alert_is_explained() {
    let page = std::fs::read_to_string("docs/operations.md").unwrap();
    let mut explained = BTreeSet::new();
    for section in page.split("\n### ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        if !name.starts_with("Bellhop") {
            continue;
        }
        let text = text.split("\n## ").next().unwrap();
        // First what it means, then where to look, then the remedy.
        let (meaning, rest) = text
            .split_once("*Check*")
            .unwrap_or_else(|| panic!("{name}"));
        let remedy = rest.split_once("*Do*").or_else(|| rest.split_once("*do*"));
        let (check, remedy) = remedy.unwrap_or_else(|| panic!("{name}"));
        assert!(meaning.trim().len() > 20, "{name} means {meaning}");
        assert!(check.trim().len() >= 3, "{name}: {check}");
        assert!(remedy.trim().len() > 10, "{name}: {remedy}");
        assert!(explained.insert(name.to_owned()), "{name} twice");
    }
    let names = alerts().into_iter();
    let names: BTreeSet<String> = names
        .map(|alert| alert["alert"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        explained, names,
        "left: docs/operations.md, right: {ALERTS}"
    );
}

/// Grafana's queries are PromQL, by promtool.
#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let Some(promtool) = promtool() else {
        return;
    };
    let rules: Vec<Value> = panels()
        .into_iter()
        .enumerate()
        .map(|(index, (_, query))| json!({ "record": format!("panel:{index}"), "expr": query }))
        .collect();
    let file = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    let mut command = Command::new(promtool);
    command.args(["check", "rules", "--lint=none"]).arg(path);
    fine(command.output().unwrap());
}

/// Panels do not lie on each other, and have names of their own.
#[test]
fn the_dashboard_is_in_order() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()));
        let title = panel["title"].as_str().unwrap();
        if panel["type"] != "row" {
            assert!(
                titles.insert((title, panel["type"].as_str().unwrap())),
                "{title}"
            );
        }
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
}

/// What the chart makes of the files.
#[test]
fn the_chart_carries_them_as_they_are() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let path = PathBuf::from("tests/charts/values/everything.yaml");
    let rendered = documents(&helm.rendered(Some(&path)));
    let shown = only(&rendered, "ConfigMap")["data"]["bellhop.json"].as_str();
    let shown: Value = serde_json::from_str(shown.unwrap()).unwrap();
    assert_eq!(shown, dashboard());

    let groups = only(&rendered, "PrometheusRule")["spec"]["groups"].clone();
    let groups = groups.as_array().unwrap().iter();
    let mut carried: Vec<Value> = groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    for alert in &mut carried {
        let annotations = alert["annotations"].as_object_mut().unwrap();
        let url = annotations.remove("runbook_url").unwrap();
        let name = alert["alert"].as_str().unwrap().to_lowercase();
        let wanted = format!("https://docs.example.com/bellhop/operations#{name}");
        assert_eq!(url, wanted);
    }
    let mut wanted = alerts();
    wanted.retain(|alert| alert["alert"] != "BellhopWeakSignature");
    assert_eq!(carried, wanted);
}
