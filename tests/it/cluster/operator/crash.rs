//! Every crash point: each call that a pass makes, to the API server and to the registry, fails or
//! is the last one of the process, before its effect and after. Then another operator goes on, and
//! must find its way to the same end. Oracle: the simulator's registry, and the API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::json;
use tokio::sync::Semaphore;

use super::breaker::{BREAKS, Break, Breaker};
use super::receivers::{Pods, start_pod};
use super::rig::{KEY, Looks, Rig};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Register,
    /// Another url for both rules.
    Move,
    Rotate,
    Delete,
    /// A deletion that leaves the rules, disabled.
    Retain,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Move => "move",
            Self::Rotate => "rotate",
            Self::Delete => "delete",
            Self::Retain => "retain",
        }
    }
}

/// Everything up to the phase, by an operator that nothing happens to.
async fn prepare(phase: Phase) -> Option<Rig> {
    let rig = Rig::new(&format!("crash-{}", phase.name())).await?;
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        if phase == Phase::Retain {
            object["spec"]["registration"] = json!({ "deletionPolicy": "Retain" });
        }
    })
    .await;
    if phase != Phase::Register {
        let operator = rig.operator();
        rig.until("shop", "Ready", "True Ok").await;
        operator.stop().await;
    }
    match phase {
        Phase::Register => {}
        Phase::Rotate => {
            let asked =
                json!({ "metadata": { "annotations": { "bellhop.dev/rotate-keys": "1" } } });
            rig.patch("shop", asked).await;
        }
        Phase::Move => {
            let moved = json!({ "spec": { "url": "https://hooks.example.com/moved" } });
            rig.patch("shop", moved).await;
        }
        Phase::Delete | Phase::Retain => rig.delete("shop").await,
    }
    Some(rig)
}

/// Waits for the end of the phase and checks it: the rules, what is in the cluster, and that nothing
/// was done twice.
async fn check(rig: &Rig, phase: Phase) {
    if matches!(phase, Phase::Delete | Phase::Retain) {
        return check_end(rig, phase).await;
    }
    let mut looks = Looks::default();
    while looks.again().await {
        let ready = rig.condition("shop", "Ready").await;
        let status = rig.get("shop").await.unwrap().status.unwrap();
        let rotated = status.acknowledged.and_then(|known| known.rotate_keys);
        let done = match phase {
            Phase::Rotate => rotated.as_deref() == Some("1"),
            Phase::Move => status.observed_generation == 2,
            _ => true,
        };
        if done && ready.as_deref() == Some("True Ok") {
            break;
        }
    }
    rig.until("shop", "Ready", "True Ok").await;
    let path = if phase == Phase::Move {
        "moved"
    } else {
        "shop"
    };
    rig.check_registered_at("shop", path).await;
    // No second effect: one rule made per type, and one more by the rotation.
    let rotations = usize::from(phase == Phase::Rotate);
    assert_eq!(done(rig, "POST", 201), each(1 + rotations));
    assert_eq!(done(rig, "DELETE", 204), each(rotations));
    assert_eq!(secrets(rig).await, ["redeam-keys", "shop-bellhop"]);
    let owned = rig.secrets().get("shop-bellhop").await.unwrap();
    // One resync when it began, and one for what another url or key may have missed.
    let times = 1 + usize::from(phase != Phase::Register);
    let resyncs = rig.resyncs("shop").await;
    assert_eq!(resyncs, json!({ "Rate": times, "Booking": times }));
    let notes = owned.metadata.annotations.unwrap_or_default();
    assert!(!notes.contains_key("bellhop.dev/resync-owed"), "{notes:?}");
}

/// Nothing is left of the subscription but what it is to leave.
async fn check_end(rig: &Rig, phase: Phase) {
    if phase == Phase::Delete {
        rig.check_gone("shop").await;
    } else {
        rig.until_gone("shop").await;
        let rules = rig.rules();
        assert_eq!(rules.len(), 2, "{rules:?}");
        assert!(rules.values().all(|rule| rule["disabled"] == json!(true)));
    }
    assert_eq!(secrets(rig).await, ["redeam-keys"]);
    assert_eq!(done(rig, "POST", 201), each(1), "no rule is made");
    let deleted = usize::from(phase == Phase::Delete);
    assert_eq!(done(rig, "DELETE", 204), each(deleted));
}

/// The names of all Secrets.
async fn secrets(rig: &Rig) -> Vec<String> {
    let all = rig.secrets().list(&ListParams::default()).await.unwrap();
    all.into_iter().map(|secret| secret.name_any()).collect()
}

/// What the registry has done, by the end of the rule's path.
fn done(rig: &Rig, method: &str, status: u16) -> BTreeMap<&'static str, usize> {
    let mut done = BTreeMap::new();
    for request in rig.simulator.control().requests(0, usize::MAX) {
        if request.method == method && request.status == status {
            for path in ["rates", "bookings"] {
                if request.target.ends_with(path) {
                    *done.entry(path).or_insert(0) += 1;
                }
            }
        }
    }
    done
}

fn each(times: usize) -> BTreeMap<&'static str, usize> {
    let both = ["rates", "bookings"].map(|path| (path, times));
    both.into_iter().filter(|_| times > 0).collect()
}

/// The calls of the phase when nothing breaks.
async fn undisturbed(phase: Phase) -> Option<Vec<String>> {
    let rig = prepare(phase).await?;
    let operator = rig.operator();
    check(&rig, phase).await;
    let calls = operator.breaker.calls();
    operator.stop().await;
    Some(calls)
}

async fn broken(phase: Phase, number: usize, how: Break) {
    let rig = prepare(phase).await.unwrap();
    let breaker = Breaker::at(number, how);
    let operator = rig.operator_with(breaker.clone(), "first");
    if matches!(how, Break::DieBefore | Break::DieAfter) {
        let died = tokio::time::timeout(Duration::from_mins(1), breaker.died.notified());
        let calls = || breaker.calls();
        died.await
            .unwrap_or_else(|_| panic!("not reached: {:?}", calls()));
        operator.kill().await;
        let second = rig.operator_with(Arc::default(), "second");
        check(&rig, phase).await;
        second.stop().await;
    } else {
        check(&rig, phase).await;
        assert!(breaker.calls().len() > number, "not reached");
        operator.stop().await;
    }
}

async fn every_crash_point(phase: Phase) {
    let Some(calls) = undisturbed(phase).await else {
        return;
    };
    println!("{} calls: {calls:#?}", calls.len());
    assert!(calls.len() > 5, "{calls:?}");
    if phase == Phase::Register {
        // The budget of requests is small: each type is looked at once.
        let reads = calls
            .iter()
            .filter(|call| call.starts_with("registry get "));
        assert_eq!(reads.count(), 7, "{calls:?}");
    }
    let permits = Arc::new(Semaphore::new(8));
    let mut runs = tokio::task::JoinSet::new();
    for (number, call) in calls.into_iter().enumerate() {
        for how in BREAKS {
            let (permits, call) = (permits.clone(), call.clone());
            runs.spawn(async move {
                let _permit = permits.acquire_owned().await.unwrap();
                let run = tokio::spawn(broken(phase, number, how));
                (call, number, how, run.await.is_ok())
            });
        }
    }
    let mut wrong = Vec::new();
    while let Some(run) = runs.join_next().await {
        let (call, number, how, fine) = run.unwrap();
        if !fine {
            wrong.push(format!("{how:?} at call {number}, {call}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_registration_survives_every_crash() {
    every_crash_point(Phase::Register).await;
}

#[tokio::test]
async fn a_move_survives_every_crash() {
    every_crash_point(Phase::Move).await;
}

#[tokio::test]
async fn a_deletion_that_leaves_the_rules_survives_every_crash() {
    every_crash_point(Phase::Retain).await;
}

#[tokio::test]
async fn a_rotation_survives_every_crash() {
    every_crash_point(Phase::Rotate).await;
}

#[tokio::test]
async fn a_deletion_survives_every_crash() {
    every_crash_point(Phase::Delete).await;
}

/// The calls that make the objects of receivers, each of which happens once in a first pass at least.
const OBJECTS: [&str; 13] = [
    "GET serviceaccounts/shop",
    "PATCH serviceaccounts/shop",
    "PATCH configmaps/shop-settings",
    "GET secrets/shop-feed",
    "PATCH secrets/shop-feed",
    "PATCH persistentvolumeclaims/shop-data",
    "PATCH services/shop",
    "PATCH services/shop-feed",
    "PATCH networkpolicies/shop",
    "GET statefulsets/shop",
    "PATCH statefulsets/shop",
    "PATCH ingresses/shop",
    "PATCH pods/shop-0",
];

async fn broken_object(call: &'static str, how: Break) {
    let rig = Rig::new("crash-objects").await.unwrap();
    let pods = Pods::new(&rig);
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["exposure"] = json!({ "ingress": {} });
    })
    .await;
    let breaker = Arc::new(Breaker::default());
    breaker.break_next(call, how);
    let first = rig.operator_with_receivers_through(breaker.clone(), pods.clone());
    let ends = async {
        start_pod(&rig, "shop").await;
        rig.until("shop", "Ready", "True Ok").await;
    };
    let operator = if matches!(how, Break::DieBefore | Break::DieAfter) {
        // It may die before there is a set, or with the pod.
        let died = tokio::time::timeout(Duration::from_mins(1), breaker.died.notified());
        let late = call == "PATCH pods/shop-0";
        if late {
            start_pod(&rig, "shop").await;
        }
        died.await.expect("not reached");
        first.kill().await;
        let second = rig.operator_with_receivers_through(Arc::default(), pods);
        if late {
            rig.until("shop", "Ready", "True Ok").await;
        } else {
            ends.await;
        }
        second
    } else {
        ends.await;
        assert_eq!(breaker.to_break(), 0, "not reached");
        first
    };
    rig.check_registered("shop").await;
    assert_eq!(done(&rig, "POST", 201), each(1), "no rule is made twice");
    let names = ["redeam-keys", "shop-bellhop", "shop-feed"];
    assert_eq!(secrets(&rig).await, names);
    operator.stop().await;
}

#[tokio::test]
async fn the_objects_of_receivers_survive_every_crash() {
    if Rig::new("crash-objects").await.is_none() {
        return;
    }
    let permits = Arc::new(Semaphore::new(8));
    let mut runs = tokio::task::JoinSet::new();
    for call in OBJECTS {
        for how in BREAKS {
            let permits = permits.clone();
            runs.spawn(async move {
                let _permit = permits.acquire_owned().await.unwrap();
                let run = tokio::spawn(broken_object(call, how));
                (call, how, run.await.is_ok())
            });
        }
    }
    let mut wrong = Vec::new();
    while let Some(run) = runs.join_next().await {
        let (call, how, fine) = run.unwrap();
        if !fine {
            wrong.push(format!("{how:?} at {call}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An old leader's write that the provider sees only when the new one has made all well.
#[tokio::test]
async fn a_late_write_of_an_old_leader_is_mended() {
    let Some(rig) = prepare(Phase::Rotate).await else {
        return;
    };
    let breaker = Arc::new(Breaker::default());
    *breaker.late_delete.lock().unwrap() = Some(Duration::from_secs(10));
    let old = rig.operator_with(breaker.clone(), "old");
    let died = tokio::time::timeout(Duration::from_mins(1), breaker.died.notified());
    died.await.unwrap();
    old.kill().await;
    let new = rig.operator_with(Arc::default(), "new");
    check(&rig, Phase::Rotate).await;
    rig.eventually("the late delete took effect", || rig.rules().len() == 1)
        .await;
    // The status still says that all is well; the second look, after half a minute, finds it.
    rig.eventually("the rule is made again", || rig.rules().len() == 2)
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    for _ in 0..200 {
        let rules = rig.rules();
        if rules.values().all(|rule| rule["disabled"] == json!(false)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.check_registered("shop").await;
    new.stop().await;
}
