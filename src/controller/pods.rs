//! The receivers' pods, as the watch shows them.
//!
//! Owns: what of a pod is of interest, which is little: thousands of them are kept. Never here: IO;
//! a decision.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod as KubePod, PodStatus};

use super::build::TEMPLATE_HASH;
use super::fleet::Key;
use super::owned::INSTANCE;

/// The annotation that a pod is poked with: any new value makes the kubelet look at what is mounted
/// at once, instead of within a minute or two.
pub const POKE: &str = "bellhop.dev/poke";

/// What a pod that is only starting waits for is no trouble.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: Option<String>,
    /// Whether Services send to it.
    pub ready: bool,
    /// The digest of the template that it was made from.
    pub template: Option<String>,
    /// What it was poked with last.
    pub poke: Option<String>,
    /// It is about to go.
    pub ending: bool,
    /// In Kubernetes' word: `ImagePullBackOff`, `Unschedulable`.
    pub trouble: Option<String>,
}

impl Pod {
    /// What is of interest, and of which subscription it is.
    pub fn of(pod: &KubePod) -> Option<(Key, Self)> {
        let metadata = &pod.metadata;
        let key = Key {
            namespace: metadata.namespace.clone()?,
            name: metadata.labels.as_ref()?.get(INSTANCE)?.clone(),
        };
        let note = |name: &str| metadata.annotations.as_ref()?.get(name).cloned();
        let status = pod.status.clone().unwrap_or_default();
        let own = Self {
            name: metadata.name.clone()?,
            address: status.pod_ip.clone().filter(|ip| !ip.is_empty()),
            ready: metadata.deletion_timestamp.is_none() && says(&status, "Ready", "True"),
            template: note(TEMPLATE_HASH),
            poke: note(POKE),
            ending: metadata.deletion_timestamp.is_some(),
            trouble: trouble(&status),
        };
        Some((key, own))
    }
}

fn says(status: &PodStatus, kind: &str, value: &str) -> bool {
    let mut all = status.conditions.iter().flatten();
    all.any(|one| one.type_ == kind && one.status == value)
}

fn trouble(status: &PodStatus) -> Option<String> {
    let waiting = |container: &ContainerStatus| container.state.clone()?.waiting?.reason;
    let mut reasons = status.container_statuses.iter().flatten();
    let reason = reasons
        .find_map(waiting)
        .filter(|reason| !STARTING.contains(&reason.as_str()));
    let scheduled = status.conditions.iter().flatten();
    let unscheduled = || {
        let mut unscheduled = scheduled
            .filter(|one| one.type_ == "PodScheduled" && one.status == "False")
            .filter_map(|one| one.reason.clone());
        unscheduled.next()
    };
    // A word, not a story: it goes into a condition.
    let word = |word: &String| word.len() <= 64 && word.chars().all(|c| c.is_ascii_alphanumeric());
    reason.or_else(unscheduled).filter(word)
}
