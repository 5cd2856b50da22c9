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
    assert_eq!(marks.oldest(), Some(UnixMillis(1)));
    assert!(marks.len() <= 2);
    assert_eq!(marks.ages.len(), marks.len());
    assert!(marks.slots.len() <= 2);
}
