//! A part of a rate that is read for the first time while the channel binding above it goes: no
//! list has shown it and the store does not have it, so only the read on its way leads to it.
//!
//! Oracle: the provider of this test, which has nothing once the binding is gone. The model test
//! gets there too rarely: the read must be on its way for as long as the binding is read twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bellhop::api::{EntityKey, NotificationType as Kind};
use bellhop::clock::Clock;
use bellhop::metrics::Metrics;
use bellhop::pipeline::{Pipeline, PipelineSettings};
use bellhop::provider::{Answer, Document, ListItem, Read, ReadError, Reads};
use bellhop::settings::FetchSettings;
use bellhop::state::embedded::{Engine, Options};
use bellhop::state::{ChangeKind, State};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::state::{ManualClock, notification};

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// Has a binding with a rate that is nowhere else, and an availability of another rate.
struct Provider {
    clock: Arc<ManualClock>,
    gone: AtomicBool,
    /// Reads of the availability that were begun.
    asked: AtomicUsize,
    /// Lets the first of them go on.
    go_on: Notify,
}

impl Provider {
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Reads for Provider {
    async fn read(&self, read: &Read) -> Result<Answer, ReadError> {
        let gone = || ReadError::Gone {
            status: 404,
            code: "not found".into(),
        };
        match read {
            Read::Rates { .. } => {
                if self.is_gone() {
                    return Err(gone());
                }
                Ok(Answer::Many(vec![ListItem {
                    id: "r".into(),
                    data: raw(r#"{"id":"r","type":"FREESALE"}"#),
                }]))
            }
            Read::Availability { rate, .. } if rate == "q" && !self.is_gone() => {
                let retrieved = self.clock.now().after(Duration::from_secs(2));
                let answer = Answer::One(Document {
                    data: raw(
                        r#"{"availability":[{"start":"2026-01-04T10:00:00Z","capacity":1}]}"#,
                    ),
                    version: None,
                    retrieved: Some((retrieved.rfc3339(), retrieved)),
                    expires: None,
                    empty: false,
                });
                if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    self.go_on.notified().await;
                }
                Ok(answer)
            }
            Read::Availability { rate, .. } if rate == "q" => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                Err(gone())
            }
            _ => Err(gone()),
        }
    }

    async fn reload_credentials(&self) -> bool {
        false
    }
}

fn settings() -> PipelineSettings {
    PipelineSettings {
        fetch: FetchSettings {
            requests_per_second: 100,
            min_interval: Duration::from_millis(100),
            availability_horizon_days: 30,
            resync_interval: Duration::from_hours(24),
            removal_confirmation: Duration::from_secs(1),
            removal_guard_percent: 100,
        },
        subscribed: vec![Kind::ChannelBinding],
        retain_bookings: Duration::from_hours(1),
    }
}

/// Lets time go on until something holds.
async fn until(clock: &ManualClock, state: &dyn State, what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        clock.advance(Duration::from_millis(50));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never happened: {what}: {:?}", state.stats());
}

/// Whether consumers have the availability at the end.
async fn is_left_behind() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let metrics = Metrics::new();
    let engine = Engine::open(dir.path(), Options::default(), clock.clone(), &metrics).unwrap();
    let state: Arc<dyn State> = Arc::new(engine);
    let provider = Arc::new(Provider {
        clock: clock.clone(),
        gone: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
        go_on: Notify::new(),
    });
    let pipeline = Arc::new(Pipeline::new(
        settings(),
        state.clone(),
        provider.clone(),
        clock.clone(),
        7,
        &metrics,
    ));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let pipeline = pipeline.clone();
        workers.spawn(async move { pipeline.work().await });
    }
    let binding = EntityKey::new(Kind::ChannelBinding, &["s", "p"]).unwrap();
    let availability = EntityKey::new(Kind::Availability, &["s", "p", "q"]).unwrap();
    let live = async |key: &EntityKey| {
        let newest = state.entity(key).await.unwrap();
        newest.is_some_and(|event| event.change != ChangeKind::Removed)
    };
    let told = async |key: &EntityKey, sum: u64, removed: bool| {
        let mut told = notification(key, sum, clock.now());
        told.removed = removed;
        state.accept(told).await.unwrap();
    };
    told(&binding, 1, false).await;
    until(
        &clock,
        state.as_ref(),
        "the binding is known and at rest",
        async || live(&binding).await && state.stats().marks == 0,
    )
    .await;
    told(&availability, 2, false).await;
    until(
        &clock,
        state.as_ref(),
        "the availability is being read",
        async || provider.asked.load(Ordering::SeqCst) == 1,
    )
    .await;
    provider.gone.store(true, Ordering::SeqCst);
    told(&binding, 3, true).await;
    let others_at_rest = async || state.stats().claims == 1 && state.stats().marks == 1;
    until(
        &clock,
        state.as_ref(),
        "the binding is gone and at rest",
        async || !live(&binding).await && others_at_rest().await,
    )
    .await;
    provider.go_on.notify_one();
    until(&clock, state.as_ref(), "all is at rest", async || {
        state.stats().marks == 0
    })
    .await;
    live(&availability).await
}

#[tokio::test]
async fn what_is_first_read_while_its_binding_goes_is_looked_at_again() {
    assert!(!is_left_behind().await);
}
