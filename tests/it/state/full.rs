//! The quota: what a full store refuses, and what it goes on doing.
//!
//! Oracle: the contract's point 8, and counting.

use std::time::Duration;

use bellhop::clock::Clock;
use bellhop::state::embedded::{Options, Store};
use bellhop::state::{Accepted, MarkClass, Settled, Settlement, StateError};

use super::embedded::{put, store};
use super::{ManualClock, booking, notification, publish, unchanged};

#[test]
fn a_full_store_refuses_to_publish_and_still_accepts() {
    let clock = ManualClock::new();
    let options = Options {
        size_bytes: 32 << 20,
        ..Options::default()
    };
    let mut store = store(options, &clock);
    let body = "x".repeat(500_000);
    let mut refused = None;
    for n in 0..200 {
        let n_ = notification(&booking(&n.to_string()), n, clock.now());
        let accepted = store
            .accept_batch(&[n_], clock.now(), clock.ticks())
            .unwrap();
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
    let clock = ManualClock::new();
    let options = Options {
        size_bytes: 32 << 20,
        ..Options::default()
    };
    let mut store = store(options, &clock);
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
    store
        .accept_batch(&[n], clock.now(), clock.ticks())
        .unwrap();
    clock.advance(Duration::from_secs(2));
    let claim = store
        .claim(MarkClass::Notification, clock.ticks())
        .unwrap()
        .unwrap();
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
        store
            .accept_batch(&[n_], clock.now(), clock.ticks())
            .unwrap();
        let claim = store
            .claim(MarkClass::Notification, clock.ticks())
            .unwrap()
            .unwrap();
        let settled = store.settle(&claim, &publish(clock, &body), clock.now(), clock.ticks());
        if let Err(error) = settled {
            assert!(matches!(error, StateError::Full(_)), "{error}");
            let settled = store.settle(&claim, &unchanged(clock), clock.now(), clock.ticks());
            assert_eq!(settled.unwrap(), Settled::Committed(None));
            return;
        }
    }
}
