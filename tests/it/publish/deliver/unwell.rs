//! Sinks that hang, are not well, refuse or choke; nothing of it holds up another.

use super::*;

#[tokio::test]
async fn a_sink_that_hangs_holds_up_no_other() {
    let world = World::new();
    let hung = world.start(&settings("hung", 10), |_, _| Answer::Never);
    let fine = world.start(&settings("fine", 10), |_, _| yes());
    for entity in 0..600 {
        world
            .state
            .publish(&format!("booking/{entity}"), Some("{}"));
    }
    world.until(5, || world.cursor("fine") == 600).await;
    world.pass(600).await;
    assert_eq!(world.cursor("hung"), 0);
    let status = hung.status.borrow().clone();
    assert!(!status.well && status.behind == 600, "{status:?}");
    assert_eq!(status.last_error, Some(Class::Timeout));
    assert!(world.state.lock().buried.is_empty());
    assert!(fine.status.borrow().well);
    hung.end(&world).await;
    fine.end(&world).await;
}

#[tokio::test]
async fn a_sink_that_is_not_well_is_probed_and_nothing_is_buried() {
    let world = World::new();
    let well_at = Ticks(3_600_000);
    let clock = world.clock.clone();
    // `retry: 0`: had these attempts counted, every event would be a dead letter.
    let run = world.start(&settings("a", 0), move |event, _| match clock.ticks() {
        now if now >= well_at => yes(),
        _ if event.sequence % 2 == 0 => not_well(Class::ServerError),
        _ => not_well(Class::Connection),
    });
    for round in 0..3 {
        for entity in 0..200 {
            let data = format!("{{\"round\":{round}}}");
            world
                .state
                .publish(&format!("booking/{entity}"), Some(&data));
        }
    }
    world.pass(1800).await;
    let first_half: Vec<Ticks> = {
        let tried = run.sink.tried.lock().unwrap();
        tried.iter().map(|(_, at)| *at).collect()
    };
    // 16 were on their way when it began; then 1, 2, 4 … 60 s apart, and never slower.
    assert!(
        first_half.len() < 60,
        "{} attempts in half an hour",
        first_half.len()
    );
    let gaps = first_half.windows(2).map(|pair| pair[1].since(pair[0]));
    assert!(gaps.max().unwrap() <= Duration::from_mins(1));
    assert!(!run.status.borrow().well);
    assert!(
        world
            .metrics
            .encode()
            .contains("bellhop_sink_breaker_open{sink=\"a\"} 1")
    );
    assert_eq!(world.state.position("a"), SinkPosition::default());

    world.until(2000, || run.sink.count() == 600).await;
    assert!(world.clock.ticks().since(well_at) <= Duration::from_secs(62));
    world.until(1, || world.cursor("a") == 600).await;
    run.sink.assert_in_order();
    assert!(world.state.lock().buried.is_empty());
    assert!(world.state.position("a").parked.is_empty());
    assert!(run.status.borrow().well);
    run.end(&world).await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let world = World::new();
    let run = world.start(&settings("a", 3), |_, before| match before {
        0 => Answer::Now(Verdict::NotWell {
            class: Class::Throttled,
            retry_after: Some(Duration::from_mins(5)),
        }),
        _ => yes(),
    });
    world.state.publish("booking/1", Some("{}"));
    world.pass(1).await;
    world.state.publish("booking/2", Some("{}"));
    world.pass(298).await;
    assert_eq!(run.sink.tried.lock().unwrap().len(), 1);
    world.until(400, || run.sink.count() == 2).await;
    run.end(&world).await;
}

#[tokio::test]
async fn a_refused_event_is_a_dead_letter_and_the_next_revision_resolves_it() {
    let world = World::new();
    let run = world.start(&settings("a", 10), |event, _| match &event.data {
        Some(data) if data == b"\"bad\"" => Answer::Now(Verdict::Refused {
            class: Class::Rejected,
            reason: "the sink answered 422".into(),
        }),
        _ => yes(),
    });
    let bad = world.state.publish("booking/1", Some("\"bad\""));
    world.state.publish("booking/2", Some("{}"));
    let good = world.state.publish("booking/1", Some("{}"));
    world.until(5, || world.cursor("a") == 3).await;
    {
        let inner = world.state.lock();
        let [(sink, letter, reason)] = &inner.buried[..] else {
            panic!("{:?}", inner.buried);
        };
        assert_eq!((sink.as_str(), letter.sequence), ("a", bad.sequence));
        assert!(reason.contains("422"));
        assert!(inner.delivered.contains(&(good.key.clone(), good.revision)));
    }
    assert_eq!(run.status.borrow().dead_letters, 1);
    run.end(&world).await;
}

#[tokio::test]
async fn attempts_used_up_while_the_sink_is_well_make_a_dead_letter() {
    let world = World::new();
    let run = world.start(&settings("a", 3), |event, _| match event.key.as_str() {
        "booking/stuck" => failed(),
        _ => yes(),
    });
    world.state.publish("booking/stuck", Some("1"));
    world
        .until(60, || !world.state.lock().buried.is_empty())
        .await;
    let attempts = run.sink.attempts("booking/stuck");
    assert_eq!(attempts.len(), 4, "one and three retries");
    // 1, 2, 4 s, give or take a fifth.
    for (pair, expected) in attempts.windows(2).zip([1.0, 2.0, 4.0]) {
        let gap = pair[1].since(pair[0]).as_secs_f64();
        assert!((gap - expected).abs() <= 0.21 * expected, "{attempts:?}");
    }
    assert_eq!(world.state.lock().buried[0].1.attempts, 4);
    assert!(run.status.borrow().well, "the sink itself is well");
    run.end(&world).await;
}

#[tokio::test]
async fn a_stuck_entity_is_parked_blocks_nobody_and_is_not_overtaken() {
    let world = World::new();
    let heals = Ticks(400_000);
    let script = |clock: Arc<TestClock>| {
        move |event: &StoredEvent, _| match event.key.as_str() {
            "booking/stuck" if clock.ticks() < heals => failed(),
            _ => yes(),
        }
    };
    let run = world.start(&settings("a", 100), script(world.clock.clone()));
    let stuck = world.state.publish("booking/stuck", Some("1"));
    for round in 0..5 {
        for entity in 0..200 {
            world
                .state
                .publish(&format!("booking/{entity}"), Some("{}"));
        }
        world
            .state
            .publish("booking/stuck", Some(&format!("{round}")));
        world.pass(2).await;
    }
    world.until(10, || run.sink.count() == 1000).await;
    world.until(1, || world.cursor("a") == 1006).await;
    let parked = world.state.position("a").parked;
    assert_eq!(parked.len(), 6, "{parked:?}");
    assert_eq!(parked[0].sequence, stuck.sequence);
    assert!(parked[0].attempts >= 3, "durable attempts: {parked:?}");
    run.task.abort();

    // After a crash: still parked, still first, still in order.
    let run = world.start(&settings("a", 100), script(world.clock.clone()));
    world.state.publish("booking/stuck", Some("newest"));
    world
        .until(1200, || world.state.position("a").parked.is_empty())
        .await;
    world.until(10, || run.sink.count() == 7).await;
    run.sink.assert_in_order();
    assert_eq!(run.sink.took.lock().unwrap()[0].sequence, stuck.sequence);
    run.end(&world).await;
}

#[tokio::test]
async fn an_event_that_a_sink_chokes_on_neither_blocks_others_nor_lasts_for_ever() {
    let world = World::new();
    let run = world.start(&settings("a", 3), |event, _| match event.key.as_str() {
        "booking/poison" => not_well(Class::ServerError),
        _ => yes(),
    });
    world.state.publish("booking/poison", Some("1"));
    for entity in 0..400_u64 {
        let at = world.clock.ticks();
        let before = run.sink.count();
        world
            .state
            .publish(&format!("booking/{entity}"), Some("{}"));
        world.until(5, || run.sink.count() == before + 1).await;
        let took = world.clock.ticks().since(at);
        assert!(
            took <= Duration::from_millis(50),
            "{entity} waited {took:?}"
        );
        world.pass(1).await;
    }
    let buried = world.state.lock().buried.clone();
    assert_eq!(buried.len(), 1, "{buried:?}");
    assert_eq!(buried[0].1.key.as_str(), "booking/poison");
    run.end(&world).await;
}
