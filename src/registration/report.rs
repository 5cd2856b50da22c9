//! What a pass found and did: per type, and as one verdict for the whole.
//!
//! Owns: phases, reasons, the sentences for people. Never here: a key, a foreign URL, or a value
//! that changes with each pass although nothing happened.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::api::NotificationType;
use crate::api::condition::{self, Condition, ConditionStatus, ConditionType};

/// Where a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Phase {
    /// Live: enabled, as wanted, its key stored.
    Registered,
    /// There, as wanted, and disabled on purpose (suspended, or retained).
    Disabled,
    /// On its way; the next pass goes on.
    Pending,
    /// Somebody has to do something.
    Blocked,
    /// Not wanted, and gone.
    Removed,
    /// Could not be looked at.
    Unknown,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Registered,
        Self::Disabled,
        Self::Pending,
        Self::Blocked,
        Self::Removed,
        Self::Unknown,
    ];

    /// As in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "Registered",
            Self::Disabled => "Disabled",
            Self::Pending => "Pending",
            Self::Blocked => "Blocked",
            Self::Removed => "Removed",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why a rule stands where it stands. Ordered from the most to the least pressing: the first one
/// among the types is the reason of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Reason {
    /// 401 or 403.
    CredentialsInvalid,
    /// The credentials are of an account that has none of our rules, where some were registered.
    ChannelChanged,
    /// The rule's URL does not end in our owner.
    RuleOwnedElsewhere,
    /// The provider does not show the key.
    KeyMissing,
    /// The provider knows no rules of this type.
    UnsupportedType,
    /// The provider says that the request is wrong.
    ProviderRefused,
    /// The key or a note could not be stored.
    StoreFailed,
    /// No receiver has reported the key in time.
    KeysNotLoaded,
    /// Timeout, 429, 5xx: the pass could not be finished.
    ProviderUnavailable,
    /// The rule changes under our hands, or a write has no effect.
    Contended,
    /// Not live until the URL is reachable, as `reachability: Require` says.
    AwaitingReachability,
    /// `mode: Observe`, and there is something to do.
    WouldChange,
    /// The provider took the rule, but not all of it.
    NotApplied,
    /// Disabled as `suspend: true` says.
    Suspended,
    /// Disabled as `deletionPolicy: Retain` says.
    Retained,
    /// As wanted.
    Registered,
    /// Gone as wanted.
    Removed,
}

impl Reason {
    /// As in conditions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CredentialsInvalid => "CredentialsInvalid",
            Self::ChannelChanged => "ChannelChanged",
            Self::RuleOwnedElsewhere => "RuleOwnedElsewhere",
            Self::KeyMissing => "KeyMissing",
            Self::UnsupportedType => "UnsupportedType",
            Self::ProviderRefused => "ProviderRefused",
            Self::StoreFailed => "StoreFailed",
            Self::KeysNotLoaded => "KeysNotLoaded",
            Self::ProviderUnavailable => "ProviderUnavailable",
            Self::Contended => "Contended",
            Self::AwaitingReachability => "AwaitingReachability",
            Self::WouldChange => "WouldChange",
            Self::NotApplied => "NotApplied",
            Self::Suspended => "Suspended",
            Self::Retained => "Retained",
            Self::Registered => "Registered",
            Self::Removed => "Removed",
        }
    }

    /// The same in the words of the resource's conditions.
    pub const fn of_condition(self) -> condition::Reason {
        use condition::Reason as Word;
        match self {
            Self::CredentialsInvalid => Word::Unauthorized,
            Self::ChannelChanged => Word::ChannelChanged,
            Self::RuleOwnedElsewhere => Word::RuleOwnedElsewhere,
            Self::UnsupportedType => Word::TypeUnsupported,
            Self::StoreFailed => Word::KeyNotStored,
            Self::KeysNotLoaded => Word::KeysNotLoaded,
            Self::KeyMissing => Word::KeyMissing,
            Self::ProviderRefused => Word::ProviderRefused,
            Self::ProviderUnavailable => Word::ProviderUnavailable,
            Self::Contended | Self::NotApplied => Word::DriftFound,
            Self::AwaitingReachability => Word::AwaitingReachability,
            Self::WouldChange => Word::ObserveOnly,
            Self::Suspended => Word::Suspended,
            Self::Retained | Self::Registered | Self::Removed => Word::RulesInPlace,
        }
    }

    /// Whether trying again soon may help, without anybody doing anything.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::CredentialsInvalid
                | Self::StoreFailed
                | Self::KeysNotLoaded
                | Self::ProviderUnavailable
                | Self::Contended
        )
    }
}

/// What a pass changed about one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "four independent facts, read one by one"
)]
pub struct Changes {
    /// The rule was created or adopted.
    pub created: bool,
    /// The rule was enabled.
    pub enabled: bool,
    /// The provider had another key than was stored.
    pub key_changed: bool,
    /// A live rule was corrected.
    pub corrected: bool,
}

impl Changes {
    /// Whether notifications may have been missed: the type needs a resync.
    pub const fn calls_for_resync(self) -> bool {
        self.created || self.enabled || self.key_changed || self.corrected
    }
}

/// One type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// Where it stands.
    pub phase: Phase,
    /// Why.
    pub reason: Reason,
    /// A sentence for people, with the next step where there is one.
    pub message: String,
    /// The rule's URL as the provider has it, or as it would be; `None` for a type that is not
    /// wanted, or whose rule is somebody else's.
    pub url: Option<String>,
    /// Fingerprint of the stored key.
    pub key_fingerprint: Option<String>,
    /// Whether our rule is enabled, as this pass saw it last; `None`: it saw none.
    pub enabled: Option<bool>,
    /// What this pass changed.
    pub changes: Changes,
}

/// One pass.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Per type: all wanted ones, and others where there was something to say.
    pub rules: BTreeMap<NotificationType, RuleReport>,
    /// How many types are wanted.
    pub wanted: usize,
    /// How many of them are in place (registered, or disabled on purpose).
    pub in_place: usize,
    /// Whether the registry took the credentials; `None` when it gave no answer at all.
    pub credentials_valid: Option<bool>,
    /// The longest `Retry-After` of the pass.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// The whole in one sentence, for a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: unknown.
    pub status: Option<bool>,
    /// The most pressing reason.
    pub reason: Reason,
    /// Which types, and why.
    pub message: String,
}

impl Report {
    /// `7/7`.
    pub fn registered(&self) -> String {
        format!("{}/{}", self.in_place, self.wanted)
    }

    /// The types that need a resync.
    pub fn resyncs(&self) -> Vec<NotificationType> {
        self.rules
            .iter()
            .filter(|(_, rule)| rule.changes.calls_for_resync())
            .map(|(kind, _)| *kind)
            .collect()
    }

    /// Whether a pass soon may get further than this one.
    pub fn should_retry(&self) -> bool {
        self.rules.values().any(|rule| rule.reason.is_transient())
    }

    /// Whether nothing but the receivers is in the way of going on.
    pub fn waits_for_receivers(&self) -> bool {
        let mut transient = self
            .rules
            .values()
            .filter(|rule| rule.reason.is_transient());
        let waits = |rule: &RuleReport| rule.reason == Reason::KeysNotLoaded;
        transient.clone().any(waits) && transient.all(waits)
    }

    /// Whether everything is as wanted, also the types that should be gone.
    pub fn is_complete(&self) -> bool {
        self.rules.values().all(|rule| {
            matches!(
                rule.phase,
                Phase::Registered | Phase::Disabled | Phase::Removed
            )
        })
    }

    /// Whether this operator can do no more for now: all is as wanted, but for rules that must not
    /// go live yet.
    pub fn is_as_far_as_it_may(&self) -> bool {
        self.rules.values().all(|rule| {
            rule.reason == Reason::AwaitingReachability
                || matches!(
                    rule.phase,
                    Phase::Registered | Phase::Disabled | Phase::Removed
                )
        })
    }

    /// The condition `Registered`.
    pub fn verdict(&self) -> Verdict {
        let worst = self.rules.values().map(|rule| rule.reason).min();
        let reason = worst.unwrap_or(Reason::Removed);
        let message = self.told(reason);
        let status = if self.is_complete() {
            Some(true)
        } else if self
            .rules
            .values()
            .any(|rule| matches!(rule.phase, Phase::Pending | Phase::Blocked))
        {
            Some(false)
        } else {
            None
        };
        Verdict {
            status,
            reason,
            message,
        }
    }
}

impl Report {
    /// What is said of all types with a reason; those of which the same is said are named together.
    fn told(&self, reason: Reason) -> String {
        let mut said: Vec<(Vec<&str>, &str)> = Vec::new();
        for (kind, rule) in &self.rules {
            if rule.reason != reason {
                continue;
            }
            match said.iter_mut().find(|(_, what)| *what == rule.message) {
                Some((kinds, _)) => kinds.push(kind.as_str()),
                None => said.push((vec![kind.as_str()], &rule.message)),
            }
        }
        if said.is_empty() {
            return "no rule is wanted and there is none".to_owned();
        }
        let said: Vec<String> = said
            .into_iter()
            .map(|(kinds, what)| format!("{}: {what}", kinds.join(", ")))
            .collect();
        said.join(". ")
    }
}

/// The condition `Registered` after a pass; before the first one has ended it is unknown.
pub fn registered(report: Option<&Report>) -> Condition {
    let kind = ConditionType::Registered;
    let Some(report) = report else {
        return Condition::new(
            kind,
            ConditionStatus::Unknown,
            condition::Reason::RegistrationPending,
        );
    };
    let verdict = report.verdict();
    let status = match verdict.status {
        Some(true) => ConditionStatus::True,
        Some(false) => ConditionStatus::False,
        None => ConditionStatus::Unknown,
    };
    Condition {
        message: verdict.message,
        ..Condition::new(kind, status, verdict.reason.of_condition())
    }
}
