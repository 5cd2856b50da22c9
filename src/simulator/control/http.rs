//! The control API over HTTP; the routes are documented in the simulator's own module.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Burst, Control, ControlError, Days, Notification};
use crate::simulator::core::Core;
use crate::simulator::faults::Faults;
use crate::simulator::http::{Answer, Call, Query};
use crate::simulator::kind::Kind;

/// Days of availability and prices when the caller names none.
const DEFAULT_DAYS: u32 = 90;
/// Records of a page when the caller names no number.
const DEFAULT_LIMIT: usize = 1000;

impl From<ControlError> for Answer {
    fn from(error: ControlError) -> Self {
        use super::AlterError;
        let status = match &error {
            ControlError::Alter(AlterError::Unknown(_))
            | ControlError::NoRule(_)
            | ControlError::NoDelivery(_) => 404,
            ControlError::Alter(AlterError::Exists(_)) => 409,
            _ => 400,
        };
        Self::error(status, error.to_string())
    }
}

pub(in crate::simulator) async fn answer(core: &Arc<Core>, call: &Call, path: &[&str]) -> Answer {
    let control = Control {
        core: Arc::clone(core),
    };
    respond(&control, call, path)
        .await
        .unwrap_or_else(|answer| answer)
}

async fn respond(control: &Control, call: &Call, path: &[&str]) -> Result<Answer, Answer> {
    let mut query = Query::of(call)?;
    match (call.method.as_str(), path) {
        ("GET", ["status"]) => ok(query, &control.status()),
        ("GET", ["faults"]) => ok(query, &to_json(&control.faults())),
        ("GET", ["faults", "names"]) => {
            let names: Map<String, Value> = Faults::names()
                .into_iter()
                .map(|(name, text)| (name, text.into()))
                .collect();
            ok(query, &Value::Object(names))
        }
        ("PATCH", ["faults"]) => {
            let faults = control.merge_faults(&body(call)?)?;
            ok(query, &to_json(&faults))
        }
        ("PUT", ["faults"]) => {
            let faults = Faults::default()
                .merged(&body(call)?)
                .map_err(ControlError::from)?;
            control.set_faults(faults.clone());
            ok(query, &to_json(&faults))
        }
        ("DELETE", ["faults"]) => {
            control.set_faults(Faults::default());
            ok(query, &to_json(&control.faults()))
        }
        ("PUT", ["catalogue"]) => {
            let shape: Reseed = body(call)?;
            let seed = shape.seed.unwrap_or(control.core.seed);
            control.reseed(
                seed,
                [shape.suppliers, shape.products, shape.rates, shape.bookings],
            );
            ok(
                query,
                &json!({ "seed": seed, "entities": control.keys().len() }),
            )
        }
        ("GET", ["entities"]) => {
            let prefix = query.take("prefix").unwrap_or_default();
            let mut keys = control.keys();
            keys.retain(|key| key.starts_with(prefix));
            ok(query, &json!(keys))
        }
        (method @ ("PUT" | "PATCH" | "DELETE"), ["entities", key @ ..]) => {
            entity(control, call, query, method, &key.join("/"))
        }
        ("GET", ["truth"]) => {
            let days = days(&mut query)?;
            let prefix = query.take("prefix").unwrap_or_default();
            let truths: Map<String, Value> = control.truths(prefix, days).into_iter().collect();
            ok(query, &Value::Object(truths))
        }
        ("GET", ["truth", key @ ..]) => {
            let days = days(&mut query)?;
            let key = key.join("/");
            let truth = control
                .truth(&key, days)
                .ok_or_else(|| Answer::error(404, format!("there is no `{key}`")))?;
            ok(query, &truth)
        }
        ("POST", ["burst"]) => {
            let burst: Burst = body(call)?;
            query.finish()?;
            let changed = control.burst(burst).await?;
            Ok(Answer::json(200, &json!({ "changed": changed })))
        }
        ("POST", ["notify"]) => {
            let notification: Notification = body(call)?;
            ok(
                query,
                &json!({ "deliveries": control.notify(&notification)? }),
            )
        }
        ("PUT", ["deliver-to"]) => {
            let wanted: DeliverTo = body(call)?;
            control.deliver_to(wanted.url)?;
            ok(query, &json!({}))
        }
        ("GET", ["rules"]) => {
            let rules: Map<String, Value> = control
                .rules()
                .into_iter()
                .map(|(kind, rule)| (kind.name().to_owned(), rule))
                .collect();
            ok(query, &Value::Object(rules))
        }
        ("POST", ["rules", kind, "rotate"]) => {
            let kind = Kind::from_name(kind)
                .ok_or_else(|| Answer::error(404, format!("there is no kind `{kind}`")))?;
            ok(query, &json!({ "securityKey": control.rotate_key(kind)? }))
        }
        ("GET", ["requests"]) => {
            let (after, limit) = (number(&mut query, "after", 0)?, limit(&mut query)?);
            ok(
                query,
                &json!({
                    "counts": control.request_counts(),
                    "requests": control.requests(after, limit),
                }),
            )
        }
        ("GET", ["deliveries"]) => {
            let (after, limit) = (number(&mut query, "after", 0)?, limit(&mut query)?);
            ok(
                query,
                &json!({
                    "counts": control.delivery_counts(),
                    "deliveries": control.deliveries(after, limit),
                }),
            )
        }
        ("POST", ["deliveries", id, "replay"]) => {
            let id = id
                .parse()
                .map_err(|_| Answer::error(400, "a delivery id is a number"))?;
            ok(query, &json!({ "deliveries": [control.replay(id)?] }))
        }
        ("GET", ["idle"]) => {
            let seconds = number(&mut query, "seconds", 30)?;
            query.finish()?;
            let idle = control.idle(Duration::from_secs(seconds)).await;
            Ok(Answer::json(
                200,
                &json!({ "idle": idle, "pending": control.delivery_counts().pending }),
            ))
        }
        _ => Err(Answer::error(
            404,
            "no such control call; the simulator's documentation lists them",
        )),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Reseed {
    seed: Option<u64>,
    suppliers: usize,
    products: usize,
    rates: usize,
    #[serde(default)]
    bookings: usize,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliverTo {
    url: Option<String>,
}

fn entity(
    control: &Control,
    call: &Call,
    mut query: Query<'_>,
    method: &str,
    key: &str,
) -> Result<Answer, Answer> {
    let notify = match query.take("notify") {
        None | Some("true") => true,
        Some("false") => false,
        Some(_) => return Err(Answer::error(400, "`notify` is true or false")),
    };
    let rates = match query.take("rates") {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| Answer::error(400, "`rates` is a number"))?,
        ),
    };
    query.finish()?;
    let fields: Map<String, Value> = if call.body.is_empty() {
        Map::new()
    } else {
        body(call)?
    };
    let (status, changed) = match method {
        "PUT" => (201, control.create(key, fields, rates, notify)?),
        "PATCH" => (200, control.change(key, &fields, notify)?),
        _ => (200, control.remove(key, notify)?),
    };
    Ok(Answer::json(status, &json!(changed)))
}

fn ok(query: Query<'_>, body: &Value) -> Result<Answer, Answer> {
    query.finish()?;
    Ok(Answer::json(200, body))
}

fn to_json(faults: &Faults) -> Value {
    json!(faults)
}

/// Control bodies are for people with curl: any content type will do.
fn body<T: DeserializeOwned>(call: &Call) -> Result<T, Answer> {
    serde_json::from_slice(&call.body)
        .map_err(|error| Answer::error(400, format!("the body does not fit: {error}")))
}

fn number(query: &mut Query<'_>, name: &str, default: u64) -> Result<u64, Answer> {
    query.take(name).map_or(Ok(default), |text| {
        text.parse()
            .map_err(|_| Answer::error(400, format!("`{name}` is a number")))
    })
}

fn limit(query: &mut Query<'_>) -> Result<usize, Answer> {
    let limit = number(query, "limit", DEFAULT_LIMIT as u64)?;
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

fn days(query: &mut Query<'_>) -> Result<Days, Answer> {
    let count = number(query, "days", u64::from(DEFAULT_DAYS))?;
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    match query.take("from") {
        None => Ok(Days::from_today(count)),
        Some(date) => Days::from_date(date, count)
            .ok_or_else(|| Answer::error(400, "`from` is no date, YYYY-MM-DD")),
    }
}
