//! The control API, the faults' textual form, and the size of the catalogue.

use super::*;
use bellhop::simulator::{Days, Error, FaultError};

#[test]
fn faults_have_a_textual_form_that_helps() {
    let mut faults = Faults::default();
    for assignment in [
        "duplicate=0.3",
        "retry-after=5",
        "fail-status=503, 429",
        "registry-paths=availability:a,booking:b",
        "sign=md5-g",
        "delay-max-ms=100",
        "post-existing=replace",
        "gone=true",
    ] {
        faults.apply(assignment).unwrap();
    }
    assert!((faults.duplicate - 0.3).abs() < f64::EPSILON);
    assert_eq!(faults.retry_after, Some(5));
    assert_eq!(faults.fail_status, [503, 429]);
    assert_eq!(faults.registry_paths["booking"], "b");
    assert!(faults.gone);
    faults.apply("retry-after=none").unwrap();
    assert_eq!(faults.retry_after, None);

    let before = faults.clone();
    for (assignment, hint) in [
        ("duplicate", "name=value"),
        ("dulpicate=1", "duplicate, replay"),
        ("duplicate=often", "number"),
        ("duplicate=1.5", "0 to 1"),
        ("gone=maybe", "true or false"),
        ("sign=sha1", "hmac-sha256"),
        ("fail-status=99", "200 to 599"),
        ("registry-paths=shop:a", "shop"),
    ] {
        let error: FaultError = faults.apply(assignment).unwrap_err();
        assert!(error.to_string().contains(hint), "{assignment}: {error}");
    }
    assert_eq!(faults, before, "what is refused changes nothing");
    let json = serde_json::to_value(&faults).unwrap();
    let names = Faults::names();
    assert_eq!(json.as_object().unwrap().len(), names.len());
    for (name, text) in names {
        assert!(json.get(&name).is_some(), "{name}");
        assert!(text.len() > 10, "{name} is documented");
    }
}

#[tokio::test]
async fn everything_can_be_steered_over_http() {
    let (provider, hook) = delivering().await;
    provider
        .rule("rates", json!({ "operations": ["updated"] }))
        .await;
    let call = async |method: Method, path: &str, body: Option<Value>| {
        let mut request = provider
            .client
            .request(method, format!("{}/control{path}", provider.sim.base_url()));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        Provider::send(request).await
    };
    let get = async |path: &str| call(Method::GET, path, None).await.json;

    let rates = get("/entities?prefix=rate/").await;
    assert_eq!(rates.as_array().unwrap().len(), 18);
    let rate = rates[0].as_str().unwrap();
    let path = format!("/entities/{rate}");
    let reply = call(
        Method::PATCH,
        &path,
        Some(json!({ "title": "New", "cutoff": null })),
    )
    .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(get("/idle?seconds=20").await["idle"], true);
    assert_eq!(hook.got().len(), 1);
    let truth = get(&format!("/truth/{rate}")).await;
    assert_eq!(
        (&truth["title"], &truth["version"]),
        (&json!("New"), &json!(2))
    );
    assert!(truth.get("cutoff").is_none());
    let silent = call(Method::PATCH, &format!("{path}?notify=false"), None).await;
    assert_eq!(silent.json["deliveries"], json!([]));
    assert_eq!(get(&format!("/truth/{rate}")).await["version"], 3);

    let key = rate.replacen("rate", "price-schedule", 1);
    let day = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .tomorrow()
        .unwrap();
    let days = json!({ "days": [{ "date": day, "retail": 4242 }] });
    assert_eq!(
        call(Method::PATCH, &format!("/entities/{key}"), Some(days))
            .await
            .status,
        200
    );
    let prices = get(&format!("/truth/{key}?from={day}&days=1")).await;
    assert_eq!(prices[day.to_string()][0]["retail"]["amount"], 4242);
    let days = json!({ "days": [{ "date": day, "retail": null }] });
    call(Method::PATCH, &format!("/entities/{key}"), Some(days)).await;
    assert_eq!(
        get(&format!("/truth/{key}?from={day}&days=1")).await,
        json!({})
    );

    for (status, method, path, body) in [
        (404, Method::PATCH, "/entities/rate/a/b/c", None),
        (400, Method::PATCH, "/entities/shop/a", None),
        (
            400,
            Method::PATCH,
            path.as_str(),
            Some(json!({ "id": "x" })),
        ),
        (
            400,
            Method::PATCH,
            "/faults",
            Some(json!({ "nonsense": 1 })),
        ),
        (400, Method::GET, "/entities?x=1", None),
        (404, Method::POST, "/rules/booking/rotate", None),
        (404, Method::GET, "/nothing", None),
        (409, Method::PUT, path.as_str(), None),
    ] {
        let reply = call(method, path, body).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text);
        assert!(reply.json["error"]["message"].is_string());
    }

    assert_eq!(
        call(Method::PATCH, "/faults", Some(json!({ "duplicate": 1 })))
            .await
            .json["duplicate"],
        1.0
    );
    assert_eq!(provider.control().faults().duplicate.to_string(), "1");
    assert_eq!(
        call(Method::DELETE, "/faults", None).await.json["duplicate"],
        0.0
    );
    assert!(get("/faults/names").await["duplicate"].is_string());
    let burst = call(
        Method::POST,
        "/burst",
        Some(json!({ "count": 5, "kinds": ["rate"] })),
    )
    .await;
    assert_eq!(burst.json["changed"].as_array().unwrap().len(), 5);
    let notified =
        json!({ "entity": "rate/x/y/z", "times": 3, "timestampOffsetS": -90000, "wrongKey": true });
    assert_eq!(
        call(Method::POST, "/notify", Some(notified)).await.json["deliveries"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    get("/idle").await;
    let deliveries = get("/deliveries?after=1&limit=100").await;
    assert_eq!(deliveries["counts"]["made"], 9);
    assert_eq!(deliveries["deliveries"].as_array().unwrap().len(), 8);
    assert_eq!(deliveries["deliveries"][0]["attempts"][0]["status"], 200);
    assert_eq!(
        call(Method::POST, "/deliveries/1/replay", None)
            .await
            .status,
        200
    );
    assert!(get("/rules").await["rate"]["url"].is_string());
    assert!(call(Method::POST, "/rules/rate/rotate", None).await.json["securityKey"].is_string());

    provider.get("/v1.3/suppliers?code=x").await;
    let requests = get("/requests").await;
    let records = requests["requests"].as_array().unwrap();
    assert_eq!(records.len(), 2, "control calls are not recorded");
    assert_eq!(records[0]["method"], "POST");
    assert!(
        records[0]["body"]
            .as_str()
            .unwrap()
            .contains("hooks.example.net")
    );
    assert_eq!(records[1]["target"], "/v1.3/suppliers?code=x");
    assert!(!requests.to_string().contains("demo-secret"));
    assert_eq!(get("/status").await["seed"], 7);

    let shape = json!({ "suppliers": 1, "products": 1, "rates": 1, "bookings": 2, "seed": 9 });
    assert_eq!(
        call(Method::PUT, "/catalogue", Some(shape)).await.status,
        200
    );
    assert_eq!(
        get("/entities?prefix=booking/")
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let all = get("/truth?days=3").await;
    assert_eq!(
        all.as_object().unwrap().len(),
        get("/entities").await.as_array().unwrap().len()
    );
}

#[tokio::test]
async fn a_burst_can_change_different_entities_only() {
    let (provider, hook) = delivering().await;
    provider.rule("bookings", json!({})).await;
    let control = provider.control();
    let burst = async |wanted: Value| control.burst(serde_json::from_value(wanted).unwrap()).await;
    let all: Vec<String> = control
        .keys()
        .into_iter()
        .filter(|key| key.starts_with("booking/"))
        .collect();
    let mut changed = burst(json!({ "count": 5, "kinds": ["booking"], "each": true }))
        .await
        .unwrap();
    changed.sort();
    assert_eq!(changed, all, "each of the five, once");
    let two = json!({ "count": 2, "keys": all[..2], "each": true });
    let mut changed = burst(two).await.unwrap();
    changed.sort();
    assert_eq!(changed, all[..2]);
    let version = |key: &String| control.truth(key, Days::from_today(1)).unwrap()["version"].take();
    let versions: Vec<Value> = all.iter().map(version).collect();
    assert_eq!(versions, [3, 3, 2, 2, 2]);
    assert!(control.idle(WAIT).await);
    assert_eq!(hook.got().len(), 7, "each is notified");
    let many = json!({ "count": 6, "kinds": ["booking"], "each": true });
    let error = burst(many).await.unwrap_err().to_string();
    assert!(error.contains("only 5 entities fit"), "{error}");
    assert_eq!(all.iter().map(version).collect::<Vec<_>>(), versions);
}

#[tokio::test]
async fn a_large_catalogue_starts_quickly_and_equal_seeds_are_equal() {
    let large = || Config {
        suppliers: 50,
        products: 20,
        rates: 5,
        bookings: 100,
        ..config()
    };
    let begun = std::time::Instant::now();
    let one = Simulator::start(large()).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let keys = one.control().keys();
    assert_eq!(keys.iter().filter(|k| k.starts_with("rate/")).count(), 5000);
    let two = Simulator::start(large()).await.unwrap();
    assert_eq!(keys, two.control().keys());
    let occupied = Simulator::start(Config {
        listen: one.address(),
        ..config()
    })
    .await;
    assert!(matches!(occupied, Err(Error::Listen { .. })));
    let wrong = Simulator::start(Config {
        deliver_to: Some("nowhere".to_owned()),
        ..config()
    })
    .await;
    assert!(matches!(wrong, Err(Error::DeliverTo(_))));
    let address = one.address();
    let token = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(one.run(token.clone()));
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    token.cancel();
    running.await.unwrap().unwrap();
    two.stop().await;
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "stop releases the port"
    );
}
