//! More connections than a port takes: who gets an answer, and who has to go.

use std::time::{Duration, Instant};

use bellhop::receiver::{Limits, ServerOptions};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

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
