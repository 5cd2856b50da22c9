//! What a request to the feed asks for, checked.
//!
//! Never here: a parameter that is ignored, or one whose wrong value is silently replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use super::problem::Problem;
use crate::api::NotificationType;

/// Items in a page or a batch when the request does not say.
const DEFAULT_LIMIT: usize = 500;
/// Items in a page or a batch at most.
const LARGEST_LIMIT: usize = 1000;
/// A long poll waits this long at most: proxies cut off longer ones.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The parameters of one request; each may stand once, and only those that are known.
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        let pairs = uri.query().unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let shown: String = name.chars().take(40).filter(|c| !c.is_control()).collect();
            if !known.contains(&name.as_str()) {
                let next = format!("use only {}", known.join(", "));
                return Err(Problem::parameter(
                    &shown,
                    "there is no such parameter here",
                    &next,
                ));
            }
            if found.insert(name, value).is_some() {
                return Err(Problem::parameter(
                    &shown,
                    "it stands there twice",
                    "give it once",
                ));
            }
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else {
            return Ok(DEFAULT_LIMIT);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<usize>() {
            Ok(limit) if digits && (1..=LARGEST_LIMIT).contains(&limit) => Ok(limit),
            _ => Err(Problem::parameter(
                "limit",
                "not a whole number from 1 to 1000",
                "correct it",
            )),
        }
    }

    pub(super) fn wait(&self) -> Result<Duration, Problem> {
        let Some(text) = self.get("wait") else {
            return Ok(Duration::ZERO);
        };
        parse_wait(text)
            .filter(|wait| *wait <= LONGEST_WAIT)
            .ok_or_else(|| {
                Problem::parameter(
                    "wait",
                    "not a duration from 0s to 60s",
                    "write it as `30s` or `500ms`",
                )
            })
    }

    pub(super) fn kind(&self) -> Result<Option<NotificationType>, Problem> {
        let Some(text) = self.get("type") else {
            return Ok(None);
        };
        NotificationType::from_segment(text)
            .map(Some)
            .ok_or_else(|| {
                let all: Vec<_> = NotificationType::ALL
                    .iter()
                    .map(|kind| kind.segment())
                    .collect();
                let next = format!("use one of {}", all.join(", "));
                Problem::parameter("type", "there is no such entity type", &next)
            })
    }
}

fn decoded(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::parameter("query", "it is not UTF-8", "percent-encode UTF-8 text"))
}

/// `30s`, `500ms`, `1m`, `1m30s`: a Go duration without fractions.
fn parse_wait(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (each, length) = match unit.as_bytes() {
            [b'm', b's', ..] => (Duration::from_millis(1), 2),
            [b's', ..] => (Duration::from_secs(1), 1),
            [b'm', ..] => (Duration::from_mins(1), 1),
            _ => return None,
        };
        total = total.checked_add(each.checked_mul(u32::try_from(number).ok()?)?)?;
        rest = &unit[length..];
    }
    (!text.is_empty()).then_some(total)
}

/// Whether the request asks for a stream of server-sent events.
pub(super) fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value.split(',').any(|range| {
                let mut parts = range.split(';').map(str::trim);
                let stream = parts
                    .next()
                    .is_some_and(|kind| kind.eq_ignore_ascii_case("text/event-stream"));
                let refused = parts.any(|part| {
                    let quality = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
                    quality.is_some_and(|q| q.parse() == Ok(0.0_f32))
                });
                stream && !refused
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_durations_up_to_a_minute() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("1m", 60_000),
            ("0s", 0),
            ("1s5ms", 1005),
        ] {
            assert_eq!(
                parse_wait(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1h",
            "1s ",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_wait(text), None, "{text:?}");
        }
        let query = Query::of(&Uri::from_static("/?wait=61s&limit=0"), &["wait", "limit"]).unwrap();
        assert!(query.wait().is_err() && query.limit().is_err());
    }

    #[test]
    fn a_stream_is_asked_for_by_name() {
        let asks = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            wants_stream(&headers)
        };
        assert!(asks("text/event-stream"));
        assert!(asks("application/json;q=0.5, Text/Event-Stream; q=0.9"));
        assert!(!asks("text/event-stream;q=0"));
        assert!(!asks("*/*"));
    }
}
