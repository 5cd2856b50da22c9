//! Who may ask, for what, how many at once, and what a refresh does.

use super::*;

#[tokio::test]
async fn bad_parameters_are_named() {
    let world = World::new();
    let cases = [
        ("/v1/events?after=x", "after"),
        ("/v1/events?after=", "after"),
        ("/v1/events?wait=30", "wait"),
        ("/v1/events?wait=61s", "wait"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?limit=1001", "limit"),
        ("/v1/events?limit=%2B1", "limit"),
        ("/v1/events?limit=1&limit=2", "limit"),
        ("/v1/events?type=booking", "type"),
        ("/v1/entities?type=Booking", "type"),
        ("/v1/entities?continue=zz", "continue"),
        ("/v1/entities?after=x", "after"),
        ("/v1/entities/booking/1?x=1", "x"),
        ("/v1/events?%ff=1", "query"),
    ];
    for (uri, name) in cases {
        let reply = world.get(uri).await;
        assert_eq!(reply.problem(), (400, "BadParameter".into()), "{uri}");
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with(&format!("{name}: ")),
            "{uri}: {message}"
        );
    }
    assert_eq!(world.get("/v2").await.problem(), (404, "NoSuchPath".into()));
    let post = Request::post("/v1/events").body(Body::empty()).unwrap();
    assert_eq!(
        world.send(post).await.problem(),
        (405, "WrongMethod".into())
    );
}

#[tokio::test]
async fn the_token_is_asked_for_everywhere_and_follows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the-first-token-0001\n").unwrap();
    let settings = FeedSettings {
        token_file: Some(file.clone()),
    };
    let world = World::with(settings, FeedLimits::default());
    let ask = async |given: Option<&str>, uri: &str| {
        let mut request = Request::get(uri);
        if let Some(given) = given {
            request = request.header("authorization", given);
        }
        world.send(request.body(Body::empty()).unwrap()).await
    };
    for uri in ["/v1/entities", "/v1/events", "/nowhere"] {
        let reply = ask(None, uri).await;
        assert_eq!(reply.problem(), (401, "NoToken".into()));
        assert_eq!(
            reply.header("www-authenticate"),
            "Bearer realm=\"bellhop feed\""
        );
    }
    for wrong in [
        "Bearer the-first-token-0002",
        "Bearer",
        "Basic the-first-token-0001",
        "Bearer ",
    ] {
        let reply = ask(Some(wrong), "/v1/entities").await;
        assert_eq!(reply.problem(), (401, "WrongToken".into()), "{wrong}");
        assert!(reply.header("www-authenticate").contains("invalid_token"));
    }
    assert_eq!(
        ask(Some("bearer the-first-token-0001"), "/v1/entities")
            .await
            .status,
        200
    );

    // Another token: the old one is refused, and a stream that was let in with it ends.
    let first = [("authorization", "Bearer the-first-token-0001")];
    let mut stream = world.stream("/v1/events", &first).await;
    stream.next().await.unwrap();
    std::fs::write(&file, "the-second-token-00002\n").unwrap();
    world.clock.run(Duration::from_secs(2), || false).await;
    assert_eq!(
        ask(Some("Bearer the-first-token-0001"), "/v1/entities")
            .await
            .status,
        401
    );
    assert_eq!(
        ask(Some("Bearer the-second-token-00002"), "/v1/entities")
            .await
            .status,
        200
    );
    assert_eq!(stream.next().await, None);

    // An empty or missing file lets nobody in without a token.
    std::fs::write(&file, "").unwrap();
    world.clock.run(Duration::from_secs(2), || false).await;
    assert_eq!(ask(Some("Bearer "), "/v1/entities").await.status, 401);
    assert_eq!(
        ask(Some("Bearer the-second-token-00002"), "/v1/entities")
            .await
            .status,
        200
    );
    let settings = FeedSettings {
        token_file: Some(file),
    };
    let state = Arc::new(Memory::new());
    let feed = Feed::new(
        &settings,
        origin(&state),
        state.clone(),
        Arc::<TestClock>::default(),
        FeedLimits::default(),
        &Metrics::new(),
        CancellationToken::new(),
    );
    assert!(feed.is_err_and(|error| error.to_string().contains("holds no token")));
}

#[tokio::test]
async fn the_number_of_watchers_is_bounded_and_who_hangs_makes_room() {
    let limits = FeedLimits {
        watchers: 2,
        ..FeedLimits::default()
    };
    let world = World::with(FeedSettings { token_file: None }, limits);
    let mut hangs = world.stream("/v1/events", &[]).await;
    let second = world.stream("/v1/events", &[]).await;
    let stream = || Request::get("/v1/events").header("accept", "text/event-stream");
    let third = world.send(stream().body(Body::empty()).unwrap()).await;
    assert_eq!(third.problem(), (429, "TooMany".into()));
    assert_eq!(third.header("retry-after"), "5");
    assert_eq!(
        world.get("/v1/events?wait=1s").await.problem(),
        (429, "TooMany".into())
    );
    assert_eq!(
        world.get("/v1/events").await.status,
        200,
        "who does not wait needs no place"
    );
    drop(second);
    let _second = world.stream("/v1/events", &[]).await;
    assert!(world.metrics.encode().contains("bellhop_feed_watchers 2"));
    // A minute without reading.
    world.clock.run(Duration::from_secs(61), || false).await;
    let _third = world.stream("/v1/events", &[]).await;
    hangs.next().await.unwrap();
    assert_eq!(hangs.next().await, None);
}

#[tokio::test]
async fn a_refresh_marks_what_can_be_marked_and_says_what_cannot() {
    let world = World::new();
    let post = async |body: String| {
        world
            .send(Request::post("/v1/refresh").body(Body::from(body)).unwrap())
            .await
    };
    let keys = [
        "booking/b1",
        "shop/x",
        "rate/s/p/r",
        "booking/b1",
        "booking/..",
    ];
    let reply = post(json!({ "entities": keys }).to_string()).await;
    assert_eq!(reply.status, 202);
    let answer = reply.json();
    assert_eq!(answer["accepted"], json!(["booking/b1", "rate/s/p/r"]));
    let refused: Vec<_> = answer["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["entity"].as_str().unwrap(),
                one["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        refused,
        [("shop/x", "NoEntityKey"), ("booking/..", "NoEntityKey")]
    );
    let marked: Vec<_> = world
        .state
        .lock()
        .marks
        .iter()
        .map(|mark| (mark.key.to_string(), mark.class))
        .collect();
    let class = MarkClass::Notification;
    assert_eq!(
        marked,
        [("booking/b1".into(), class), ("rate/s/p/r".into(), class)]
    );

    assert_eq!(
        post(json!({ "entities": ["x"] }).to_string()).await.status,
        400
    );
    let bad = [
        String::new(),
        "[]".into(),
        json!({"entities": []}).to_string(),
        json!({"keys": ["booking/1"]}).to_string(),
        json!({"entities": vec!["booking/1"; 101]}).to_string(),
    ];
    for body in bad {
        assert_eq!(
            post(body.clone()).await.problem(),
            (400, "BadParameter".into()),
            "{body}"
        );
    }
    let large = post(json!({"entities": ["x".repeat(70_000)]}).to_string()).await;
    assert_eq!(large.problem(), (413, "BadBody".into()));

    // 500 at once, 20 a second after that.
    let hundred = |round: usize| {
        let keys: Vec<_> = (0..100).map(|at| format!("booking/{round}-{at}")).collect();
        json!({ "entities": keys }).to_string()
    };
    let mut accepted = 2;
    for round in 0..6 {
        let reply = post(hundred(round)).await;
        if reply.status == 202 {
            accepted += reply.json()["accepted"].as_array().unwrap().len();
        } else {
            assert_eq!(reply.problem(), (429, "TooMany".into()));
        }
    }
    assert_eq!(accepted, 500);
    world.clock.run(Duration::from_secs(2), || false).await;
    let reply = post(hundred(9)).await.json();
    assert_eq!(reply["accepted"].as_array().unwrap().len(), 40);
    assert_eq!(reply["refused"][0]["code"], "TooMany");
}
