//! What all scenarios of a run share.

use std::collections::BTreeSet;
use std::sync::{Mutex, Once};

use crate::cluster::{Cluster, MADE, project};
use crate::kubectl::eventually;
use crate::operator::{self, NAMESPACE};
use crate::provider::{Authority, Provider};
use crate::shop::LABEL;

/// The cluster, and what is the same for all.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Whose certificates provider and receivers have.
    pub authority: Authority,
    installed: Once,
    /// What a user's cluster had before.
    before: BTreeSet<String>,
    /// The CRDs of the Gateway API that were brought, by their full names.
    brought: Mutex<Vec<String>>,
}

impl World {
    /// Nothing is installed yet.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            before: inventory(&cluster),
            cluster,
            authority: Authority::new(),
            installed: Once::new(),
            brought: Mutex::default(),
        }
    }

    /// A new provider; the first time, Bellhop is installed as well.
    pub fn provider(&self) -> Provider<'_> {
        let install = || operator::install(&self.cluster, &self.authority, &self.cluster.image);
        self.installed.call_once(install);
        Provider::start(&self.cluster, &self.authority)
    }

    /// Brings the CRDs of the Gateway API; those that are there stay as they are.
    pub fn bring_gateway_api(&self) {
        let folder = project("target/tools/gateway-api");
        let create = format!("create -f {} -o name", folder.display());
        let said = self.cluster.kubectl.say(&create);
        let mut complaints = said.err.lines().filter(|line| !line.trim().is_empty());
        let other = complaints.find(|line| !line.contains("AlreadyExists"));
        assert_eq!(other, None, "{}", said.err);
        let made: Vec<String> = said.out.lines().map(str::to_owned).collect();
        self.brought.lock().unwrap().extend(made);
    }

    /// Takes away all that the run brought, and nothing else: after that the cluster is as before.
    pub fn take_away(&self) {
        let kubectl = &self.cluster.kubectl;
        self.clean();
        for release in ["bellhop", "bellhop-crds"] {
            let uninstall = ["uninstall", release, "--namespace", NAMESPACE];
            let quiet = [
                "--ignore-not-found",
                "--no-hooks",
                "--wait",
                "--timeout=60s",
            ];
            operator::helm(&self.cluster, &[&uninstall[..], &quiet].concat()).fine();
        }
        let mut brought = self.brought.lock().unwrap().clone();
        brought.push("crd/webhooksubscriptions.bellhop.dev".to_owned());
        brought.extend(MADE.map(|name| format!("namespace/{name}")));
        let brought = brought.join(" ");
        kubectl.fine(&format!(
            "delete {brought} --ignore-not-found --timeout=120s"
        ));
        eventually("the cluster is as before", 30, || {
            let now = inventory(&self.cluster);
            let (left, gone) = (&now - &self.before, &self.before - &now);
            if left.is_empty() && gone.is_empty() {
                Ok(())
            } else {
                Err(format!("left behind: {left:?}; taken along: {gone:?}"))
            }
        });
    }

    /// Removes what a scenario that failed left behind.
    pub fn clean(&self) {
        let label = format!("--selector={LABEL}");
        let said = self
            .cluster
            .kubectl
            .say(&format!("delete namespaces {label} --timeout=120s"));
        if !said.well {
            println!(
                "what a scenario left behind could not be removed: {}",
                said.err
            );
        }
    }
}

/// What a run could leave behind in a cluster, or take along: of each kind all names. Helm keeps its
/// records in Secrets.
fn inventory(cluster: &Cluster) -> BTreeSet<String> {
    const CLUSTERWIDE: &str =
        "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings";
    let names = |what: &str| cluster.kubectl.fine(&format!("get {what} -o name"));
    let all = names(CLUSTERWIDE) + &names("secrets,configmaps --namespace=default");
    all.lines().map(str::to_owned).collect()
}
