//! How an answer goes out: whole, or broken as a fault asks for.
//!
//! Owns: the bytes on the wire. Never here: which answer, or which fault.

use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::Value;

use super::Answer;

fn response(answer: &Answer, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !answer.body.is_empty() {
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(answer.content_type),
        );
    }
    for (name, value) in &answer.headers {
        if let Ok(value) = header::HeaderValue::from_str(value) {
            headers.insert(header::HeaderName::from_static(name), value);
        }
    }
    response
}

pub(super) fn plain(answer: Answer) -> Response {
    let body = Body::from(answer.body.clone());
    response(&answer, body)
}

/// The right length, half the body, then the connection ends.
pub(super) fn cut(answer: Answer) -> Response {
    let half = answer.body.slice(..answer.body.len() / 2);
    // Without a pause the server would drop the connection before it has sent the first half.
    let broken = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(broken_off())
    };
    streamed(answer, stream::iter([Ok(half)]).chain(stream::once(broken)))
}

/// Not even a status: the server drops what it has not sent when the body fails at once.
pub(super) fn abort(answer: Answer) -> Response {
    streamed(answer, stream::iter([Err(broken_off())]))
}

/// The whole answer, with a pause in the middle of its body.
pub(super) fn paused(answer: Answer, pause_ms: u64) -> Response {
    let (first, second) = (
        answer.body.slice(..answer.body.len() / 2),
        answer.body.slice(answer.body.len() / 2..),
    );
    let second = async move {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        Ok(second)
    };
    streamed(
        answer,
        stream::iter([Ok(first)]).chain(stream::once(second)),
    )
}

fn broken_off() -> std::io::Error {
    std::io::Error::other("broken off by a fault")
}

/// An answer that states its length, with its body in pieces.
fn streamed(
    answer: Answer,
    pieces: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Response {
    let length = answer.body.len().to_string();
    response(
        &answer.with("content-length", length),
        Body::from_stream(pieces),
    )
}

/// A JSON text of about `size` bytes, made as it is sent.
pub(super) fn huge(size: u64) -> Response {
    const CHUNK: u64 = 64 * 1024;
    let filler = Bytes::from(vec![b'x'; CHUNK as usize]);
    let chunks = (0..size.div_ceil(CHUNK)).map(move |_| Ok(filler.clone()));
    let text = std::iter::once(Ok::<_, std::io::Error>(Bytes::from_static(
        b"{\"meta\":{\"reqId\":\"",
    )))
    .chain(chunks)
    .chain(std::iter::once(Ok(Bytes::from_static(b"\"}}"))));
    response(
        &Answer::json(200, &Value::Null),
        Body::from_stream(stream::iter(text)),
    )
}
