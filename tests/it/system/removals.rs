//! The removal guard of a whole program: what it holds back is shown, survives a restart, and goes
//! through when a person says so. Oracle: the simulator's truth and the events of a consumer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rig::{Consumer, LONG, Program, World, eventually, provider};
use bellhop::simulator::Config;

/// How many removals are let through where few entities are known.
const ALLOWED: usize = 20;

/// No call lists bookings, and no notification says that one is gone: two reads must agree.
const SPEC: &str = "fetch: { requestsPerSecond: 500, minInterval: 50ms, removalConfirmation: 1s }";

/// The bookings that the consumer saw removed.
async fn removed(program: &Program, consumer: &mut Consumer) -> usize {
    consumer.catch_up(program).await;
    let gone = consumer.held.values().filter(|(_, data)| data.is_none());
    gone.count()
}

async fn until_removed(program: &Program, consumer: &mut Consumer, count: usize) {
    eventually("as many as allowed are removed", async || {
        (removed(program, consumer).await >= count).then_some(())
    })
    .await;
}

async fn held(program: &Program, query: &str) -> Value {
    let url = format!("http://{}/removals{query}", program.admin);
    let (status, text) = program.get(&url).await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn until_held(program: &Program, count: usize) -> Vec<String> {
    let mut items = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        let page = held(program, "").await;
        items.clone_from(page["items"].as_array().unwrap());
        // Each has settled, so what is held back is noted.
        let at_rest = program.status().await["store"]["claims"] == 0;
        if items.len() == count && at_rest {
            let text = |entity: &Value| entity.as_str().unwrap().to_owned();
            return items.iter().map(text).collect();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{items:?} are held back, not {count}\n{}", program.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guard_holds_across_kills_until_a_person_confirms() {
    let world = World::new(Config {
        bookings: 30,
        ..provider()
    })
    .await;
    let program = world.start(SPEC).await;
    program.settled().await;
    let bookings = world.keys("booking/");
    program.refresh(&bookings).await;
    let mut consumer = Consumer::default();
    eventually("all bookings are known", async || {
        consumer.catch_up(&program).await;
        bookings
            .iter()
            .all(|key| consumer.data(key).is_some())
            .then_some(())
    })
    .await;
    let (first, rest) = bookings.split_at(15);
    for booking in first {
        world.control.remove(booking, true).unwrap();
    }
    until_removed(&program, &mut consumer, first.len()).await;
    drop(program);

    // What went before the kill counts.
    let program = world.start(SPEC).await;
    for booking in rest {
        world.control.remove(booking, true).unwrap();
    }
    let over = bookings.len() - ALLOWED;
    let entities = until_held(&program, over).await;
    until_removed(&program, &mut consumer, ALLOWED).await;
    assert!(entities.iter().all(|key| rest.contains(key)));
    drop(program);

    let program = world.start(SPEC).await;
    assert_eq!(until_held(&program, over).await, entities);
    program
        .until_condition("Delivering", "False", "RemovalGuard")
        .await;
    let told = program.log();
    assert!(told.contains("POST /removals/confirm"), "{told}");
    assert_eq!(program.status().await["pipeline"]["removalsHeld"], over);
    assert_eq!(program.metric("bellhop_pipeline_removals_held").await, 10);
    let page = held(&program, "?limit=4").await;
    assert_eq!(page["items"], json!(entities[..4]));
    assert_eq!(page["continue"], entities[3].as_str());
    let page = held(&program, &format!("?after={}", entities[3])).await;
    assert_eq!(
        (&page["items"], &page["continue"]),
        (&json!(entities[4..]), &Value::Null)
    );
    let url = format!("http://{}/removals?after=nothing", program.admin);
    assert_eq!(program.get(&url).await.unwrap().0, 400);
    assert_eq!(removed(&program, &mut consumer).await, ALLOWED);

    let (status, answer) = program.post("/removals/confirm").await;
    assert_eq!(
        (status.as_u16(), answer),
        (202, json!({ "confirmed": over }))
    );
    until_removed(&program, &mut consumer, bookings.len()).await;
    program
        .until_condition("Delivering", "True", "DeliveryOk")
        .await;
    assert_eq!(held(&program, "").await["items"], json!([]));
    program.stop().await;
}
