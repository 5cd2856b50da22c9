//! What is sent, how it is signed, and when it is sent again.

use super::*;
use bellhop::simulator::{Notification, Outcome};

/// HMAC-SHA256 with crates that the simulator does not use.
fn authentic(body: &Value, key: &str) -> bool {
    use hmac::{KeyInit, Mac};
    let signature = &body["signature"];
    let message = format!(
        "{}{}",
        signature["timestamp"].as_i64().unwrap(),
        signature["token"].as_str().unwrap()
    );
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes()) == signature["sum"].as_str().unwrap()
}

fn notification(entity: &str) -> Notification {
    serde_json::from_value(json!({ "entity": entity })).unwrap()
}

#[tokio::test]
async fn a_change_of_each_type_is_sent_as_documented() {
    let (provider, hook) = delivering().await;
    let mut keys = std::collections::BTreeMap::new();
    for (segment, config) in types() {
        keys.insert(segment, provider.rule(segment, config).await);
    }
    for (segment, kind, names, operation) in [
        (
            "channelbindings",
            "channel-binding",
            vec!["supplierID", "productID"],
            true,
        ),
        ("suppliers", "supplier", vec!["supplierID"], true),
        ("products", "product", vec!["supplierID", "productID"], true),
        (
            "rates",
            "rate",
            vec!["supplierID", "productID", "rateID"],
            true,
        ),
        (
            "availabilities",
            "availability",
            vec!["supplierID", "productID", "rateID"],
            false,
        ),
        (
            "priceschedules",
            "price-schedule",
            vec!["supplierID", "productID", "rateID"],
            false,
        ),
        ("bookings", "booking", vec!["bookingID"], false),
    ] {
        hook.answer(&[]);
        let ids = provider.first(kind);
        let key = format!("{kind}/{}", ids.join("/"));
        provider
            .control()
            .change(&key, &serde_json::Map::new(), true)
            .unwrap();
        assert!(provider.control().idle(WAIT).await);
        let got = hook.got();
        assert_eq!(got.len(), 1, "{kind}");
        assert_eq!(got[0].path, format!("/in/{segment}"));
        assert_eq!(got[0].content_type, "application/json");
        let mut body = got[0].body.clone();
        assert!(authentic(&body, &keys[segment]), "{kind}");
        let age =
            jiff::Timestamp::now().as_second() - body["signature"]["timestamp"].as_i64().unwrap();
        assert!((0..10).contains(&age));
        body.as_object_mut().unwrap().remove("signature");
        let mut expected: serde_json::Map<_, _> = names
            .into_iter()
            .zip(ids)
            .map(|(name, id)| (name.to_owned(), id.into()))
            .collect();
        if operation {
            expected.insert("operation".to_owned(), "updated".into());
        }
        assert_eq!(body, Value::Object(expected));
    }
}

#[tokio::test]
async fn only_six_statuses_are_retried_and_at_most_three_times() {
    let (provider, hook) = delivering().await;
    provider.rule("bookings", json!({})).await;
    let booking = provider.first_key("booking");
    let retried = [408, 425, 429, 502, 503, 504];
    for status in [
        201, 202, 204, 302, 307, 400, 401, 403, 404, 405, 410, 413, 418, 500, 501, 505,
    ]
    .into_iter()
    .chain(retried)
    {
        hook.answer(&[status; 9]);
        let id = provider.control().notify(&notification(&booking)).unwrap()[0];
        assert!(provider.control().idle(WAIT).await);
        let record = &provider.control().deliveries(id - 1, 1)[0];
        let again = retried.contains(&status);
        assert_eq!(hook.got().len(), if again { 4 } else { 1 }, "{status}");
        assert_eq!(record.attempts.len(), hook.got().len());
        assert!(record.attempts.iter().all(|a| a.status == Some(status)));
        let expected = if again {
            Outcome::GaveUp
        } else {
            Outcome::Refused
        };
        assert_eq!(record.outcome, expected, "{status}");
        assert!(
            hook.got().iter().all(|got| got.path == "/in/bookings"),
            "no redirect followed"
        );
    }
    hook.answer(&[503, 429]);
    let id = provider.control().notify(&notification(&booking)).unwrap()[0];
    assert!(provider.control().idle(WAIT).await);
    assert_eq!(
        provider.control().deliveries(id - 1, 1)[0].outcome,
        Outcome::Delivered
    );
    let got = hook.got();
    assert_eq!(got.len(), 3);
    assert_eq!(got[0].body, got[2].body, "a retry repeats the signature");

    provider.fault(&["sign-retry-anew=true"]);
    hook.answer(&[503]);
    provider.control().notify(&notification(&booking)).unwrap();
    assert!(provider.control().idle(WAIT).await);
    let got = hook.got();
    assert_ne!(
        got[0].body["signature"]["token"],
        got[1].body["signature"]["token"]
    );
    assert_ne!(
        got[0].body["signature"]["sum"],
        got[1].body["signature"]["sum"]
    );
}

#[tokio::test]
async fn network_errors_are_lost_unless_switched() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let provider = Provider::start(Config {
        deliver_to: Some(format!("http://{address}")),
        ..config()
    })
    .await;
    provider.rule("bookings", json!({})).await;
    let booking = provider.first_key("booking");
    for (fault, attempts, outcome) in [
        ("retry-network-errors=false", 1, Outcome::Lost),
        ("retry-network-errors=true", 4, Outcome::GaveUp),
    ] {
        provider.fault(&[fault]);
        let id = provider.control().notify(&notification(&booking)).unwrap()[0];
        assert!(provider.control().idle(WAIT).await);
        let record = &provider.control().deliveries(id - 1, 1)[0];
        assert_eq!((record.attempts.len(), record.outcome), (attempts, outcome));
        assert_eq!(record.attempts[0].error, Some("connect"));
    }
}

#[tokio::test]
async fn rules_select_by_operation_filter_and_disabled() {
    let (provider, hook) = delivering().await;
    let control = provider.control();
    let rates: Vec<String> = control
        .keys()
        .into_iter()
        .filter(|k| k.starts_with("rate/"))
        .collect();
    let wanted = rates[0].rsplit('/').next().unwrap();
    provider
        .rule(
            "rates",
            json!({ "operations": ["updated"], "rateIDs": [wanted] }),
        )
        .await;
    provider
        .rule("channelbindings", json!({ "operations": ["removed"] }))
        .await;
    let change = |key: &str| {
        control
            .change(key, &serde_json::Map::new(), true)
            .unwrap()
            .deliveries
            .len()
    };
    assert_eq!(change(&rates[0]), 1);
    assert_eq!(change(&rates[1]), 0, "filtered out");
    provider.fault(&["filter-scope=channel-binding"]);
    assert_eq!(change(&rates[1]), 1);
    provider.fault(&[]);
    let binding = provider.first_key("channel-binding");
    assert_eq!(change(&binding), 0, "not that operation");
    assert_eq!(control.remove(&binding, true).unwrap().deliveries.len(), 1);
    assert_eq!(change(&provider.first_key("supplier")), 0, "no rule");

    let put = async |disabled: bool| {
        let body = json!({ "url": "https://h.example/r", "disabled": disabled, "config": {} });
        provider
            .call(Method::PUT, "/registry/v1/rates", Some(body))
            .await
    };
    put(true).await;
    let rate = provider.first_key("rate");
    assert_eq!(change(&rate), 0, "disabled");
    put(false).await;
    assert!(control.idle(WAIT).await);
    hook.answer(&[]);
    provider.fault(&["while-disabled=queue"]);
    put(true).await;
    assert_eq!(change(&rate), 0);
    put(false).await;
    assert!(control.idle(WAIT).await);
    assert_eq!(
        hook.got().len(),
        1,
        "what waited is sent once the rule is enabled"
    );
}

#[tokio::test]
async fn faults_of_the_sender() {
    let (provider, hook) = delivering().await;
    let key = provider.rule("availabilities", json!({})).await;
    let control = provider.control();
    let entity = provider.first_key("availability");
    let change = async || {
        hook.answer(&[]);
        control
            .change(&entity, &serde_json::Map::new(), true)
            .unwrap();
        assert!(control.idle(WAIT).await);
        hook.got()
    };
    provider.fault(&["duplicate=1"]);
    let got = change().await;
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].body, got[1].body);
    provider.fault(&["replay=1"]);
    assert_eq!(change().await.len(), 2);
    provider.fault(&["drop=1"]);
    assert_eq!(change().await.len(), 0);
    assert_eq!(control.delivery_counts().dropped, 1);
    provider.fault(&["wrong-signature=1"]);
    assert!(!authentic(&change().await[0].body, &key));
    provider.fault(&["timestamp-skew-s=-3600"]);
    let body = &change().await[0].body;
    let age = jiff::Timestamp::now().as_second() - body["signature"]["timestamp"].as_i64().unwrap();
    assert!((3600..3660).contains(&age));
    assert!(authentic(body, &key));
    provider.fault(&["operation-everywhere=true", "date-range=true"]);
    let body = &change().await[0].body;
    assert_eq!(body["operation"], "updated");
    assert!(body["start"].is_string() && body["end"].is_string());
    provider.fault(&["sign=md5-b"]);
    assert_eq!(
        change().await[0].body["signature"]["sum"]
            .as_str()
            .unwrap()
            .len(),
        32
    );

    provider.fault(&[]);
    let new = control
        .rotate_key(bellhop::simulator::Kind::Availability)
        .unwrap();
    assert_ne!(new, key);
    assert!(authentic(&change().await[0].body, &new));
    let last = control.delivery_counts().made;
    let sent = control.deliveries(last - 1, 1)[0].body.to_string();
    hook.answer(&[]);
    control.replay(last).unwrap();
    assert!(control.idle(WAIT).await);
    assert_eq!(hook.got()[0].body.to_string(), sent);
    assert!(control.replay(1_000_000).is_err());

    provider.fault(&["reorder=0.5", "reorder-ms=40"]);
    hook.answer(&[]);
    let entities: Vec<String> = control
        .keys()
        .into_iter()
        .filter(|k| k.starts_with("availability/"))
        .collect();
    let burst = json!({ "count": 60, "kinds": ["availability"] });
    let changed = control
        .burst(serde_json::from_value(burst).unwrap())
        .await
        .unwrap();
    assert_eq!(changed.len(), 60);
    assert!(changed.iter().all(|key| entities.contains(key)));
    assert!(control.idle(WAIT).await);
    let order: Vec<String> = hook
        .got()
        .iter()
        .map(|got| {
            ["supplierID", "productID", "rateID"]
                .map(|n| got.body[n].as_str().unwrap())
                .join("/")
        })
        .collect();
    assert_eq!(order.len(), 60);
    let sent: Vec<&str> = changed
        .iter()
        .map(|k| k.strip_prefix("availability/").unwrap())
        .collect();
    assert_ne!(order, sent, "seed 7 overtakes");
}

#[tokio::test]
async fn a_slow_receiver_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = Provider::start(Config {
        deliver_to: Some(format!("http://{}", listener.local_addr().unwrap())),
        delivery_timeout: Duration::from_millis(100),
        ..config()
    })
    .await;
    provider.rule("bookings", json!({})).await;
    let id = provider
        .control()
        .notify(&notification("booking/none"))
        .unwrap()[0];
    assert!(provider.control().idle(WAIT).await);
    let record = &provider.control().deliveries(id - 1, 1)[0];
    assert_eq!(record.attempts[0].error, Some("timeout"));
    assert_eq!(record.outcome, Outcome::Lost);
    drop(listener);
}

#[tokio::test]
async fn deliveries_over_tls_trust_the_extra_ca_only() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let tls = axum_server::tls_rustls::RustlsConfig::from_pem(cert.clone().into(), key.into())
        .await
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().fallback(async || "");
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
    tokio::spawn(async move { server.serve(app.into_make_service()).await });
    for (extra_ca, outcome) in [
        (Some(cert.into_bytes()), Outcome::Delivered),
        (None, Outcome::Lost),
    ] {
        let provider = Provider::start(Config {
            extra_ca,
            ..config()
        })
        .await;
        let rule = json!({ "url": format!("https://localhost:{port}/in"), "config": {} });
        provider
            .call(Method::POST, "/registry/v1/bookings", Some(rule))
            .await;
        provider
            .control()
            .notify(&notification("booking/b"))
            .unwrap();
        assert!(provider.control().idle(WAIT).await);
        assert_eq!(provider.control().deliveries(0, 1)[0].outcome, outcome);
    }
}

#[tokio::test]
async fn the_target_can_move_and_a_full_queue_drops() {
    let (provider, hook) = delivering().await;
    provider.rule("bookings", json!({})).await;
    let control = provider.control();
    let other = Hook::start().await;
    control
        .deliver_to(Some(format!("{}/", other.base())))
        .unwrap();
    control.notify(&notification("booking/b")).unwrap();
    assert!(control.idle(WAIT).await);
    assert_eq!((hook.got().len(), other.got().len()), (0, 1));
    assert_eq!(other.got()[0].path, "/in/bookings");
    assert!(control.deliver_to(Some("nowhere".to_owned())).is_err());

    let provider = Provider::start(Config {
        deliver_to: Some(hook.base()),
        queue: 3,
        remembered: 4,
        ..config()
    })
    .await;
    provider.rule("bookings", json!({})).await;
    let control = provider.control();
    let mut many = notification("booking/b");
    many.times = 10;
    control.notify(&many).unwrap();
    assert!(control.idle(WAIT).await);
    let counts = control.delivery_counts();
    assert_eq!((counts.made, counts.delivered, counts.dropped), (10, 3, 7));
    assert_eq!(
        control.deliveries(0, 100).len(),
        4,
        "the rest is forgotten, not the numbers"
    );
}
