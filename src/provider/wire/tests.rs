use super::super::json::MAX_DEPTH;
use super::*;
use crate::secrets::Secret;

fn window() -> Window {
    Window {
        start: jiff::civil::date(2025, 6, 1),
        end: jiff::civil::date(2025, 6, 30),
    }
}

fn supplier(body: &[u8]) -> Result<Document, NotUnderstood> {
    let expected = Expected {
        envelope: "supplier",
        id: "s1",
        parent: None,
    };
    single(body, &expected)
}

fn reason<T: fmt::Debug>(result: Result<T, NotUnderstood>) -> String {
    result.unwrap_err().reason
}

#[test]
fn the_inner_object_keeps_every_byte() {
    let inner = "{ \"id\" : \"s1\",\t\"version\":3, \"n\":1.0e2, \"t\":\"\\u00e9\", \"id2\":{\"id\":\"x\"} }";
    for body in [
        format!("{{\"meta\":{{\"reqId\":\"r\"}},\"supplier\":{inner}}}"),
        format!("\u{feff} {{\"supplier\":{inner} , \"meta\":null}}\n"),
    ] {
        let document = supplier(body.as_bytes()).unwrap();
        assert_eq!(document.data.get(), inner);
        assert_eq!(document.version, Some(3));
    }
}

#[test]
fn a_version_is_an_integer_or_nothing() {
    for (text, version) in [
        ("7", Some(7)),
        ("-1", Some(-1)),
        ("\"7\"", None),
        ("7.0", None),
        ("1e3", None),
        ("99999999999999999999", None),
        ("null", None),
        ("{}", None),
    ] {
        let body = format!(r#"{{"supplier":{{"id":"s1","version":{text}}}}}"#);
        assert_eq!(
            supplier(body.as_bytes()).unwrap().version,
            version,
            "{text}"
        );
    }
}

#[test]
fn hostile_single_answers_get_a_precise_reason() {
    let deep = format!(r#"{{"supplier":{}}}"#, "[".repeat(100_000));
    let cases: [(&[u8], &str); 18] = [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"<html><body>Bad Gateway", "is HTML or XML, not JSON"),
        (b"nope", "is no valid JSON (line 1, column 2)"),
        (
            br#"{"supplier":{"id":"s1""#,
            "is cut off or no JSON (ends early at line 1, column 22)",
        ),
        (
            br#"{"supplier":{"id":"s1"}} x"#,
            "is no valid JSON (line 1, column 26)",
        ),
        (
            br#"{"supplier":{"id":"s1","n":1e999}}"#,
            "is no valid JSON (line 1, column 32)",
        ),
        (deep.as_bytes(), "is nested deeper than 100 levels"),
        (b"[]", "has something else than an object where it stands"),
        (b"{}", "has no `supplier`"),
        (
            br#"{"supplier":null}"#,
            "has something else than an object where `supplier` stands",
        ),
        (
            br#"{"supplier":"s1"}"#,
            "has something else than an object where `supplier` stands",
        ),
        (
            br#"{"supplier":{"id":"s1"},"supplier":{"id":"s1"}}"#,
            "names `supplier` twice in it",
        ),
        (
            br#"{"supplier":{"id":"s1","\u0069d":"s1"}}"#,
            "names `id` twice in `supplier`",
        ),
        (br#"{"supplier":{}}"#, "has no textual `id` in `supplier`"),
        (
            br#"{"supplier":{"id":1}}"#,
            "has no textual `id` in `supplier`",
        ),
        (
            br#"{"supplier":{"id":"SECRET"}}"#,
            "has another `id` in `supplier` than was asked for",
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(
            reason(supplier(body)),
            expected,
            "{:?}",
            String::from_utf8_lossy(&body[..body.len().min(60)])
        );
    }
    assert!(supplier(deep.as_bytes()).unwrap_err().hopeless);
    assert!(!supplier(b"{}").unwrap_err().hopeless);
}

#[test]
fn what_is_let_through_parses_as_a_value() {
    let nested = |levels: usize| {
        format!(
            r#"{{"supplier":{{"id":"s1","x":{}1{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let fine = supplier(nested(MAX_DEPTH - 2).as_bytes()).unwrap();
    serde_json::from_str::<serde_json::Value>(fine.data.get()).unwrap();
    assert!(supplier(nested(MAX_DEPTH - 1).as_bytes()).is_err());
    // Brackets in a string are text.
    let text = format!(
        r#"{{"supplier":{{"id":"s1","x":"\"{}"}}}}"#,
        "[".repeat(500)
    );
    supplier(text.as_bytes()).unwrap();
    // A lone surrogate is JSON by its grammar and no text for anybody.
    assert!(supplier(br#"{"supplier":{"id":"s1","x":"\ud800"}}"#).is_err());
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bodies: [&[u8]; 4] = [
        br#"{"supplier":{"id":"s1","version":3}}"#,
        br#"{"suppliers":[{"id":"a"},{"id":"b"}]}"#,
        br#"{"availabilities":{"productId":"p","byRate":{"r":{"availability":[{"start":"2025-06-15T08:00:00Z"}]}}}}"#,
        br#"{"r":{"2025-06-15":[{"id":"p-1"}]}}"#,
    ];
    for _ in 0..20_000 {
        let mut body = random.choice(bodies).unwrap().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..body.len());
            match random.u8(..3) {
                0 => body[at] = random.u8(..),
                1 => body.truncate(at.max(1)),
                _ => body.insert(at, *random.choice(b"{}[]\",:\\0e").unwrap()),
            }
        }
        let _ = supplier(&body);
        let _ = list(&body, "suppliers", None);
        let _ = availability(&body, "p", "r", window());
        let _ = price_schedule(&body, "r", window());
    }
}

#[test]
fn lists_keep_each_item_and_refuse_what_has_no_id() {
    let body = br#"{"meta":{},"rates":[{"id":"a","productId":"p", "x":[ ]},{"id":"b"}]}"#;
    let items = list(body, "rates", Some(("productId", "p"))).unwrap();
    let shown: Vec<_> = items
        .iter()
        .map(|i| (i.id.as_str(), i.data.get()))
        .collect();
    assert_eq!(
        shown,
        [
            ("a", r#"{"id":"a","productId":"p", "x":[ ]}"#),
            ("b", r#"{"id":"b"}"#)
        ]
    );
    for body in [r#"{"rates":[]}"#, r#"{"rates":null}"#] {
        assert!(list(body.as_bytes(), "rates", None).unwrap().is_empty());
    }
    for (body, expected) in [
        (r#"{"products":[]}"#, "has no `rates`"),
        (r#"{"rates":{}}"#, "has a `rates` that is not a list"),
        (
            r#"{"rates":[{"id":"a"},null]}"#,
            "has something else than an object where item 1 of `rates` stands",
        ),
        (
            r#"{"rates":[{"id":"a"},{}]}"#,
            "has no textual `id` in item 1 of `rates`",
        ),
        (
            r#"{"rates":[{"id":""}]}"#,
            "has no textual `id` in item 0 of `rates`",
        ),
        (
            r#"{"rates":[{"id":"a","productId":"other"}]}"#,
            "has another `productId` in item 0 of `rates` than was asked for",
        ),
    ] {
        let found = list(body.as_bytes(), "rates", Some(("productId", "p")));
        assert_eq!(reason(found), expected);
    }
}

#[test]
fn an_availability_is_one_rates_part_with_the_answers_times() {
    let body = br#"{"availabilities":{"productId":"p","retrieved":"2025-06-01T08:00:00Z",
        "expires":"2025-06-01T08:05:00Z","byProduct":{"availability":[]},
        "byRate":{"q":{"availability":[]},"r":{"availability":[ {"start":"2025-06-15T08:00:00Z"} ]}}}}"#;
    let found = availability(body, "p", "r", window()).unwrap();
    assert_eq!(
        found.data.get(),
        r#"{"availability":[ {"start":"2025-06-15T08:00:00Z"} ]}"#
    );
    // `date -u -d 2025-06-01T08:00:00Z +%s`
    let retrieved = UnixMillis::from_secs(1_748_764_800);
    assert_eq!(
        found.retrieved,
        Some(("2025-06-01T08:00:00Z".to_owned(), retrieved))
    );
    assert_eq!(found.expires, Some(UnixMillis::from_secs(1_748_765_100)));
    assert!(!found.empty);
}

#[test]
fn an_availability_is_empty_when_nothing_starts_within_the_window() {
    let entry = |start: &str| format!(r#"{{"r":{{"availability":[{{"start":"{start}"}}]}}}}"#);
    for (by_rate, empty) in [
        ("{}".to_owned(), true),
        ("null".to_owned(), true),
        (r#"{"other":{"availability":[]}}"#.to_owned(), true),
        (r#"{"r":null}"#.to_owned(), true),
        (r#"{"r":{}}"#.to_owned(), true),
        (r#"{"r":{"availability":null}}"#.to_owned(), true),
        (r#"{"r":{"availability":[]}}"#.to_owned(), true),
        (entry("2025-05-31T23:59:59Z"), true),
        (entry("2025-06-01T00:00:00Z"), false),
        (entry("2025-06-30T23:59:59Z"), false),
        (entry("2025-07-01T00:00:00Z"), true),
        (entry("2025-07-01T01:00:00+02:00"), false),
        (entry("some day"), false),
    ] {
        let body = format!(r#"{{"availabilities":{{"byRate":{by_rate}}}}}"#);
        let found = availability(body.as_bytes(), "p", "r", window()).unwrap();
        assert_eq!(found.empty, empty, "{by_rate}");
    }
    let absent = availability(br#"{"availabilities":{}}"#, "p", "r", window()).unwrap();
    assert_eq!(absent.data.get(), r#"{"availability":[]}"#);
}

#[test]
fn an_availability_of_something_else_is_not_taken() {
    for (body, expected) in [
        (
            r#"{"availabilities":{"productId":"other","byRate":{}}}"#,
            "has another `productId` in `availabilities` than was asked for",
        ),
        (
            r#"{"availabilities":{"byRate":[]}}"#,
            "has something else than an object where `byRate` stands",
        ),
        (
            r#"{"availabilities":{"byRate":{"r":{},"r":{}}}}"#,
            "names `a rate` twice in `byRate`",
        ),
        (
            r#"{"availabilities":{"byRate":{"r":{"availability":{}}}}}"#,
            "has an `availability` that is not a list",
        ),
        (
            r#"{"availabilities":{"byRate":{"r":{"availability":[null]}}}}"#,
            "has something else than an object where item 0 of `availability` stands",
        ),
        (r#"{"availability":{}}"#, "has no `availabilities`"),
    ] {
        let found = availability(body.as_bytes(), "p", "r", window());
        assert_eq!(reason(found), expected);
    }
}

#[test]
fn a_price_schedule_has_no_envelope() {
    let body = br#"{"r":{"2025-06-15": [ {"id":"p-1"} ]},"q":{}}"#;
    let found = price_schedule(body, "r", window()).unwrap();
    assert_eq!(found.data.get(), r#"{"2025-06-15": [ {"id":"p-1"} ]}"#);
    assert!(!found.empty);
    for body in [
        "{}",
        r#"{"q":{"2025-06-15":[{}]}}"#,
        r#"{"r":null}"#,
        r#"{"r":{}}"#,
        r#"{"r":{"2025-06-15":[]}}"#,
        r#"{"r":{"2025-06-15":null}}"#,
        r#"{"r":{"2025-07-01":[{}]}}"#,
        r#"{"meta":{"reqId":"x"}}"#,
    ] {
        let found = price_schedule(body.as_bytes(), "r", window()).unwrap();
        assert!(found.empty, "{body}");
    }
    for (body, expected) in [
        ("[]", "has something else than an object where it stands"),
        (
            r#"{"error":{"code":"INTERNAL_SERVER"}}"#,
            "is not a price schedule",
        ),
        (
            r#"{"message":"no Route matched"}"#,
            "is not a price schedule",
        ),
        (
            r#"{"r":[]}"#,
            "has something else than an object where the rate's price schedule stands",
        ),
        (
            r#"{"r":{"2025-06-15":{}}}"#,
            "has a day in the rate's price schedule that is not a list",
        ),
        (r#"{"r":{},"r":{}}"#, "names `a rate` twice in it"),
    ] {
        let found = price_schedule(body.as_bytes(), "r", window());
        assert_eq!(reason(found), expected, "{body}");
    }
}

#[test]
fn error_objects_are_cleaned_and_hold_no_credential() {
    let credentials = Credentials {
        api_key: Secret::new("the-api-key"),
        api_secret: Secret::new("the-api-secret"),
    };
    let read = |body: &str| error_object(body.as_bytes(), &credentials);
    let nested = read(
        r#"{"error":{"code":"NOT_FOUND","message":"product\nnot\u001b[31m föund","data":{}}}"#,
    );
    assert_eq!(
        nested.unwrap(),
        ErrorObject {
            code: "NOT_FOUND".to_owned(),
            message: "product not [31m f und".to_owned(),
            nested: true
        }
    );
    assert!(!read(r#"{"code":"NOT_FOUND"}"#).unwrap().nested);
    for body in [
        "",
        "<html>",
        "{}",
        r#"{"message":"no Route matched with those values"}"#,
        r#"{"error":{"code":404,"message":"x"}}"#,
        r#"{"error":"not found"}"#,
        r#"{"error":{"code":""}}"#,
    ] {
        assert_eq!(read(body), None, "{body}");
    }
    // Cut in the middle of the key, if it was cut first.
    let long = format!(
        r#"{{"error":{{"code":"X","message":"{} the-api-key the-api-secret"}}}}"#,
        "y".repeat(195)
    );
    let message = read(&long).unwrap().message;
    assert!(
        message.len() <= 200 && !message.contains("the-"),
        "{message}"
    );
}
