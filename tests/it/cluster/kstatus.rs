//! What Flux and kpt make of a subscription: the library `kstatus` that they share reads
//! it in each state. Oracle: that library (a small Go program of tests/tools), against what
//! docs/conditions.md tells people, and against a table written by hand.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use bellhop::api::condition::{Condition, ConditionStatus, ConditionType, Reason, merge, summary};
use bellhop::api::v1alpha1::{WebhookSubscription, WebhookSubscriptionStatus};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::rules::smallest;
use super::tools;

/// A subscription of some generation whose status the operator wrote for another, or the same.
pub fn object(name: &str, [generation, observed]: [i64; 2], parts: Vec<Condition>) -> Value {
    let now = Timestamp::UNIX_EPOCH;
    let merged = merge(&[], &summary(parts), observed, now);
    let mut object: WebhookSubscription = serde_json::from_value(smallest(name)).unwrap();
    object.metadata.generation = Some(generation);
    object.status = Some(WebhookSubscriptionStatus {
        observed_generation: observed,
        conditions: merged.map_or_else(Vec::new, |merged| merged.conditions),
        ..WebhookSubscriptionStatus::default()
    });
    serde_json::to_value(object).unwrap()
}

/// The parts of a subscription that is well, but for one of them.
pub fn well_but(part: Option<(ConditionType, ConditionStatus, Reason)>) -> Vec<Condition> {
    let mut parts = vec![
        Condition::new(ConditionType::Accepted, true, Reason::SpecValid),
        Condition::new(
            ConditionType::CredentialsValid,
            true,
            Reason::CredentialsAccepted,
        ),
        Condition::new(ConditionType::Registered, true, Reason::RulesInPlace),
        Condition::new(
            ConditionType::ReceiverAvailable,
            true,
            Reason::ReceiverReady,
        ),
        Condition::new(ConditionType::Reachable, true, Reason::Reachable),
        Condition::new(ConditionType::Delivering, true, Reason::DeliveryOk),
    ];
    if let Some((kind, status, reason)) = part {
        parts.retain(|other| other.kind != kind);
        parts.push(Condition::new(kind, status, reason));
    }
    parts
}

fn kind(name: &str) -> ConditionType {
    let mut all = ConditionType::ALL.into_iter();
    all.find(|kind| kind.as_str() == name).unwrap()
}

fn status(name: &str) -> ConditionStatus {
    let mut all = [
        ConditionStatus::True,
        ConditionStatus::False,
        ConditionStatus::Unknown,
    ]
    .into_iter();
    all.find(|status| status.as_str() == name).unwrap()
}

/// A state of the page.
pub type Part = (ConditionType, ConditionStatus, Reason);

/// A subscription in a state that the page says is seen as `seen`.
pub fn in_state(part: Part, seen: &str) -> Value {
    // Ready is what the parts come to: nothing replaces one.
    let replaced = (part.0 != ConditionType::Ready).then_some(part);
    let mut object = object("shop", [1, 1], well_but(replaced));
    if seen == "Terminating" {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    }
    object
}

/// Each state that docs/conditions.md lists, with what it says that kstatus sees.
pub fn documented() -> Vec<(Part, &'static str)> {
    let page = std::fs::read_to_string("docs/conditions.md").unwrap();
    let reasons = page.split("## Reasons").nth(1).unwrap();
    let mut found = Vec::new();
    for section in reasons.split("\n### ").skip(1) {
        let of_section = kind(section.lines().next().unwrap());
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split(" | ").collect();
            let reason = Reason::parse(cells[0].trim_matches(['|', ' ', '`'])).unwrap();
            let seen = match cells[5].split(' ').next().unwrap() {
                "InProgress" => "InProgress",
                "Failed" => "Failed",
                "Terminating" => "Terminating",
                "no" => "Current",
                other => panic!("{reason}: {other}"),
            };
            for has in cells[1].split(", ") {
                let (named, state) = has.rsplit_once(' ').unwrap_or(("", has));
                let kind = if named.is_empty() {
                    of_section
                } else {
                    kind(named)
                };
                found.push(((kind, status(state.trim_matches('`')), reason), seen));
            }
        }
    }
    found
}

/// Objects on the way, and what kstatus must say of them.
pub fn on_the_way() -> Vec<(Value, &'static str)> {
    let part = |kind, status: bool, reason| well_but(Some((kind, status.into(), reason)));
    let invalid = || part(ConditionType::Accepted, false, Reason::Invalid);
    let mut both = part(ConditionType::Registered, false, Reason::RuleOwnedElsewhere);
    both.retain(|part| part.kind != ConditionType::CredentialsValid);
    both.push(Condition::new(
        ConditionType::CredentialsValid,
        false,
        Reason::SecretMissing,
    ));
    let mut deleted = object("deleted", [2, 2], well_but(None));
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    let mut nobody = object("nobody-has-looked", [1, -1], Vec::new());
    // As the API server makes it.
    nobody["status"] = json!({ "observedGeneration": -1 });
    vec![
        (nobody, "InProgress"),
        (object("ready", [1, 1], well_but(None)), "Current"),
        (
            object("changed-since", [2, 1], well_but(None)),
            "InProgress",
        ),
        (object("invalid", [2, 2], invalid()), "Failed"),
        // Once corrected it is in progress, although Stalled is still there from before.
        (object("corrected", [3, 2], invalid()), "InProgress"),
        // What needs somebody comes before what ends by itself.
        (object("two-reasons", [1, 1], both), "Failed"),
        (deleted, "Terminating"),
    ]
}

/// What the library says of each object.
pub fn ask(program: std::path::PathBuf, objects: &[Value]) -> Vec<Value> {
    let input: String = objects.iter().map(ToString::to_string).collect();
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Beside the reading: both pipes have an end to what they hold.
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn kstatus_sees_each_state_as_documented() {
    let Some(program) = tools::find("kstatus") else {
        return;
    };
    let mut objects = Vec::new();
    let mut expected = Vec::new();
    let mut reasons = BTreeSet::new();
    for (part, seen) in documented() {
        let (kind, status, reason) = part;
        reasons.insert(reason);
        objects.push(in_state(part, seen));
        expected.push((
            format!("{kind} {} {reason}", status.as_str()),
            seen,
            Some(reason),
        ));
    }
    let all: BTreeSet<Reason> = Reason::ALL.iter().copied().collect();
    assert_eq!(reasons, all, "every reason is in docs/conditions.md");
    for (object, seen) in on_the_way() {
        expected.push((object["metadata"]["name"].to_string(), seen, None));
        objects.push(object);
    }
    let said = ask(program, &objects);
    assert_eq!(said.len(), expected.len());
    let mut wrong = Vec::new();
    for (said, (what, seen, reason)) in said.iter().zip(expected) {
        if said["status"] != seen {
            wrong.push(format!("{what}: {} instead of {seen}", said["status"]));
        }
        // Who looks at a failure is told what to do.
        if let (Some(reason), true) = (reason, seen == "Failed")
            && said["message"] != reason.sentence()
        {
            wrong.push(format!("{what}: {}", said["message"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
