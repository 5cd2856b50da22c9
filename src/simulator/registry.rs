//! The simulated Notification Registry: one rule per kind, four methods each.
//!
//! Owns: rules, their keys, what a rule may contain, and which events a rule asks for. Never here:
//! a rule without an https URL (unless a fault allows it), or a `securityKey` taken from a caller.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::catalogue::Event;
use super::core::Core;
use super::faults::{Api, Faults, FilterScope, PostExisting};
use super::http::{Answer, Call};
use super::kind::Kind;
use super::{derive, now_ms};

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) url: String,
    pub(super) disabled: bool,
    pub(super) config: Map<String, Value>,
    pub(super) key: String,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
}

/// The rules, and what waits for a disabled one to be enabled.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) rules: BTreeMap<Kind, Rule>,
    pub(super) held: Vec<Event>,
}

/// The writable part of a rule.
struct Wanted {
    url: String,
    disabled: bool,
    config: Map<String, Value>,
}

const READ_ONLY: [&str; 3] = ["securityKey", "createdOn", "updatedOn"];

impl Rule {
    pub(super) fn json(&self, faults: &Faults) -> Value {
        let time = |ms: i64| {
            if faults.epoch_times {
                Value::from(ms.div_euclid(1000))
            } else {
                Value::from(derive::rfc3339(ms, false))
            }
        };
        json!({
            "url": self.url,
            "disabled": self.disabled,
            "securityKey": self.key,
            "createdOn": time(self.created_ms),
            "updatedOn": time(self.updated_ms),
            "config": self.config,
        })
    }

    /// Whether this rule asks for an event.
    pub(super) fn asks_for(&self, event: &Event, faults: &Faults) -> bool {
        let operations = self.config.get("operations").and_then(Value::as_array);
        if let Some(operations) = operations.filter(|_| !event.kind.operations().is_empty())
            && !operations.iter().any(|op| op == event.operation)
        {
            return false;
        }
        let filtered = match faults.filter_scope {
            FilterScope::All => true,
            FilterScope::ChannelBinding => event.kind == Kind::ChannelBinding,
            FilterScope::None => false,
        };
        let one = |id: &Option<String>| id.iter().cloned().collect::<Vec<_>>();
        !filtered
            || [
                ("supplierIDs", one(&event.supplier)),
                ("productIDs", one(&event.product)),
                ("rateIDs", event.rates.clone()),
            ]
            .into_iter()
            .all(|(name, ids)| self.lets_pass(name, &ids))
    }

    /// An empty list, or an event without that identifier, is not filtered.
    fn lets_pass(&self, name: &str, ids: &[String]) -> bool {
        match self.config.get(name).and_then(Value::as_array) {
            Some(wanted) if !wanted.is_empty() && !ids.is_empty() => {
                ids.iter().any(|id| wanted.iter().any(|want| want == id))
            }
            _ => true,
        }
    }
}

pub(super) fn answer(core: &Core, call: &Call, segments: &[&str]) -> Answer {
    respond(core, call, segments).unwrap_or_else(|answer| answer)
}

fn respond(core: &Core, call: &Call, segments: &[&str]) -> Result<Answer, Answer> {
    let faults = core.faults();
    core.authenticate(call, Api::Registry)?;
    let [segment] = segments else {
        return Err(Answer::error(404, "no such path"));
    };
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| faults.registry_segment(*kind) == *segment)
        .ok_or_else(|| Answer::error(404, "no such path"))?;
    if let Some((name, _)) = call.query.first() {
        return Err(Answer::error(400, format!("unknown parameter `{name}`")));
    }
    let none = || Answer::error(404, "there is no rule of this type");
    match call.method.as_str() {
        "GET" => {
            call.no_body()?;
            let rules = core.rules();
            let rule = rules.rules.get(&kind).ok_or_else(none)?;
            Ok(Answer::json(200, &rule.json(&faults)))
        }
        "POST" => post(core, call, kind, &faults),
        "PUT" => put(core, call, kind, &faults),
        "DELETE" => {
            call.no_body()?;
            core.rules().rules.remove(&kind).ok_or_else(none)?;
            let status = faults.delete_status;
            Ok(match status {
                404 => Answer::error(404, "there is no rule of this type"),
                200 => Answer::json(200, &json!({})),
                _ => Answer::empty(status),
            })
        }
        _ => Err(Answer::error(405, "use GET, POST, PUT or DELETE")
            .with("allow", "GET, POST, PUT, DELETE")),
    }
}

fn post(core: &Core, call: &Call, kind: Kind, faults: &Faults) -> Result<Answer, Answer> {
    let wanted = read(core, call, kind, faults)?;
    let key = core.new_key();
    let mut rules = core.rules();
    if rules.rules.contains_key(&kind) {
        match faults.post_existing {
            PostExisting::Conflict => {
                return Err(Answer::error(409, "a rule of this type exists"));
            }
            PostExisting::BadRequest => {
                return Err(Answer::error(400, "a rule of this type exists"));
            }
            PostExisting::Replace => {}
        }
    }
    let now = now_ms();
    let rule = Rule {
        url: wanted.url,
        disabled: wanted.disabled,
        config: wanted.config,
        key,
        created_ms: now,
        updated_ms: now,
    };
    let body = rule.json(faults);
    rules.rules.insert(kind, rule);
    Ok(if faults.post_body {
        Answer::json(faults.post_status, &body)
    } else {
        Answer::empty(faults.post_status)
    })
}

fn put(core: &Core, call: &Call, kind: Kind, faults: &Faults) -> Result<Answer, Answer> {
    let wanted = read(core, call, kind, faults)?;
    let new_key = faults.put_new_key.then(|| core.new_key());
    let (body, enabled) = {
        let mut rules = core.rules();
        let rule = rules
            .rules
            .get_mut(&kind)
            .ok_or_else(|| Answer::error(404, "there is no rule of this type"))?;
        let enabled = rule.disabled && !wanted.disabled;
        rule.url = wanted.url;
        rule.disabled = wanted.disabled;
        if faults.put_merge {
            rule.config.extend(wanted.config);
        } else {
            rule.config = wanted.config;
        }
        rule.key = new_key.unwrap_or_else(|| rule.key.clone());
        rule.updated_ms = now_ms();
        (rule.json(faults), enabled)
    };
    if enabled {
        core.release_held(kind);
    }
    Ok(Answer::json(200, &body))
}

/// Reads and checks the writable fields.
fn read(core: &Core, call: &Call, kind: Kind, faults: &Faults) -> Result<Wanted, Answer> {
    let bad = |message: String| Answer::error(400, message);
    let mut body = call.object()?;
    for name in READ_ONLY {
        if body.remove(name).is_some() && !faults.ignore_read_only {
            return Err(bad(format!("`{name}` is read-only")));
        }
    }
    let Some(Value::String(url)) = body.remove("url") else {
        return Err(bad("`url` is missing or no text".to_owned()));
    };
    check_url(core, kind, &url, faults).map_err(bad)?;
    let disabled = match body.remove("disabled") {
        None => false,
        Some(Value::Bool(disabled)) => disabled,
        Some(_) => return Err(bad("`disabled` is true or false".to_owned())),
    };
    let config = match body.remove("config") {
        None => Map::new(),
        Some(Value::Object(config)) => config,
        Some(_) => return Err(bad("`config` is an object".to_owned())),
    };
    if let Some(name) = body.keys().next() {
        return Err(bad(format!("unknown field `{name}`")));
    }
    check_config(kind, &config, faults).map_err(bad)?;
    Ok(Wanted {
        url,
        disabled,
        config,
    })
}

fn check_url(core: &Core, kind: Kind, url: &str, faults: &Faults) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("`url` is no URL: {error}"))?;
    match parsed.scheme() {
        "https" => {}
        "http" if faults.allow_http => {}
        _ => return Err("`url` must be https".to_owned()),
    }
    if faults.unique_urls {
        let rules = core.rules();
        if rules
            .rules
            .iter()
            .any(|(other, rule)| *other != kind && rule.url == url)
        {
            return Err("`url` is in use by another rule".to_owned());
        }
    }
    Ok(())
}

fn check_config(kind: Kind, config: &Map<String, Value>, faults: &Faults) -> Result<(), String> {
    match config.get("operations") {
        None if kind == Kind::ChannelBinding && !faults.allow_no_operations => {
            return Err("`config.operations` is missing".to_owned());
        }
        None => {}
        Some(Value::Array(operations)) => {
            if operations.is_empty() && !faults.allow_no_operations {
                return Err("`config.operations` is empty".to_owned());
            }
            for operation in operations {
                if !operation
                    .as_str()
                    .is_some_and(|op| kind.operations().contains(&op))
                {
                    return Err(format!(
                        "`config.operations`: {operation} is not an operation of this type"
                    ));
                }
            }
        }
        Some(_) => return Err("`config.operations` is a list".to_owned()),
    }
    for name in ["supplierIDs", "productIDs", "rateIDs"] {
        let fits = config.get(name).is_none_or(|ids| {
            ids.as_array()
                .is_some_and(|ids| ids.iter().all(Value::is_string))
        });
        if !fits {
            return Err(format!("`config.{name}` is a list of texts"));
        }
    }
    Ok(())
}
