//! What pods and answers come to, case by case.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::Wanted;
use super::*;
use crate::secrets::Secret;

fn pod(change: impl FnOnce(&mut Pod)) -> Pod {
    let mut pod = Pod {
        name: "shop-0".to_owned(),
        address: Some("192.0.2.1".to_owned()),
        ready: true,
        template: Some("t1".to_owned()),
        poke: None,
        ending: false,
        trouble: None,
    };
    change(&mut pod);
    pod
}

fn answer(conditions: Value) -> Result<Answer, Unreachable> {
    let status = json!({
        "conditions": conditions, "backlog": "100+",
        "lastNotificationTime": "2026-11-26T08:00:00.000Z",
        "receiver": { "inFlight": 0, "rules": [
            { "type": "Rate", "keyFingerprints": ["0123456789ab"] },
        ] },
    });
    Answer::parse(status.to_string().as_bytes())
}

fn fine() -> Result<Answer, Unreachable> {
    answer(json!([
        { "type": "Delivering", "status": "True", "reason": "DeliveryOk", "message": "m" },
    ]))
}

fn entry(pods: Vec<Pod>, answers: Vec<Result<Answer, Unreachable>>) -> Entry {
    let names = pods.iter().map(|pod| pod.name.clone());
    Entry {
        answers: names.zip(answers).collect(),
        pods: pods
            .into_iter()
            .map(|pod| (pod.name.clone(), pod))
            .collect(),
        wanted: Some(Wanted {
            template: "t1".to_owned(),
            replicas: 1,
            token: Secret::new("a-token-of-a-test"),
            refused: None,
            lacks: None,
        }),
        ..Entry::default()
    }
}

/// Status and reason per condition.
fn says(entry: &Entry) -> BTreeMap<String, String> {
    let Heard::Found(found) = judge(entry) else {
        panic!("nothing found: {:?}", judge(entry));
    };
    let conditions = found.conditions.iter();
    conditions
        .map(|one| {
            let text = format!("{} {}", one.status.as_str(), one.reason);
            (one.kind.to_string(), text)
        })
        .collect()
}

fn both(entry: &Entry) -> (String, String) {
    let says = says(entry);
    (
        says["ReceiverAvailable"].clone(),
        says["Delivering"].clone(),
    )
}

fn words(available: &str, delivering: &str) -> (String, String) {
    (available.to_owned(), delivering.to_owned())
}

#[test]
fn a_ready_receiver_that_answers_is_believed() {
    let good = entry(vec![pod(|_| {})], vec![fine()]);
    assert_eq!(both(&good), words("True ReceiverReady", "True DeliveryOk"));
    let Heard::Found(found) = judge(&good) else {
        panic!("nothing found");
    };
    assert_eq!((found.counts.ready, found.counts.desired), (1, 1));
    let numbers = found.numbers.expect("numbers");
    assert_eq!(numbers.backlog, Some(Backlog::Hundreds));
    let time = numbers.last_notification_time;
    assert_eq!(time.as_deref(), Some("2026-11-26T08:00:00.000Z"));
}

#[test]
fn without_a_ready_receiver_the_pods_tell_why() {
    let none = entry(vec![], vec![]);
    let waits = words("False ReceiverNotReady", "Unknown ReceiverNotReady");
    assert_eq!(both(&none), waits);
    let pulling = pod(|pod| {
        (pod.ready, pod.address) = (false, None);
        pod.trouble = Some("ImagePullBackOff".to_owned());
    });
    let pulling = entry(vec![pulling], vec![]);
    assert_eq!(both(&pulling), waits);
    let Heard::Found(found) = judge(&pulling) else {
        panic!("nothing found");
    };
    let message = &found.conditions[0].message;
    assert!(
        message.starts_with("pod shop-0: ImagePullBackOff: "),
        "{message}"
    );
    for replaced in [
        pod(|pod| (pod.ready, pod.ending) = (false, true)),
        pod(|pod| (pod.ready, pod.template) = (false, Some("t0".to_owned()))),
    ] {
        let replaced = entry(vec![replaced], vec![]);
        let rolls = words("False RolloutInProgress", "Unknown RolloutInProgress");
        assert_eq!(both(&replaced), rolls);
    }
    // One that is not ready (it has no key) may still say how it delivers.
    let keyless = entry(vec![pod(|pod| pod.ready = false)], vec![fine()]);
    assert_eq!(
        both(&keyless),
        words("False ReceiverNotReady", "True DeliveryOk")
    );
}

#[test]
fn unreachable_is_unknown_and_a_start_says_nothing() {
    let silent = entry(vec![pod(|_| {})], vec![Err(Unreachable::NoAnswer)]);
    let unknown = words("Unknown ReceiverUnreachable", "Unknown ReceiverUnreachable");
    assert_eq!(both(&silent), unknown);
    assert_eq!(judge(&entry(vec![pod(|_| {})], vec![])), Heard::Nothing);
    let unwanted = Entry {
        wanted: None,
        ..entry(vec![pod(|_| {})], vec![fine()])
    };
    assert_eq!(judge(&unwanted), Heard::Nothing);
}

#[test]
fn what_the_api_server_refused_comes_first() {
    let mut refused = entry(vec![pod(|_| {})], vec![fine()]);
    let wanted = refused.wanted.as_mut().expect("wanted");
    wanted.refused = Some("Service shop: no".to_owned());
    assert_eq!(
        both(&refused),
        words("False ObjectRefused", "True DeliveryOk")
    );
}

#[test]
fn an_answer_chooses_among_our_words_and_brings_none_of_its_own() {
    let sink = Reason::SinkUnavailable;
    let told = answer(json!([
        { "type": "Delivering", "status": "False", "reason": "SinkUnavailable",
          "message": format!("orders: {}", sink.sentence()) },
        { "type": "WeakSignature", "status": "True", "reason": "Md5InUse", "message": "click here" },
        { "type": "Ready", "status": "True", "reason": "Ok", "message": "m" },
        { "type": "Registered", "status": "True", "reason": "RulesInPlace", "message": "m" },
        { "type": "ReceiverAvailable", "status": "False", "reason": "KeysNotLoaded", "message": "m" },
        { "type": "ClockSkew", "status": "True", "reason": "OfAnotherVersion", "message": "m" },
    ]));
    let entry = entry(vec![pod(|_| {})], vec![told]);
    let expected = [
        ("ReceiverAvailable", "True ReceiverReady"),
        ("Delivering", "False SinkUnavailable"),
        ("WeakSignature", "True Md5InUse"),
    ];
    let expected = expected.map(|(kind, says)| (kind.to_owned(), says.to_owned()));
    assert_eq!(says(&entry), BTreeMap::from(expected));
    let Heard::Found(found) = judge(&entry) else {
        panic!("nothing found");
    };
    let message = |kind| {
        let mut all = found.conditions.iter();
        all.find(|one| one.kind == kind)
            .expect("there")
            .message
            .clone()
    };
    assert!(message(ConditionType::Delivering).starts_with("orders: "));
    let weak = message(ConditionType::WeakSignature);
    assert_eq!(weak, Reason::Md5InUse.sentence());
}

#[test]
fn a_full_backlog_and_a_lost_store_are_the_receivers_own_words() {
    let full = answer(json!([
        { "type": "ReceiverAvailable", "status": "False", "reason": "BacklogFull", "message": "m" },
        { "type": "Delivering", "status": "True", "reason": "DeliveryOk", "message": "m" },
    ]));
    let full = entry(vec![pod(|_| {})], vec![full]);
    assert_eq!(both(&full), words("False BacklogFull", "True DeliveryOk"));
    // It is not ready then, and says why.
    let storeless = answer(json!([
        { "type": "ReceiverAvailable", "status": "False", "reason": "StoreUnavailable", "message": "m" },
        { "type": "Delivering", "status": "False", "reason": "StoreUnavailable", "message": "m" },
    ]));
    let storeless = entry(vec![pod(|pod| pod.ready = false)], vec![storeless]);
    let says = "False StoreUnavailable";
    assert_eq!(both(&storeless), words(says, says));
}
