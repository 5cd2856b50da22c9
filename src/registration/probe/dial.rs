//! One connection of the probe: address, TLS, one request, one answer.
//!
//! Owns: how each layer's failure is called. Never here: a name that is resolved behind our back
//! (the address is given), a redirect followed, an answer beyond [`MAX_ANSWER`], a task of its own.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::Reason;
use crate::api::probe::{HEADER, MAX_ANSWER};
use crate::provider::client::install_crypto_provider;

/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 3;

/// Bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// What is sent: a body like a notification's, and no notification.
const BODY: &[u8] = b"{}";

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The machine's authorities, as the provider believes the public ones.
    System,
    /// These alone.
    Only(Vec<CertificateDer<'static>>),
}

/// The TLS settings of all probes.
pub(super) fn tls_config(trust: Trust) -> Result<Arc<ClientConfig>, String> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    install_crypto_provider();
    let builder = ClientConfig::builder();
    let mut config = match trust {
        Trust::System => builder
            .with_platform_verifier()
            .map_err(|error| {
                format!("cannot load the CA certificates of this machine: {error}; is a package with CA certificates (ca-certificates) installed?")
            })?
            .with_no_client_auth(),
        Trust::Only(certificates) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                let added = roots.add(certificate);
                added.map_err(|error| format!("not a CA certificate: {error}"))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each probe sees the certificate anew.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What is probed.
pub(super) struct Target {
    url: reqwest::Url,
    /// Without the brackets of an IPv6 address.
    host: String,
}

impl Target {
    /// `None` for what is no https URL.
    pub fn of(url: &str) -> Option<Self> {
        let url = reqwest::Url::parse(url).ok()?;
        if url.scheme() != "https" {
            return None;
        }
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some(Self { url, host })
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(443)
    }

    /// Host, and port if it is not 443.
    fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    pub fn place(&self) -> String {
        format!("{}{}", self.authority(), self.url.path())
    }
}

/// How a failed look-up is called. The C library tells "there is no such name" from "ask again" by
/// its words alone, glibc's and musl's.
pub(super) fn name_trouble(error: &io::Error) -> Reason {
    let text = error.to_string();
    let passing = ["Temporary failure", "Try again", "System error"];
    if error.kind() == io::ErrorKind::TimedOut || passing.iter().any(|word| text.contains(word)) {
        Reason::NameLookupFailed
    } else {
        Reason::NameNotResolved
    }
}

/// Connects to the first address that takes it; each is tried for `limit`. If none does, the first
/// one's failure is told.
pub(super) async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
) -> Result<TcpStream, Reason> {
    let mut first = None;
    for address in addresses.iter().take(MAX_ADDRESSES) {
        let attempt = TcpStream::connect(SocketAddr::new(*address, port));
        let reason = match tokio::time::timeout(limit, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Reason::ConnectionRefused,
                io::ErrorKind::TimedOut => Reason::ConnectionTimedOut,
                _ => Reason::ConnectionFailed,
            },
            Err(_) => Reason::ConnectionTimedOut,
        };
        first.get_or_insert(reason);
    }
    Err(first.unwrap_or(Reason::NameNotResolved))
}

/// Asks, and reads status and body, as much of it as an answer of ours has.
pub(super) async fn exchange(
    stream: TcpStream,
    target: &Target,
    question: &str,
    tls: Arc<ClientConfig>,
) -> Result<(u16, Vec<u8>), Reason> {
    let name = ServerName::try_from(target.host.trim_end_matches('.').to_owned());
    let name = name.map_err(|_| Reason::CertificateWrongName)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await;
    let stream = TokioIo::new(stream.map_err(|error| tls_trouble(&error))?);
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(64);
    let (mut sender, connection) = builder
        .handshake::<_, Full<Bytes>>(stream)
        .await
        .map_err(|_| Reason::ConnectionFailed)?;
    let request = Request::post(target.url.path())
        .header(header::HOST, target.authority())
        .header(
            header::USER_AGENT,
            concat!("bellhop/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .header(HEADER, question)
        .body(Full::new(Bytes::from_static(BODY)))
        .map_err(|_| Reason::WrongAnswer)?;
    let mut answered = pin!(async {
        let response = sender.send_request(request).await;
        Ok(read(response.map_err(|error| http_trouble(&error))?).await)
    });
    let mut connection = pin!(connection);
    tokio::select! {
        answer = &mut answered => answer,
        // It may end before all that it brought has been looked at.
        _ = &mut connection => answered.await,
    }
}

/// A body that breaks off or is too long is none of ours; its status still tells something.
async fn read(response: Response<hyper::body::Incoming>) -> (u16, Vec<u8>) {
    let status = response.status().as_u16();
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while let Some(Ok(frame)) = incoming.frame().await {
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(&data[..data.len().min(MAX_ANSWER + 1 - body.len())]);
        }
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    (status, body)
}

fn http_trouble(error: &hyper::Error) -> Reason {
    if error.is_parse() {
        Reason::WrongAnswer
    } else {
        Reason::ConnectionFailed
    }
}

fn tls_trouble(error: &io::Error) -> Reason {
    let inner: Option<&(dyn Error + 'static)> = error.get_ref().map(|inner| inner as _);
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(problem)) = inner else {
        return Reason::TlsFailed;
    };
    match problem {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Reason::CertificateExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Reason::CertificateWrongName
        }
        _ => Reason::CertificateUntrusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are what glibc's and musl's `gai_strerror` say.
    #[test]
    fn a_name_that_is_not_there_differs_from_dns_that_is_down() {
        for (text, reason) in [
            (
                "failed to lookup address information: Name or service not known",
                Reason::NameNotResolved,
            ),
            (
                "failed to lookup address information: No address associated with hostname",
                Reason::NameNotResolved,
            ),
            (
                "failed to lookup address information: Name does not resolve",
                Reason::NameNotResolved,
            ),
            (
                "failed to lookup address information: Temporary failure in name resolution",
                Reason::NameLookupFailed,
            ),
            (
                "failed to lookup address information: Try again",
                Reason::NameLookupFailed,
            ),
        ] {
            assert_eq!(name_trouble(&io::Error::other(text)), reason, "{text}");
        }
        assert_eq!(
            name_trouble(&io::ErrorKind::TimedOut.into()),
            Reason::NameLookupFailed
        );
    }

    #[test]
    fn a_place_is_host_and_path_as_they_are_asked() {
        for (url, place, host, port) in [
            (
                "https://h.example/redeam/booking/0123456789",
                "h.example/redeam/booking/0123456789",
                "h.example",
                443,
            ),
            (
                "https://h.example:8443/x",
                "h.example:8443/x",
                "h.example",
                8443,
            ),
            ("https://[::1]:8443/x", "[::1]:8443/x", "::1", 8443),
        ] {
            let target = Target::of(url).unwrap();
            assert_eq!(
                (target.place().as_str(), target.host(), target.port()),
                (place, host, port)
            );
        }
        assert!(Target::of("http://h.example/x").is_none());
    }
}
