//! Bellhop installed, as a user installs it: the two charts, by Helm. And its operators, killed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, project};
use crate::kubectl::{Said, eventually, run};
use crate::process;
use crate::provider::{Authority, Provider, list, namespace};

/// Where it is installed.
pub const NAMESPACE: &str = "bellhop-system";

/// The ConfigMap with the provider's certificate authority.
const AUTHORITY: &str = "provider-ca";

/// Its pods.
const OPERATORS: &str = "--namespace=bellhop-system \
    --selector=app.kubernetes.io/name=bellhop,app.kubernetes.io/component=operator";

/// How long nobody takes the Lease of one that does not renew it.
const LEASE: Duration = Duration::from_secs(10);

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
    let at = ["--namespace", NAMESPACE, "--create-namespace"];
    upgrade("bellhop-crds", crds, &at);
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

/// In a namespace that refuses pods below the restricted standard: the charts' own must be fit for it.
fn config_map(pem: &str) -> Value {
    list(vec![
        namespace(NAMESPACE),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": AUTHORITY, "namespace": NAMESPACE },
            "data": { "ca.crt": pem },
        }),
    ])
}

/// The operator that led when all were killed.
pub struct Dead {
    holder: String,
    at: Instant,
}

/// Kills every operator at once, as the loss of their nodes would: the Lease goes on naming the one
/// that led. Where their processes are out of reach, their pods go without a grace period.
#[track_caller]
pub fn kill(cluster: &Cluster) -> Dead {
    let pods = cluster.kubectl.get(&format!("pods {OPERATORS}"));
    let holder = leader(cluster);
    assert_ne!(holder, "", "nobody leads");
    let at = Instant::now();
    if cluster.own {
        process::kill(pods["items"].as_array().unwrap());
        assert_eq!(leader(cluster), holder, "it gave the Lease back");
    }
    // Other pods come at once: a container that dies again and again would have to wait.
    let delete = format!("delete pods {OPERATORS} --force --grace-period=0");
    cluster.kubectl.fine(&delete);
    Dead { holder, at }
}

/// Waits until another operator leads than the dead one.
#[track_caller]
pub fn until_another_leads(cluster: &Cluster, dead: &Dead) {
    let next = eventually("another operator leads", 40, || {
        let next = leader(cluster);
        let another = !next.is_empty() && next != dead.holder;
        if another { Ok(next) } else { Err(next) }
    });
    let took = dead.at.elapsed();
    println!(
        "{next} leads {} ms after {} died",
        took.as_millis(),
        dead.holder
    );
    // All that are there are new: for them the Lease of the dead one lasts for all of its time.
    assert!(!cluster.own || took >= LEASE, "the Lease was still held");
}

/// Whom the Lease names: the process that leads, or nobody.
fn leader(cluster: &Cluster) -> String {
    let lease = format!("lease bellhop-operator --namespace={NAMESPACE}");
    let holder = &cluster.kubectl.get(&lease)["spec"]["holderIdentity"];
    holder.as_str().unwrap_or_default().to_owned()
}

/// Waits until as many operators are ready as are wanted.
pub fn until_ready(cluster: &Cluster) {
    cluster.kubectl.fine(&format!(
        "--namespace={NAMESPACE} rollout status deployment --selector=app.kubernetes.io/name=bellhop --timeout=60s"
    ));
}
