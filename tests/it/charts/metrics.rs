//! The metrics that the code registers, read from its source: `registry.register("name", help,
//! metric)`, with the metric's type where the metric is declared. That this reading is right is
//! checked against what real processes serve ([`check_types`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What Prometheus makes of a metric's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `NAME_total`
    Counter,
    /// `NAME`
    Gauge,
    /// `NAME_bucket`, `NAME_sum`, `NAME_count`
    Histogram,
}

/// Those that a collector makes when somebody scrapes: src/state/embedded/gauges.rs.
const COLLECTED: [&str; 3] = ["oldest_mark_age_seconds", "live_entities", "dead_letters"];

/// All, by the name that they are described under.
pub static REGISTERED: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(registered);

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// The whole source, for what is looked for anywhere in it.
pub static SOURCE: LazyLock<String> = LazyLock::new(|| {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap();
    sources(Path::new("src")).into_iter().map(read).collect()
});

fn registered() -> BTreeMap<String, Kind> {
    let mut all = BTreeMap::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for (call, prefix) in [("registry.register", ""), ("store.register", "store_")] {
            for (at, _) in text.match_indices(call) {
                let Some((name, kind)) = registration(&text, &text[at + call.len()..]) else {
                    continue;
                };
                let name = format!("bellhop_{prefix}{name}");
                let again = all.insert(name.clone(), kind);
                assert_eq!(again, None, "{name} is registered twice");
            }
        }
    }
    let gauges = fs::read_to_string("src/state/embedded/gauges.rs").unwrap();
    for name in COLLECTED {
        assert!(gauges.contains(&format!("\"{name}\"")), "{name}");
        all.insert(format!("bellhop_store_{name}"), Kind::Gauge);
    }
    assert!(all.len() > 50, "{all:#?}");
    all
}

/// Name and kind of one call, whose text begins after `register`.
fn registration(file: &str, text: &str) -> Option<(String, Kind)> {
    let arguments = text
        .strip_prefix("_with_unit(")
        .or_else(|| text.strip_prefix('('))?;
    let (name, rest) = arguments.trim_start().strip_prefix('"')?.split_once('"')?;
    let rest = &rest[..rest.find(");")?];
    let unit = if rest.contains("Unit::Seconds") {
        "_seconds"
    } else {
        ""
    };
    // `own.passes.clone()`, `Family::clone(&ended)`: the last word that is not `clone`.
    let words = rest.split(|c: char| !c.is_alphanumeric() && c != '_');
    let mut words = words.filter(|word| !word.is_empty() && *word != "clone");
    let metric = words.next_back()?;
    let kind = declared(file, metric);
    let kind = kind.unwrap_or_else(|| panic!("no declaration of `{metric}`, which is {name}"));
    Some((format!("{name}{unit}"), kind))
}

/// The kind of a metric, from the first line that declares it with one.
fn declared(file: &str, metric: &str) -> Option<Kind> {
    file.lines().find_map(|line| {
        let (before, after) = line.split_once(metric)?;
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let declares = after.starts_with(':') || after.starts_with(" =");
        let kinds = [
            ("istogram", Kind::Histogram),
            ("Counter", Kind::Counter),
            ("Gauge", Kind::Gauge),
        ];
        let kind = kinds.into_iter().find(|(word, _)| after.contains(word));
        kind.filter(|_| whole && declares).map(|(_, kind)| kind)
    })
}

/// The names under which samples of a metric are found.
pub fn samples() -> BTreeSet<String> {
    let all = REGISTERED.iter().flat_map(|(name, kind)| {
        let ends: &[&str] = match kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        ends.iter().map(move |end| format!("{name}{end}"))
    });
    all.collect()
}

/// Fails when a process serves a metric that was not read from the source, or as another type.
pub fn check_types(served: &str) {
    let mut seen = 0;
    for line in served.lines() {
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let read = match kind {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            other => panic!("{name}: {other}"),
        };
        let name = match read {
            Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        assert_eq!(REGISTERED.get(name), Some(&read), "{name}");
        seen += 1;
    }
    assert!(seen > 0, "{served}");
}
