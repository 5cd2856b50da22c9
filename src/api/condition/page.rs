//! `docs/conditions.md`, made from the same table that the program runs on.
//!
//! Owns: its words around the table. Never here: a reason or a sentence of its own.

use std::fmt::Write as _;

use super::{ConditionType, EventType, Progress, Reason};

/// What refreshes the committed page.
pub const REFRESH_CONDITIONS: &str = "cargo run -- crd --conditions > docs/conditions.md";

const INTRODUCTION: &str = "\
# Conditions and reasons

What `kubectl describe whs` and `/status` of a receiver say, and what to do about it.

- A condition's `message` is the sentence given here, often after what it is about: `Booking: …`.
- `observedGeneration` tells which version of the spec a condition was found for;
  `lastTransitionTime` moves only when the status changes.
- An Event is sent when a condition gets another status or reason, not when it is found again.
- Wait for an object with `kubectl wait --for=condition=Ready whs/NAME`. Tools that use kstatus
  (Flux, kpt) see `Current` when Ready is true, `Failed` with Stalled, else `InProgress`; whatever
  is being deleted is `Terminating` for them.

## Conditions

| condition | says, when true | there |
|---|---|---|
";

const ABOUT_READY: &str = "
Ready is `False` when a condition is `False` for a reason that Ready depends on (last column below),
`Unknown` when one is `Unknown`, else `True`. It takes reason and message from the most pressing
condition: first those that stall, then the false, then the unknown. Reconciling and Stalled are
never there together; Stalled comes first.

## Reasons
";

/// The page, as Markdown.
pub fn page() -> String {
    let mut page = format!(
        "<!-- Made by `bellhop crd --conditions`; do not edit. To refresh it: {REFRESH_CONDITIONS} -->\n{INTRODUCTION}"
    );
    for kind in ConditionType::ALL {
        let there = if kind.only_while_true() {
            "only while true"
        } else {
            "always"
        };
        let _ = writeln!(page, "| `{kind}` | {} | {there} |", kind.sentence());
    }
    page.push_str(ABOUT_READY);
    for kind in ConditionType::ALL {
        section(&mut page, kind);
    }
    page
}

/// The reasons that a condition has before all others that have it too.
fn section(page: &mut String, kind: ConditionType) {
    let own = |reason: &&Reason| reason.conditions()[0].0 == kind;
    let mut own = Reason::ALL.iter().filter(own).peekable();
    if own.peek().is_none() {
        return;
    }
    let _ = write!(
        page,
        "\n### {kind}\n\n| reason | status | when | message: what it means, and the next step | Event | kstatus | Ready |\n|---|---|---|---|---|---|---|\n"
    );
    for reason in own {
        row(page, kind, *reason);
    }
}

fn row(page: &mut String, section: ConditionType, reason: Reason) {
    let conditions = reason.conditions().iter().map(|(kind, status)| {
        if *kind == section {
            format!("`{}`", status.as_str())
        } else {
            format!("{kind} `{}`", status.as_str())
        }
    });
    let conditions: Vec<String> = conditions.collect();
    let event = reason.event().map_or("none", EventType::as_str);
    let progress = match reason.progress() {
        _ if reason.ends() => "Terminating",
        Progress::Settled if reason.blocks_ready() => "InProgress",
        Progress::Settled => "no influence",
        Progress::Reconciling => "InProgress (Reconciling)",
        Progress::Stalled => "Failed (Stalled)",
    };
    let ready = if reason.blocks_ready() {
        "depends"
    } else {
        "does not depend"
    };
    let _ = writeln!(
        page,
        "| `{reason}` | {} | {} | {} | {event} | {progress} | {ready} |",
        conditions.join(", "),
        reason.when(),
        reason.sentence(),
    );
}
