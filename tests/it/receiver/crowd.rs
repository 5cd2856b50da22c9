//! More connections than a port takes: who gets an answer, and who has to go.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use bellhop::receiver::{Limits, ServerOptions, serve};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::rig::{read_answer, rig};
use super::transport::{good, with_server};

const HALF: &[u8] = b"POST /booking HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"a\"";

#[tokio::test]
async fn ten_thousand_idle_connections_keep_nobody_out() {
    let rig = rig(with_server(ServerOptions {
        max_connections: 1000,
        ..ServerOptions::default()
    }))
    .await;
    let mut idle = Vec::new();
    for n in 0..10_000 {
        match TcpStream::connect(rig.address).await {
            Ok(mut stream) => {
                // Some have begun to send.
                if n % 3 == 0 {
                    let _ = stream.write_all(b"POST /boo").await;
                }
                idle.push(stream);
            }
            Err(error) => {
                println!("this machine allows {n} connections: {error}");
                break;
            }
        }
    }
    println!("{} idle connections", idle.len());
    let started = Instant::now();
    for n in 0..20 {
        assert_eq!(rig.raw(&good(&n.to_string())).await.status, 200);
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn busy_connections_stay_and_further_ones_are_told_to_come_back() {
    let rig = rig(with_server(ServerOptions {
        max_connections: 2,
        ..ServerOptions::default()
    }))
    .await;
    let gate = rig.state.gate.lock().await;
    let mut busy = Vec::new();
    for n in 0..2 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&good(&n.to_string())).await.unwrap();
        busy.push(stream);
    }
    while rig.state.keys().len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nor can silent connections beyond the limit keep that answer from anybody.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(rig.address).await.unwrap());
    }
    for n in 0..3 {
        let answer = rig.raw(&good(&format!("further {n}"))).await;
        assert_eq!(answer.status, 429);
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(rig.state.keys().len(), 2, "nothing of it reached the store");
    drop(gate);
    for mut stream in busy {
        assert_eq!(read_answer(&mut stream).await.status, 200);
    }
    assert_eq!(rig.raw(&good("later")).await.status, 200);
}

/// Whoever sends half a request has to go when the port is full, longest first, and is told so.
#[tokio::test]
async fn half_sent_requests_keep_nobody_out() {
    let rig = rig(with_server(ServerOptions {
        max_connections: 32,
        body_timeout: Duration::from_mins(1),
        ..ServerOptions::default()
    }))
    .await;
    let mut attackers = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(HALF).await.unwrap();
        attackers.push(stream);
        if n % 10 == 9 {
            let answer = rig.raw(&good(&n.to_string())).await;
            assert_eq!(answer.status, 200, "after {n}");
        }
    }
    assert_eq!(read_answer(&mut attackers[0]).await.status, 408);
}

/// A sender that was here before the port filled up and goes on sending gets its answer.
#[tokio::test]
async fn the_newest_half_sent_request_stays() {
    let rig = rig(with_server(ServerOptions {
        max_connections: 32,
        body_timeout: Duration::from_mins(1),
        ..ServerOptions::default()
    }))
    .await;
    let mut old = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(HALF).await.unwrap();
        old.push(stream);
    }
    let request = good("slow");
    let (first, rest) = request.split_at(request.len() - 9);
    let mut slow = TcpStream::connect(rig.address).await.unwrap();
    slow.write_all(first).await.unwrap();
    for _ in 0..10 {
        old.push(TcpStream::connect(rig.address).await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    slow.write_all(rest).await.unwrap();
    assert_eq!(read_answer(&mut slow).await.status, 200);
}

/// The receiver's own 429 comes before the port's: it is counted, and leaves places for whoever is
/// still sending.
#[test]
fn the_port_has_more_places_than_the_store_is_offered() {
    let port = ServerOptions::default().max_connections;
    assert!(Limits::default().in_flight * 2 <= port);
}

/// A port with these routes.
async fn port(
    router: Router,
    options: ServerOptions,
) -> (
    std::net::SocketAddr,
    CancellationToken,
    JoinHandle<Result<(), String>>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let token = CancellationToken::new();
    let server = tokio::spawn(serve(listener, router, options, token.clone()));
    (address, token, server)
}

async fn ask(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

/// A consumer's stream is not idle because its answer has begun.
#[tokio::test]
async fn idle_connections_do_not_end_a_stream() {
    let (words, _) = tokio::sync::broadcast::channel::<&'static str>(8);
    let said = words.clone();
    let stream = move || {
        let words = futures_util::stream::unfold(said.subscribe(), async |mut words| {
            let word = words.recv().await.ok()?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(word)), words))
        });
        std::future::ready(Body::from_stream(words.boxed()))
    };
    let options = ServerOptions {
        max_connections: 4,
        ..ServerOptions::default()
    };
    let (address, token, server) = port(Router::new().route("/", get(stream)), options).await;
    let mut consumer = ask(address).await;
    while words.receiver_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    words.send("still here").unwrap();
    let mut got = String::new();
    while !got.contains("still here") {
        let mut bytes = [0; 1024];
        let read = consumer.read(&mut bytes).await.unwrap();
        assert!(read > 0, "the stream was cut after {got:?}");
        got.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    token.cancel();
    drop(consumer);
    server.await.unwrap().unwrap();
}

/// What was begun before the end is given out whole, also to a reader that takes its time.
#[tokio::test]
async fn the_drain_does_not_cut_a_long_answer() {
    const SIZE: usize = 32 * 1024 * 1024;
    let page = || std::future::ready(Body::from(vec![b'x'; SIZE]));
    let router = Router::new().route("/", get(page));
    let (address, token, server) = port(router, ServerOptions::default()).await;
    let mut reader = ask(address).await;
    reader.read_u8().await.unwrap();
    token.cancel();
    let mut got = 1;
    let mut bytes = vec![0; 64 * 1024];
    loop {
        // Slowest where little is left: that is in the server's own buffers.
        let pause = if got < 1024 {
            900
        } else {
            u64::from(got + 2_000_000 > SIZE) * 15
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match reader.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(read) => got += read,
        }
    }
    assert!(got > SIZE, "{got} of {SIZE} and the head");
    server.await.unwrap().unwrap();
}
