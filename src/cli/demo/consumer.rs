//! A consumer as anybody would write it: lists the feed, then follows its event stream.
//!
//! Owns: what it holds, whether anything ever went back, and how long changes took to arrive.
//! Never here: knowledge of the store or of anything that did not come over HTTP.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

use super::account::Account;
use crate::clock::{Clock, SystemClock, UnixMillis};

/// A consumer that follows the feed until it is dropped.
pub struct Consumer {
    view: Arc<Mutex<View>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct View {
    /// Revision and data by key; `None`: removed.
    held: BTreeMap<String, (u64, Option<Value>)>,
    went_back: Vec<String>,
    events: u64,
    /// Changes that have not been seen yet, by key.
    expected: HashMap<String, Vec<UnixMillis>>,
    latencies: Vec<Duration>,
    /// Changes that arrived together with a later one of their entity.
    coalesced: u64,
    narrator: Option<Account>,
}

fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consumer {
    /// Follows the feed at `base` (`http://127.0.0.1:8082`), through its restarts.
    pub fn start(base: String) -> Self {
        let view = Arc::new(Mutex::new(View::default()));
        let task = tokio::spawn(follow(base, view.clone()));
        Self { view, task }
    }

    /// Says each event on the account from now on.
    pub fn narrate(&self, account: Account) {
        lock(&self.view).narrator = Some(account);
    }

    /// `key` changes at the provider now: counts the time until the consumer sees it.
    pub fn expect(&self, key: &str, at: UnixMillis) {
        lock(&self.view)
            .expected
            .entry(key.to_owned())
            .or_default()
            .push(at);
    }

    /// Entities held.
    pub fn live(&self) -> usize {
        lock(&self.view)
            .held
            .values()
            .filter(|(_, data)| data.is_some())
            .count()
    }

    /// Events read.
    pub fn events(&self) -> u64 {
        lock(&self.view).events
    }

    /// Changes that one event brought together with a later change of the same entity.
    pub fn coalesced(&self) -> u64 {
        lock(&self.view).coalesced
    }

    /// Entities of which an older revision came after a newer one. Always empty, or Bellhop is
    /// broken.
    pub fn went_back(&self) -> Vec<String> {
        lock(&self.view).went_back.clone()
    }

    /// How long changes took from notification to here, sorted.
    pub fn latencies(&self) -> Vec<Duration> {
        let mut all = lock(&self.view).latencies.clone();
        all.sort_unstable();
        all
    }

    /// The keys under which this consumer holds something else than `truth`.
    pub fn differences(&self, truth: &[(String, Value)]) -> Vec<String> {
        let view = lock(&self.view);
        let mut different: Vec<String> = truth
            .iter()
            .filter(|(key, value)| {
                view.held.get(key).and_then(|(_, data)| data.as_ref()) != Some(value)
            })
            .map(|(key, _)| key.clone())
            .collect();
        let known: std::collections::HashSet<&str> =
            truth.iter().map(|(key, _)| key.as_str()).collect();
        different.extend(
            view.held
                .iter()
                .filter(|(key, (_, data))| data.is_some() && !known.contains(key.as_str()))
                .map(|(key, _)| key.clone()),
        );
        different
    }
}

impl View {
    fn take(&mut self, event: &Value, now: UnixMillis) {
        let Some(key) = event["subject"].as_str() else {
            return;
        };
        let revision: u64 = event["sequence"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        self.events += 1;
        let before = self.held.get(key).map_or(0, |(revision, _)| *revision);
        if revision < before {
            self.went_back.push(key.to_owned());
        }
        if revision <= before {
            return;
        }
        let removed = event["type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with(".removed"));
        let data = if removed {
            None
        } else {
            Some(event["data"].clone())
        };
        self.held.insert(key.to_owned(), (revision, data));
        let fetched = event["time"].as_str().and_then(UnixMillis::parse_rfc3339);
        let mut newest = None;
        if let (Some(fetched), Some(expected)) = (fetched, self.expected.get_mut(key)) {
            let covered: Vec<UnixMillis> = expected.extract_if(.., |at| *at <= fetched).collect();
            self.coalesced += covered.len().saturating_sub(1) as u64;
            newest = covered.last().map(|at| now.since(*at));
            self.latencies
                .extend(covered.iter().map(|at| now.since(*at)));
        }
        if let Some(account) = &self.narrator {
            let kind = event["type"].as_str().unwrap_or_default();
            let took = newest.map_or_else(String::new, |took| {
                format!(", {} ms after the notification", took.as_millis())
            });
            account.detail(&format!("{kind}  {key}  revision {revision}{took}"));
        }
    }
}

/// Lists, then watches; lists again when the feed says so; comes back after a broken connection.
async fn follow(base: String, view: Arc<Mutex<View>>) {
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap_or_default();
    let mut cursor: Option<String> = None;
    loop {
        let from = match cursor.take() {
            Some(cursor) => Some(cursor),
            None => list(&http, &base, &view).await,
        };
        if let Some(from) = from {
            cursor = watch(&http, &base, from, &view).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// All pages; the cursor to watch from, or `None` when the feed did not answer.
async fn list(http: &reqwest::Client, base: &str, view: &Mutex<View>) -> Option<String> {
    let clock = SystemClock::new();
    let mut next: Option<String> = None;
    loop {
        let mut url = reqwest::Url::parse(&format!("{base}/v1/entities?limit=500")).ok()?;
        if let Some(token) = &next {
            url.query_pairs_mut().append_pair("continue", token);
        }
        let answer = http.get(url).send().await.ok()?.error_for_status().ok()?;
        let page: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        for event in page["items"].as_array()? {
            lock(view).take(event, clock.now());
        }
        next = page["continue"].as_str().map(str::to_owned);
        if next.is_none() {
            return page["cursor"].as_str().map(str::to_owned);
        }
    }
}

/// Follows the stream until it breaks; the cursor to go on from, `None` to list again.
async fn watch(
    http: &reqwest::Client,
    base: &str,
    mut cursor: String,
    view: &Mutex<View>,
) -> Option<String> {
    let clock = SystemClock::new();
    let request = http
        .get(format!("{base}/v1/events"))
        .header("accept", "text/event-stream")
        .header("last-event-id", &cursor);
    let Ok(answer) = request.send().await else {
        return Some(cursor);
    };
    if answer.status() == reqwest::StatusCode::GONE {
        return None;
    }
    if !answer.status().is_success() {
        return Some(cursor);
    }
    let mut stream = answer.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(Ok(bytes)) = stream.next().await {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let message: Vec<u8> = buffer.drain(..end + 2).collect();
            let message = String::from_utf8_lossy(&message);
            let mut data = String::new();
            for line in message.lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    id.clone_into(&mut cursor);
                } else if let Some(part) = line.strip_prefix("data: ") {
                    data.push_str(part);
                } else if line == "event: gone" {
                    return None;
                }
            }
            if let Ok(event) = serde_json::from_str(&data) {
                lock(view).take(&event, clock.now());
            }
        }
    }
    Some(cursor)
}
