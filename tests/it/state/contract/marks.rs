//! When a mark is claimed, by whom, and in which order.

use super::*;

#[tokio::test]
async fn a_notification_during_the_fetch_survives_it() {
    let bench = Bench::new().await;
    let a = booking("a");
    bench.accept(&a, 1).await;
    let claim = bench.claim().await.unwrap();
    assert!(bench.claim().await.is_none(), "one claim per entity");
    bench.clock.advance(Duration::from_secs(3));
    bench.accept(&a, 2).await;
    let settled = bench.settle(&claim, publish(&*bench.clock, "1")).await;
    assert!(matches!(settled, Settled::Committed(Some((1, _)))));
    bench.clock.advance(Duration::from_secs(1));
    let again = bench.claim().await.expect("the newer mark");
    assert_eq!(
        again.since,
        bench.clock.now().before(Duration::from_secs(1))
    );
    assert_eq!(
        again.entity.as_ref().unwrap().data.as_deref(),
        Some(&b"1"[..])
    );
    bench.settle(&again, unchanged(&*bench.clock)).await;
    bench.clock.advance(Duration::from_secs(10));
    assert!(bench.claim().await.is_none());
    // A settled claim is spent.
    let twice = bench.settle(&again, publish(&*bench.clock, "2")).await;
    assert_eq!(twice, Settled::Stale);
    assert_eq!(bench.state().stats().head, 1);
}

#[tokio::test]
async fn a_lease_that_ran_out_makes_its_claim_stale() {
    let bench = Bench::new().await;
    bench.accept(&booking("a"), 1).await;
    let first = bench.claim().await.unwrap();
    bench.clock.advance(Options::default().lease);
    let second = bench.claim().await.expect("handed out again");
    assert_eq!(second.key, first.key);
    assert_ne!(second.id, first.id);
    let late = bench.settle(&first, publish(&*bench.clock, "late")).await;
    assert_eq!(late, Settled::Stale);
    assert_eq!(bench.state().entity(&first.key).await.unwrap(), None);
    let good = bench.settle(&second, publish(&*bench.clock, "good")).await;
    assert!(matches!(good, Settled::Committed(Some(_))));
}

#[tokio::test]
async fn min_interval_spaces_fetches_and_the_last_one_always_comes() {
    let bench = Bench::new().await;
    let a = booking("a");
    bench.accept(&a, 1).await;
    let claim = bench.claim().await.unwrap();
    bench.settle(&claim, publish(&*bench.clock, "1")).await;
    for sum in 2..1000 {
        bench.accept(&a, sum).await;
    }
    assert!(bench.claim().await.is_none());
    let waiting = bench.state().claimable();
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut waiting)
            .await
            .is_err()
    );
    bench.clock.advance(Duration::from_secs(1));
    waiting.await;
    let claim = bench.claim().await.unwrap();
    bench.settle(&claim, unchanged(&*bench.clock)).await;
    bench.clock.advance(Duration::from_secs(5));
    assert!(bench.claim().await.is_none());
}

#[tokio::test]
async fn retry_waits_and_again_comes_forward() {
    let bench = Bench::new().await;
    let clock = &*bench.clock;
    let (patient, eager) = (booking("patient"), booking("eager"));
    bench.accept(&patient, 1).await;
    bench.accept(&eager, 2).await;
    let minute = Duration::from_mins(1);
    for (mark, key) in [
        (MarkAfter::Retry(minute), &patient),
        (MarkAfter::Again(minute), &eager),
    ] {
        let claim = bench.claim().await.unwrap();
        assert_eq!(claim.key, *key);
        let settlement = Settlement {
            mark,
            outcome: Outcome::Failed,
            confirms: false,
            memo: Some(b"note".to_vec()),
            ..unchanged(clock)
        };
        bench.settle(&claim, settlement).await;
    }
    clock.advance(Duration::from_secs(2));
    bench.accept(&patient, 3).await;
    bench.accept(&eager, 4).await;
    let claim = bench.claim().await.unwrap();
    // It was answered: only failures in a row are counted.
    assert_eq!((claim.key.clone(), claim.attempts), (eager, 0));
    let entity = claim.entity.clone().unwrap();
    assert_eq!((entity.memo, entity.sequence), (b"note".to_vec(), None));
    bench.settle(&claim, unchanged(clock)).await;
    assert!(bench.claim().await.is_none());
    clock.advance(minute);
    let claim = bench.claim().await.unwrap();
    assert_eq!((claim.key, claim.attempts), (patient, 1));
}

#[tokio::test]
async fn attempts_and_waits_survive_a_stop_and_a_clock_that_steps() {
    let mut bench = Bench::new().await;
    bench.accept(&booking("a"), 1).await;
    let claim = bench.claim().await.unwrap();
    let settlement = Settlement {
        mark: MarkAfter::Retry(Duration::from_mins(1)),
        ..unchanged(&*bench.clock)
    };
    bench.settle(&claim, settlement).await;
    // An hour back: the wait is still a minute at most.
    bench.clock.step(-3_600_000);
    bench.reopen().await;
    assert!(bench.claim().await.is_none());
    bench.clock.advance(Duration::from_mins(1));
    assert_eq!(bench.claim().await.unwrap().attempts, 1);
}

#[tokio::test]
async fn an_urgent_mark_brings_another_look_forward_but_not_a_retry() {
    for (after, urgent, comes) in [
        (MarkAfter::Again(Duration::from_hours(1)), true, true),
        (MarkAfter::Again(Duration::from_hours(1)), false, false),
        (MarkAfter::Retry(Duration::from_hours(1)), true, false),
    ] {
        for during in [false, true] {
            let bench = Bench::new().await;
            let key = booking("held");
            bench.accept(&key, 1).await;
            let claim = bench.claim().await.unwrap();
            let again = NewMark {
                key: key.clone(),
                class: MarkClass::Notification,
                noticed: None,
                urgent,
            };
            if during {
                bench.state().mark(vec![again.clone()]).await.unwrap();
            }
            let settlement = Settlement {
                mark: after,
                ..unchanged(&*bench.clock)
            };
            bench.settle(&claim, settlement).await;
            if !during {
                bench.state().mark(vec![again]).await.unwrap();
            }
            bench.clock.advance(Duration::from_mins(1));
            let claimed = bench.claim().await.is_some();
            assert_eq!(
                claimed, comes,
                "{after:?}, urgent {urgent}, during {during}"
            );
        }
    }
}

#[tokio::test]
async fn notifications_go_before_resync_when_preferred() {
    let bench = Bench::new().await;
    let resync = |id: &str| NewMark {
        key: booking(id),
        class: MarkClass::Resync,
        noticed: None,
        urgent: false,
    };
    bench
        .state()
        .mark(vec![resync("r1"), resync("r2")])
        .await
        .unwrap();
    bench.accept(&booking("n1"), 1).await;
    bench.accept(&booking("r2"), 2).await;
    let counters = bench.state().stats();
    assert_eq!((counters.marks, counters.resync_marks), (3, 1));
    let state = bench.state();
    let first = state.claim(MarkClass::Resync).await.unwrap().unwrap();
    assert_eq!((first.key, first.marked), (booking("r1"), None));
    // Raised to a notification, `r2` keeps its place in time.
    let mut keys = Vec::new();
    while let Some(claim) = state.claim(MarkClass::Resync).await.unwrap() {
        assert!(claim.marked.is_some());
        keys.push(claim.key);
    }
    assert_eq!(keys, [booking("r2"), booking("n1")]);
}

#[tokio::test]
async fn a_notification_goes_before_an_older_resync_mark() {
    let bench = Bench::new().await;
    let older = NewMark {
        key: booking("older"),
        class: MarkClass::Resync,
        noticed: None,
        urgent: false,
    };
    let state = bench.state();
    state.mark(vec![older]).await.unwrap();
    bench.clock.advance(Duration::from_hours(1));
    bench.accept(&booking("told"), 1).await;
    let prefer = MarkClass::Notification;
    let first = state.claim(prefer).await.unwrap().unwrap();
    let second = state.claim(prefer).await.unwrap().unwrap();
    assert_eq!((first.key, second.key), (booking("told"), booking("older")));
}
