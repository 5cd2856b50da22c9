//! How many of the pods may be away at a time.
//!
//! Never here: a budget for a single pod, which either means nothing or keeps its node from being
//! drained for ever.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Blueprint, Built, Kind};

pub(super) fn disruption_budget(plan: &Blueprint<'_>) -> Option<Built> {
    if plan.subscription.spec.receiver.replicas < 2 {
        return None;
    }
    let budget = PodDisruptionBudget {
        metadata: plan.owned(plan.name()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(plan.selector()),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    Some(Built::new(Kind::PodDisruptionBudget, &budget))
}
