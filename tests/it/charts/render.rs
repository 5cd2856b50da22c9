//! What the chart makes of its values: by hand from values.yaml, and by the program's own parser.

use std::path::Path;

use clap::Parser as _;
use serde_json::{Value, json};

use super::{Helm, cases, documents, fine, only};
use bellhop::cli::Cli;

fn everything(helm: &Helm) -> Vec<Value> {
    documents(&helm.rendered(Some(Path::new("tests/charts/values/everything.yaml"))))
}

/// The pod of an object, if it has one.
fn pod(document: &Value) -> Option<&Value> {
    whole_pod(document).map(|pod| &pod["spec"])
}

/// The same with its metadata.
fn whole_pod(document: &Value) -> Option<&Value> {
    [&document["spec"]["template"], document]
        .into_iter()
        .find(|pod| pod["spec"]["containers"].is_array())
}

#[test]
fn the_program_understands_every_argument() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let mut commands = Vec::new();
    for (name, values) in cases() {
        for document in documents(&helm.rendered(values.as_deref())) {
            let Some(pod) = pod(&document) else { continue };
            let arguments = pod["containers"][0]["args"].as_array().unwrap();
            let arguments: Vec<&str> = arguments.iter().map(|one| one.as_str().unwrap()).collect();
            let words = ["bellhop"].iter().chain(&arguments);
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{name}: {error}");
            }
            commands.push(arguments[0].to_owned());
        }
    }
    commands.sort();
    commands.dedup();
    assert_eq!(commands, ["ask", "operator", "remaining"]);
}

#[test]
fn values_reach_the_arguments() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let arguments = |values: Option<&Path>| {
        let documents = documents(&helm.rendered(values));
        let deployment = only(&documents, "Deployment");
        let arguments = pod(deployment).unwrap()["containers"][0]["args"].clone();
        let arguments: Vec<String> = serde_json::from_value(arguments).unwrap();
        arguments
    };
    let all = arguments(Some(Path::new("tests/charts/values/everything.yaml")));
    for wanted in [
        "--admin-listen=[::]:8081",
        "--log=bellhop=debug,warn",
        "--log-format=text",
        "--lease-name=hooks-operator",
        "--cluster-id=blue",
        "--receiver-image=registry.example.com/redeam/bellhop:next",
        "--receiver-access=proxy",
        "--max-concurrent-rollouts=1",
        "--monitoring-namespaces=prometheus,observability",
        "--concurrency=8",
        "--requests-per-account=2",
        "--requests-per-second=20",
        "--sandbox-registry-url=http://provider.test:8090/registry/v1",
        "--sandbox-api-url=http://provider.test:8090/v1.3",
        "--production-registry-url=https://registry.example.com/registry/v1",
        "--production-api-url=https://api.example.com/v1.3",
        "--allow-plain-http",
        "--probe-private",
    ] {
        assert!(all.iter().any(|one| one == wanted), "{wanted}: {all:?}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let defaults = arguments(None);
    let image = format!("--receiver-image=localhost/bellhop:{version}");
    assert!(defaults.contains(&image), "{defaults:?}");
    assert!(!defaults.iter().any(|one| one.contains("-url=")
        || one.starts_with("--namespaces")
        || one.starts_with("--cluster-id")));
    let namespaces = arguments(Some(Path::new("tests/charts/values/namespaces.yaml")));
    assert!(namespaces.contains(&"--namespaces=shop,tours".to_owned()));
}

#[test]
fn labels_annotations_and_placement_reach_every_object_and_pod() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let all = everything(&helm);
    for document in &all {
        let what = format!("{} {}", document["kind"], document["metadata"]["name"]);
        let metadata = &document["metadata"];
        assert_eq!(metadata["labels"]["team"], "integrations", "{what}");
        let owner = &metadata["annotations"]["example.com/owner"];
        assert_eq!(owner, "integrations@example.com", "{what}");
        let Some(whole) = whole_pod(document) else {
            continue;
        };
        let metadata = &whole["metadata"];
        assert_eq!(metadata["labels"]["zone"], "inner", "{what}");
        for (name, value) in [
            ("example.com/scrape", "no"),
            ("example.com/owner", "integrations@example.com"),
        ] {
            assert_eq!(metadata["annotations"][name], value, "{what}");
        }
        let pod = &whole["spec"];
        let nodes =
            &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let architecture = &nodes["nodeSelectorTerms"][0]["matchExpressions"][0];
        assert_eq!(architecture["values"], json!(["amd64"]), "{what}");
        // What keeps operators apart is theirs alone.
        let apart = !pod["affinity"]["podAntiAffinity"].is_null();
        assert_eq!(apart, document["kind"] == "Deployment", "{what}");
        assert_eq!(
            pod["imagePullSecrets"],
            json!([{ "name": "registry" }]),
            "{what}"
        );
        assert_eq!(pod["tolerations"][0]["key"], "dedicated", "{what}");
        assert_eq!(pod["nodeSelector"]["kubernetes.io/os"], "linux", "{what}");
        assert_eq!(
            pod["priorityClassName"], "system-cluster-critical",
            "{what}"
        );
        assert_eq!(
            pod["containers"][0]["resources"]["limits"]["memory"],
            "512Mi"
        );
        let image = pod["containers"][0]["image"].as_str().unwrap();
        assert!(
            image.starts_with("registry.example.com/redeam/bellhop@sha256:0123"),
            "{image}"
        );
    }
    let template = &only(&all, "Deployment")["spec"]["template"];
    let anti = &template["spec"]["affinity"]["podAntiAffinity"];
    let terms = &anti["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        *terms,
        json!([{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": { "app.kubernetes.io/component": "operator" } },
        }])
    );
    let spread = &template["spec"]["topologySpreadConstraints"];
    let own = &spread[0]["labelSelector"]["matchLabels"];
    assert_eq!(own["app.kubernetes.io/component"], "operator");
    assert_eq!(
        spread[1]["labelSelector"],
        json!({ "matchLabels": { "team": "integrations" } })
    );
    assert_eq!(
        only(&all, "ServiceAccount")["metadata"]["annotations"]["example.com/role"],
        "hooks"
    );
}

/// What selects the operator's pods selects no receiver and no pod of a hook.
#[test]
fn selectors_find_the_operator_and_nothing_else() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let all = documents(&helm.rendered(None));
    let labels = &only(&all, "Deployment")["spec"]["template"]["metadata"]["labels"];
    for selector in [
        &only(&all, "Deployment")["spec"]["selector"]["matchLabels"],
        &only(&all, "Service")["spec"]["selector"],
        &only(&all, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ] {
        let fits = |labels: &Value| {
            let mut wanted = selector.as_object().unwrap().iter();
            wanted.all(|(key, value)| labels[key] == *value)
        };
        assert!(fits(labels));
        assert!(!fits(&only(&all, "Pod")["metadata"]["labels"]));
        assert!(!fits(
            &only(&all, "Job")["spec"]["template"]["metadata"]["labels"]
        ));
        assert_eq!(selector["app.kubernetes.io/component"], "operator");
    }
}

/// Two releases in one cluster, each for namespaces of its own, share no object without a namespace.
#[test]
fn releases_for_namespaces_do_not_meet() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let clusterwide = |release: &str, namespace: &str| {
        let text = fine(helm.run([
            "template",
            release,
            "charts/bellhop",
            "--namespace",
            namespace,
            "--set",
            "watchNamespaces={shop}",
        ]));
        let names = documents(&text).into_iter();
        let names = names.filter(|document| document["metadata"]["namespace"].is_null());
        let names: Vec<Value> = names
            .map(|document| document["metadata"]["name"].clone())
            .collect();
        assert_eq!(names.len(), 2);
        names
    };
    let one = clusterwide("bellhop", "blue");
    let other = clusterwide("bellhop", "green");
    assert!(one.iter().all(|name| !other.contains(name)), "{one:?}");
}

/// The hooks are where Helm looks for them.
#[test]
fn hooks_are_hooks_and_the_resource_is_kept() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let all = documents(&helm.rendered(None));
    let annotation =
        |kind: &str, name: &str| only(&all, kind)["metadata"]["annotations"][name].clone();
    assert_eq!(annotation("Job", "helm.sh/hook"), "pre-delete");
    assert_eq!(annotation("Pod", "helm.sh/hook"), "test");
    let crds = fine(helm.run(["template", "bellhop-crds", "charts/bellhop-crds"]));
    let kept = &documents(&crds)[0]["metadata"]["annotations"]["helm.sh/resource-policy"];
    assert_eq!(kept, "keep");
    // The linter's own word for what restricts a pod is not asked: by hand, from the standard.
    for document in &all {
        let Some(pod) = pod(document) else { continue };
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["allowPrivilegeEscalation"], false);
    }
}

#[test]
fn what_is_off_is_not_there() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let kinds = |values: Option<&Path>| {
        let mut kinds: Vec<String> = documents(&helm.rendered(values))
            .iter()
            .map(|document| document["kind"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    let bare = kinds(Some(Path::new("tests/charts/values/bare.yaml")));
    assert_eq!(bare, ["Deployment", "Pod", "Service"]);
    let defaults = kinds(None);
    for kind in ["ConfigMap", "PodMonitor", "PrometheusRule"] {
        assert!(!defaults.iter().any(|one| one == kind), "{kind}");
    }
}

/// NOTES.txt: the next command, whatever the values.
#[test]
fn the_notes_say_what_comes_next() {
    let Some(helm) = Helm::find() else {
        return;
    };
    for (name, values) in cases() {
        let mut arguments = vec!["install", "bellhop", "charts/bellhop", "--dry-run=client"];
        let values = values.as_ref().map(|path| path.to_str().unwrap());
        arguments.extend(values.into_iter().flat_map(|path| ["--values", path]));
        let said = fine(helm.run(arguments));
        let notes = said.split("NOTES:").nth(1).unwrap();
        assert!(
            notes.contains("helm install bellhop-crds"),
            "{name}: {notes}"
        );
        assert!(notes.contains("helm test bellhop"), "{name}: {notes}");
        assert!(!notes.contains("kubectl apply"), "{name}: {notes}");
    }
}

/// What NOTES.txt says where the resource is in the cluster already. An install asks the cluster for
/// that, and `template`, which can be told, shows no notes: they are a template of the test's here.
#[test]
fn with_the_resource_in_the_cluster_the_notes_go_on_to_a_subscription() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path();
    std::fs::create_dir(chart.join("templates")).unwrap();
    for file in ["Chart.yaml", "values.yaml", "templates/_helpers.tpl"] {
        std::fs::copy(Path::new("charts/bellhop").join(file), chart.join(file)).unwrap();
    }
    let notes = std::fs::read_to_string("charts/bellhop/templates/NOTES.txt").unwrap();
    let template = format!(
        "{{{{ define \"notes\" }}}}{notes}{{{{ end }}}}notes: |\n{{{{ include \"notes\" . | indent 2 }}}}"
    );
    std::fs::write(chart.join("templates/notes.yaml"), template).unwrap();
    let chart = chart.to_str().unwrap();
    let known = "bellhop.dev/v1alpha1/WebhookSubscription";
    let notes = |more: &[&str]| {
        let arguments = [&["template", "bellhop", chart], more].concat();
        let text = fine(helm.run(arguments));
        documents(&text)[0]["notes"].as_str().unwrap().to_owned()
    };
    let first = "helm install bellhop-crds charts/bellhop-crds";
    let next = "kubectl apply -f examples/minimal.yaml";
    let (with, without) = (notes(&["--api-versions", known]), notes(&[]));
    assert!(with.contains(next) && !with.contains(first), "{with}");
    assert!(with.contains("kubectl get whs"), "{with}");
    assert!(
        without.contains(first) && !without.contains(next),
        "{without}"
    );
    assert!(Path::new("examples/minimal.yaml").is_file());
}

/// Who may reach the operator, and whom it may: as values.yaml says, rule by rule. What goes out of the
/// pods of hooks is held to the same.
#[test]
fn the_network_policy_is_as_the_values_say() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let policy = |values: Option<&Path>| {
        let all = documents(&helm.rendered(values));
        only(&all, "NetworkPolicy")["spec"].clone()
    };
    let test = json!({ "podSelector": { "matchLabels": {
        "app.kubernetes.io/name": "bellhop",
        "app.kubernetes.io/component": "test",
        "app.kubernetes.io/instance": "bellhop",
    } } });
    let monitoring = |namespaces: Value| {
        json!({ "namespaceSelector": { "matchExpressions": [{
            "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces,
        }] } })
    };
    let spec = policy(None);
    let whole = json!({
        "matchLabels": {
            "app.kubernetes.io/name": "bellhop",
            "app.kubernetes.io/instance": "bellhop",
        },
        "matchExpressions": [{
            "key": "app.kubernetes.io/component",
            "operator": "In",
            "values": ["operator", "test", "uninstall-check"],
        }],
    });
    assert_eq!(spec["podSelector"], whole);
    assert_eq!(spec["policyTypes"], json!(["Ingress"]));
    assert_eq!(spec["egress"], Value::Null, "all of it is allowed");
    let from = json!([test, monitoring(json!(["monitoring"]))]);
    assert_eq!(
        spec["ingress"],
        json!([{ "ports": [{ "port": "admin" }], "from": from }])
    );

    let spec = policy(Some(Path::new("tests/charts/values/everything.yaml")));
    assert_eq!(spec["podSelector"], whole);
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    let given = json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } },
        "podSelector": { "matchExpressions": [
            { "key": "app", "operator": "In", "values": ["prometheus"] },
        ] },
    });
    let from = json!([
        test,
        monitoring(json!(["prometheus", "observability"])),
        given
    ]);
    assert_eq!(
        spec["ingress"],
        json!([{ "ports": [{ "port": "admin" }], "from": from }])
    );
    let operator = json!({ "podSelector": { "matchLabels": {
        "app.kubernetes.io/name": "bellhop",
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/instance": "bellhop",
    } } });
    assert_eq!(
        spec["egress"],
        json!([
            // For `helm test`.
            { "ports": [{ "port": 8081 }], "to": [operator] },
            { "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }] },
            {
                "to": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"] } }],
                "ports": [{ "port": 443 }],
            },
        ])
    );
}
