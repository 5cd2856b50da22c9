//! The body of one request, whole or not at all.
//!
//! Owns: its size limit, and how much of a refused one is read on. Never here: more in memory than
//! [`MAX_BODY`] and one frame; a look into it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::observe::Class;
use super::refusal::Refusal;
use super::server::BodyTimeout;

/// The largest body that is read: real ones have a few hundred bytes.
const MAX_BODY: usize = 64 * 1024;

/// How much of a body that is refused is read and thrown away, so that its sender gets to see the
/// answer instead of a reset connection.
const MAX_DISCARD: usize = 1024 * 1024;

/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn too_large() -> Refusal {
    Refusal::new(
        Class::TooLarge,
        format!("body: expected at most {MAX_BODY} bytes\n"),
    )
}

/// Reads the whole body, up to the size limit.
pub(super) async fn read(mut body: Body, headers: &HeaderMap) -> Result<Bytes, Refusal> {
    if declared_length(headers).is_some_and(|length| length > MAX_BODY as u64) {
        discard(body, headers).await;
        return Err(too_large());
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(_trailers)) => continue,
            Err(error) => {
                return Err(if BodyTimeout::is_behind(&error) {
                    Refusal::new(Class::SlowBody, "body: came too slowly\n")
                } else {
                    Refusal::new(Class::CutBody, "body: broke off or is badly framed\n")
                });
            }
        };
        if first.len() + rest.len() + data.len() > MAX_BODY {
            discard(body, headers).await;
            return Err(too_large());
        }
        // Nearly every body comes in one piece, which is then not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

/// Reads on for a moment, so that a sender that is still busy sees the answer. Not when it waits
/// to be told to go on.
pub(super) async fn discard(mut body: Body, headers: &HeaderMap) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MAX_DISCARD {
                return;
            }
        }
    };
    if body_is_empty(headers) {
        return;
    }
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

fn body_is_empty(headers: &HeaderMap) -> bool {
    declared_length(headers).unwrap_or(0) == 0 && !headers.contains_key(header::TRANSFER_ENCODING)
}
