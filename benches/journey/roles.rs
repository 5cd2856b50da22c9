//! What the bench's own processes do: the servers, the provider, the load.
//!
//! Owns: their assembly. The Bellhop server is the product's own endpoint, key ring, HTTP server
//! and store, put together as `bellhop run` does, without registration, pipeline and feed: what
//! those cost is measured on the real program by other parts. Never here: a shortcut that the
//! product does not take.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bellhop::api::NotificationType;
use bellhop::clock::{Clock, SystemClock};
use bellhop::metrics::Metrics;
use bellhop::receiver::ingest::{Limits, Receiver, ReceiverOptions};
use bellhop::receiver::keys::{KEY_GRACE, KeyRing};
use bellhop::receiver::server::{ServerOptions, serve};
use bellhop::secrets::Secret;
use bellhop::settings::{SignatureScheme, SignatureSettings};
use bellhop::state::embedded::{Engine, Options};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::load::{self, KEY, Load, Names};
use crate::{consumer, fill, provider, reference};

/// Runs a role to its end.
pub fn run(role: &str, words: &[String]) -> Result<(), String> {
    bellhop::provider::client::install_crypto_provider();
    let arguments = Arguments::parse(words);
    match role {
        "bare" => single()?.block_on(serve_plainly(reference::bare())),
        "fsync" => {
            let file: PathBuf = arguments.need("file")?;
            let router = reference::fsync(&file).map_err(text)?;
            single()?.block_on(serve_plainly(router))
        }
        "bellhop" => {
            // As the program builds it.
            let runtime = Builder::new_multi_thread()
                .enable_all()
                .thread_stack_size(1024 * 1024)
                .build()
                .map_err(text)?;
            runtime.block_on(bellhop_server(&arguments))
        }
        "provider" => single()?.block_on(async {
            let mode = arguments.need("mode")?;
            serve_plainly(provider::router(mode)).await
        }),
        "fill" => single()?.block_on(fill::run(&arguments)),
        "load" => {
            let load = load_of(&arguments)?;
            let answered = local(load::run(load))?.map_err(text)?;
            answered.print()
        }
        "consumer" => {
            let consumed = local(consumer::run(&arguments))??;
            consumed.print()
        }
        _ => Err(format!("there is no role `{role}`")),
    }
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn single() -> Result<Runtime, String> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(text)
}

fn local<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let tasks = tokio::task::LocalSet::new();
    Ok(tasks.block_on(&single()?, work))
}

/// The load that the arguments describe.
pub fn load_of(arguments: &Arguments) -> Result<Load, String> {
    let names = match arguments.get("random")? {
        Some(count) => Names::Random(count),
        None => Names::Each {
            from: arguments.need("from")?,
            of: arguments.get("of")?.unwrap_or(u64::MAX),
        },
    };
    Ok(Load {
        address: arguments.need("address")?,
        connections: arguments.need("connections")?,
        duration: Duration::from_secs_f64(arguments.need("seconds")?),
        rate: arguments.get("rate")?,
        names,
        at_most: arguments.get("at-most")?,
        told: None,
    })
}

/// Cancelled when standard input ends: whoever started this process is done with it, or gone.
fn end_of_input() -> CancellationToken {
    let token = CancellationToken::new();
    let ended = token.clone();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        ended.cancel();
    });
    token
}

async fn listen() -> Result<TcpListener, String> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .map_err(text)
}

async fn serve_plainly(router: Router) -> Result<(), String> {
    let token = end_of_input();
    let listener = listen().await?;
    println!("{}", listener.local_addr().map_err(text)?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // As Bellhop does.
        let _ = stream.set_nodelay(true);
    });
    tokio::select! {
        served = axum::serve(listener, router) => served.map_err(text),
        () = token.cancelled() => Ok(()),
    }
}

async fn bellhop_server(arguments: &Arguments) -> Result<(), String> {
    let token = end_of_input();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let metrics = Metrics::new();
    let mut options = Options::default();
    if let Some(size) = arguments.get("size")? {
        options.size_bytes = size;
    }
    if let Some(backlog) = arguments.get("backlog")? {
        options.max_backlog = backlog;
    }
    let store: PathBuf = arguments.need("store")?;
    let engine = Engine::open(&store, options, clock.clone(), &metrics).map_err(text)?;
    let engine = Arc::new(engine);
    let (changed, _nobody) = tokio::sync::mpsc::channel(1);
    let ring = Arc::new(KeyRing::new(
        clock.clone(),
        KEY_GRACE,
        None,
        None,
        changed,
        &metrics,
    ));
    for kind in NotificationType::ALL {
        ring.set(kind, vec![Secret::new(KEY)]);
    }
    let hour = Duration::from_hours(1);
    let receiver = Receiver::new(
        ReceiverOptions {
            types: NotificationType::ALL.to_vec(),
            owner: "0123456789".to_owned(),
            base_path: "/hooks".to_owned(),
            signature: SignatureSettings {
                scheme: SignatureScheme::Auto,
                max_age: 24 * hour,
                max_skew: Duration::from_mins(5),
                ledger_span: hour,
            },
            limits: Limits::default(),
        },
        engine.clone(),
        ring,
        clock,
        &metrics,
    );
    let listener = listen().await?;
    println!("{}", listener.local_addr().map_err(text)?);
    let router = receiver.router();
    drop(receiver);
    serve(listener, router, ServerOptions::default(), token).await?;
    match Arc::into_inner(engine) {
        Some(engine) => engine.close().await.map_err(text),
        None => Err("somebody still holds the store".to_owned()),
    }
}
