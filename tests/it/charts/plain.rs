//! What is made of something else is what that makes of it today: the CRD in its chart, the plain
//! YAML of deploy/, the versions.

use std::process::Command;

use serde_json::Value;

use super::{Helm, documents, fine};

const CRD: &str = "bellhop.dev_webhooksubscriptions.yaml";

/// The chart's template is the file of crds/ with Helm's annotations in it. Refresh it with `make crds`.
#[test]
fn the_chart_of_the_resource_is_fresh() {
    let plain = std::fs::read_to_string(format!("crds/{CRD}")).unwrap();
    let template = std::fs::read_to_string(format!("charts/bellhop-crds/templates/{CRD}")).unwrap();
    let added = "  annotations:\n    helm.sh/resource-policy: keep\n    {{- with .Values.annotations }}\n    \
                 {{- toYaml . | nindent 4 }}\n    {{- end }}\n";
    assert_eq!(template.matches(added).count(), 1);
    assert!(template.replace(added, "") == plain, "run `make crds`");
}

#[test]
fn the_chart_of_the_resource_renders_the_resource() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let set = ["--set", "annotations.a=b"];
    let arguments = ["template", "bellhop-crds", "charts/bellhop-crds"];
    let text = fine(helm.run(arguments.into_iter().chain(set)));
    let mut rendered = documents(&text).remove(0);
    let annotations = rendered["metadata"]["annotations"].take();
    assert_eq!(annotations["a"], "b");
    rendered["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("annotations");
    let plain = std::fs::read_to_string(format!("crds/{CRD}")).unwrap();
    assert_eq!(rendered, documents(&plain).remove(0));
}

/// Refresh it with `make manifests`.
#[test]
fn the_plain_yaml_is_fresh() {
    let Some(helm) = Helm::find() else {
        return;
    };
    let mut command = Command::new("deploy/render.sh");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, helm.home.path());
    }
    let rendered = fine(command.arg(&helm.program).output().unwrap());
    let there = std::fs::read_to_string("deploy/bellhop.yaml").unwrap();
    assert!(rendered == there, "run `make manifests`");
    // For people without Helm nothing of Helm is in there.
    assert!(!there.to_lowercase().contains("helm"));
    let kinds = documents(&there);
    let kinds: Vec<&Value> = kinds.iter().map(|document| &document["kind"]).collect();
    assert_eq!(kinds[..2], ["Namespace", "CustomResourceDefinition"]);
    assert!(kinds.iter().any(|kind| **kind == "Deployment"));
}

#[test]
fn charts_have_the_version_of_the_program() {
    for chart in ["charts/bellhop", "charts/bellhop-crds"] {
        let text = std::fs::read_to_string(format!("{chart}/Chart.yaml")).unwrap();
        let chart: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
        let oldest = chart["kubeVersion"].as_str().unwrap();
        assert!(oldest.contains(super::OLDEST), "{oldest}");
    }
}
