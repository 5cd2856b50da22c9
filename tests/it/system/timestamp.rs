//! A `timestamp` at the top of a notification's body: not signed, and nobody knows what it means.
//! Oracle: the simulator's truth and the bodies that it sent.

use serde_json::{Map, Value, json};

use super::rig::{Consumer, Program, World, provider};

/// The debug log shows it, and neither what is fetched nor what is published depends on it: each
/// notification leads to an event that carries the signed time, however odd the other one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_at_the_top_is_shown_and_never_used() {
    let world = World::new(provider()).await;
    let program = world
        .start_with("", |command| {
            command.args(["--log", "info,bellhop::receiver=debug"]);
        })
        .await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let rate = world.keys("rate/")[0].clone();
    for (value, shown) in [
        // Long ago and far ahead: used, they were stale or too far from the present.
        (json!(1), Some(1)),
        (json!(4_102_444_800_u64), Some(4_102_444_800_u64)),
        (json!("2099-01-01T00:00:00Z"), Some(4_070_908_800)),
        // What is no time is none of a log's business.
        (json!("MARKER"), None),
        (json!({ "MARKER": 1 }), None),
    ] {
        world.control.change(&rate, &Map::new(), false).unwrap();
        let notification = json!({ "entity": rate, "fields": { "timestamp": value } });
        let notification = serde_json::from_value(notification).unwrap();
        let id = world.control.notify(&notification).unwrap()[0];
        world.equal(&program, &mut consumer).await;
        let sent = world.control.deliveries(id - 1, 1).remove(0);
        let sent: Value = serde_json::from_str(&sent.body).unwrap();
        assert_eq!(sent["timestamp"], value);
        assert_eq!(
            notified(&program, &rate).await,
            sent["signature"]["timestamp"]
        );
        let lines = program.log();
        let mut told = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let at = told
            .rfind(|line| {
                let message = line["message"].as_str().unwrap();
                message.contains("timestamp at the top")
            })
            .map(|line| line["at"].clone());
        if let Some(shown) = shown {
            assert_eq!(at, Some(shown.into()), "{value}");
        }
        assert!(!lines.contains("MARKER"), "{lines}");
    }
    program.stop().await;
}

/// `notifiedtime` of an entity's newest event, in Unix seconds.
async fn notified(program: &Program, key: &str) -> Value {
    let url = format!("http://{}/v1/entities/{key}", program.feed);
    let event: Value = serde_json::from_str(&program.get(&url).await.unwrap().1).unwrap();
    let time: jiff::Timestamp = event["notifiedtime"].as_str().unwrap().parse().unwrap();
    time.as_second().into()
}
