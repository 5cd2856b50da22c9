//! Events as they come: batches, long polls and streams, each from where it was left.

use super::*;

#[tokio::test]
async fn batches_go_on_from_their_cursor() {
    let world = World::new();
    for entity in 0..5 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some("{}"));
    }
    let (first, cursor) = world.batch("/v1/events?limit=3").await;
    assert_eq!(first.len(), 3);
    let (rest, cursor) = world.batch(&format!("/v1/events?after={cursor}")).await;
    assert_eq!(
        rest.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["booking/3", "booking/4"]
    );
    let (none, same) = world.batch(&format!("/v1/events?after={cursor}")).await;
    assert_eq!((none.len(), &same), (0, &cursor));
    let (none, latest) = world.batch("/v1/events?after=latest").await;
    assert_eq!((none.len(), latest), (0, cursor));
    // Without `after`: from the oldest kept.
    world.state.forget(2);
    assert_eq!(world.batch("/v1/events").await.0.len(), 3);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_first_event_or_with_its_time() {
    let world = World::new();
    let poll = tokio::spawn(
        world.router.clone().oneshot(
            Request::get("/v1/events?after=latest&wait=30s")
                .body(Body::empty())
                .unwrap(),
        ),
    );
    assert!(
        !world
            .clock
            .run(Duration::from_secs(29), || poll.is_finished())
            .await
    );
    world.state.publish("booking/1", Some("{}"));
    assert!(world.clock.run(Duration::ZERO, || poll.is_finished()).await);
    let response = poll.await.unwrap().unwrap();
    let cursor = response.headers()["bellhop-cursor"]
        .to_str()
        .unwrap()
        .to_owned();

    let uri = format!("/v1/events?after={cursor}&wait=30s");
    let begun = world.clock.ticks();
    let poll = tokio::spawn(
        world
            .router
            .clone()
            .oneshot(Request::get(&uri).body(Body::empty()).unwrap()),
    );
    assert!(
        world
            .clock
            .run(Duration::from_secs(31), || poll.is_finished())
            .await
    );
    assert_eq!(world.clock.ticks().since(begun), Duration::from_secs(30));
    let response = poll.await.unwrap().unwrap();
    assert_eq!(
        (
            response.status(),
            response.headers()["bellhop-cursor"].to_str().unwrap()
        ),
        (StatusCode::OK, &*cursor)
    );

    // The process ends: so does the wait.
    let poll = tokio::spawn(
        world
            .router
            .clone()
            .oneshot(Request::get(&uri).body(Body::empty()).unwrap()),
    );
    assert!(
        !world
            .clock
            .run(Duration::from_secs(5), || poll.is_finished())
            .await
    );
    world.stop.cancel();
    assert!(world.clock.run(Duration::ZERO, || poll.is_finished()).await);
    assert_eq!(poll.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_stream_has_cursors_for_ids_resumes_beats_and_ends() {
    let world = World::new();
    let data = "{\n  \"a\": [1.0,\r\n 2]\n}";
    for entity in 0..3 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some(data));
    }
    let mut stream = world.stream("/v1/events", &[]).await;
    assert!(
        stream
            .next()
            .await
            .unwrap()
            .starts_with(": connected\nid: 00000000000000ab.0\n\n")
    );
    let events = sse(&stream.next().await.unwrap());
    assert_eq!(events.len(), 3);
    let event: Value = serde_json::from_str(&events[1].1).unwrap();
    assert_eq!(event["data"], json!({"a": [1.0, 2]}));
    assert_eq!(named(&event).0, "booking/1");

    // Resumed after the second.
    let mut resumed = world
        .stream("/v1/events", &[("last-event-id", &events[1].0)])
        .await;
    resumed.next().await.unwrap();
    assert_eq!(sse(&resumed.next().await.unwrap()), events[2..]);

    // Quiet: a sign of life with the place, after 15 s.
    let quiet = tokio::spawn(async move {
        let beat = resumed.next().await.unwrap();
        (beat, resumed)
    });
    assert!(
        !world
            .clock
            .run(Duration::from_millis(14_999), || quiet.is_finished())
            .await
    );
    assert!(
        world
            .clock
            .run(Duration::from_millis(1), || quiet.is_finished())
            .await
    );
    let (beat, mut resumed) = quiet.await.unwrap();
    assert_eq!(beat, format!(": alive\nid: {}\n\n", events[2].0));

    // An event at once; then the process ends.
    let waiting = tokio::spawn(async move { (resumed.next().await, resumed.next().await) });
    world.clock.run(Duration::ZERO, || false).await;
    world.state.publish("booking/9", None);
    assert!(
        !world
            .clock
            .run(Duration::from_secs(1), || waiting.is_finished())
            .await
    );
    world.stop.cancel();
    assert!(
        world
            .clock
            .run(Duration::ZERO, || waiting.is_finished())
            .await
    );
    let (piece, end) = waiting.await.unwrap();
    let events = sse(&piece.unwrap());
    let removed: Value = serde_json::from_str(&events[0].1).unwrap();
    assert_eq!(removed["type"], "io.redeam.booking.removed");
    assert!(removed.get("data").is_none() && end.is_none());
}

#[tokio::test]
async fn a_slow_stream_holds_a_bounded_piece_and_is_told_when_it_fell_too_far_behind() {
    let world = World::new();
    let large = format!("\"{}\"", "x".repeat(100_000));
    for entity in 0..50 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some(&large));
    }
    let mut stream = world.stream("/v1/events", &[]).await;
    stream.next().await.unwrap();
    let piece = stream.next().await.unwrap();
    assert!(piece.len() < 400_000, "{}", piece.len());
    for entity in 0..50 {
        world.state.publish(&format!("booking/{entity}"), None);
    }
    world.state.forget(100);
    let mut last = String::new();
    while let Some(piece) = stream.next().await {
        last = piece;
    }
    assert!(
        last.starts_with("event: gone\ndata: {\"status\":410,\"code\":\"CursorExpired\""),
        "{last}"
    );
}
