//! The CloudEvents SDK for Python reads the feed's batch, stream, pages and single entities, and the
//! http sink's requests.
//! Oracle: what was put into the store, against what that SDK understood.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bellhop::publish::{Sink, Verdict};
use bellhop::state::{ChangeKind, StoredEvent};
use serde_json::{Value, json};

use super::feed::{World, sse};
use super::http::{Server, sink, status};

/// `make tools` puts it there. Without it the test says so, and fails where CI=true.
fn python() -> Option<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/tools/venv/bin/python");
    let imports = Command::new(&python)
        .args(["-c", "import cloudevents"])
        .output();
    if imports.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    crate::skip::without("no CloudEvents SDK in target/tools/venv; run `make tools`");
    None
}

fn check(understood: &Value, truth: &[StoredEvent], way: &str) {
    let understood = understood.as_array().unwrap();
    assert_eq!(understood.len(), truth.len(), "{way}");
    for (event, truth) in understood.iter().zip(truth) {
        let attribute = |name: &str| event["attributes"][name].as_str().unwrap_or_default();
        let kind = truth.key.kind().segment();
        let change = match truth.change {
            ChangeKind::Created => "created",
            ChangeKind::Updated => "updated",
            ChangeKind::Removed => "removed",
        };
        assert_eq!(attribute("specversion"), "1.0", "{way}");
        assert_eq!(attribute("id").len(), 32);
        assert_eq!(
            attribute("source"),
            "https://booking.sandbox.redeam.io/v1.3"
        );
        assert_eq!(attribute("type"), format!("io.redeam.{kind}.{change}"));
        assert_eq!(attribute("sequence"), format!("{:020}", truth.revision));
        assert_eq!(attribute("environment"), "sandbox");
        assert_eq!(attribute("retrieved"), "2026-01-02T03:04:05.6Z");
        assert_eq!(attribute("notifiedtime"), "2026-01-02T03:04:00.000Z");
        let time = attribute("time").replace("+00:00", "Z");
        assert!(time.starts_with("2026-01-02T03:04:05.6"), "{way}: {time}");
        // The SDK leaves the percent-encoding of header values to its user.
        let subject = percent_encoding::percent_decode_str(attribute("subject"));
        assert_eq!(subject.decode_utf8().unwrap(), truth.key.as_str(), "{way}");
        assert_eq!(attribute("subject"), attribute("partitionkey"));
        let data = truth
            .data
            .as_ref()
            .map(|data| serde_json::from_slice::<Value>(data).unwrap());
        assert_eq!(event["data"], data.unwrap_or(Value::Null), "{way}");
    }
}

#[tokio::test]
async fn the_python_sdk_understands_every_way_out() {
    let Some(python) = python() else { return };
    let world = World::new();
    let truth = [
        world.state.publish(
            "booking/b-é 1",
            Some("{\"id\":\"b\",\"price\":10.25,\"é\":[null]}"),
        ),
        world
            .state
            .publish("price-schedule/s/p/r", Some("{\n \"2026-01-01\": {}\r\n}")),
        world.state.publish("booking/b-é 1", Some("{\"id\":\"c\"}")),
        world.state.publish("booking/b-é 1", None),
        world.state.publish("rate/s/p/r", Some("{\"id\":\"r\"}")),
    ];
    let batch = world.get("/v1/events").await;
    let mut stream = world.stream("/v1/events", &[]).await;
    stream.next().await.unwrap();
    let structured = sse(&stream.next().await.unwrap());
    let structured: Vec<_> = structured.into_iter().map(|(_, data)| data).collect();
    let server = Server::start(|| status(200)).await;
    let sink = sink(&server.uri, &world.state);
    for event in &truth {
        assert_eq!(sink.send(event).await, Verdict::Delivered);
    }
    let binary: Vec<Value> = {
        let got = server.got.lock().unwrap();
        let request = |got: &super::http::Got| {
            let headers = got.headers.iter();
            let headers = headers.map(|(k, v)| (k.to_string(), v.to_str().unwrap().into()));
            let headers: serde_json::Map<String, Value> = headers.collect();
            json!({"headers": headers, "body": String::from_utf8(got.body.to_vec()).unwrap()})
        };
        got.iter().map(request).collect()
    };
    let page = world.get("/v1/entities").await;
    let mut single = Vec::new();
    for key in ["price-schedule/s/p/r", "rate/s/p/r"] {
        let one = world.get(&format!("/v1/entities/{key}")).await;
        let kind = one.headers["content-type"].to_str().unwrap();
        let body = String::from_utf8(one.body).unwrap();
        single.push(json!({ "headers": { "content-type": kind }, "body": body }));
    }
    let given = json!({
        "batch": String::from_utf8(batch.body).unwrap(),
        "structured": structured,
        "binary": binary,
        "page": String::from_utf8(page.body).unwrap(),
        "single": single,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/publish/foreign.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(given.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the SDK refused it");
    let understood: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (at, way) in ["batch", "stream", "http sink"].into_iter().enumerate() {
        check(&understood[at], &truth, way);
    }
    // The removed booking is in no page.
    let live = [truth[1].clone(), truth[4].clone()];
    for (at, way) in [(3, "page"), (4, "single entity")] {
        check(&understood[at], &live, way);
    }
    // The same event has the same id whichever way it goes.
    assert_eq!(
        understood[0][0]["attributes"]["id"],
        understood[2][0]["attributes"]["id"]
    );
}
