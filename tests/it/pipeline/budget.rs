//! The budget of reads: how many in a second, who goes first, and the provider's word to wait.
//!
//! Oracle: the provider of this test, which notes each read that it gets, and when by its clock.

use std::time::Duration;

use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::clock::UnixMillis;
use bellhop::state::{MarkClass, NewMark};

use super::world::{HOUR, Run, SECOND, World};

fn supplier(id: &str) -> EntityKey {
    EntityKey::new(Kind::Supplier, &[id]).unwrap()
}

/// Notifications of as many suppliers, and workers with ten reads a second for them.
async fn busy(entities: u64) -> (World, Run) {
    let world = World::new(&[Kind::Supplier]);
    for number in 0..entities {
        world
            .accept(&supplier(&format!("told-{number}")), number)
            .await;
    }
    world.clock.advance(HOUR);
    let run = Run::of(&world.pipeline(10), 4);
    (world, run)
}

/// After a pause as well, and whatever the number of workers.
#[tokio::test]
async fn no_second_sees_more_than_the_budget_and_a_tenth() {
    let (world, run) = busy(60).await;
    let all = || world.provider.log().len() >= 60;
    let step = Duration::from_millis(20);
    world.until_by(step, "all are read", all).await;
    run.kill().await;
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
    let (world, run) = busy(30).await;
    *world.provider.patience.lock().unwrap() = Some(30 * SECOND);
    let all = || world.provider.log().len() == 31;
    let step = Duration::from_millis(50);
    world.until_by(step, "all are read", all).await;
    run.kill().await;
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
    let marks = (0..300).map(|number| NewMark {
        key: supplier(&format!("resync-{number}")),
        class: MarkClass::Resync,
        noticed: None,
        urgent: false,
    });
    world.state.mark(marks.collect()).await.unwrap();
    world.clock.advance(HOUR);
    for number in 0..300 {
        let key = supplier(&format!("told-{number}"));
        world.accept(&key, number).await;
    }
    let run = Run::of(&world.pipeline(10), 1);
    let read = || world.provider.log().len();
    world.until("a hundred are read", || read() >= 100).await;
    run.kill().await;
    let log = world.provider.log();
    for (at, ten) in log[..100].chunks(10).enumerate() {
        let resync = ten.iter().filter(|(_, one)| one.starts_with("resync-"));
        assert_eq!(resync.count(), 1, "reads {at}0 to {at}9: {ten:?}");
    }
}
