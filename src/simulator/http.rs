//! The simulator's HTTP surface: one door for the registry, the reseller API and the control API.
//!
//! Owns: taking a request apart strictly, authentication, the faults that concern whole answers
//! (latency, failures, rate limit, cut, HTML and huge bodies), and the record of requests. Never
//! here: what a call means.

mod bodies;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use self::bodies::{abort, cut, huge, paused, plain};
use super::core::Core;
use super::faults::{Api, ErrorShape, Faults};
use super::{control, now_ms, registry, reseller};

/// Bodies above this are refused with 413.
const BODY_LIMIT: usize = 1024 * 1024;
/// This much of a request body is remembered.
const BODY_REMEMBERED: usize = 16 * 1024;

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query as they were sent.
    pub(super) target: String,
    /// Decoded path segments.
    pub(super) segments: Vec<String>,
    /// Decoded query parameters in order.
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The caller's `X-Request-ID`, or one of our own.
    pub(super) request_id: String,
}

/// An answer before faults.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    /// It is given this much later, in milliseconds.
    pub(super) wait_ms: u64,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string().into(),
            content_type: "application/json; charset=utf-8",
            headers: Vec::new(),
            wait_ms: 0,
        }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            body: Bytes::new(),
            ..Self::json(status, &Value::Null)
        }
    }

    /// The provider's error form.
    pub(super) fn error(status: u16, message: impl Into<String>) -> Self {
        let code = match status {
            400 => "BAD_REQUEST",
            401 => "UNAUTHORIZED",
            403 => "FORBIDDEN",
            404 => "NOT_FOUND",
            405 => "METHOD_NOT_ALLOWED",
            409 => "CONFLICT",
            410 => "GONE",
            413 => "ENTITY_TOO_LARGE",
            424 => "FAILED_DEPENDENCY",
            429 => "TOO_MANY_REQUESTS",
            503 => "SERVICE_UNAVAILABLE",
            _ if status < 500 => "BAD_REQUEST",
            _ => "INTERNAL_SERVER",
        };
        let message: String = message.into();
        Self::json(
            status,
            &json!({ "error": { "code": code, "message": message, "data": {} } }),
        )
    }

    pub(super) fn html(status: u16) -> Self {
        Self {
            body: Bytes::from_static(
                b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Something went wrong</h1></body></html>",
            ),
            content_type: "text/html; charset=utf-8",
            ..Self::empty(status)
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Query parameters that are read exactly once each; what is left over is refused.
pub(super) struct Query<'a>(Vec<&'a (String, String)>);

impl<'a> Query<'a> {
    /// # Errors
    /// 400 when a parameter appears twice.
    pub(super) fn of(call: &'a Call) -> Result<Self, Answer> {
        for (n, (name, _)) in call.query.iter().enumerate() {
            if call.query[..n].iter().any(|(other, _)| other == name) {
                return Err(Answer::error(
                    400,
                    format!("parameter `{name}` given twice"),
                ));
            }
        }
        Ok(Self(call.query.iter().collect()))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.remove(at).1.as_str())
    }

    /// # Errors
    /// 400 when it is missing.
    pub(super) fn need(&mut self, name: &str) -> Result<&'a str, Answer> {
        self.take(name)
            .ok_or_else(|| Answer::error(400, format!("parameter `{name}` is missing")))
    }

    /// # Errors
    /// 400 when there is a parameter that nothing asked for.
    pub(super) fn finish(self) -> Result<(), Answer> {
        match self.0.first() {
            Some((name, _)) => Err(Answer::error(400, format!("unknown parameter `{name}`"))),
            None => Ok(()),
        }
    }
}

/// A request to the registry or the reseller API, as it is remembered. Credentials are not.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// Counts up from 1.
    pub id: u64,
    /// When it came, Unix milliseconds.
    pub at_ms: i64,
    /// `registry`, `reseller` or `unknown`.
    pub api: &'static str,
    /// GET, PUT, …
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// `X-Request-ID`, if it was sent.
    pub request_id: Option<String>,
    /// `User-Agent`, if it was sent.
    pub user_agent: Option<String>,
    /// The first 16 KiB of the body.
    pub body: String,
    /// The answer's status.
    pub status: u16,
    /// The fault that was done to it: `rate-limit`, `fail`, `html`, `huge`, `cut`, `abort`.
    pub fault: Option<&'static str>,
    /// How long the answer took, in milliseconds.
    pub latency_ms: f64,
}

/// Numbers over all requests since the start, also of those no longer remembered.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestCounts {
    /// Calls of the registry.
    pub registry: u64,
    /// Calls of the reseller API.
    pub reseller: u64,
    /// Calls of anything else.
    pub unknown: u64,
    /// Answers by status.
    pub statuses: std::collections::BTreeMap<u16, u64>,
}

#[derive(Debug, Default)]
pub(super) struct RequestLog {
    pub(super) records: VecDeque<RequestRecord>,
    pub(super) counts: RequestCounts,
    /// The second that the rate limit counts, and the calls in it.
    pub(super) second: (i64, u32),
}

pub(super) fn router(core: Arc<Core>) -> Router {
    Router::new().fallback(serve).with_state(core)
}

async fn serve(State(core): State<Arc<Core>>, request: Request) -> Response {
    let begun = tokio::time::Instant::now();
    let at_ms = now_ms();
    let call = match take_apart(request).await {
        Ok(call) => call,
        Err(answer) => return plain(answer),
    };
    let segments: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    if let ["control", rest @ ..] = segments.as_slice() {
        return plain(control::http::answer(&core, &call, rest).await);
    }
    let faults = core.faults();
    let (api, name) = match segments.as_slice() {
        ["registry", "v1", ..] => (Api::Registry, "registry"),
        ["v1.2" | "v1.3", ..] => (Api::Reseller, "reseller"),
        _ => (Api::All, "unknown"),
    };
    let concerned = api != Api::All && faults.concern(api);
    if concerned {
        core.sleep_latency(&faults).await;
    }
    let early = if concerned {
        core.fault_answer(&faults, &call.target, at_ms)
    } else {
        None
    };
    let (answer, mut fault) = match early {
        Some((answer, fault)) => (answer, Some(fault)),
        None => (dispatch(&core, &call, &faults, &segments), None),
    };
    if answer.wait_ms > 0 {
        tokio::time::sleep(Duration::from_millis(answer.wait_ms)).await;
    }
    let broken = if concerned {
        core.breakage(&faults)
    } else {
        None
    };
    fault = broken.map(|(name, _)| name).or(fault);
    core.remember(RequestRecord {
        id: 0,
        at_ms,
        api: name,
        method: call.method.to_string(),
        target: call.target.clone(),
        request_id: header_text(&call.headers, "x-request-id"),
        user_agent: header_text(&call.headers, "user-agent"),
        body: String::from_utf8_lossy(&call.body[..call.body.len().min(BODY_REMEMBERED)])
            .into_owned(),
        status: answer.status,
        fault,
        latency_ms: begun.elapsed().as_secs_f64() * 1000.0,
    });
    match broken {
        Some((_, Breakage::Huge(size))) => huge(size),
        Some((_, Breakage::Cut)) => cut(answer),
        Some((_, Breakage::Abort)) => abort(answer),
        None if concerned && faults.body_pause_ms > 0 => paused(answer, faults.body_pause_ms),
        None => plain(answer),
    }
}

/// What can be wrong with how an answer is sent.
#[derive(Debug, Clone, Copy)]
enum Breakage {
    Huge(u64),
    Cut,
    Abort,
}

fn dispatch(core: &Core, call: &Call, faults: &Faults, segments: &[&str]) -> Answer {
    match segments {
        ["registry", "v1", rest @ ..] => {
            reshape(registry::answer(core, call, rest), faults.registry_errors)
        }
        [version @ ("v1.2" | "v1.3"), rest @ ..] => {
            reseller::answer(core, call, *version == "v1.2", rest)
        }
        _ => Answer::error(404, "no such path"),
    }
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

async fn take_apart(request: Request) -> Result<Call, Answer> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|_| Answer::error(413, "the body is over 1 MiB or broke off"))?;
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| Answer::error(400, "the path or query is not UTF-8"))
    };
    let segments = parts
        .uri
        .path()
        .trim_start_matches('/')
        .split('/')
        .map(decode)
        .collect::<Result<_, _>>()?;
    let query = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((
                decode(&name.replace('+', " "))?,
                decode(&value.replace('+', " "))?,
            ))
        })
        .collect::<Result<_, Answer>>()?;
    let request_id = header_text(&parts.headers, "x-request-id")
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    Ok(Call {
        method: parts.method,
        target: parts
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        segments,
        query,
        headers: parts.headers,
        body,
        request_id,
    })
}

impl Call {
    /// The body as a JSON object.
    ///
    /// # Errors
    /// 400 when the content type is not JSON or the body is no object.
    pub(super) fn object(&self) -> Result<serde_json::Map<String, Value>, Answer> {
        let content_type = header_text(&self.headers, "content-type").unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            return Err(Answer::error(400, "content-type must be application/json"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Answer::error(400, format!("the body is no JSON object: {error}")))
    }

    /// # Errors
    /// 400 when a call without a body has one.
    pub(super) fn no_body(&self) -> Result<(), Answer> {
        if self.body.is_empty() {
            Ok(())
        } else {
            Err(Answer::error(400, "this call takes no body"))
        }
    }
}

impl Core {
    /// # Errors
    /// 401 when the credentials are missing or wrong.
    pub(super) fn authenticate(&self, call: &Call, api: Api) -> Result<(), Answer> {
        let faults = self.faults();
        let given = |name: &str| header_text(&call.headers, name).unwrap_or_default();
        let right = given("x-api-key") == self.api_key && given("x-api-secret") == self.api_secret;
        if right && !(faults.unauthorized && faults.concern(api)) {
            Ok(())
        } else {
            Err(Answer::error(
                401,
                "X-API-Key and X-API-Secret are missing or wrong",
            ))
        }
    }

    async fn sleep_latency(&self, faults: &Faults) {
        let mut millis = self.between(faults.latency_min_ms, faults.latency_max_ms);
        if self.chance(faults.hang) {
            millis += faults.hang_ms;
        }
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// An answer that a fault gives instead of the real one.
    fn fault_answer(
        &self,
        faults: &Faults,
        path: &str,
        at_ms: i64,
    ) -> Option<(Answer, &'static str)> {
        let retry_after = |answer: Answer| match faults.retry_after {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        };
        if faults.rate_limit > 0 && !self.within_rate(faults.rate_limit, at_ms) {
            return Some((
                retry_after(Answer::error(429, "too many requests")),
                "rate-limit",
            ));
        }
        if path.contains(&faults.fail_path) && self.chance(faults.fail) {
            let status = self.pick(&faults.fail_status).unwrap_or(503);
            let answer = Answer::error(status, "a fault of the simulator");
            let answer = if matches!(status, 429 | 503) {
                retry_after(answer)
            } else {
                answer
            };
            return Some((answer, "fail"));
        }
        self.chance(faults.html)
            .then(|| (Answer::html(200), "html"))
    }

    fn breakage(&self, faults: &Faults) -> Option<(&'static str, Breakage)> {
        if self.chance(faults.huge) {
            Some(("huge", Breakage::Huge(faults.huge_bytes)))
        } else if self.chance(faults.cut) {
            Some(("cut", Breakage::Cut))
        } else if self.chance(faults.abort) {
            Some(("abort", Breakage::Abort))
        } else {
            None
        }
    }

    fn within_rate(&self, limit: u32, at_ms: i64) -> bool {
        let mut log = self.requests();
        let second = at_ms.div_euclid(1000);
        if log.second.0 != second {
            log.second = (second, 0);
        }
        log.second.1 += 1;
        log.second.1 <= limit
    }

    fn remember(&self, mut record: RequestRecord) {
        let mut log = self.requests();
        let counts = &mut log.counts;
        match record.api {
            "registry" => counts.registry += 1,
            "reseller" => counts.reseller += 1,
            _ => counts.unknown += 1,
        }
        *counts.statuses.entry(record.status).or_default() += 1;
        record.id = counts.registry + counts.reseller + counts.unknown;
        if log.records.len() >= self.remembered {
            log.records.pop_front();
        }
        log.records.push_back(record);
    }
}

/// The registry's errors in the shape that the fault asks for.
fn reshape(answer: Answer, shape: ErrorShape) -> Answer {
    if answer.status < 400 {
        return answer;
    }
    match shape {
        ErrorShape::Json => answer,
        ErrorShape::Flat => Answer::json(answer.status, &json!({ "message": "the call failed" })),
        ErrorShape::Empty => Answer::empty(answer.status),
        ErrorShape::Html => Answer::html(answer.status),
    }
}
