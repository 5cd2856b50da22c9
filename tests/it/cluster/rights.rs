//! The operator with the rights of deploy/rbac.yaml, no more, on an API server that enforces them.
//! Oracle: that server's audit log.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use serde_json::Value;

use super::eventually;
use super::operator::receivers::make_pod;
use super::plane::{self, Call};
use super::process::{bellhop, provider, start};
use super::space::Space;
use super::supervise::Supervised;

/// The operator's account.
pub const ACCOUNT: &str = "system:serviceaccount:bellhop-system:bellhop-operator";

/// Rights without a call of their own: the server asks for them within another call.
const WITHIN: [(&str, &str); 15] = [
    // A server-side apply (patch) of what is not there yet.
    ("create", "secrets"),
    ("create", "serviceaccounts"),
    ("create", "configmaps"),
    ("create", "services"),
    ("create", "persistentvolumeclaims"),
    ("create", "apps/statefulsets"),
    ("create", "networking.k8s.io/networkpolicies"),
    ("create", "networking.k8s.io/ingresses"),
    ("create", "gateway.networking.k8s.io/httproutes"),
    // Naming the subscription as an owner that waits for what it owns.
    ("update", "bellhop.dev/webhooksubscriptions/finalizers"),
    // Naming it as the owner of what is there already: `onDelete: Delete` of a kept volume, and what
    // lost its owner.
    ("delete", "persistentvolumeclaims"),
    ("delete", "serviceaccounts"),
    ("delete", "configmaps"),
    ("delete", "services"),
    ("delete", "apps/statefulsets"),
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

/// A kind of the Gateway API, as far as an object of ours needs it.
const ROUTES: &str = r#"{
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "httproutes.gateway.networking.k8s.io",
        "annotations": { "api-approved.kubernetes.io": "unapproved, a test" }
    },
    "spec": {
        "group": "gateway.networking.k8s.io", "scope": "Namespaced",
        "names": { "plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute" },
        "versions": [{ "name": "v1", "served": true, "storage": true, "schema": {
            "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }]
    }
}"#;

/// The operator's own pod, of whose image the receivers are.
const POD: &str = r#"{
    "apiVersion": "v1", "kind": "Pod",
    "metadata": { "name": "operator-0", "namespace": "bellhop-system" },
    "spec": {
        "serviceAccountName": "bellhop-operator", "automountServiceAccountToken": false,
        "containers": [{ "name": "operator", "image": "an-image:of-its-own" }]
    }
}"#;

/// All that an operator with receivers does, in the whole cluster: no right is lacking, none too many.
#[tokio::test]
async fn each_right_is_needed_and_no_other() {
    let Some(plane) = tokio::task::spawn_blocking(plane::own).await.unwrap() else {
        return;
    };
    let space = Space::on(plane, "shop").await;
    for file in ["crds/", "deploy/rbac.yaml"] {
        space
            .kubectl_in("bellhop-system", ["apply", "-f", file])
            .fine();
    }
    for text in [ROUTES, POD] {
        space
            .kubectl_in_with("bellhop-system", ["apply", "-f", "-"], text)
            .fine();
    }
    let (_provider, registry) = provider();
    let mut operator = bellhop(&["operator", "--admin-listen", "127.0.0.1:0"]);
    operator
        .args(["--lease-namespace", "bellhop-system"])
        .args(["--sandbox-registry-url", &registry])
        .env("POD_NAME", "operator-0")
        .env("POD_NAMESPACE", "bellhop-system")
        .env("KUBECONFIG", kubeconfig(&space));
    let operator = start("operator", &operator);

    // Suspended: nobody need wait for receivers, which nobody runs here.
    let text = std::fs::read_to_string("examples/minimal.yaml").unwrap();
    space.kubectl_with(["apply", "-f", "-"], &text).fine();
    let merge = |spec: &str| {
        let patch = [
            "patch",
            "whs/redeam-sandbox",
            "--type=merge",
            "--patch",
            spec,
        ];
        space.kubectl(patch).fine();
    };
    merge(r#"{ "spec": { "suspend": true, "exposure": { "ingress": {} } } }"#);
    let there = |what: &'static str, there: bool| {
        eventually(&format!("{what}: {there}, {}", operator.log()), || {
            let found = space.kubectl(["get", what, "--output=name"]);
            (found.well == there).then_some(())
        });
    };
    there("ingress/redeam-sandbox", true);
    there("networkpolicy/redeam-sandbox", true);
    let sets: Api<StatefulSet> = Api::namespaced(space.client.clone(), "shop");
    let set = sets.get("redeam-sandbox").await.unwrap();
    let image = set.spec.clone().unwrap().template.spec.unwrap().containers[0]
        .image
        .clone();
    assert_eq!(image.as_deref(), Some("an-image:of-its-own"));
    let pods = Api::namespaced(space.client.clone(), "shop");
    make_pod(&pods, "redeam-sandbox", set).await;
    merge(
        r#"{ "spec": { "networkPolicy": { "enabled": false },
            "exposure": { "ingress": null, "httpRoute": { "parentRefs": [{ "name": "gate" }] } } } }"#,
    );
    there("ingress/redeam-sandbox", false);
    there("networkpolicy/redeam-sandbox", false);
    there("httproute/redeam-sandbox", true);
    // The watch of routes begins within half a minute after the start.
    eventually("the routes are watched", || {
        let mut calls = plane.calls(ACCOUNT).into_iter();
        calls.find(|call| call.verb == "watch" && call.what.ends_with("httproutes"))
    });
    merge(r#"{ "spec": { "exposure": null } }"#);
    there("httproute/redeam-sandbox", false);
    space
        .kubectl_with(["delete", "--timeout=60s", "-f", "-"], &text)
        .fine();

    let calls = plane.calls(ACCOUNT);
    check_nothing_forbidden(&calls);
    check_nothing_superfluous(&calls);
}

/// An operator whose account has the documented rights in this namespace only.
struct Bound {
    kubeconfig: PathBuf,
    user: String,
    admin: String,
}

fn bound(space: &Space) -> Bound {
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
    Bound {
        kubeconfig: space.plane.kubeconfig_of_token(&space.name, token.trim()),
        user,
        admin: format!("127.0.0.1:{}", plane::free_port()),
    }
}

impl Bound {
    /// Readiness names these lists of the namespace in which the operator has no rights.
    async fn check_forbidden(&self, lists: &[&str]) {
        let answer = reqwest::get(format!("http://{}/readyz", self.admin)).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 503);
        let told = answer.text().await.unwrap();
        for list in lists {
            let phrase = format!("the list of {list} in namespace kube-public (forbidden");
            assert!(told.contains(&phrase), "{phrase}: {told}");
        }
    }

    fn start(&self, space: &Space, namespaces: &str, registry: &str) -> Supervised {
        self.start_with(space, namespaces, registry, &[])
    }

    fn start_with(
        &self,
        space: &Space,
        namespaces: &str,
        registry: &str,
        more: &[&str],
    ) -> Supervised {
        let mut operator = bellhop(&["operator", "--cluster-id", "test"]);
        operator
            .args(more)
            .args(["--admin-listen", &self.admin])
            .args(["--namespaces", namespaces])
            .args(["--lease-namespace", &space.name])
            .args(["--sandbox-registry-url", registry])
            .env("KUBECONFIG", &self.kubeconfig);
        start("operator", &operator)
    }
}

/// Applies the smallest example there and waits until it is Ready; its text.
fn ready_example(space: &Space, operator: &Supervised) -> String {
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
    text
}

/// In one namespace: bound there, told so, and seen nowhere else.
#[tokio::test]
async fn the_operator_of_one_namespace_stays_in_it() {
    let Some(space) = Space::new("rights").await else {
        return;
    };
    let bound = bound(&space);
    let (_provider, registry) = provider();
    let operator = bound.start(&space, &space.name, &registry);
    let text = ready_example(&space, &operator);
    space
        .kubectl_with(["delete", "--timeout=60s", "-f", "-"], &text)
        .fine();

    let calls = space.plane.calls(&bound.user);
    assert!(calls.iter().any(|call| call.verb == "delete"), "{calls:?}");
    check_nothing_forbidden(&calls);
    let elsewhere: Vec<&Call> = calls
        .iter()
        .filter(|call| call.namespace != space.name)
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

/// Somebody forgot the Role in one of two namespaces: the other one is worked in, and who looks at
/// readiness is told which one is not.
#[tokio::test]
async fn a_forbidden_namespace_does_not_keep_the_others_waiting() {
    let Some(space) = Space::new("rights").await else {
        return;
    };
    let bound = bound(&space);
    let (_provider, registry) = provider();
    let both = format!("kube-public,{}", space.name);
    let operator = bound.start(&space, &both, &registry);
    let text = ready_example(&space, &operator);
    bound.check_forbidden(&["subscriptions"]).await;
    space
        .kubectl_with(["delete", "--timeout=60s", "-f", "-"], &text)
        .fine();
}

/// The same where receivers are run, whose pods and objects are watched as well.
#[tokio::test]
async fn nor_are_receivers_kept_waiting() {
    let Some(space) = Space::new("rights").await else {
        return;
    };
    let bound = bound(&space);
    let (_provider, registry) = provider();
    let both = format!("kube-public,{}", space.name);
    let receivers = ["--receiver-image", "an-image:1"];
    let operator = bound.start_with(&space, &both, &registry, &receivers);
    // Suspended: no pods run here.
    let text = std::fs::read_to_string("examples/minimal.yaml").unwrap();
    let text = text
        .replace("namespace: shop", &format!("namespace: {}", space.name))
        .replace(
            "  environment: sandbox",
            "  suspend: true\n  environment: sandbox",
        );
    space.kubectl_with(["apply", "-f", "-"], &text).fine();
    eventually(&format!("receivers are made, {}", operator.log()), || {
        let found = space.kubectl(["get", "statefulset/redeam-sandbox"]);
        found.well.then_some(())
    });
    bound
        .check_forbidden(&["subscriptions", "receiver pods", "StatefulSets (metadata)"])
        .await;
    space
        .kubectl_with(["delete", "--timeout=60s", "-f", "-"], &text)
        .fine();
}
