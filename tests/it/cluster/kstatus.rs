//! What Flux, Argo CD and kpt make of a subscription: the library `kstatus` that they share reads
//! it in each state. Oracle: that library (a small Go program of tests/tools).

use std::io::Write;
use std::process::{Command, Stdio};

use bellhop::api::condition::{ConditionType as C, Reason as R};
use serde_json::{Value, json};

use super::kubectl::condition;
use super::rules::smallest;
use super::tools;

/// One state: its name, generation and observed generation, conditions, and what kstatus must say.
type State = (
    &'static str,
    [i64; 2],
    Vec<(C, &'static str, R)>,
    &'static str,
);

#[rustfmt::skip]
fn states() -> Vec<State> {
    let ready = |status, reason| (C::Ready, status, reason);
    let moving = |reason| (C::Reconciling, "True", reason);
    let stalled = |reason| (C::Stalled, "True", reason);
    vec![
        ("nobody has looked", [1, -1], vec![], "InProgress"),
        ("ready", [1, 1], vec![ready("True", R::Ok), (C::Registered, "True", R::RulesInPlace)], "Current"),
        ("changed since", [2, 1], vec![ready("True", R::Ok)], "InProgress"),
        ("suspended", [1, 1], vec![ready("True", R::Suspended)], "Current"),
        ("weakly signed", [1, 1], vec![ready("True", R::Ok), (C::WeakSignature, "True", R::Md5InUse)], "Current"),
        ("dead letters", [1, 1], vec![ready("True", R::Ok), (C::Delivering, "False", R::DeadLetters)], "Current"),
        ("registering", [1, 1], vec![ready("False", R::RegistrationPending), moving(R::RegistrationPending)], "InProgress"),
        ("secret missing", [1, 1], vec![ready("False", R::SecretMissing), moving(R::SecretMissing)], "InProgress"),
        ("provider down", [1, 1], vec![ready("False", R::ProviderUnavailable), moving(R::ProviderUnavailable)], "InProgress"),
        ("rollout", [1, 1], vec![ready("True", R::Ok), moving(R::RolloutInProgress)], "InProgress"),
        ("unknown", [1, 1], vec![ready("Unknown", R::ReceiverUnreachable)], "InProgress"),
        ("invalid", [1, 1], vec![ready("False", R::Invalid), stalled(R::Invalid)], "Failed"),
        ("url in use", [1, 1], vec![ready("False", R::UrlInUse), stalled(R::UrlInUse)], "Failed"),
        ("owned elsewhere", [1, 1], vec![ready("False", R::RuleOwnedElsewhere), stalled(R::RuleOwnedElsewhere)], "Failed"),
        ("channel changed", [1, 1], vec![ready("False", R::ChannelChanged), stalled(R::ChannelChanged)], "Failed"),
        ("refused credentials", [1, 1], vec![ready("False", R::Unauthorized), stalled(R::Unauthorized)], "Failed"),
        // Once corrected it is in progress, although Stalled is still there from before.
        ("corrected", [2, 1], vec![ready("False", R::Invalid), stalled(R::Invalid)], "InProgress"),
    ]
}

fn object(name: &str, [generation, observed]: [i64; 2], conditions: &[(C, &str, R)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status, reason)| condition(*kind, status, *reason, observed))
        .collect();
    let mut object = smallest(name);
    object["metadata"]["generation"] = json!(generation);
    object["status"] = json!({ "observedGeneration": observed, "conditions": conditions });
    // What the types cannot read would be another object than the operator's.
    let read: bellhop::api::v1alpha1::WebhookSubscription = serde_json::from_value(object).unwrap();
    serde_json::to_value(read).unwrap()
}

#[test]
fn kstatus_understands_every_state() {
    let Some(program) = tools::find("kstatus") else {
        return;
    };
    let mut input = String::new();
    let mut expected = Vec::new();
    for (name, generations, conditions, status) in states() {
        input += &object(name, generations, &conditions).to_string();
        expected.push((name.to_owned(), status.to_owned()));
    }
    let mut deleted = object("deleted", [2, 1], &[(C::Ready, "True", R::Ok)]);
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
    input += &deleted.to_string();
    expected.push(("deleted".to_owned(), "Terminating".to_owned()));

    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let found: Vec<(String, String)> = said
        .iter()
        .map(|line| (text(line, "name"), text(line, "status")))
        .collect();
    assert_eq!(found, expected);
    // A person sees our sentence, with the next step.
    for line in said.iter().filter(|line| line["status"] == "Failed") {
        let message = text(line, "message");
        assert!(
            R::ALL.iter().any(|reason| reason.sentence() == message),
            "{message}"
        );
    }
}
