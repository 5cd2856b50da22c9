//! The days that availability and price reads ask for, and which of them two reads share.
//!
//! Owns: "today" (UTC, from the wall clock), the window of a read, and the days on which two
//! answers may be compared. Never here: the time zone of this machine or of a supplier.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::clock::UnixMillis;
use crate::provider::Window;
use crate::state::EventAttributes;

/// The UTC day of an instant. Instants that no calendar has count as its first day.
pub(super) fn day_of(time: UnixMillis) -> Date {
    jiff::Timestamp::from_millisecond(time.0)
        .map_or(Date::MIN, |time| time.to_zoned(TimeZone::UTC).date())
}

/// Today and `horizon` whole days after it.
pub(super) fn from_today(now: UnixMillis, horizon: u32) -> Window {
    let start = day_of(now);
    let end = start.saturating_add(jiff::Span::new().days(i64::from(horizon.min(3650))));
    Window { start, end }
}

/// The window that a stored event covers; `None` when it has none, or one we cannot read.
pub(super) fn stored(attributes: &EventAttributes) -> Option<Window> {
    let day = |text: &Option<String>| text.as_deref()?.parse::<Date>().ok();
    Some(Window {
        start: day(&attributes.window_start)?,
        end: day(&attributes.window_end)?,
    })
}

/// The days that two windows share, from `today` on; `None` when there are none.
pub(super) fn shared(one: Window, other: Window, today: Date) -> Option<Window> {
    let start = one.start.max(other.start).max(today);
    let end = one.end.min(other.end);
    (start <= end).then_some(Window { start, end })
}

/// Whether a window has a day.
pub(super) fn covers(window: Window, day: Date) -> bool {
    window.start <= day && day <= window.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: &str, end: &str) -> Window {
        Window {
            start: start.parse().unwrap(),
            end: end.parse().unwrap(),
        }
    }

    #[test]
    fn a_window_is_today_and_the_horizon_in_utc() {
        let late = UnixMillis::parse_rfc3339("2026-01-31T23:59:59.999Z").unwrap();
        assert_eq!(from_today(late, 0), window("2026-01-31", "2026-01-31"));
        assert_eq!(
            from_today(late.after(std::time::Duration::from_millis(1)), 90),
            window("2026-02-01", "2026-05-02")
        );
    }

    #[test]
    fn shared_days_start_today_at_the_earliest() {
        let old = window("2026-01-01", "2026-01-10");
        let new = window("2026-01-03", "2026-01-12");
        let day = |text: &str| text.parse().unwrap();
        assert_eq!(
            shared(old, new, day("2026-01-01")),
            Some(window("2026-01-03", "2026-01-10"))
        );
        assert_eq!(
            shared(old, new, day("2026-01-05")),
            Some(window("2026-01-05", "2026-01-10"))
        );
        assert_eq!(shared(old, new, day("2026-01-11")), None);
    }
}
