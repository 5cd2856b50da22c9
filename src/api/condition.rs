//! What is true of a subscription, as conditions: the same on the resource and in `/status`.
//!
//! Owns: the condition types; the reasons, each with a plain sentence that names the next step
//! ([`reason`]); what they come to ([`summary`]) and how they become those of the resource, with
//! the Events of what changed ([`merge`]); the page about them ([`page`]). All of it pure.
//! Never here: a clock, and any text of a provider or a secret.

pub mod merge;
pub mod page;
pub mod reason;
pub mod summary;

use std::fmt;

use serde::{Serialize, Serializer};

pub use merge::{ConditionEvent, Merged, merge};
pub use reason::{EventType, Progress, Reason};
pub use summary::summary;

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The whole works.
    Ready,
    /// The spec is valid and conflicts with nothing.
    Accepted,
    /// The provider accepts the credentials.
    CredentialsValid,
    /// The rules at the provider are as they should be.
    Registered,
    /// Notifications can be received.
    ReceiverAvailable,
    /// The public URL leads to a receiver.
    Reachable,
    /// Changes are read and reach all sinks.
    Delivering,
    /// Work goes on that will end by itself. Only there while true.
    Reconciling,
    /// Nothing goes on until somebody acts. Only there while true.
    Stalled,
    /// Notifications are signed weakly. Only there while true.
    WeakSignature,
    /// Clocks disagree. Only there while true.
    ClockSkew,
}

impl ConditionType {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Accepted,
        Self::CredentialsValid,
        Self::Registered,
        Self::ReceiverAvailable,
        Self::Reachable,
        Self::Delivering,
        Self::Reconciling,
        Self::Stalled,
        Self::WeakSignature,
        Self::ClockSkew,
    ];

    /// As in the resource: `CredentialsValid`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Accepted => "Accepted",
            Self::CredentialsValid => "CredentialsValid",
            Self::Registered => "Registered",
            Self::ReceiverAvailable => "ReceiverAvailable",
            Self::Reachable => "Reachable",
            Self::Delivering => "Delivering",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::WeakSignature => "WeakSignature",
            Self::ClockSkew => "ClockSkew",
        }
    }

    /// What it says when it is true.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Ready => "The whole works. What all others come to.",
            Self::Accepted => "The spec is valid, and its url is no other subscription's.",
            Self::CredentialsValid => "The provider accepts the credentials.",
            Self::Registered => "The rules at the provider are as they should be.",
            Self::ReceiverAvailable => "Notifications can be received.",
            Self::Reachable => "The public url leads to a receiver of this subscription.",
            Self::Delivering => "Changes are read and reach all sinks.",
            Self::Reconciling => "Work goes on that will end by itself.",
            Self::Stalled => "Nothing goes on until somebody acts.",
            Self::WeakSignature => "Notifications are signed weakly.",
            Self::ClockSkew => "The provider's clock and ours disagree.",
        }
    }

    /// Whether it only sums up what the others say.
    pub const fn is_summary(self) -> bool {
        matches!(self, Self::Ready | Self::Reconciling | Self::Stalled)
    }

    /// Whether it is there only while it is true.
    pub const fn only_while_true(self) -> bool {
        matches!(
            self,
            Self::Reconciling | Self::Stalled | Self::WeakSignature | Self::ClockSkew
        )
    }
}

/// Whether it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ConditionStatus {
    /// Yes.
    True,
    /// No.
    False,
    /// Nobody could find out.
    Unknown,
}

impl ConditionStatus {
    /// As in the resource.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ConditionType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One statement about a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why.
    pub reason: Reason,
    /// Why, in a sentence that names the next step.
    pub message: String,
}

impl Condition {
    /// With the reason's own sentence.
    pub fn new(kind: ConditionType, status: impl Into<ConditionStatus>, reason: Reason) -> Self {
        Self {
            kind,
            status: status.into(),
            reason,
            message: reason.sentence().to_owned(),
        }
    }

    /// The first of the conditions that have this reason, with the status that it then has.
    pub fn of(reason: Reason) -> Self {
        let (kind, status) = reason.conditions()[0];
        Self::new(kind, status, reason)
    }

    /// With what it is about (a sink, a type, a field) before the reason's sentence. Must hold
    /// nothing that moves by itself and no text of the provider.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.reason.sentence());
        self
    }
}
