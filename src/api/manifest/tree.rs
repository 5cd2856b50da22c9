//! YAML text as a tree in which every value knows its place.
//!
//! Owns: parsing, aliases, duplicate keys, the core schema's reading of plain scalars, and bounds
//! on depth and size. Never here: what a field means.

use std::collections::{BTreeSet, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// One value.
#[derive(Clone)]
pub(super) struct Node {
    pub place: Place,
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One field of a mapping.
#[derive(Clone)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// The value of a field.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The value as text.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, in words; never its content.
    pub fn what(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// As JSON, with all that is null left out (as the API server does).
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => entries
                .iter()
                .filter(|entry| !matches!(entry.value.kind, Kind::Null))
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }
}

/// A mistake in the YAML itself.
pub(super) struct Fault {
    pub place: Place,
    pub path: String,
    pub message: String,
}

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// Most values that are read, aliases counted with all that they stand for.
const MAX_NODES: usize = 100_000;

/// The documents of a text, empty ones left out, and what is wrong with the YAML. After a syntax
/// error nothing more is read: the document with the error is dropped, those before it stay.
pub(super) fn parse(text: &str) -> (Vec<Node>, Vec<Fault>) {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let result = match event {
            Ok((event, span)) => builder.event(event, place(span)),
            Err(error) => {
                let marker = error.marker();
                Err(Fault {
                    place: Place {
                        line: marker.line(),
                        column: marker.col() + 1,
                    },
                    path: String::new(),
                    message: format!("not YAML: {}", error.info()),
                })
            }
        };
        if let Err(fault) = result {
            builder.faults.push(fault);
            break;
        }
    }
    (builder.documents, builder.faults)
}

fn place(span: Span) -> Place {
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    faults: Vec<Fault>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// What a mapping's next value is.
#[derive(Default)]
enum Awaits {
    #[default]
    Key,
    /// The value of this field.
    Value(String, Place),
    /// The value of a field that is there twice, or whose name is no text: it is dropped.
    Dropped,
}

/// A collection whose end has not come yet.
struct Open {
    node: Node,
    anchor: usize,
    awaits: Awaits,
    seen: BTreeSet<String>,
    nodes_before: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
                let kind = if style == ScalarStyle::Plain && !forced {
                    plain(&text)
                } else {
                    Kind::Text(text.into_owned())
                };
                self.count(place, 1)?;
                let node = Node { place, kind };
                if anchor > 0 {
                    self.anchors.insert(anchor, (node.clone(), 1));
                }
                self.value(node);
                Ok(())
            }
            Event::SequenceStart(_, anchor, _) => self.begin(place, anchor, Kind::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => self.begin(place, anchor, Kind::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                if open.anchor > 0 {
                    let size = self.nodes - open.nodes_before;
                    self.anchors.insert(open.anchor, (open.node.clone(), size));
                }
                self.value(open.node);
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(self.fault(place, "an alias inside of what it stands for"));
                };
                let (mut node, size) = (node.clone(), *size);
                self.count(place, size)?;
                node.place = place;
                self.value(node);
                Ok(())
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, place: Place, nodes: usize) -> Result<(), Fault> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self.fault(
                place,
                "more than 100000 values, aliases written out; write a smaller file",
            ));
        }
        Ok(())
    }

    fn begin(&mut self, place: Place, anchor: usize, kind: Kind) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.fault(place, "nested deeper than 64 levels; write it flatter"));
        }
        let nodes_before = self.nodes;
        self.count(place, 1)?;
        self.open.push(Open {
            node: Node { place, kind },
            anchor,
            awaits: Awaits::Key,
            seen: BTreeSet::new(),
            nodes_before,
        });
        Ok(())
    }

    /// A value is complete: it goes where it belongs.
    fn value(&mut self, node: Node) {
        let path = self.path();
        let Some(open) = self.open.last_mut() else {
            if !matches!(node.kind, Kind::Null) {
                self.documents.push(node);
            }
            return;
        };
        let place = node.place;
        let mut fault = None;
        match (&mut open.node.kind, std::mem::take(&mut open.awaits)) {
            (Kind::List(items), _) => items.push(node),
            (Kind::Map(entries), Awaits::Value(key, place)) => entries.push(Entry {
                key,
                place,
                value: node,
            }),
            (Kind::Map(_), Awaits::Key) => match text_of_key(&node) {
                Some(key) if open.seen.insert(key.clone()) => {
                    open.awaits = Awaits::Value(key, place);
                }
                Some(key) => {
                    open.awaits = Awaits::Dropped;
                    fault = Some(Fault {
                        place,
                        path: join(&path, &key),
                        message: "the field is there twice; write it once".to_owned(),
                    });
                }
                None => {
                    open.awaits = Awaits::Dropped;
                    fault = Some(Fault {
                        place,
                        path,
                        message: format!("{} as a field name; write text", node.what()),
                    });
                }
            },
            _ => {}
        }
        self.faults.extend(fault);
    }

    /// Where the innermost open collection is.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in self.open.iter().rev().skip(1).rev() {
            match (&open.node.kind, &open.awaits) {
                (Kind::List(items), _) => path = format!("{path}[{}]", items.len()),
                (_, Awaits::Value(key, _)) => path = join(&path, key),
                _ => {}
            }
        }
        path
    }

    fn fault(&self, place: Place, message: &str) -> Fault {
        Fault {
            place,
            path: self.path(),
            message: message.to_owned(),
        }
    }
}

/// The path of a field below another.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// A mapping's key as JSON would have it: `1: x` and `true: x` are read as text.
fn text_of_key(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Number(number) => Some(number.to_string()),
        Kind::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A plain scalar by YAML's core schema.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let number = text.strip_prefix('+').unwrap_or(text);
    let starts = number.trim_start_matches(['-', '.']);
    if !starts.starts_with(|c: char| c.is_ascii_digit()) {
        return Kind::Text(text.to_owned());
    }
    let radix = |prefix: &str, radix: u32| {
        let digits = number.strip_prefix(prefix)?;
        u64::from_str_radix(digits, radix).ok().map(Number::from)
    };
    let found = number
        .parse::<i64>()
        .ok()
        .map(Number::from)
        .or_else(|| number.parse::<u64>().ok().map(Number::from))
        .or_else(|| radix("0x", 16))
        .or_else(|| radix("0o", 8))
        .or_else(|| number.parse::<f64>().ok().and_then(Number::from_f64));
    found.map_or_else(|| Kind::Text(text.to_owned()), Kind::Number)
}
