//! Rules at the Notification Registry, and the open questions of the provider reference (§8).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellhop::api::NotificationType;
use bellhop::provider::client::ClientSettings;
use bellhop::provider::registry::{RegistryClient, RegistryOptions, RulePaths};
use bellhop::provider::{Registry, RegistryError, Rule, RuleBody};
use bellhop::secrets::{Credentials, Secret};

use super::server::{Act, Seen, Server, answer, json};
use super::{KEY, Parts, SECRET, parts};

const KIND: NotificationType = NotificationType::ChannelBinding;

const NOT_FOUND: &str = r#"{"error":{"code":"NOT_FOUND","message":"no rule"}}"#;

/// The reference's example of a stored rule (§2.4), with a filter nobody here knows.
const RULE: &str = r#"{
  "url": "https://hooks.example.net/redeam/channelbinding",
  "disabled": false,
  "securityKey": "demo-security-key-0001",
  "createdOn": "2025-01-01T00:00:00Z",
  "updatedOn": "2025-01-01T00:00:00Z",
  "config": { "operations": ["created", "updated", "removed"], "unknownFilter": [1, {"a": null}] }
}"#;

fn options() -> RegistryOptions {
    RegistryOptions {
        requests_per_second: 1000,
        burst: 1000,
        ..RegistryOptions::default()
    }
}

fn client(parts: &Parts, options: RegistryOptions) -> RegistryClient {
    RegistryClient::new(
        Arc::clone(&parts.http),
        parts.base.clone(),
        Arc::clone(&parts.credentials),
        options,
        parts.clock.clone(),
    )
}

/// A client of a server, with the parts it is made of.
fn connect(server: &Server) -> (RegistryClient, Parts) {
    let settings = ClientSettings {
        timeout: Duration::from_millis(500),
        ..ClientSettings::default()
    };
    let parts = parts(server, "/registry/v1", settings);
    (client(&parts, options()), parts)
}

fn body() -> RuleBody {
    let serde_json::Value::Object(config) = serde_json::json!({
        "operations": ["created", "updated", "removed"],
        "unknownFilter": [1, {"a": null}],
    }) else {
        panic!("an object")
    };
    RuleBody {
        url: "https://hooks.example.net/redeam/channelbinding".to_owned(),
        disabled: false,
        config,
    }
}

fn assert_is_the_example(rule: &Rule) {
    assert_eq!(rule.url, body().url);
    assert!(!rule.disabled);
    assert_eq!(rule.config, body().config);
    assert_eq!(
        rule.security_key,
        Some(Secret::new("demo-security-key-0001"))
    );
}

fn methods(server: &Server) -> Vec<String> {
    server
        .lines()
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

/// Answers by method; the number of earlier requests with that method comes along.
async fn by_method(script: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Server {
    let counts = Mutex::new(std::collections::HashMap::<String, usize>::new());
    Server::start(move |_, seen: &Seen| {
        let method = seen.line.split(' ').next().unwrap().to_owned();
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(method.clone()).or_default();
        *count += 1;
        script(&method, *count - 1)
    })
    .await
}

#[tokio::test]
async fn requests_are_as_the_reference_has_them() {
    let server = Server::always(200, RULE).await;
    let (client, _parts) = connect(&server);
    for kind in NotificationType::ALL {
        assert_is_the_example(&client.get(kind).await.unwrap().unwrap());
    }
    assert_is_the_example(&client.create(KIND, &body()).await.unwrap());
    assert_is_the_example(&client.update(KIND, &body()).await.unwrap());
    client.delete(KIND).await.unwrap();
    let expected = [
        "GET /registry/v1/channelbindings",
        "GET /registry/v1/suppliers",
        "GET /registry/v1/products",
        "GET /registry/v1/rates",
        "GET /registry/v1/availabilities",
        "GET /registry/v1/priceschedules",
        "GET /registry/v1/bookings",
        "POST /registry/v1/channelbindings",
        "PUT /registry/v1/channelbindings",
        "DELETE /registry/v1/channelbindings",
    ]
    .map(|line| format!("{line} HTTP/1.1"));
    assert_eq!(server.lines(), expected);
    for seen in server.seen() {
        assert_eq!(seen.header("x-api-key"), Some(KEY));
        assert_eq!(seen.header("x-api-secret"), Some(SECRET));
        assert!(seen.header("x-request-id").is_some());
        if seen.line.starts_with('P') {
            assert_eq!(seen.header("content-type"), Some("application/json"));
            let sent: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
            let mut whole: serde_json::Value = serde_json::from_str(RULE).unwrap();
            for read_only in ["securityKey", "createdOn", "updatedOn"] {
                whole.as_object_mut().unwrap().remove(read_only);
            }
            assert_eq!(
                sent, whole,
                "writable fields only, unknown config keys kept"
            );
        } else {
            assert_eq!(seen.body, "");
        }
    }
}

#[tokio::test]
async fn row_1_paths_are_data_and_an_unknown_path_is_told_cleanly() {
    let server = Server::start(|_, seen| {
        if seen.line.contains("/price-schedules ") {
            json(200, RULE)
        } else if seen.line.contains("/channelbindings ") {
            json(404, NOT_FOUND)
        } else {
            answer(404, "", "404 page not found")
        }
    })
    .await;
    let (client_before, parts) = connect(&server);
    let booking = NotificationType::Booking;
    let unsupported = RegistryError::UnsupportedType {
        kind: booking,
        path: "/bookings".to_owned(),
    };
    // A POST tells in any case; a GET once this registry has shown what its own 404 looks like.
    assert_eq!(client_before.get(booking).await, Ok(None));
    assert_eq!(
        client_before.create(booking, &body()).await,
        Err(unsupported.clone())
    );
    assert_eq!(client_before.get(KIND).await, Ok(None));
    assert_eq!(client_before.get(booking).await, Err(unsupported));

    let kind = NotificationType::PriceSchedule;
    let renamed = RegistryOptions {
        paths: RulePaths::default().with(kind, "/price-schedules"),
        ..options()
    };
    let rule = client(&parts, renamed).get(kind).await.unwrap();
    assert_is_the_example(&rule.unwrap());
}

#[tokio::test]
async fn row_2_refused_credentials_are_told_and_changed_ones_tried() {
    for status in [401, 403] {
        let server = Server::always(status, "").await;
        let (client, _parts) = connect(&server);
        let refused = RegistryError::Unauthorized { status };
        assert_eq!(client.get(KIND).await, Err(refused.clone()));
        assert_eq!(client.create(KIND, &body()).await, Err(refused.clone()));
        assert_eq!(client.update(KIND, &body()).await, Err(refused.clone()));
        assert_eq!(client.delete(KIND).await, Err(refused));
        assert_eq!(methods(&server), ["GET", "POST", "PUT", "DELETE"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("apiKey");
    std::fs::write(&file, "old-key").unwrap();
    std::fs::write(folder.path().join("apiSecret"), SECRET).unwrap();
    let server = Server::start(move |_, seen| {
        if seen.header("x-api-key") == Some("new-key") {
            return json(200, RULE);
        }
        std::fs::write(&file, "new-key").unwrap();
        json(401, "")
    })
    .await;
    let (_, mut parts) = connect(&server);
    parts.credentials = bellhop::provider::credentials::CredentialSource::folder(
        folder.path(),
        parts.clock.clone(),
    );
    let rule = client(&parts, options()).get(KIND).await.unwrap();
    assert_is_the_example(&rule.unwrap());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn row_3_every_form_of_a_successful_post() {
    let without_key = RULE.replace("securityKey", "somethingElse");
    for (status, text, reads_back) in [
        (200, RULE.to_owned(), false),
        (201, RULE.to_owned(), false),
        (201, String::new(), true),
        (200, String::new(), true),
        (201, "{}".to_owned(), true),
        (201, "<html>".to_owned(), true),
        (201, without_key, true),
        (202, String::new(), true),
    ] {
        let answered = text.clone();
        let server = by_method(move |method, _| match method {
            "POST" => json(status, &answered),
            _ => json(200, RULE),
        })
        .await;
        let (client, _parts) = connect(&server);
        assert_is_the_example(&client.create(KIND, &body()).await.unwrap());
        let expected: &[&str] = if reads_back {
            &["POST", "GET"]
        } else {
            &["POST"]
        };
        assert_eq!(methods(&server), expected, "{status} {text}");
    }
}

#[tokio::test]
async fn row_4_a_rule_that_exists_is_told_however_the_registry_says_it() {
    let create = async |post: u16, get: u16| {
        let server = by_method(move |method, _| match method {
            "POST" => json(
                post,
                r#"{"error":{"code":"BAD_REQUEST","message":"bad url"}}"#,
            ),
            _ if get == 200 => json(200, RULE),
            _ => json(404, NOT_FOUND),
        })
        .await;
        connect(&server).0.create(KIND, &body()).await
    };
    assert_eq!(create(409, 404).await, Err(RegistryError::Exists));
    assert_eq!(create(400, 200).await, Err(RegistryError::Exists));
    let error = create(400, 404).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }));
    let text = error.to_string();
    assert!(text.contains("400: BAD_REQUEST, \"bad url\""), "{text}");
}

#[tokio::test]
async fn row_5_every_status_of_a_finished_delete() {
    for status in [200, 202, 204, 404, 410] {
        let server = Server::start(move |_, _| {
            Act::Raw(format!("HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n").into())
        })
        .await;
        assert_eq!(connect(&server).0.delete(KIND).await, Ok(()), "{status}");
        assert_eq!(server.seen().len(), 1);
    }
    let server = Server::always(400, "").await;
    let error = connect(&server).0.delete(KIND).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn row_6_the_key_of_a_put_is_its_answers_or_read_afterwards() {
    let changed = RULE.replace("demo-security-key-0001", "another-key");
    let answered = changed.clone();
    let server = by_method(move |_, _| json(200, &answered)).await;
    let rule = connect(&server).0.update(KIND, &body()).await.unwrap();
    assert_eq!(rule.security_key, Some(Secret::new("another-key")));
    assert_eq!(methods(&server), ["PUT"]);

    for status in [200, 202] {
        let server = by_method(move |method, _| match method {
            "PUT" => json(status, ""),
            _ => json(200, RULE),
        })
        .await;
        assert_is_the_example(&connect(&server).0.update(KIND, &body()).await.unwrap());
        assert_eq!(methods(&server), ["PUT", "GET"]);
    }
    let server = Server::always(404, NOT_FOUND).await;
    let missing = connect(&server).0.update(KIND, &body()).await;
    assert_eq!(missing, Err(RegistryError::NotFound));
}

#[tokio::test]
async fn row_18_passing_failures_are_tried_again_and_retry_after_is_honoured() {
    for (status, headers) in [
        (408, ""),
        (425, ""),
        (429, "Retry-After: 7\r\n"),
        (429, "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        (500, ""),
        (502, ""),
        (503, ""),
        (504, ""),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let server = Server::start(move |number, _| match number {
                0..3 => answer(status, headers, ""),
                _ => json(200, RULE),
            })
            .await;
            let (client, parts) = connect(&server);
            match method {
                "GET" => drop(client.get(KIND).await.unwrap().unwrap()),
                "PUT" => drop(client.update(KIND, &body()).await.unwrap()),
                _ => client.delete(KIND).await.unwrap(),
            }
            assert_eq!(methods(&server), [method; 4]);
            let slept = parts.clock.slept();
            assert_eq!(slept.len(), 3);
            let at_least = Duration::from_secs(if headers.is_empty() { 0 } else { 7 });
            for (slept, most) in slept.iter().zip([500, 1_000, 2_000]) {
                assert!(*slept >= at_least && *slept <= at_least + Duration::from_millis(most));
            }
            let retries = format!(
                "bellhop_provider_retries_total{{api=\"registry\",call=\"{}\"}} 3",
                match method {
                    "GET" => "get",
                    "PUT" => "update",
                    _ => "delete",
                }
            );
            assert!(parts.metrics.encode().contains(&retries));
        }
    }
}

#[tokio::test]
async fn attempts_end_and_a_long_retry_after_is_the_callers() {
    let server = Server::always(503, "").await;
    let (client, _parts) = connect(&server);
    let error = client.get(KIND).await.unwrap_err();
    assert!(matches!(
        error,
        RegistryError::Unavailable { after: None, .. }
    ));
    assert_eq!(server.seen().len(), 4);

    let server = Server::start(|_, _| answer(429, "Retry-After: 120\r\n", "")).await;
    let (client, parts) = connect(&server);
    let error = client.get(KIND).await.unwrap_err();
    let RegistryError::Unavailable { after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(after, Some(Duration::from_mins(2)));
    assert_eq!(server.seen().len(), 1);
    assert!(parts.clock.slept().is_empty());

    for status in [400, 405, 422, 501] {
        let server = Server::always(status, "").await;
        let error = connect(&server).0.get(KIND).await.unwrap_err();
        assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn broken_connections_are_tried_again_but_never_a_post() {
    let server = Server::start(|number, _| match number {
        0 => Act::Raw(Vec::new()),
        1 => Act::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{".to_vec()),
        2 => Act::Hang(Vec::new()),
        _ => json(200, RULE),
    })
    .await;
    assert_is_the_example(&connect(&server).0.get(KIND).await.unwrap().unwrap());
    assert_eq!(server.seen().len(), 4);

    let failures: [fn() -> Act; 6] = [
        || Act::Raw(Vec::new()),
        || Act::Raw(b"HTTP/1.1 201 OK\r\nContent-Length: 900\r\n\r\n{".to_vec()),
        || Act::Hang(Vec::new()),
        || json(500, ""),
        || json(502, "<html>"),
        || answer(429, "Retry-After: 3\r\n", ""),
    ];
    for failure in failures {
        // It happened all the same: told as done.
        let server = by_method(move |method, _| match method {
            "POST" => failure(),
            _ => json(200, RULE),
        })
        .await;
        assert_is_the_example(&connect(&server).0.create(KIND, &body()).await.unwrap());
        assert_eq!(methods(&server), ["POST", "GET"]);

        // It did not happen: told as unclear, and not sent again.
        let server = by_method(move |method, _| match method {
            "POST" => failure(),
            _ => json(404, NOT_FOUND),
        })
        .await;
        let error = connect(&server).0.create(KIND, &body()).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Unavailable { .. }),
            "{error}"
        );
        assert_eq!(methods(&server), ["POST", "GET"]);

        // Somebody else was quicker.
        let server = by_method(move |method, _| match method {
            "POST" => failure(),
            _ => json(200, &RULE.replace("hooks.example.net", "other.example")),
        })
        .await;
        let result = connect(&server).0.create(KIND, &body()).await;
        assert_eq!(result, Err(RegistryError::Exists));
    }
}

#[tokio::test]
async fn row_19_every_form_of_an_error_body() {
    for (text, shown) in [
        (
            r#"{"error":{"code":"BAD_REQUEST","message":"no url"}}"#.to_owned(),
            "400: BAD_REQUEST, \"no url\" (request",
        ),
        (
            r#"{"code":"BAD_REQUEST","message":"no url"}"#.to_owned(),
            "400: BAD_REQUEST, \"no url\" (request",
        ),
        (String::new(), "400: an empty body (request"),
        (
            "<html>\r\n<b>Bad\u{1b}[1m</b>".to_owned(),
            "400: \"<html> <b>Bad [1m</b>\" (request",
        ),
        (format!("{}{KEY}", "y".repeat(70)), "400: \"yyyy"),
    ] {
        let server = Server::always(400, &text).await;
        let error = connect(&server).0.get(KIND).await.unwrap_err().to_string();
        assert!(error.contains(shown), "{error}");
        assert!(!error.contains("the-api"), "{error}");
        assert!(error.contains("ChannelBinding"), "{error}");
    }
}

#[tokio::test]
async fn row_22_timestamps_are_opaque_and_missing_parts_have_their_defaults() {
    let url = r#""url":"https://h/x""#;
    for (text, updated_on) in [
        (
            format!(r#"{{{url},"updatedOn":"2025-01-01"}}"#),
            Some("2025-01-01"),
        ),
        (
            format!(r#"{{{url},"updatedOn":1735689600}}"#),
            Some("1735689600"),
        ),
        (
            format!(r#"{{{url},"updatedOn":1735689600.5}}"#),
            Some("1735689600.5"),
        ),
        (
            format!(r#"{{{url},"updatedOn":null,"config":null,"disabled":null}}"#),
            None,
        ),
        (format!("{{{url}}}"), None),
    ] {
        let server = Server::always(200, &text).await;
        let rule = connect(&server).0.get(KIND).await.unwrap().unwrap();
        assert_eq!(rule.updated_on.as_deref(), updated_on);
        assert!(!rule.disabled && rule.config.is_empty() && rule.security_key.is_none());
    }
}

#[tokio::test]
async fn a_rule_that_makes_no_sense_is_not_taken() {
    for text in [
        "",
        "[]",
        "{}",
        "<html>",
        r#"{"url":1}"#,
        r#"{"url":"https://h","disabled":"no"}"#,
        r#"{"url":"https://h","config":[]}"#,
        r#"{"url":"https://h","securityKey":{"a":"the-rule-key"}}"#,
        r#"{"url":"https://h","securityKey":"the-rule-key"#,
    ] {
        let server = Server::always(200, text).await;
        let error = connect(&server).0.get(KIND).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unavailable { .. }), "{text}");
        assert!(!error.to_string().contains("the-rule-key"), "{error}");
    }
}

#[tokio::test]
async fn calls_are_paced_by_the_channels_budget() {
    let server = Server::always(404, NOT_FOUND).await;
    let parts = parts(&server, "/registry/v1", ClientSettings::default());
    let client = client(&parts, RegistryOptions::default());
    for _ in 0..25 {
        assert_eq!(client.get(KIND).await, Ok(None));
    }
    // Five at once, and twenty more at five a second.
    let waited: Duration = parts.clock.slept().iter().sum();
    assert_eq!(waited, Duration::from_secs(4));
}

#[tokio::test]
async fn the_providers_clock_is_told_from_the_newest_answer() {
    let server = Server::start(|number, _| match number {
        0 => answer(404, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", NOT_FOUND),
        _ => json(404, NOT_FOUND),
    })
    .await;
    let (client, _parts) = connect(&server);
    assert!(client.server_time().is_none());
    client.get(KIND).await.unwrap();
    let time = client.server_time().unwrap();
    assert_eq!(time.theirs.since(time.ours), Duration::from_secs(7));
    client.get(KIND).await.unwrap();
    assert!(client.server_time().is_none());
}

#[tokio::test]
async fn replaced_credentials_are_used_by_the_next_call() {
    let server = Server::always(404, NOT_FOUND).await;
    let (client, parts) = connect(&server);
    client.get(KIND).await.unwrap();
    let other = Credentials {
        api_key: Secret::new("another-key"),
        api_secret: Secret::new("another-secret"),
    };
    parts.credentials.replace(other).unwrap();
    client.get(KIND).await.unwrap();
    let secrets: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.header("x-api-secret").unwrap().to_owned())
        .collect();
    assert_eq!(secrets, [SECRET, "another-secret"]);
}
