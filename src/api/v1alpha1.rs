//! `WebhookSubscription` v1alpha1: the spec that people write and the status that Bellhop writes.
//!
//! Owns: the names, types and defaults of every field. Never here: IO, a decision about what a
//! value leads to, or a type that refuses unknown fields (a newer resource must stay readable).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which signature families are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SignatureScheme {
    /// Both, told apart by length, until the first authentic HMAC-SHA256 forbids MD5 under a key.
    #[default]
    Auto,
    /// HMAC-SHA256 only.
    HmacSha256,
    /// The older MD5 layouts only.
    Md5,
}

/// How the delay between attempts grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackoffPolicy {
    /// `delay * 2^attempt`.
    #[default]
    Exponential,
    /// `delay * attempt`.
    Linear,
}
