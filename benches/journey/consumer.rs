//! The whole way, from a notification to a consumer of the feed: load and consumer in one process,
//! so that one clock sees both ends.
//!
//! Owns: the consumer (an SSE stream), and which event answers which notification: an entity is
//! named again only long after its event came. Never here: a second consumer, or a poll.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hdrhistogram::Histogram;

use crate::answered::{Answered, histogram};
use crate::arguments::Arguments;
use crate::load::{self, rate_ids};
use crate::roles::{load_of, text};

/// What the consumer saw so far.
struct Seen {
    /// Notifications that no event has answered, by rate id.
    waiting: HashMap<String, Instant>,
    latency: Histogram<u64>,
    events: u64,
    last_version: Option<u64>,
}

/// Sends the load, follows the feed, and goes on listening for a while.
pub async fn run(arguments: &Arguments) -> Result<Answered, String> {
    let feed: SocketAddr = arguments.need("feed")?;
    let after = Duration::from_secs_f64(arguments.need("after")?);
    let seen = Rc::new(RefCell::new(Seen {
        waiting: HashMap::new(),
        latency: histogram(),
        events: 0,
        last_version: None,
    }));
    let response = reqwest::Client::new()
        .get(format!("http://{feed}/v1/events?after=latest"))
        .header("accept", "text/event-stream")
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(text)?;
    let follower = tokio::task::spawn_local(follow(response, seen.clone()));
    if let Some(provider) = arguments.get::<SocketAddr>("begin")? {
        let url = format!("http://{provider}/control/begin");
        let begun = reqwest::Client::new().post(url).send().await;
        begun
            .and_then(reqwest::Response::error_for_status)
            .map_err(text)?;
    }
    let started = Instant::now();
    let mut load = load_of(arguments)?;
    let notes = seen.clone();
    load.told = Some(Rc::new(move |index, due| {
        let [_, _, rate] = rate_ids(index);
        notes.borrow_mut().waiting.insert(rate, due);
    }));
    let sent = load::run(load).await.map_err(text)?;
    let elapsed = started.elapsed();
    if sent.other > 0 {
        return Err(format!("{} notifications did not get a 200", sent.other));
    }
    tokio::time::sleep(after).await;
    if follower.is_finished() {
        return Err(match follower.await {
            Ok(Err(problem)) => problem,
            _ => "the feed ended".to_owned(),
        });
    }
    follower.abort();
    let seen = seen.borrow();
    let missing = seen.waiting.len() as u64;
    Ok(Answered {
        last_version: seen.last_version,
        ..Answered::new(seen.events, missing, elapsed, &seen.latency)
    })
}

/// Reads events as they come, for ever.
async fn follow(response: reqwest::Response, seen: Rc<RefCell<Seen>>) -> Result<(), String> {
    let mut stream = response.bytes_stream();
    let mut buffer = String::new();
    while let Some(chunk) = stream.next().await {
        buffer.push_str(&String::from_utf8_lossy(&chunk.map_err(text)?));
        let now = Instant::now();
        while let Some(end) = buffer.find("\n\n") {
            let event: String = buffer.drain(..end + 2).collect();
            if event.contains("data:") {
                seen.borrow_mut().take(&event, now);
            }
        }
    }
    Err("the feed ended".to_owned())
}

impl Seen {
    fn take(&mut self, event: &str, now: Instant) {
        self.events += 1;
        if let Some(version) = after(event, "\"version\":") {
            let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
            self.last_version = digits.parse().ok();
        }
        let rate = after(event, "\"subject\":\"rate/")
            .and_then(|rest| rest.split('"').next())
            .and_then(|key| key.rsplit('/').next());
        if let Some(due) = rate.and_then(|rate| self.waiting.remove(rate)) {
            let micros = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
            self.latency.saturating_record(micros.max(1));
        }
    }
}

/// What follows `word`.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.find(word).map(|at| &text[at + word.len()..])
}
