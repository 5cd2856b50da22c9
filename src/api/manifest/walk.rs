//! A tree against a schema: every mistake of structure at once, and what is left when those are
//! taken out, so that the rules beyond structure can still be checked.
//!
//! Owns: unknown fields, wrong types, missing fields, words that are not in a list. Never here:
//! ranges, patterns and rules (`validate` has them), and the content of a value where it could be a
//! secret.

use serde_json::{Map, Value};

use super::tree::{Entry, Kind, Node, Place, join};

/// What a walk finds.
pub(super) struct Walk {
    /// Place, path, message.
    pub found: Vec<(Place, String, String)>,
    /// Paths with a stand-in although nothing was said of them: their name is misspelt.
    pub silent: Vec<String>,
    /// Whether values may be shown.
    pub show: bool,
}

impl Walk {
    fn add(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.found.push((place, path.to_owned(), message.into()));
    }

    /// Checks a value and gives what can be decoded instead of it: itself, or, where it is wrong,
    /// a stand-in (`None`: better left out).
    pub fn value(&mut self, path: &str, node: &Node, schema: &Value) -> Option<Value> {
        if matches!(node.kind, Kind::Null) {
            return None;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return match &node.kind {
                Kind::Number(_) | Kind::Text(_) => Some(node.to_json()),
                _ => self.wrong(path, node, "a number or text"),
            };
        }
        match schema["type"].as_str().unwrap_or_default() {
            "object" => self.object(path, node, schema),
            "array" => {
                let Kind::List(items) = &node.kind else {
                    return self.wrong(path, node, "a list (each item on its own line after `- `)");
                };
                Some(self.items(path, items, &schema["items"]))
            }
            "string" => self.text(path, node, schema),
            "boolean" => match &node.kind {
                Kind::Bool(value) => Some(Value::Bool(*value)),
                _ => self.wrong(path, node, "true or false, without quotes"),
            },
            "integer" => self.integer(path, node, schema),
            _ => Some(node.to_json()),
        }
    }

    fn wrong(&mut self, path: &str, node: &Node, expected: &str) -> Option<Value> {
        let shown = match (&node.kind, self.show) {
            (Kind::Text(text), true) => format!("`{}`", excerpt(text)),
            (Kind::Number(number), true) => format!("the number {number}"),
            (Kind::Bool(value), true) => format!("the boolean {value}"),
            _ => node.what().to_owned(),
        };
        self.add(node.place, path, format!("{shown}; write {expected}"));
        None
    }

    fn items(&mut self, path: &str, items: &[Node], schema: &Value) -> Value {
        let mut values = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if matches!(item.kind, Kind::Null) {
                self.add(
                    item.place,
                    &path,
                    "an empty item; write a value or remove it",
                );
            }
            // Whatever is wrong keeps its position, so that later paths stay right.
            let value = self.value(&path, item, schema);
            values.push(value.unwrap_or_else(|| stand_in(schema)));
        }
        Value::Array(values)
    }

    fn text(&mut self, path: &str, node: &Node, schema: &Value) -> Option<Value> {
        let choices = schema["enum"].as_array();
        let Kind::Text(text) = &node.kind else {
            return match choices {
                Some(choices) => self.wrong(path, node, &one_of(choices)),
                None if matches!(node.kind, Kind::Number(_) | Kind::Bool(_)) => {
                    self.wrong(path, node, "it in quotes: text is expected here")
                }
                None => self.wrong(path, node, "text"),
            };
        };
        if let Some(choices) = choices
            && !choices.iter().any(|choice| choice == text)
        {
            let names: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
            let expected = match nearest(text, &names) {
                Some(name) => format!("`{name}`, if that is meant, or {}", one_of(choices)),
                None => one_of(choices),
            };
            return self.wrong(path, node, &expected);
        }
        Some(Value::String(text.clone()))
    }

    fn integer(&mut self, path: &str, node: &Node, schema: &Value) -> Option<Value> {
        let bound = |key: &str| schema[key].as_f64().map(|number| number as i64);
        let expected = match (bound("minimum"), bound("maximum")) {
            (Some(min), Some(max)) => format!("a whole number from {min} to {max}"),
            _ => "a whole number".to_owned(),
        };
        let Kind::Number(number) = &node.kind else {
            return self.wrong(path, node, &format!("{expected}, without quotes"));
        };
        // Too large for the type that it is decoded into: said here, as it would not arrive.
        let fits = |value: i64| {
            bound("minimum").is_none_or(|min| value >= min.min(0))
                && i32::try_from(value).is_ok_and(|value| value >= 0 || bound("minimum").is_none())
        };
        match number.as_i64() {
            Some(value) if fits(value) => Some(Value::from(value)),
            _ => self.wrong(path, node, &expected),
        }
    }

    fn object(&mut self, path: &str, node: &Node, schema: &Value) -> Option<Value> {
        let Kind::Map(entries) = &node.kind else {
            return self.wrong(path, node, "a mapping (`field: value`)");
        };
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return Some(node.to_json());
        }
        let mut object = Map::new();
        if let Some(values) = schema.get("additionalProperties") {
            for Entry { key, value, .. } in entries {
                if let Some(value) = self.value(&join(path, key), value, values) {
                    object.insert(key.clone(), value);
                }
            }
            return Some(object.into());
        }
        let empty = Map::new();
        let fields = schema["properties"].as_object().unwrap_or(&empty);
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let mut meant = Vec::new();
        for Entry { key, place, value } in entries {
            let path = join(path, key);
            let Some(schema) = fields.get(key) else {
                let near = nearest(key, &names);
                meant.extend(near);
                let message = unknown(key, near, &names);
                self.add(*place, &path, message);
                continue;
            };
            if let Some(value) = self.value(&path, value, schema) {
                object.insert(key.clone(), value);
            }
        }
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if object.contains_key(name) {
                continue;
            }
            let field = fields.get(name).unwrap_or(&Value::Null);
            let given = node.get(name);
            let absent = given.is_none_or(|given| matches!(given.kind, Kind::Null));
            // A misspelt field is one mistake, not two.
            if absent && meant.contains(&name) {
                self.silent.push(join(path, name));
            } else if absent {
                let place = given.map_or(node.place, |given| given.place);
                let path = join(path, name);
                self.add(place, &path, missing(field));
            }
            object.insert(name.to_owned(), stand_in(field));
        }
        Some(object.into())
    }
}

fn unknown(key: &str, near: Option<&str>, names: &[&str]) -> String {
    if key == "<<" {
        return "merge keys are not read; write the fields out".to_owned();
    }
    match near {
        Some(name) => format!("unknown field; did you mean `{name}`?"),
        None => format!("unknown field; the fields here are {}", names.join(", ")),
    }
}

/// What a missing field should be.
fn missing(schema: &Value) -> String {
    let hint = match schema["enum"].as_array() {
        Some(choices) => one_of(choices),
        None => match schema["description"].as_str() {
            Some(text) => {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                let first = text.split(". ").next().unwrap_or_default();
                first.trim_end_matches('.').to_owned()
            }
            None => "it".to_owned(),
        },
    };
    format!("missing; write {}{}", hint[..1].to_lowercase(), &hint[1..])
}

fn one_of(choices: &[Value]) -> String {
    let names: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
    match names.as_slice() {
        [only] => format!("`{only}`"),
        [first @ .., last] => format!("one of {} and {last}", first.join(", ")),
        [] => "nothing".to_owned(),
    }
}

/// A right value of a schema's structure, in the place of a wrong one.
fn stand_in(schema: &Value) -> Value {
    match schema["type"].as_str().unwrap_or_default() {
        "object" => {
            let required = schema["required"].as_array().into_iter().flatten();
            required
                .filter_map(Value::as_str)
                .map(|name| (name.to_owned(), stand_in(&schema["properties"][name])))
                .collect::<Map<_, _>>()
                .into()
        }
        "array" => Value::Array(Vec::new()),
        "boolean" => Value::Bool(false),
        "integer" => schema["minimum"]
            .as_f64()
            .map_or(Value::from(0), |min| Value::from(min as i64)),
        _ => match schema["enum"].as_array() {
            Some(choices) => choices.first().cloned().unwrap_or_default(),
            None => Value::String(String::new()),
        },
    }
}

/// The name that a person may have meant.
pub(super) fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    let distance =
        |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), &name.to_lowercase());
    names
        .iter()
        .map(|name| (distance(name), *name))
        .min()
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .map(|(_, name)| name)
}

/// At most the first 60 characters, on one line.
fn excerpt(text: &str) -> String {
    let cut: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if cut.len() < text.len() {
        cut + "…"
    } else {
        cut
    }
}
