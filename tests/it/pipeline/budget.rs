//! The budget of reads: how many in a second, who goes first, and the provider's word to wait.
//!
//! Oracle: the provider of this test, which notes each read that it gets, and when by its clock.

use std::time::Duration;

use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::clock::UnixMillis;
use bellhop::state::{MarkClass, NewMark};
use tokio::task::JoinSet;

use super::world::{HOUR, SECOND, World};

fn supplier(id: &str) -> EntityKey {
    EntityKey::new(Kind::Supplier, &[id]).unwrap()
}

/// Notifications of as many suppliers, and workers with ten reads a second for them.
async fn busy(entities: u64) -> (World, JoinSet<()>) {
    let world = World::new(&[Kind::Supplier]);
    for number in 0..entities {
        world
            .accept(&supplier(&format!("told-{number}")), number)
            .await;
    }
    world.clock.advance(HOUR);
    let pipeline = world.pipeline(10);
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let pipeline = pipeline.clone();
        tasks.spawn(async move { pipeline.work().await.unwrap() });
    }
    (world, tasks)
}

/// After a pause as well, and whatever the number of workers.
#[tokio::test]
async fn no_second_sees_more_than_the_budget_and_a_tenth() {
    let (world, mut tasks) = busy(60).await;
    while world.provider.log().len() < 60 {
        world
            .pass(Duration::from_millis(20), Duration::from_millis(20))
            .await;
    }
    tasks.shutdown().await;
    let times: Vec<UnixMillis> = world.provider.log().iter().map(|(at, _)| *at).collect();
    let within = |from: UnixMillis| {
        times
            .iter()
            .filter(move |at| **at >= from && at.since(from) < SECOND)
    };
    let most = times.iter().map(|from| within(*from).count()).max();
    assert!(most <= Some(11), "{most:?}: {times:?}");
}

/// One entity's read is told to wait: the limit is the channel's, so nobody asks.
#[tokio::test]
async fn when_one_read_is_told_to_wait_all_wait() {
    let (world, mut tasks) = busy(30).await;
    *world.provider.patience.lock().unwrap() = Some(30 * SECOND);
    let all = || world.provider.log().len() == 31;
    while !all() {
        world
            .pass(Duration::from_millis(50), Duration::from_millis(50))
            .await;
    }
    tasks.shutdown().await;
    let times: Vec<UnixMillis> = world.provider.log().iter().map(|(at, _)| *at).collect();
    let told = times[0];
    // A read that was on its way already comes through.
    let next = times.iter().find(|at| at.since(told) >= SECOND).unwrap();
    let early = times.iter().filter(|at| at.since(told) < SECOND).count();
    assert!(early <= 4, "{times:?}");
    let waited = next.since(told);
    assert!(
        (30 * SECOND..32 * SECOND).contains(&waited),
        "{waited:?}: {times:?}"
    );
}

/// Notifications without end, and a resync that waits for longer: of ten reads it gets one.
#[tokio::test]
async fn notifications_go_first_and_a_tenth_is_left_to_the_resync() {
    let world = World::new(&[Kind::Supplier]);
    let key = |id: String| EntityKey::new(Kind::Supplier, &[id.as_str()]).unwrap();
    let marks = (0..300).map(|number| NewMark {
        key: key(format!("resync-{number}")),
        class: MarkClass::Resync,
        noticed: None,
        urgent: false,
    });
    world.state.mark(marks.collect()).await.unwrap();
    world.clock.advance(HOUR);
    for number in 0..300 {
        let key = key(format!("told-{number}"));
        world.accept(&key, number as u64).await;
    }
    let pipeline = world.pipeline(10);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { pipeline.work().await.unwrap() });
    let read = || world.provider.log().len();
    world.until("a hundred are read", || read() >= 100).await;
    tasks.shutdown().await;
    let log = world.provider.log();
    for (at, ten) in log[..100].chunks(10).enumerate() {
        let resync = ten.iter().filter(|(_, one)| one.starts_with("resync-"));
        assert_eq!(resync.count(), 1, "reads {at}0 to {at}9: {ten:?}");
    }
}
