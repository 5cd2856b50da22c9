//! How often what moves by itself is written to a status.
//!
//! Owns: at most one write of numbers a minute for a subscription, and of the time of the last
//! notification one in five minutes. Pure. Never here: conditions, which are written when they
//! change.

use std::time::Duration;

use super::receivers::Numbers;
use crate::clock::Ticks;

/// Between two writes.
const NUMBERS: Duration = Duration::from_mins(1);

/// Between two writes of the time of the last notification, which moves with each of them.
const TIME: Duration = Duration::from_mins(5);

/// What was written last, and when.
#[derive(Debug, Default)]
pub struct Pace {
    said: Numbers,
    at: Option<Ticks>,
    time_at: Option<Ticks>,
}

impl Pace {
    /// What of these numbers may be written now; `None`: nothing. What is left out stays.
    pub fn allows(&self, numbers: &Numbers, now: Ticks) -> Option<Numbers> {
        let recent = |at: Option<Ticks>, span| at.is_some_and(|at| now.since(at) < span);
        if recent(self.at, NUMBERS) {
            return None;
        }
        let time = &numbers.last_notification_time;
        let moved = *time != self.said.last_notification_time && !recent(self.time_at, TIME);
        let allowed = Numbers {
            backlog: numbers
                .backlog
                .filter(|_| numbers.backlog != self.said.backlog),
            last_notification_time: time.clone().filter(|_| moved),
        };
        (allowed != Numbers::default()).then_some(allowed)
    }

    /// Whether the status says something else than these, as long as nothing may be written.
    pub fn lacks(&self, numbers: &Numbers) -> bool {
        let time = &numbers.last_notification_time;
        (numbers.backlog.is_some() && numbers.backlog != self.said.backlog)
            || (time.is_some() && *time != self.said.last_notification_time)
    }

    /// These were written.
    pub fn wrote(&mut self, numbers: Numbers, now: Ticks) {
        self.at = Some(now);
        if let Some(backlog) = numbers.backlog {
            self.said.backlog = Some(backlog);
        }
        if let Some(time) = numbers.last_notification_time {
            self.said.last_notification_time = Some(time);
            self.time_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::Backlog;

    fn numbers(backlog: u64, minute: u64) -> Numbers {
        Numbers {
            backlog: Some(Backlog::of(backlog)),
            last_notification_time: Some(format!("2026-11-26T08:{minute:02}:00Z")),
        }
    }

    #[test]
    fn what_was_held_back_is_lacking_until_it_is_written() {
        let mut pace = Pace::default();
        let (first, last) = (numbers(1, 0), numbers(0, 1));
        assert!(pace.lacks(&first));
        pace.wrote(first.clone(), Ticks(0));
        assert!(!pace.lacks(&first) && pace.lacks(&last));
        for minute in 1..=5 {
            assert!(pace.lacks(&last), "minute {minute}");
            let now = Ticks(minute * 60_000);
            if let Some(allowed) = pace.allows(&last, now) {
                pace.wrote(allowed, now);
            }
        }
        assert!(!pace.lacks(&last));
    }

    #[test]
    fn a_write_a_minute_and_a_time_in_five() {
        let mut pace = Pace::default();
        let mut writes = Vec::new();
        // A notification a second, and a backlog that swings, for ten minutes.
        for second in 0..600 {
            let now = Ticks(second * 1_000);
            let numbers = numbers(second % 2, second / 60);
            if let Some(allowed) = pace.allows(&numbers, now) {
                writes.push((second, allowed.last_notification_time.is_some()));
                pace.wrote(allowed, now);
            }
        }
        assert!(writes.len() <= 10, "{writes:?}");
        assert!(writes.windows(2).all(|two| two[1].0 - two[0].0 >= 60));
        let times: Vec<u64> = writes
            .iter()
            .filter(|(_, time)| *time)
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(times.len(), 2, "{writes:?}");
        assert!(times[1] - times[0] >= 300);
    }

    #[test]
    fn the_last_word_is_written_in_the_end() {
        let mut pace = Pace::default();
        pace.wrote(numbers(0, 0), Ticks(0));
        let last = numbers(150, 1);
        assert_eq!(pace.allows(&last, Ticks(59_999)), None);
        let first = pace.allows(&last, Ticks(60_000)).expect("a minute later");
        assert_eq!(
            (first.backlog, &first.last_notification_time),
            (Some(Backlog::Hundreds), &None)
        );
        pace.wrote(first, Ticks(60_000));
        assert_eq!(pace.allows(&last, Ticks(120_000)), None);
        let time = pace
            .allows(&last, Ticks(300_000))
            .expect("five minutes later");
        assert_eq!(time.last_notification_time, last.last_notification_time);
        pace.wrote(time, Ticks(300_000));
        assert_eq!(pace.allows(&last, Ticks(9_000_000)), None);
    }
}
