//! What Bellhop is compared with, in the same run: (a) a bare axum handler that reads the body and
//! answers 200; (b) the same plus an HMAC check plus an append to a file with one `fdatasync` per
//! waiting batch, which is the practical limit of "durable before 200". Never here: Bellhop's code.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::sync::{mpsc, oneshot};

use crate::load::KEY;

/// (a): reads the body, answers 200.
pub fn bare() -> Router {
    Router::new().route("/{*path}", post(|_body: Bytes| async { StatusCode::OK }))
}

type Waiting = (Bytes, oneshot::Sender<()>);

#[derive(Clone)]
struct Fsync {
    key: hmac::Key,
    queue: mpsc::Sender<Waiting>,
}

/// (b): checks the signature, appends, syncs with all that wait, answers 200.
pub fn fsync(file: &Path) -> std::io::Result<Router> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    let (queue, mut waiting) = mpsc::channel::<Waiting>(4096);
    std::thread::spawn(move || {
        let mut batch = Vec::new();
        let mut bytes = Vec::new();
        while waiting.blocking_recv_many(&mut batch, 512) > 0 {
            bytes.clear();
            for (body, _) in &batch {
                bytes.extend_from_slice(body);
                bytes.push(b'\n');
            }
            file.write_all(&bytes)
                .expect("the reference's file is writable");
            file.sync_data()
                .expect("the reference's file can be synced");
            for (_, answer) in batch.drain(..) {
                let _ = answer.send(());
            }
        }
    });
    let state = Fsync {
        key: hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()),
        queue,
    };
    Ok(Router::new()
        .route("/{*path}", post(checked))
        .with_state(state))
}

#[derive(serde::Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    signature: Signature<'a>,
}

#[derive(serde::Deserialize)]
struct Signature<'a> {
    sum: &'a str,
    timestamp: i64,
    token: &'a str,
}

async fn checked(State(state): State<Fsync>, body: Bytes) -> StatusCode {
    {
        let Ok(Body { signature }) = serde_json::from_slice(&body) else {
            return StatusCode::BAD_REQUEST;
        };
        let message = format!("{}{}", signature.timestamp, signature.token);
        let Ok(sum) = hex::decode(signature.sum) else {
            return StatusCode::BAD_REQUEST;
        };
        if hmac::verify(&state.key, message.as_bytes(), &sum).is_err() {
            return StatusCode::UNAUTHORIZED;
        }
    }
    let (answer, synced) = oneshot::channel();
    if state.queue.send((body, answer)).await.is_err() || synced.await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::OK
}
