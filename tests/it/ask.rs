//! `bellhop ask`, which `helm test` runs. Oracle: a server of the test's own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;

use crate::process::bellhop;

/// A server that gives these answers, one to a connection, and then is gone; its address.
fn server(answers: &'static [&'static str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn ask(arguments: &[&str]) -> Output {
    bellhop().arg("ask").args(arguments).output().unwrap()
}

const WELL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
const NOT: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 20\r\nConnection: close\r\n\r\nwaiting for a thing\n";
const AWAY: &str =
    "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn a_page_is_printed() {
    let ended = ask(&[&format!("http://{}/readyz", server(&[WELL]))]);
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stdout, b"ok\n");
}

#[test]
fn what_is_not_200_fails_with_what_it_says() {
    for (answer, says) in [(NOT, "waiting for a thing"), (AWAY, "302")] {
        let url = format!("http://{}/readyz", server(Vec::leak(vec![answer])));
        let ended = ask(&[&url]);
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{error}");
        assert!(error.contains(says) && error.contains(&url), "{error}");
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn it_is_waited_for_when_asked_and_then_given_up() {
    let url = format!("http://{}/readyz", server(&[NOT, WELL]));
    let ended = ask(&["--wait-seconds", "30", &url]);
    assert_eq!(ended.status.code(), Some(0));
    // The server is gone.
    let ended = ask(&["--wait-seconds", "1", &url]);
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn only_plain_http_is_asked() {
    for url in ["https://127.0.0.1/readyz", "localhost"] {
        let ended = ask(&[url]);
        assert_eq!(ended.status.code(), Some(2), "{url}");
    }
}
