//! Bellhop installed, as a user installs it: the two charts, by Helm.

use serde_json::{Value, json};

use crate::cluster::{Cluster, project};
use crate::kubectl::{Said, run};
use crate::provider::{Authority, Provider, list};

/// Where it is installed.
pub const NAMESPACE: &str = "bellhop-system";

/// The ConfigMap with the provider's certificate authority.
const AUTHORITY: &str = "provider-ca";

/// Runs Helm against the cluster.
pub fn helm(cluster: &Cluster, arguments: &[&str]) -> Said {
    let mut command = std::process::Command::new(project("target/tools/bin/helm"));
    command.env("KUBECONFIG", &cluster.kubectl.kubeconfig);
    run(command.args(arguments), "")
}

/// Installs it, or upgrades it to this image.
pub fn install(cluster: &Cluster, authority: &Authority, image: &str) {
    install_with(cluster, authority, image, &[]);
}

/// The same, with more of Helm's flags.
pub fn install_with(cluster: &Cluster, authority: &Authority, image: &str, more: &[&str]) {
    let crds = project("charts/bellhop-crds");
    let chart = project("charts/bellhop");
    let (crds, chart) = (crds.to_str().unwrap(), chart.to_str().unwrap());
    let upgrade = |release: &str, chart: &str, more: &[&str]| {
        let usual = [
            "upgrade",
            "--install",
            release,
            chart,
            "--wait",
            "--timeout=60s",
        ];
        helm(cluster, &[&usual[..], more].concat()).fine();
    };
    // As the README does it; that release is there already after its walk.
    upgrade("bellhop-crds", crds, &["--namespace", "default"]);
    cluster
        .kubectl
        .apply(&config_map(&authority.pem).to_string());
    let base = Provider::base();
    let [repository, tag] = image_values(image);
    let values = [
        repository,
        tag,
        format!("provider.sandbox.registryUrl={base}/registry/v1"),
        format!("provider.sandbox.apiUrl={base}/v1.3"),
        format!("provider.caConfigMap={AUTHORITY}"),
        // The operator reads it when it starts: another authority is another pod.
        format!("podAnnotations.authority={}", hash(&authority.pem)),
        "probePrivate=true".to_owned(),
    ];
    let set = values.iter().flat_map(|value| ["--set", value.as_str()]);
    let set: Vec<&str> = ["--namespace", NAMESPACE].into_iter().chain(set).collect();
    upgrade("bellhop", chart, &[&set, more].concat());
}

/// The values that name an image.
pub fn image_values(image: &str) -> [String; 2] {
    let (repository, tag) = image.rsplit_once(':').unwrap();
    [
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
    ]
}

fn hash(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("h{:x}", hasher.finish())
}

fn config_map(pem: &str) -> Value {
    list(vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": AUTHORITY, "namespace": NAMESPACE },
            "data": { "ca.crt": pem },
        }),
    ])
}

/// Kills every operator at once, as the loss of their nodes would.
pub fn kill(cluster: &Cluster) {
    let pods = "app.kubernetes.io/name=bellhop,app.kubernetes.io/component=operator";
    cluster.kubectl.fine(&format!(
        "--namespace={NAMESPACE} delete pods --selector={pods} --force --grace-period=0"
    ));
}

/// Waits until as many operators are ready as are wanted.
pub fn until_ready(cluster: &Cluster) {
    cluster.kubectl.fine(&format!(
        "--namespace={NAMESPACE} rollout status deployment --selector=app.kubernetes.io/name=bellhop --timeout=60s"
    ));
}
