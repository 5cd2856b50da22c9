//! Reads of the Reseller API.

mod credentials;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use bellhop::provider::client::ClientSettings;
use bellhop::provider::credentials::CredentialSource;
use bellhop::provider::reseller::ResellerClient;
use bellhop::provider::{Answer, Document, Read, ReadError, Reads, Window};
use bellhop::secrets::{Credentials, Secret};

use super::server::{Act, Server, answer, json};
use super::{KEY, Parts, SECRET, parts};

fn client(parts: &Parts) -> ResellerClient {
    ResellerClient::new(
        Arc::clone(&parts.http),
        parts.base.clone(),
        Arc::clone(&parts.credentials),
    )
}

/// Reads once from a server with default limits.
async fn read_from(server: &Server, read: &Read) -> Result<Answer, ReadError> {
    client(&parts(server, "/v1.3", ClientSettings::default()))
        .read(read)
        .await
}

fn one(answer: Result<Answer, ReadError>) -> Document {
    match answer {
        Ok(Answer::One(document)) => document,
        other => panic!("{other:?}"),
    }
}

fn supplier(id: &str) -> Read {
    Read::Supplier {
        supplier: id.to_owned(),
    }
}

fn window() -> Window {
    Window {
        start: jiff::civil::date(2025, 6, 1),
        end: jiff::civil::date(2025, 8, 30),
    }
}

/// All nine reads, with the given identifiers.
fn reads(supplier: &str, product: &str, rate: &str, booking: &str) -> [Read; 9] {
    let (supplier, product) = (supplier.to_owned(), product.to_owned());
    let (rate, booking) = (rate.to_owned(), booking.to_owned());
    let window = window();
    [
        Read::Suppliers,
        Read::Supplier {
            supplier: supplier.clone(),
        },
        Read::Products {
            supplier: supplier.clone(),
        },
        Read::Product {
            supplier: supplier.clone(),
            product: product.clone(),
        },
        Read::Rates {
            supplier: supplier.clone(),
            product: product.clone(),
        },
        Read::Rate {
            supplier: supplier.clone(),
            product: product.clone(),
            rate: rate.clone(),
        },
        Read::Availability {
            supplier: supplier.clone(),
            product: product.clone(),
            rate: rate.clone(),
            window,
        },
        Read::PriceSchedule {
            supplier,
            product,
            rate,
            window,
        },
        Read::Booking { booking },
    ]
}

/// The reference's table of paths and parameters (§6.1), filled in by hand.
const LINES: [&str; 9] = [
    "/suppliers",
    "/suppliers/s1",
    "/suppliers/s1/products",
    "/suppliers/s1/products/p1",
    "/suppliers/s1/products/p1/rates",
    "/suppliers/s1/products/p1/rates/r1",
    "/suppliers/s1/products/p1/availabilities?start=2025-06-01T00:00:00Z&end=2025-08-30T23:59:59Z&rate_id=r1",
    "/suppliers/s1/products/p1/pricing/schedule?start_date=2025-06-01&end_date=2025-08-30&rate_id=r1",
    "/bookings/b1",
];

#[tokio::test]
async fn each_read_is_one_request_as_the_reference_has_it() {
    for version in ["/v1.3", "/v1.2"] {
        let server = Server::always(500, "").await;
        let parts = parts(&server, version, ClientSettings::default());
        let client = client(&parts);
        for read in reads("s1", "p1", "r1", "b1") {
            client.read(&read).await.unwrap_err();
        }
        let expected: Vec<_> = LINES
            .iter()
            .map(|path| format!("GET {version}{path} HTTP/1.1"))
            .collect();
        assert_eq!(server.lines(), expected);
        let mut requests = std::collections::HashSet::new();
        for seen in server.seen() {
            assert_eq!(seen.header("x-api-key"), Some(KEY));
            assert_eq!(seen.header("x-api-secret"), Some(SECRET));
            assert_eq!(seen.header("accept"), Some("application/json"));
            assert!(seen.header("user-agent").unwrap().starts_with("bellhop/"));
            assert_eq!(seen.body, "");
            let request = seen.header("x-request-id").unwrap().to_owned();
            assert_eq!(request.len(), 36);
            assert!(requests.insert(request), "a request id came twice");
        }
        assert_eq!(server.connections(), 1, "the connection was not reused");
    }
}

#[tokio::test]
async fn rich_content_is_asked_of_catalogue_reads_of_v1_3_only() {
    for (version, query) in [("/v1.3", "?content=true"), ("/v1.2", "")] {
        let server = Server::always(500, "").await;
        let client =
            client(&parts(&server, version, ClientSettings::default())).with_rich_content(true);
        for read in reads("s1", "p1", "r1", "b1") {
            client.read(&read).await.unwrap_err();
        }
        for (at, line) in server.lines().iter().enumerate() {
            let query = if at < 6 { query } else { "" };
            assert_eq!(*line, format!("GET {version}{}{query} HTTP/1.1", LINES[at]));
        }
    }
}

#[tokio::test]
async fn an_identifier_never_changes_the_path() {
    let server = Server::always(500, "").await;
    let client = client(&parts(&server, "/v1.3", ClientSettings::default()));
    for read in reads("a?b", "%2e%2e", "r&x=1#f", "é b") {
        client.read(&read).await.unwrap_err();
    }
    let lines = server.lines();
    assert_eq!(
        lines[5],
        "GET /v1.3/suppliers/a%3Fb/products/%252e%252e/rates/r%26x%3D1%23f HTTP/1.1"
    );
    assert!(lines[6].ends_with("T23:59:59Z&rate_id=r%26x%3D1%23f HTTP/1.1"));
    assert_eq!(lines[8], "GET /v1.3/bookings/%C3%A9%20b HTTP/1.1");
    for bad in ["", ".", "..", "a/b", "a\r\nX-Evil: 1"] {
        let error = client.read(&supplier(bad)).await.unwrap_err();
        assert!(matches!(error, ReadError::Refused { .. }), "{bad:?}");
    }
    assert_eq!(server.seen().len(), 9, "a bad identifier was sent");
}

#[tokio::test]
async fn answers_lose_their_envelope_and_nothing_else() {
    let server = Server::start(|_, seen| {
        let path = seen.line.split(' ').nth(1).unwrap();
        json(
            200,
            match path.split('?').next().unwrap() {
                "/v1.3/suppliers" => r#"{"meta":{},"suppliers":[{"id":"s1", "z":1},{"id":"s2"}]}"#,
                "/v1.3/suppliers/s1" => r#"{"meta":{},"supplier":{"z":1, "id":"s1","version":3}}"#,
                "/v1.3/suppliers/s1/products" => r#"{"products":[{"id":"p1","supplierId":"s1"}]}"#,
                "/v1.3/suppliers/s1/products/p1" => r#"{"product":{"id":"p1","supplierId":"s1"}}"#,
                "/v1.3/suppliers/s1/products/p1/rates" => r#"{"rates":[{"id":"r1"}]}"#,
                "/v1.3/suppliers/s1/products/p1/rates/r1" => {
                    r#"{"rate":{"id":"r1","productId":"p1","version":9}}"#
                }
                "/v1.3/suppliers/s1/products/p1/availabilities" => {
                    r#"{"availabilities":{"productId":"p1","retrieved":"2025-06-01T08:00:00Z",
                    "expires":"2025-06-01T08:05:00Z","byProduct":{"availability":[]},
                    "byRate":{"r1":{"availability":[{"id":"a", "start":"2025-06-15T08:00:00Z"}]}}}}"#
                }
                "/v1.3/suppliers/s1/products/p1/pricing/schedule" => {
                    r#"{"r1":{"2025-06-15":[{"id":"p-1", "net":{}}]}}"#
                }
                "/v1.3/bookings/b1" => r#"{"booking":{"id":"b1","status":"CANCELLED"},"meta":{}}"#,
                other => panic!("{other}"),
            },
        )
    })
    .await;
    let client = client(&parts(&server, "/v1.3", ClientSettings::default()));
    let mut found = Vec::new();
    for read in reads("s1", "p1", "r1", "b1") {
        found.push(match client.read(&read).await.unwrap() {
            Answer::One(document) => {
                assert!(!document.empty);
                let retrieved = document.retrieved.map(|(text, _)| text);
                format!("{} {:?} {retrieved:?}", document.data, document.version)
            }
            Answer::Many(items) => items
                .iter()
                .map(|item| format!("{}={}", item.id, item.data))
                .collect::<Vec<_>>()
                .join(" "),
        });
    }
    assert_eq!(
        found,
        [
            r#"s1={"id":"s1", "z":1} s2={"id":"s2"}"#,
            r#"{"z":1, "id":"s1","version":3} Some(3) None"#,
            r#"p1={"id":"p1","supplierId":"s1"}"#,
            r#"{"id":"p1","supplierId":"s1"} None None"#,
            r#"r1={"id":"r1"}"#,
            r#"{"id":"r1","productId":"p1","version":9} Some(9) None"#,
            r#"{"availability":[{"id":"a", "start":"2025-06-15T08:00:00Z"}]} None Some("2025-06-01T08:00:00Z")"#,
            r#"{"2025-06-15":[{"id":"p-1", "net":{}}]} None None"#,
            r#"{"id":"b1","status":"CANCELLED"} None None"#,
        ]
    );
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Gone,
    Retry,
    Unauthorized,
    Refused,
}
use Outcome::{Gone, Refused, Retry, Unauthorized};

fn outcome(error: &ReadError) -> Outcome {
    match error {
        ReadError::Gone { .. } => Gone,
        ReadError::Retry { .. } => Retry,
        ReadError::Unauthorized { .. } => Unauthorized,
        ReadError::Refused { .. } => Refused,
    }
}

/// The design's table "From the provider, when fetching".
#[tokio::test]
async fn each_row_of_the_table_of_outcomes() {
    let not_found = r#"{"error":{"code":"NOT_FOUND","message":"supplier not found","data":{}}}"#;
    let gone = r#"{"error":{"code":"GONE","message":"withdrawn"}}"#;
    let bad = r#"{"error":{"code":"BAD_REQUEST","message":"no\u0000pe"}}"#;
    let internal = r#"{"error":{"code":"INTERNAL_SERVER","message":"x"}}"#;
    let kong = r#"{"message":"no Route matched with those values"}"#;
    let html = "<html><body>nginx</body></html>";
    for (status, body, expected) in [
        (404, not_found, Gone),
        (410, gone, Gone),
        (404, internal, Retry),
        (404, kong, Retry),
        (404, html, Retry),
        (404, "", Retry),
        (410, "", Retry),
        (408, bad, Retry),
        (425, bad, Retry),
        (429, "", Retry),
        (500, internal, Retry),
        (501, html, Retry),
        (502, html, Retry),
        (503, "", Retry),
        (504, not_found, Retry),
        (599, "", Retry),
        (401, "", Unauthorized),
        (403, not_found, Unauthorized),
        (400, bad, Refused),
        (405, html, Refused),
        (409, bad, Refused),
        (413, "", Refused),
        (422, bad, Refused),
        (301, "", Retry),
        (201, r#"{"supplier":{"id":"s1"}}"#, Retry),
        (202, "", Retry),
        (200, "", Retry),
        (200, html, Retry),
        (200, not_found, Retry),
        (200, r#"{"supplier":{"id":"s1""#, Retry),
        (200, r#"{"supplier":{"id":"HOSTILE"}}"#, Retry),
        (200, r#"{"suppliers":[]}"#, Retry),
        (200, "\u{1}", Retry),
    ] {
        let server = Server::always(status, body).await;
        let error = read_from(&server, &supplier("s1")).await.unwrap_err();
        assert_eq!(outcome(&error), expected, "{status} {body}: {error}");
        assert_eq!(server.seen().len(), 1, "{status}: tried again");
        let text = error.to_string();
        assert!(
            text.chars().all(|c| c == ' ' || c.is_ascii_graphic()),
            "{text}"
        );
        assert!(
            !text.contains("nginx") && !text.contains("HOSTILE"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_204_has_no_body_and_is_no_answer() {
    let server = Server::start(|_, _| Act::Keep("HTTP/1.1 204 X\r\n\r\n".to_owned())).await;
    let error = read_from(&server, &supplier("s1")).await.unwrap_err();
    assert_eq!(outcome(&error), Retry);
}

#[tokio::test]
async fn a_reason_names_code_message_and_request_and_hides_the_keys() {
    let body = format!(
        r#"{{"error":{{"code":"BAD_REQUEST","message":"key {KEY} with {SECRET} is\n\u001b[1m odd {}"}}}}"#,
        "x".repeat(500)
    );
    let server = Server::always(400, &body).await;
    let parts = parts(&server, "/v1.3", ClientSettings::default());
    let error = client(&parts).read(&supplier("s1")).await.unwrap_err();
    let text = error.to_string();
    let request = server.seen()[0].header("x-request-id").unwrap().to_owned();
    assert!(
        text.contains("400") && text.contains("BAD_REQUEST"),
        "{text}"
    );
    assert!(
        text.contains("key [redacted] with [redacted] is [1m odd"),
        "{text}"
    );
    assert!(text.contains(&request), "{text}");
    assert!(text.len() < 400, "{text}");
    let everything = format!(
        "{text} {error:?} {:?} {:?} {}",
        parts.credentials,
        parts.http,
        parts.metrics.encode()
    );
    assert!(!everything.contains(KEY) && !everything.contains(SECRET));
}

#[tokio::test]
async fn each_call_is_measured() {
    let server = Server::start(|number, _| match number {
        0 => json(200, r#"{"supplier":{"id":"s1"}}"#),
        1 => json(200, "nonsense"),
        2 => json(429, ""),
        _ => Act::Raw(Vec::new()),
    })
    .await;
    let parts = parts(&server, "/v1.3", ClientSettings::default());
    let client = client(&parts);
    for _ in 0..4 {
        let _ = client.read(&supplier("s1")).await;
    }
    let text = parts.metrics.encode();
    for line in [
        r#"bellhop_provider_requests_total{api="reseller",call="supplier",outcome="ok"} 2"#,
        r#"bellhop_provider_requests_total{api="reseller",call="supplier",outcome="throttled"} 1"#,
        r#"bellhop_provider_requests_total{api="reseller",call="supplier",outcome="protocol"} 1"#,
        r#"bellhop_provider_answers_not_understood_total{api="reseller",call="supplier"} 1"#,
        r#"bellhop_provider_request_duration_seconds_count{api="reseller",call="supplier"} 4"#,
        "bellhop_provider_bodies_in_flight_bytes 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
