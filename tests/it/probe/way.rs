//! The whole way: prober, a proxy that may do something to the request, and the real receiver.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::api::condition::Reason;
use bellhop::api::probe::{HEADER, KEY_FILE, Question};
use bellhop::api::{NotificationType, Owner};
use bellhop::receiver::{ServerOptions, TlsFiles};
use bellhop::secrets::Secret;

use super::hop::{Authority, Then, hop, tls};
use super::{Dns, HOST, PATIENT, key, probe, prober, rule_url};
use crate::receiver::rig::{Answer, OWNER, Rig, Setup, key_of, request, rig};

fn forward(to: SocketAddr, path: Option<&'static str>) -> Then {
    Then::Forward {
        to,
        path,
        without: &[],
    }
}

async fn with_key() -> Rig {
    let rig = rig(Setup::default()).await;
    rig.keys.set_probe(vec![key()]);
    rig
}

fn saw_nothing(rig: &Rig) {
    assert!(
        rig.state.accepted.lock().unwrap().is_empty(),
        "the store is not touched"
    );
    assert_eq!(rig.state.fact_writes.load(Ordering::SeqCst), 0);
}

/// The receiver's own TLS, nothing between.
#[tokio::test]
async fn a_probe_comes_back() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        cert: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
    };
    let (cert, private) = authority.good().pem;
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, private).unwrap();
    let server = ServerOptions {
        tls: Some(files),
        ..ServerOptions::default()
    };
    let rig = rig(Setup {
        server,
        ..Setup::default()
    })
    .await;
    assert_eq!(
        probe(&authority, rig.address.port(), PATIENT).await,
        Reason::ProbeKeyMissing
    );
    rig.keys.set_probe(vec![Secret::new("a newer key"), key()]);
    assert_eq!(
        probe(&authority, rig.address.port(), PATIENT).await,
        Reason::Reachable
    );
    rig.keys.set_probe(vec![Secret::new("another one's key")]);
    assert_eq!(
        probe(&authority, rig.address.port(), PATIENT).await,
        Reason::AnotherReceiver
    );
    saw_nothing(&rig);
    let text = rig.metrics.encode();
    for answer in ["routed", "no-key", "other-key"] {
        assert!(
            text.contains(&format!("receiver_probes_total{{answer=\"{answer}\"}} 1")),
            "{text}"
        );
    }
}

/// What a proxy may do to the path, and what it may not.
#[tokio::test]
async fn paths_that_proxies_change() {
    let authority = Authority::new();
    let rig = with_key().await;
    for (path, reason) in [
        (None, Reason::Reachable),
        // The prefix is stripped, or another one added.
        (Some("/booking/0123456789"), Reason::Reachable),
        (
            Some("/in/front/redeam/booking/0123456789"),
            Reason::Reachable,
        ),
        (Some("/booking"), Reason::Reachable),
        // All becomes the shared URL: the key that fits tells the type.
        (Some("/redeam"), Reason::Reachable),
        (Some("/"), Reason::Reachable),
        (Some("/elsewhere"), Reason::PathRewritten),
        (Some("/redeam/booking/9999999999"), Reason::PathRewritten),
        (
            Some("/redeam/booking/0123456789/more"),
            Reason::PathRewritten,
        ),
        // A path of another type would lose this one's notifications.
        (Some("/redeam/rate/0123456789"), Reason::PathRewritten),
    ] {
        let hop = hop(tls(authority.good(), forward(rig.address, path))).await;
        assert_eq!(
            probe(&authority, hop.port, PATIENT).await,
            reason,
            "{path:?}"
        );
    }
    saw_nothing(&rig);
}

#[tokio::test]
async fn a_type_that_is_not_subscribed_is_not_routed() {
    let authority = Authority::new();
    let rig = rig(Setup {
        types: vec![NotificationType::Rate],
        ..Setup::default()
    })
    .await;
    rig.keys.set_probe(vec![key()]);
    let hop = hop(tls(authority.good(), forward(rig.address, None))).await;
    assert_eq!(
        probe(&authority, hop.port, PATIENT).await,
        Reason::PathRewritten
    );
}

/// A proxy that drops unknown headers: the receiver takes it for a notification, and refuses it.
#[tokio::test]
async fn a_proxy_that_drops_the_header() {
    let authority = Authority::new();
    let rig = with_key().await;
    let then = Then::Forward {
        to: rig.address,
        path: None,
        without: &[HEADER],
    };
    let hop = hop(tls(authority.good(), then)).await;
    assert_eq!(
        probe(&authority, hop.port, PATIENT).await,
        Reason::WrongAnswer
    );
    saw_nothing(&rig);
}

/// What came back once proves nothing a second time, and what was asked proves nothing at all.
#[tokio::test]
async fn who_listens_in_between_cannot_answer() {
    let authority = Authority::new();
    let rig = with_key().await;
    let honest = hop(tls(authority.good(), forward(rig.address, None))).await;
    assert_eq!(
        probe(&authority, honest.port, PATIENT).await,
        Reason::Reachable
    );
    let recorded = honest.answers.lock().unwrap()[0].clone();
    let replaying = hop(tls(authority.good(), Then::Answer(recorded.clone()))).await;
    assert_eq!(
        probe(&authority, replaying.port, PATIENT).await,
        Reason::WrongAnswer
    );

    let asked = honest.requests.lock().unwrap()[0].clone();
    let answered = String::from_utf8(recorded).unwrap();
    assert!(
        asked.contains(&format!("host: {HOST}:{}\r\n", honest.port)),
        "{asked}"
    );
    for kind in NotificationType::ALL {
        assert!(!asked.contains(&key_of(kind)) && !answered.contains(&key_of(kind)));
    }
    assert!(!asked.contains(key().expose()) && !answered.contains(key().expose()));
    // Neither proof is a signature that the receiver takes for a notification's.
    let proofs = asked
        .split_ascii_whitespace()
        .chain(answered.split_ascii_whitespace());
    let proofs: Vec<&str> = proofs
        .filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect();
    assert_eq!(proofs.len(), 3, "nonce, question's proof, answer's proof");
    for sum in &proofs {
        for token in &proofs {
            let body = format!(
                r#"{{"bookingId":"x","operation":"updated","signature":{{"sum":"{sum}","timestamp":{},"token":"{token}"}}}}"#,
                crate::receiver::rig::NOW
            );
            let answer = rig.post(&format!("/redeam/booking/{OWNER}"), &body).await;
            assert!(matches!(answer.status, 401 | 503), "{}", answer.status);
        }
    }
    assert!(rig.state.accepted.lock().unwrap().is_empty());
}

/// A question as a stranger or the operator would ask it, straight to the receiver.
async fn ask(rig: &Rig, key: &Secret, method: &str, nonce: u8) -> Answer {
    let place = format!("{HOST}/redeam/booking/{OWNER}");
    let question = Question::new([nonce; 32], place).header(key);
    let plain = request(method, &format!("/redeam/booking/{OWNER}"), b"{}");
    let text = String::from_utf8(plain).unwrap();
    let text = text.replacen("\r\n", &format!("\r\n{HEADER}: {question}\r\n"), 1);
    rig.raw(text.as_bytes()).await
}

/// The operator's share cannot be used up by strangers, and has an end.
#[tokio::test]
async fn strangers_get_nothing_signed_and_take_nothing_away() {
    let rig = with_key().await;
    let stranger = Secret::new("a guess");
    for nonce in 0..100 {
        let answer = ask(&rig, &stranger, "POST", nonce).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (403, "bellhop-probe v1 other-key\n")
        );
    }
    for nonce in 0..20 {
        let answer = ask(&rig, &key(), "POST", nonce).await;
        assert_eq!(answer.status, 200, "{nonce}");
        assert!(answer.body.starts_with("bellhop-probe v1 routed "));
    }
    let answer = ask(&rig, &key(), "POST", 0).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (429, "bellhop-probe v1 busy\n")
    );
    assert!(answer.header("retry-after").is_some());
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(ask(&rig, &key(), "POST", 0).await.status, 200);
    saw_nothing(&rig);
}

#[tokio::test]
async fn what_only_looks_like_a_probe_is_a_notification() {
    let rig = with_key().await;
    for header in ["", "v1", "v2 00 00 x", "v1 zz yy place"] {
        let plain = request("POST", &format!("/redeam/booking/{OWNER}"), b"{}");
        let text = String::from_utf8(plain).unwrap();
        let text = text.replacen("\r\n", &format!("\r\n{HEADER}: {header}\r\n"), 1);
        assert_eq!(
            rig.raw(text.as_bytes()).await.status,
            400,
            "{header}: no signature"
        );
    }
}

/// Mounted beside the rules' keys, and read again when it changes.
#[tokio::test]
async fn the_key_is_loaded_like_the_rules_keys() {
    let folder = tempfile::tempdir().unwrap();
    let rig = rig(Setup {
        folder: Some(folder.path().to_owned()),
        ..Setup::default()
    })
    .await;
    assert_eq!(
        ask(&rig, &key(), "POST", 1).await.body,
        "bellhop-probe v1 no-key\n"
    );
    let file = folder.path().join(KEY_FILE);
    let newer = Secret::new("a newer key");
    std::fs::write(&file, format!("{}\n", key().expose())).unwrap();
    rig.keys.load().await.unwrap();
    assert_eq!(ask(&rig, &key(), "POST", 1).await.status, 200);
    std::fs::write(&file, format!("{}\n{}\n", newer.expose(), key().expose())).unwrap();
    rig.keys.load().await.unwrap();
    for key in [&newer, &key()] {
        assert_eq!(ask(&rig, key, "POST", 1).await.status, 200);
    }
    // A probe's key signs no notification, whatever lies in its file.
    assert!(
        rig.keys
            .fingerprints(NotificationType::Booking)
            .iter()
            .all(|print| { *print != key().fingerprint() && *print != newer.fingerprint() })
    );
}

/// The owner in the URL is what the operator computes; here it is the rig's.
#[test]
fn the_rig_and_the_prober_speak_of_the_same_rule() {
    let owner: Owner = OWNER.parse().unwrap();
    let base = format!("https://{HOST}:1/redeam");
    assert_eq!(
        owner.rule_url(&base, NotificationType::Booking),
        rule_url(1)
    );
    let made = bellhop::registration::probe::new_key().unwrap();
    assert_eq!(made.expose().len(), 64);
    assert_ne!(made, bellhop::registration::probe::new_key().unwrap());
    drop(prober(Dns::loopback(), &Authority::new(), PATIENT, false));
}
