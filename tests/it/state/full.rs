//! The quota: what a full store refuses, and what it goes on doing.
//!
//! Oracle: the contract's point 8, and counting.

use std::time::Duration;

use bellhop::clock::Clock;
use bellhop::state::embedded::{Options, Store};
use bellhop::state::{
    Accepted, MarkClass, Notification, Parked, Settled, Settlement, SinkCommit, StateError,
};

use super::embedded::{accept, claim, driven, of_size, put};
use super::{ManualClock, booking, notification, publish, unchanged};

#[test]
fn a_full_store_refuses_to_publish_and_still_accepts() {
    let (clock, mut store) = of_size(32 << 20);
    let body = "x".repeat(500_000);
    let mut refused = None;
    for n in 0..200 {
        let n_ = notification(&booking(&n.to_string()), n, clock.now());
        let accepted = accept(&mut store, &clock, &[n_]);
        assert_eq!(accepted, [Accepted::Marked]);
        let Some(claim) = store.claim(MarkClass::Notification, clock.ticks()).unwrap() else {
            continue;
        };
        let settled = store.settle(&claim, &publish(&*clock, &body), clock.now(), clock.ticks());
        if let Err(error) = settled {
            assert!(matches!(error, StateError::Full(_)), "{error}");
            refused = Some(claim);
            break;
        }
    }
    let claim = refused.expect("the quota is finite");
    // The claim is still good, and what only consumes it goes through.
    let settled = store
        .settle(&claim, &unchanged(&*clock), clock.now(), clock.ticks())
        .unwrap();
    assert_eq!(settled, Settled::Committed(None));
    // The reserve takes many notifications, until it is really full; then nothing is lost.
    let mut accepted = 0_u64;
    let error = loop {
        let batch: Vec<_> = (0..500)
            .map(|n| {
                let n = accepted + n + 1000;
                notification(&booking(&n.to_string()), n, clock.now())
            })
            .collect();
        match store.accept_batch(&batch, clock.now(), clock.ticks()) {
            Ok(_) => accepted += 500,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StateError::Full(_)), "{error}");
    assert!(accepted > 10_000, "{accepted}");
    store.verify().unwrap();
    let marks = store.stats().marks;
    assert!(marks >= accepted, "{marks} of {accepted}");
}

/// What the pipeline settles for an entity that has not changed always carries its note.
#[test]
fn a_full_store_still_clears_the_marks_of_what_has_not_changed() {
    let (clock, mut store) = of_size(32 << 20);
    let noted = |settlement: Settlement, memo: &str| Settlement {
        memo: Some(memo.as_bytes().to_vec()),
        ..settlement
    };
    let first = noted(publish(&*clock, "1"), "retrieved 1");
    put(&mut store, &clock, "kept", 0, &first);
    fill(&mut store, &clock);
    for (sum, memo) in [(1, "retrieved 1"), (2, "retrieved 2"), (3, "none")] {
        put(
            &mut store,
            &clock,
            "kept",
            sum,
            &noted(unchanged(&*clock), memo),
        );
    }
    let marks = store.stats().marks;
    let n = notification(&booking("kept"), 4, clock.now());
    accept(&mut store, &clock, &[n]);
    clock.advance(Duration::from_secs(2));
    let claim = claim(&mut store, &clock);
    let longer = noted(unchanged(&*clock), "retrieved 1, and first of two signals");
    let refused = store.settle(&claim, &longer, clock.now(), clock.ticks());
    assert!(matches!(refused, Err(StateError::Full(_))), "{refused:?}");
    assert_eq!(store.stats().marks, marks + 1, "the mark stays");
}

/// Publishes large events of new entities until the store refuses; leaves no mark that is due.
fn fill(store: &mut Store, clock: &ManualClock) {
    let body = "x".repeat(500_000);
    for n in 1_000_000.. {
        let n_ = notification(&booking(&format!("fill {n}")), n, clock.now());
        accept(store, clock, &[n_]);
        let claim = claim(store, clock);
        let settled = store.settle(&claim, &publish(clock, &body), clock.now(), clock.ticks());
        if let Err(error) = settled {
            assert!(matches!(error, StateError::Full(_)), "{error}");
            let settled = store.settle(&claim, &unchanged(clock), clock.now(), clock.ticks());
            assert_eq!(settled.unwrap(), Settled::Committed(None));
            return;
        }
    }
}

/// A sink that has got nothing yet holds none of them: it gets the newest of each.
#[test]
fn what_is_superseded_goes_first_when_the_store_fills() {
    let (clock, mut store) = of_size(32 << 20);
    let lags = SinkCommit::default();
    store
        .commit_sink("slow", &lags, clock.now(), clock.ticks())
        .unwrap();
    put(&mut store, &clock, "small", 1, &publish(&*clock, "small"));
    // 60 MB in all, of which 1 MB is new.
    let body = "x".repeat(500_000);
    for round in 0..60_u64 {
        for (id, sum) in [("a", round * 2 + 2), ("b", round * 2 + 3)] {
            let newest = publish(&*clock, &format!("{round} {body}"));
            put(&mut store, &clock, id, sum, &newest);
            while store.retain(clock.now(), clock.ticks()).unwrap() {}
        }
        assert!(store.stats().bytes < 32 << 20, "{}", store.stats().bytes);
    }
    let kept = store.reader().kept(0, 100, usize::MAX).unwrap();
    let newest_of = |id: &str| {
        let event = kept.iter().rfind(|event| event.key == booking(id));
        let data = event.unwrap().data.clone().unwrap();
        String::from_utf8_lossy(&data[..5]).into_owned()
    };
    assert_eq!(
        ["small", "a", "b"].map(newest_of),
        ["small", "59 xx", "59 xx"]
    );
    assert!(kept.len() < 60, "{} of 121", kept.len());
    store.verify().unwrap();
}

/// A sink that answers 415 to everything, for days.
#[test]
fn what_a_sink_refuses_is_kept_once_for_each_entity() {
    let (clock, mut store) = driven(Options::default());
    for sequence in 1..=3000_u64 {
        store
            .commit_sink(
                "s",
                &bury([(sequence, sequence % 10)]),
                clock.now(),
                clock.ticks(),
            )
            .unwrap();
    }
    assert_eq!(store.stats().dead_letters, [0, 0, 10]);
    let kept = store.reader().dead_letters(0, 100).unwrap();
    let sequences: Vec<u64> = kept.iter().filter_map(|letter| letter.sequence).collect();
    assert_eq!(sequences, (2991..=3000).collect::<Vec<u64>>());
    // An older one that is sent again and refused again does not take a newer one's place.
    store
        .commit_sink("s", &bury([(1, 0)]), clock.now(), clock.ticks())
        .unwrap();
    assert_eq!(store.stats().dead_letters, [0, 0, 11]);
    store.verify().unwrap();
}

/// A commit that buries these events: sequence and number of the entity.
fn bury(events: impl IntoIterator<Item = (u64, u64)>) -> SinkCommit {
    let letter = |(sequence, entity): (u64, u64)| {
        let parked = Parked {
            sequence,
            key: booking(&format!("entity {entity}")),
            attempts: 1,
        };
        (parked, "the sink answered 415".to_owned())
    };
    SinkCommit {
        bury: events.into_iter().map(letter).collect(),
        ..SinkCommit::default()
    }
}

#[test]
fn dead_letters_go_after_their_time() {
    let (clock, mut store) = driven(Options {
        retain_dead_letters: Duration::from_hours(720),
        ..Options::default()
    });
    for (entity, hours) in [(1, 719), (2, 2)] {
        let refused = bury([(entity, entity)]);
        store
            .commit_sink("s", &refused, clock.now(), clock.ticks())
            .unwrap();
        clock.advance(Duration::from_hours(hours));
        while store.retain(clock.now(), clock.ticks()).unwrap() {}
        let kept = store.reader().dead_letters(0, 100).unwrap();
        let kept: Vec<u64> = kept.iter().filter_map(|letter| letter.sequence).collect();
        assert_eq!(kept, [entity], "of 1 and 2, after 719 hours and after 721");
    }
    store.verify().unwrap();
}

/// Authentic, but not as the provider documents it, and as large as a body may be.
fn strange(sum: u64, clock: &ManualClock) -> Notification {
    let mut body = vec![b'x'; 64 * 1024];
    body[..8].copy_from_slice(&sum.to_le_bytes());
    Notification {
        key: None,
        body: body.into(),
        ..notification(&booking("unused"), sum, clock.now())
    }
}

#[test]
fn notifications_of_unknown_shape_take_a_sixteenth_of_the_store() {
    let (clock, mut store) = of_size(32 << 20);
    for sum in 0..600 {
        let accepted = store.accept_batch(&[strange(sum, &clock)], clock.now(), clock.ticks());
        assert_eq!(accepted.unwrap(), [Accepted::DeadLetter], "{sum}");
    }
    // 28 MiB of file: 28 bodies.
    assert_eq!(store.stats().dead_letters, [28, 0, 0]);
    assert!(store.stats().bytes < 3 << 20, "{}", store.stats().bytes);
    store.verify().unwrap();
}

/// With only the reserve left, neither what a sink refuses nor what nobody understands may stop
/// the marks.
#[test]
fn dead_letters_give_way_to_marks() {
    let (clock, mut store) = of_size(4 << 20);
    fill(&mut store, &clock);
    let mut accepted = 0_u64;
    for round in 0..40_u64 {
        let events = (0..300).map(|n| (round * 300 + n + 1, round * 300 + n));
        let (now, ticks) = (clock.now(), clock.ticks());
        store.commit_sink("s", &bury(events), now, ticks).unwrap();
        store
            .accept_batch(&[strange(3_000_000 + round, &clock)], now, ticks)
            .unwrap();
        let marks: Vec<_> = (0..50)
            .map(|n| round * 50 + n)
            .map(|n| notification(&booking(&format!("m{n}")), 2_000_000 + n, now))
            .collect();
        accepted += store.accept_batch(&marks, now, ticks).unwrap().len() as u64;
        while store.retain(now, ticks).unwrap() {}
    }
    let stats = store.stats();
    assert_eq!((accepted, stats.marks), (2000, 2000));
    // An eighth of the reserve of 1.75 MiB stays, the newest, so that there is something to look at.
    let [strange, _, refused] = stats.dead_letters;
    assert!((1..=3).contains(&strange), "{strange}");
    assert!((1..=448).contains(&refused), "{refused}");
    store.verify().unwrap();
}
