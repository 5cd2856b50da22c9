//! The body of a request on its way in, and that of an answer on its way out.
//!
//! Owns: how long the one may take, and that the connection is busy until the other is written.
//!
//! Never here: a body of a request that nothing ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use hyper::body::Incoming;

use super::peers::{Busy, Peer};

/// The error of a request body that took longer than [`super::ServerOptions::body_timeout`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request's body came too slowly")]
pub struct BodyTimeout;

impl BodyTimeout {
    /// Whether `error`, or a cause of it, is a body's time limit.
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// A body with a time limit, which ends early when its connection has to give way. The timer is
/// made only when the body is not there at once.
pub(super) struct TimedBody {
    inner: Incoming,
    limit: Duration,
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    peer: Arc<Peer>,
}

impl TimedBody {
    pub fn new(inner: Incoming, limit: Duration, peer: Arc<Peer>) -> Self {
        Self {
            inner,
            limit,
            over: None,
            peer,
        }
    }

    fn over(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (limit, evicted) = (self.limit, self.peer.evicted.clone());
        Box::pin(async move {
            // Either way its sender was too slow, and is told so.
            let _ = tokio::time::timeout(limit, evicted.cancelled()).await;
        })
    }
}

impl Drop for TimedBody {
    fn drop(&mut self) {
        self.peer.received();
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            if this.inner.is_end_stream() || !matches!(frame, Some(Ok(_))) {
                this.peer.received();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.over.is_none() {
            this.over = Some(this.over());
        }
        if let Some(over) = &mut this.over {
            ready!(over.as_mut().poll(context));
        }
        this.peer.received();
        Poll::Ready(Some(Err(BodyTimeout.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body is given out in pieces of this size: the next is taken when there is room for
/// it, so that the last one tells that nearly all is written.
const PIECE: usize = 16 * 1024;

/// The body of an answer: its connection is busy until the last of it was taken.
struct Outgoing {
    inner: Body,
    rest: Bytes,
    _busy: Busy,
}

/// Keeps the connection busy until this answer is given out.
pub(super) fn outgoing(response: Response<Body>, busy: Busy) -> Response<Body> {
    let size = http_body::Body::size_hint(response.body());
    if size.exact().is_some_and(|size| size <= PIECE as u64) {
        // Taken as a whole, at once.
        return response;
    }
    response.map(|inner| {
        Body::new(Outgoing {
            inner,
            rest: Bytes::new(),
            _busy: busy,
        })
    })
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = http_body::SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
