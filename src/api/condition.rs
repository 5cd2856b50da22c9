//! What is true of a subscription, as conditions: the same on the resource and in `/status`.
//!
//! Owns: the condition types and the reasons, each with a plain sentence that names the next step.
//! Never here: a clock (when a condition changed is for who keeps it), and any text of a provider
//! or a secret.

use std::fmt;

use serde::{Serialize, Serializer};

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

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Everything is as it should be; nothing to do.
    Ok,
    /// Suspended: the rules are disabled. To go on, set `suspend: false`; what happened meanwhile is then found by a full comparison.
    Suspended,
    /// The annotation bellhop.dev/paused is set: nothing is touched. To go on, remove it.
    Paused,
    /// Work is going on; wait, or look at the other conditions for what is missing.
    Progressing,
    /// The spec is wrong. Correct the fields that are named here.
    Invalid,
    /// Another subscription has the same host and path in its url. Give one of them another url.
    UrlInUse,
    /// The Secret of credentialsSecretRef is not there or lacks apiKey or apiSecret. Create it with both keys.
    SecretMissing,
    /// The provider accepts the credentials.
    CredentialsAccepted,
    /// The provider has not been asked yet whether it accepts the credentials; wait.
    CredentialsUnchecked,
    /// The provider refuses the credentials. Put valid keys into the Secret; to delete this object without them, first patch registration.deletionPolicy to Retain.
    Unauthorized,
    /// The provider does not answer as it should. It is tried again by itself; if it lasts, ask the provider.
    ProviderUnavailable,
    /// The provider knows no rules of a subscribed type. Remove the type from notifications, or ask the provider.
    TypeUnsupported,
    /// All rules are at the provider as they should be.
    RulesInPlace,
    /// The provider has a rule that is not ours; it was not touched. Remove it there, or set `registration.adoption: Always` to take it over.
    RuleOwnedElsewhere,
    /// Another subscription with the same environment and API key has a notification type already. Remove the type from one of them.
    TypeClaimedElsewhere,
    /// The new credentials belong to an account that has none of our rules. If that is meant, set a new value of the annotation bellhop.dev/reconcile-at; else put the old keys back.
    ChannelChanged,
    /// Rules are being written; wait.
    RegistrationPending,
    /// registration.mode is Observe: what would be done is said here, nothing is written. Set it to Manage to write.
    ObserveOnly,
    /// A rule was changed at the provider by someone else. It is corrected by itself; find out who writes it.
    DriftFound,
    /// The receivers have not loaded the rules' keys after three minutes. Look at their pods and at the mounted Secret.
    KeysNotLoaded,
    /// The receivers are ready.
    ReceiverReady,
    /// No receiver is ready. Look at the pods and their events.
    ReceiverNotReady,
    /// The receivers cannot be asked how they are. Check that the operator may reach their admin port.
    ReceiverUnreachable,
    /// The probe came back through the public url.
    Reachable,
    /// registration.reachability is Off; nobody has looked.
    ProbeOff,
    /// The probe has not come back yet; wait.
    ProbePending,
    /// The host of url has no address. Create the DNS record.
    NameNotResolved,
    /// The host of url has a private, loopback or link-local address. Use a public one, or allow it with --probe-private.
    AddressRefused,
    /// Nothing answers at the host of url. Check firewall, load balancer and port.
    ConnectionFailed,
    /// The certificate at url is not trusted. Install one that fits the host, from a public authority.
    TlsFailed,
    /// Something else answers at url. Check the routing of host and path to the receiver's Service.
    WrongAnswer,
    /// url answers, but the probe did not reach our receiver. Check that the path is routed to this subscription's Service.
    ProbeLost,
    /// Events reach all sinks.
    DeliveryOk,
    /// A sink is not well; its events wait. Check the sink that is named here.
    SinkUnavailable,
    /// Items gave up and are kept. Look at the reason of each, correct it, then replay them.
    DeadLetters,
    /// Reading from the provider is paused, because it refuses the credentials. Put valid keys into the Secret.
    FetchPaused,
    /// More entities vanished at once than fetch.removalGuard allows; they are held back. If it is right, confirm it by the annotation; it is also believed after an hour of agreement.
    RemovalGuard,
    /// The store is full. Raise state.embedded.size, or shorten state.retention.
    StoreFull,
    /// The store cannot be used; notifications are answered with 503 and come again. Look at the receiver's log.
    StoreUnavailable,
    /// Too many entities wait to be read; notifications are answered with 429 and come again. Raise fetch.requestsPerSecond if the provider allows it.
    BacklogFull,
    /// Notifications are signed with MD5. Ask the provider for HMAC-SHA256, then set `signature.scheme: HmacSha256`.
    Md5InUse,
    /// The provider's clock and ours differ by more than signature.maxSkew. Synchronise this machine's clock; if it is right, ask the provider.
    ClockDiffers,
    /// The receivers are being replaced; wait.
    RolloutInProgress,
    /// The rules are being removed at the provider; wait.
    Deleting,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 44] = [
        Self::Ok,
        Self::Suspended,
        Self::Paused,
        Self::Progressing,
        Self::Invalid,
        Self::UrlInUse,
        Self::SecretMissing,
        Self::CredentialsAccepted,
        Self::CredentialsUnchecked,
        Self::Unauthorized,
        Self::ProviderUnavailable,
        Self::TypeUnsupported,
        Self::RulesInPlace,
        Self::RuleOwnedElsewhere,
        Self::TypeClaimedElsewhere,
        Self::ChannelChanged,
        Self::RegistrationPending,
        Self::ObserveOnly,
        Self::DriftFound,
        Self::KeysNotLoaded,
        Self::ReceiverReady,
        Self::ReceiverNotReady,
        Self::ReceiverUnreachable,
        Self::Reachable,
        Self::ProbeOff,
        Self::ProbePending,
        Self::NameNotResolved,
        Self::AddressRefused,
        Self::ConnectionFailed,
        Self::TlsFailed,
        Self::WrongAnswer,
        Self::ProbeLost,
        Self::DeliveryOk,
        Self::SinkUnavailable,
        Self::DeadLetters,
        Self::FetchPaused,
        Self::RemovalGuard,
        Self::StoreFull,
        Self::StoreUnavailable,
        Self::BacklogFull,
        Self::Md5InUse,
        Self::ClockDiffers,
        Self::RolloutInProgress,
        Self::Deleting,
    ];

    /// As in the resource: `RuleOwnedElsewhere`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "Ok",
            Self::Suspended => "Suspended",
            Self::Paused => "Paused",
            Self::Progressing => "Progressing",
            Self::Invalid => "Invalid",
            Self::UrlInUse => "UrlInUse",
            Self::SecretMissing => "SecretMissing",
            Self::CredentialsAccepted => "CredentialsAccepted",
            Self::CredentialsUnchecked => "CredentialsUnchecked",
            Self::Unauthorized => "Unauthorized",
            Self::ProviderUnavailable => "ProviderUnavailable",
            Self::TypeUnsupported => "TypeUnsupported",
            Self::RulesInPlace => "RulesInPlace",
            Self::RuleOwnedElsewhere => "RuleOwnedElsewhere",
            Self::TypeClaimedElsewhere => "TypeClaimedElsewhere",
            Self::ChannelChanged => "ChannelChanged",
            Self::RegistrationPending => "RegistrationPending",
            Self::ObserveOnly => "ObserveOnly",
            Self::DriftFound => "DriftFound",
            Self::KeysNotLoaded => "KeysNotLoaded",
            Self::ReceiverReady => "ReceiverReady",
            Self::ReceiverNotReady => "ReceiverNotReady",
            Self::ReceiverUnreachable => "ReceiverUnreachable",
            Self::Reachable => "Reachable",
            Self::ProbeOff => "ProbeOff",
            Self::ProbePending => "ProbePending",
            Self::NameNotResolved => "NameNotResolved",
            Self::AddressRefused => "AddressRefused",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::TlsFailed => "TlsFailed",
            Self::WrongAnswer => "WrongAnswer",
            Self::ProbeLost => "ProbeLost",
            Self::DeliveryOk => "DeliveryOk",
            Self::SinkUnavailable => "SinkUnavailable",
            Self::DeadLetters => "DeadLetters",
            Self::FetchPaused => "FetchPaused",
            Self::RemovalGuard => "RemovalGuard",
            Self::StoreFull => "StoreFull",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::BacklogFull => "BacklogFull",
            Self::Md5InUse => "Md5InUse",
            Self::ClockDiffers => "ClockDiffers",
            Self::RolloutInProgress => "RolloutInProgress",
            Self::Deleting => "Deleting",
        }
    }

    /// What it means and what to do next, in plain words.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Ok => "Everything is as it should be; nothing to do.",
            Self::Suspended => {
                "Suspended: the rules are disabled. To go on, set `suspend: false`; what happened meanwhile is then found by a full comparison."
            }
            Self::Paused => {
                "The annotation bellhop.dev/paused is set: nothing is touched. To go on, remove it."
            }
            Self::Progressing => {
                "Work is going on; wait, or look at the other conditions for what is missing."
            }
            Self::Invalid => "The spec is wrong. Correct the fields that are named here.",
            Self::UrlInUse => {
                "Another subscription has the same host and path in its url. Give one of them another url."
            }
            Self::SecretMissing => {
                "The Secret of credentialsSecretRef is not there or lacks apiKey or apiSecret. Create it with both keys."
            }
            Self::CredentialsAccepted => "The provider accepts the credentials.",
            Self::CredentialsUnchecked => {
                "The provider has not been asked yet whether it accepts the credentials; wait."
            }
            Self::Unauthorized => {
                "The provider refuses the credentials. Put valid keys into the Secret; to delete this object without them, first patch registration.deletionPolicy to Retain."
            }
            Self::ProviderUnavailable => {
                "The provider does not answer as it should. It is tried again by itself; if it lasts, ask the provider."
            }
            Self::TypeUnsupported => {
                "The provider knows no rules of a subscribed type. Remove the type from notifications, or ask the provider."
            }
            Self::RulesInPlace => "All rules are at the provider as they should be.",
            Self::RuleOwnedElsewhere => {
                "The provider has a rule that is not ours; it was not touched. Remove it there, or set `registration.adoption: Always` to take it over."
            }
            Self::TypeClaimedElsewhere => {
                "Another subscription with the same environment and API key has a notification type already. Remove the type from one of them."
            }
            Self::ChannelChanged => {
                "The new credentials belong to an account that has none of our rules. If that is meant, set a new value of the annotation bellhop.dev/reconcile-at; else put the old keys back."
            }
            Self::RegistrationPending => "Rules are being written; wait.",
            Self::ObserveOnly => {
                "registration.mode is Observe: what would be done is said here, nothing is written. Set it to Manage to write."
            }
            Self::DriftFound => {
                "A rule was changed at the provider by someone else. It is corrected by itself; find out who writes it."
            }
            Self::KeysNotLoaded => {
                "The receivers have not loaded the rules' keys after three minutes. Look at their pods and at the mounted Secret."
            }
            Self::ReceiverReady => "The receivers are ready.",
            Self::ReceiverNotReady => "No receiver is ready. Look at the pods and their events.",
            Self::ReceiverUnreachable => {
                "The receivers cannot be asked how they are. Check that the operator may reach their admin port."
            }
            Self::Reachable => "The probe came back through the public url.",
            Self::ProbeOff => "registration.reachability is Off; nobody has looked.",
            Self::ProbePending => "The probe has not come back yet; wait.",
            Self::NameNotResolved => "The host of url has no address. Create the DNS record.",
            Self::AddressRefused => {
                "The host of url has a private, loopback or link-local address. Use a public one, or allow it with --probe-private."
            }
            Self::ConnectionFailed => {
                "Nothing answers at the host of url. Check firewall, load balancer and port."
            }
            Self::TlsFailed => {
                "The certificate at url is not trusted. Install one that fits the host, from a public authority."
            }
            Self::WrongAnswer => {
                "Something else answers at url. Check the routing of host and path to the receiver's Service."
            }
            Self::ProbeLost => {
                "url answers, but the probe did not reach our receiver. Check that the path is routed to this subscription's Service."
            }
            Self::DeliveryOk => "Events reach all sinks.",
            Self::SinkUnavailable => {
                "A sink is not well; its events wait. Check the sink that is named here."
            }
            Self::DeadLetters => {
                "Items gave up and are kept. Look at the reason of each, correct it, then replay them."
            }
            Self::FetchPaused => {
                "Reading from the provider is paused, because it refuses the credentials. Put valid keys into the Secret."
            }
            Self::RemovalGuard => {
                "More entities vanished at once than fetch.removalGuard allows; they are held back. If it is right, confirm it by the annotation; it is also believed after an hour of agreement."
            }
            Self::StoreFull => {
                "The store is full. Raise state.embedded.size, or shorten state.retention."
            }
            Self::StoreUnavailable => {
                "The store cannot be used; notifications are answered with 503 and come again. Look at the receiver's log."
            }
            Self::BacklogFull => {
                "Too many entities wait to be read; notifications are answered with 429 and come again. Raise fetch.requestsPerSecond if the provider allows it."
            }
            Self::Md5InUse => {
                "Notifications are signed with MD5. Ask the provider for HMAC-SHA256, then set `signature.scheme: HmacSha256`."
            }
            Self::ClockDiffers => {
                "The provider's clock and ours differ by more than signature.maxSkew. Synchronise this machine's clock; if it is right, ask the provider."
            }
            Self::RolloutInProgress => "The receivers are being replaced; wait.",
            Self::Deleting => "The rules are being removed at the provider; wait.",
        }
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

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
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

    /// With what it is about (a sink, a type, a field) before the reason's sentence. Must hold
    /// nothing that moves by itself and no text of the provider.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.reason.sentence());
        self
    }
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Kubernetes' own rule for `reason`: a CamelCase word; and a sentence that ends.
    #[test]
    fn reasons_are_words_with_a_sentence() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
            assert!(reason.sentence().ends_with('.'), "{word}");
        }
        let shown = Condition::new(ConditionType::Registered, false, Reason::RuleOwnedElsewhere)
            .about("Booking");
        assert_eq!(
            serde_json::to_string(&shown).expect("JSON"),
            "{\"type\":\"Registered\",\"status\":\"False\",\"reason\":\"RuleOwnedElsewhere\",\"message\":\"Booking: The provider has a rule that is not ours; it was not touched. Remove it there, or set `registration.adoption: Always` to take it over.\"}"
        );
    }
}
