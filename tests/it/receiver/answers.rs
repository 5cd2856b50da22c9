//! Each row of the design's table "To the provider", and what reaches the store.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::api::NotificationType;
use bellhop::receiver::Limits;
use bellhop::settings::SignatureScheme;
use bellhop::state::{Accepted, StateError};

use super::rig::{NOW, OWNER, Setup, key_of, notification, rig, signature, signed};

const BOOKING: NotificationType = NotificationType::Booking;

#[tokio::test]
async fn every_type_is_accepted_on_every_path_that_names_it() {
    let rig = rig(Setup::default()).await;
    for kind in NotificationType::ALL {
        let segment = kind.segment();
        for (n, path) in [
            format!("/redeam/{segment}/{OWNER}"),
            format!("/redeam/{segment}"),
            format!("/{segment}"),
            format!("/some/prefix/{segment}/{OWNER}/"),
            format!("/{segment}?query=1"),
            "/redeam".to_owned(),
            format!("/redeam/{OWNER}"),
            "/added/redeam/".to_owned(),
            "/".to_owned(),
        ]
        .into_iter()
        .enumerate()
        {
            let answer = rig.post(&path, notification(kind, &format!("t{n}"))).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        }
        let accepted = std::mem::take(&mut *rig.state.accepted.lock().unwrap());
        assert_eq!(accepted.len(), 9);
        for one in accepted {
            let ids = kind.identifier_fields().iter().map(|f| format!("/{f}-1"));
            let expected = segment.to_owned() + &ids.collect::<String>();
            assert_eq!(one.key.unwrap().as_str(), expected);
            assert_eq!(one.rule, kind);
            assert_eq!(one.timestamp.0, NOW * 1000);
            assert_eq!(one.sum.len(), 32);
        }
    }
}

#[tokio::test]
async fn what_the_store_says_becomes_the_answer() {
    let rig = rig(Setup::default()).await;
    for (says, status, retry) in [
        (Ok(Accepted::Marked), 200, false),
        (Ok(Accepted::Duplicate), 200, false),
        (Ok(Accepted::SignatureReused), 200, false),
        (Ok(Accepted::Stale), 200, false),
        (Ok(Accepted::DeadLetter), 200, false),
        (Ok(Accepted::Replayed), 401, false),
        (Ok(Accepted::BacklogFull), 429, true),
        (Err(StateError::Full("disk".into())), 503, true),
        (Err(StateError::Busy("lock".into())), 503, true),
        (Err(StateError::Failed("io".into())), 503, true),
    ] {
        let shown = format!("{says:?}");
        rig.state.says.lock().unwrap().push_back(says);
        let answer = rig.post("/booking", notification(BOOKING, "t")).await;
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.header("retry-after").is_some(), retry, "{shown}");
        assert!(!answer.body.contains("disk"), "{}", answer.body);
    }
}

#[tokio::test]
async fn paths_and_methods() {
    let rig = rig(Setup {
        types: vec![BOOKING],
        ..Setup::default()
    })
    .await;
    for path in [
        "/nope",
        "/redeam/nope",
        "/booking/9999999999",
        "/redeam/supplier",
        "/booking/0123456789/more",
        "/redeamx",
        "/%62ooking",
    ] {
        let answer = rig.post(path, notification(BOOKING, "t")).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let bytes = super::rig::request(method, "/booking", b"");
        let answer = rig.raw(&bytes).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    }
    assert!(rig.state.accepted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn age_and_skew() {
    let rig = rig(Setup::default()).await;
    let day = 86_400;
    for (timestamp, status) in [
        (NOW - day, 200),
        (NOW - day - 1, 401),
        (NOW + day, 200),
        (NOW + day + 1, 401),
        (i64::MAX, 401),
        (i64::MIN, 401),
        (0, 401),
    ] {
        let body = signed(BOOKING, &key_of(BOOKING), timestamp, "t");
        assert_eq!(
            rig.post("/booking", body).await.status,
            status,
            "{timestamp}"
        );
    }
    for (ahead, flagged) in [(300, false), (301, true), (0, false)] {
        let body = signed(BOOKING, &key_of(BOOKING), NOW + ahead, "t");
        assert_eq!(rig.post("/booking", body).await.status, 200);
        let status = rig.receiver.status();
        let rule = status.rules.iter().find(|rule| rule.kind == BOOKING);
        assert_eq!(rule.unwrap().clock_ahead, flagged, "{ahead}");
    }
}

#[tokio::test]
async fn an_authentic_notification_of_unknown_shape_is_kept() {
    let rig = rig(Setup::default()).await;
    let signature = signature(&key_of(BOOKING), NOW, "t");
    let long = "x".repeat(129);
    for id in [
        r#""bookingID":"a/b","#,
        r#""bookingID":"..","#,
        r#""bookingID":".","#,
        r#""bookingID":"","#,
        r#""bookingID":"a\u0007","#,
        r#""bookingID":"a\u0000","#,
        r#""bookingID":"\ud800","#,
        r#""bookingID":5,"#,
        r#""bookingID":1e999,"#,
        r#""bookingID":[[[[{}]]]],"#,
        r#""bookingID":null,"#,
        r#""bookingID":"a","bookingID":"a","#,
        r#""bookingid":"a","#,
        "",
        &format!(r#""bookingID":"{long}","#),
    ] {
        let body = format!(r#"{{{id}"signature":{signature}}}"#);
        assert_eq!(rig.post("/booking", &body).await.status, 200, "{id}");
        let kept = rig.state.accepted.lock().unwrap().pop().unwrap();
        assert!(kept.key.is_none(), "{id}");
        assert_eq!(kept.body, body.as_bytes());
    }
    for (id, key) in [
        ("%2e%2e", "booking/%2e%2e"),
        ("a b", "booking/a b"),
        ("ü", "booking/ü"),
        ("\\u00fc", "booking/ü"),
        ("...", "booking/..."),
    ] {
        let body = format!(r#"{{"bookingID":"{id}","signature":{signature},"x":{{"y":[1]}}}}"#);
        assert_eq!(rig.post("/booking", &body).await.status, 200, "{id}");
        let kept = rig.state.accepted.lock().unwrap().pop().unwrap();
        assert_eq!(kept.key.unwrap().as_str(), key);
    }
    for (operation, removed) in [("removed", true), ("updated", false), ("other", false)] {
        let body =
            format!(r#"{{"bookingID":"b","operation":"{operation}","signature":{signature}}}"#);
        assert_eq!(rig.post("/booking", &body).await.status, 200);
        let kept = rig.state.accepted.lock().unwrap().pop().unwrap();
        assert_eq!(kept.removed, removed, "{operation}");
    }
}

#[tokio::test]
async fn too_many_at_once_and_too_many_repeats() {
    let limits = Limits {
        in_flight: 1,
        repeats_per_second: 1,
        repeats_burst: 2,
    };
    let rig = rig(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let gate = rig.state.gate.lock().await;
    let (first, second) = tokio::join!(
        async {
            let waiting = rig.post("/booking", notification(BOOKING, "1"));
            tokio::time::timeout(Duration::from_millis(500), waiting).await
        },
        async {
            while rig.state.accepted.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            rig.post("/booking", notification(BOOKING, "2")).await
        }
    );
    assert!(first.is_err(), "the first waits for the store");
    assert_eq!(second.status, 429);
    assert!(second.header("retry-after").is_some());
    drop(gate);
    // The sender of the first went away; what it sent had reached the store all the same.
    assert_eq!(rig.state.keys().len(), 1);

    tokio::time::sleep(Duration::from_millis(50)).await;
    let repeat = async || {
        let says = Ok(Accepted::Duplicate);
        rig.state.says.lock().unwrap().push_back(says);
        let answer = rig.post("/booking", notification(BOOKING, "r")).await;
        (answer.status, answer.header("retry-after").is_some())
    };
    assert_eq!(repeat().await, (200, false));
    assert_eq!(repeat().await, (200, false));
    assert_eq!(repeat().await, (429, true));
    let stored = rig.state.keys().len();
    assert_eq!(repeat().await, (429, true));
    assert_eq!(rig.state.keys().len(), stored, "refused before the store");
    rig.state.says.lock().unwrap().clear();
    assert_eq!(
        rig.post("/booking", notification(BOOKING, "new"))
            .await
            .status,
        200,
        "others go on"
    );
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!(repeat().await, (200, false));
}

/// Layout B of the provider reference's vectors.
fn md5_body() -> String {
    r#"{"bookingID":"b","signature":{"sum":"c995c82029db7834cf4175d655c68c17","timestamp":1735689600,"token":"0f3c2b7e9a514d6c"}}"#.to_owned()
}

#[tokio::test]
async fn md5_ends_with_the_first_hmac_and_the_store_remembers() {
    let key = "demo-security-key-0001";
    let rig = rig(Setup::default()).await;
    let set = |rig: &super::rig::Rig| {
        rig.keys.clear(BOOKING);
        rig.keys
            .set(BOOKING, vec![bellhop::secrets::Secret::new(key)]);
    };
    let weak = || {
        let status = rig.receiver.status();
        status.rules.iter().any(|rule| rule.weak_signature)
    };
    set(&rig);
    assert_eq!(rig.post("/booking", md5_body()).await.status, 200);
    assert!(weak());
    for token in ["1", "2", "3"] {
        let body = signed(BOOKING, key, NOW, token);
        assert_eq!(rig.post("/booking", body).await.status, 200);
    }
    assert!(!weak());
    assert_eq!(rig.state.fact_writes.load(Ordering::SeqCst), 1);
    assert_eq!(rig.post("/booking", md5_body()).await.status, 503);
    // A new process: the ring knows nothing, the store does.
    set(&rig);
    assert_eq!(rig.post("/booking", md5_body()).await.status, 503);
    let fingerprint = bellhop::secrets::Secret::new(key).fingerprint();
    let fact = format!("md5-over/{fingerprint}");
    assert!(rig.state.facts.lock().unwrap().contains_key(&fact));
    // Another key starts afresh: only this one was told.
    rig.state.facts.lock().unwrap().clear();
    set(&rig);
    assert_eq!(rig.post("/booking", md5_body()).await.status, 200);
}

#[tokio::test]
async fn a_pinned_scheme_forbids_the_other() {
    for (scheme, md5, hmac) in [
        (SignatureScheme::Md5, 200, 503),
        (SignatureScheme::HmacSha256, 503, 200),
    ] {
        let rig = rig(Setup {
            scheme,
            ..Setup::default()
        })
        .await;
        let key = "demo-security-key-0001";
        rig.keys
            .set(BOOKING, vec![bellhop::secrets::Secret::new(key)]);
        assert_eq!(rig.post("/booking", md5_body()).await.status, md5);
        let body = signed(BOOKING, key, NOW, "t");
        assert_eq!(rig.post("/booking", body).await.status, hmac);
    }
}
