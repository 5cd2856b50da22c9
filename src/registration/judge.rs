//! What is said about a rule after a pass: phase, reason, sentence and next step.
//!
//! Owns: the reasons a pass stops for, and the one place that words them. Never here: a provider's
//! answer verbatim (the client has cleaned it already), a key, a foreign URL beyond its host.

use std::time::Duration;

use super::execute::StoreError;
use super::plan::{DesiredRules, Mode, Observed, Refusal, RulePlan, plan_rule};
use super::report::{Changes, Phase, Reason, RuleReport};
use crate::api::NotificationType;
use crate::provider::{RegistryError, Rule};

/// Why a pass went no further with a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    Unauthorized {
        status: u16,
    },
    Unsupported {
        path: String,
    },
    Refused {
        reason: String,
    },
    Unavailable {
        reason: String,
        after: Option<Duration>,
    },
    Store {
        error: StoreError,
    },
    NotLoaded {
        waiting_for: String,
    },
    NotApplied {
        what: String,
    },
    Contended,
    ChannelChanged,
}

impl Stop {
    /// Refused credentials are refused for all types.
    pub(super) fn ends_pass(&self) -> bool {
        matches!(self, Self::Unauthorized { .. })
    }

    /// Whether it was a call that failed, which is made again: until that, what it was to do may
    /// have happened or not.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::Unsupported { .. }
            | Self::Refused { .. }
            | Self::Unavailable { .. }
            | Self::Store { .. } => true,
            Self::NotLoaded { .. }
            | Self::NotApplied { .. }
            | Self::Contended
            | Self::ChannelChanged => false,
        }
    }

    pub(super) fn after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { after, .. } => *after,
            _ => None,
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store { error }
    }
}

impl From<RegistryError> for Stop {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unauthorized { status } => Self::Unauthorized { status },
            RegistryError::UnsupportedType { path, .. } => Self::Unsupported { path },
            RegistryError::Refused { reason } => Self::Refused { reason },
            RegistryError::Unavailable { reason, after } => Self::Unavailable { reason, after },
            // Handled where they have a meaning; elsewhere the rule moves under our hands.
            RegistryError::NotFound | RegistryError::Exists => Self::Contended,
        }
    }
}

/// What to say about a type; `None` when it is not wanted and there is nothing of ours.
pub(super) fn judge(
    desired: &DesiredRules,
    kind: NotificationType,
    seen: &Observed,
    stop: Option<Stop>,
) -> Option<RuleReport> {
    let wanted = desired.rules.contains_key(&kind);
    let plan = plan_rule(desired, kind, seen);
    let (phase, reason, message) = match stop {
        // A type that nobody wants and the provider does not know cannot hold a rule of ours.
        Some(Stop::Unsupported { .. }) if !wanted && seen.stored.is_none() => return None,
        // Trouble with a type that is none of our business, unless all of them must be gone.
        Some(_) if !wanted && !desired.rules.is_empty() && !is_known_as_ours(desired, seen) => {
            return None;
        }
        Some(stop) => stopped(stop, seen),
        None => settled(desired, kind, seen, plan)?,
    };
    Some(RuleReport {
        phase,
        reason,
        message,
        url: wanted.then(|| url(desired, kind, seen)).flatten(),
        key_fingerprint: seen.stored.as_ref().map(ToString::to_string),
        enabled: ours(desired, seen).map(|rule| !rule.disabled),
        changes: Changes::default(),
    })
}

/// Where a wanted type's notifications go, as the provider has it, or would go. `None`: somewhere
/// that is somebody else's.
fn url(desired: &DesiredRules, kind: NotificationType, seen: &Observed) -> Option<String> {
    match (&seen.rule, ours(desired, seen)) {
        (_, Some(rule)) => Some(rule.url.clone()),
        (Some(_), None) => None,
        (None, None) => Some(desired.rule_url(kind)),
    }
}

fn ours<'a>(desired: &DesiredRules, seen: &'a Observed) -> Option<&'a Rule> {
    let rule = seen.rule.as_ref()?;
    desired.owner.owns(&rule.url).then_some(rule)
}

fn is_known_as_ours(desired: &DesiredRules, seen: &Observed) -> bool {
    seen.stored.is_some() || ours(desired, seen).is_some()
}

fn settled(
    desired: &DesiredRules,
    kind: NotificationType,
    seen: &Observed,
    plan: RulePlan,
) -> Option<(Phase, Reason, String)> {
    let wanted = desired.rules.contains_key(&kind);
    if let Some(refusal) = plan.refusal {
        let reason = match refusal {
            Refusal::RuleOwnedElsewhere { .. } => Reason::RuleOwnedElsewhere,
            Refusal::KeyMissing => Reason::KeyMissing,
        };
        return Some((Phase::Blocked, reason, refusal.to_string()));
    }
    if !plan.steps.is_empty() {
        // Only an observer has steps left and no reason to have stopped.
        debug_assert_eq!(desired.mode, Mode::Observe);
        return Some((
            Phase::Pending,
            Reason::WouldChange,
            format!(
                "would {}; set registration.mode: Manage to let it happen",
                plan.describe()
            ),
        ));
    }
    let ours = seen
        .rule
        .as_ref()
        .filter(|rule| wanted || desired.owner.owns(&rule.url));
    Some(match ours {
        None => return None,
        Some(_) if !wanted => (
            Phase::Disabled,
            Reason::Retained,
            "not wanted any more; kept, disabled, as deletionPolicy: Retain says".to_owned(),
        ),
        Some(rule) if desired.holds(kind) && (rule.disabled || !desired.owner.owns(&rule.url)) => (
            Phase::Pending,
            Reason::AwaitingReachability,
            "not live until url is reachable, as registration.reachability: Require says; the condition Reachable tells what is in the way".to_owned(),
        ),
        Some(rule) if rule.disabled => (
            Phase::Disabled,
            Reason::Suspended,
            "disabled while the subscription is suspended".to_owned(),
        ),
        Some(_) => (
            Phase::Registered,
            Reason::Registered,
            "enabled at the provider, its key stored".to_owned(),
        ),
    })
}

fn stopped(stop: Stop, seen: &Observed) -> (Phase, Reason, String) {
    // Whether the rule was seen at all in this pass.
    let moving = if seen.rule.is_some() {
        Phase::Pending
    } else {
        Phase::Unknown
    };
    match stop {
        Stop::Unauthorized { status } => (
            Phase::Unknown,
            Reason::CredentialsInvalid,
            format!(
                "the registry refuses the credentials ({status}); put a valid apiKey and apiSecret into the referenced Secret. If they are gone for good, set registration.deletionPolicy: Retain so that the subscription can be deleted without them"
            ),
        ),
        Stop::Unsupported { path } => (
            Phase::Blocked,
            Reason::UnsupportedType,
            format!(
                "the registry has no rules of this type at {path}; take the type out of spec.notifications, or report the path the provider uses"
            ),
        ),
        Stop::Refused { reason } => (
            Phase::Blocked,
            Reason::ProviderRefused,
            format!("{reason}; compare spec.url, operations and config with what the provider allows"),
        ),
        Stop::Unavailable { reason, .. } => (
            moving,
            Reason::ProviderUnavailable,
            format!("{reason}; it is tried again with growing delay"),
        ),
        Stop::Store { error } => (
            moving,
            Reason::StoreFailed,
            format!("{error}; the rule stays as it is until the key can be stored"),
        ),
        Stop::NotLoaded { waiting_for } => (
            Phase::Pending,
            Reason::KeysNotLoaded,
            format!(
                "no receiver has loaded the rule's key in time ({waiting_for}); the rule stays disabled: look at the receivers' logs and readiness"
            ),
        ),
        Stop::NotApplied { what } => (
            if seen.rule.as_ref().is_some_and(|rule| rule.disabled) {
                Phase::Disabled
            } else {
                Phase::Registered
            },
            Reason::NotApplied,
            format!(
                "the provider took the rule but not all of it ({what}); check spec.notifications[].config against what the provider knows"
            ),
        ),
        Stop::ChannelChanged => (
            Phase::Blocked,
            Reason::ChannelChanged,
            "the new credentials belong to an account that has none of our rules; nothing is written there. If it is meant, remove the old account's rules (run --deregister with its credentials) and start once with --move-account; else put the old credentials back".to_owned(),
        ),
        Stop::Contended => (
            Phase::Pending,
            Reason::Contended,
            "the rule does not stay as it was written; look for a second writer with the same credentials".to_owned(),
        ),
    }
}
