//! Sends notifications as the provider does, and remembers what became of each.
//!
//! Owns: the bounded queue, bounded concurrency, retries (only after 408, 425, 429, 502, 503 and
//! 504, up to three, with growing delay), the 60 s time limit, and the record of every attempt.
//! Any 2xx other than 200 and any redirect is a failure that is not retried; redirects are never
//! followed (provider reference, webhooks page). Never here: which notifications exist.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kind::Kind;
use super::now_ms;
use super::signing::{self, Scheme};

/// The statuses after which the provider tries again.
pub(super) const RETRIED: [u16; 6] = [408, 425, 429, 502, 503, 504];

/// How far a notification got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It waits for its time, for an attempt or for an answer.
    Pending,
    /// It was answered 200.
    Delivered,
    /// It was answered something else that is not retried.
    Refused,
    /// It was answered a retried status each time.
    GaveUp,
    /// The connection failed or timed out, and that is not retried.
    Lost,
    /// A fault dropped it, or the queue was full; it was never sent.
    Dropped,
}

/// Why a notification exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Something changed.
    Change,
    /// A fault sent it twice, or replayed it; `of` names the first one.
    Repeat {
        /// The delivery that it repeats.
        of: u64,
    },
    /// The control API asked for it.
    Control,
}

/// One try at sending a notification.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began, Unix milliseconds.
    pub at_ms: i64,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why there was none: `timeout`, `connect` or `network`.
    pub error: Option<&'static str>,
    /// How long the answer took, in milliseconds.
    pub latency_ms: f64,
}

/// One notification and all that happened to it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Counts up from 1.
    pub id: u64,
    /// The rule that it belongs to.
    pub kind: Kind,
    /// The key of the entity that it names.
    pub entity: String,
    /// Where it was sent.
    #[serde(serialize_with = "as_text")]
    pub url: Arc<str>,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// The body of the last attempt, or of the first if there was none yet.
    #[serde(serialize_with = "as_text")]
    pub body: Arc<str>,
    /// Why it exists.
    pub origin: Origin,
    /// Every attempt so far.
    pub attempts: Vec<Attempt>,
    /// How far it got.
    pub outcome: Outcome,
}

/// serde knows shared text only with a feature that nothing else needs.
fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Numbers over all notifications since the start, also of those no longer remembered.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// Notifications made, repeats included.
    pub made: u64,
    /// Repeats among them.
    pub repeats: u64,
    /// Not settled yet.
    pub pending: u64,
    /// Answered 200.
    pub delivered: u64,
    /// Answered something that is not retried.
    pub refused: u64,
    /// All attempts answered a retried status.
    pub gave_up: u64,
    /// Connection failed or timed out.
    pub lost: u64,
    /// Never sent: a fault, or a full queue.
    pub dropped: u64,
    /// Changes that no rule asked for: no rule, disabled, other operation, filtered out.
    pub unasked: u64,
    /// Attempts.
    pub attempts: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Failed attempts without an answer, by class.
    pub errors: BTreeMap<&'static str, u64>,
    /// Sum of the latencies of all attempts, in milliseconds.
    pub latency_ms_sum: f64,
    /// The longest latency, in milliseconds.
    pub latency_ms_max: f64,
}

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

/// The queue and its records.
#[derive(Debug)]
pub(super) struct Sender {
    settings: SenderSettings,
    client: reqwest::Client,
    rng: Arc<Mutex<fastrand::Rng>>,
    state: Mutex<State>,
    wake: Notify,
    settled: Notify,
}

impl Sender {
    pub(super) fn new(
        settings: SenderSettings,
        client: reqwest::Client,
        rng: Arc<Mutex<fastrand::Rng>>,
    ) -> Self {
        Self {
            settings,
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
            .post(&*item.outgoing.url)
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
