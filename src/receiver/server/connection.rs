//! One connection: its time limits, its requests, its end.
//!
//! Owns: what is answered before the router is asked, and how a connection ends. Which of them
//! are open, and who has to go, is for [`super::peers`].
//!
//! Never here: a connection that outlives [`super::serve`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::Service;

use super::ServerOptions;
use super::body::{TimedBody, outgoing};
use super::lengths::Watched;
use super::peers::{Admitted, Peer, Peers};

/// The most that a request's head may have.
const MAX_HEAD: usize = 16 * 1024;

/// The most header lines of a request.
const MAX_HEADERS: usize = 64;

/// The most that is read ahead on a connection.
const MAX_BUFFER: usize = 64 * 1024;

/// How long a connection that was told to go may take to send what it has.
const CLOSE_TIME: Duration = Duration::from_millis(200);

/// The most that is read and thrown away at the end of a connection.
const MAX_LEFTOVER: u64 = 256 * 1024;

/// The answer to a head that came too slowly.
const SLOW_HEAD: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 22\r\n\r\nhead: came too slowly\n";

/// The connections of one port.
pub(super) struct Connections {
    options: ServerOptions,
    router: Router,
    http: http1::Builder,
    acceptor: Option<RustlsAcceptor>,
    draining: AtomicBool,
    pub peers: Arc<Peers>,
}

impl Connections {
    pub fn new(
        options: ServerOptions,
        router: Router,
        acceptor: Option<RustlsAcceptor>,
    ) -> Arc<Self> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER);
        Arc::new(Self {
            acceptor: acceptor.map(|tls| tls.handshake_timeout(options.header_timeout)),
            peers: Peers::new(options.max_connections),
            options,
            router,
            http,
            draining: AtomicBool::new(false),
        })
    }

    pub fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    async fn answer(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let busy = peer.begin(!request.body().is_end_stream());
        if peer.beyond {
            return all_busy();
        }
        if self.draining() && self.options.refuse_while_draining {
            return shutting_down();
        }
        if request.headers().contains_key(header::TRANSFER_ENCODING)
            && peer.length_seen.load(Ordering::Relaxed)
        {
            return two_lengths();
        }
        let limit = self.options.body_timeout;
        let timed = |body| Body::new(TimedBody::new(body, limit, Arc::clone(peer)));
        let request = request.map(timed);
        let mut response = match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        // What is not read by now is not waited for.
        peer.received();
        peer.length_seen.store(false, Ordering::Relaxed);
        if self.draining() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        outgoing(response, busy)
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

fn shutting_down() -> Response<Body> {
    let text = "shutting down; try again\n";
    later(last_answer(StatusCode::SERVICE_UNAVAILABLE, text), "5")
}

fn all_busy() -> Response<Body> {
    let text = "too many requests at once; try again\n";
    later(last_answer(StatusCode::TOO_MANY_REQUESTS, text), "1")
}

fn later(mut response: Response<Body>, seconds: &'static str) -> Response<Body> {
    let seconds = HeaderValue::from_static(seconds);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

fn two_lengths() -> Response<Body> {
    let text = "head: expected either content-length or transfer-encoding, found both\n";
    last_answer(StatusCode::BAD_REQUEST, text)
}

/// An answer after which the connection ends.
fn last_answer(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    response
}

/// Serves one connection to its end.
pub(super) async fn handle(connections: Arc<Connections>, admitted: Admitted, stream: TcpStream) {
    let peer = Arc::clone(&admitted.peer);
    let timeout = connections.options.header_timeout;
    // Buffers are made only once something was sent: an idle connection costs little.
    tokio::select! {
        () = peer.close.cancelled() => return,
        readable = tokio::time::timeout(timeout, stream.readable()) => {
            if !matches!(readable, Ok(Ok(()))) {
                return;
            }
        }
    }
    match connections.acceptor.clone() {
        None => converse(&connections, &peer, stream).await,
        Some(acceptor) => {
            let accepted = tokio::select! {
                () = peer.close.cancelled() => return,
                accepted = acceptor.accept(stream, ()) => accepted,
            };
            if let Ok((stream, _)) = accepted {
                converse(&connections, &peer, stream).await;
            }
        }
    }
}

async fn converse<S>(connections: &Connections, peer: &Arc<Peer>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watched = Watched::new(
        stream,
        Arc::clone(&peer.length_seen),
        Arc::clone(&peer.blocked),
    );
    let service = service_fn(|request| {
        // Boxed: to look at what is left after an error, hyper needs a connection that can move.
        Box::pin(async { Ok::<_, Infallible>(connections.answer(peer, request).await) })
    });
    let mut connection = connections
        .http
        .serve_connection(TokioIo::new(watched), service);
    let mut close = pin!(peer.close.cancelled());
    let mut closing = false;
    let mut patience = pin!(tokio::time::sleep(Duration::MAX));
    let ended = std::future::poll_fn(|context| {
        if let Poll::Ready(result) = connection.poll_without_shutdown(context) {
            return Poll::Ready(Some(result));
        }
        if !closing {
            ready!(close.as_mut().poll(context));
            closing = true;
            Pin::new(&mut connection).graceful_shutdown();
            patience
                .as_mut()
                .reset(tokio::time::Instant::now() + CLOSE_TIME);
            context.waker().wake_by_ref();
        }
        ready!(patience.as_mut().poll(context));
        if peer.is_busy() || peer.is_blocked() {
            // It ends by itself after its request, once the answer is written.
            patience
                .as_mut()
                .reset(tokio::time::Instant::now() + CLOSE_TIME);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(None)
    })
    .await;
    let Some(ended) = ended else { return };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    // Silence between two requests just ends; half a head gets an answer.
    let slow = ended.is_err_and(|error| error.is_timeout()) && !parts.read_buf.is_empty();
    let _ = tokio::time::timeout(CLOSE_TIME, async {
        if slow {
            stream.write_all(SLOW_HEAD).await?;
        }
        stream.shutdown().await?;
        // What is still coming in is read and thrown away: closing over it would reset the
        // connection, and take the last answer from its reader.
        let mut rest = stream.take(MAX_LEFTOVER);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    })
    .await;
}
