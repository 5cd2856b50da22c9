//! When to try again: the provider's `Retry-After` and the back-off where it says nothing.
//!
//! Owns: both forms of the header (RFC 9110 §10.2.3) and the growth of the delay.
//! Never here: the decision whether to try again, and waiting.

use std::time::Duration;

use crate::clock::UnixMillis;

/// The longest `Retry-After` that is believed. A provider that asks for more is asked again after
/// this, so that a wrong header cannot silence a subscription for days.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// The first delay's upper end; it doubles with each attempt.
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// The upper end of every delay.
const MAX_DELAY: Duration = Duration::from_secs(10);

/// Reads `Retry-After`: whole seconds, or an HTTP date in one of its three forms. A date is
/// compared with the answer's own `Date` where there is one, since our clock may be off.
/// `None` when it is neither; at most [`MAX_RETRY_AFTER`].
pub fn retry_after(value: &str, date: Option<&str>, now: UnixMillis) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = http_date(value)?;
    let reference = date.and_then(http_date).unwrap_or(now);
    Some(until.since(reference).min(MAX_RETRY_AFTER))
}

/// The delay before attempt `attempt` (the second is 1): anywhere between nothing and the doubled
/// delay ("full jitter"), so that callers who failed together do not come back together.
pub fn backoff(attempt: u32) -> Duration {
    let most = FIRST_DELAY
        .saturating_mul(1_u32 << attempt.saturating_sub(1).min(16))
        .min(MAX_DELAY);
    Duration::from_millis(fastrand::u64(
        0..=u64::try_from(most.as_millis()).unwrap_or(u64::MAX),
    ))
}

/// IMF-fixdate, RFC 850 and asctime dates, all of which are UTC.
pub fn http_date(text: &str) -> Option<UnixMillis> {
    const FORMS: [&str; 3] = [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ];
    FORMS.iter().find_map(|form| {
        let time = jiff::civil::DateTime::strptime(form, text.trim()).ok()?;
        let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(UnixMillis(time.timestamp().as_millisecond()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `date -u -d '1994-11-06 08:49:37' +%s` is 784111777: RFC 9110's own example.
    const EXAMPLE: UnixMillis = UnixMillis::from_secs(784_111_777);

    #[test]
    fn the_three_forms_of_a_date_are_one_instant() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(http_date(text), Some(EXAMPLE), "{text}");
        }
    }

    #[test]
    fn seconds_and_dates_are_read_and_capped() {
        let before = EXAMPLE.before(Duration::from_secs(7));
        let cases = [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 3 ", Some(3)),
            ("99999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(
                retry_after(text, None, before),
                seconds.map(Duration::from_secs),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_date_is_compared_with_the_senders_clock_not_ours() {
        let wrong = EXAMPLE.after(Duration::from_hours(24));
        assert_eq!(
            retry_after(
                "Sun, 06 Nov 1994 08:49:37 GMT",
                Some("Sun, 06 Nov 1994 08:49:27 GMT"),
                wrong
            ),
            Some(Duration::from_secs(10))
        );
    }

    #[test]
    fn the_delay_grows_to_its_limit_and_is_spread() {
        for (attempt, most) in [(1, 500), (2, 1_000), (3, 2_000), (6, 10_000), (40, 10_000)] {
            let delays: Vec<_> = (0..200).map(|_| backoff(attempt).as_millis()).collect();
            assert!(delays.iter().all(|delay| *delay <= most), "{attempt}");
            assert!(delays.iter().any(|delay| *delay > most / 2), "{attempt}");
            assert!(delays.iter().any(|delay| *delay < most / 2), "{attempt}");
        }
    }
}
