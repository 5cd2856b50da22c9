//! One connection: its time limits, its requests, its end.
//!
//! Owns: which connections are open, busy or idle, and who has to go when there are too many.
//!
//! Never here: a connection that outlives [`super::serve`]; an idle connection that keeps a new
//! one out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::ServerOptions;
use super::body::TimedBody;
use super::lengths::Watched;

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
    closing: CancellationToken,
    /// Rises with each admission and each request: the age of idle connections.
    turn: AtomicU64,
    open: Mutex<Vec<Arc<Peer>>>,
}

/// One open connection, as the others see it.
struct Peer {
    requests: AtomicUsize,
    /// The turn of its last activity.
    last: AtomicU64,
    /// Whether a `content-length` line was read since the last answer.
    length_seen: Arc<AtomicBool>,
    close: CancellationToken,
}

/// A connection's place among the open ones; given back when dropped.
pub(super) struct Admitted {
    connections: Arc<Connections>,
    peer: Arc<Peer>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        if let Some(at) = open.iter().position(|peer| Arc::ptr_eq(peer, &self.peer)) {
            open.swap_remove(at);
        }
    }
}

/// A request being handled; while one is, the connection is not idle.
struct Busy(Arc<Peer>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.length_seen.store(false, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
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
            options,
            router,
            http,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            turn: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Peer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A place for a new connection, if need be that of an idle one. `None` when all are busy.
    pub fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let full = self.lock().len() >= self.options.max_connections;
        if full && self.evict() == 0 {
            return None;
        }
        let peer = Arc::new(Peer {
            requests: AtomicUsize::new(0),
            last: AtomicU64::new(self.next_turn()),
            length_seen: Arc::default(),
            close: self.closing.child_token(),
        });
        self.lock().push(Arc::clone(&peer));
        Some(Admitted {
            connections: Arc::clone(self),
            peer,
        })
    }

    /// Closes the sixteenth part of the connections that was idle longest (so that a flood does not
    /// cost a search for each); gives how many.
    pub fn evict(&self) -> usize {
        let mut open = self.lock();
        let (mut idle, busy): (Vec<_>, Vec<_>) = std::mem::take(&mut *open)
            .into_iter()
            .partition(|peer| peer.requests.load(Ordering::Relaxed) == 0);
        let count = (self.options.max_connections / 16)
            .clamp(1, idle.len().max(1))
            .min(idle.len());
        if count > 0 {
            idle.select_nth_unstable_by_key(count - 1, |peer| peer.last.load(Ordering::Relaxed));
        }
        *open = busy;
        open.extend(idle.split_off(count));
        for peer in &idle {
            peer.close.cancel();
        }
        count
    }

    pub fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Asks every connection to end after the request it is in.
    pub fn close_all(&self) {
        self.closing.cancel();
    }

    async fn answer(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        peer.requests.fetch_add(1, Ordering::Relaxed);
        let _busy = Busy(Arc::clone(peer));
        peer.last.store(self.next_turn(), Ordering::Relaxed);
        if self.draining() && self.options.refuse_while_draining {
            return shutting_down();
        }
        if request.headers().contains_key(header::TRANSFER_ENCODING)
            && peer.length_seen.load(Ordering::Relaxed)
        {
            return two_lengths();
        }
        let limit = self.options.body_timeout;
        let request = request.map(|body| Body::new(TimedBody::new(body, limit)));
        let mut response = match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if self.draining() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

fn shutting_down() -> Response<Body> {
    let mut response = last_answer(
        StatusCode::SERVICE_UNAVAILABLE,
        "shutting down; try again\n",
    );
    let seconds = HeaderValue::from_static("5");
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
    let watched = Watched::new(stream, Arc::clone(&peer.length_seen));
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
        if peer.requests.load(Ordering::Relaxed) > 0 {
            // It ends by itself after its request.
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
