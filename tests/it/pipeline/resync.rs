//! When the full comparison runs, that it goes on where it was, and what it leaves alone.
//!
//! Oracle: the provider of this test, which notes each read that it gets, and the hours of its clock.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::state::ChangeKind;

use super::world::{HOUR, Run, SECOND, World};

/// A step of time where hours pass and nothing is expected.
const LONG: Duration = Duration::from_mins(5);

/// A world in which the first resync is through, and nothing waits.
async fn settled() -> (World, Run) {
    let world = World::new(&[Kind::Supplier]);
    let run = world.start();
    let state = world.state.clone();
    let read = || world.provider.reads("c") > 0 && state.stats().marks == 0;
    world.until("the first resync is through", read).await;
    assert_eq!(world.resyncs(), 1);
    (world, run)
}

#[tokio::test]
async fn a_short_absence_needs_none_and_a_minute_does() {
    let (world, run) = settled().await;
    world.kill(run).await;
    world.clock.advance(30 * SECOND);
    let run = world.start();
    world.pass(200 * SECOND, SECOND).await;
    assert_eq!(world.resyncs(), 1, "half a minute is what retries are for");
    world.kill(run).await;
    world.clock.advance(61 * SECOND);
    let run = world.start();
    world
        .until("the resync after a minute", || world.resyncs() == 2)
        .await;
    run.kill().await;
}

/// The interval ends during an absence that is too short to call for one.
#[tokio::test]
async fn a_start_when_the_last_one_is_older_than_the_interval() {
    let (world, run) = settled().await;
    let began = world.provider.asked("suppliers").unwrap();
    world.pass_until(began.after(23 * HOUR), LONG).await;
    let end = began.after(24 * HOUR).before(40 * SECOND);
    world.pass_until(end, 5 * SECOND).await;
    assert_eq!(world.resyncs(), 1);
    world.kill(run).await;
    world.clock.advance(35 * SECOND);
    let run = world.start();
    let what = "the one that is due by the interval";
    world.until(what, || world.resyncs() == 2).await;
    run.kill().await;
}

#[tokio::test]
async fn one_in_each_interval() {
    let (world, run) = settled().await;
    for number in 2..=3 {
        let before = world.resyncs();
        world.pass(23 * HOUR, LONG).await;
        assert_eq!((before, world.resyncs()), (number - 1, number - 1));
        world.pass(HOUR, LONG).await;
        let what = "the next one, a day after the one before";
        world.until(what, || world.resyncs() == number).await;
    }
    run.kill().await;
}

/// Killed while the second list is on its way: the first is not read again, although the time that
/// it was down calls for another resync after this one.
#[tokio::test]
async fn an_interrupted_one_goes_on_where_it_was() {
    let world = World::new(&[Kind::Supplier, Kind::Product]);
    *world.provider.hangs.lock().unwrap() = Some("products of b".to_owned());
    let run = world.start();
    let begun = || world.provider.reads("products of b") == 1;
    world.until("the second list is asked for", begun).await;
    assert_eq!(world.provider.reads("products of a"), 1);
    run.kill().await;
    world.clock.advance(10 * SECOND);
    *world.provider.hangs.lock().unwrap() = None;
    let run = world.start();
    let ended = || world.provider.reads("products of c") == 1;
    world.until("the last list is read", ended).await;
    assert_eq!(world.provider.reads("products of a"), 1, "it went on");
    assert_eq!(world.provider.reads("products of b"), 2);
    let all = || world.provider.reads("c/p") > 0 && world.provider.reads("a/p") > 0;
    world.until("what the lists showed is read", all).await;
    run.kill().await;
}

/// Killed while it marks what is known, of which there is more than may wait at once: what was
/// marked and read before is not read again.
#[tokio::test]
async fn one_interrupted_among_what_is_known_goes_on_there() {
    let ids: Vec<String> = (0..2600).map(|number| format!("s{number:04}")).collect();
    let world = World::new(&[Kind::Supplier]);
    (*world.provider.suppliers.lock().unwrap()).clone_from(&ids);
    let run = world.start();
    let state = world.state.clone();
    let settled = || world.provider.reads("s2599") > 0 && state.stats().marks == 0;
    world.until("all are known", settled).await;
    world.kill(run).await;

    world.clock.advance(61 * SECOND);
    let before = world.provider.log().len();
    let run = world.start();
    let waits = || state.stats().resync_marks > 2000;
    world.until("the bound is reached", waits).await;
    run.kill().await;
    assert_eq!(world.resyncs(), 1, "it is still at what is known");
    world.clock.advance(10 * SECOND);
    let run = world.start();
    let ended = || world.resyncs() == 2 && state.stats().marks == 0;
    world.until("it ends", ended).await;
    run.kill().await;
    let mut reads: BTreeMap<String, usize> = BTreeMap::new();
    for (_, what) in &world.provider.log()[before..] {
        *reads.entry(what.clone()).or_default() += 1;
    }
    // Whatever was being read when it was killed is read again: four workers.
    let again = reads.values().filter(|count| **count > 1).count();
    assert!(again <= 4, "{again} were read more than once");
    assert_eq!(
        ids.iter().filter(|id| reads.contains_key(*id)).count(),
        2600
    );
}

/// A list that lacks an entity says nothing: the entity's own answer does.
#[tokio::test]
async fn what_a_list_lacks_is_asked_for_and_stays() {
    let (world, run) = settled().await;
    world.kill(run).await;
    world.provider.suppliers.lock().unwrap().pop();
    world.clock.advance(61 * SECOND);
    let run = world.start();
    let state = world.state.clone();
    let ended = || world.resyncs() == 2 && state.stats().marks == 0;
    world.until("the second one", ended).await;
    assert_eq!(world.provider.reads("c"), 2);
    let key = EntityKey::new(Kind::Supplier, &["c"]).unwrap();
    let newest = state.entity(&key).await.unwrap().unwrap();
    assert_ne!(newest.change, ChangeKind::Removed);
    run.kill().await;
}

/// No list shows bookings: those that consumers have are read.
#[tokio::test]
async fn known_bookings_are_read_again() {
    let world = World::new(&[Kind::Booking]);
    let run = world.start();
    let key = EntityKey::new(Kind::Booking, &["x1"]).unwrap();
    world.accept(&key, 1).await;
    let state = world.state.clone();
    let read = || world.provider.reads("booking x1") > 0 && state.stats().marks == 0;
    world.until("it is known", read).await;
    let before = world.provider.reads("booking x1");
    world.kill(run).await;
    world.clock.advance(61 * SECOND);
    let run = world.start();
    let again = || world.provider.reads("booking x1") > before;
    world.until("the resync reads it", again).await;
    run.kill().await;
}
