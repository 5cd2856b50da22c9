//! The pods' ServiceAccount, and how many of them may be away at a time.
//!
//! Never here: a right; a token. A budget for a single pod either means nothing or keeps its node
//! from being drained for ever.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Blueprint, Built, Kind};

pub(super) fn service_account(plan: &Blueprint<'_>) -> Built {
    let account = ServiceAccount {
        metadata: plan.owned(plan.name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    Built::new(Kind::ServiceAccount, &account)
}

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
