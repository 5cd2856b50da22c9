//! The built-in feed: list and watch, as in Kubernetes, over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/entities?type=&limit=&continue=` | `{"cursor","continue","items":[CloudEvent…]}`; `continue` is null on the last page |
//! | `GET /v1/entities/{entity…}` | the entity's newest event, `ETag` = revision; 304, 404, 410 when it is removed |
//! | `GET /v1/events?after=&wait=&limit=` | a batch of events, the next cursor in `Bellhop-Cursor` |
//! | the same with `Accept: text/event-stream` | server-sent events, `id:` = cursor, resumed by `Last-Event-ID` |
//! | `POST /v1/refresh` `{"entities":["booking/…"]}` | marks them; says which were refused and why |
//!
//! Owns: cursors, pages, streams, the bearer token, and how much one consumer may ask for.
//! List then watch is complete: the list's cursor is taken before its first page.
//!
//! Never here: events held in memory for a slow consumer; an answer that a store's damage could
//! have shortened; a cursor of another epoch taken for one of ours.

mod auth;
mod cursor;
mod list;
mod problem;
mod query;
mod refresh;
mod watch;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State as Shared};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use self::auth::Auth;
use self::problem::Problem;
use self::refresh::Allowance;
use self::watchers::Watchers;
use super::event::Origin;
use crate::clock::Clock;
use crate::files::token::TokenError;
use crate::metrics::Metrics;
use crate::secrets::Fingerprint;
use crate::settings::FeedSettings;
use crate::state::State;

/// The next cursor, beside a batch.
pub const CURSOR_HEADER: &str = "bellhop-cursor";

/// How much the feed gives at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedLimits {
    /// Streams and long polls at a time; more get 429.
    pub watchers: usize,
    /// A quiet stream says that it lives this often.
    pub heartbeat: Duration,
}

impl Default for FeedLimits {
    /// 256 watchers, a heartbeat every 15 s (proxies cut quiet connections after 30 to 60 s).
    fn default() -> Self {
        Self {
            watchers: 256,
            heartbeat: Duration::from_secs(15),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

/// The feed of one store.
pub struct Feed {
    origin: Origin,
    state: Arc<dyn State>,
    clock: Arc<dyn Clock>,
    limits: FeedLimits,
    auth: Auth,
    watchers: Arc<Watchers>,
    refreshes: Allowance,
    stop: CancellationToken,
    requests: Family<RequestLabels, Counter>,
    served: Counter,
}

/// What a request was let in with; a stream asks again whether it still holds.
#[derive(Clone)]
struct LetIn(Option<Fingerprint>);

impl Feed {
    /// Streams and long polls end when `stop` is cancelled.
    ///
    /// # Errors
    /// When the token file cannot be read or holds no token.
    pub fn new(
        settings: &FeedSettings,
        origin: Origin,
        state: Arc<dyn State>,
        clock: Arc<dyn Clock>,
        limits: FeedLimits,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Result<Self, TokenError> {
        let auth = Auth::new(settings.token_file.clone(), clock.clone())?;
        let requests = Family::<RequestLabels, Counter>::default();
        let gauge = Gauge::default();
        let served = Counter::default();
        metrics.register(|registry| {
            registry.register(
                "feed_requests",
                "Requests to the feed, by route and status",
                requests.clone(),
            );
            registry.register(
                "feed_watchers",
                "Consumers that stream or long-poll now",
                gauge.clone(),
            );
            registry.register(
                "feed_events",
                "Events given out by the feed",
                served.clone(),
            );
        });
        Ok(Self {
            refreshes: Allowance::new(clock.ticks()),
            watchers: Arc::new(Watchers::new(limits.watchers, gauge)),
            origin,
            state,
            clock,
            limits,
            auth,
            stop,
            requests,
            served,
        })
    }

    /// The routes, ready to be served on a port of their own.
    pub fn router(self) -> Router {
        let feed = Arc::new(self);
        Router::new()
            .route("/v1/entities", get(list::entities))
            .route("/v1/entities/{*entity}", get(list::entity))
            .route("/v1/events", get(watch::events))
            .route("/v1/refresh", post(refresh::refresh))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(DefaultBodyLimit::max(refresh::BODY_LIMIT))
            .layer(from_fn_with_state(feed.clone(), let_in))
            .with_state(feed)
    }

    fn served(&self, events: usize) {
        self.served.inc_by(events as u64);
    }
}

/// Asks for the token, whatever the path, and counts the answer.
async fn let_in(Shared(feed): Shared<Arc<Feed>>, mut request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map(MatchedPath::as_str);
    let route = match path {
        Some("/v1/entities") => "list",
        Some("/v1/entities/{*entity}") => "entity",
        Some("/v1/events") if query::wants_stream(request.headers()) => "stream",
        Some("/v1/events") => "events",
        Some("/v1/refresh") => "refresh",
        _ => "none",
    };
    let response = match feed.auth.check(request.headers()) {
        Ok(with) => {
            request.extensions_mut().insert(LetIn(with));
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let status = response.status().as_u16();
    let labels = RequestLabels { route, status };
    feed.requests.get_or_create(&labels).inc();
    response
}

async fn no_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "NoSuchPath",
        "the feed has no such path",
        "use /v1/entities, /v1/entities/{entity}, /v1/events or /v1/refresh",
    )
}

async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "WrongMethod",
        "this path does not take this method",
        "GET /v1/entities and /v1/events, POST /v1/refresh",
    )
}
