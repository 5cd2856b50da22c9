//! The CloudEvents 1.0 envelope: what an event looks like to a consumer.
//!
//! Owns: every attribute's name and form, structured JSON, and the header form of the HTTP
//! binding (binary mode). `type` is `io.redeam.<entity>.<created|updated|removed>` where
//! `<entity>` is the entity's kebab-case segment, as in its key: `io.redeam.price-schedule.updated`.
//!
//! Extension attributes (lower-case letters and digits only, as CloudEvents 1.0 asks):
//! `sequence` (the revision, 20 digits, so that it sorts as text), `partitionkey` (the entity key),
//! `environment`, and where known `traceparent`, `notifiedtime`, `windowstart`, `windowend`,
//! `retrieved`.
//!
//! Never here: a byte of the data that is not as the provider sent it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::clock::UnixMillis;
use crate::settings::Identity;
use crate::state::{ChangeKind, Epoch, StoredEvent};

/// The media type of one event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a JSON array of events.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// What the data is.
pub const DATA: &str = "application/json";

/// What all events of one store have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    uid: String,
    environment: String,
    source: String,
    epoch: Epoch,
}

impl Origin {
    /// `api_url`: base URL of the reseller API, which becomes `source`.
    pub fn new(identity: &Identity, api_url: &str, epoch: &Epoch) -> Self {
        Self {
            uid: identity.uid.clone(),
            environment: identity.environment.clone(),
            source: api_url.to_owned(),
            epoch: epoch.clone(),
        }
    }

    /// The store's epoch, part of ids and cursors.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// `id`: the first 32 hex digits of the SHA-256 of subscription UID, epoch, entity key and
    /// revision, joined by line feeds. The same on every retry, in the feed and at every sink.
    pub fn id(&self, event: &StoredEvent) -> String {
        let mut hash = Sha256::new();
        for part in [&self.uid, &self.epoch.0, event.key.as_str()] {
            hash.update(part.as_bytes());
            hash.update(b"\n");
        }
        hash.update(event.revision.to_string().as_bytes());
        hex::encode(&hash.finalize()[..16])
    }

    /// All context attributes but `datacontenttype`, in the order they are written.
    fn attributes(&self, event: &StoredEvent) -> Vec<(&'static str, String)> {
        let extensions = &event.attributes;
        let mut all = vec![
            ("specversion", "1.0".to_owned()),
            ("id", self.id(event)),
            ("source", self.source.clone()),
            ("type", event_type(event)),
            ("subject", event.key.to_string()),
            ("time", event.time.rfc3339()),
            ("sequence", format!("{:020}", event.revision)),
            ("partitionkey", event.key.to_string()),
            ("environment", self.environment.clone()),
        ];
        let optional = [
            ("traceparent", extensions.traceparent.clone()),
            ("notifiedtime", extensions.notified.map(UnixMillis::rfc3339)),
            ("windowstart", extensions.window_start.clone()),
            ("windowend", extensions.window_end.clone()),
            ("retrieved", extensions.retrieved.clone()),
        ];
        all.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.filter(|text| !text.is_empty())?))),
        );
        all
    }

    /// Appends the event in structured JSON, its data byte for byte.
    ///
    /// # Panics
    /// Never: text keys and values always serialise, and a `Vec` takes every write.
    pub fn write_structured(&self, event: &StoredEvent, out: &mut Vec<u8>) {
        let attributes = self.attributes(event);
        serde_json::to_writer(&mut *out, &AsMap(&attributes))
            .expect("text keys and values always serialise, and a Vec takes every write");
        if let Some(data) = &event.data {
            // The attributes end in `}`: the data goes before it, untouched.
            out.pop();
            out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
            out.extend_from_slice(data);
            out.push(b'}');
        }
    }

    /// The event in structured JSON.
    pub fn structured(&self, event: &StoredEvent) -> Vec<u8> {
        let mut out = Vec::with_capacity(768 + event.data.as_ref().map_or(0, Vec::len));
        self.write_structured(event, &mut out);
        out
    }

    /// A JSON array of events in structured JSON.
    pub fn batch(&self, events: &[StoredEvent]) -> Vec<u8> {
        let mut out = vec![b'['];
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.write_structured(event, &mut out);
        }
        out.push(b']');
        out
    }

    /// Binary mode: the `ce-` headers, values encoded as the HTTP binding asks. The body is the
    /// event's data as it is; `content-type` is [`DATA`] where there is data.
    pub fn headers(&self, event: &StoredEvent) -> Vec<(String, String)> {
        self.attributes(event)
            .into_iter()
            .map(|(name, value)| (format!("ce-{name}"), header_value(&value)))
            .collect()
    }
}

/// `type`.
pub fn event_type(event: &StoredEvent) -> String {
    let change = match event.change {
        ChangeKind::Created => "created",
        ChangeKind::Updated => "updated",
        ChangeKind::Removed => "removed",
    };
    format!("io.redeam.{}.{change}", event.key.kind().segment())
}

/// CloudEvents HTTP protocol binding 1.0, section 3.1.3.2: space, double quote, percent and all
/// outside printable ASCII become `%XX` of their UTF-8 bytes.
fn header_value(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}

struct AsMap<'a>(&'a [(&'static str, String)]);

impl Serialize for AsMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::EventAttributes;

    fn origin() -> Origin {
        let identity = Identity {
            namespace: "shop".into(),
            name: "redeam".into(),
            uid: "uid-1".into(),
            owner: "0123456789".into(),
            environment: "sandbox".into(),
        };
        Origin::new(
            &identity,
            "https://booking.sandbox.redeam.io/v1.3",
            &Epoch("00000000000000ab".into()),
        )
    }

    fn event(key: &str, data: Option<&str>) -> StoredEvent {
        StoredEvent {
            sequence: 7,
            key: key.parse().unwrap(),
            revision: 1_767_323_045_678,
            change: if data.is_some() {
                ChangeKind::Updated
            } else {
                ChangeKind::Removed
            },
            time: UnixMillis(1_767_323_045_678),
            data: data.map(|text| text.as_bytes().to_vec()),
            attributes: EventAttributes::default(),
        }
    }

    #[test]
    fn data_is_byte_for_byte_and_a_removal_has_none() {
        let data = "{ \"b\":1.10,\n \"a\" : 1e400, \"a\":\"\\u00e9é\"}";
        let text =
            String::from_utf8(origin().structured(&event("rate/s/p/r", Some(data)))).unwrap();
        assert!(text.ends_with(&format!(",\"data\":{data}}}")), "{text}");
        let removed = origin().structured(&event("rate/s/p/r", None));
        let removed: serde_json::Value = serde_json::from_slice(&removed).unwrap();
        assert_eq!(removed["type"], "io.redeam.rate.removed");
        assert!(removed.get("data").is_none() && removed.get("datacontenttype").is_none());
        assert_eq!(removed["time"], "2026-01-02T03:04:05.678Z");
        assert_eq!(removed["sequence"], "00000001767323045678");
    }

    #[test]
    fn the_id_is_the_documented_hash() {
        // Oracle: printf 'uid-1\n00000000000000ab\nrate/s/p/r\n1767323045678' | sha256sum
        assert_eq!(
            origin().id(&event("rate/s/p/r", None)),
            "3ce31f769aa37d1179b8796c84f7caa7"
        );
    }

    #[test]
    fn extension_names_are_lower_case_letters_and_digits() {
        let mut event = event("price-schedule/s/p/r", Some("{}"));
        event.attributes = EventAttributes {
            notified: Some(UnixMillis(0)),
            window_start: Some("2026-01-01".into()),
            window_end: Some("2026-04-01".into()),
            retrieved: Some("2026-01-01T00:00:00.000000001Z".into()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        };
        let names: Vec<_> = origin()
            .attributes(&event)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names.len(), 14);
        for name in names {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            assert!(name.len() <= 20 && name.chars().all(fits), "{name}");
        }
    }

    #[test]
    fn header_values_are_encoded_as_in_the_binding() {
        // The example of the CloudEvents HTTP protocol binding, section 3.1.3.2.
        assert_eq!(
            header_value("Euro \u{20ac} \u{1f600}"),
            "Euro%20%E2%82%AC%20%F0%9F%98%80"
        );
        assert_eq!(header_value("a\"b%c/d~"), "a%22b%25c/d~");
    }
}
