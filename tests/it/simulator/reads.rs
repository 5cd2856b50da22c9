//! The reseller API: shapes, strictness, caches and broken answers.

use super::*;
use bellhop::simulator::Days;

/// Days that are compared: random changes lie within the next 30.
const WINDOW: u32 = 35;

fn today() -> jiff::civil::Date {
    jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
}

fn product_path(ids: &[String]) -> String {
    format!("/v1.3/suppliers/{}/products/{}", ids[0], ids[1])
}

fn availability_path(ids: &[String], days: i32) -> String {
    let start = today();
    let end = start.checked_add(jiff::Span::new().days(days)).unwrap();
    format!(
        "{}/availabilities?start={start}T00:00:00Z&end={end}T00:00:00Z&rate_id={}",
        product_path(ids),
        ids[2]
    )
}

fn schedule_path(ids: &[String], days: i32) -> String {
    let start = today();
    let last = start.checked_add(jiff::Span::new().days(days - 1)).unwrap();
    format!(
        "{}/pricing/schedule?start_date={start}&end_date={last}&rate_id={}",
        product_path(ids),
        ids[2]
    )
}

/// Reads an entity over HTTP the way the reference describes, and unwraps the envelope.
async fn read(provider: &Provider, key: &str) -> Option<Value> {
    let (kind, rest) = key.split_once('/').unwrap();
    let ids: Vec<String> = rest.split('/').map(str::to_owned).collect();
    let (path, pointer) = match kind {
        "supplier" => (
            format!("/v1.3/suppliers/{}", ids[0]),
            "/supplier".to_owned(),
        ),
        "product" => (product_path(&ids), "/product".to_owned()),
        "rate" => (
            format!("{}/rates/{}", product_path(&ids), ids[2]),
            "/rate".to_owned(),
        ),
        "booking" => (format!("/v1.3/bookings/{}", ids[0]), "/booking".to_owned()),
        "availability" => (
            availability_path(&ids, WINDOW as i32),
            format!("/availabilities/byRate/{}", ids[2]),
        ),
        "price-schedule" => (schedule_path(&ids, WINDOW as i32), format!("/{}", ids[2])),
        "channel-binding" => {
            let reply = provider.get(&format!("{}/rates", product_path(&ids))).await;
            let mut rates: Vec<String> = reply.json["rates"]
                .as_array()?
                .iter()
                .map(|rate| rate["id"].as_str().unwrap().to_owned())
                .collect();
            rates.sort();
            return Some(json!({ "supplierID": ids[0], "productID": ids[1], "rateIDs": rates }));
        }
        _ => panic!("{key}"),
    };
    let reply = provider.get(&path).await;
    (reply.status == 200).then(|| reply.json.pointer(&pointer).cloned().unwrap())
}

#[tokio::test]
async fn the_truth_is_what_uncached_reads_return() {
    let provider = Provider::plain().await;
    let control = provider.control();
    let count = |prefix: &str| {
        control
            .keys()
            .iter()
            .filter(|k| k.starts_with(prefix))
            .count()
    };
    assert_eq!(
        (count("supplier/"), count("product/"), count("rate/")),
        (2, 6, 18)
    );
    assert_eq!(
        (
            count("channel-binding/"),
            count("price-schedule/"),
            count("booking/")
        ),
        (6, 18, 5)
    );
    assert!(
        count("availability/") > 0 && count("availability/") < 18,
        "RESERVED only"
    );
    let check = async || {
        for (key, truth) in control.truths("", Days::from_today(WINDOW)) {
            assert_eq!(read(&provider, &key).await, Some(truth), "{key}");
        }
    };
    check().await;
    for key in control.keys() {
        control.change(&key, &serde_json::Map::new(), false).ok();
    }
    check().await;
    let before = control.truths("", Days::from_today(WINDOW)).len();
    let new = format!("product/{}/brand-new", provider.first("supplier")[0]);
    control
        .create(&new, serde_json::Map::new(), Some(2), false)
        .unwrap();
    let more = control.truths("", Days::from_today(WINDOW)).len() - before;
    assert_eq!(
        more,
        2 + 2 * 3,
        "product, binding, two RESERVED rates with their three entities"
    );
    check().await;
    for kind in ["rate", "booking", "channel-binding", "product", "supplier"] {
        let key = provider.first_key(kind);
        control.remove(&key, false).unwrap();
        assert_eq!(control.truth(&key, Days::from_today(1)), None);
        if kind != "channel-binding" {
            assert_eq!(read(&provider, &key).await, None, "{key}");
        }
    }
    check().await;
}

#[tokio::test]
async fn lists_and_single_reads_agree_and_carry_the_request_id() {
    let provider = Provider::plain().await;
    let ids = provider.first("availability");
    let base = product_path(&ids);
    for (list, name, one, single) in [
        (
            "/v1.3/suppliers".to_owned(),
            "suppliers",
            format!("/v1.3/suppliers/{}", ids[0]),
            "supplier",
        ),
        (
            format!("/v1.3/suppliers/{}/products", ids[0]),
            "products",
            base.clone(),
            "product",
        ),
        (
            format!("{base}/rates"),
            "rates",
            format!("{base}/rates/{}", ids[2]),
            "rate",
        ),
    ] {
        let request = provider
            .request(Method::GET, &list)
            .header("x-request-id", "mine-1");
        let reply = Provider::send(request).await;
        assert_eq!(reply.json["meta"]["reqId"], "mine-1");
        assert_eq!(reply.json.as_object().unwrap().len(), 2);
        let object = provider.get(&one).await.json;
        assert!(object["meta"]["reqId"].as_str().unwrap().len() >= 32);
        assert!(
            reply.json[name]
                .as_array()
                .unwrap()
                .contains(&object[single])
        );
    }
    let schedule = provider.get(&schedule_path(&ids, 10)).await.json;
    assert_eq!(schedule.as_object().unwrap().len(), 1, "no envelope");
    let days = schedule[&ids[2]].as_object().unwrap();
    assert!((1..=10).contains(&days.len()));
    for (day, prices) in days {
        assert!(day.parse::<jiff::civil::Date>().is_ok());
        assert!(prices[0]["retail"]["amount"].is_u64());
    }
    let entries = provider.get(&availability_path(&ids, 10)).await.json;
    let entries = entries["availabilities"]["byRate"][&ids[2]]["availability"]
        .as_array()
        .unwrap()
        .clone();
    assert!(!entries.is_empty());
    let first = &entries[0];
    let at = first["start"].as_str().unwrap();
    let one = format!("{base}/availability?at={at}&qty=1&rate_id={}", ids[2]);
    let one = provider.get(&one).await.json;
    assert_eq!(
        (&one["availability"], &one["bookable"]),
        (first, &json!(true))
    );
    let code = provider.get("/v1.3/suppliers?code=DEMO-1").await.json;
    assert_eq!(code["suppliers"].as_array().unwrap().len(), 1);
    let old = provider.get(&base.replace("v1.3", "v1.2")).await.json;
    assert!(old["product"].get("capabilities").is_none());
    assert!(
        provider.get(&format!("{base}?content=true")).await.json["product"]["content"].is_object()
    );
}

#[tokio::test]
async fn reads_refuse_what_is_not_documented() {
    let provider = Provider::plain().await;
    let ids = provider.first("availability");
    let base = product_path(&ids);
    let v12 = base.replace("v1.3", "v1.2");
    let a = availability_path(&ids, 3);
    let p = schedule_path(&ids, 3);
    for (status, path) in [
        (400, format!("{base}?page=2")),
        (400, format!("{base}?content=yes")),
        (400, format!("{v12}?content=true")),
        (400, format!("{base}/availabilities")),
        (400, format!("{a}&granularity=x")),
        (400, format!("{a}&rate_id=again")),
        (400, a.replace("T00:00:00Z", "")),
        (400, a.replace("start=", "start_date=")),
        (
            400,
            format!("{base}/availabilities?start=2025-02-02T00:00:00Z&end=2025-02-01T00:00:00Z"),
        ),
        (400, p.replace("start_date=", "start=")),
        (
            400,
            format!("{base}/pricing/schedule?start_date=2025-1-1&end_date=2025-01-02"),
        ),
        (404, format!("{a}x")),
        (404, format!("{base}/")),
        (404, format!("{base}/rates/none")),
        (404, "/v1.3/suppliers/none/products".to_owned()),
        (404, "/v1.3/bookings/none".to_owned()),
        (404, "/v1.4/suppliers".to_owned()),
        (404, "/v1.3//suppliers".to_owned()),
        (404, "/".to_owned()),
    ] {
        let reply = provider.get(&path).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        assert!(reply.json["error"]["code"].is_string());
    }
    assert_eq!(provider.call(Method::POST, &base, None).await.status, 405);
    assert_eq!(
        provider
            .call(Method::GET, &base, Some(json!({})))
            .await
            .status,
        400
    );
    provider.fault(&["gone=true"]);
    let reply = provider.get("/v1.3/bookings/none").await;
    assert_eq!(
        (reply.status, &reply.json["error"]["code"]),
        (410, &json!("GONE"))
    );
}

#[tokio::test]
async fn availability_comes_from_a_cache() {
    let provider = Provider::plain().await;
    let control = provider.control();
    let ids = provider.first("availability");
    let key = provider.first_key("availability");
    let read = async || {
        let json = provider
            .get(&availability_path(&ids, WINDOW as i32))
            .await
            .json;
        let time = |name: &str| -> jiff::Timestamp {
            json["availabilities"][name]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        };
        let entries = json["availabilities"]["byRate"].get(&ids[2]).cloned();
        (entries, time("retrieved"), time("expires"))
    };
    let truth = || control.truth(&key, Days::from_today(WINDOW));
    let change = || {
        control
            .change(&key, &serde_json::Map::new(), false)
            .unwrap()
    };

    let long = "cache-max-age-ms=600000";
    provider.fault(&[long, "cache-slow=1", "cache-times-ms=true"]);
    assert_eq!(
        read().await.0,
        None,
        "nothing cached and a slow system: empty"
    );
    provider.fault(&[long, "cache-times-ms=true"]);
    let (entries, retrieved, expires) = read().await;
    assert_eq!(entries, truth());
    assert_eq!(expires.duration_since(retrieved).as_secs(), 600);
    change();
    let (cached, same, _) = read().await;
    assert_eq!(
        (&cached, same),
        (&entries, retrieved),
        "young enough: served at once"
    );
    assert_ne!(cached, truth());

    tokio::time::sleep(Duration::from_millis(5)).await;
    provider.fault(&[
        "cache-max-age-ms=1",
        "cache-slow=1",
        "cache-fill-ms=30",
        "cache-wait-ms=25",
        "cache-times-ms=true",
    ]);
    let begun = std::time::Instant::now();
    let (stale, same, _) = read().await;
    assert!(
        begun.elapsed() >= Duration::from_millis(25),
        "it waited in vain"
    );
    assert_eq!(
        (&stale, same),
        (&entries, retrieved),
        "slow: the stale answer"
    );
    tokio::time::sleep(Duration::from_millis(40)).await;
    let (filled, later, _) = read().await;
    assert_eq!(filled, truth(), "filled later");
    assert!(later > retrieved);

    provider.fault(&["cache-max-age-ms=1", "cache-times-ms=true"]);
    change();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(read().await.0, truth(), "too old and not slow: refreshed");
    provider.fault(&[long, "cache-reload=true"]);
    change();
    assert_eq!(read().await.0, truth(), "reloaded by the change");
}

#[tokio::test]
async fn stale_objects_have_the_lower_version() {
    let provider = Provider::plain().await;
    let control = provider.control();
    for kind in ["supplier", "product", "rate", "booking"] {
        let key = provider.first_key(kind);
        let before = read(&provider, &key).await.unwrap();
        control
            .change(
                &key,
                json!({ "name": "Changed" }).as_object().unwrap(),
                false,
            )
            .unwrap();
        provider.fault(&["stale=1"]);
        assert_eq!(read(&provider, &key).await.unwrap(), before);
        provider.fault(&["stale=1", "stale-ms=0"]);
        tokio::time::sleep(Duration::from_millis(3)).await;
        let after = read(&provider, &key).await.unwrap();
        assert_eq!(after["name"], "Changed", "the cache caught up");
        assert_eq!(
            after["version"].as_u64(),
            before["version"].as_u64().map(|v| v + 1)
        );
        provider.fault(&["no-versions=true"]);
        assert!(
            read(&provider, &key)
                .await
                .unwrap()
                .get("version")
                .is_none()
        );
        provider.fault(&[]);
    }
    // What is removed and made again goes on counting.
    let key = provider.first_key("booking");
    let last = read(&provider, &key).await.unwrap()["version"]
        .as_u64()
        .unwrap();
    control.remove(&key, false).unwrap();
    control
        .create(&key, serde_json::Map::new(), None, false)
        .unwrap();
    assert_eq!(
        read(&provider, &key).await.unwrap()["version"].as_u64(),
        Some(last + 1)
    );
}

#[tokio::test]
async fn broken_answers() {
    let provider = Provider::plain().await;
    let path = "/v1.3/suppliers";
    provider.fault(&["fail=1", "fail-status=500"]);
    assert_eq!(provider.get(path).await.status, 500);
    provider.fault(&["fail=1", "fail-status=429", "retry-after=7"]);
    let reply = provider.get(path).await;
    assert_eq!(
        (reply.status, reply.headers["retry-after"].to_str().unwrap()),
        (429, "7")
    );
    provider.fault(&["fail=1", "fail-status=503", "on=registry"]);
    assert_eq!(provider.get(path).await.status, 200);
    let reply = provider.get("/registry/v1/suppliers").await;
    assert_eq!(reply.status, 503);
    assert!(!reply.headers.contains_key("retry-after"));
    provider.fault(&["html=1"]);
    let reply = provider.get(path).await;
    assert_eq!(reply.status, 200);
    assert!(reply.text.contains("<html>"));
    provider.fault(&["rate-limit=3"]);
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(provider.get(path).await.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses.contains(&429));
    provider.fault(&["huge=1", "huge-bytes=3000000"]);
    let reply = provider.get(path).await;
    assert!(reply.text.len() >= 3_000_000 && reply.json["meta"]["reqId"].is_string());
    provider.fault(&["cut=1"]);
    let answer = provider.request(Method::GET, path).send().await.unwrap();
    assert!(answer.content_length().unwrap() > 100);
    assert!(answer.bytes().await.is_err());
    provider.fault(&["abort=1"]);
    assert!(provider.request(Method::GET, path).send().await.is_err());
    let records = provider.control().requests(0, 100);
    let last: Vec<_> = records.iter().rev().map(|r| r.fault).take(3).collect();
    assert_eq!(last, [Some("abort"), Some("cut"), Some("huge")]);
    provider.fault(&["body-pause-ms=60"]);
    let begun = std::time::Instant::now();
    assert!(provider.get(path).await.json["suppliers"].is_array());
    assert!(begun.elapsed() >= Duration::from_millis(60));
    provider.fault(&["latency-min-ms=60"]);
    let begun = std::time::Instant::now();
    provider.get(path).await;
    assert!(begun.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn bookings_are_made_and_cancelled() {
    let (provider, hook) = delivering().await;
    provider
        .rule("bookings", json!({ "operations": ["updated"] }))
        .await;
    let ids = provider.first("rate");
    let item =
        json!([{ "supplierId": ids[0], "productId": ids[1], "rateId": ids[2], "quantity": 2 }]);
    let hold = provider
        .call(
            Method::POST,
            "/v1.3/holds",
            Some(json!({ "hold": { "items": item } })),
        )
        .await;
    assert_eq!(hold.status, 201, "{}", hold.text);
    let hold_id = hold.json["hold"]["id"].as_str().unwrap();
    let order =
        json!({ "booking": { "holdId": hold_id, "items": item, "resellerBookingRef": "R1" } });
    let made = provider
        .call(Method::POST, "/v1.3/bookings", Some(order.clone()))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let again = provider
        .call(Method::POST, "/v1.3/bookings", Some(order))
        .await;
    assert_eq!(again.status, 409, "a hold serves once");
    let id = made.json["booking"]["id"].as_str().unwrap();
    assert_eq!(
        provider.get(&format!("/v1.3/bookings/{id}")).await.json["booking"],
        made.json["booking"]
    );
    assert_eq!(made.json["booking"]["resellerBookingRef"], "R1");
    assert!(hook.got().is_empty(), "one's own booking is no news");

    let path = format!("/v1.3/bookings/cancel/{id}");
    assert_eq!(provider.call(Method::DELETE, &path, None).await.status, 405);
    let cancelled = provider.call(Method::PUT, &path, None).await;
    assert_eq!(cancelled.json["booking"]["status"], "CANCELLED");
    assert_eq!(cancelled.json["booking"]["version"], 2);
    assert!(provider.control().idle(WAIT).await);
    assert_eq!(hook.got()[0].body["bookingID"], id);
    assert_eq!(provider.call(Method::PUT, &path, None).await.status, 409);
}
