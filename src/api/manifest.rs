//! Reading subscriptions and Secrets from YAML text, strictly: for `bellhop run` and `check`.
//!
//! Owns: finding every mistake of a file at once, each with its line, its path and what to write
//! instead. JSON is read as the YAML that it is. Never here: IO, and the content of a Secret in a
//! message or a `Debug`.

mod mistake;
mod references;
mod tree;
mod walk;

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, json};

use super::crd;
use super::v1alpha1::WebhookSubscription;
use super::validate::validate;
use crate::secrets::{Credentials, Secret};
use references::Reference;
use tree::{Kind, Node};
use walk::Walk;

pub use mistake::{Mistake, Mistakes};
pub use tree::Place;

/// Largest text that is read, in bytes: 1 MiB, more than the API server takes.
pub const MAX_BYTES: usize = 1 << 20;

/// A Secret of a file.
#[derive(Debug, Clone)]
pub struct SecretManifest {
    /// `metadata.namespace`; `default` when the file names none.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `data`, decoded, with `stringData` over it.
    pub data: BTreeMap<String, Secret>,
}

impl SecretManifest {
    /// The provider's credentials in it, or what is missing. Line ends after a value are dropped:
    /// they come from `echo` without `-n`.
    pub fn credentials(&self) -> Result<Credentials, String> {
        let value = |key: &str| {
            let text = self.data.get(key).map_or("", |secret| secret.expose());
            let text = text.trim_end_matches(['\r', '\n']);
            if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Ok(Secret::new(text));
            }
            let near = |found: &&String| strsim::osa_distance(found, key) <= 2;
            let wrong = match self.data.get(key) {
                None if let Some(near) = self.data.keys().find(near) => {
                    return Err(format!(
                        "Secret {}/{} has `{near}`, but no key `{key}`; if that is meant, rename it",
                        self.namespace, self.name
                    ));
                }
                None => "has no key",
                Some(_) if text.is_empty() => "has nothing in its key",
                Some(_) => "has spaces or characters that no header can carry in its key",
            };
            Err(format!(
                "Secret {}/{} {wrong} `{key}`; put the provider's {key} there",
                self.namespace, self.name
            ))
        };
        match (value("apiKey"), value("apiSecret")) {
            (Ok(api_key), Ok(api_secret)) => Ok(Credentials {
                api_key,
                api_secret,
            }),
            (Err(one), Err(other)) => Err(format!("{one}; {other}")),
            (Err(one), _) | (_, Err(one)) => Err(one),
        }
    }
}

/// A subscription and where it stands.
#[derive(Debug, Clone)]
pub struct SubscriptionManifest {
    /// The object; its namespace is set (`default` when the file names none).
    pub object: WebhookSubscription,
    /// The file.
    pub file: String,
    /// Where its document begins.
    pub place: Place,
}

impl SubscriptionManifest {
    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.object
            .metadata
            .namespace
            .as_deref()
            .unwrap_or("default")
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
}

/// What files contain.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    /// Subscriptions, in file order.
    pub subscriptions: Vec<SubscriptionManifest>,
    /// Secrets, in file order.
    pub secrets: Vec<SecretManifest>,
}

impl Manifests {
    /// The Secret of a name in a namespace.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&SecretManifest> {
        self.secrets
            .iter()
            .find(|secret| secret.namespace == namespace && secret.name == name)
    }
}

/// Reads files, each a name (for messages) and its bytes, and checks that they fit together:
/// nothing twice, every subscription's credentials there.
pub fn read_all<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Manifests, Mistakes> {
    let mut reader = Reader::default();
    for (file, bytes) in files {
        reader.file(file, bytes);
    }
    reader.references();
    if reader.mistakes.is_empty() {
        Ok(reader.manifests)
    } else {
        Err(Mistakes(reader.mistakes))
    }
}

#[derive(Default)]
struct Reader {
    manifests: Manifests,
    mistakes: Vec<Mistake>,
    seen: BTreeMap<(&'static str, String, String), (String, Place)>,
    /// The Secrets that subscriptions name, also those of a subscription with mistakes.
    references: Vec<Reference>,
    /// Whether a Secret could not be read: then a missing one is no news.
    secret_failed: bool,
}

impl Reader {
    fn file(&mut self, file: &str, bytes: &[u8]) {
        let whole = |message: &str| Mistake {
            file: file.to_owned(),
            place: None,
            path: String::new(),
            message: message.to_owned(),
        };
        if bytes.len() > MAX_BYTES {
            let message = format!(
                "{} bytes; a manifest has at most {MAX_BYTES}: is this the right file?",
                bytes.len()
            );
            self.mistakes.push(whole(&message));
            return;
        }
        let Some(text) = std::str::from_utf8(bytes)
            .ok()
            .filter(|text| !text.contains('\0'))
        else {
            self.mistakes.push(whole(
                "not text in UTF-8; give a YAML file with a WebhookSubscription",
            ));
            return;
        };
        let (documents, faults) = tree::parse(text);
        let first = self.mistakes.len();
        if documents.is_empty() && faults.is_empty() {
            self.mistakes.push(whole(
                "no document in it; give a YAML file with a WebhookSubscription",
            ));
        }
        for fault in faults {
            self.mistakes.push(Mistake {
                file: file.to_owned(),
                place: Some(fault.place),
                path: fault.path,
                message: fault.message,
            });
        }
        for document in &documents {
            self.document(file, document);
        }
        self.mistakes[first..].sort();
    }

    fn document(&mut self, file: &str, document: &Node) {
        let text = |field: &str| document.get(field).and_then(Node::text);
        match (text("apiVersion"), text("kind")) {
            (Some("bellhop.dev/v1alpha1"), Some("WebhookSubscription")) => {
                self.subscription(file, document);
            }
            (Some("v1"), Some("Secret")) => self.secret(file, document),
            (version, kind) => {
                let (path, message) = stranger(document, version, kind);
                let place = document.get(path).unwrap_or(document).place;
                self.add(file, place, path, message);
            }
        }
    }

    fn add(&mut self, file: &str, place: Place, path: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake {
            file: file.to_owned(),
            place: Some(place),
            path: path.to_owned(),
            message: message.into(),
        });
    }

    fn subscription(&mut self, file: &str, document: &Node) {
        let mut schema = crd::schema();
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({ "type": "string" });
        }
        schema["properties"]["metadata"] = metadata_schema();
        schema["properties"]["status"] =
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
        let Some((mut value, wrong)) = self.walk(file, document, &schema, true) else {
            return;
        };
        // What Bellhop said once is nothing to go by.
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        let mut object: WebhookSubscription = match serde_json::from_value(value) {
            Ok(object) => object,
            Err(error) => {
                self.add(file, document.place, "", format!("cannot be read: {error}"));
                return;
            }
        };
        object
            .metadata
            .namespace
            .get_or_insert_with(|| "default".to_owned());
        let named = references::of(file, document, &object, &wrong);
        self.references.extend(named);
        let mut right = wrong.is_empty();
        for mistake in validate(&object) {
            let said = |path: &String| follows(&mistake.path, path);
            if wrong.iter().any(said) {
                continue;
            }
            right = false;
            self.add(
                file,
                locate(document, &mistake.path),
                &mistake.path,
                mistake.message,
            );
        }
        if !self.unique(file, document, "WebhookSubscription") || !right {
            return;
        }
        self.manifests.subscriptions.push(SubscriptionManifest {
            object,
            file: file.to_owned(),
            place: document.place,
        });
    }

    fn secret(&mut self, file: &str, document: &Node) {
        let before = self.mistakes.len();
        self.secret_document(file, document);
        self.secret_failed |= self.mistakes.len() > before;
    }

    fn secret_document(&mut self, file: &str, document: &Node) {
        let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
        let schema = json!({
            "type": "object",
            "required": ["metadata"],
            "properties": {
                "apiVersion": { "type": "string" },
                "kind": { "type": "string" },
                "metadata": metadata_schema(),
                "type": { "type": "string" },
                "immutable": { "type": "boolean" },
                "data": texts,
                "stringData": texts,
            }
        });
        let Some((value, _)) = self.walk(file, document, &schema, false) else {
            return;
        };
        let mut data = BTreeMap::new();
        for (key, encoded) in value["data"].as_object().into_iter().flatten() {
            let packed: String = encoded
                .as_str()
                .unwrap_or_default()
                .split_ascii_whitespace()
                .collect();
            let decoded = base64::engine::general_purpose::STANDARD.decode(packed);
            let message = match decoded.map(String::from_utf8) {
                Ok(Ok(text)) => {
                    data.insert(key.clone(), Secret::new(text));
                    continue;
                }
                Ok(Err(_)) => "not text in UTF-8 once decoded; Bellhop reads only text",
                Err(_) => "not base64; encode it, or write it as it is under `stringData`",
            };
            let path = format!("data.{key}");
            let place = document.get("data").and_then(|data| data.get(key));
            self.add(file, place.unwrap_or(document).place, &path, message);
        }
        for (key, text) in value["stringData"].as_object().into_iter().flatten() {
            data.insert(key.clone(), Secret::new(text.as_str().unwrap_or_default()));
        }
        if self.unique(file, document, "Secret") {
            let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
            self.manifests.secrets.push(SecretManifest {
                namespace: text("namespace").unwrap_or_else(|| "default".to_owned()),
                name: text("name").unwrap_or_default(),
                data,
            });
        }
    }

    /// Structure: what can be decoded, and the paths that are wrong.
    fn walk(
        &mut self,
        file: &str,
        document: &Node,
        schema: &Value,
        show: bool,
    ) -> Option<(Value, Vec<String>)> {
        let mut walk = Walk {
            found: Vec::new(),
            silent: Vec::new(),
            show,
        };
        let value = walk.value("", document, schema);
        let mut paths = walk.silent;
        for (place, path, message) in walk.found {
            self.add(file, place, &path, message);
            paths.push(path);
        }
        Some((value?, paths))
    }

    /// Whether no object of this kind and name was there before.
    fn unique(&mut self, file: &str, document: &Node, kind: &'static str) -> bool {
        let text = |field: &str| {
            let metadata = document.get("metadata")?;
            metadata.get(field)?.text().map(str::to_owned)
        };
        let Some(name) = text("name") else {
            return false;
        };
        let namespace = text("namespace").unwrap_or_else(|| "default".to_owned());
        let id = (kind, namespace, name);
        if let Some((other, place)) = self.seen.get(&id) {
            let message = format!(
                "{kind} {}/{} is there twice, first at {other}:{}; remove one",
                id.1, id.2, place.line
            );
            self.add(
                file,
                locate(document, "metadata.name"),
                "metadata.name",
                message,
            );
            return false;
        }
        self.seen.insert(id, (file.to_owned(), document.place));
        true
    }

    /// Every subscription finds its Secrets.
    fn references(&mut self) {
        let found = self
            .references
            .iter()
            .filter_map(|one| one.mistake(&self.manifests, self.secret_failed));
        self.mistakes.extend(found);
    }
}

/// What a document is that is neither of the two kinds: the field to point at, and the words.
fn stranger(document: &Node, version: Option<&str>, kind: Option<&str>) -> (&'static str, String) {
    const READ: &str =
        "`bellhop.dev/v1alpha1` WebhookSubscription and `v1` Secret are read, nothing else";
    if !matches!(document.kind, Kind::Map(_)) {
        let message = format!("{} instead of an object; {READ}", document.what());
        return ("", message);
    }
    match (version, kind) {
        (None, None) => ("", format!("neither apiVersion nor kind; {READ}")),
        (_, None) => ("kind", format!("missing; {READ}")),
        (_, Some("WebhookSubscription")) => (
            "apiVersion",
            "wrong for a WebhookSubscription; write `bellhop.dev/v1alpha1`".to_owned(),
        ),
        (_, Some("Secret")) => ("apiVersion", "wrong for a Secret; write `v1`".to_owned()),
        (_, Some("List")) => (
            "kind",
            "a List is not read; write each object as a document of its own, with `---` between"
                .to_owned(),
        ),
        (_, Some(kind)) => {
            let near = walk::nearest(kind, &["WebhookSubscription", "Secret"]);
            let shown: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
            let message = match near {
                Some(near) => format!("unknown kind `{shown}`; did you mean `{near}`?"),
                None => {
                    format!("`{shown}` is not read; {READ}: remove it or move it to another file")
                }
            };
            ("kind", message)
        }
    }
}

/// `metadata` as people and `kubectl get -o yaml` write it.
fn metadata_schema() -> Value {
    let texts = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let mut fields = serde_json::Map::new();
    for name in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        fields.insert(name.to_owned(), json!({ "type": "string" }));
    }
    fields["name"]["description"] = json!("The object's name");
    for name in ["labels", "annotations"] {
        fields.insert(name.to_owned(), texts.clone());
    }
    for name in ["deletionTimestamp", "generateName", "selfLink"] {
        fields.insert(name.to_owned(), json!({ "type": "string" }));
    }
    for name in ["generation", "deletionGracePeriodSeconds"] {
        fields.insert(name.to_owned(), json!({ "type": "integer" }));
    }
    for name in ["finalizers", "managedFields", "ownerReferences"] {
        fields.insert(name.to_owned(), json!({ "type": "array", "items": {} }));
    }
    json!({ "type": "object", "required": ["name"], "properties": fields })
}

/// Whether a mistake at `path` comes of one of structure at `wrong`, or of the stand-in there: it
/// is at or below it, of the list that it is an item of, or of the same field of another item.
fn follows(path: &str, wrong: &str) -> bool {
    let below = path
        .strip_prefix(wrong)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let item = wrong.strip_prefix(path).is_some_and(|rest| {
        rest.starts_with('[') && rest.find(']').is_some_and(|end| end + 1 == rest.len())
    });
    let twin = path.ends_with("].type")
        && path.rsplit_once('[').map(|(list, _)| list)
            == wrong.rsplit_once('[').map(|(list, _)| list)
        && wrong.ends_with("].type");
    below || item || twin
}

/// Where a path stands in a document, or the nearest thing above it that is there.
fn locate(document: &Node, path: &str) -> Place {
    let mut node = document;
    let mut place = document.place;
    let steps = path.split('.').flat_map(|step| {
        let (name, rest) = step.split_at(step.find('[').unwrap_or(step.len()));
        std::iter::once(name).chain(rest.split(['[', ']']).filter(|index| !index.is_empty()))
    });
    for step in steps {
        let next = match (&node.kind, step.parse::<usize>()) {
            (Kind::List(items), Ok(index)) => items.get(index),
            _ => node.get(step),
        };
        let Some(next) = next else { break };
        node = next;
        place = next.place;
    }
    place
}
