//! The probe within the operator: the condition, the gate of `reachability: Require`, and what it
//! costs. The way is a real receiver behind a real proxy with TLS, and hops that are broken on
//! purpose. Oracles: what each hop was told to do and has counted, the simulator's registry and the
//! requests it got, and what the API server holds.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::secrets::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::behaviour::Stranger;
use super::breaker::Breaker;
use super::rig::{KEY, Operator, Rig};
use crate::probe::hop::{Authority, Does, Hop, Then, hop, status, tls};
use crate::probe::{Dns, HOST, IMPATIENT, LOOPBACK, PATIENT, prober};
use crate::receiver::rig::{Rig as Receiver, Setup, rig as receiver};

/// A receiver without a key, and the proxy before it. The receiver here has another owner than the
/// subscription: the proxy leaves the owner away, which receivers take.
async fn way(authority: &Authority) -> (Receiver, Hop) {
    let receiver = receiver(Setup::default()).await;
    let then = Then::Forward {
        to: receiver.address,
        path: Some("/redeam/rate"),
        without: &[],
    };
    let hop = hop(tls(authority.good(), then)).await;
    (receiver, hop)
}

fn url(port: u16) -> Value {
    json!(format!("https://{HOST}:{port}/redeam"))
}

async fn create(rig: &Rig, name: &str, port: u16, reachability: &str) {
    rig.create(name, |object| {
        object["spec"]["url"] = url(port);
        object["spec"]["registration"] = json!({ "reachability": reachability });
    })
    .await;
}

/// What the kubelet does: the receiver gets the key that the operator made.
async fn mount(rig: &Rig, receiver: &Receiver) {
    let key = rig.stored_key("shop", "probe").await.expect("a probe key");
    for segment in ["rate", "booking"] {
        let rules = rig.stored_key("shop", segment).await;
        assert_ne!(rules, Some(key.clone()), "never a rule's key");
    }
    receiver.keys.set_probe(vec![Secret::new(key)]);
}

async fn look_again(rig: &Rig, value: &str) {
    let asked = json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": value } } });
    rig.patch("shop", asked).await;
}

async fn reachability(rig: &Rig, wanted: &str) {
    let wanted = json!({ "spec": { "registration": { "reachability": wanted } } });
    rig.patch("shop", wanted).await;
}

fn disabled(rig: &Rig) -> Vec<Value> {
    rig.rules()
        .values()
        .map(|rule| rule["disabled"].clone())
        .collect()
}

/// What the provider was asked so far.
fn asked(rig: &Rig) -> usize {
    rig.simulator.control().requests(0, usize::MAX).len()
}

/// And what of it were writes.
fn writes(rig: &Rig) -> usize {
    let all = rig.simulator.control().requests(0, usize::MAX);
    all.iter().filter(|one| one.method != "GET").count()
}

async fn events(rig: &Rig, reason: &str) -> Vec<Event> {
    let all: Api<Event> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let found = all.list(&ListParams::default()).await.unwrap().items;
    let of = |event: &Event| event.reason.as_deref() == Some(reason);
    found.into_iter().filter(of).collect()
}

#[tokio::test]
async fn the_condition_says_what_a_probe_found_and_ready_does_not_wait() {
    let Some(rig) = Rig::new("reach-report").await else {
        return;
    };
    let authority = Authority::new();
    let (receiver, hop) = way(&authority).await;
    let operator = rig.operator_probing(prober(Dns::loopback(), &authority, PATIENT, true));
    rig.create_keys("redeam-keys", KEY).await;
    create(&rig, "shop", hop.port, "Report").await;
    rig.until("shop", "Reachable", "False ProbeKeyMissing")
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(disabled(&rig), [json!(false), json!(false)]);
    assert_eq!(events(&rig, "ProbeKeyMissing").await.len(), 1);
    mount(&rig, &receiver).await;
    look_again(&rig, "1").await;
    rig.until("shop", "Reachable", "True Reachable").await;
    // Nobody looks any more: neither the condition nor a connection pretends to.
    reachability(&rig, "Off").await;
    rig.until("shop", "Reachable", "Unknown ProbeOff").await;
    let before = hop.connections.load(Ordering::SeqCst);
    look_again(&rig, "2").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(hop.connections.load(Ordering::SeqCst), before);
    // Another url is probed at once, and what was known is not believed of it.
    reachability(&rig, "Report").await;
    rig.until("shop", "Reachable", "True Reachable").await;
    let missing = self::hop(tls(
        authority.good(),
        status("404 Not Found", "a secret page"),
    ))
    .await;
    rig.patch("shop", json!({ "spec": { "url": url(missing.port) } }))
        .await;
    rig.until("shop", "Reachable", "False PathNotRouted").await;
    rig.delete("shop").await;
    rig.until_gone("shop").await;
    operator.stop().await;
}

/// Each class of break, by its hop, in the condition that a user sees; never a byte of an answer.
#[tokio::test]
async fn each_broken_hop_is_told_by_its_class() {
    const PAGE: &str = "a page that nobody may show";
    let Some(rig) = Rig::new("reach-hops").await else {
        return;
    };
    let authority = Authority::new();
    let operator = rig.operator_probing(prober(Dns::loopback(), &authority, PATIENT, true));
    rig.create_keys("redeam-keys", KEY).await;
    let page = |line: &str| tls(authority.good(), status(line, PAGE));
    let redirect = format!(
        "HTTP/1.1 301 Moved\r\nlocation: https://{PAGE}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let hops = [
        ("hangs-up", Does::HangUp, "False TlsFailed"),
        (
            "expired",
            tls(authority.issue(HOST, 2020, 2021), status("200 OK", PAGE)),
            "False CertificateExpired",
        ),
        (
            "other-name",
            tls(
                authority.issue("other.test", 2020, 2099),
                status("200 OK", PAGE),
            ),
            "False CertificateWrongName",
        ),
        (
            "untrusted",
            tls(Authority::new().good(), status("200 OK", PAGE)),
            "False CertificateUntrusted",
        ),
        ("login", page("401 Unauthorized"), "False AccessRefused"),
        ("no-path", page("404 Not Found"), "False PathNotRouted"),
        (
            "no-pod",
            page("503 Service Unavailable"),
            "False BackendUnavailable",
        ),
        ("stranger", page("200 OK"), "False WrongAnswer"),
        ("busy", page("429 Too Many Requests"), "Unknown ProbeBusy"),
        (
            "moved",
            tls(authority.good(), Then::Answer(redirect.into_bytes())),
            "False Redirected",
        ),
    ];
    let mut open = Vec::new();
    for (name, does, says) in hops {
        let hop = hop(does).await;
        rig.create(name, |object| {
            // Types that are taken by the first one do not matter here, the url does.
            object["spec"]["url"] = url(hop.port);
        })
        .await;
        open.push((name, hop, says));
    }
    let gone = tokio::net::TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = gone.local_addr().unwrap().port();
    create(&rig, "nobody", port, "Report").await;
    rig.until("nobody", "Reachable", "False ConnectionRefused")
        .await;
    for (name, _, says) in &open {
        rig.until(name, "Reachable", says).await;
        let object = rig.get(name).await.unwrap();
        let shown = serde_json::to_string(&object).unwrap();
        assert!(!shown.contains(PAGE), "{shown}");
        let message = rig.message(name, "Reachable").await;
        assert!(
            message.contains("url") || message.contains("receiver"),
            "{message}"
        );
    }
    let all: Api<Event> = Api::namespaced(rig.space.client.clone(), &rig.space.name);
    let told = all.list(&ListParams::default()).await.unwrap();
    assert!(!serde_json::to_string(&told).unwrap().contains(PAGE));
    assert!(!operator.metrics.encode().contains(PAGE));
    operator.stop().await;
}

#[tokio::test]
async fn names_and_addresses_that_lead_nowhere_public() {
    let Some(rig) = Rig::new("reach-private").await else {
        return;
    };
    let authority = Authority::new();
    let open = hop(tls(authority.good(), status("200 OK", ""))).await;
    let addresses: Vec<IpAddr> = vec!["10.1.2.3".parse().unwrap(), LOOPBACK];
    // Without --probe-private.
    let refusing = prober(Dns::says([Ok(addresses)]), &authority, PATIENT, false);
    let operator = rig.operator_probing(refusing);
    rig.create_keys("redeam-keys", KEY).await;
    create(&rig, "shop", open.port, "Report").await;
    rig.until("shop", "Reachable", "False AddressRefused").await;
    let message = rig.message("shop", "Reachable").await;
    assert!(message.contains("--probe-private"), "{message}");
    assert!(
        !message.contains("10.1.2.3"),
        "no map of a network: {message}"
    );
    assert_eq!(open.connections.load(Ordering::SeqCst), 0);
    operator.stop().await;

    let nameless = prober(Dns::says([Ok(Vec::new())]), &authority, PATIENT, false);
    let operator = rig.operator_probing(nameless);
    look_again(&rig, "1").await;
    rig.until("shop", "Reachable", "False NameNotResolved")
        .await;
    operator.stop().await;

    let silent = prober(Dns::says([]), &authority, IMPATIENT, false);
    let operator = rig.operator_probing(silent);
    look_again(&rig, "2").await;
    rig.until("shop", "Reachable", "Unknown NameLookupFailed")
        .await;
    operator.stop().await;
}

#[tokio::test]
async fn rules_wait_for_a_url_that_must_be_reachable() {
    let Some(rig) = Rig::new("reach-require").await else {
        return;
    };
    let authority = Authority::new();
    let (receiver, hop) = way(&authority).await;
    let operator = rig.operator_probing(prober(Dns::loopback(), &authority, PATIENT, true));
    rig.create_keys("redeam-keys", KEY).await;
    create(&rig, "shop", hop.port, "Require").await;
    rig.until("shop", "Reachable", "False ProbeKeyMissing")
        .await;
    rig.until("shop", "Registered", "False AwaitingReachability")
        .await;
    rig.until("shop", "Ready", "False AwaitingReachability")
        .await;
    rig.until("shop", "Reconciling", "True AwaitingReachability")
        .await;
    assert_eq!(disabled(&rig), [json!(true), json!(true)]);
    let status = rig.get("shop").await.unwrap().status.unwrap();
    assert_eq!(status.registered.as_deref(), Some("0/2"));
    let phases: Vec<String> = status
        .rules
        .iter()
        .map(|rule| format!("{:?}", rule.phase))
        .collect();
    assert_eq!(phases, ["Created", "Created"]);

    mount(&rig, &receiver).await;
    look_again(&rig, "1").await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(disabled(&rig), [json!(false), json!(false)]);

    // Once live they stay live, whatever a probe says later; also without the status, which is a
    // cache, and through a rotation.
    receiver.keys.set_probe(Vec::new());
    look_again(&rig, "2").await;
    rig.eventually("the next probe was sent", || {
        hop.requests.lock().unwrap().len() >= 3
    })
    .await;
    look_again(&rig, "3").await;
    rig.until("shop", "Reachable", "False ProbeKeyMissing")
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    let rotate = json!({ "metadata": { "annotations": { "bellhop.dev/rotate-keys": "1" } } });
    let before = rig.stored_key("shop", "rate").await;
    rig.patch("shop", rotate).await;
    rig.until("shop", "Registered", "True KeysRotated").await;
    assert_ne!(rig.stored_key("shop", "rate").await, before);
    assert_eq!(disabled(&rig), [json!(false), json!(false)]);
    operator.stop().await;
    let before = writes(&rig);
    rig.patch_status("shop", json!({ "rules": null, "conditions": null }))
        .await;
    let operator = rig.operator_probing(prober(Dns::loopback(), &authority, PATIENT, true));
    rig.until("shop", "Reachable", "False ProbeKeyMissing")
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(writes(&rig), before, "no rule was touched");
    operator.stop().await;
}

/// A stranger's live rule is not taken over only to be switched off.
#[tokio::test]
async fn adoption_waits_as_well() {
    let Some(rig) = Rig::new("reach-adopt").await else {
        return;
    };
    let authority = Authority::new();
    let (receiver, hop) = way(&authority).await;
    let theirs = json!({
        "url": "https://elsewhere.example.com/x", "disabled": false,
        "config": { "operations": ["updated"] },
    });
    assert_eq!(Stranger::of(&rig).post("rates", &theirs).await, 201);
    let operator = rig.operator_probing(prober(Dns::loopback(), &authority, PATIENT, true));
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["url"] = url(hop.port);
        object["spec"]["registration"] = json!({ "reachability": "Require", "adoption": "Always" });
    })
    .await;
    rig.until("shop", "Registered", "False AwaitingReachability")
        .await;
    let rules = rig.rules();
    let rate = &rules[&bellhop::simulator::Kind::Rate];
    assert_eq!(
        (&rate["url"], &rate["disabled"]),
        (&theirs["url"], &json!(false))
    );
    mount(&rig, &receiver).await;
    look_again(&rig, "1").await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(disabled(&rig), [json!(false), json!(false)]);
    operator.stop().await;
}

/// An answer to a probe that changes nothing else costs one patch of the status; one that changes
/// nothing at all costs nothing. The provider is not asked for either.
#[tokio::test]
async fn a_probe_costs_a_status_write_when_it_finds_something_else_and_no_more() {
    let Some(rig) = Rig::new("reach-cost").await else {
        return;
    };
    let authority = Authority::new();
    let (receiver, hop) = way(&authority).await;
    let breaker = std::sync::Arc::new(Breaker::default());
    let prober = prober(Dns::loopback(), &authority, PATIENT, true);
    let operator = rig.operator_probing_with(prober, breaker.clone());
    rig.create_keys("redeam-keys", KEY).await;
    create(&rig, "shop", hop.port, "Report").await;
    rig.until("shop", "Reachable", "False ProbeKeyMissing")
        .await;
    rig.until("shop", "Ready", "True Ok").await;
    settle(&operator).await;
    let (calls, provider) = (breaker.calls().len(), asked(&rig));
    let sent = hop.connections.load(Ordering::SeqCst);
    // The next one by itself, about ten seconds after the first: the same again.
    rig.eventually("a second probe was sent", || {
        hop.connections.load(Ordering::SeqCst) > sent
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(breaker.calls()[calls..], [] as [String; 0]);
    // The one after that finds the receiver well.
    mount(&rig, &receiver).await;
    rig.until("shop", "Reachable", "True Reachable").await;
    settle(&operator).await;
    assert_eq!(asked(&rig), provider, "the provider was asked");
    let told = breaker.calls()[calls..].to_vec();
    let posts = told.iter().filter(|call| call.starts_with("POST ")).count();
    let patches: Vec<&String> = told
        .iter()
        .filter(|call| !call.starts_with("POST "))
        .collect();
    assert_eq!(patches, ["PATCH shop/status"], "{told:?}");
    assert_eq!(posts, 1, "one Event: {told:?}");
    assert_eq!(hop.connections.load(Ordering::SeqCst), sent + 2);
    operator.stop().await;
}

/// Until no call was made for half a second.
async fn settle(operator: &Operator) {
    let mut before = operator.breaker.calls().len();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = operator.breaker.calls().len();
        if now == before {
            return;
        }
        before = now;
    }
}
