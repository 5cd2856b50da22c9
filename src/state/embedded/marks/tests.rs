//! What the marks in memory cost. Oracle: counting.

use super::*;
use crate::api::NotificationType;

fn behind(since: i64) -> Behind {
    Behind {
        since: UnixMillis(since),
        marked: None,
        notified: None,
        noticed: None,
        removed: false,
        urgent: true,
        class: MarkClass::Notification,
        traceparent: None,
        first: 1,
        last: 1,
    }
}

/// One entity that cannot be fetched for days, while others come and go.
#[test]
fn a_mark_that_stays_does_not_keep_what_is_gone() {
    let key = |id: &str| EntityKey::new(NotificationType::Booking, &[id]).unwrap();
    let mut marks = Marks::new(Duration::ZERO, Duration::from_hours(1));
    let step = |marks: &mut Marks, at: i64, id: &str, after: After| {
        let (now, ticks) = (UnixMillis(at), Ticks(at as u64));
        marks.add(&key(id), behind(at), now, ticks);
        let (claim, mark) = marks.claim(MarkClass::Notification, ticks).unwrap();
        assert_eq!(mark.key, key(id));
        if at % 3 == 0 {
            // It changes while it is being fetched.
            marks.add(&key(id), behind(at), now, ticks);
        }
        marks.settle(claim, &key(id), after, ticks, now, ticks);
        marks.touched.clear();
        marks.deleted.clear();
    };
    step(
        &mut marks,
        1,
        "stuck",
        After::Retry(Duration::from_hours(24)),
    );
    for at in 2..20_000 {
        step(&mut marks, at, "busy", After::Clear);
    }
    assert_eq!(marks.oldest(), Some(UnixMillis(0)));
    assert!(marks.len() <= 2);
    let counted: u32 = marks.ages.values().sum();
    assert_eq!(counted as usize, marks.len());
    assert!(marks.ages.len() <= 2);
    assert!(marks.slots.len() <= 2);
}

/// Oracle: which marks were notified again, and when.
#[test]
fn late_rows_are_written_in_time_and_with_their_neighbours() {
    let key = |id: u64| EntityKey::new(NotificationType::Booking, &[id.to_string()]).unwrap();
    let mut marks = Marks::new(Duration::ZERO, Duration::from_hours(1));
    let mut journal = 0;
    let mut notify = |marks: &mut Marks, id: u64, at: u64| {
        journal += 1;
        let (now, ticks) = (UnixMillis(at as i64), Ticks(at));
        let behind = Behind::notification(now, now, false, journal, ticks);
        marks.add(&key(id), behind, now, ticks);
    };
    let write = |marks: &mut Marks| {
        let mut written = std::mem::take(&mut marks.touched);
        for slot in &written {
            marks.written(*slot, 1);
        }
        written.sort_unstable();
        written
    };
    for id in 0..40 {
        notify(&mut marks, id, 1);
    }
    assert_eq!(write(&mut marks).len(), 40);
    // Journal rows 41 to 44.
    for id in [3, 5, 20, 3] {
        notify(&mut marks, id, 2);
    }
    assert!(write(&mut marks).is_empty());
    marks.write_late(40);
    assert!(write(&mut marks).is_empty(), "not yet");
    marks.write_late(41);
    assert_eq!(write(&mut marks), [3, 5], "20 lies in another page");
    marks.write_late(42);
    assert!(write(&mut marks).is_empty(), "5 was written with 3");
    marks.write_late(44);
    assert_eq!(write(&mut marks), [20]);
}
