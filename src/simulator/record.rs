//! What is remembered of each notification.
//!
//! Owns: the records and numbers that the control API shows. Never here: a rule's key.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::kind::Kind;

/// How far a notification got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It waits for its time, for an attempt or for an answer.
    Pending,
    /// It was answered 200.
    Delivered,
    /// It was answered something else that is not retried.
    Refused,
    /// It was answered a retried status each time.
    GaveUp,
    /// The connection failed or timed out, and that is not retried.
    Lost,
    /// A fault dropped it, or the queue was full; it was never sent.
    Dropped,
}

/// Why a notification exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Something changed.
    Change,
    /// A fault sent it twice, or replayed it; `of` names the first one.
    Repeat {
        /// The delivery that it repeats.
        of: u64,
    },
    /// The control API asked for it.
    Control,
}

/// One try at sending a notification.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began, Unix milliseconds.
    pub at_ms: i64,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why there was none: `timeout`, `connect` or `network`.
    pub error: Option<&'static str>,
    /// How long the answer took, in milliseconds.
    pub latency_ms: f64,
}

/// One notification and all that happened to it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Counts up from 1.
    pub id: u64,
    /// The rule that it belongs to.
    pub kind: Kind,
    /// The key of the entity that it names.
    pub entity: String,
    /// The URL of its rule; `deliver_to` may have sent it elsewhere.
    #[serde(serialize_with = "as_text")]
    pub url: Arc<str>,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// The body of the last attempt, or of the first if there was none yet.
    #[serde(serialize_with = "as_text")]
    pub body: Arc<str>,
    /// Why it exists.
    pub origin: Origin,
    /// Every attempt so far.
    pub attempts: Vec<Attempt>,
    /// How far it got.
    pub outcome: Outcome,
}

/// serde knows shared text only with a feature that nothing else needs.
fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Numbers over all notifications since the start, also of those no longer remembered.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// Notifications made, repeats included.
    pub made: u64,
    /// Repeats among them.
    pub repeats: u64,
    /// Not settled yet.
    pub pending: u64,
    /// Answered 200.
    pub delivered: u64,
    /// Answered something that is not retried.
    pub refused: u64,
    /// All attempts answered a retried status.
    pub gave_up: u64,
    /// Connection failed or timed out.
    pub lost: u64,
    /// Never sent: a fault, or a full queue.
    pub dropped: u64,
    /// Changes that no rule asked for: no rule, disabled, other operation, filtered out.
    pub unasked: u64,
    /// Attempts.
    pub attempts: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Failed attempts without an answer, by class.
    pub errors: BTreeMap<&'static str, u64>,
    /// Sum of the latencies of all attempts, in milliseconds.
    pub latency_ms_sum: f64,
    /// The longest latency, in milliseconds.
    pub latency_ms_max: f64,
}
