//! The CustomResourceDefinition, and the reference page made from it.
//!
//! Owns: what is sent to an API server: a structural schema without `nullable` (a null is then
//! dropped like a field that is left out), with defaults for scalars only. Never here: anything
//! that makes two runs differ.

use std::fmt::Write as _;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::v1alpha1::WebhookSubscription;
use super::v1alpha1::limits::{NAME_RULE, cel, shape};

/// What refreshes the committed CRD.
pub const REFRESH_CRD: &str = "cargo run -- crd > crds/bellhop.dev_webhooksubscriptions.yaml";
/// What refreshes the committed reference page.
pub const REFRESH_REFERENCE: &str = "cargo run -- crd --reference > docs/resource.md";

/// The CRD as JSON.
#[allow(clippy::missing_panics_doc, reason = "what the derive makes is JSON")]
pub fn crd() -> Value {
    let mut crd = serde_json::to_value(WebhookSubscription::crd()).expect("a CRD is JSON");
    let version = &mut crd["spec"]["versions"][0];
    let root = &mut version["schema"]["openAPIV3Schema"];
    tidy(root);
    root["x-kubernetes-validations"] = cel(&[NAME_RULE]);
    // Without this an object that nobody has looked at could be taken for ready.
    root["properties"]["status"]["default"] = json!({ "observedGeneration": -1 });
    crd
}

/// The schema of the whole object.
pub fn schema() -> Value {
    crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// The CRD as YAML, the same on every run.
#[allow(clippy::missing_panics_doc, reason = "JSON can be written as YAML")]
pub fn crd_yaml() -> String {
    let yaml = serde_saphyr::to_string(&crd()).expect("JSON can be written as YAML");
    format!("# Made by `bellhop crd`; do not edit. To refresh it: {REFRESH_CRD}\n{yaml}")
}

fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            object.remove("nullable");
            let unsigned = |format: &Value| format.as_str().is_some_and(|f| f.starts_with("uint"));
            if object.get("format").is_some_and(unsigned) {
                object.remove("format");
            }
            let no_scalar =
                |value: &Value| value.is_null() || value.is_object() || value.is_array();
            if object.contains_key("type") && object.get("default").is_some_and(no_scalar) {
                object.remove("default");
            }
            let pattern = object.get("pattern").and_then(Value::as_str);
            let rules = object.get("x-kubernetes-validations");
            let mut rules = rules.and_then(Value::as_array).cloned().unwrap_or_default();
            if let Some(rule) = pattern.and_then(|pattern| shape(pattern, &rules)) {
                rules.push(rule);
                object.insert("x-kubernetes-validations".into(), Value::Array(rules));
            }
            for (key, value) in object.iter_mut() {
                if key == "properties" {
                    let fields = value.as_object_mut().into_iter().flatten();
                    fields.for_each(|(_, field)| tidy(field));
                } else if ["items", "additionalProperties"].contains(&key.as_str()) {
                    tidy(value);
                }
            }
        }
        _ => {}
    }
}

/// The reference page of the resource, as Markdown.
pub fn reference() -> String {
    let schema = schema();
    let mut page = format!(
        "<!-- Made by `bellhop crd --reference`; do not edit. To refresh it: {REFRESH_REFERENCE} -->\n\
         # WebhookSubscription\n\n\
         `bellhop.dev/v1alpha1`, short name `whs`, namespaced. {}\n",
        description(&schema)
    );
    rules(&mut page, &schema);
    for part in ["spec", "status"] {
        let field = &schema["properties"][part];
        let _ = write!(
            page,
            "\n## {part}\n\n{}\n\n| field | type | default | description | limits |\n|---|---|---|---|---|\n",
            description(field)
        );
        rows(&mut page, part, field);
    }
    page
}

fn rules(page: &mut String, schema: &Value) {
    let texts: Vec<&str> = messages(schema).collect();
    if !texts.is_empty() {
        let _ = writeln!(page, "\nRule: {}.", texts.join("; "));
    }
}

fn messages(schema: &Value) -> impl Iterator<Item = &str> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["message"].as_str())
}

fn description(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rows(page: &mut String, path: &str, schema: &Value) {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let required = schema["required"].as_array();
    for (name, field) in properties {
        let required = required.is_some_and(|names| names.iter().any(|other| other == name));
        let here = format!("{path}.{name}");
        row(page, &here, field, required);
        rows(page, &here, field);
        let items = &field["items"];
        if items.get("properties").is_some() {
            rows(page, &format!("{here}[]"), items);
        }
    }
}

fn row(page: &mut String, path: &str, field: &Value, required: bool) {
    let default = match field.get("default") {
        Some(Value::String(text)) if text.is_empty() => "`\"\"`".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
        None if required => "required".to_owned(),
        None => String::new(),
    };
    let cell = |text: String| text.replace('|', "\\|");
    let _ = writeln!(
        page,
        "| `{path}` | {} | {} | {} | {} |",
        type_of(field),
        cell(default),
        cell(description(field)),
        cell(limits(field))
    );
}

fn type_of(field: &Value) -> String {
    if field.get("x-kubernetes-int-or-string").is_some() {
        return "quantity".into();
    }
    match field["type"].as_str().unwrap_or("any") {
        "array" => format!("list of {}", type_of(&field["items"])),
        "object" if field.get("additionalProperties").is_some() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        other => other.to_owned(),
    }
}

fn limits(field: &Value) -> String {
    let mut limits = Vec::new();
    let choices = field["enum"]
        .as_array()
        .or(field["items"]["enum"].as_array());
    if let Some(choices) = choices {
        let choices: Vec<String> = choices
            .iter()
            .filter_map(|choice| Some(format!("`{}`", choice.as_str()?)))
            .collect();
        limits.push(format!("one of {}", choices.join(", ")));
    }
    for (key, words) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "characters: at least"),
        ("maxLength", "characters: at most"),
        ("minItems", "items: at least"),
        ("maxItems", "items: at most"),
        ("maxProperties", "keys: at most"),
    ] {
        if let Some(number) = field[key].as_f64() {
            limits.push(format!("{words} {number}"));
        }
    }
    if field.get("additionalProperties").is_some()
        && let Some(number) = field["additionalProperties"]["maxLength"].as_u64()
    {
        limits.push(format!("characters of a value: at most {number}"));
    }
    if field["x-kubernetes-list-type"] == "map"
        && let Some(keys) = field["x-kubernetes-list-map-keys"].as_array()
    {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        limits.push(format!("unique by {}", keys.join(", ")));
    }
    let items = messages(&field["items"]);
    limits.extend(messages(field).chain(items).map(str::to_owned));
    limits.join("; ")
}
