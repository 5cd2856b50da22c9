//! The durability contract, one test for each promise, against any engine.
//!
//! An engine is given by a [`Bench`]: how to open it, and how to open it again after a stop.

mod marks;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bellhop::api::{EntityKey, NotificationType};
use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{
    Accepted, ChangeKind, Claim, DeadLetterSource, EventsGone, MarkAfter, MarkClass, NewMark,
    Outcome, Parked, Settled, Settlement, SinkCommit, State,
};

use super::{ManualClock, booking, notification, publish, remove, unchanged};

/// One engine under test, with its clock.
struct Bench {
    clock: Arc<ManualClock>,
    state: Option<Arc<dyn State>>,
    dir: tempfile::TempDir,
}

type Opening<'a> = Pin<Box<dyn Future<Output = Arc<dyn State>> + Send + 'a>>;

fn open_embedded(dir: PathBuf, clock: Arc<ManualClock>) -> Opening<'static> {
    Box::pin(async move {
        let engine = Engine::open(&dir, Options::default(), clock, &Metrics::new()).unwrap();
        Arc::new(engine) as Arc<dyn State>
    })
}

impl Bench {
    async fn new() -> Self {
        let clock = ManualClock::new();
        let dir = tempfile::tempdir().unwrap();
        let state = open_embedded(dir.path().to_owned(), Arc::clone(&clock)).await;
        Self {
            clock,
            state: Some(state),
            dir,
        }
    }

    fn state(&self) -> &Arc<dyn State> {
        self.state.as_ref().unwrap()
    }

    async fn reopen(&mut self) {
        drop(self.state.take());
        let state = open_embedded(self.dir.path().to_owned(), Arc::clone(&self.clock)).await;
        self.state = Some(state);
    }

    async fn accept(&self, key: &EntityKey, sum: u64) -> Accepted {
        let notification = notification(key, sum, self.clock.now());
        self.state().accept(notification).await.unwrap()
    }

    async fn claim(&self) -> Option<Claim> {
        self.state().claim(MarkClass::Notification).await.unwrap()
    }

    async fn settle(&self, claim: &Claim, settlement: Settlement) -> Settled {
        self.state().settle(claim, settlement).await.unwrap()
    }

    /// Accepts, claims and publishes; gives the event's place and revision.
    async fn put(&self, key: &EntityKey, sum: u64, data: &str) -> (u64, u64) {
        self.accept(key, sum).await;
        self.clock.advance(Duration::from_secs(2));
        let claim = self.claim().await.unwrap();
        assert_eq!(claim.key, *key);
        match self.settle(&claim, publish(&*self.clock, data)).await {
            Settled::Committed(Some(place)) => place,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn accept_tells_marked_duplicate_and_reused_apart() {
    let bench = Bench::new().await;
    let (a, b) = (booking("a"), booking("b"));
    assert_eq!(bench.accept(&a, 1).await, Accepted::Marked);
    assert_eq!(bench.accept(&a, 1).await, Accepted::Duplicate);
    assert_eq!(bench.accept(&b, 1).await, Accepted::SignatureReused);
    assert_eq!(bench.accept(&b, 1).await, Accepted::Duplicate);
    for n in 2..100 {
        let reused = bench.accept(&booking(&format!("b{n}")), 1).await;
        assert_eq!(reused, Accepted::SignatureReused, "{n}");
    }
    assert_eq!(
        bench.accept(&booking("one more"), 1).await,
        Accepted::Replayed
    );
    assert_eq!(bench.state().stats().marks, 100);
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_stop() {
    let mut bench = Bench::new().await;
    for n in 0..50 {
        bench.accept(&booking(&n.to_string()), n).await;
    }
    let claimed = bench.claim().await.unwrap();
    let epoch = bench.state().epoch().clone();
    bench.reopen().await;
    assert_eq!(*bench.state().epoch(), epoch);
    assert_eq!(bench.state().stats().marks, 50);
    // The claim is void, its entity is handed out again, first as before.
    let settled = bench.settle(&claimed, unchanged(&*bench.clock)).await;
    assert_eq!(settled, Settled::Stale);
    for n in 0..50 {
        let claim = bench.claim().await.unwrap();
        assert_eq!(claim.key, booking(&n.to_string()));
        assert_ne!(claim.id, claimed.id);
    }
    assert!(bench.claim().await.is_none());
    // The ledger is known again.
    assert_eq!(bench.accept(&booking("7"), 7).await, Accepted::Duplicate);
}

#[tokio::test]
async fn a_mark_from_the_future_counts_as_now_and_old_news_is_stale() {
    let bench = Bench::new().await;
    let a = booking("a");
    let mut future = notification(&a, 1, bench.clock.now());
    future.timestamp = bench.clock.now().after(Duration::from_hours(1));
    let notified = future.timestamp;
    bench.state().accept(future).await.unwrap();
    let claim = bench.claim().await.unwrap();
    assert_eq!(claim.marked, Some(bench.clock.now()));
    assert_eq!(claim.notified, Some(notified));
    bench.settle(&claim, publish(&*bench.clock, "1")).await;
    bench.clock.advance(Duration::from_mins(1));
    // Older than the confirmed mark by just the skew, and by a second more.
    let skew = Options::default().max_skew;
    for (sum, more, expected) in [(2, 0, Accepted::Marked), (3, 1, Accepted::Stale)] {
        let mut old = notification(&a, sum, bench.clock.now());
        old.timestamp = claim
            .marked
            .unwrap()
            .before(skew + Duration::from_secs(more));
        assert_eq!(bench.state().accept(old).await.unwrap(), expected);
    }
    // The same for an entity of which nothing is confirmed is news.
    let mut old = notification(&booking("b"), 4, bench.clock.now());
    old.timestamp = old.timestamp.before(Duration::from_hours(2));
    assert_eq!(bench.state().accept(old).await.unwrap(), Accepted::Marked);
}

#[tokio::test]
async fn revisions_rise_over_removal_restart_and_clock_steps() {
    let mut bench = Bench::new().await;
    let a = booking("a");
    let (_, first) = bench.put(&a, 1, "1").await;
    assert_eq!(first, bench.clock.now().0 as u64);
    bench.clock.step(-86_400_000);
    let (_, second) = bench.put(&a, 2, "2").await;
    assert_eq!(second, first + 1);
    bench.accept(&a, 3).await;
    bench.clock.advance(Duration::from_secs(2));
    let claim = bench.claim().await.unwrap();
    bench.settle(&claim, remove(&*bench.clock)).await;
    let removed = bench.state().entity(&a).await.unwrap().unwrap();
    assert_eq!(
        (removed.revision, removed.change, removed.data),
        (first + 2, ChangeKind::Removed, None)
    );
    bench.reopen().await;
    let (_, fourth) = bench.put(&a, 4, "4").await;
    assert_eq!(fourth, first + 3);
    let again = bench.state().entity(&a).await.unwrap().unwrap();
    assert_eq!(again.change, ChangeKind::Created);
    // Also after everything of it is gone.
    bench.accept(&a, 5).await;
    bench.clock.advance(Duration::from_secs(2));
    let claim = bench.claim().await.unwrap();
    let forget = Settlement {
        forget: true,
        ..unchanged(&*bench.clock)
    };
    bench.settle(&claim, forget).await;
    assert_eq!(bench.state().entity(&a).await.unwrap(), None);
    for sequence in 1..=4 {
        assert_eq!(bench.state().event(sequence).await.unwrap(), None);
    }
    bench.reopen().await;
    let (sequence, sixth) = bench.put(&a, 6, "6").await;
    assert_eq!((sequence, sixth), (5, first + 4));
}

#[tokio::test]
async fn settle_is_one_step_with_children_and_dead_letters() {
    let mut bench = Bench::new().await;
    let clock = Arc::clone(&bench.clock);
    bench.accept(&booking("parent"), 1).await;
    let claim = bench.claim().await.unwrap();
    let child = |id: &str| NewMark {
        key: booking(id),
        class: MarkClass::Notification,
        noticed: None,
        urgent: false,
    };
    let settlement = Settlement {
        children: vec![child("c1"), child("c2")],
        dead_letter: Some("gave up: 418".to_owned()),
        ..publish(&*clock, "{}")
    };
    bench.settle(&claim, settlement).await;
    bench.reopen().await;
    let stats = bench.state().stats();
    assert_eq!((stats.marks, stats.head), (2, 1));
    assert_eq!(stats.dead_letters, [0, 1, 0]);
    let letters = bench.state().dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].source, DeadLetterSource::Fetch);
    assert_eq!(letters[0].reason, "gave up: 418");
    assert!(bench.state().replay(letters[0].id, false).await.unwrap());
    assert!(!bench.state().replay(letters[0].id, false).await.unwrap());
    let mut keys = Vec::new();
    clock.advance(Duration::from_secs(2));
    while let Some(claim) = bench.claim().await {
        assert_eq!(claim.marked, None);
        keys.push(claim.key);
    }
    assert_eq!(keys, [booking("c1"), booking("c2"), booking("parent")]);
}

#[tokio::test]
async fn list_then_watch_is_complete() {
    let bench = Bench::new().await;
    let rate = EntityKey::new(NotificationType::Rate, &["s", "p", "r"]).unwrap();
    for n in 0..5_u64 {
        bench
            .put(&booking(&n.to_string()), n, &format!("{n}"))
            .await;
    }
    bench.put(&rate, 90, "rate").await;
    bench.accept(&booking("3"), 91).await;
    bench.clock.advance(Duration::from_secs(2));
    let claim = bench.claim().await.unwrap();
    bench.settle(&claim, remove(&*bench.clock)).await;
    let state = bench.state();
    assert_eq!(*state.head().borrow(), 7);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = state.list(None, after.as_ref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|event| event.key.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        seen,
        [
            "booking/0",
            "booking/1",
            "booking/2",
            "booking/4",
            "rate/s/p/r"
        ]
    );
    let rates = state
        .list(Some(NotificationType::Rate), None, 10)
        .await
        .unwrap();
    assert_eq!(rates.items.len(), 1);
    assert_eq!(
        state
            .known(NotificationType::Rate, &["s", "p"])
            .await
            .unwrap(),
        std::slice::from_ref(&rate)
    );
    for above in [&["s", "p0"], &["s", "p/"], &["s", ""]] {
        let known = state.known(NotificationType::Rate, above).await.unwrap();
        assert_eq!(known, [], "{above:?}");
    }
    let bookings = state.known(NotificationType::Booking, &[]).await.unwrap();
    assert_eq!(bookings.len(), 4, "the removed one is not among them");
    let last = state.events(5, 10, 1 << 20).await.unwrap().unwrap();
    assert_eq!(
        last.iter()
            .map(|event| (event.sequence, event.change))
            .collect::<Vec<_>>(),
        [(6, ChangeKind::Created), (7, ChangeKind::Removed)]
    );
    let one = state.events(0, 10, 1).await.unwrap().unwrap();
    assert_eq!(one.len(), 1, "at least one, whatever its size");
    assert_eq!(
        state.events(8, 1, 1).await.unwrap(),
        Err(EventsGone::AheadOfHead)
    );
    assert_eq!(state.events(7, 1, 1).await.unwrap(), Ok(Vec::new()));
    assert_eq!(state.event(6).await.unwrap().unwrap().key, rate);
}

#[tokio::test]
async fn sinks_keep_their_place_and_what_is_parked() {
    let mut bench = Bench::new().await;
    let a = booking("a");
    let (one, first) = bench.put(&a, 1, "1").await;
    let (two, second) = bench.put(&a, 2, "2").await;
    assert_eq!(bench.state().sink("orders").await.unwrap().cursor, 0);
    let parked = |sequence, attempts| Parked {
        sequence,
        key: a.clone(),
        attempts,
    };
    let commit = SinkCommit {
        cursor: two,
        park: vec![parked(one, 1), parked(two, 0)],
        ..SinkCommit::default()
    };
    bench.state().commit_sink("orders", commit).await.unwrap();
    bench.reopen().await;
    let position = bench.state().sink("orders").await.unwrap();
    assert_eq!(position.cursor, two);
    assert_eq!(position.parked, [parked(one, 1), parked(two, 0)]);
    let commit = SinkCommit {
        cursor: 0,
        release: vec![two],
        bury: vec![(parked(one, 10), "410 for ever".to_owned())],
        ..SinkCommit::default()
    };
    bench.state().commit_sink("orders", commit).await.unwrap();
    let position = bench.state().sink("orders").await.unwrap();
    assert_eq!((position.cursor, position.parked.len()), (two, 0));
    let letter = bench.state().dead_letters(0, 10).await.unwrap().remove(0);
    assert_eq!(letter.revision, Some(first));
    assert_eq!(letter.source, DeadLetterSource::Sink("orders".to_owned()));
    // Replaying sends the newest revision.
    assert!(bench.state().replay(letter.id, false).await.unwrap());
    let position = bench.state().sink("orders").await.unwrap();
    assert_eq!(position.parked, [parked(two, 0)]);
    // A delivered newer revision resolves an older dead letter of the entity.
    let bury = SinkCommit {
        bury: vec![(parked(one, 10), "again".to_owned())],
        ..SinkCommit::default()
    };
    bench.state().commit_sink("orders", bury).await.unwrap();
    assert_eq!(bench.state().stats().dead_letters, [0, 0, 1]);
    for (revision, left) in [(first, 1), (second, 0)] {
        let commit = SinkCommit {
            delivered: vec![(a.clone(), revision)],
            ..SinkCommit::default()
        };
        bench.state().commit_sink("orders", commit).await.unwrap();
        assert_eq!(bench.state().stats().dead_letters, [0, 0, left]);
    }
    // One that is replayed as well, unless it is the newest itself: it would come after that.
    let (three, third) = bench.put(&a, 3, "3").await;
    let replayed = SinkCommit {
        park: vec![parked(two, 0), parked(three, 0)],
        ..SinkCommit::default()
    };
    bench.state().commit_sink("orders", replayed).await.unwrap();
    let commit = SinkCommit {
        delivered: vec![(a.clone(), third)],
        ..SinkCommit::default()
    };
    bench.state().commit_sink("orders", commit).await.unwrap();
    let position = bench.state().sink("orders").await.unwrap();
    assert_eq!(position.parked, [parked(three, 0)]);
}

#[tokio::test]
async fn unknown_shapes_are_kept_as_dead_letters() {
    let bench = Bench::new().await;
    let mut odd = notification(&booking("x"), 1, bench.clock.now());
    odd.key = None;
    odd.body = bytes::Bytes::from_static(b"{\"odd\":1}");
    let state = bench.state();
    assert_eq!(
        state.accept(odd.clone()).await.unwrap(),
        Accepted::DeadLetter
    );
    assert_eq!(state.accept(odd).await.unwrap(), Accepted::Duplicate);
    let letters = state.dead_letters(0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].source, DeadLetterSource::Notification);
    assert!(state.replay(letters[0].id, false).await.unwrap());
    assert_eq!(state.stats().dead_letters, [0, 0, 0]);
    assert_eq!(state.stats().marks, 0);
}

#[tokio::test]
async fn facts_survive() {
    let mut bench = Bench::new().await;
    let state = bench.state();
    assert_eq!(state.fact("resync").await.unwrap(), None);
    state
        .put_fact("resync", Some(b"page 3".to_vec()))
        .await
        .unwrap();
    state.put_fact("md5", Some(Vec::new())).await.unwrap();
    bench.reopen().await;
    let state = bench.state();
    assert_eq!(
        state.fact("resync").await.unwrap(),
        Some(b"page 3".to_vec())
    );
    assert_eq!(state.fact("md5").await.unwrap(), Some(Vec::new()));
    state.put_fact("resync", None).await.unwrap();
    assert_eq!(state.fact("resync").await.unwrap(), None);
}
