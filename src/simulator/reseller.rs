//! The simulated reseller API: the reads of v1.2 and v1.3, and the booking calls.
//!
//! Owns: paths, parameters, envelopes (provider reference, reseller API), and answers from stale
//! caches when a fault asks for them. Never here: an object that the channel cannot see.

use serde_json::{Map, Value, json};

use super::catalogue::{View, Window};
use super::core::{Core, cache_rules};
use super::faults::{Api, Faults};
use super::http::{Answer, Call, Query};
use super::{derive, now_ms};

/// Milliseconds that availability claims to be good for when there is no cache.
const DEFAULT_EXPIRY_MS: i64 = 300_000;

pub(super) fn answer(core: &Core, call: &Call, v12: bool, segments: &[&str]) -> Answer {
    core.authenticate(call, Api::Reseller)
        .and_then(|()| respond(core, call, v12, segments))
        .unwrap_or_else(|answer| answer)
}

fn respond(core: &Core, call: &Call, v12: bool, segments: &[&str]) -> Result<Answer, Answer> {
    match (call.method.as_str(), segments) {
        ("GET", ["suppliers", ..]) => {
            call.no_body()?;
            catalogue(core, call, v12, segments)
        }
        ("GET", ["bookings", id]) if *id != "cancel" => {
            call.no_body()?;
            let view = plain_view(core, call, v12)?;
            let found = core.catalogue().booking_json(id, view);
            wrap(core, call, "booking", found)
        }
        ("POST", ["bookings"]) => book(core, call),
        ("PUT", ["bookings", "cancel", id]) => cancel(core, call, id),
        ("POST", ["holds"]) => hold(core, call),
        ("GET" | "DELETE", ["holds", id]) => held(core, call, id),
        (
            _,
            ["suppliers", ..]
            | ["bookings" | "holds"]
            | ["bookings" | "holds", _]
            | ["bookings", "cancel", _],
        ) => Err(Answer::error(405, "this path does not take this method")),
        _ => Err(Answer::error(404, "no such path")),
    }
}

fn catalogue(core: &Core, call: &Call, v12: bool, segments: &[&str]) -> Result<Answer, Answer> {
    match segments {
        ["suppliers"] => {
            let mut query = Query::of(call)?;
            let (partner, wanted) = (query.take("partner_id"), query.take("code"));
            let view = view(core, &mut query, v12)?;
            query.finish()?;
            let matches = |supplier: &Value| {
                let is = |name: &str, value: Option<&str>| {
                    value.is_none_or(|value| supplier[name] == value)
                };
                is("partnerId", partner) && is("code", wanted)
            };
            let mut found = core.catalogue().suppliers_json(view);
            found.retain(matches);
            wrap(core, call, "suppliers", Some(Value::Array(found)))
        }
        ["suppliers", s] => {
            let view = plain_view(core, call, v12)?;
            let found = core.catalogue().supplier_json(s, view);
            wrap(core, call, "supplier", found)
        }
        ["suppliers", s, "products"] => {
            let view = plain_view(core, call, v12)?;
            let found = core.catalogue().products_json(s, view);
            wrap(core, call, "products", found.map(Value::Array))
        }
        ["suppliers", s, "products", p] => {
            let view = plain_view(core, call, v12)?;
            let found = core.catalogue().product_json(s, p, view);
            wrap(core, call, "product", found)
        }
        ["suppliers", s, "products", p, "rates"] => {
            let view = plain_view(core, call, v12)?;
            let found = core.catalogue().rates_json(s, p, view);
            wrap(core, call, "rates", found.map(Value::Array))
        }
        ["suppliers", s, "products", p, "rates", r] => {
            let view = plain_view(core, call, v12)?;
            let found = core.catalogue().rate_json([s, p, r], view);
            wrap(core, call, "rate", found)
        }
        ["suppliers", s, "products", p, "availabilities"] => availabilities(core, call, [s, p]),
        ["suppliers", s, "products", p, "availability"] => availability(core, call, [s, p]),
        ["suppliers", s, "products", p, "pricing", "schedule"] => schedule(core, call, [s, p]),
        _ => Err(Answer::error(404, "no such path")),
    }
}

/// The view of a read that takes no parameter of its own.
fn plain_view(core: &Core, call: &Call, v12: bool) -> Result<View, Answer> {
    let mut query = Query::of(call)?;
    let view = view(core, &mut query, v12)?;
    query.finish()?;
    Ok(view)
}

/// How this read sees objects; takes `content`, which v1.2 does not know.
fn view(core: &Core, query: &mut Query<'_>, v12: bool) -> Result<View, Answer> {
    let faults = core.faults();
    let asked = if v12 { None } else { query.take("content") };
    let content = match asked {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Answer::error(400, "`content` is true or false")),
    };
    let stale = core.chance(faults.stale);
    Ok(View {
        stale_since: stale.then(|| now_ms() - faults.stale_ms as i64),
        no_versions: faults.no_versions,
        content,
        v12,
    })
}

fn meta(call: &Call) -> Value {
    json!({ "reqId": call.request_id })
}

fn missing(faults: &Faults, what: &str) -> Answer {
    Answer::error(
        if faults.gone { 410 } else { 404 },
        format!("{what} not found"),
    )
}

fn wrap(core: &Core, call: &Call, name: &str, found: Option<Value>) -> Result<Answer, Answer> {
    let found = found.ok_or_else(|| missing(&core.faults(), name))?;
    let mut body = Map::new();
    body.insert("meta".to_owned(), meta(call));
    body.insert(name.to_owned(), found);
    Ok(Answer::json(200, &Value::Object(body)))
}

fn instant(name: &str, text: &str) -> Result<i64, Answer> {
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| Answer::error(400, format!("`{name}` is no RFC 3339 date-time")))
}

fn date(name: &str, text: &str) -> Result<i32, Answer> {
    // Parsed strictly: the date type alone would also take a date-time.
    (text.len() == 10)
        .then(|| text.parse().ok().and_then(derive::day))
        .flatten()
        .ok_or_else(|| Answer::error(400, format!("`{name}` is no date, YYYY-MM-DD")))
}

fn availabilities(core: &Core, call: &Call, [s, p]: [&str; 2]) -> Result<Answer, Answer> {
    let mut query = Query::of(call)?;
    let start = instant("start", query.need("start")?)?;
    let end = instant("end", query.need("end")?)?;
    let only = query.take("rate_id");
    let per_traveler = match query.take("granularity") {
        None | Some("rate") => false,
        Some("travelerType") => true,
        Some(_) => return Err(Answer::error(400, "`granularity` is rate or travelerType")),
    };
    query.finish()?;
    if end < start {
        return Err(Answer::error(400, "`end` is before `start`"));
    }
    let faults = core.faults();
    let slow = core.chance(faults.cache_slow);
    let rules = cache_rules(&faults);
    let now = now_ms();
    let mut catalogue = core.catalogue();
    let rates = catalogue
        .rate_ids(s, p, only)
        .ok_or_else(|| missing(&faults, "product or rate"))?;
    let found = catalogue.availabilities(
        [s, p],
        &rates,
        (start, end),
        per_traveler,
        (rules, slow, now),
    );
    let age = if rules.max_age_ms == 0 {
        DEFAULT_EXPIRY_MS
    } else {
        rules.max_age_ms
    };
    let body = json!({
        "availabilities": {
            "productId": p,
            "retrieved": derive::rfc3339(found.retrieved_ms, rules.times_ms),
            "expires": derive::rfc3339(found.retrieved_ms + age, rules.times_ms),
            "byProduct": { "availability": [] },
            "byRate": found.by_rate,
        },
        "meta": meta(call),
    });
    Ok(Answer {
        wait_ms: if found.waited {
            faults.cache_wait_ms
        } else {
            0
        },
        ..Answer::json(200, &body)
    })
}

fn availability(core: &Core, call: &Call, [s, p]: [&str; 2]) -> Result<Answer, Answer> {
    let mut query = Query::of(call)?;
    let at = instant("at", query.need("at")?)?;
    let quantity: u64 = query
        .need("qty")?
        .parse()
        .map_err(|_| Answer::error(400, "`qty` is a number"))?;
    let rate = query.need("rate_id")?;
    query.finish()?;
    let faults = core.faults();
    let slow = core.chance(faults.cache_slow);
    let rules = cache_rules(&faults);
    let mut catalogue = core.catalogue();
    let rates = catalogue
        .rate_ids(s, p, Some(rate))
        .ok_or_else(|| missing(&faults, "product or rate"))?;
    let found =
        catalogue.availabilities([s, p], &rates, (at, at + 1), false, (rules, slow, now_ms()));
    let entry = found
        .by_rate
        .get(rate)
        .and_then(|rate| rate["availability"].get(0).cloned())
        .ok_or_else(|| missing(&faults, "availability"))?;
    let bookable = entry["capacity"].as_u64().unwrap_or(0) >= quantity;
    Ok(Answer::json(
        200,
        &json!({ "availability": entry, "bookable": bookable, "meta": meta(call) }),
    ))
}

/// The one answer without an envelope.
fn schedule(core: &Core, call: &Call, [s, p]: [&str; 2]) -> Result<Answer, Answer> {
    let mut query = Query::of(call)?;
    let from = date("start_date", query.need("start_date")?)?;
    let last = date("end_date", query.need("end_date")?)?;
    let only = query.take("rate_id");
    query.finish()?;
    if last < from {
        return Err(Answer::error(400, "`end_date` is before `start_date`"));
    }
    let catalogue = core.catalogue();
    let rates = catalogue
        .rate_ids(s, p, only)
        .ok_or_else(|| missing(&core.faults(), "product or rate"))?;
    let window = Window {
        from,
        until: last + 1,
    };
    let found = catalogue.schedule([s, p], &rates, window, now_ms());
    Ok(Answer::json(200, &Value::Object(found)))
}

/// Checks that the items of a hold or booking name rates that the channel can see.
fn items(core: &Core, of: &Map<String, Value>) -> Result<Value, Answer> {
    let items = of
        .get("items")
        .filter(|items| items.as_array().is_some_and(|items| !items.is_empty()))
        .ok_or_else(|| Answer::error(400, "`items` is missing or empty"))?;
    let catalogue = core.catalogue();
    for item in items.as_array().into_iter().flatten() {
        let id = |name: &str| {
            item.get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| Answer::error(400, format!("an item lacks `{name}`")))
        };
        let (s, p, r) = (id("supplierId")?, id("productId")?, id("rateId")?);
        catalogue
            .rate_ids(s, p, Some(r))
            .ok_or_else(|| Answer::error(404, "rate not found"))?;
    }
    Ok(items.clone())
}

fn object(body: &Map<String, Value>, name: &str) -> Result<Map<String, Value>, Answer> {
    body.get(name)
        .and_then(Value::as_object)
        .cloned()
        .ok_or_else(|| Answer::error(400, format!("`{name}` is missing or no object")))
}

fn no_query(call: &Call) -> Result<(), Answer> {
    Query::of(call)?.finish()
}

fn hold(core: &Core, call: &Call) -> Result<Answer, Answer> {
    no_query(call)?;
    let wanted = object(&call.object()?, "hold")?;
    let items = items(core, &wanted)?;
    let id = core.new_key();
    let hold = json!({
        "id": id,
        "status": "OPEN",
        "expires": derive::rfc3339(now_ms() + 30 * 60_000, false),
        "items": items,
    });
    let mut holds = core.holds();
    if holds.len() >= core.remembered {
        holds.pop_first();
    }
    holds.insert(id, hold.clone());
    Ok(Answer::json(
        201,
        &json!({ "hold": hold, "meta": meta(call) }),
    ))
}

fn held(core: &Core, call: &Call, id: &str) -> Result<Answer, Answer> {
    call.no_body()?;
    no_query(call)?;
    let mut holds = core.holds();
    let hold = holds
        .get_mut(id)
        .ok_or_else(|| missing(&core.faults(), "hold"))?;
    if call.method == "DELETE" {
        hold["status"] = Value::from("RELEASED");
    }
    Ok(Answer::json(
        200,
        &json!({ "hold": hold, "meta": meta(call) }),
    ))
}

fn book(core: &Core, call: &Call) -> Result<Answer, Answer> {
    no_query(call)?;
    let mut wanted = object(&call.object()?, "booking")?;
    let items = items(core, &wanted)?;
    if let Some(hold) = wanted.get("holdId").and_then(Value::as_str) {
        let mut holds = core.holds();
        let hold = holds
            .get_mut(hold)
            .filter(|hold| hold["status"] == "OPEN")
            .ok_or_else(|| Answer::error(409, "the hold is not open"))?;
        hold["status"] = Value::from("BOOKED");
    }
    for name in ["items", "id", "version", "status"] {
        wanted.remove(name);
    }
    let mut catalogue = core.catalogue();
    let id = catalogue.add_booking(None, items, wanted, now_ms());
    let booking = catalogue.booking_json(&id, View::default());
    Ok(Answer::json(
        201,
        &json!({ "booking": booking, "meta": meta(call) }),
    ))
}

/// A cancellation is a change of the booking, and is notified.
fn cancel(core: &Core, call: &Call, id: &str) -> Result<Answer, Answer> {
    no_query(call)?;
    let (event, booking) = {
        let mut catalogue = core.catalogue();
        let found = catalogue
            .booking_json(id, View::default())
            .ok_or_else(|| missing(&core.faults(), "booking"))?;
        if found["status"] == "CANCELLED" {
            return Err(Answer::error(409, "the booking is cancelled already"));
        }
        let event = catalogue.cancel_booking(id, now_ms());
        (event, catalogue.booking_json(id, View::default()))
    };
    core.announce_all(event);
    Ok(Answer::json(
        200,
        &json!({ "booking": booking, "meta": meta(call) }),
    ))
}
