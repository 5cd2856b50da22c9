//! What pods and answers come to: conditions and numbers of the status. Pure.
//!
//! Owns: what is believed of a receiver's answer (known conditions with sentences of our own; no
//! text of its choice), and what is said when nobody answers.

use super::{Entry, Pod, Unreachable, Wanted};
use crate::api::v1alpha1::{Backlog, Receivers as Counts};
use crate::api::{Condition, ConditionStatus, ConditionType, Reason};
use crate::controller::access::{Answer, Said};

/// The longest word before a reason's sentence: a sink's name.
const MAX_ABOUT: usize = 200;

/// What is known of a subscription's receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The operator runs none for it.
    NotManaged,
    /// Nothing: the operator has just started, or they have just come up. What was said stands.
    Nothing,
    /// This.
    Found(Found),
}

/// What pods and answers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How many there are and should be.
    pub counts: Counts,
    /// ReceiverAvailable, Delivering, and what is there only while true.
    pub conditions: Vec<Condition>,
    /// What moves by itself; `None`: nobody answered.
    pub numbers: Option<Numbers>,
}

impl Found {
    /// The same, but for what moves by itself.
    pub fn is_like(&self, other: &Self) -> bool {
        self.counts == other.counts && self.conditions == other.conditions
    }
}

/// What moves by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    /// How many entities wait.
    pub backlog: Option<Backlog>,
    /// RFC 3339.
    pub last_notification_time: Option<String>,
}

pub(super) fn judge(entry: &Entry) -> Heard {
    let ready = entry.pods.values().filter(|pod| pod.ready);
    let ready: Vec<&Pod> = ready.collect();
    let Some(wanted) = &entry.wanted else {
        // Nobody knows yet what they should be.
        return Heard::Nothing;
    };
    let counts = Counts {
        ready: i32::try_from(ready.len()).unwrap_or(i32::MAX),
        desired: wanted.replicas,
    };
    let mut answers = entry.answers.values().filter_map(|one| one.as_ref().ok());
    let answer = answers.next();
    // Keys are the gate's to judge: a type whose rule is not ours has none.
    let own = [Reason::BacklogFull, Reason::StoreUnavailable];
    let unwell = answer.and_then(|answer| said(answer, ConditionType::ReceiverAvailable, &own));
    let available = if let Some(refused) = &wanted.refused {
        Condition::of(Reason::ObjectRefused).about(refused)
    } else if let Some(unwell) = unwell {
        unwell
    } else if ready.is_empty() {
        not_ready(entry, wanted)
    } else if answer.is_some() {
        Condition::of(Reason::ReceiverReady)
    } else if entry.answers.is_empty() {
        return Heard::Nothing;
    } else {
        Condition::of(Reason::ReceiverUnreachable).about(&unreachable(entry))
    };
    let unknown = |reason: Reason| {
        let kind = ConditionType::Delivering;
        Condition::new(kind, ConditionStatus::Unknown, reason)
    };
    let delivering = match answer {
        Some(answer) => said(answer, ConditionType::Delivering, Reason::ALL)
            .unwrap_or_else(|| unknown(Reason::ReceiverUnreachable)),
        None => unknown(available.reason),
    };
    let mut conditions = vec![available, delivering];
    for kind in [ConditionType::WeakSignature, ConditionType::ClockSkew] {
        conditions.extend(answer.and_then(|answer| said(answer, kind, Reason::ALL)));
    }
    Heard::Found(Found {
        counts,
        conditions,
        numbers: answer.map(numbers),
    })
}

fn not_ready(entry: &Entry, wanted: &Wanted) -> Condition {
    let template = Some(wanted.template.as_str());
    let old = |pod: &Pod| pod.ending || pod.template.as_deref() != template;
    if entry.pods.values().any(old) {
        return Condition::of(Reason::RolloutInProgress);
    }
    let condition = Condition::of(Reason::ReceiverNotReady);
    if let Some(lacks) = &wanted.lacks {
        return condition.about(lacks);
    }
    if entry.pods.is_empty() {
        return condition.about("there is no pod");
    }
    let mut troubled = entry.pods.values().filter_map(|pod| {
        let trouble = pod.trouble.as_ref()?;
        Some(format!("pod {}: {trouble}", pod.name))
    });
    match troubled.next() {
        Some(trouble) => condition.about(&trouble),
        None => condition,
    }
}

fn unreachable(entry: &Entry) -> String {
    let refused = |answer: &Result<Answer, Unreachable>| *answer == Err(Unreachable::Refused);
    if entry.answers.values().any(refused) {
        "the operator's token is refused".to_owned()
    } else {
        "no answer".to_owned()
    }
}

/// A condition of an answer, if it is one of these reasons, in our own words.
fn said(answer: &Answer, kind: ConditionType, reasons: &[Reason]) -> Option<Condition> {
    let mut all = answer.conditions.iter();
    let said: &Said = all.find(|said| said.kind == kind.as_str())?;
    let reason = Reason::parse(&said.reason).filter(|reason| reasons.contains(reason))?;
    let status = match said.status.as_str() {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    };
    let condition = Condition::new(kind, status, reason);
    let about = said.message.strip_suffix(reason.sentence());
    let about = about.and_then(|about| about.strip_suffix(": "));
    let about = about.filter(|about| about.len() <= MAX_ABOUT);
    Some(match about {
        Some(about) => condition.about(about),
        None => condition,
    })
}

fn numbers(answer: &Answer) -> Numbers {
    let backlog = answer.backlog.as_deref();
    let time = answer.last_notification_time.as_ref();
    Numbers {
        backlog: backlog.and_then(Backlog::parse),
        last_notification_time: time
            .filter(|time| time.parse::<jiff::Timestamp>().is_ok())
            .cloned(),
    }
}

#[cfg(test)]
mod tests;
