//! kubeconform, strict, with JSON schemas made of what each Kubernetes says of its own API
//! (swagger.json of its sources), of our CustomResourceDefinition and of the Prometheus operator's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use super::{Helm, NEWEST, OLDEST, cases, documents, fine};
use crate::cluster::tools;

/// kubeconform, and what it is to know.
struct Kubeconform {
    program: PathBuf,
    /// The API description of one version.
    swagger: Value,
    /// Definitions of other kinds.
    definitions: Vec<Value>,
    folder: tempfile::TempDir,
}

impl Kubeconform {
    fn find(version: &str) -> Option<Self> {
        let program = tools::find("kubeconform")?;
        let minor = version.rsplit_once('.').unwrap().0;
        let swagger = tools::find(&format!("../schemas/kubernetes-{minor}.json"))?;
        let mut definitions = vec![read_yaml("crds/bellhop.dev_webhooksubscriptions.yaml")];
        for kind in ["podmonitors", "prometheusrules"] {
            let name = format!("../schemas/monitoring.coreos.com_{kind}.yaml");
            definitions.push(read_yaml(tools::find(&name)?));
        }
        let swagger = serde_json::from_slice(&std::fs::read(swagger).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Some(Self {
            program,
            swagger,
            definitions,
            folder,
        })
    }

    /// The schema of a kind: nothing is allowed that it does not name.
    fn schema(&self, api_version: &str, kind: &str) -> Value {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        for definition in &self.definitions {
            let spec = &definition["spec"];
            if spec["group"] == group && spec["names"]["kind"] == kind {
                let mut versions = spec["versions"].as_array().unwrap().iter();
                let found = versions.find(|one| one["name"] == version).unwrap();
                let mut schema = found["schema"]["openAPIV3Schema"].clone();
                // What every object has, whether its definition says so or not.
                for (key, of) in [
                    ("apiVersion", json!({ "type": "string" })),
                    ("kind", json!({ "type": "string" })),
                    ("metadata", json!({ "type": "object" })),
                ] {
                    schema["properties"][key] = of;
                }
                close(&mut schema);
                return schema;
            }
        }
        let wanted = json!({ "group": group, "version": version, "kind": kind });
        let all = self.swagger["definitions"].as_object().unwrap();
        let is_it = |definition: &Value| {
            let kinds = definition["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.contains(&wanted))
        };
        let found = all.iter().find(|(_, definition)| is_it(definition));
        let (name, _) = found.unwrap_or_else(|| panic!("no {wanted} in this Kubernetes"));
        let mut needed = Map::new();
        collect(name, all, &mut needed);
        json!({ "$ref": format!("#/definitions/{name}"), "definitions": needed })
    }

    /// The names of kubeconform's templates: core kinds have their version as group.
    fn write(&self, document: &Value) {
        let text = |key: &str| document[key].as_str().unwrap();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version
            .split_once('/')
            .unwrap_or((api_version, api_version));
        let name = format!("{}-{group}-{version}.json", kind.to_lowercase());
        let path = self.folder.path().join(name);
        if !path.exists() {
            std::fs::write(path, self.schema(api_version, kind).to_string()).unwrap();
        }
    }

    /// What it says of a text; every document is looked at.
    fn check(&self, text: &str) -> Result<(), String> {
        let documents = documents(text);
        for document in &documents {
            self.write(document);
        }
        let file = self.folder.path().join("checked.yaml");
        std::fs::write(&file, text).unwrap();
        let location = self
            .folder
            .path()
            .join("{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json");
        let mut command = Command::new(&self.program);
        command.args(["-strict", "-summary", "-output", "json", "-schema-location"]);
        let output = command.arg(location).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary: Value = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
        if summary["summary"]["valid"] == documents.len() {
            return Ok(());
        }
        Err(said)
    }
}

fn read_yaml(path: impl AsRef<Path>) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    documents(&text).remove(0)
}

/// A definition and all that it refers to, closed.
fn collect(name: &str, all: &Map<String, Value>, needed: &mut Map<String, Value>) {
    if needed.contains_key(name) {
        return;
    }
    let mut definition = all[name].clone();
    if name.ends_with(".Quantity") {
        // Said to be a string, and taken as a number as well.
        definition["type"] = json!(["string", "number"]);
    }
    close(&mut definition);
    let mut references = BTreeSet::new();
    refers(&definition, &mut references);
    needed.insert(name.to_owned(), definition);
    for reference in references {
        collect(&reference, all, needed);
    }
}

fn refers(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str);
            let name = name.and_then(|text| text.strip_prefix("#/definitions/"));
            found.extend(name.map(str::to_owned));
            map.values().for_each(|value| refers(value, found));
        }
        Value::Array(all) => all.iter().for_each(|value| refers(value, found)),
        _ => {}
    }
}

/// Forbids what a schema does not name, and says what Kubernetes means by its formats.
fn close(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    let free = map.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    if map.contains_key("properties") && !map.contains_key("additionalProperties") && !free {
        map.insert("additionalProperties".to_owned(), json!(false));
    }
    if map.get("format") == Some(&json!("int-or-string")) {
        map.insert("type".to_owned(), json!(["integer", "string"]));
    }
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(close);
            }
            ("items" | "additionalProperties", value) => close(value),
            _ => {}
        }
    }
}

#[test]
fn everything_fits_the_newest_kubernetes() {
    fits(NEWEST);
}

#[test]
fn everything_fits_the_oldest_kubernetes() {
    fits(OLDEST);
}

fn fits(version: &str) {
    let (Some(helm), Some(kubeconform)) = (Helm::find(), Kubeconform::find(version)) else {
        return;
    };
    let crds = fine(helm.run(["template", "bellhop-crds", "charts/bellhop-crds"]));
    let mut texts = vec![("charts/bellhop-crds".to_owned(), crds)];
    for (name, values) in cases() {
        let rendered = fine(helm.template(values.as_deref(), version, &[]));
        texts.push((format!("charts/bellhop with {name}"), rendered));
    }
    for folder in ["crds", "deploy", "examples"] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                texts.push((path.display().to_string(), text));
            }
        }
    }
    for (what, text) in texts {
        if let Err(said) = kubeconform.check(&text) {
            panic!("{what}: {said}");
        }
    }
}

/// The check can fail: a misspelt field deep in a known kind and in our own, a wrong type.
#[test]
fn mistakes_are_found() {
    let (Some(helm), Some(kubeconform)) = (Helm::find(), Kubeconform::find(NEWEST)) else {
        return;
    };
    let rendered = helm.rendered(None);
    let example = std::fs::read_to_string("examples/variants/full.yaml").unwrap();
    for (text, right, wrong) in [
        (
            &rendered,
            "readOnlyRootFilesystem:",
            "readOnlyRootFileSystem:",
        ),
        (&rendered, "containerPort: 8081", "containerPort: admin"),
        (
            &rendered,
            "unhealthyPodEvictionPolicy:",
            "unhealthyPodEviction:",
        ),
        (&example, "removalGuard:", "removalsGuard:"),
        (&example, "resyncInterval: 24h", "resyncInterval: 24"),
    ] {
        assert_eq!(kubeconform.check(text), Ok(()));
        assert!(text.contains(right), "{right}");
        assert!(
            kubeconform.check(&text.replace(right, wrong)).is_err(),
            "{wrong}"
        );
    }
}
