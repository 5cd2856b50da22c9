//! What all scenarios of a run share.

use std::sync::{Mutex, Once};

use crate::cluster::{Cluster, project};
use crate::operator::{self, NAMESPACE};
use crate::provider::{Authority, Counts, Provider};
use crate::shop::{LABEL, Shop};

/// The cluster, and what is the same for all.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Whose certificates provider and receivers have.
    pub authority: Authority,
    installed: Once,
    /// Whether the namespace that Bellhop is installed into was there before.
    had_namespace: bool,
    /// The CRDs of the Gateway API that were brought, by their full names.
    brought: Mutex<Vec<String>>,
}

impl World {
    /// Nothing is installed yet.
    pub fn new(cluster: Cluster) -> Self {
        let namespace = format!("get namespace {NAMESPACE} --ignore-not-found -o name");
        let had_namespace = !cluster.kubectl.fine(&namespace).trim().is_empty();
        Self {
            cluster,
            authority: Authority::new(),
            installed: Once::new(),
            had_namespace,
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

    /// Takes away all that the run brought, and nothing else.
    pub fn take_away(&self) {
        let kubectl = &self.cluster.kubectl;
        self.clean();
        for (release, at) in [("bellhop", NAMESPACE), ("bellhop-crds", "default")] {
            let uninstall = ["uninstall", release, "--namespace", at];
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
        brought.push(format!("namespace/{}", crate::provider::NAMESPACE));
        if !self.had_namespace {
            brought.push(format!("namespace/{NAMESPACE}"));
        }
        let brought = brought.join(" ");
        kubectl.fine(&format!(
            "delete {brought} --ignore-not-found --timeout=120s"
        ));
        let left = kubectl.fine(&format!("get {brought} --ignore-not-found -o name"));
        assert_eq!(left.trim(), "", "it is still there");
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

/// Checks that nothing was lost over a stretch of load, and says the numbers.
#[track_caller]
pub fn check_account(
    what: &str,
    provider: &Provider<'_>,
    shop: &Shop<'_>,
    before: Counts,
) -> Counts {
    let counts = provider.counts().since(before);
    let (mut truth, untold) = provider.owed();
    // What the provider never got through is counted; what it did must be there.
    truth.excuse(untold);
    let lost = shop.differing(&truth, 30);
    println!(
        "{what}: {} notifications, {} got 200, {} attempts retried ({} answers 503), {} without \
         an answer (not retried), {} never delivered; lost: {} of {} entities",
        counts.made,
        counts.delivered,
        counts.retried,
        counts.unavailable,
        counts.unanswered,
        counts.never,
        lost.len(),
        truth.entities.len(),
    );
    assert!(lost.is_empty(), "{what}: {lost:?}");
    assert_eq!(counts.refused, 0, "{what}: answers that are not retried");
    assert!(counts.delivered > 0, "{what}: {counts:?}");
    counts
}
