//! A signing key that changes at the provider, under a running program that nobody tells. Oracle:
//! the simulator's truth, and its record of what each attempt was answered.

use std::time::Duration;

use bellhop::simulator::{Config, Kind, Origin};

use super::rig::{Consumer, World, provider};

/// The first notification with the new key finds it unknown: 503 while the registry is asked, 200
/// when it comes again. What changed in silence meanwhile is found, since the type is read anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_rotated_at_the_provider_is_learned_and_the_type_read_anew() {
    let world = World::new(Config {
        retry_delays: [500, 2000, 5000].map(Duration::from_millis).to_vec(),
        ..provider()
    })
    .await;
    let program = world.start("").await;
    program.settled().await;
    let mut consumer = Consumer::default();
    world.equal(&program, &mut consumer).await;
    let rates = world.keys("rate/");
    let (silent, told) = (&rates[0], &rates[1]);
    let change = |key: &str, notify: bool| {
        let any = serde_json::Map::new();
        world.control.change(key, &any, notify).unwrap().deliveries
    };

    world.control.rotate_key(Kind::Rate).unwrap();
    assert!(change(silent, false).is_empty());
    let made = change(told, true);
    world.equal(&program, &mut consumer).await;

    assert!(world.control.idle(super::rig::LONG).await);
    let mut deliveries = world.control.deliveries(0, usize::MAX);
    deliveries.retain(|one| made.contains(&one.id));
    let [delivery] = &deliveries[..] else {
        panic!("{deliveries:?}");
    };
    assert_eq!(delivery.origin, Origin::Change);
    let delivery = serde_json::to_value(delivery).unwrap();
    let statuses: Vec<_> = delivery["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["status"].as_u64().unwrap())
        .collect();
    let (last, earlier) = statuses.split_last().unwrap();
    assert_eq!(*last, 200, "{statuses:?}");
    assert!(!earlier.is_empty(), "the new key was known at once");
    assert!(earlier.iter().all(|one| *one == 503), "{statuses:?}");
    program.stop().await;
}
