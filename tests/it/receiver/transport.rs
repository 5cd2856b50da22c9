//! The server as such: slow and odd senders, TLS, drain, the admin port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop::api::NotificationType;
use bellhop::receiver::{ServerOptions, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Setup, notification, read_answer, request, rig};

const BOOKING: NotificationType = NotificationType::Booking;

pub fn good(token: &str) -> Vec<u8> {
    request("POST", "/booking", notification(BOOKING, token).as_bytes())
}

pub fn with_server(server: ServerOptions) -> Setup {
    Setup {
        server,
        ..Setup::default()
    }
}

#[tokio::test]
async fn slow_senders_get_408() {
    let rig = rig(with_server(ServerOptions {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..ServerOptions::default()
    }))
    .await;
    let answer = rig.raw(b"POST /booking HTTP/1.1\r\nhost:").await;
    assert_eq!(answer.status, 408, "half a head");
    let answer = rig
        .raw(b"POST /booking HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"a\"")
        .await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (408, Some("close"))
    );
    // Nothing sent at all, and silence after an answer: the connection just ends.
    assert_eq!(rig.raw(b"").await.status, 0);
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(&good("1")).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status, 200);
    assert_eq!(read_answer(&mut stream).await.status, 0);
}

#[tokio::test]
async fn sizes() {
    let rig = rig(Setup::default()).await;
    let body = notification(BOOKING, "t");
    let padded = |size: usize| body.clone() + &" ".repeat(size - body.len());
    assert_eq!(rig.post("/booking", padded(65_536)).await.status, 200);
    assert_eq!(rig.post("/booking", padded(65_537)).await.status, 413);
    assert_eq!(rig.post("/booking", padded(900_000)).await.status, 413);
    let mut chunked =
        b"POST /booking HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..10 {
        chunked.extend_from_slice(b"4000\r\n");
        chunked.extend_from_slice(&[b' '; 0x4000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(rig.raw(&chunked).await.status, 413);
    let head = format!(
        "POST /booking HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    assert_eq!(rig.raw(head.as_bytes()).await.status, 431);
    let expecting = b"POST /booking HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n";
    assert_eq!(
        rig.raw(expecting).await.status,
        413,
        "without being asked to go on"
    );
}

#[tokio::test]
async fn chunked_pipelined_and_cut() {
    let rig = rig(Setup::default()).await;
    let body = notification(BOOKING, "chunked");
    let (one, two) = body.split_at(40);
    let chunked = format!(
        "POST /booking HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    assert_eq!(rig.raw(chunked.as_bytes()).await.status, 200);
    assert_eq!(rig.state.accepted.lock().unwrap()[0].body, body.as_bytes());

    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let many: Vec<u8> = (0..20).flat_map(|n| good(&n.to_string())).collect();
    stream.write_all(&many).await.unwrap();
    for _ in 0..20 {
        assert_eq!(read_answer(&mut stream).await.status, 200);
    }
    assert_eq!(rig.state.keys().len(), 21);

    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let all = good("cut");
    stream.write_all(&all[..all.len() - 1]).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    let bad_chunk =
        b"POST /booking HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(rig.raw(bad_chunk).await.status, 400);
    for head in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: -5",
        "content-length: 5x",
        "transfer-encoding: gzip",
    ] {
        let bytes = format!("POST /booking HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n12345");
        assert_eq!(rig.raw(bytes.as_bytes()).await.status, 400, "{head}");
    }
    assert_eq!(rig.state.keys().len(), 21);
}

#[tokio::test]
async fn both_lengths_are_refused() {
    let rig = rig(Setup::default()).await;
    let body = notification(BOOKING, "t");
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for head in [
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked",
            chunk.len()
        ),
        format!(
            "transfer-encoding: chunked\r\ncontent-length: {}",
            chunk.len()
        ),
    ] {
        let bytes = format!("POST /booking HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{chunk}");
        let answer = rig.raw(bytes.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (400, Some("close")),
            "{head}"
        );
    }
    assert!(rig.state.accepted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_drain_finishes_what_it_began() {
    let mut rig = rig(with_server(ServerOptions {
        linger: Duration::from_millis(500),
        ..ServerOptions::default()
    }))
    .await;
    let mut idle = TcpStream::connect(rig.address).await.unwrap();
    idle.write_all(&good("0")).await.unwrap();
    assert_eq!(read_answer(&mut idle).await.status, 200);
    let state = Arc::clone(&rig.state);
    let gate = state.gate.lock().await;
    let mut begun = TcpStream::connect(rig.address).await.unwrap();
    begun.write_all(&good("1")).await.unwrap();
    while rig.state.keys().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.token.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut fresh = TcpStream::connect(rig.address).await.unwrap();
    for stream in [&mut idle, &mut fresh] {
        stream.write_all(&good("2")).await.unwrap();
        let answer = read_answer(stream).await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (503, Some("close"))
        );
        assert!(answer.header("retry-after").is_some());
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!rig.server.is_finished(), "a request is still in flight");
    drop(gate);
    let answer = read_answer(&mut begun).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    let ended = tokio::time::timeout(Duration::from_secs(5), &mut rig.server).await;
    assert_eq!(ended.unwrap().unwrap(), Ok(()));
    assert_eq!(rig.state.keys().len(), 2);
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let mut rig = rig(with_server(ServerOptions {
        drain: Duration::from_millis(400),
        ..ServerOptions::default()
    }))
    .await;
    let state = Arc::clone(&rig.state);
    let _gate = state.gate.lock().await;
    let mut stuck = TcpStream::connect(rig.address).await.unwrap();
    stuck.write_all(&good("1")).await.unwrap();
    while rig.state.keys().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rig.token.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(3), &mut rig.server).await;
    assert_eq!(ended.unwrap().unwrap(), Ok(()));
}

/// The certificate that the server shows now, seen by a client that trusts only `trusted`.
async fn over_tls(
    address: std::net::SocketAddr,
    trusted: &str,
    path: &str,
    body: String,
) -> Option<u16> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(trusted))
        .build()
        .unwrap();
    let url = format!("https://localhost:{}{path}", address.port());
    client
        .post(url)
        .body(body)
        .send()
        .await
        .ok()
        .map(|answer| answer.status().as_u16())
}

fn client_config(trusted: &str) -> rustls::ClientConfig {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let der = rustls_pki_types::CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[tokio::test]
async fn a_changed_certificate_is_taken_over_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles {
        cert: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
    };
    let issue = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let write = |cert: &str, key: &str| {
        std::fs::write(&files.key, key).unwrap();
        std::fs::write(&files.cert, cert).unwrap();
    };
    let (first, first_key) = issue();
    write(&first, &first_key);
    let rig = rig(with_server(ServerOptions {
        tls: Some(files.clone()),
        ..ServerOptions::default()
    }))
    .await;
    let status = async |trusted: &str| {
        over_tls(rig.address, trusted, "/booking", notification(BOOKING, "t")).await
    };
    assert_eq!(status(&first).await, Some(200));
    write("broken", "broken");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(status(&first).await, Some(200), "the loaded one stays");
    let (second, second_key) = issue();
    write(&second, &second_key);
    let deadline = Instant::now() + Duration::from_secs(10);
    while status(&second).await != Some(200) {
        assert!(Instant::now() < deadline, "not reloaded");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status(&first).await, None);
    let plain = rig.raw(&good("t")).await;
    assert_eq!(plain.status, 0, "plain HTTP on a TLS port");
}

#[tokio::test]
async fn the_admin_port() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let rig = rig(Setup::default()).await;
    rig.raw(&good("t")).await;
    let ready = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ready);
    let receiver = rig.receiver.clone();
    let router = bellhop::admin::router(
        rig.metrics.clone(),
        Arc::new(move || {
            if seen.load(Ordering::SeqCst) {
                Vec::new()
            } else {
                vec!["the signing key of Rate".to_owned(), "the store".to_owned()]
            }
        }),
        Arc::new(move || serde_json::json!({ "receiver": receiver.status() })),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = ServerOptions::default();
    tokio::spawn(bellhop::receiver::serve(
        listener,
        router,
        options,
        rig.token.clone(),
    ));
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&request("GET", path, b"")).await.unwrap();
        read_answer(&mut stream).await
    };
    assert_eq!(get("/livez").await.status, 200);
    let waiting = get("/readyz").await;
    assert_eq!(waiting.status, 503);
    assert_eq!(
        waiting.body,
        "waiting for the signing key of Rate\nwaiting for the store\n"
    );
    ready.store(true, Ordering::SeqCst);
    assert_eq!(get("/readyz").await.status, 200);
    let status: serde_json::Value = serde_json::from_str(&get("/status").await.body).unwrap();
    assert_eq!(status["receiver"]["rules"][6]["accepted"], 1);
    assert_eq!(get("/nope").await.status, 404);
    let metrics = get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(
        metrics
            .body
            .contains("bellhop_receiver_requests_total{type=\"Booking\",answer=\"accepted\"} 1\n")
    );
    crate::promtool::check(&metrics.body);
    let asked = "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(asked.as_bytes()).await.unwrap();
    let open = read_answer(&mut stream).await;
    let kind = open.header("content-type").unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(open.body.ends_with("# EOF\n"));
}
