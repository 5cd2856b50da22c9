//! What comes over a connection: waits asked for, breaks, sizes, redirects.

use super::*;

#[tokio::test]
async fn retry_after_is_passed_on_in_both_forms() {
    for (headers, expected) in [
        ("", None),
        ("Retry-After: 17\r\n", Some(17)),
        ("Retry-After: 9999999999\r\n", Some(3600)),
        ("Retry-After: soon\r\n", None),
        // The test's clock stands at 08:49:30.
        ("Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n", Some(7)),
        (
            "Date: Sun, 06 Nov 1994 08:49:35 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            Some(2),
        ),
        ("Retry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\n", Some(0)),
    ] {
        for status in [429, 503] {
            let server = Server::start(move |_, _| answer(status, headers, "")).await;
            let error = read_from(&server, &supplier("s1")).await.unwrap_err();
            let ReadError::Retry { after, .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(after, expected.map(Duration::from_secs), "{headers}");
        }
    }
}

#[tokio::test]
async fn broken_connections_are_worth_another_try() {
    let settings = || ClientSettings {
        timeout: Duration::from_millis(300),
        ..ClientSettings::default()
    };
    let fine = r#"{"supplier":{"id":"s1"}}"#;
    let raw = |text: String| move |_: usize, _: &_| Act::Raw(text.clone().into_bytes());
    let hang = |text: String| move |_: usize, _: &_| Act::Hang(text.clone().into_bytes());
    let head = "HTTP/1.1 200 OK\r\n";
    for (server, expected) in [
        (
            Server::start(raw(format!("{head}Content-Length: 500\r\n\r\n{fine}"))).await,
            "cut off after 24 bytes",
        ),
        (
            Server::start(raw(format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n18\r\n{fine}\r\n"
            )))
            .await,
            "cut off after 24 bytes",
        ),
        (
            Server::start(raw(format!("{head}Content-Length: 10\r\n\r\n{fine}"))).await,
            "cut off or no JSON",
        ),
        (Server::start(raw(String::new())).await, "without an answer"),
        (
            Server::start(raw("nonsense\r\n\r\n".to_owned())).await,
            "without an answer",
        ),
        (
            Server::start(hang(String::new())).await,
            "no whole answer within 0.3 s",
        ),
        (
            Server::start(hang(format!("{head}Content-Length: 500\r\n\r\n{fine}"))).await,
            "no whole answer within 0.3 s",
        ),
        (
            Server::start(raw(format!(
                "{head}X-Long: {}\r\n\r\n",
                "x".repeat(2_000_000)
            )))
            .await,
            "without an answer",
        ),
    ] {
        let parts = parts(&server, "/v1.3", settings());
        let error = client(&parts).read(&supplier("s1")).await.unwrap_err();
        assert_eq!(outcome(&error), Retry);
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("s1"), "{text}");
    }
}

#[tokio::test]
async fn nobody_listening_is_worth_another_try() {
    let server = Server::always(200, "").await;
    let parts = parts(&server, "/v1.3", ClientSettings::default());
    let address = server.address;
    drop(server);
    // The port is free when nothing accepts any more.
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let error = client(&parts).read(&supplier("s1")).await.unwrap_err();
    assert_eq!(outcome(&error), Retry);
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn a_body_over_the_cap_is_dropped_and_not_read_to_its_end() {
    const MIB: u64 = 1024 * 1024;
    let server = Server::start(|_, _| Act::Flood(100 * MIB)).await;
    let error = read_from(&server, &supplier("s1")).await.unwrap_err();
    assert_eq!(outcome(&error), Refused);
    assert!(
        error.to_string().contains("larger than 33554432 bytes"),
        "{error}"
    );
    // What is above the cap lies in socket buffers.
    assert!(server.flooded() < 50 * MIB, "{} bytes", server.flooded());

    let server = Server::start(|_, _| {
        Act::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n".to_vec())
    })
    .await;
    let error = read_from(&server, &supplier("s1")).await.unwrap_err();
    assert_eq!(outcome(&error), Refused);
}

#[tokio::test]
async fn an_endless_error_body_is_not_waited_for() {
    let server = Server::start(|_, _| {
        let mut bytes = b"HTTP/1.1 503 X\r\nContent-Length: 104857600\r\n\r\n".to_vec();
        bytes.extend(vec![b' '; 70_000]);
        Act::Hang(bytes)
    })
    .await;
    let error = read_from(&server, &supplier("s1")).await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_in_flight_stay_below_their_cap_and_all_arrive() {
    const CAP: usize = 2 * 1024 * 1024;
    let filler = "x".repeat(900 * 1024);
    let body = format!(r#"{{"supplier":{{"id":"s1","x":"{filler}"}}}}"#);
    let server = Server::always(200, &body).await;
    let parts = parts(
        &server,
        "/v1.3",
        ClientSettings {
            max_answer_bytes: CAP / 2,
            max_in_flight_bytes: CAP,
            ..ClientSettings::default()
        },
    );
    let client = Arc::new(client(&parts));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let client = Arc::clone(&client);
        calls.spawn(async move { one(client.read(&supplier("s1")).await).data.get().len() });
    }
    let in_flight = || {
        let text = parts.metrics.encode();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("bellhop_provider_bodies_in_flight_bytes "));
        line.unwrap().parse::<usize>().unwrap()
    };
    let mut most = 0;
    loop {
        tokio::select! {
            call = calls.join_next() => match call {
                Some(length) => assert_eq!(length.unwrap(), body.len() - r#"{"supplier":}"#.len()),
                None => break,
            },
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        most = most.max(in_flight());
    }
    assert!(most > 0 && most <= CAP, "{most}");
    assert_eq!(in_flight(), 0);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::always(200, r#"{"supplier":{"id":"s1"}}"#).await;
    let location = format!("Location: http://{}/x\r\n", elsewhere.address);
    let server = Server::start(move |_, _| answer(302, &location, "")).await;
    let error = read_from(&server, &supplier("s1")).await.unwrap_err();
    assert_eq!(outcome(&error), Retry);
    assert!(elsewhere.seen().is_empty());
}
