//! Receivers as the operator meets them: pods that are made here by hand, since no kubelet runs, and
//! answers as a receiver gives them that has loaded what it mounts. Oracle: what the API server and
//! the simulator's registry hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::controller::access::{Access, Answer, Unreachable};
use bellhop::controller::pods::Pod;
use bellhop::secrets::{Fingerprint, Secret};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod as KubePod, Secret as KubeSecret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::rig::{KEY, Looks, Operator, Rig, within};

/// Answers for all pods of a namespace.
pub struct Pods {
    client: Client,
    namespace: String,
    mood: Mutex<Mood>,
    /// How often they were asked.
    pub asked: AtomicUsize,
}

/// How they answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Mood {
    /// They have loaded all that they mount.
    Well,
    /// They have loaded no key yet.
    Keyless,
    /// Nobody answers.
    Silent,
    /// With this instead of what is usual.
    Saying(Value),
}

impl Pods {
    pub fn new(rig: &Rig) -> Arc<Self> {
        Arc::new(Self {
            client: rig.space.client.clone(),
            namespace: rig.space.name.clone(),
            mood: Mutex::new(Mood::Well),
            asked: AtomicUsize::new(0),
        })
    }

    pub fn are(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// The fingerprints of a subscription's keys, by type.
    async fn keys(&self, subscription: &str) -> Vec<Value> {
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("{subscription}-bellhop");
        let data = secrets.get(&name).await.unwrap().data.unwrap();
        let of = |kind: &str, segment: &str| {
            let text = data.get(segment)?;
            let text = String::from_utf8(text.0.clone()).unwrap();
            let keys = text.lines().map(|key| Fingerprint::of(key.as_bytes()));
            let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
            Some(json!({ "type": kind, "keyFingerprints": keys }))
        };
        let kinds = [("Rate", "rate"), ("Booking", "booking")];
        kinds
            .into_iter()
            .filter_map(|(kind, segment)| of(kind, segment))
            .collect()
    }
}

#[async_trait]
impl Access for Pods {
    async fn status(
        &self,
        namespace: &str,
        pod: &Pod,
        token: &Secret,
    ) -> Result<Answer, Unreachable> {
        assert_eq!(namespace, self.namespace);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let subscription = pod.name.strip_suffix("-0").unwrap();
        let secrets: Api<KubeSecret> = Api::namespaced(self.client.clone(), namespace);
        let owned = secrets.get(&format!("{subscription}-bellhop")).await;
        let data = owned.unwrap().data.unwrap();
        let mounted = String::from_utf8(data["admin-token"].0.clone()).unwrap();
        if mounted.trim() != token.expose() {
            return Err(Unreachable::Refused);
        }
        let mood = self.mood.lock().unwrap().clone();
        let rules = match mood {
            Mood::Silent => return Err(Unreachable::NoAnswer),
            Mood::Keyless => vec![],
            Mood::Well | Mood::Saying(_) => self.keys(subscription).await,
        };
        let mut status = json!({
            "conditions": [{ "type": "Delivering", "status": "True",
                "reason": "DeliveryOk", "message": "Events reach all sinks." }],
            "backlog": "0", "lastNotificationTime": null,
            "receiver": { "rules": rules, "inFlight": 0 },
        });
        if let Mood::Saying(more) = mood {
            json_patch::merge(&mut status, &more);
        }
        Answer::parse(status.to_string().as_bytes())
    }
}

fn pods(rig: &Rig) -> Api<KubePod> {
    Api::namespaced(rig.space.client.clone(), &rig.space.name)
}

pub async fn set(rig: &Rig, name: &str) -> Option<StatefulSet> {
    let sets: Api<StatefulSet> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    sets.get_opt(name).await.unwrap()
}

/// The set, once it is there.
pub async fn until_set(rig: &Rig, name: &str) -> StatefulSet {
    let mut looks = Looks::default();
    while looks.again().await {
        if let Some(set) = set(rig, name).await {
            return set;
        }
    }
    panic!("no StatefulSet {name} after 60 s");
}

/// What the StatefulSet controller and a kubelet would come to: its pod, by its template, ready.
pub async fn start_pod(rig: &Rig, name: &str) {
    let set = until_set(rig, name).await;
    make_pod(&pods(rig), name, set).await;
}

/// The same of a set.
pub async fn make_pod(pods: &Api<KubePod>, name: &str, set: StatefulSet) {
    let template = set.spec.unwrap().template;
    let mut metadata = template.metadata.unwrap();
    metadata.name = Some(format!("{name}-0"));
    let pod = KubePod {
        metadata,
        spec: template.spec,
        ..KubePod::default()
    };
    pods.create(&PostParams::default(), &pod).await.unwrap();
    say_ready(pods, name, "True").await;
}

/// Says of the pod whether it is ready.
pub async fn pod_is(rig: &Rig, name: &str, ready: &str) {
    say_ready(&pods(rig), name, ready).await;
}

async fn say_ready(pods: &Api<KubePod>, name: &str, ready: &str) {
    let status = json!({ "status": {
        "phase": "Running", "podIP": "192.0.2.1",
        "conditions": [{ "type": "Ready", "status": ready }],
    } });
    let params = PatchParams::default();
    pods.patch_status(&format!("{name}-0"), &params, &Patch::Merge(status))
        .await
        .unwrap();
}

pub async fn end_pod(rig: &Rig, name: &str) {
    let now = DeleteParams::default().grace_period(0);
    pods(rig).delete(&format!("{name}-0"), &now).await.unwrap();
}

pub async fn begun(test: &str) -> Option<(Rig, Arc<Pods>, Operator)> {
    let rig = Rig::new(test).await?;
    let pods = Pods::new(&rig);
    let operator = rig.operator_with_receivers("an-image:1", pods.clone());
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |_| {}).await;
    Some((rig, pods, operator))
}

/// The same with its pod, and all is well.
pub async fn at_work(test: &str) -> Option<(Rig, Arc<Pods>, Operator)> {
    let (rig, pods, operator) = begun(test).await?;
    start_pod(&rig, "shop").await;
    rig.until("shop", "Ready", "True Ok").await;
    Some((rig, pods, operator))
}

fn disabled(rig: &Rig) -> Vec<bool> {
    let rules = rig.rules().into_values();
    rules.map(|rule| rule["disabled"] == json!(true)).collect()
}

#[tokio::test]
async fn rules_go_live_when_a_receiver_has_their_keys() {
    let Some((rig, pods_are, operator)) = begun("gate").await else {
        return;
    };
    pods_are.are(Mood::Keyless);
    let waits = "False ReceiverNotReady";
    rig.until("shop", "ReceiverAvailable", waits).await;
    let message = rig.message("shop", "ReceiverAvailable").await;
    assert!(message.starts_with("there is no pod: "), "{message}");
    rig.eventually("both rules are made", || disabled(&rig).len() == 2)
        .await;
    start_pod(&rig, "shop").await;
    rig.until("shop", "ReceiverAvailable", "True ReceiverReady")
        .await;
    // It is ready, and has not loaded the keys.
    assert_eq!(disabled(&rig), [true, true]);
    let poked = pods(&rig).get("shop-0").await.unwrap();
    let poked = poked.metadata.annotations.unwrap();
    assert!(poked.contains_key("bellhop.dev/poke"), "{poked:?}");
    pods_are.are(Mood::Well);
    rig.until("shop", "Ready", "True Ok").await;
    rig.check_registered("shop").await;
    let status = rig.get("shop").await.unwrap().status.unwrap();
    let receivers = status.receivers.unwrap();
    assert_eq!((receivers.ready, receivers.desired), (1, 1));
    rig.until("shop", "Delivering", "True DeliveryOk").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_wait_for_receivers_is_given_up_for_a_change() {
    let Some((rig, _pods, operator)) = begun("superseded").await else {
        return;
    };
    let set = until_set(&rig, "shop").await;
    rig.eventually("both rules are made", || disabled(&rig).len() == 2)
        .await;
    // The pod that never came: here is what it lacked.
    let pull = json!({ "spec": { "receiver": { "imagePullSecrets": [{ "name": "pull" }] } } });
    rig.patch("shop", pull).await;
    let before = set.metadata.generation;
    let now = within(20, "the set is another", async || {
        let now = until_set(&rig, "shop").await;
        (now.metadata.generation != before).then_some(now)
    })
    .await;
    let spec = now.spec.unwrap().template.spec.unwrap();
    assert_eq!(spec.image_pull_secrets.unwrap()[0].name, "pull");
    // And so is one that is deleted.
    rig.delete("shop").await;
    rig.check_gone("shop").await;
    operator.stop().await;
}

/// Subscriptions whose pods an operator has brought up with a first image; it has ended.
pub async fn with_pods(test: &str, names: [&str; 2]) -> Option<(Rig, Arc<Pods>)> {
    let rig = Rig::new(test).await?;
    let pods_are = Pods::new(&rig);
    let first = rig.operator_with_receivers("an-image:1", pods_are.clone());
    rig.create_keys("redeam-keys", KEY).await;
    for (name, kind) in names.into_iter().zip(["Rate", "Booking"]) {
        rig.create(name, |object| {
            object["spec"]["notifications"] = json!([{ "type": kind }]);
        })
        .await;
        start_pod(&rig, name).await;
        rig.until(name, "Ready", "True Ok").await;
    }
    first.stop().await;
    Some((rig, pods_are))
}

/// A second operator, with another image: one subscription at a time has its pod replaced.
#[tokio::test]
async fn a_new_image_is_rolled_out_one_after_the_other() {
    let names = ["a", "b"];
    let Some((rig, pods_are)) = with_pods("rollout", names).await else {
        return;
    };
    let second = rig.operator_with_receivers("an-image:2", pods_are.clone());
    let mut done: BTreeMap<&str, bool> = BTreeMap::new();
    while done.len() < names.len() {
        // Whose turn it is.
        let left = names.into_iter().filter(|name| !done.contains_key(name));
        let turn = until_rolled(&rig, &left.collect::<Vec<_>>()).await;
        let waiting = names.iter().filter(|name| **name != turn);
        for name in waiting.filter(|name| !done.contains_key(*name)) {
            assert!(!has_image(&rig, name, "an-image:2").await, "{turn}, {name}");
        }
        end_pod(&rig, turn).await;
        start_pod(&rig, turn).await;
        done.insert(turn, true);
    }
    // A new image is no reason to ask the provider anything.
    let asked = second.breaker.calls().into_iter();
    let asked: Vec<String> = asked.filter(|call| call.starts_with("registry")).collect();
    assert!(asked.is_empty(), "{asked:?}");
    second.stop().await;
}

/// The slot is held on by the next operator: else each change of the leader in the middle of a bad
/// rollout would let it reach another subscription.
#[tokio::test]
async fn a_rollout_outlives_its_operator() {
    let names = ["a", "b"];
    let Some((rig, pods_are)) = with_pods("outlives", names).await else {
        return;
    };
    let second = rig.operator_with_receivers("an-image:2", pods_are.clone());
    let turn = until_rolled(&rig, &names).await;
    let other = if turn == "a" { "b" } else { "a" };
    // The new pod of the one is there, and does not get ready.
    end_pod(&rig, turn).await;
    second.stop().await;
    start_pod(&rig, turn).await;
    pod_is(&rig, turn, "False").await;
    let third = rig.operator_with_receivers("an-image:2", pods_are.clone());
    rig.until(turn, "ReceiverAvailable", "False ReceiverNotReady")
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        !has_image(&rig, other, "an-image:2").await,
        "{turn} goes on"
    );
    pod_is(&rig, turn, "True").await;
    assert_eq!(until_rolled(&rig, &[other]).await, other);
    third.stop().await;
}

/// The first of these whose set has the second image.
pub async fn until_rolled<'a>(rig: &Rig, names: &[&'a str]) -> &'a str {
    within(60, "it is somebody's turn", async || {
        for name in names {
            if has_image(rig, name, "an-image:2").await {
                return Some(*name);
            }
        }
        None
    })
    .await
}

pub async fn has_image(rig: &Rig, name: &str, image: &str) -> bool {
    let spec = until_set(rig, name).await.spec.unwrap().template.spec;
    spec.unwrap().containers[0].image.as_deref() == Some(image)
}
