//! The http sink against a scripted server on loopback. Oracle: the requests that the server got,
//! as it read them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Method, Response};
use bellhop::clock::SystemClock;
use bellhop::publish::http::HttpSink;
use bellhop::publish::{Class, Sink, Verdict};
use bellhop::settings::{BackoffPolicy, DeliverySettings, SinkSettings};
use tokio::task::JoinSet;

use super::feed::origin;
use super::memory::Memory;
use super::time::TestClock;

pub struct Got {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type Answers = Arc<dyn Fn() -> Response<Body> + Send + Sync>;

#[derive(Clone)]
struct Shelf(Arc<Mutex<Vec<Got>>>, Answers);

pub struct Server {
    pub uri: String,
    pub got: Arc<Mutex<Vec<Got>>>,
    _task: JoinSet<()>,
}

async fn take(
    Shared(shelf): Shared<Shelf>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    shelf.0.lock().unwrap().push(Got {
        method,
        headers,
        body,
    });
    (shelf.1)()
}

impl Server {
    pub async fn start(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Self {
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let shelf = Shelf(got.clone(), Arc::new(answer));
        let router = Router::new().fallback(take).with_state(shelf);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/events", listener.local_addr().unwrap());
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            uri,
            got,
            _task: task,
        }
    }
}

pub fn status(code: u16) -> Response<Body> {
    Response::builder()
        .status(code)
        .body(Body::empty())
        .unwrap()
}

fn settings(uri: &str) -> SinkSettings {
    SinkSettings {
        name: "orders".into(),
        types: Vec::new(),
        uri: uri.into(),
        headers_dir: None,
        ca_file: None,
        delivery: DeliverySettings {
            retry: 3,
            backoff_policy: BackoffPolicy::Linear,
            backoff_delay: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
        },
    }
}

pub fn sink(uri: &str, state: &Memory) -> HttpSink {
    HttpSink::new(&settings(uri), origin(state), Arc::new(SystemClock::new())).unwrap()
}

#[tokio::test]
async fn the_request_is_a_cloudevent_in_binary_mode() {
    let state = Memory::new();
    let server = Server::start(|| status(204)).await;
    let event = state.publish("booking/é \"1\"", Some("{ \"a\" : 1.10 }"));
    let removal = state.publish("booking/2", None);
    let sink = sink(&server.uri, &state);
    assert_eq!(sink.send(&event).await, Verdict::Delivered);
    assert_eq!(sink.send(&removal).await, Verdict::Delivered);
    let got = server.got.lock().unwrap();
    let header = |at: usize, name: &str| got[at].headers.get(name).map(|v| v.to_str().unwrap());
    assert_eq!(got[0].method, Method::POST);
    assert_eq!(header(0, "content-type"), Some("application/json"));
    assert_eq!(&got[0].body[..], b"{ \"a\" : 1.10 }");
    assert_eq!(header(0, "ce-specversion"), Some("1.0"));
    assert_eq!(header(0, "ce-type"), Some("io.redeam.booking.created"));
    assert_eq!(header(0, "ce-subject"), Some("booking/%C3%A9%20%221%22"));
    let source = "https://booking.sandbox.redeam.io/v1.3";
    assert_eq!(header(0, "ce-source"), Some(source));
    assert_eq!(header(0, "ce-sequence"), Some("00000001767323045678"));
    assert_eq!(header(1, "ce-type"), Some("io.redeam.booking.removed"));
    assert_eq!(header(1, "content-type"), None);
    assert!(got[1].body.is_empty());
}

#[tokio::test]
async fn answers_have_their_meaning_and_redirects_are_not_followed() {
    let state = Memory::new();
    let event = state.publish("booking/1", Some("{}"));
    let target = Server::start(|| status(200)).await;
    let location = target.uri.clone();
    let cases: Vec<(Response<Body>, Class, Option<u64>)> = vec![
        (status(422), Class::Rejected, None),
        (status(418), Class::Other, None),
        (status(404), Class::NotFound, None),
        (status(503), Class::ServerError, None),
        (
            Response::builder()
                .status(429)
                .header("retry-after", "7")
                .body(Body::empty())
                .unwrap(),
            Class::Throttled,
            Some(7),
        ),
        (
            Response::builder()
                .status(307)
                .header("location", location)
                .body(Body::empty())
                .unwrap(),
            Class::WrongAddress,
            None,
        ),
    ];
    for (answer, class, after) in cases {
        let answer = Mutex::new(Some(answer));
        let server = Server::start(move || answer.lock().unwrap().take().unwrap()).await;
        let verdict = sink(&server.uri, &state).send(&event).await;
        assert_eq!(verdict.class(), class);
        let fits = match class {
            Class::Rejected => matches!(verdict, Verdict::Refused { .. }),
            Class::Other => matches!(verdict, Verdict::Failed { .. }),
            _ => {
                let retry_after = after.map(Duration::from_secs);
                verdict == Verdict::NotWell { class, retry_after }
            }
        };
        assert!(fits, "{verdict:?}");
    }
    assert!(
        target.got.lock().unwrap().is_empty(),
        "a redirect was followed"
    );
}

#[tokio::test]
async fn no_connection_no_answer_and_endless_answers() {
    let state = Memory::new();
    let event = state.publish("booking/1", Some("{}"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let verdict = sink(&format!("http://{closed}/"), &state)
        .send(&event)
        .await;
    assert_eq!(verdict.class(), Class::Connection);

    // Accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/", silent.local_addr().unwrap());
    let begun = Instant::now();
    let verdict = sink(&uri, &state).send(&event).await;
    assert_eq!(verdict.class(), Class::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(5));

    // 200 with a body without end: delivered, and the body is not read to its end.
    let server = Server::start(|| {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'x'; 8192]))
        });
        Response::new(Body::from_stream(endless))
    })
    .await;
    let verdict = sink(&server.uri, &state).send(&event).await;
    assert_eq!(verdict, Verdict::Delivered);
}

#[tokio::test]
async fn headers_follow_their_files_and_are_never_shown() {
    let state = Memory::new();
    let event = state.publish("booking/1", Some("{}"));
    let server = Server::start(|| status(200)).await;
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::<TestClock>::default();
    let mut settings = settings(&server.uri);
    settings.headers_dir = Some(folder.path().join("headers"));
    let sink = HttpSink::new(&settings, origin(&state), clock.clone()).unwrap();
    let later = async || {
        clock.run(Duration::from_secs(2), || false).await;
        sink.send(&event).await
    };
    // Not there yet: not well, and no request without the headers.
    assert_eq!(later().await.class(), Class::Misconfigured);
    assert!(server.got.lock().unwrap().is_empty());

    let file = |name: &str| -> PathBuf { folder.path().join("headers").join(name) };
    std::fs::create_dir(folder.path().join("headers")).unwrap();
    std::fs::write(file("Authorization"), "Bearer one\n").unwrap();
    std::fs::write(file("..data"), "not a header").unwrap();
    assert_eq!(later().await, Verdict::Delivered);
    std::fs::write(file("Authorization"), "Bearer two two\n").unwrap();
    assert_eq!(later().await, Verdict::Delivered);
    // Unusable: the last good ones stay.
    std::fs::write(file("ce-id"), "mine").unwrap();
    assert_eq!(later().await, Verdict::Delivered);
    let got = server.got.lock().unwrap();
    let sent: Vec<_> = got
        .iter()
        .map(|got| got.headers["authorization"].clone())
        .collect();
    assert_eq!(sent, ["Bearer one", "Bearer two two", "Bearer two two"]);
    assert_ne!(got[2].headers["ce-id"], "mine");
}

#[tokio::test]
async fn only_the_given_authority_is_trusted() {
    let state = Memory::new();
    let event = state.publish("booking/1", Some("{}"));
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let names = vec!["localhost".to_owned()];
    let good = rcgen::generate_simple_self_signed(names.clone()).unwrap();
    let other = rcgen::generate_simple_self_signed(names).unwrap();
    let config = axum_server::tls_rustls::RustlsConfig::from_pem(
        good.cert.pem().into_bytes(),
        good.signing_key.serialize_pem().into_bytes(),
    )
    .await
    .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut task = JoinSet::new();
    let router = Router::new().fallback(async || "fine");
    let server = axum_server::from_tcp_rustls(listener, config).unwrap();
    task.spawn(async move { server.serve(router.into_make_service()).await.unwrap() });

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let clock = Arc::<TestClock>::default();
    let mut settings = settings(&format!("https://localhost:{port}/"));
    settings.ca_file = Some(file.clone());
    settings.delivery.timeout = Duration::from_secs(5);
    let sink = HttpSink::new(&settings, origin(&state), clock.clone()).unwrap();
    let cases = [
        (other.cert.pem(), Class::Connection),
        ("nothing".into(), Class::Connection),
        (good.cert.pem(), Class::Delivered),
    ];
    for (pem, class) in cases {
        std::fs::write(&file, pem).unwrap();
        clock.run(Duration::from_secs(2), || false).await;
        assert_eq!(sink.send(&event).await.class(), class);
    }
}

#[test]
fn an_address_that_is_none_is_refused() {
    let state = Memory::new();
    for uri in ["orders.shop.svc", "ftp://orders/", "/events", ""] {
        let clock = Arc::new(SystemClock::new());
        let sink = HttpSink::new(&settings(uri), origin(&state), clock);
        let error = sink.err().unwrap().to_string();
        assert!(
            error.starts_with("sink `orders`: its uri is no absolute"),
            "{error}"
        );
    }
}
