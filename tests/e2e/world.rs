//! What all scenarios of a run share.

use std::sync::Once;

use crate::cluster::Cluster;
use crate::operator;
use crate::provider::{Authority, Counts, Provider};
use crate::shop::{LABEL, Shop};

/// The cluster, and what is the same for all.
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// Whose certificates provider and receivers have.
    pub authority: Authority,
    installed: Once,
}

impl World {
    /// Nothing is installed yet.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            authority: Authority::new(),
            installed: Once::new(),
        }
    }

    /// A new provider; the first time, Bellhop is installed as well.
    pub fn provider(&self) -> Provider<'_> {
        let install = || operator::install(&self.cluster, &self.authority, &self.cluster.image);
        self.installed.call_once(install);
        Provider::start(&self.cluster, &self.authority)
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
    truth.retain(|key, _| !untold.contains(key));
    shop.until_equal(&truth, 30);
    println!(
        "{what}: {} notifications, {} got 200, {} attempts retried ({} answers 503), {} without \
         an answer (not retried), {} never delivered; lost: 0 of {} entities",
        counts.made,
        counts.delivered,
        counts.retried,
        counts.unavailable,
        counts.unanswered,
        counts.never,
        truth.len(),
    );
    assert_eq!(counts.refused, 0, "{what}: answers that are not retried");
    assert!(counts.delivered > 0, "{what}: {counts:?}");
    counts
}
