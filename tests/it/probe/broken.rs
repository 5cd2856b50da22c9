//! Each hop broken, and what it is then called.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellhop::api::condition::{Condition, ConditionStatus, ConditionType, Reason};
use tokio::net::{TcpSocket, TcpStream};

use super::hop::{Authority, Does, Then, hop, status, tls};
use super::{Dns, HOST, IMPATIENT, LOOPBACK, PATIENT, key, probe, prober, rule_url};

#[tokio::test]
async fn names() {
    let authority = Authority::new();
    let failed = |text: &'static str| Dns::says([Err(io::Error::other(text))]);
    for (dns, reason) in [
        (failed("Name or service not known"), Reason::NameNotResolved),
        (
            failed("Temporary failure in name resolution"),
            Reason::NameLookupFailed,
        ),
        (Dns::says([Ok(Vec::new())]), Reason::NameNotResolved),
        (Dns::says([]), Reason::NameLookupFailed),
    ] {
        let prober = prober(dns, &authority, IMPATIENT, true);
        assert_eq!(
            prober.probe("uid", &rule_url(1), &key()).await,
            Some(reason)
        );
    }
    let prober = prober(Dns::loopback(), &authority, PATIENT, true);
    for no_url in ["", "hooks.test", "http://hooks.test/booking/0123456789"] {
        assert_eq!(
            prober.probe("uid", no_url, &key()).await,
            Some(Reason::NameNotResolved)
        );
    }
}

/// Nothing is dialled that is not public: not by a name, not by a literal, in whatever spelling.
#[tokio::test]
async fn private_addresses_are_not_dialled() {
    let authority = Authority::new();
    let hop = hop(tls(authority.good(), status("200 OK", ""))).await;
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "::",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "fe80::1",
        "fd00::1",
        "224.0.0.1",
        "ff02::1",
        "64:ff9b::7f00:1",
    ] {
        let dns = Dns::says([Ok(vec![address.parse::<IpAddr>().unwrap(), LOOPBACK])]);
        let prober = prober(dns, &authority, PATIENT, false);
        let found = prober.probe("uid", &rule_url(hop.port), &key()).await;
        assert_eq!(found, Some(Reason::AddressRefused), "{address}");
    }
    let system = std::sync::Arc::new(bellhop::registration::SystemResolver);
    let trust = bellhop::registration::probe::Trust::Only(vec![authority.certificate()]);
    let prober = bellhop::registration::probe::Prober::new(
        system,
        trust,
        false,
        PATIENT,
        &bellhop::metrics::Metrics::new(),
    )
    .unwrap();
    for host in [
        "127.0.0.1",
        "0x7f.1",
        "2130706433",
        "[::1]",
        "[::ffff:7f00:1]",
        "localhost",
    ] {
        let url = format!("https://{host}:{}/booking/0123456789", hop.port);
        assert_eq!(
            prober.probe("uid", &url, &key()).await,
            Some(Reason::AddressRefused),
            "{host}"
        );
    }
    assert_eq!(hop.connections.load(Ordering::SeqCst), 0);
}

/// DNS that says something public first and something private a moment later gains nothing: it is
/// asked once, and what it said is what is dialled.
#[tokio::test]
async fn what_is_checked_is_what_is_dialled() {
    let authority = Authority::new();
    let hop = hop(tls(authority.good(), status("200 OK", ""))).await;
    let dns = Dns::says([Ok(vec!["10.0.0.1".parse().unwrap()]), Ok(vec![LOOPBACK])]);
    let refusing = prober(dns.clone(), &authority, PATIENT, false);
    let found = refusing.probe("uid", &rule_url(hop.port), &key()).await;
    assert_eq!(found, Some(Reason::AddressRefused));
    assert_eq!(dns.asked.load(Ordering::SeqCst), 1);

    // Allowed: the address of the one answer, although the next one would be another.
    let nowhere = Ok(vec!["127.0.0.2".parse().unwrap()]);
    let dns = Dns::says([Ok(vec![LOOPBACK]), nowhere]);
    let allowing = prober(dns.clone(), &authority, PATIENT, true);
    allowing.probe("uid", &rule_url(hop.port), &key()).await;
    assert_eq!(dns.asked.load(Ordering::SeqCst), 1);
    assert_eq!(hop.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn connections() {
    let authority = Authority::new();
    // A port that was ours a moment ago, and that nobody listens on.
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = gone.local_addr().unwrap().port();
    assert_eq!(
        probe(&authority, port, PATIENT).await,
        Reason::ConnectionRefused
    );

    // A queue that is full: Linux leaves further attempts without an answer.
    let full = TcpSocket::new_v4().unwrap();
    full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = full.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream);
        assert!(waiting.len() < 64, "the queue is never full");
    }
    assert_eq!(
        probe(&authority, address.port(), IMPATIENT).await,
        Reason::ConnectionTimedOut
    );
}

/// The first address refuses, the second one answers: that is reachable as far as TCP goes.
#[tokio::test]
async fn another_address_of_the_host_is_tried() {
    let authority = Authority::new();
    let hop = hop(tls(authority.good(), status("404 Not Found", ""))).await;
    let dns = Dns::says([Ok(vec!["127.0.0.9".parse().unwrap(), LOOPBACK])]);
    let prober = prober(dns, &authority, PATIENT, true);
    let found = prober.probe("uid", &rule_url(hop.port), &key()).await;
    assert_eq!(found, Some(Reason::PathNotRouted));
}

#[tokio::test]
async fn certificates() {
    let authority = Authority::new();
    let other = Authority::new();
    let well = || status("200 OK", "");
    for (name, does, reason) in [
        (
            "expired",
            tls(authority.issue(HOST, 2020, 2021), well()),
            Reason::CertificateExpired,
        ),
        (
            "early",
            tls(authority.issue(HOST, 2098, 2099), well()),
            Reason::CertificateExpired,
        ),
        (
            "another name",
            tls(authority.issue("other.test", 2020, 2099), well()),
            Reason::CertificateWrongName,
        ),
        (
            "another issuer",
            tls(other.good(), well()),
            Reason::CertificateUntrusted,
        ),
        (
            "plain http",
            Does::Plain("HTTP/1.1 400 Bad Request\r\n\r\n"),
            Reason::TlsFailed,
        ),
        ("hangs up", Does::HangUp, Reason::TlsFailed),
    ] {
        let hop = hop(does).await;
        assert_eq!(probe(&authority, hop.port, PATIENT).await, reason, "{name}");
        assert!(
            hop.requests.lock().unwrap().is_empty(),
            "{name}: nothing is asked before TLS"
        );
    }
    let silent = hop(Does::Ignore).await;
    assert_eq!(
        probe(&authority, silent.port, IMPATIENT).await,
        Reason::AnswerTimedOut
    );
}

#[tokio::test]
async fn answers_that_are_not_ours() {
    let authority = Authority::new();
    for (line, body, reason) in [
        (
            "200 OK",
            "<html>Welcome to nginx!</html>",
            Reason::WrongAnswer,
        ),
        ("200 OK", "", Reason::WrongAnswer),
        ("204 No Content", "", Reason::WrongAnswer),
        ("200 OK", "bellhop-probe v1 routed", Reason::WrongAnswer),
        ("200 OK", "bellhop-probe v1 no-key", Reason::WrongAnswer),
        ("400 Bad Request", "", Reason::WrongAnswer),
        ("405 Method Not Allowed", "", Reason::WrongAnswer),
        ("413 Payload Too Large", "", Reason::WrongAnswer),
        ("500 Internal Server Error", "", Reason::WrongAnswer),
        ("401 Unauthorized", "", Reason::AccessRefused),
        ("403 Forbidden", "", Reason::AccessRefused),
        (
            "407 Proxy Authentication Required",
            "",
            Reason::AccessRefused,
        ),
        (
            "404 Not Found",
            "default backend - 404",
            Reason::PathNotRouted,
        ),
        ("410 Gone", "", Reason::PathNotRouted),
        ("429 Too Many Requests", "", Reason::ProbeBusy),
        ("502 Bad Gateway", "", Reason::BackendUnavailable),
        ("503 Service Unavailable", "", Reason::BackendUnavailable),
        ("504 Gateway Timeout", "", Reason::BackendUnavailable),
    ] {
        let hop = hop(tls(authority.good(), status(line, body))).await;
        assert_eq!(
            probe(&authority, hop.port, PATIENT).await,
            reason,
            "{line} {body}"
        );
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let authority = Authority::new();
    let elsewhere = hop(tls(authority.good(), status("200 OK", ""))).await;
    for code in [301, 302, 303, 307, 308] {
        let to = rule_url(elsewhere.port);
        let redirect = format!(
            "HTTP/1.1 {code} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let hop = hop(tls(authority.good(), Then::Answer(redirect.into_bytes()))).await;
        assert_eq!(
            probe(&authority, hop.port, PATIENT).await,
            Reason::Redirected,
            "{code}"
        );
    }
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn answers_that_are_none_or_too_much() {
    let authority = Authority::new();
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n";
    for (name, then, reason) in [
        (
            "no http",
            Then::Answer(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
            Reason::WrongAnswer,
        ),
        (
            "hangs up",
            Then::Answer(Vec::new()),
            Reason::ConnectionFailed,
        ),
        ("cut", Then::Answer(whole.to_vec()), Reason::WrongAnswer),
        ("endless", Then::Flood(whole.to_vec()), Reason::WrongAnswer),
        (
            "endless chunk",
            Then::Flood(chunked.to_vec()),
            Reason::WrongAnswer,
        ),
        (
            "endless head",
            Then::Flood(b"HTTP/1.1 200 OK\r\nx: ".to_vec()),
            Reason::WrongAnswer,
        ),
    ] {
        let hop = hop(tls(authority.good(), then)).await;
        assert_eq!(probe(&authority, hop.port, PATIENT).await, reason, "{name}");
    }
    for stalls in [&b""[..], b"HTTP/1.1 200 OK\r\n", whole] {
        let hop = hop(tls(authority.good(), Then::Stall(stalls.to_vec()))).await;
        assert_eq!(
            probe(&authority, hop.port, IMPATIENT).await,
            Reason::AnswerTimedOut
        );
    }
}

/// One at a time per subscription, and one that is dropped does not count for ever.
#[tokio::test]
async fn one_probe_at_a_time_per_subscription() {
    let authority = Authority::new();
    let silent = hop(Does::Ignore).await;
    let prober = prober(Dns::loopback(), &authority, PATIENT, true);
    let url = rule_url(silent.port);
    let (own, other) = (key(), key());
    {
        let mut first = std::pin::pin!(prober.probe("one", &url, &own));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert_eq!(prober.probe("one", &url, &own).await, None);
        let mut second = std::pin::pin!(prober.probe("two", &url, &other));
        assert!(
            futures_util::poll!(&mut second).is_pending(),
            "another one may"
        );
    }
    let mut again = std::pin::pin!(prober.probe("one", &url, &own));
    assert!(futures_util::poll!(&mut again).is_pending());
}

/// What the operator makes of it needs no more than the reason.
#[test]
fn each_reason_is_a_condition() {
    let condition = Condition::of(Reason::PathNotRouted);
    assert_eq!(condition.kind, ConditionType::Reachable);
    assert_eq!(condition.status, ConditionStatus::False);
    let condition = Condition::of(Reason::ProbeBusy);
    assert_eq!(condition.status, ConditionStatus::Unknown);
}
