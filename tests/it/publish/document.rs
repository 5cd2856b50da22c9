//! `docs/consumers.md` says what consumers get. Oracle: an event with all that one can have.

use bellhop::api::NotificationType;
use bellhop::clock::UnixMillis;
use bellhop::state::{ChangeKind, EventAttributes, StoredEvent};
use serde_json::{Map, Value};

use super::feed::origin;
use super::memory::Memory;

const PAGE: &str = include_str!("../../../docs/consumers.md");

#[test]
fn each_attribute_and_each_form_of_key_is_there() {
    let text = |value: &str| Some(value.to_owned());
    let time = UnixMillis(1_767_323_045_678);
    let event = StoredEvent {
        sequence: 1,
        key: "availability/s/p/r".parse().unwrap(),
        revision: 1,
        change: ChangeKind::Created,
        time,
        data: Some(b"{}".to_vec()),
        attributes: EventAttributes {
            notified: Some(time),
            window_start: text("2026-01-01"),
            window_end: text("2026-02-01"),
            retrieved: text("2026-01-01T00:00:00Z"),
            traceparent: text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        },
    };
    let origin = origin(&Memory::new());
    let event: Map<String, Value> = serde_json::from_slice(&origin.structured(&event)).unwrap();
    // What CloudEvents itself asks for is known to whoever reads CloudEvents.
    let own = event
        .keys()
        .filter(|name| !["specversion", "datacontenttype"].contains(&name.as_str()));
    for name in own {
        assert!(PAGE.contains(&format!("`{name}`")), "no `{name}`");
    }
    for kind in NotificationType::ALL {
        let key = format!("`{}/{{", kind.segment());
        assert!(PAGE.contains(&key), "no {key}");
    }
}
