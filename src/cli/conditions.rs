//! The conditions of a process with a data plane: the words that the resource uses, from what the
//! parts of the process say. Pure.
//!
//! Owns: which facts make which condition. Never here: a clock, IO, text of a provider.

use crate::api::NotificationType;
use crate::api::condition::{Condition, ConditionStatus, ConditionType, Reason};
use crate::pipeline::PipelineStatus;
use crate::publish::SinkStatus;
use crate::receiver::ReceiverStatus;
use crate::registration::report::{Phase, Report, registered};
use crate::state::Stats;

/// What the parts say.
pub struct Facts {
    /// Whether rules are registered by this process, and not by an operator.
    pub registers: bool,
    /// The newest pass of registration; `None` before the first one ended.
    pub report: Option<Report>,
    /// The store.
    pub stats: Stats,
    /// The public port.
    pub receiver: ReceiverStatus,
    /// Reading.
    pub pipeline: PipelineStatus,
    /// Each http sink.
    pub sinks: Vec<SinkStatus>,
}

/// All conditions, in the order in which they are shown.
pub fn conditions(facts: &Facts) -> Vec<Condition> {
    let mut parts = Vec::new();
    // What only registration can say is left to whoever registers.
    if facts.registers || facts.pipeline.credentials_refused.is_some() {
        parts.push(credentials(facts));
    }
    if facts.registers {
        parts.push(registered(facts.report.as_ref()));
    }
    parts.extend([receiver(facts), delivering(facts)]);
    let mut all = vec![ready(&parts)];
    all.extend(parts);
    if facts.receiver.rules.iter().any(|rule| rule.weak_signature) {
        all.push(Condition::new(
            ConditionType::WeakSignature,
            true,
            Reason::Md5InUse,
        ));
    }
    if facts.receiver.rules.iter().any(|rule| rule.clock_ahead) {
        all.push(Condition::new(
            ConditionType::ClockSkew,
            true,
            Reason::ClockDiffers,
        ));
    }
    all
}

/// Ready is what all others come to; the first that is not true gives the reason. A dead letter
/// makes Delivering false, not Ready.
fn ready(parts: &[Condition]) -> Condition {
    let suspended = parts.iter().any(|part| part.reason == Reason::Suspended);
    let first = parts
        .iter()
        .find(|part| part.status != ConditionStatus::True && part.reason != Reason::DeadLetters);
    match first {
        Some(part) => Condition {
            kind: ConditionType::Ready,
            status: ConditionStatus::False,
            ..part.clone()
        },
        None if suspended => Condition::new(ConditionType::Ready, true, Reason::Suspended),
        None => Condition::new(ConditionType::Ready, true, Reason::Ok),
    }
}

fn credentials(facts: &Facts) -> Condition {
    let registry = facts
        .report
        .as_ref()
        .and_then(|report| report.credentials_valid);
    let (status, reason) = match (facts.pipeline.credentials_refused, registry) {
        (Some(_), _) | (None, Some(false)) => (ConditionStatus::False, Reason::Unauthorized),
        (None, Some(true)) => (ConditionStatus::True, Reason::CredentialsAccepted),
        (None, None) => (ConditionStatus::Unknown, Reason::CredentialsUnchecked),
    };
    Condition::new(ConditionType::CredentialsValid, status, reason)
}

/// A type whose rule is blocked has no key to load; why is told by Registered.
fn receiver(facts: &Facts) -> Condition {
    let kind = ConditionType::ReceiverAvailable;
    if facts.stats.backlog_full {
        return Condition::new(kind, false, Reason::BacklogFull);
    }
    let blocked = |kind: NotificationType| {
        let rules = facts.report.as_ref().map(|report| &report.rules);
        rules
            .and_then(|rules| rules.get(&kind))
            .is_some_and(|rule| rule.phase == Phase::Blocked)
    };
    let without: Vec<&str> = facts
        .receiver
        .rules
        .iter()
        .filter(|rule| rule.key_fingerprints.is_empty() && !blocked(rule.kind))
        .map(|rule| rule.kind.as_str())
        .collect();
    if without.is_empty() {
        Condition::new(kind, true, Reason::ReceiverReady)
    } else {
        Condition::new(kind, false, Reason::KeysNotLoaded).about(&without.join(", "))
    }
}

fn delivering(facts: &Facts) -> Condition {
    let kind = ConditionType::Delivering;
    if facts.pipeline.credentials_refused.is_some() {
        return Condition::new(kind, false, Reason::FetchPaused);
    }
    if facts.stats.full {
        return Condition::new(kind, false, Reason::StoreFull);
    }
    if facts.pipeline.removals_held > 0 {
        return Condition::new(kind, false, Reason::RemovalGuard);
    }
    if let Some(sink) = facts.sinks.iter().find(|sink| !sink.well) {
        return Condition::new(kind, false, Reason::SinkUnavailable).about(&sink.name);
    }
    if facts.stats.dead_letters.iter().sum::<u64>() > 0 {
        return Condition::new(kind, false, Reason::DeadLetters);
    }
    Condition::new(kind, true, Reason::DeliveryOk)
}
