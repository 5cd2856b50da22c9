//! What all conditions come to: Ready, and Reconciling or Stalled.
//!
//! Owns: which of several reasons is the reason of the whole. Never here: Reconciling and Stalled
//! at once (kstatus would take whichever it finds first), or a reason that no part gave, but
//! [`Reason::Ok`].

use super::{Condition, ConditionStatus, ConditionType, Progress, Reason};

/// The conditions of the parts with those that sum them up, in the order in which they are shown.
///
/// Ready is false when a part is false that Ready depends on, unknown when one is unknown, else
/// true. The most pressing part gives reason and message: stalled before false before unknown, and
/// among equals the one that is shown first. Parts that are summaries themselves are replaced.
pub fn summary(mut parts: Vec<Condition>) -> Vec<Condition> {
    parts.retain(|part| !part.kind.is_summary());
    parts.sort_by_key(|part| part.kind);
    let open =
        |part: &&Condition| part.status != ConditionStatus::True && part.reason.blocks_ready();
    let first = |progress| {
        let mut stands = parts.iter().filter(open);
        stands.find(|part| part.reason.progress() == progress)
    };
    let stalled = first(Progress::Stalled);
    let sums = match (stalled, first(Progress::Reconciling)) {
        (Some(part), _) => Some((ConditionType::Stalled, part)),
        (None, Some(part)) => Some((ConditionType::Reconciling, part)),
        (None, None) => None,
    };
    let progress = sums.map(|(kind, part)| Condition {
        kind,
        status: ConditionStatus::True,
        ..part.clone()
    });
    let with = |status| parts.iter().filter(open).find(|part| part.status == status);
    let (no, unknown) = (with(ConditionStatus::False), with(ConditionStatus::Unknown));
    let suspended = parts.iter().find(|part| part.reason == Reason::Suspended);
    let ready = match (stalled.or(no).or(unknown), suspended) {
        (Some(part), _) => Condition {
            kind: ConditionType::Ready,
            status: if no.is_some() {
                ConditionStatus::False
            } else {
                ConditionStatus::Unknown
            },
            ..part.clone()
        },
        (None, Some(_)) => Condition::new(ConditionType::Ready, true, Reason::Suspended),
        (None, None) => Condition::new(ConditionType::Ready, true, Reason::Ok),
    };
    parts.push(ready);
    parts.extend(progress);
    parts.sort_by_key(|part| part.kind);
    parts
}
