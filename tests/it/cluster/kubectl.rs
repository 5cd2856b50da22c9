//! What a person sees with the real kubectl. Oracle: its output.

use bellhop::api::condition::{ConditionType, Reason};
use serde_json::{Value, json};

use super::space::Space;
use super::{eventually, rules};

/// The committed CRD's schema: what `explain` must show, whatever its types say.
fn schema() -> Value {
    let text = std::fs::read_to_string("crds/bellhop.dev_webhooksubscriptions.yaml").unwrap();
    let mut crd: Value = serde_saphyr::from_str(&text).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every object of the schema that has fields: its path for `explain`, and the fields.
fn objects(path: &str, schema: &Value, found: &mut Vec<(String, Vec<(String, String)>)>) {
    let items = schema.get("items").unwrap_or(schema);
    let Some(fields) = items["properties"].as_object() else {
        return;
    };
    let described = fields.iter().map(|(name, field)| {
        let text = words(field["description"].as_str().unwrap_or_default());
        (name.clone(), text)
    });
    found.push((path.to_owned(), described.collect()));
    for (name, field) in fields {
        objects(&format!("{path}.{name}"), field, found);
    }
}

#[tokio::test]
async fn explain_describes_every_field() {
    let Some(space) = Space::new("explain").await else {
        return;
    };
    // The server publishes its schemas a moment after it serves a resource.
    eventually("explain knows the resource", || {
        space.kubectl(["explain", "whs"]).well.then_some(())
    });
    let mut all = Vec::new();
    let schema = schema();
    for part in ["spec", "status"] {
        objects(
            &format!("whs.{part}"),
            &schema["properties"][part],
            &mut all,
        );
    }
    let mut fields = 0;
    let mut wrong = Vec::new();
    for (path, described) in all {
        let shown = words(&space.kubectl(["explain", &path]).fine());
        for (name, text) in described {
            fields += 1;
            // NAME <type> [-required-] [enum: …] description
            if text.is_empty() || !shown.contains(&format!(" {name} <")) || !shown.contains(&text) {
                wrong.push(format!("{path}.{name}: {text:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fields > 80, "{fields}");
    let one = words(&space.kubectl(["explain", "whs.spec.environment"]).fine());
    for part in ["FIELD: environment <string>", "Cannot be changed."] {
        assert!(one.contains(part), "{one}");
    }
}

/// A condition as the operator writes it.
fn condition(kind: ConditionType, status: &str, reason: Reason, generation: i64) -> Value {
    json!({
        "type": kind.as_str(), "status": status, "reason": reason.as_str(),
        "message": reason.sentence(), "observedGeneration": generation,
        "lastTransitionTime": "2026-01-02T03:04:05Z"
    })
}

fn set_status(space: &Space, status: &Value) {
    let patch = json!({ "status": status }).to_string();
    let arguments = [
        "patch",
        "whs",
        "redeam",
        "--subresource=status",
        "--type=merge",
        "--patch",
        &patch,
    ];
    space.kubectl(arguments).fine();
}

#[tokio::test]
async fn get_shows_the_columns() {
    let Some(space) = Space::new("columns").await else {
        return;
    };
    let object = rules::smallest("redeam").to_string();
    space.kubectl_with(["create", "-f", "-"], &object).fine();
    let table = |columns: usize| -> Vec<Vec<String>> {
        let text = space.kubectl(["get", "whs"]).fine();
        let header = text.lines().next().unwrap();
        // Columns stand where their headings do; one heading has a blank in it.
        let headings = [
            "NAME",
            "ENVIRONMENT",
            "READY",
            "REASON",
            "REGISTERED",
            "BACKLOG",
            "LAST NOTIFICATION",
            "AGE",
        ];
        assert_eq!(words(header), headings.join(" "));
        let starts: Vec<usize> = headings
            .iter()
            .map(|name| header.find(name).unwrap())
            .collect();
        let row = text.lines().nth(1).unwrap();
        let cell = |at: usize| {
            let end = starts
                .get(at + 1)
                .map_or(row.len(), |end| (*end).min(row.len()));
            row.get(starts[at]..end)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        vec![(0..columns).map(cell).collect()]
    };
    assert_eq!(table(7)[0], ["redeam", "sandbox", "", "", "", "", ""]);
    let hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(61);
    set_status(
        &space,
        &json!({
            "observedGeneration": 1, "registered": "7/7", "backlog": "100+",
            "lastNotificationTime": format!("{hour_ago:.0}"),
            "conditions": [condition(ConditionType::Ready, "True", Reason::Ok, 1)]
        }),
    );
    let shown = table(8).remove(0);
    assert_eq!(
        shown[..7],
        ["redeam", "sandbox", "True", "Ok", "7/7", "100+", "61m"]
    );
    assert!(shown[7].ends_with('s'), "{shown:?}");
    // The status subresource leaves the spec alone, and an apply of the spec leaves the status.
    space.kubectl_with(["apply", "-f", "-"], &object).fine();
    assert_eq!(table(3)[0][2], "True");
}

#[tokio::test]
async fn wait_ends_when_the_object_is_ready() {
    let Some(space) = Space::new("wait").await else {
        return;
    };
    let object = rules::smallest("redeam").to_string();
    space.kubectl_with(["create", "-f", "-"], &object).fine();
    let wait = ["wait", "--for=condition=Ready", "whs/redeam"];
    let not_yet = space
        .kubectl([wait[0], wait[1], wait[2], "--timeout=200ms"])
        .refused();
    assert!(not_yet.contains("timed out"), "{not_yet}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| space.kubectl([wait[0], wait[1], wait[2], "--timeout=60s"]));
        let reason = |status: &str, reason| {
            let ready = condition(ConditionType::Ready, status, reason, 1);
            set_status(
                &space,
                &json!({ "observedGeneration": 1, "conditions": [ready] }),
            );
        };
        reason("False", Reason::RegistrationPending);
        reason("True", Reason::Ok);
        let said = waiting.join().unwrap().fine();
        assert!(
            said.contains("webhooksubscription.bellhop.dev/redeam condition met"),
            "{said}"
        );
    });
    // A change that nobody has looked at is not ready any more, whatever the condition still says.
    let patch = r#"{"spec":{"suspend":true}}"#;
    space
        .kubectl(["patch", "whs", "redeam", "--type=merge", "--patch", patch])
        .fine();
    space
        .kubectl([wait[0], wait[1], wait[2], "--timeout=200ms"])
        .refused();
}
