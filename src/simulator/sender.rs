//! Sends notifications as the provider does, and remembers what became of each.
//!
//! Owns: the bounded queue, bounded concurrency, retries (only after 408, 425, 429, 502, 503 and
//! 504, up to three, with growing delay), the 60 s time limit, and the record of every attempt.
//! Any 2xx other than 200 and any redirect is a failure that is not retried; redirects are never
//! followed (provider reference, webhooks page). Never here: which notifications exist.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kind::Kind;
use super::now_ms;
use super::record::{Attempt, Delivery, DeliveryCounts, Origin, Outcome};
use super::signing::{self, Scheme};
use crate::metrics::{Metrics, seconds_histogram};

/// The statuses after which the provider tries again.
pub(super) const RETRIED: [u16; 6] = [408, 425, 429, 502, 503, 504];

/// With what a notification is signed.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    pub(super) scheme: Scheme,
    pub(super) key: String,
    pub(super) skew_s: i64,
}

/// A notification to be sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) entity: String,
    pub(super) url: Arc<str>,
    pub(super) fields: Arc<Map<String, Value>>,
    pub(super) signer: Signer,
    /// Sign each attempt anew.
    pub(super) anew: bool,
    pub(super) retry_network: bool,
    pub(super) origin: Origin,
}

/// One place in the queue: what, and which attempt comes next.
#[derive(Debug)]
struct Item {
    due: Instant,
    id: u64,
    attempt: usize,
    body: Arc<str>,
    outgoing: Arc<Outgoing>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.id) == (other.due, other.id)
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.id).cmp(&(other.due, other.id))
    }
}

#[derive(Debug, Default)]
struct State {
    queue: BinaryHeap<Reverse<Item>>,
    records: VecDeque<(Delivery, Arc<Outgoing>)>,
    counts: DeliveryCounts,
}

impl State {
    fn record(&mut self, id: u64) -> Option<&mut (Delivery, Arc<Outgoing>)> {
        let first = self.records.front()?.0.id;
        let at = usize::try_from(id.checked_sub(first)?).ok()?;
        self.records.get_mut(at)
    }

    fn settle(&mut self, id: u64, outcome: Outcome) {
        let counts = &mut self.counts;
        counts.pending -= 1;
        *match outcome {
            Outcome::Pending => &mut counts.pending,
            Outcome::Delivered => &mut counts.delivered,
            Outcome::Refused => &mut counts.refused,
            Outcome::GaveUp => &mut counts.gave_up,
            Outcome::Lost => &mut counts.lost,
            Outcome::Dropped => &mut counts.dropped,
        } += 1;
        if let Some((record, _)) = self.record(id) {
            record.outcome = outcome;
        }
    }
}

/// How the sender works; constant for the life of a simulator.
#[derive(Debug, Clone)]
pub(super) struct SenderSettings {
    pub(super) retry_delays: Vec<Duration>,
    pub(super) concurrency: usize,
    pub(super) queue: usize,
    pub(super) remembered: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Attempts by result, and how long they took.
#[derive(Debug)]
pub(super) struct SenderMetrics {
    attempts: Family<ResultLabel, Counter>,
    seconds: Histogram,
}

impl SenderMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let this = Self {
            attempts: Family::default(),
            seconds: seconds_histogram(),
        };
        metrics.register(|registry| {
            registry.register(
                "simulator_attempts",
                "Attempts of the simulated provider to deliver a notification",
                this.attempts.clone(),
            );
            registry.register(
                "simulator_attempt_seconds",
                "How long the receiver took to answer an attempt",
                this.seconds.clone(),
            );
        });
        this
    }

    fn observe(&self, attempt: &Attempt) {
        let result = match attempt.status {
            Some(200) => "accepted",
            Some(status) if RETRIED.contains(&status) => "retriable",
            Some(_) => "refused",
            None => "no_answer",
        };
        self.attempts.get_or_create(&ResultLabel { result }).inc();
        self.seconds.observe(attempt.latency_ms / 1000.0);
    }
}

/// The queue and its records.
#[derive(Debug)]
pub(super) struct Sender {
    settings: SenderSettings,
    metrics: SenderMetrics,
    /// Where everything goes whatever the host in the rule's URL.
    deliver_to: Mutex<Option<String>>,
    client: reqwest::Client,
    rng: Arc<Mutex<fastrand::Rng>>,
    state: Mutex<State>,
    wake: Notify,
    settled: Notify,
}

impl Sender {
    pub(super) fn new(
        settings: SenderSettings,
        metrics: SenderMetrics,
        deliver_to: Option<String>,
        client: reqwest::Client,
        rng: Arc<Mutex<fastrand::Rng>>,
    ) -> Self {
        Self {
            settings,
            metrics,
            deliver_to: Mutex::new(deliver_to),
            client,
            rng,
            state: Mutex::default(),
            wake: Notify::new(),
            settled: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the next attempt on, everything goes to another base address.
    pub(super) fn set_deliver_to(&self, base: Option<String>) {
        *self
            .deliver_to
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = base;
    }

    /// Where an attempt for a rule really goes: the path is always the rule's.
    fn target(&self, rule_url: &str) -> String {
        let base = self
            .deliver_to
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (base.as_deref(), reqwest::Url::parse(rule_url)) {
            (Some(base), Ok(url)) => {
                let query = url.query().map_or_else(String::new, |q| format!("?{q}"));
                format!("{base}{}{query}", url.path())
            }
            _ => rule_url.to_owned(),
        }
    }

    fn token(&self) -> String {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{:016x}", rng.u64(..))
    }

    fn sign(&self, outgoing: &Outgoing) -> Arc<str> {
        let timestamp = now_ms().div_euclid(1000) + outgoing.signer.skew_s;
        let token = self.token();
        let sum = signing::sum(
            outgoing.signer.scheme,
            &outgoing.signer.key,
            timestamp,
            &token,
        );
        let mut body = (*outgoing.fields).clone();
        body.insert(
            "signature".to_owned(),
            json!({ "sum": sum, "timestamp": timestamp, "token": token }),
        );
        Value::Object(body).to_string().into()
    }

    /// Signs a notification and puts it into the queue, to be sent after `delay`.
    pub(super) fn post(&self, outgoing: Outgoing, delay: Duration) -> u64 {
        let body = self.sign(&outgoing);
        self.enqueue(Arc::new(outgoing), body, Some(delay))
    }

    /// Records a notification that a fault drops.
    pub(super) fn post_dropped(&self, outgoing: Outgoing) -> u64 {
        let body = self.sign(&outgoing);
        self.enqueue(Arc::new(outgoing), body, None)
    }

    /// Sends a remembered notification again exactly as it was. `None`: it is not remembered.
    pub(super) fn repeat(&self, of: u64, delay: Duration) -> Option<u64> {
        let (body, outgoing) = {
            let mut state = self.state();
            let (record, outgoing) = state.record(of)?;
            (Arc::clone(&record.body), (**outgoing).clone())
        };
        let outgoing = Outgoing {
            anew: false,
            origin: Origin::Repeat { of },
            ..outgoing
        };
        Some(self.enqueue(Arc::new(outgoing), body, Some(delay)))
    }

    /// Sends some remembered notification again.
    pub(super) fn repeat_any(&self, pick: u64) -> Option<u64> {
        let of = {
            let state = self.state();
            let first = state.records.front()?.0.id;
            first + pick % state.records.len() as u64
        };
        self.repeat(of, Duration::ZERO)
    }

    fn enqueue(&self, outgoing: Arc<Outgoing>, body: Arc<str>, delay: Option<Duration>) -> u64 {
        let mut state = self.state();
        state.counts.made += 1;
        let id = state.counts.made;
        let full = state.queue.len() >= self.settings.queue;
        if matches!(outgoing.origin, Origin::Repeat { .. }) {
            state.counts.repeats += 1;
        }
        state.counts.pending += 1;
        if state.records.len() >= self.settings.remembered.max(1) {
            state.records.pop_front();
        }
        let record = Delivery {
            id,
            kind: outgoing.kind,
            entity: outgoing.entity.clone(),
            url: Arc::clone(&outgoing.url),
            created_ms: now_ms(),
            body: Arc::clone(&body),
            origin: outgoing.origin,
            attempts: Vec::new(),
            outcome: Outcome::Pending,
        };
        state.records.push_back((record, Arc::clone(&outgoing)));
        match delay.filter(|_| !full) {
            None => state.settle(id, Outcome::Dropped),
            Some(delay) => state.queue.push(Reverse(Item {
                due: Instant::now() + delay,
                id,
                attempt: 0,
                body,
                outgoing,
            })),
        }
        drop(state);
        self.wake.notify_one();
        self.settled.notify_waiters();
        id
    }

    pub(super) fn count_unasked(&self) {
        self.state().counts.unasked += 1;
    }

    pub(super) fn counts(&self) -> DeliveryCounts {
        self.state().counts.clone()
    }

    /// Remembered deliveries with an id above `after`, oldest first.
    pub(super) fn deliveries(&self, after: u64, limit: usize) -> Vec<Delivery> {
        let state = self.state();
        let first = state.records.front().map_or(1, |(record, _)| record.id);
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        state
            .records
            .iter()
            .skip(skip)
            .take(limit)
            .map(|(record, _)| record.clone())
            .collect()
    }

    /// Waits until nothing is pending; false when `limit` passed first.
    pub(super) async fn idle(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, async {
            loop {
                let settled = self.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if self.state().counts.pending == 0 {
                    return;
                }
                settled.await;
            }
        })
        .await
        .is_ok()
    }

    /// Sends what is due until the token is cancelled.
    pub(super) async fn run(self: Arc<Self>, token: CancellationToken) {
        let mut flights = JoinSet::new();
        loop {
            let (ready, next) = self.take_due(self.settings.concurrency - flights.len());
            for item in ready {
                flights.spawn(Arc::clone(&self).attempt(item));
            }
            let free = flights.len() < self.settings.concurrency;
            tokio::select! {
                () = token.cancelled() => return,
                () = self.wake.notified() => {}
                Some(_) = flights.join_next() => {}
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)),
                    if free && next.is_some() => {}
            }
        }
    }

    fn take_due(&self, free: usize) -> (Vec<Item>, Option<Instant>) {
        let mut state = self.state();
        let now = Instant::now();
        let mut ready = Vec::new();
        while ready.len() < free && state.queue.peek().is_some_and(|Reverse(i)| i.due <= now) {
            ready.extend(state.queue.pop().map(|Reverse(item)| item));
        }
        (ready, state.queue.peek().map(|Reverse(item)| item.due))
    }

    async fn attempt(self: Arc<Self>, mut item: Item) {
        if item.attempt > 0 && item.outgoing.anew {
            item.body = self.sign(&item.outgoing);
        }
        let at_ms = now_ms();
        let begun = Instant::now();
        let sent = self
            .client
            .post(self.target(&item.outgoing.url))
            .header("content-type", "application/json")
            .body(item.body.to_string())
            .send()
            .await;
        let (status, error) = match sent {
            Ok(answer) => (Some(finish(answer).await), None),
            Err(error) if error.is_timeout() => (None, Some("timeout")),
            Err(error) if error.is_connect() => (None, Some("connect")),
            Err(_) => (None, Some("network")),
        };
        let attempt = Attempt {
            at_ms,
            status,
            error,
            latency_ms: begun.elapsed().as_secs_f64() * 1000.0,
        };
        self.metrics.observe(&attempt);
        self.after(item, attempt);
    }

    /// Records an attempt and decides what comes next.
    fn after(&self, mut item: Item, attempt: Attempt) {
        let mut state = self.state();
        let counts = &mut state.counts;
        counts.attempts += 1;
        counts.latency_ms_sum += attempt.latency_ms;
        counts.latency_ms_max = counts.latency_ms_max.max(attempt.latency_ms);
        if let Some(status) = attempt.status {
            *counts.statuses.entry(status).or_default() += 1;
        }
        if let Some(error) = attempt.error {
            *counts.errors.entry(error).or_default() += 1;
        }
        let again = match attempt.status {
            Some(status) => RETRIED.contains(&status),
            None => item.outgoing.retry_network,
        };
        let outcome = match attempt.status {
            Some(200) => Outcome::Delivered,
            None if !again => Outcome::Lost,
            Some(_) if !again => Outcome::Refused,
            _ => Outcome::GaveUp,
        };
        if let Some((record, _)) = state.record(item.id) {
            record.attempts.push(attempt);
            record.body = Arc::clone(&item.body);
        }
        match self
            .settings
            .retry_delays
            .get(item.attempt)
            .filter(|_| again)
        {
            Some(delay) => {
                item.attempt += 1;
                item.due = Instant::now() + *delay;
                state.queue.push(Reverse(item));
            }
            None => state.settle(item.id, outcome),
        }
        drop(state);
        self.wake.notify_one();
        self.settled.notify_waiters();
    }
}

/// Reads a little of the answer's body, so that the connection can be used again; it is ignored.
async fn finish(mut answer: reqwest::Response) -> u16 {
    const LIMIT: usize = 64 * 1024;
    let status = answer.status().as_u16();
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > LIMIT {
            break;
        }
    }
    status
}
