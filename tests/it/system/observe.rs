//! What a running process tells: logs and metrics. Oracles: `serde_json` reads each line, promtool
//! all metrics; names and labels are spelled out from the design.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::rig::{ALL, Consumer, Finished, World, eventually, provider};
use crate::process;

/// Well and at work, it is quiet: what it says in a second life, with the rules in place and a
/// hundred changes coming in, fits on one screen; each line is JSON with the usual fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_json_and_quiet() {
    let world = World::new(provider()).await;
    let program = world.start(ALL).await;
    program.settled().await;
    program.stop().await;
    let program = world.start(ALL).await;
    program.settled().await;
    for _ in 0..25 {
        for rate in world.keys("rate/") {
            world.change(&rate);
        }
    }
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let log = program.stop().await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
        assert!(line["level"] == "INFO", "{line}");
    }
    assert!(lines.len() <= 15, "{} lines: {log}", lines.len());
}

/// Unless JSON is asked for, a line is for people: when, how bad, what; nothing that only a terminal
/// understands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_text_unless_json_is_asked_for() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    program.stop().await;
    let simulator = &world.simulator;
    let mut command = process::run(
        &world.manifest_file(),
        &world.data_dir(),
        (&simulator.registry_url(), &simulator.api_url()),
        process::FREE,
    );
    command.arg("--deregister");
    let ended = Finished::of(command);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("registration step"), "{}", ended.err);
    for line in ended.err.lines() {
        let mut words = line.split_whitespace();
        let time: Result<jiff::Timestamp, _> = words.next().unwrap_or_default().parse();
        assert!(time.is_ok(), "{line}");
        assert_eq!(words.next(), Some("INFO"), "{line}");
        assert!(words.next().is_some(), "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_cover_each_stage_with_bounded_labels() {
    let world = World::new(provider()).await;
    let sink = "sinks:\n  - name: nowhere\n    http: { uri: \"http://127.0.0.1:1/events\" }";
    let program = world.start(sink).await;
    program.settled().await;
    let mut consumer = Consumer::default();
    let labels = |metrics: &BTreeMap<String, f64>| -> BTreeSet<String> {
        let outside = metrics.keys().filter(|name| !name.contains("le=\""));
        outside.cloned().collect()
    };
    for rate in world.keys("rate/") {
        world.change(&rate);
    }
    world.equal(&program, &mut consumer).await;
    let first = program.metrics().await;
    let stages = [
        "bellhop_receiver_requests_total{",
        "bellhop_receiver_notifications_total{",
        "bellhop_receiver_request_duration_seconds_bucket{",
        "bellhop_receiver_in_flight_requests",
        "bellhop_store_commit_seconds_bucket{",
        "bellhop_store_used_bytes",
        "bellhop_store_marks",
        "bellhop_store_live_entities",
        "bellhop_store_dead_letters{",
        "bellhop_store_oldest_mark_age_seconds",
        "bellhop_pipeline_fetches_total{",
        "bellhop_pipeline_work_seconds_bucket{",
        "bellhop_pipeline_commit_lag_seconds_bucket{",
        "bellhop_provider_requests_total{",
        "bellhop_provider_request_duration_seconds_bucket{",
        "bellhop_registration_rules{",
        "bellhop_registration_passes_total",
        "bellhop_sink_deliveries_total{",
        "bellhop_sink_breaker_open{",
        "bellhop_sink_behind_events{",
        "bellhop_feed_requests_total{",
        "bellhop_feed_watchers",
    ];
    let missing: Vec<&str> = stages
        .into_iter()
        .filter(|stage| !first.keys().any(|name| name.starts_with(stage)))
        .collect();
    assert!(
        missing.is_empty(),
        "{missing:?} are not in {:#?}",
        labels(&first)
    );
    // More entities, more and odd requests: no new series, and no identifier in any.
    let http = super::rig::http();
    for path in [
        "/redeam/booking",
        "/MARKER",
        "/redeam/MARKER/booking?MARKER=1",
    ] {
        for body in ["MARKER", "{\"bookingID\":\"MARKER\"}"] {
            let url = format!("http://{}{path}", program.public);
            let _ = http.post(url).body(body).send().await;
        }
    }
    for url in [
        "/v1/entities/MARKER",
        "/v1/MARKER",
        "/v1/events?after=MARKER",
    ] {
        let _ = program.get(&format!("http://{}{url}", program.feed)).await;
    }
    let everything = format!("http://{}/metrics", program.admin);
    crate::promtool::check(&program.get(&everything).await.unwrap().1);
    let warm = labels(&program.metrics().await);
    let supplier = world.keys("supplier/")[0].replace("supplier/", "");
    for number in 0..20 {
        let key = format!("product/{supplier}/MARKER{number}");
        world
            .control
            .create(&key, serde_json::Map::new(), Some(2), true)
            .unwrap();
    }
    for rate in world.keys("rate/") {
        world.change(&rate);
    }
    world.equal(&program, &mut consumer).await;
    let after = labels(&program.metrics().await);
    let new: Vec<&String> = after.difference(&warm).collect();
    assert!(new.is_empty(), "{new:?}");
    for name in &after {
        assert!(
            !name.contains("MARKER") && !name.contains(&supplier),
            "{name}"
        );
        assert!(name.starts_with("bellhop_"), "{name}");
    }
    program.stop().await;
}

/// The backlog shows: how many marks wait, and how old the oldest is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_shows_with_its_age() {
    let world = World::new(provider()).await;
    let program = world.start("").await;
    program.settled().await;
    world.faults(serde_json::json!({ "hang": 1.0, "on": "reseller" }));
    for rate in world.keys("rate/") {
        world.change(&rate);
    }
    eventually("the backlog is told", async || {
        let metrics = program.metrics().await;
        let age = metrics["bellhop_store_oldest_mark_age_seconds"];
        (metrics["bellhop_store_marks"] >= 4.0 && age >= 1.0).then_some(())
    })
    .await;
    let status = program.status().await;
    assert_eq!(status["backlog"], "1+");
    assert!(status["lastNotificationTime"].is_string());
    assert!(status["store"]["oldestMark"].is_string());
}
