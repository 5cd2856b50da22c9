//! The pods' ServiceAccount. Never here: a right; a token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Blueprint, Built, Kind};

pub(super) fn service_account(plan: &Blueprint<'_>) -> Built {
    let account = ServiceAccount {
        metadata: plan.owned(plan.name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    Built::new(Kind::ServiceAccount, &account)
}
