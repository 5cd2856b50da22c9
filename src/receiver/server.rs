//! One HTTP server for the public, admin and feed ports.
//!
//! Owns: sockets and their limits: how many connections, how long a head and a body may take, TLS
//! and its reload, and the drain at the end. HTTP/1.1 only: providers and probes speak it, and each
//! further protocol is another way to be wrong.
//!
//! Never here: a connection without a time limit while it is silent, a detached task (every
//! connection belongs to [`serve`]), a decision about what a request means.

mod body;
mod connection;
mod lengths;
mod peers;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use body::BodyTimeout;
pub use tls::TlsFiles;

use connection::{Connections, handle};

/// The limits of one port.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Certificate and key; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How long a connection may take to send a request's head; also how long it may be idle.
    pub header_timeout: Duration,
    /// How long a request's body may take; `BodyTimeout` comes out of the body after that.
    pub body_timeout: Duration,
    /// Open connections. At the limit, those on which nobody has sent a whole request for longest
    /// are closed in favour of new ones; when all are being answered, new ones get 429.
    pub max_connections: usize,
    /// How long the requests in flight may take once the token is cancelled.
    pub drain: Duration,
    /// How long new requests are still answered (with 503) after that, so that a request that is
    /// already on its way gets an answer that its sender retries. Not longer than `drain`.
    pub linger: Duration,
    /// Whether new requests get 503 while draining. The admin port goes on answering.
    pub refuse_while_draining: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            max_connections: 4096,
            drain: Duration::from_secs(20),
            linger: Duration::from_millis(250),
            refuse_while_draining: true,
        }
    }
}

/// Serves `router` on `listener` until `token` is cancelled, then drains. A vital task.
///
/// # Errors
/// TLS files that cannot be used at the start (later, the loaded ones stay in use).
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    token: CancellationToken,
) -> Result<(), String> {
    let tls = match &options.tls {
        Some(files) => Some(tls::Tls::load(files.clone()).await?),
        None => None,
    };
    let watch_tls = async {
        match &tls {
            Some(tls) => tls.watch().await,
            None => std::future::pending().await,
        }
    };
    let connections = Connections::new(
        options.clone(),
        router,
        tls.as_ref().map(tls::Tls::acceptor),
    );
    let mut tasks = JoinSet::new();
    tokio::select! {
        () = token.cancelled() => {}
        () = accept_loop(&listener, &connections, &mut tasks) => {}
        () = watch_tls => {}
    }
    connections.start_drain();
    let _ = tokio::time::timeout(options.drain, async {
        // Requests already on their way, on old connections or new ones, still get an answer.
        let _ = tokio::time::timeout(
            options.linger,
            accept_loop(&listener, &connections, &mut tasks),
        )
        .await;
        connections.peers.close_all();
        while tasks.join_next().await.is_some() {}
    })
    .await;
    tasks.shutdown().await;
    Ok(())
}

/// Accepts for ever.
async fn accept_loop(
    listener: &TcpListener,
    connections: &Arc<Connections>,
    tasks: &mut JoinSet<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                // Answers are small: waiting for more to send only delays them.
                let _ = stream.set_nodelay(true);
                let admitted = connections.peers.admit();
                tasks.spawn(handle(Arc::clone(connections), admitted, stream));
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of file descriptors, most likely: make room, and let what is closed close.
                let closed = connections.peers.evict();
                tracing::warn!(%error, closed, "cannot accept a connection; closing those that wait");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
