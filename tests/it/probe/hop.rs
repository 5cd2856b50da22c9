//! A hop between the internet and the receiver: TLS, and then whatever it is told to do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A certificate authority made for one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub pem: (String, String),
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For `name`, valid in the years from `from` until before `until`.
    pub fn issue(&self, name: &str, from: i32, until: i32) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair {
            certificate: certificate.der().clone(),
            pem: (certificate.pem(), key.serialize_pem()),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    pub fn good(&self) -> Pair {
        self.issue(super::HOST, 2020, 2099)
    }
}

/// What the hop does with a connection.
#[derive(Clone)]
pub enum Does {
    /// Closes it at once.
    HangUp,
    /// Takes it and is silent, before TLS.
    Ignore,
    /// Speaks no TLS: answers in plain text.
    Plain(&'static str),
    /// TLS with this certificate.
    Tls(Arc<ServerConfig>, Then),
}

/// What it does with a request.
#[derive(Clone)]
pub enum Then {
    /// These bytes, then the end of the connection.
    Answer(Vec<u8>),
    /// These bytes, then silence.
    Stall(Vec<u8>),
    /// These bytes, then others for ever.
    Flood(Vec<u8>),
    /// On to this port in plain text, under another path and without the headers named.
    Forward {
        to: SocketAddr,
        path: Option<&'static str>,
        without: &'static [&'static str],
    },
}

pub fn tls(pair: Pair, then: Then) -> Does {
    bellhop::provider::client::install_crypto_provider();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![pair.certificate], pair.key)
        .unwrap();
    Does::Tls(Arc::new(config), then)
}

pub fn status(line: &str, body: &str) -> Then {
    let length = body.len();
    Then::Answer(
        format!("HTTP/1.1 {line}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
            .into_bytes(),
    )
}

/// A running hop.
pub struct Hop {
    pub port: u16,
    pub connections: Arc<AtomicUsize>,
    /// All that it was asked, and what came back through it.
    pub requests: Arc<Mutex<Vec<String>>>,
    pub answers: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn hop(does: Does) -> Hop {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let (counted, asked, came_back) = (connections.clone(), requests.clone(), answers.clone());
    let task = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            counted.fetch_add(1, Ordering::SeqCst);
            open.spawn(serve(
                stream,
                does.clone(),
                asked.clone(),
                came_back.clone(),
            ));
        }
    });
    Hop {
        port,
        connections,
        requests,
        answers,
        task,
    }
}

async fn serve(
    mut stream: TcpStream,
    does: Does,
    asked: Arc<Mutex<Vec<String>>>,
    came_back: Arc<Mutex<Vec<Vec<u8>>>>,
) {
    match does {
        Does::HangUp => {}
        Does::Ignore => std::future::pending().await,
        Does::Plain(text) => {
            let mut hello = [0; 1024];
            let _ = stream.read(&mut hello).await;
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Does::Tls(config, then) => {
            if let Ok(mut tls) = TlsAcceptor::from(config).accept(stream).await {
                let request = read_request(&mut tls).await;
                asked.lock().unwrap().push(request.clone());
                answer(&mut tls, request, then, came_back).await;
                let _ = tls.shutdown().await;
            }
        }
    }
}

/// Head and body: the body of a probe is the two bytes `{}`.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n{}") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).unwrap()
}

async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    request: String,
    then: Then,
    came_back: Arc<Mutex<Vec<Vec<u8>>>>,
) {
    match then {
        Then::Answer(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Then::Stall(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        }
        Then::Flood(bytes) => {
            let mut next = bytes;
            while stream.write_all(&next).await.is_ok() {
                next = vec![b'x'; 1024];
            }
        }
        Then::Forward { to, path, without } => {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let mut lines = head.split("\r\n");
            let first = lines.next().unwrap();
            let asked = first.split(' ').nth(1).unwrap();
            let mut on = first.replace(asked, path.unwrap_or(asked));
            for line in lines {
                let name = line.split(':').next().unwrap().to_ascii_lowercase();
                if !without.contains(&name.as_str()) {
                    on = format!("{on}\r\n{line}");
                }
            }
            let mut behind = TcpStream::connect(to).await.unwrap();
            behind
                .write_all(format!("{on}\r\n\r\n{body}").as_bytes())
                .await
                .unwrap();
            let mut bytes = Vec::new();
            let _ = behind.read_to_end(&mut bytes).await;
            came_back.lock().unwrap().push(bytes.clone());
            let _ = stream.write_all(&bytes).await;
        }
    }
}
