//! The watch: batches with long polling, and streams of server-sent events.
//!
//! Owns: where a watch begins, when it ends, and its pace. A stream reads from the store only
//! when its connection has room for more, a bounded piece at a time.
//!
//! Never here: an event skipped without the consumer being told to list again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::super::event;
use super::cursor::{cursor, parse_cursor};
use super::list::typed;
use super::problem::Problem;
use super::query::{Query, wants_stream};
use super::watchers::Place;
use super::{CURSOR_HEADER, Feed, LetIn};
use crate::state::{EventsGone, Sequence, StoredEvent};

/// Data in one batch, in bytes, at most (one event may be larger).
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Events and bytes that a stream reads at a time: what one connection can hold in memory.
const PIECE: (usize, usize) = (64, 256 * 1024);
/// Reads from the oldest kept event are begun anew so often when retention overtakes them.
const TRIES: usize = 5;

pub(super) async fn events(
    Shared(feed): Shared<Arc<Feed>>,
    Extension(let_in): Extension<LetIn>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !wants_stream(&headers) {
        let query = Query::of(&uri, &["after", "wait", "limit"])?;
        return batch(&feed, &query).await;
    }
    let query = Query::of(&uri, &["after"])?;
    let from = match headers.get("last-event-id") {
        Some(id) => {
            let id = id.to_str().unwrap_or_default();
            From::After(parse_cursor("Last-Event-ID", id, feed.origin.epoch())?)
        }
        None => From::of(&feed, query.get("after"))?,
    };
    stream_from(feed, let_in, from).await
}

/// Where a watch begins.
#[derive(Clone, Copy)]
enum From {
    Oldest,
    After(Sequence),
}

impl From {
    fn of(feed: &Feed, after: Option<&str>) -> Result<Self, Problem> {
        match after {
            None => Ok(Self::Oldest),
            Some("latest") => Ok(Self::After(*feed.state.head().borrow())),
            Some(text) => parse_cursor("after", text, feed.origin.epoch()).map(Self::After),
        }
    }
}

/// Reads on from a place; gives it back with the events.
async fn read(
    feed: &Feed,
    from: From,
    limit: usize,
    bytes: usize,
) -> Result<(Sequence, Vec<StoredEvent>), Problem> {
    for _ in 0..TRIES {
        let after = match from {
            From::Oldest => feed.state.oldest().await?,
            From::After(after) => after,
        };
        match (feed.state.events(after, limit, bytes).await?, from) {
            (Ok(events), _) => return Ok((after, events)),
            (Err(gone), From::After(_)) => return Err(gone.into()),
            // Retention went on between the two questions.
            (Err(_), From::Oldest) => {}
        }
    }
    Err(EventsGone::Expired.into())
}

async fn batch(feed: &Arc<Feed>, query: &Query) -> Result<Response, Problem> {
    let (limit, wait) = (query.limit()?, query.wait()?);
    let from = From::of(feed, query.get("after"))?;
    let mut head = feed.state.head();
    head.mark_unchanged();
    let (mut after, mut events) = read(feed, from, limit, BATCH_BYTES).await?;
    if events.is_empty() && !wait.is_zero() {
        let _place = enter(feed)?;
        let until = feed.clock.ticks().after(wait);
        while events.is_empty() {
            let left = until.since(feed.clock.ticks());
            if !news(feed, &mut head, left).await {
                break;
            }
            (after, events) = read(feed, From::After(after), limit, BATCH_BYTES).await?;
        }
    }
    let next = events.last().map_or(after, |event| event.sequence);
    feed.served(events.len());
    let mut response = typed(event::BATCH, feed.origin.batch(&events));
    let next = HeaderValue::from_str(&cursor(feed.origin.epoch(), next));
    response.headers_mut().insert(
        HeaderName::from_static(CURSOR_HEADER),
        next.expect("an epoch in hex and a number"),
    );
    Ok(response)
}

/// Waits for a new event: `false` when the time is up or the process ends.
async fn news(feed: &Feed, head: &mut watch::Receiver<Sequence>, limit: Duration) -> bool {
    tokio::select! {
        biased;
        () = feed.stop.cancelled() => false,
        changed = head.changed() => changed.is_ok(),
        () = feed.clock.sleep(limit) => false,
    }
}

fn enter(feed: &Feed) -> Result<Place, Problem> {
    let place = feed.watchers.enter(feed.clock.ticks());
    place.ok_or_else(|| Problem::busy("too many consumers watch the feed", Duration::from_secs(5)))
}

/// One consumer's stream.
struct Watch {
    feed: Arc<Feed>,
    let_in: LetIn,
    place: Place,
    head: watch::Receiver<Sequence>,
    at: Sequence,
    ready: VecDeque<StoredEvent>,
    greeted: bool,
    over: bool,
}

async fn stream_from(feed: Arc<Feed>, let_in: LetIn, from: From) -> Result<Response, Problem> {
    let place = enter(&feed)?;
    let mut head = feed.state.head();
    head.mark_unchanged();
    // Read before the answer begins, so that a cursor that is gone gets a plain 410.
    let (at, events) = read(&feed, from, PIECE.0, PIECE.1).await?;
    let watch = Watch {
        feed,
        let_in,
        place,
        head,
        at,
        ready: events.into(),
        greeted: false,
        over: false,
    };
    let pieces = stream::unfold(watch, |mut watch| async move {
        let piece = watch.piece().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), watch))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks nginx, which buffers by default, to pass events on as they come.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Watch {
    /// The next piece of the stream; `None` at its end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        if !self.greeted {
            self.greeted = true;
            return Some(self.sign("connected"));
        }
        loop {
            let auth = &self.feed.auth;
            if self.feed.stop.is_cancelled() || !auth.holds(self.let_in.0.as_ref()) {
                return None;
            }
            if !self.place.keep(self.feed.clock.ticks()) {
                return None;
            }
            if let Some(piece) = self.take() {
                return Some(piece);
            }
            match read(&self.feed, From::After(self.at), PIECE.0, PIECE.1).await {
                Ok((_, events)) if events.is_empty() => {}
                Ok((_, events)) => {
                    self.ready = events.into();
                    continue;
                }
                Err(problem) => {
                    self.over = true;
                    return Some(format!("event: gone\ndata: {}\n\n", problem.body()).into_bytes());
                }
            }
            let heartbeat = self.feed.limits.heartbeat;
            if !news(&self.feed, &mut self.head, heartbeat).await {
                return (!self.feed.stop.is_cancelled()).then(|| self.sign("alive"));
            }
        }
    }

    /// A comment and the place. An `id` without data is no event, but is what a consumer that
    /// reconnects sends as `Last-Event-ID`, also when no event came yet.
    fn sign(&self, word: &str) -> Vec<u8> {
        let at = cursor(self.feed.origin.epoch(), self.at);
        format!(": {word}\nid: {at}\n\n").into_bytes()
    }

    /// What was read, written out, up to the size of a piece.
    fn take(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut count = 0;
        while out.len() < PIECE.1
            && let Some(event) = self.ready.pop_front()
        {
            self.at = event.sequence;
            count += 1;
            let at = cursor(self.feed.origin.epoch(), self.at);
            out.extend_from_slice(format!("id: {at}\n").as_bytes());
            write_data(&self.feed.origin.structured(&event), &mut out);
        }
        self.feed.served(count);
        (count > 0).then_some(out)
    }
}

/// `data:` lines. Line breaks in the provider's JSON stand between its tokens only: the reader
/// joins the lines with line feeds again.
fn write_data(json: &[u8], out: &mut Vec<u8>) {
    let mut rest = json;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let line = &rest[..end.unwrap_or(rest.len())];
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
        let Some(end) = end else {
            out.push(b'\n');
            return;
        };
        let pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(pair)..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_with_line_breaks_takes_several_lines() {
        let mut out = Vec::new();
        write_data(b"{\n \"a\":\r\n1}\r", &mut out);
        assert_eq!(out, b"data: {\ndata:  \"a\":\ndata: 1}\ndata: \n\n");
    }
}
