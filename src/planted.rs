//! Bugs that the model test plants, to prove that it would catch them.
//!
//! Owns: the list, and the switch. Without the feature `planted-bugs` every question is answered
//! `false` at compile time, and nothing of this is in the program.
//!
//! Never here: a way to switch a bug on from outside the process.

/// A mistake that one could make in the pipeline or in a state engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// An unchanged answer leaves its claim (and its mark) as they were.
    UnchangedKeepsClaim,
    /// Settling clears the mark, also when a newer notification came in during the fetch.
    ClearIgnoresGeneration,
    /// A lower `version` is published.
    VersionIgnored,
    /// An availability retrieved before its mark counts as confirmed.
    RetrievedIgnored,
    /// Child marks are written after the parent's commit, in a step of their own.
    ChildrenAfterCommit,
    /// What a list lacks is removed at once.
    ListRemoves,
    /// After a removal, revisions start again.
    RevisionRestarts,
    /// One 404 is enough to remove.
    SingleSignalRemoves,
    /// A failed read clears its mark.
    FailureClearsMark,
    /// A worker whose claim was taken over writes all the same.
    StaleClaimWrites,
    /// A mark takes the provider's timestamp as it is, also from the future.
    FutureTimestampTrusted,
    /// An empty availability is believed at once.
    EmptyBelieved,
    /// What carries no `retrieved` is read only once after a notification.
    SecondLookSkipped,
    /// A sink's cursor moves before the event is delivered.
    CursorBeforeDelivery,
    /// A parked event does not hold back later events of its entity.
    ParkedOvertaken,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::UnchangedKeepsClaim,
        Self::ClearIgnoresGeneration,
        Self::VersionIgnored,
        Self::RetrievedIgnored,
        Self::ChildrenAfterCommit,
        Self::ListRemoves,
        Self::RevisionRestarts,
        Self::SingleSignalRemoves,
        Self::FailureClearsMark,
        Self::StaleClaimWrites,
        Self::FutureTimestampTrusted,
        Self::EmptyBelieved,
        Self::SecondLookSkipped,
        Self::CursorBeforeDelivery,
        Self::ParkedOvertaken,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants one bug, or none, on this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.with(|planted| planted.set(bug));
    }

    /// Whether `bug` is planted on this thread.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.with(|planted| planted.get() == Some(bug))
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{plant, planted};

/// Whether `bug` is planted: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[inline]
pub const fn planted(_bug: Bug) -> bool {
    false
}
