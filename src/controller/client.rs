//! The Kubernetes client that everything but the lease goes through.
//!
//! Owns: the one place where a write to Kubernetes can start: it waits for the right to write and
//! ends at its time limit, retries included. Reads have a limit as well, watches have not.
//!
//! Never here: a write past [`Leadership`]; an object's name in a metric.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, timeout};
use tower::BoxError;

use super::lease::Leadership;
use super::metrics::ControllerMetrics;

/// The time limit of a write, to Kubernetes and to the provider. With it and a lease renewed every
/// 2 s there is always enough of the lease left in ordinary times.
pub const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// The time limit of a read that is not a watch. A first list of thousands of objects comes in
/// pages, of which each is a read.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// `inner`, guarded: see the module.
pub fn guarded(inner: Client, leadership: Leadership, metrics: ControllerMetrics) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, leadership, metrics) = (inner.clone(), leadership.clone(), metrics.clone());
        async move {
            let verb = verb(&request);
            let proxied = is_proxied(&request);
            let begun = Instant::now();
            if is_write(&request) {
                leadership.permit(WRITE_LIMIT).await?;
            }
            let limit = match verb {
                "watch" => None,
                "get" => Some(READ_LIMIT),
                _ => Some(WRITE_LIMIT),
            };
            let call = inner.send(request);
            let result = match limit {
                None => call.await.map_err(BoxError::from),
                Some(limit) => match timeout(limit, call).await {
                    Ok(result) => result.map_err(BoxError::from),
                    Err(_) => Err(format!(
                        "the API server did not answer within {} s",
                        limit.as_secs()
                    )
                    .into()),
                },
            };
            let outcome = match &result {
                Ok(answer) => outcome(answer.status().as_u16()),
                Err(_) => "lost",
            };
            if !proxied {
                metrics.called(verb, outcome, begun.elapsed());
            }
            result
        }
    });
    Client::new(service, namespace)
}

fn is_write(request: &Request<Body>) -> bool {
    request.method() != Method::GET && request.method() != Method::HEAD
}

/// What answers is a receiver, which is counted where it is asked: one that is broken is no trouble
/// of the API server.
fn is_proxied(request: &Request<Body>) -> bool {
    request.uri().path().split('/').any(|part| part == "proxy")
}

fn verb(request: &Request<Body>) -> &'static str {
    match request.method().as_str() {
        "GET" if is_watch(request) => "watch",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|part| matches!(part, "watch=true" | "watch=1"))
}

const fn outcome(status: u16) -> &'static str {
    match status {
        200..=299 => "ok",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        410 => "expired",
        429 => "throttled",
        400..=499 => "client_error",
        500..=599 => "server_error",
        _ => "other",
    }
}
