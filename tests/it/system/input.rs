//! Bad input at the public port of the running program: the exact answer, and nothing of it in the
//! log. Each sentence of a body is tested at the receiver itself; here it is the whole way in.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Consumer, Program, World, eventually, provider};

/// HMAC-SHA256 by another implementation than the one under test, in hex.
pub fn hmac(key: &str, text: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    hex::encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()))
}

fn now() -> i64 {
    i64::try_from(
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}

/// A body with a signature by `key` of this moment, moved by `offset` seconds.
fn signed(key: &str, fields: &str, offset: i64) -> String {
    let (timestamp, token) = (now() + offset, fastrand::u64(..).to_string());
    let sum = hmac(key, &format!("{timestamp}{token}"));
    format!(
        r#"{{{fields}"signature":{{"sum":"{sum}","timestamp":{timestamp},"token":"{token}"}}}}"#
    )
}

pub fn key_of(world: &World, kind: &str) -> String {
    let rules = world.control.rules();
    let (_, rule) = rules.iter().find(|(one, _)| one.name() == kind).unwrap();
    rule["securityKey"].as_str().unwrap().to_owned()
}

fn request(method: &str, path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends bytes on a connection of their own; the status of each answer until the server ends it,
/// or until `answers` have come.
async fn send(program: &Program, bytes: &[u8], answers: usize) -> Vec<u16> {
    let mut stream = TcpStream::connect(&program.public).await.unwrap();
    // The server may answer and close before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let found = |text: &[u8]| -> Vec<u16> {
        let text = String::from_utf8_lossy(text);
        let heads = text.split("HTTP/1.1 ").skip(1);
        heads.map(|head| head[..3].parse().unwrap()).collect()
    };
    let reading = async {
        while found(&text).len() < answers {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
            }
        }
    };
    tokio::time::timeout(super::rig::LONG, reading)
        .await
        .unwrap();
    found(&text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_bad_input_has_its_answer_and_leaves_no_trace() {
    let world = World::new(provider()).await;
    let program = world
        .start_with("", |command| {
            command.args(["--log", "trace"]);
        })
        .await;
    program.settled().await;
    let key = key_of(&world, "booking");
    let good = |id: &str| signed(&key, &format!(r#""bookingID":"{id}","#), 0);
    let sum = "0".repeat(64);
    let deep = "[".repeat(20_000);
    let text = |body: &str| body.as_bytes().to_vec();
    let bad: Vec<(u16, &str, &str, Vec<u8>)> = vec![
        (400, "POST", "/redeam/booking", text("MARKER")),
        (400, "POST", "/redeam/booking", text("")),
        (400, "POST", "/redeam/booking", text("[\"MARKER\"]")),
        (
            400,
            "POST",
            "/redeam/booking",
            b"{\"MARKER\":\"\xff\xfe\"}".to_vec(),
        ),
        (
            400,
            "POST",
            "/redeam/booking",
            text(&format!("{{\"MARKER\":{deep}")),
        ),
        (
            400,
            "POST",
            "/redeam/booking",
            text("{\"MARKER\":1,\"signature\":{\"timestamp\":1e999}}"),
        ),
        (
            400,
            "POST",
            "/redeam/booking",
            text(&format!(
                "{{\"signature\":{{\"sum\":\"{sum}\",\"sum\":\"{sum}\",\"timestamp\":1,\"token\":\"MARKER\"}}}}"
            )),
        ),
        (
            400,
            "POST",
            "/redeam/booking",
            text(&format!(
                "{{\"signature\":{{\"sum\":\"MARKER{sum}\",\"timestamp\":1,\"token\":\"x\"}}}}"
            )),
        ),
        (
            400,
            "POST",
            "/redeam/booking",
            text(&format!(
                "{{\"signature\":{{\"sum\":\"{sum}\",\"timestamp\":99999999999999999999,\"token\":\"MARKER\"}}}}"
            )),
        ),
        (404, "POST", "/redeam/MARKER", text(&good("x"))),
        (404, "POST", "/redeam/booking/../MARKER", text(&good("x"))),
        (405, "GET", "/redeam/booking?MARKER", text("")),
        (405, "PUT", "/redeam/booking", text("MARKER")),
        (405, "DELETE", "/redeam/booking", text("")),
        (
            413,
            "POST",
            "/redeam/booking",
            text(&"MARKER".repeat(20_000)),
        ),
    ];
    for (status, method, path, body) in bad {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let got = send(&program, &request(method, path, &body), 1).await;
        assert_eq!(got, [status], "{method} {path} {shown}");
    }
    // A well-formed signature that no key fits: the keys are read again (503), then it is refused.
    let forged = || signed("MARKER", "\"bookingID\":\"MARKER\",", 0);
    let first = send(&program, &request("POST", "/redeam/booking", forged()), 1).await;
    assert_eq!(first, [503]);
    eventually("the keys were read again", async || {
        let got = send(&program, &request("POST", "/redeam/booking", forged()), 1).await;
        (got == [401]).then_some(())
    })
    .await;
    // Both lengths, and a length that is none.
    for head in [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "content-length: 6\r\ncontent-length: 7\r\n",
        "content-length: -6\r\n",
        "MARKER\x01: MARKER\r\n",
    ] {
        let bytes = format!("POST /redeam/booking HTTP/1.1\r\nhost: x\r\n{head}\r\nMARKER");
        let got = send(&program, bytes.as_bytes(), 1).await;
        assert_eq!(got, [400], "{head}");
    }
    let log = program.log();
    assert!(log.lines().count() > 50, "the log is talkative");
    assert!(!log.contains("MARKER"), "{log}");
    assert!(!program.status().await.to_string().contains("MARKER"));
    let metrics = program.metrics().await;
    assert!(!metrics.keys().any(|name| name.contains("MARKER")));
    program.stop().await;
}

/// Identifiers are not signed: whatever stands there in an authentic notification is kept (200),
/// never used as a path, and an odd one costs nobody anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_identifiers_never_change_a_path() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let key = key_of(&world, "booking");
    let odd = ["a/b", "..", ".", "", "\\u0000", "\\n", "a\\u001fb"];
    for id in odd {
        let body = signed(&key, &format!(r#""bookingID":"{id}","#), 0);
        let got = send(&program, &request("POST", "/redeam/booking", body), 1).await;
        assert_eq!(got, [200], "{id}: authentic, and kept as what it is");
    }
    let long = signed(&key, &format!(r#""bookingID":"{}","#, "x".repeat(129)), 0);
    assert_eq!(
        send(&program, &request("POST", "/redeam/booking", long), 1).await,
        [200]
    );
    let status = program.status().await;
    assert_eq!(
        status["store"]["deadLetters"]["notification"],
        odd.len() as u64 + 1
    );
    // These are allowed, and must arrive at the provider as one segment each.
    let strange = [
        "%2e%2e", "%2f", "a?b", "a#b", "a b", "ä", "..a", "a;b", "&x=y",
    ];
    for id in strange {
        let body = signed(&key, &format!(r#""bookingID":"{id}","#), 0);
        let got = send(&program, &request("POST", "/redeam/booking", body), 1).await;
        assert_eq!(got, [200], "{id}");
    }
    let seen = eventually("all are asked for", async || {
        let requests = world.control.requests(0, usize::MAX);
        let paths: Vec<String> = requests
            .iter()
            .filter_map(|request| {
                request
                    .target
                    .strip_prefix("/v1.3/bookings/")
                    .map(str::to_owned)
            })
            .collect();
        let decoded = |path: &String| {
            percent_encoding::percent_decode_str(path)
                .decode_utf8()
                .unwrap()
                .into_owned()
        };
        let found: std::collections::BTreeSet<String> = paths.iter().map(decoded).collect();
        strange
            .iter()
            .all(|id| found.contains(*id))
            .then_some(paths)
    })
    .await;
    for path in seen {
        assert!(!path.contains(['/', '?', '#', ' ']), "{path}");
    }
    let unknown = world.control.request_counts().unknown;
    assert_eq!(unknown, 0, "a path that the provider does not have");
    program.stop().await;
}

/// Pipelined, chunked, and cut into single bytes: each counts as what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelining_chunks_and_slow_heads() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let key = key_of(&world, "booking");
    let body = |id: &str| signed(&key, &format!(r#""bookingID":"{id}","#), 0);
    let mut pipelined = Vec::new();
    for number in 0..5 {
        pipelined.extend(request(
            "POST",
            "/redeam/booking",
            body(&format!("p{number}")),
        ));
    }
    assert_eq!(send(&program, &pipelined, 5).await, [200; 5]);
    let mut chunked =
        b"POST /redeam/booking HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body("chunked").as_bytes().chunks(7) {
        chunked.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(send(&program, &chunked, 1).await, [200]);
    let mut stream = TcpStream::connect(&program.public).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in request("POST", "/redeam/booking", body("bytes")) {
        stream.write_all(&[byte]).await.unwrap();
    }
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // A body that stops in the middle is ended with 408.
    let mut stream = TcpStream::connect(&program.public).await.unwrap();
    let whole = request("POST", "/redeam/booking", body("slow"));
    stream.write_all(&whole[..whole.len() - 10]).await.unwrap();
    let answered = tokio::time::timeout(super::rig::LONG, stream.read_exact(&mut head)).await;
    answered.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 408");
    program.stop().await;
}

/// Ten thousand connections that say nothing keep no notification out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let files: u64 = files
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(u64::MAX);
    if files < 11_000 {
        crate::skip::without(&format!(
            "only {files} open files are allowed here (ulimit -n)"
        ));
        return;
    }
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let mut idle = Vec::new();
    for number in 0..10_000 {
        let mut stream = TcpStream::connect(&program.public).await.unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"POST /redeam/booking HTTP/1.1\r\n").await;
        }
        idle.push(stream);
    }
    let mut consumer = Consumer::default();
    for rate in world.keys("rate/") {
        world.change(&rate);
    }
    world.equal(&program, &mut consumer).await;
    let counts = serde_json::to_value(world.control.delivery_counts()).unwrap();
    let deliveries = world.control.deliveries(0, usize::MAX);
    for delivery in deliveries {
        let delivery = serde_json::to_value(delivery).unwrap();
        let attempts = delivery["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1, "{delivery} {counts}");
    }
    assert!(program.memory("VmRSS:") < 200 * 1024);
    drop(idle);
    program.stop().await;
}

/// The provider's clock, or ours, is off by an hour: accepted, and said; by more than `maxAge`: 401.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_an_hour_or_a_day_away() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    let key = key_of(&world, "booking");
    let at = async |offset: i64| {
        let body = signed(&key, "\"bookingID\":\"b\",", offset);
        send(&program, &request("POST", "/redeam/booking", body), 1).await[0]
    };
    assert_eq!(at(-3600).await, 200);
    assert_eq!(program.condition("ClockSkew").await, None);
    assert_eq!(at(240).await, 200, "within maxSkew");
    assert_eq!(program.condition("ClockSkew").await, None);
    assert_eq!(at(3600).await, 200);
    program
        .until_condition("ClockSkew", "True", "ClockDiffers")
        .await;
    let ahead: f64 =
        program.metrics().await["bellhop_receiver_clock_ahead_seconds{type=\"Booking\"}"];
    assert!((3500.0..3700.0).contains(&ahead), "{ahead}");
    assert_eq!(at(25 * 3600).await, 401);
    assert_eq!(at(-25 * 3600).await, 401);
    let status: Value = program.status().await;
    assert_eq!(status["store"]["deadLetters"]["notification"], 0);
    program.stop().await;
}
