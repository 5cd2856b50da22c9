//! Bad input: the exact refusal, nothing in the store, nothing of it in a log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bellhop::api::NotificationType;
use proptest::prelude::*;

use super::rig::{NOW, Rig, Setup, key_of, notification, rig, sign, signature};

const BOOKING: NotificationType = NotificationType::Booking;

fn signed_with(fields: &str) -> String {
    format!(r#"{{"bookingID":"MARKER","signature":{fields}}}"#)
}

/// Body and the sentence it is answered with.
fn bad_bodies() -> Vec<(Vec<u8>, &'static str)> {
    let sum = sign(&key_of(BOOKING), NOW, "t");
    let odd = &sum[1..];
    let wrong_hex = sum.replace(|c: char| c.is_ascii_digit(), "g");
    let timestamp = "signature.timestamp: expected Unix seconds as a JSON integer of at most 64 \
                     bits, without fraction, exponent or quotes";
    let text = |body: String, answer| (body.into_bytes(), answer);
    let mut bad = vec![
        (b"".to_vec(), "body: expected a JSON object, found nothing"),
        (b"[]".to_vec(), "body: expected a JSON object"),
        (b"\"MARKER\"".to_vec(), "body: expected a JSON object"),
        (
            b"{} MARKER".to_vec(),
            "body: expected JSON; it cannot be read as such at line 1 column 4",
        ),
        (
            b"{\"MARKER\":\"\xff\"}".to_vec(),
            "body: expected UTF-8, which ends at byte 11",
        ),
        (
            b"\xef\xbb\xbf{}".to_vec(),
            "body: expected JSON without a byte order mark",
        ),
        (b"{\"MARKER\":1}".to_vec(), "signature: missing"),
        text(
            signed_with("\"MARKER\""),
            "signature: expected an object with sum, timestamp and token",
        ),
        text(
            signed_with("null"),
            "signature: expected an object with sum, timestamp and token",
        ),
        text(
            format!(
                r#"{{"signature":{{}},"signature":{}}}"#,
                signature(&key_of(BOOKING), NOW, "t")
            ),
            "signature: expected once, found twice",
        ),
        text(
            signed_with(r#"{"timestamp":1,"token":""}"#),
            "signature.sum: missing",
        ),
        text(
            signed_with(&format!(r#"{{"sum":"{sum}","token":""}}"#)),
            "signature.timestamp: missing",
        ),
        text(
            signed_with(&format!(r#"{{"sum":"{sum}","timestamp":1}}"#)),
            "signature.token: missing",
        ),
        text(
            signed_with(&format!(
                r#"{{"sum":"{sum}","sum":"{sum}","timestamp":1,"token":""}}"#
            )),
            "signature.sum: expected once, found twice",
        ),
        text(
            signed_with(&format!(
                r#"{{"sum":"{sum}","timestamp":1,"token":["MARKER"]}}"#
            )),
            "signature.token: expected a string",
        ),
    ];
    for sum in [odd, &wrong_hex, "", "MARKER"] {
        bad.push(text(
            signed_with(&format!(r#"{{"sum":"{sum}","timestamp":1,"token":""}}"#)),
            "signature.sum: expected a string of 64 or 32 hex digits",
        ));
    }
    for number in ["1.0", "1e9", "\"1\"", "true", "9223372036854775808"] {
        bad.push(text(
            signed_with(&format!(
                r#"{{"sum":"{sum}","timestamp":{number},"token":""}}"#
            )),
            timestamp,
        ));
    }
    // A number that no machine type holds ends the reading at once.
    bad.push(text(
        r#"{"signature":{"timestamp":1e400}}"#.to_owned(),
        "body: expected JSON; it cannot be read as such at line 1 column 31",
    ));
    let deep = "[".repeat(30_000);
    bad.push(text(
        deep.clone(),
        "body: expected JSON; it cannot be read as such at line 1 column 30000",
    ));
    bad
}

#[tokio::test]
async fn each_bad_body_gets_its_sentence() {
    let rig = rig(Setup::default()).await;
    for (body, sentence) in bad_bodies() {
        let answer = rig.post("/booking", &body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}");
        assert_eq!(answer.body.trim_end(), sentence, "{shown}");
    }
    assert!(rig.state.accepted.lock().unwrap().is_empty());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// On one thread, so that the subscriber hears everything; at the most talkative level.
#[tokio::test]
async fn nothing_unverified_is_logged_counted_or_stored() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("the log is heard");
    let rig = rig(Setup::default()).await;
    for (body, _) in bad_bodies() {
        rig.post("/booking", &body).await;
    }
    let forged = signed_with(&signature("MARKER", NOW, "MARKER"));
    for path in ["/booking", "/redeam", "/MARKER", "/booking?MARKER"] {
        rig.post(path, &forged).await;
    }
    let mut with_header =
        b"POST /booking HTTP/1.1\r\nhost: MARKER\r\ntraceparent: MARKER\r\n".to_vec();
    with_header.extend_from_slice(b"MARKER: \x01\r\n\r\n");
    rig.raw(&with_header).await;
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("the log is heard"));
    assert!(!logged.contains("MARKER"), "{logged}");
    let status = serde_json::to_string(&rig.receiver.status()).unwrap();
    assert!(!status.contains("MARKER") && !rig.metrics.encode().contains("MARKER"));
    assert!(rig.state.accepted.lock().unwrap().is_empty());
}

fn block_on<T>(test: impl AsyncFnOnce(Rig) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { test(rig(Setup::default()).await).await })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// 503 is for the one case where a well-formed signature is looked up again.
    #[test]
    fn random_bodies_never_reach_the_store(bodies in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..300), 1..8)) {
        block_on(async |rig| {
            for body in &bodies {
                let answer = rig.post("/booking", body).await;
                prop_assert_eq!(answer.status, 400);
            }
            prop_assert!(rig.state.accepted.lock().unwrap().is_empty());
            Ok(())
        })?;
    }

    #[test]
    fn random_bytes_on_the_socket_never_reach_the_store(
        bytes in prop::collection::vec(any::<u8>(), 1..300)) {
        block_on(async |rig| {
            let mut sent = bytes.clone();
            sent.extend_from_slice(b"\r\n\r\n\r\n\r\n");
            let answer = rig.raw(&sent).await;
            prop_assert!(answer.status == 0 || (400..500).contains(&answer.status),
                "{}", answer.status);
            prop_assert!(rig.state.accepted.lock().unwrap().is_empty());
            Ok(())
        })?;
    }

    /// One byte of an authentic request is changed: either what is signed is untouched (200), or
    /// it is refused; the answer is never anything else.
    #[test]
    fn a_changed_byte(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = notification(BOOKING, "token").into_bytes();
        let at = at.index(body.len());
        let same = body[at] == byte;
        body[at] = byte;
        let signed_part = {
            let value: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            let original: serde_json::Value =
                serde_json::from_str(&notification(BOOKING, "token")).unwrap();
            value.is_some_and(|value| {
                let lower = |v: &serde_json::Value| {
                    v["signature"]["sum"].as_str().map(str::to_lowercase)
                };
                lower(&value) == lower(&original)
                    && value["signature"]["timestamp"] == original["signature"]["timestamp"]
                    && value["signature"]["token"] == original["signature"]["token"]
            })
        };
        block_on(async |rig| {
            let answer = rig.post("/booking", &body).await;
            let stored = rig.state.accepted.lock().unwrap().len();
            if same || signed_part {
                prop_assert_eq!((answer.status, stored), (200, 1));
            } else {
                prop_assert!(matches!(answer.status, 400 | 503), "{}", answer.status);
                prop_assert_eq!(stored, 0);
            }
            Ok(())
        })?;
    }
}
