//! How conditions become those of the resource, and which Events tell of what changed.
//!
//! Owns: `metav1.Condition` with `lastTransitionTime` and `observedGeneration`; the choice of what
//! deserves an Event. Pure: the time is given.
//!
//! Never here: a change when only time would differ (the object would trigger itself), an Event
//! for what was so before.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, Time};

use super::{Condition, ConditionType, EventType, Reason};

/// The longest note that an API server takes for an Event, in bytes.
const MAX_NOTE: usize = 1024;

/// The longest message that it takes for a condition, in characters.
const MAX_MESSAGE: usize = 32_768;

/// What to tell people who look at the object's Events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionEvent {
    /// Normal or Warning.
    pub type_: EventType,
    /// The condition's reason.
    pub reason: Reason,
    /// What the Event is about: the condition.
    pub action: ConditionType,
    /// The condition's message, as much of it as fits.
    pub note: String,
}

/// The resource's conditions after a pass that changed something.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// All of them, to be written.
    pub conditions: Vec<MetaCondition>,
    /// In the order of the conditions; empty if none got another status or reason.
    pub events: Vec<ConditionEvent>,
}

/// Lays the conditions `new`, found for `generation`, over the resource's `old` ones. `None`: there
/// is nothing to write.
///
/// A condition that `new` does not speak of stays as it is, with the generation it was found for;
/// one that is there only while it is true goes, and so do Reconciling and Stalled. Conditions of
/// unknown types (another version's) stay.
pub fn merge(
    old: &[MetaCondition],
    new: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Option<Merged> {
    let was = |kind: &str| old.iter().find(|condition| condition.type_ == kind);
    let mut conditions = Vec::new();
    let mut events: Vec<ConditionEvent> = Vec::new();
    for kind in ConditionType::ALL {
        let before = was(kind.as_str());
        match new.iter().find(|condition| condition.kind == kind) {
            Some(condition) => {
                conditions.push(laid_over(before, condition, generation, now));
                let event = event(before, condition);
                // One cause can be told of by two conditions; one Event says it.
                events.extend(event.filter(|new| !events.iter().any(|e| e.reason == new.reason)));
            }
            None if kind.only_while_true() => {}
            None => conditions.extend(before.cloned()),
        }
    }
    let known = |name: &str| ConditionType::ALL.iter().any(|kind| kind.as_str() == name);
    conditions.extend(old.iter().filter(|one| !known(&one.type_)).cloned());
    let same =
        conditions.len() == old.len() && conditions.iter().all(|one| was(&one.type_) == Some(one));
    (!same).then_some(Merged { conditions, events })
}

fn laid_over(
    before: Option<&MetaCondition>,
    condition: &Condition,
    generation: i64,
    now: Timestamp,
) -> MetaCondition {
    let status = condition.status.as_str();
    let since = before.filter(|before| before.status == status);
    MetaCondition {
        type_: condition.kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: condition.reason.as_str().to_owned(),
        message: condition.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: Some(generation),
        last_transition_time: since.map_or_else(
            || Time(whole_seconds(now)),
            |before| before.last_transition_time.clone(),
        ),
    }
}

/// Kubernetes keeps whole seconds: what is read back must be what was written.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A condition with another status or reason is told of, once: summaries repeat what a part says,
/// and only their own good news is worth telling.
fn event(before: Option<&MetaCondition>, condition: &Condition) -> Option<ConditionEvent> {
    let reason = condition.reason;
    if condition.kind.is_summary() && reason != Reason::Ok {
        return None;
    }
    let as_before = before.is_some_and(|before| {
        before.status == condition.status.as_str() && before.reason == reason.as_str()
    });
    if as_before {
        return None;
    }
    Some(ConditionEvent {
        type_: reason.event()?,
        reason,
        action: condition.kind,
        note: cut(&condition.message, MAX_NOTE),
    })
}

/// At most `bytes` of a text, ending at a character.
fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
