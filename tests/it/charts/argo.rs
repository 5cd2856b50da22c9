//! deploy/argocd-health.lua in gopher-lua, the interpreter that Argo CD runs it in. Oracle: what
//! docs/conditions.md says that other tools see, in Argo CD's words.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use super::fine;
use crate::cluster::kstatus::{documented, in_state, on_the_way};
use crate::cluster::tools;
use bellhop::api::condition::Reason;

/// A value as Lua writes it.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(all) => {
            let all: Vec<String> = all.iter().map(lua).collect();
            format!("{{{}}}", all.join(","))
        }
        Value::Object(map) => {
            let entry =
                |(key, value): (&String, &Value)| format!("[{}]={}", quoted(key), lua(value));
            let all: Vec<String> = map.iter().map(entry).collect();
            format!("{{{}}}", all.join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    let escaped = text.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || byte == b' ' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\{byte:03}");
        }
        text
    });
    format!("\"{escaped}\"")
}

/// kstatus' words in Argo CD's.
fn health(seen: &str) -> &'static str {
    match seen {
        "Current" => "Healthy",
        "Failed" => "Degraded",
        "InProgress" | "Terminating" => "Progressing",
        other => panic!("{other}"),
    }
}

#[test]
fn argo_cd_sees_each_state_as_documented() {
    let Some(glua) = tools::find("glua") else {
        return;
    };
    let mut objects = Vec::new();
    let mut expected = Vec::new();
    for (part, seen) in documented() {
        let (kind, status, reason) = part;
        objects.push(in_state(part, seen));
        // Somebody wanted it so.
        let wanted = matches!(reason, Reason::Suspended | Reason::Paused);
        let health = if wanted { "Suspended" } else { health(seen) };
        let message = (health == "Degraded").then(|| reason.sentence());
        expected.push((
            format!("{kind} {} {reason}", status.as_str()),
            health,
            message,
        ));
    }
    for (object, seen) in on_the_way() {
        expected.push((object["metadata"]["name"].to_string(), health(seen), None));
        objects.push(object);
    }
    let mut script = String::from("local check = assert(loadfile(\"deploy/argocd-health.lua\"))\n");
    for object in &objects {
        let object = lua(object);
        let _ = writeln!(
            script,
            "obj = {object}\nlocal it = check()\nprint(it.status .. \"\\t\" .. it.message)"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.lua");
    std::fs::write(&path, script).unwrap();
    let said = fine(Command::new(glua).arg(path).output().unwrap());
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), expected.len());
    let mut wrong = Vec::new();
    for (said, (what, health, message)) in said.iter().zip(expected) {
        let (status, text) = said.split_once('\t').unwrap();
        if status != health || message.is_some_and(|message| message != text) || text.is_empty() {
            wrong.push(format!("{what}: {said}, and not {health}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
