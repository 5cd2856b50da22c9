//! The operator with the rights of deploy/rbac.yaml, no more, on an API server that enforces them.
//! Oracle: that server's audit log.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::plane::Call;
use super::process::{bellhop, provider, start};
use super::space::Space;

/// The operator's account.
pub const ACCOUNT: &str = "system:serviceaccount:bellhop-system:bellhop-operator";

/// Rights without a call of their own: the server asks for them within another call.
const WITHIN: [(&str, &str); 2] = [
    // A server-side apply (patch) of what is not there yet.
    ("create", "secrets"),
    // Naming the subscription as an owner that waits for what it owns.
    ("update", "bellhop.dev/webhooksubscriptions/finalizers"),
];

fn documents() -> Vec<Value> {
    let text = std::fs::read_to_string("deploy/rbac.yaml").unwrap();
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

/// Verb and resource of every rule.
fn granted() -> BTreeSet<(String, String)> {
    let documents = documents();
    let rules = documents
        .iter()
        .flat_map(|document| document["rules"].as_array().into_iter().flatten());
    let mut granted = BTreeSet::new();
    let texts = |value: &Value| -> Vec<String> {
        let all = value.as_array().unwrap().iter();
        all.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    for rule in rules {
        let (groups, resources) = (texts(&rule["apiGroups"]), texts(&rule["resources"]));
        assert_eq!(
            (groups.len(), resources.len()),
            (1, 1),
            "one resource in a rule: {rule}"
        );
        let what = if groups[0].is_empty() {
            resources[0].clone()
        } else {
            format!("{}/{}", groups[0], resources[0])
        };
        granted.extend(
            texts(&rule["verbs"])
                .into_iter()
                .map(|verb| (verb, what.clone())),
        );
    }
    granted
}

/// A kubeconfig of the account that deploy/rbac.yaml makes, by a real token.
pub fn kubeconfig(space: &Space) -> PathBuf {
    let token = space
        .kubectl_in("bellhop-system", ["create", "token", "bellhop-operator"])
        .fine();
    space
        .plane
        .kubeconfig_of_token("bellhop-operator", token.trim())
}

/// Fails when the operator was refused anything.
pub fn check_nothing_forbidden(calls: &[Call]) {
    let refused: BTreeSet<&Call> = calls.iter().filter(|call| call.code == 403).collect();
    assert!(refused.is_empty(), "not in deploy/rbac.yaml: {refused:#?}");
}

/// Fails when a right was granted that nothing needed.
pub fn check_nothing_superfluous(calls: &[Call]) {
    let used: BTreeSet<(String, String)> = calls
        .iter()
        .map(|call| (call.verb.clone(), call.what.clone()))
        .collect();
    let within = WITHIN.map(|(verb, what)| (verb.to_owned(), what.to_owned()));
    let unused: Vec<_> = granted()
        .into_iter()
        .filter(|right| !used.contains(right) && !within.contains(right))
        .collect();
    assert!(
        unused.is_empty(),
        "in deploy/rbac.yaml, and not needed: {unused:?}"
    );
}

/// In one namespace: bound there, told so, and seen nowhere else.
#[tokio::test]
async fn the_operator_of_one_namespace_stays_in_it() {
    let Some(space) = Space::new("rights").await else {
        return;
    };
    let account = format!("--serviceaccount={}:operator", space.name);
    let documented = std::fs::read_to_string("deploy/rbac.yaml").unwrap();
    let roles: Vec<&str> = documented
        .split("\n---\n")
        .filter(|text| text.contains("\nkind: ClusterRole\n") || text.contains("\nkind: Role\n"))
        .collect();
    let roles = roles.join("\n---\n").replace("bellhop-system", &space.name);
    space.kubectl_with(["apply", "-f", "-"], &roles).fine();
    space
        .kubectl(["create", "serviceaccount", "operator"])
        .fine();
    space
        .kubectl([
            "create",
            "rolebinding",
            "work",
            "--clusterrole=bellhop-operator",
            &account,
        ])
        .fine();
    space
        .kubectl([
            "create",
            "rolebinding",
            "lease",
            "--role=bellhop-operator-lease",
            &account,
        ])
        .fine();
    let token = space.kubectl(["create", "token", "operator"]).fine();
    let user = format!("system:serviceaccount:{}:operator", space.name);
    let kubeconfig = space.plane.kubeconfig_of_token(&space.name, token.trim());

    let (_provider, registry) = provider();
    let mut operator = bellhop(&[
        "operator",
        "--admin-listen",
        "127.0.0.1:0",
        "--cluster-id",
        "test",
    ]);
    operator.args([
        "--namespaces",
        &space.name,
        "--lease-namespace",
        &space.name,
    ]);
    operator
        .args(["--sandbox-registry-url", &registry])
        .env("KUBECONFIG", kubeconfig);
    let operator = start("operator", &operator);

    let text = std::fs::read_to_string("examples/minimal.yaml").unwrap();
    let text = text.replace("namespace: shop", &format!("namespace: {}", space.name));
    space.kubectl_with(["apply", "-f", "-"], &text).fine();
    let ready = space.kubectl([
        "wait",
        "--for=condition=Ready",
        "whs/redeam-sandbox",
        "--timeout=60s",
    ]);
    assert!(ready.well, "{ready:?}\n{}", operator.log());
    space
        .kubectl_with(["delete", "--timeout=60s", "-f", "-"], &text)
        .fine();

    let calls = space.plane.calls(&user);
    assert!(calls.iter().any(|call| call.verb == "delete"), "{calls:?}");
    check_nothing_forbidden(&calls);
    let elsewhere: Vec<&Call> = calls
        .iter()
        .filter(|call| call.namespace != space.name)
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
