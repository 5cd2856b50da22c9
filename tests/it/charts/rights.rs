//! The chart grants what deploy/rbac.yaml grants, which tests/it/cluster/rights.rs proves to be
//! enough and not too much.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Helm, NEWEST, cases, documents, fine};

/// Kind, name and rules of the roles of the operator.
fn roles(documents: &[Value]) -> BTreeSet<(String, String, String)> {
    let role = |document: &&Value| {
        let kind = document["kind"].as_str().unwrap();
        let people = document["metadata"]["labels"]["app.kubernetes.io/component"] == "people";
        kind.ends_with("Role") && !people
    };
    documents
        .iter()
        .filter(role)
        .map(|document| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&document["kind"]),
                text(&document["metadata"]["name"]),
                document["rules"].to_string(),
            )
        })
        .collect()
}

fn documented() -> BTreeSet<(String, String, String)> {
    let mut all = documents(&std::fs::read_to_string("deploy/rbac.yaml").unwrap());
    // With `--receiver-image`, which the chart gives, it needs no right on its own pod.
    for document in &mut all {
        if let (true, Some(rules)) = (document["kind"] == "Role", document["rules"].as_array_mut())
        {
            let before = rules.len();
            rules.retain(|rule| rule["resources"][0] != "pods");
            assert_eq!(rules.len() + 1, before);
        }
    }
    roles(&all)
}

#[test]
fn the_chart_and_the_plain_file_grant_the_same() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let rendered = roles(&documents(&helm.rendered(None)));
    assert_eq!(
        rendered,
        documented(),
        "left: charts/bellhop (its rules are files/operator-rules.yaml), right: deploy/rbac.yaml"
    );
}

/// The rules are written once, in the chart.
#[test]
fn the_plain_file_is_made_of_the_charts_rules() {
    let made = fine(Command::new("deploy/rights.sh").output().unwrap());
    let file = std::fs::read_to_string("deploy/rbac.yaml").unwrap();
    assert!(made == file, "deploy/rbac.yaml is stale: `make manifests`");
}

/// To ask receivers through the API server takes one right more.
#[test]
fn the_way_through_the_api_server_is_granted_only_when_it_is_taken() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let rules = |more: &[&str]| {
        let text = fine(helm.template(None, NEWEST, more));
        let all = roles(&documents(&text)).into_iter();
        let mut work = all.filter(|(_, name, _)| name == "bellhop-operator");
        let of_it: Vec<Value> = serde_json::from_str(&work.next().unwrap().2).unwrap();
        of_it
    };
    let (pod, proxy) = (rules(&[]), rules(&["--set", "receiver.access=proxy"]));
    assert_eq!(proxy[..pod.len()], pod);
    let more = json!({ "apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"] });
    assert_eq!(proxy[pod.len()..], [more]);
}

/// In namespaces: the same rules as a Role in each, and outside of them the lease and, without
/// `clusterId`, the namespace kube-system.
#[test]
fn namespaces_get_the_same_rules_and_nothing_is_granted_outside() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let work = documented()
        .into_iter()
        .find(|(kind, name, _)| kind == "ClusterRole" && name == "bellhop-operator");
    let (_, _, work) = work.unwrap();
    for (file, namespaces, outside) in [
        ("namespaces", &["shop", "tours"][..], 0),
        ("namespaces-of-this-cluster", &["shop"], 1),
    ] {
        let path = format!("tests/charts/values/{file}.yaml");
        let rendered = documents(&helm.rendered(Some(Path::new(&path))));
        let of = |kind: &str| {
            let all = rendered.iter().filter(|document| document["kind"] == kind);
            all.collect::<Vec<_>>()
        };
        assert_eq!(of("ClusterRole").len(), outside, "{file}");
        assert_eq!(of("ClusterRoleBinding").len(), outside, "{file}");
        for role in of("ClusterRole") {
            assert_eq!(role["rules"][0]["resourceNames"][0], "kube-system");
        }
        let roles = of("Role");
        assert_eq!(roles.len(), namespaces.len() + 1, "{file}");
        for namespace in namespaces {
            let here = |document: &&&Value| document["metadata"]["namespace"] == *namespace;
            let role = roles.iter().find(here).unwrap();
            assert_eq!(role["rules"].to_string(), work);
            let bindings = of("RoleBinding");
            let binding = bindings.iter().find(here).unwrap();
            assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
            assert_eq!(binding["subjects"][0]["namespace"], "bellhop-system");
        }
    }
}

/// A binding without its role, or for an account that no pod has, would only show in a cluster.
#[test]
fn bindings_pods_and_accounts_fit_together() {
    let Some(helm) = Helm::find() else {
        return;
    };
    for (name, values) in cases() {
        let rendered = documents(&helm.rendered(values.as_deref()));
        let named = |kind: &str| -> BTreeSet<&str> {
            let of_kind = rendered.iter().filter(|document| document["kind"] == kind);
            of_kind
                .map(|document| document["metadata"]["name"].as_str().unwrap())
                .collect()
        };
        let pods = rendered.iter().filter_map(|document| {
            let template = &document["spec"]["template"]["spec"]["serviceAccountName"];
            template
                .as_str()
                .or(document["spec"]["serviceAccountName"].as_str())
        });
        let accounts: BTreeSet<&str> = pods.collect();
        assert_eq!(accounts.len(), 1, "{name}");
        if name != "bare" {
            assert_eq!(named("ServiceAccount"), accounts, "{name}");
        }
        for document in &rendered {
            if let Some(role) = document["roleRef"]["name"].as_str() {
                let kind = document["roleRef"]["kind"].as_str().unwrap();
                assert!(named(kind).contains(role), "{name}: {kind} {role}");
                let subject = document["subjects"][0]["name"].as_str().unwrap();
                assert!(accounts.contains(subject), "{name}: {subject}");
            }
        }
    }
}

/// The table of docs/security.md has a row for each rule of deploy/rbac.yaml, with all its verbs.
#[test]
fn the_table_of_the_rights_is_complete() {
    let page = std::fs::read_to_string("docs/security.md").unwrap();
    let section = page.split("## The operator's rights").nth(1).unwrap();
    let rows: Vec<&str> = section
        .lines()
        .take_while(|line| !line.starts_with("- "))
        .filter(|line| line.starts_with("| `"))
        .collect();
    let mut named = BTreeSet::new();
    for (_, _, rules) in documented() {
        let rules: Vec<Value> = serde_json::from_str(&rules).unwrap();
        for rule in &rules {
            let resource = rule["resources"][0].as_str().unwrap();
            let of_it = |row: &&&str| {
                let kinds = row.split(" | ").next().unwrap();
                kinds.contains(&format!("`{resource}`"))
            };
            let row = rows.iter().find(of_it);
            let row = row.unwrap_or_else(|| panic!("no row for {resource}"));
            let verbs = row.split(" | ").nth(1).unwrap();
            for verb in rule["verbs"].as_array().unwrap() {
                let verb = verb.as_str().unwrap();
                assert!(verbs.contains(verb), "{resource}: {verb}");
            }
            named.insert(*row);
        }
    }
    assert_eq!(rows.len(), named.len(), "a row for what is not granted");
}
