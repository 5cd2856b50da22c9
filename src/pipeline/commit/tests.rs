//! What an answer means over time: tables of reads of one entity, and what each must lead to.
//!
//! Oracle: the numbers that the design gives, written out here as seconds and days. No constant
//! of the code is used.

use serde_json::value::RawValue;

use super::*;
use crate::api::EntityKey;
use crate::state::MarkClass;

/// 2026-01-02T03:04:05Z.
const START: UnixMillis = UnixMillis(1_767_323_045_000);
const DAY: u64 = 86_400;

/// The second of a read, and the version that it shows.
type VersionAt = (u64, Option<i64>);

/// One entity that is read again and again, each settlement kept as the store keeps it.
struct Lab {
    claim: Claim,
    admit: bool,
    horizon_days: u32,
}

impl Lab {
    /// Consumers have `data` of the entity.
    fn new(kind: NotificationType, data: &str, memo: &Memo) -> Self {
        let ids: &[&str] = match kind {
            NotificationType::Booking | NotificationType::Supplier => &["a"],
            NotificationType::Product => &["a", "b"],
            _ => &["a", "b", "c"],
        };
        let entity = StoredEntity {
            revision: 1,
            sequence: Some(1),
            live: true,
            data: Some(data.as_bytes().to_vec()),
            attributes: EventAttributes::default(),
            memo: memo.encode(),
        };
        let claim = Claim {
            id: 1,
            key: EntityKey::new(kind, ids).unwrap(),
            generation: 1,
            marked: None,
            notified: None,
            noticed: None,
            since: START,
            removed: false,
            class: MarkClass::Resync,
            attempts: 0,
            traceparent: None,
            entity: Some(entity),
        };
        Self {
            claim,
            admit: true,
            horizon_days: 30,
        }
    }

    /// A read that takes no time, `seconds` after the start.
    fn read(&mut self, seconds: u64, answer: &Result<Answer, ReadError>) -> Settlement {
        let fetched = START.after(Duration::from_secs(seconds));
        let started = Ticks(seconds * 1_000);
        let context = Context {
            fetched,
            started,
            now: Stamp {
                run: 1,
                ticks: started.0,
            },
            window: window::from_today(fetched, self.horizon_days),
            removal_confirmation: Duration::from_mins(1),
            retain_bookings: Duration::from_hours(720),
            jitter: 0.5,
        };
        let admit = self.admit;
        let settlement = decide(&self.claim, answer, &context, &mut |_| admit).settlement;
        let entity = self.claim.entity.as_mut().unwrap();
        if let Some(memo) = &settlement.memo {
            entity.memo.clone_from(memo);
        }
        if let Some(event) = &settlement.event {
            entity.live = event.data.is_some();
            entity.data.clone_from(&event.data);
            entity.attributes = event.attributes.clone();
        }
        settlement
    }

    fn outcome(&mut self, seconds: u64, answer: &Result<Answer, ReadError>) -> Outcome {
        self.read(seconds, answer).outcome
    }
}

fn document(data: &str) -> Document {
    Document {
        data: RawValue::from_string(data.to_owned()).unwrap(),
        version: None,
        retrieved: None,
        expires: None,
        empty: false,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "what a read gives")]
fn one(document: Document) -> Result<Answer, ReadError> {
    Ok(Answer::One(document))
}

fn gone() -> Result<Answer, ReadError> {
    Err(ReadError::Gone {
        status: 404,
        code: "not found".into(),
    })
}

/// An availability with a slot on each of these days.
fn slots(days: &[&str]) -> String {
    let slot = |day| format!(r#"{{"start":"{day}T10:00:00Z","capacity":1}}"#);
    let slots: Vec<_> = days.iter().map(slot).collect();
    format!(r#"{{"availability":[{}]}}"#, slots.join(","))
}

#[test]
fn a_lower_version_is_believed_after_three_reads_over_ten_minutes() {
    // (second, version) of each read, and whether the last one is published.
    let cases: &[(&[VersionAt], bool)] = &[
        (&[(0, Some(3))], false),
        (&[(0, Some(3)), (600, Some(3))], false),
        (&[(0, Some(3)), (600, Some(3)), (601, Some(3))], true),
        (&[(0, Some(3)), (300, Some(3)), (599, Some(3))], false),
        (&[(0, Some(3)), (300, Some(3)), (600, Some(3))], true),
        // They must agree.
        (&[(0, Some(3)), (300, Some(4)), (600, Some(3))], false),
        (&[(0, Some(3)), (300, Some(5)), (600, Some(3))], false),
        (&[(0, Some(5))], true),
        (&[(0, Some(6))], true),
        // A missing one is ignored.
        (&[(0, None)], true),
    ];
    for (reads, published) in cases {
        let memo = Memo {
            version: Some(5),
            ..Memo::default()
        };
        let mut lab = Lab::new(NotificationType::Product, r#"{"n":5}"#, &memo);
        let mut last = None;
        for (second, version) in *reads {
            // What is published stays as it is, so that only the last read counts.
            let data = match version {
                Some(5) if reads.len() > 1 => r#"{"n":5}"#.to_owned(),
                other => format!(r#"{{"n":{}}}"#, other.map_or(9, |n| n + 10)),
            };
            let answer = one(Document {
                version: *version,
                ..document(&data)
            });
            last = Some(lab.read(*second, &answer));
        }
        assert_eq!(last.unwrap().event.is_some(), *published, "{reads:?}");
    }
}

/// An availability of which a notification tells, as the provider retrieved it ten seconds earlier.
fn cached(expires: Option<u64>) -> (Lab, Result<Answer, ReadError>) {
    let days = slots(&["2026-01-10"]);
    let mut lab = Lab::new(NotificationType::Availability, &days, &Memo::default());
    lab.claim.notified = Some(START);
    lab.claim.noticed = Some(Ticks(0));
    let retrieved = START.before(Duration::from_secs(10));
    let answer = one(Document {
        retrieved: Some((retrieved.rfc3339(), retrieved)),
        expires: expires.map(|seconds| START.after(Duration::from_secs(seconds))),
        ..document(&days)
    });
    (lab, answer)
}

#[test]
fn an_availability_from_before_its_mark_is_unconfirmed_after_fifteen_minutes() {
    let (mut lab, answer) = cached(None);
    for second in [0, 100, 899] {
        assert_eq!(
            lab.outcome(second, &answer),
            Outcome::Provisional,
            "{second}"
        );
    }
    let settled = lab.read(900, &answer);
    assert_eq!(settled.outcome, Outcome::Unconfirmed);
    assert_eq!(settled.mark, MarkAfter::Clear);
    assert!(!settled.confirms, "a later notification must still be read");
    // No notification behind the mark: never provisional.
    let (mut lab, answer) = cached(None);
    (lab.claim.notified, lab.claim.noticed) = (None, None);
    let settled = lab.read(0, &answer);
    assert_eq!(
        (settled.outcome, settled.mark),
        (Outcome::Unchanged, MarkAfter::Clear)
    );
}

#[test]
fn it_is_asked_for_no_sooner_than_it_expires_or_in_five_seconds_and_ever_more_rarely() {
    for (expires, wait) in [
        (None, 5),
        (Some(0), 5),
        (Some(4), 5),
        (Some(6), 6),
        (Some(60), 60),
    ] {
        let (mut lab, answer) = cached(expires);
        let again = MarkAfter::Again(Duration::from_secs(wait));
        assert_eq!(lab.read(0, &answer).mark, again, "{expires:?}");
    }
    let (mut lab, answer) = cached(None);
    let (mut times, mut second) = (Vec::new(), 0);
    while let MarkAfter::Again(wait) = lab.read(second, &answer).mark {
        second += wait.as_secs();
        times.push(second);
    }
    assert_eq!(times[..7], [5, 10, 20, 40, 80, 160, 320]);
    assert_eq!(times.last(), Some(&900), "the last is the one that settles");
}

#[test]
fn an_empty_availability_is_state_once_a_second_read_agrees() {
    let data = slots(&["2026-01-10"]);
    let mut lab = Lab::new(NotificationType::Availability, &data, &Memo::default());
    let empty = one(Document {
        empty: true,
        ..document(&slots(&[]))
    });
    assert_eq!(lab.outcome(0, &empty), Outcome::Held);
    assert_eq!(lab.outcome(2, &empty), Outcome::Held);
    let settled = lab.read(5, &empty);
    assert_eq!(settled.outcome, Outcome::Changed);
    assert_eq!(settled.event.unwrap().change, ChangeKind::Updated);
}

#[test]
fn a_newly_entered_day_is_a_change_when_it_is_not_empty_and_once_a_day() {
    let first = ["2026-01-02", "2026-01-10"];
    // What is read a day later, when 2026-02-02 has come into a window of 30 days.
    let cases: &[(&[&str], Outcome)] = &[
        (&["2026-01-10"], Outcome::Unchanged),
        (&["2026-01-10", "2026-02-02"], Outcome::Changed),
        (&["2026-01-10", "2026-01-11"], Outcome::Changed),
    ];
    for (days, outcome) in cases {
        let mut lab = Lab::new(NotificationType::Availability, "{}", &Memo::default());
        lab.outcome(0, &one(document(&slots(&first))));
        let answer = one(document(&slots(days)));
        assert_eq!(lab.outcome(DAY, &answer), *outcome, "{days:?}");
        assert_eq!(lab.outcome(DAY + 60, &answer), Outcome::Unchanged);
    }
    // Twice on one day, as after a longer horizon: the second waits for the next day.
    let mut lab = Lab::new(NotificationType::Availability, "{}", &Memo::default());
    lab.outcome(0, &one(document(&slots(&first))));
    lab.outcome(DAY, &one(document(&slots(&["2026-01-10", "2026-02-02"]))));
    let longer = one(document(&slots(&[
        "2026-01-10",
        "2026-02-02",
        "2026-02-05",
    ])));
    lab.horizon_days = 40;
    assert_eq!(lab.outcome(DAY + 60, &longer), Outcome::Unchanged);
    assert_eq!(lab.outcome(2 * DAY, &longer), Outcome::Changed);
}

#[test]
fn a_booking_is_kept_until_after_its_last_travel_date() {
    let day = |text: &str| UnixMillis::parse_rfc3339(text).unwrap();
    // 720 hours are 30 days.
    for (data, until) in [
        (
            r#"{"items":[{"startTime":"2026-03-01T09:00:00Z"},{"startTime":"2026-02-01T09:00:00Z"}]}"#,
            day("2026-03-31T09:00:00Z"),
        ),
        (
            r#"{"items":[{"startTime":"2026-03-01T09:00:00+02:00"}]}"#,
            day("2026-03-31T07:00:00Z"),
        ),
        // Where none can be read, from the read.
        (
            r#"{"items":[{"startTime":"soon"}]}"#,
            day("2026-02-01T03:04:05Z"),
        ),
        (r#"{"items":[]}"#, day("2026-02-01T03:04:05Z")),
        ("{}", day("2026-02-01T03:04:05Z")),
    ] {
        let mut lab = Lab::new(NotificationType::Booking, "{}", &Memo::default());
        let settled = lab.read(0, &one(document(data)));
        assert_eq!(settled.forget_after, Some(until), "{data}");
    }
}

#[test]
fn a_removal_takes_two_signals_and_what_the_guard_holds_an_hour_of_agreement() {
    // (a `removed` notification, the guard admits, seconds of the 404s, the outcome of the last)
    let cases: &[(bool, bool, &[u64], Outcome)] = &[
        (false, true, &[0], Outcome::Held),
        (false, true, &[0, 59], Outcome::Held),
        (false, true, &[0, 60], Outcome::Removed),
        (true, true, &[0], Outcome::Removed),
        (true, false, &[0], Outcome::Held),
        (true, false, &[0, 3_599], Outcome::Held),
        (true, false, &[0, 3_600], Outcome::Removed),
        (false, false, &[0, 60, 3_599], Outcome::Held),
        (false, false, &[0, 60, 3_600], Outcome::Removed),
    ];
    for (removed, admit, reads, outcome) in cases {
        let mut lab = Lab::new(NotificationType::Product, "{}", &Memo::default());
        (lab.claim.removed, lab.admit) = (*removed, *admit);
        let outcomes: Vec<_> = reads.iter().map(|at| lab.outcome(*at, &gone())).collect();
        assert_eq!(
            outcomes.last(),
            Some(outcome),
            "{removed} {admit} {reads:?}"
        );
    }
    // An answer in between is no agreement: the hour begins again.
    let mut lab = Lab::new(NotificationType::Product, "{}", &Memo::default());
    (lab.claim.removed, lab.admit) = (true, false);
    lab.outcome(0, &gone());
    lab.outcome(1_800, &one(document("{}")));
    assert_eq!(lab.outcome(3_600, &gone()), Outcome::Held);
}
