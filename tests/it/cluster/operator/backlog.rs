//! What receivers say of themselves in the status: backlog, last notification, conditions; and how
//! often it is written. The longest wait of the tier is here: this module's name has it begin early.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use super::receivers::{Mood, begun, pod_is, start_pod};
use super::rig::Rig;

#[tokio::test]
async fn what_receivers_say_is_in_the_status() {
    let Some((rig, pods_are, operator)) = begun("said").await else {
        return;
    };
    let numbers = json!({ "backlog": "1+", "lastNotificationTime": "2026-11-26T07:00:00.000Z" });
    pods_are.are(Mood::Saying(numbers.clone()));
    start_pod(&rig, "shop").await;
    rig.until("shop", "Ready", "True Ok").await;
    // Told at once; what moves after that has its pace.
    let status = rig.get("shop").await.unwrap().status.unwrap();
    let status = serde_json::to_value(status).unwrap();
    for (name, number) in numbers.as_object().unwrap() {
        assert_eq!(&status[name], number);
    }
    let sink = "orders: A sink is not well; its events wait. Check the sink that is named here.";
    pods_are.are(Mood::Saying(json!({
        "backlog": "100+", "lastNotificationTime": "2026-11-26T08:00:00.000Z",
        "conditions": [
            { "type": "Delivering", "status": "False", "reason": "SinkUnavailable", "message": sink },
            { "type": "WeakSignature", "status": "True", "reason": "Md5InUse", "message": "m" },
        ],
    })));
    // Asked at once when a pod changes, and otherwise every 20 s.
    pod_is(&rig, "shop", "False").await;
    pod_is(&rig, "shop", "True").await;
    rig.until("shop", "Delivering", "False SinkUnavailable")
        .await;
    rig.until("shop", "WeakSignature", "True Md5InUse").await;
    assert_eq!(rig.message("shop", "Delivering").await, sink);
    rig.until("shop", "Ready", "False SinkUnavailable").await;
    pods_are.are(Mood::Silent);
    pod_is(&rig, "shop", "False").await;
    pod_is(&rig, "shop", "True").await;
    let unknown = "Unknown ReceiverUnreachable";
    rig.until("shop", "ReceiverAvailable", unknown).await;
    rig.until("shop", "Delivering", unknown).await;
    // Who does not answer is asked again soon.
    pods_are.are(Mood::Well);
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(rig.condition("shop", "WeakSignature").await, None);
    operator.stop().await;
}

/// What moves all the time is written once a minute, and the time of the last notification, which
/// moves with each of them, more seldom still. Oracle: the API server's own record of calls.
#[tokio::test]
async fn moving_numbers_are_no_storm_of_writes() {
    let Some((rig, pods_are, operator)) = begun("pace").await else {
        return;
    };
    let numbers = |at: usize| {
        let backlog = ["1+", "100+", "10k+"][at % 3];
        let time = format!("2026-11-26T07:00:{:02}.000Z", at % 60);
        json!({ "backlog": backlog, "lastNotificationTime": time })
    };
    pods_are.are(Mood::Saying(numbers(0)));
    start_pod(&rig, "shop").await;
    rig.until("shop", "Ready", "True Ok").await;
    let said = || async {
        let status = rig.get("shop").await.unwrap().status.unwrap();
        let status = serde_json::to_value(status).unwrap();
        (
            status["backlog"].clone(),
            status["lastNotificationTime"].clone(),
        )
    };
    let (first, time) = said().await;
    assert_eq!(first, "1+");
    let before = status_writes(&rig);
    let (asked, begun) = (pods_are.asked.load(Ordering::SeqCst), Instant::now());
    // They say something else whenever they are asked, until it is written.
    let rounds = || pods_are.asked.load(Ordering::SeqCst) - asked;
    while said().await.0 == first {
        pods_are.are(Mood::Saying(numbers(1 + rounds() % 2)));
        assert!(
            begun.elapsed() < Duration::from_mins(2),
            "{} rounds",
            rounds()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{} rounds in {:?}", rounds(), begun.elapsed());
    assert!(rounds() >= 2, "{} rounds", rounds());
    assert_eq!(status_writes(&rig) - before, 1, "in {} rounds", rounds());
    assert_eq!(said().await.1, time, "within five minutes");
    operator.stop().await;
}

/// The last numbers of a day are said in the end, although nothing else happens then.
#[tokio::test]
async fn the_last_numbers_are_said_when_they_may_be() {
    let Some((rig, pods_are, operator)) = begun("last-numbers").await else {
        return;
    };
    pods_are.are(Mood::Saying(json!({ "backlog": "1+" })));
    start_pod(&rig, "shop").await;
    rig.until("shop", "Ready", "True Ok").await;
    let said = || async {
        let status = rig.get("shop").await.unwrap().status.unwrap();
        serde_json::to_value(status).unwrap()["backlog"].clone()
    };
    assert_eq!(said().await, "1+");
    pods_are.are(Mood::Saying(json!({ "backlog": "0" })));
    let begun = Instant::now();
    while said().await == "1+" {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_mins(2), "{waited:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(said().await, "0");
    operator.stop().await;
}

/// How often the status of a subscription of this test was written, or tried to.
fn status_writes(rig: &Rig) -> usize {
    let calls = rig.space.plane.calls("admin").into_iter();
    let of_status = calls.filter(|call| {
        call.what == "bellhop.dev/webhooksubscriptions/status"
            && call.namespace == rig.space.name
            && call.verb != "get"
    });
    of_status.count()
}
