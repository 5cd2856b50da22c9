//! The Secret NAME-feed: the token that consumers read the feed with.
//!
//! Never here: where the token comes from: it is made once and then kept.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;

use super::{Blueprint, Built, Kind};

/// The key in the Secret.
pub const TOKEN_KEY: &str = "token";

pub(super) fn name(plan: &Blueprint<'_>) -> String {
    plan.named("feed")
}

/// `None`: the feed asks for none.
pub(super) fn secret(plan: &Blueprint<'_>) -> Option<Built> {
    let token = plan.feed_token?.expose().as_bytes().to_vec();
    let secret = KubeSecret {
        metadata: plan.owned(&name(plan)),
        data: Some(BTreeMap::from([(TOKEN_KEY.to_owned(), ByteString(token))])),
        ..KubeSecret::default()
    };
    Some(Built::new(Kind::Secret, &secret))
}
