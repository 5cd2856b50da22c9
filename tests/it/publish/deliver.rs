//! Deliverers against scripted sinks. Oracle: what the sinks wrote down, by entity and revision.

mod unwell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::clock::{Clock, Ticks};
use bellhop::metrics::Metrics;
use bellhop::pipeline::deliver::{Deliverer, DeliveryMetrics};
use bellhop::publish::{Class, Sink, SinkStatus, Verdict};
use bellhop::settings::{BackoffPolicy, DeliverySettings, SinkSettings};
use bellhop::state::{Parked, SinkPosition, StateError, StoredEvent};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use super::time::TestClock;

type Script = Box<dyn Fn(&StoredEvent, usize) -> Answer + Send + Sync>;

enum Answer {
    Now(Verdict),
    Never,
}

/// A sink that answers by a script: the event and how often that event was tried before.
struct Scripted {
    clock: Arc<TestClock>,
    script: Script,
    /// Every attempt.
    tried: Mutex<Vec<(StoredEvent, Ticks)>>,
    /// What it took.
    took: Mutex<Vec<StoredEvent>>,
    busy: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl Sink for Scripted {
    async fn send(&self, event: &StoredEvent) -> Verdict {
        let fresh = self.busy.lock().unwrap().insert(event.key.to_string());
        assert!(fresh, "two events of {} at a time", event.key);
        let before = {
            let mut tried = self.tried.lock().unwrap();
            let same = |other: &&(StoredEvent, Ticks)| other.0.sequence == event.sequence;
            let before = tried.iter().filter(same).count();
            tried.push((event.clone(), self.clock.ticks()));
            before
        };
        let answer = (self.script)(event, before);
        let free = Free(self, event.key.to_string());
        let verdict = match answer {
            Answer::Now(verdict) => verdict,
            Answer::Never => std::future::pending().await,
        };
        drop(free);
        if verdict == Verdict::Delivered {
            self.took.lock().unwrap().push(event.clone());
        }
        verdict
    }
}

struct Free<'a>(&'a Scripted, String);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.busy.lock().unwrap().remove(&self.1);
    }
}

impl Scripted {
    /// Revisions taken, by entity, in the order they were taken.
    fn by_entity(&self) -> BTreeMap<String, Vec<u64>> {
        let mut all = BTreeMap::<String, Vec<u64>>::new();
        for event in self.took.lock().unwrap().iter() {
            all.entry(event.key.to_string())
                .or_default()
                .push(event.revision);
        }
        all
    }
    fn count(&self) -> usize {
        self.took.lock().unwrap().len()
    }
    fn attempts(&self, key: &str) -> Vec<Ticks> {
        let tried = self.tried.lock().unwrap();
        let of = tried.iter().filter(|(event, _)| event.key.as_str() == key);
        of.map(|(_, at)| *at).collect()
    }
    fn assert_in_order(&self) {
        for (key, revisions) in self.by_entity() {
            assert!(revisions.is_sorted(), "{key}: {revisions:?}");
        }
    }
}

struct World {
    clock: Arc<TestClock>,
    state: Arc<Memory>,
    metrics: Metrics,
    counts: DeliveryMetrics,
}

struct Running {
    sink: Arc<Scripted>,
    status: watch::Receiver<SinkStatus>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl World {
    fn new() -> Self {
        let metrics = Metrics::new();
        Self {
            clock: Arc::default(),
            state: Arc::new(Memory::new()),
            counts: DeliveryMetrics::new(&metrics),
            metrics,
        }
    }

    fn start(
        &self,
        settings: &SinkSettings,
        script: impl Fn(&StoredEvent, usize) -> Answer + Send + Sync + 'static,
    ) -> Running {
        let sink = Arc::new(Scripted {
            clock: self.clock.clone(),
            script: Box::new(script),
            tried: Mutex::default(),
            took: Mutex::default(),
            busy: Mutex::default(),
        });
        let (state, clock) = (self.state.clone(), self.clock.clone());
        let deliverer = Deliverer::new(settings, state, clock, sink.clone(), &self.counts);
        let (status, stop) = (deliverer.status(), CancellationToken::new());
        let task = tokio::spawn(deliverer.run(stop.clone()));
        Running {
            sink,
            status,
            stop,
            task,
        }
    }

    async fn until(&self, seconds: u64, done: impl Fn() -> bool) {
        let reached = self.clock.run(Duration::from_secs(seconds), done).await;
        assert!(reached, "not within {seconds} s of the test's time");
    }

    async fn pass(&self, seconds: u64) {
        self.clock.run(Duration::from_secs(seconds), || false).await;
    }

    fn cursor(&self, sink: &str) -> u64 {
        self.state.position(sink).cursor
    }
}

impl Running {
    async fn end(self, world: &World) {
        self.stop.cancel();
        world.until(60, || self.task.is_finished()).await;
        self.task.await.unwrap().unwrap();
    }
}

fn settings(name: &str, retry: u32) -> SinkSettings {
    SinkSettings {
        name: name.into(),
        types: Vec::new(),
        uri: "http://unused.invalid/".into(),
        headers_dir: None,
        ca_file: None,
        delivery: DeliverySettings {
            retry,
            backoff_policy: BackoffPolicy::Exponential,
            backoff_delay: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
        },
    }
}

fn yes() -> Answer {
    Answer::Now(Verdict::Delivered)
}

fn not_well(class: Class) -> Answer {
    Answer::Now(Verdict::NotWell {
        class,
        retry_after: None,
    })
}

fn failed() -> Answer {
    Answer::Now(Verdict::Failed {
        class: Class::Other,
        reason: "the sink answered 418".into(),
    })
}

#[tokio::test]
async fn all_go_out_in_order_and_the_cursor_follows_in_batches() {
    let world = World::new();
    let run = world.start(&settings("a", 10), |_, _| yes());
    for round in 0..50 {
        for entity in 0..20 {
            let data = format!("{{\"round\":{round}}}");
            world
                .state
                .publish(&format!("booking/{entity}"), Some(&data));
        }
    }
    world.until(60, || world.cursor("a") == 1000).await;
    assert_eq!(run.sink.count(), 1000);
    run.sink.assert_in_order();
    let commits = world.state.lock().commits;
    assert!((2..=20).contains(&commits), "{commits} commits");
    // One more, alone: committed after 200 ms, not at the next hundred.
    world.state.publish("booking/1", None);
    let at = world.clock.ticks();
    world.until(5, || world.cursor("a") == 1001).await;
    assert!(world.clock.ticks().since(at) <= Duration::from_millis(200));
    let status = run.status.borrow().clone();
    assert!(
        status.well && status.behind == 0 && status.last_error.is_none(),
        "{status:?}"
    );
    run.end(&world).await;
}

#[tokio::test]
async fn a_crash_between_send_and_commit_sends_the_same_event_again() {
    let world = World::new();
    world.state.lock().trouble = Some(StateError::Busy("for the test".into()));
    let event = world.state.publish("booking/1", Some("{}"));
    let run = world.start(&settings("a", 10), |_, _| yes());
    world.until(5, || run.sink.count() == 1).await;
    world.pass(5).await;
    run.task.abort();
    assert_eq!(world.cursor("a"), 0);
    world.state.lock().trouble = None;
    let again = world.start(&settings("a", 10), |_, _| yes());
    world.until(5, || world.cursor("a") == 1).await;
    assert_eq!(*again.sink.took.lock().unwrap(), [event]);
    again.end(&world).await;
}

#[tokio::test]
async fn a_store_that_failed_ends_the_deliverer() {
    let world = World::new();
    world.state.lock().trouble = Some(StateError::Failed("for the test".into()));
    world.state.publish("booking/1", Some("{}"));
    let run = world.start(&settings("a", 10), |_, _| yes());
    world.until(5, || run.task.is_finished()).await;
    let error = run.task.await.unwrap().unwrap_err();
    assert!(
        error.contains("sink `a`") && error.contains("failed"),
        "{error}"
    );
}

#[tokio::test]
async fn only_the_wanted_types_go_out() {
    let world = World::new();
    let mut settings = settings("a", 10);
    settings.types = vec![bellhop::api::NotificationType::Booking];
    let run = world.start(&settings, |_, _| yes());
    for entity in 0..5 {
        world
            .state
            .publish(&format!("rate/s/p/{entity}"), Some("{}"));
        world
            .state
            .publish(&format!("booking/{entity}"), Some("{}"));
    }
    world.until(5, || world.cursor("a") == 10).await;
    assert_eq!(run.sink.count(), 5);
    assert!(
        run.sink
            .by_entity()
            .keys()
            .all(|key| key.starts_with("booking/"))
    );
    run.end(&world).await;
}

#[tokio::test]
async fn a_sink_that_was_away_too_long_gets_the_newest_of_everything() {
    let world = World::new();
    for round in 0..3 {
        for entity in 0..300 {
            world
                .state
                .publish(&format!("booking/{entity}"), Some(&format!("{round}")));
        }
    }
    world.state.publish("booking/7", None);
    world.state.publish("booking/8", Some("\"new\""));
    world.state.forget(902);
    world.state.publish("booking/9", Some("\"newer\""));
    let run = world.start(&settings("a", 10), |_, _| yes());
    world.until(60, || world.cursor("a") == 903).await;
    world
        .until(60, || world.state.position("a").parked.is_empty())
        .await;
    run.sink.assert_in_order();
    let mut last = BTreeMap::new();
    for event in run.sink.took.lock().unwrap().iter() {
        last.insert(event.key.to_string(), event.data.clone());
    }
    assert_eq!(last.len(), 299, "all but the removed one");
    assert_eq!(last["booking/8"], Some(b"\"new\"".to_vec()));
    assert_eq!(last["booking/9"], Some(b"\"newer\"".to_vec()));
    assert_eq!(last["booking/10"], Some(b"2".to_vec()));
    run.end(&world).await;
}

/// A sink that is added to a store whose first removals are long gone, and is not well at first.
#[tokio::test]
async fn a_new_sink_gets_an_old_store_through_its_window() {
    let world = World::new();
    for entity in 0..3000 {
        world.state.publish(&format!("booking/{entity}"), Some("1"));
    }
    world.state.publish("booking/7", None);
    world.state.forget(3001);
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = well.clone();
    let run = world.start(&settings("a", 10), move |_, _| {
        if now.load(std::sync::atomic::Ordering::SeqCst) {
            yes()
        } else {
            not_well(Class::Connection)
        }
    });
    world.pass(20).await;
    assert_eq!(world.state.position("a"), SinkPosition::default());
    well.store(true, std::sync::atomic::Ordering::SeqCst);
    world.until(300, || world.cursor("a") == 3001).await;
    assert_eq!(run.sink.by_entity().len(), 2999, "all but the removed one");
    assert_eq!(run.sink.count(), 2999);
    run.end(&world).await;
}

#[tokio::test]
async fn a_replayed_event_is_found_and_one_no_longer_kept_is_passed_over() {
    let world = World::new();
    let run = world.start(&settings("a", 10), |_, _| yes());
    let first = world.state.publish("booking/1", Some("1"));
    world.state.publish("booking/2", Some("1"));
    world.until(5, || world.cursor("a") == 2).await;
    // What `State::replay` leaves behind; the second event is not kept any more.
    let park = |sequence, key: &str| Parked {
        sequence,
        key: key.parse().unwrap(),
        attempts: 0,
    };
    {
        let mut inner = world.state.lock();
        let sink = inner.sinks.get_mut("a").unwrap();
        sink.parked = vec![park(1, "booking/1"), park(2, "booking/2")];
        inner.events.remove(&2);
    }
    world
        .until(30, || world.state.position("a").parked.is_empty())
        .await;
    assert_eq!(run.sink.count(), 3);
    assert_eq!(run.sink.took.lock().unwrap()[2], first);
    run.end(&world).await;
}

#[tokio::test]
async fn at_shutdown_what_is_done_is_committed_and_what_hangs_is_left() {
    let world = World::new();
    let run = world.start(&settings("a", 10), |event, _| match event.key.as_str() {
        "booking/hangs" => Answer::Never,
        _ => yes(),
    });
    world.state.publish("booking/1", Some("1"));
    world.state.publish("booking/hangs", Some("1"));
    world.state.publish("booking/2", Some("1"));
    world.clock.run(Duration::ZERO, || false).await;
    assert_eq!(run.sink.count(), 2);
    run.end(&world).await;
    assert_eq!(world.cursor("a"), 3, "the hanging one is parked");
    assert_eq!(world.state.position("a").parked.len(), 1);
}

/// The two switches of the model test do what they say, so that it can prove that it sees them.
#[cfg(feature = "planted-bugs")]
mod planted {
    use bellhop::planted::{Bug, plant};

    use super::*;

    #[tokio::test]
    async fn a_cursor_before_delivery_loses_an_event() {
        let world = World::new();
        plant(Some(Bug::CursorBeforeDelivery));
        let run = world.start(&settings("a", 10), |event, _| match event.sequence {
            1 => Answer::Never,
            _ => yes(),
        });
        world.state.publish("booking/1", Some("1"));
        world.state.publish("booking/2", Some("1"));
        world.clock.run(Duration::from_millis(500), || false).await;
        plant(None);
        run.task.abort();
        let position = world.state.position("a");
        assert!(
            position.cursor == 2 && position.parked.is_empty(),
            "{position:?}"
        );
    }

    #[tokio::test]
    async fn a_parked_event_is_overtaken() {
        let world = World::new();
        plant(Some(Bug::ParkedOvertaken));
        let heals = Ticks(3_000);
        let clock = world.clock.clone();
        let run = world.start(&settings("a", 100), move |event, _| match event.sequence {
            1 if clock.ticks() < heals => failed(),
            _ => yes(),
        });
        world.state.publish("booking/1", Some("1"));
        world.clock.run(Duration::from_millis(500), || false).await;
        world.state.publish("booking/1", Some("2"));
        world.until(60, || run.sink.count() == 2).await;
        plant(None);
        let order: Vec<_> = run
            .sink
            .took
            .lock()
            .unwrap()
            .iter()
            .map(|e| e.sequence)
            .collect();
        assert_eq!(order, [2, 1]);
    }
}
