//! A way to a port of a pod, as `kubectl port-forward` makes it: for what the API server's proxy does
//! not pass on, which are a bearer token and the pod's own TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use crate::kubectl::Kubectl;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends when it is dropped.
pub struct Forward {
    kubectl: Child,
    /// It goes on talking, and would end if nobody could hear it.
    _said: BufReader<ChildStdout>,
    port: u16,
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

impl Forward {
    /// To a port of a pod.
    ///
    /// # Errors
    /// What kubectl said instead.
    pub fn to(kubectl: &Kubectl, namespace: &str, pod: &str, port: u16) -> Result<Self, String> {
        let mut command = kubectl.command();
        command.args(["port-forward", "--address=127.0.0.1", "--namespace"]);
        command.args([namespace, &format!("pod/{pod}"), &format!(":{port}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut kubectl = command.spawn().unwrap();
        let mut said = BufReader::new(kubectl.stdout.take().unwrap());
        let mut line = String::new();
        let read = said.read_line(&mut line);
        // Forwarding from 127.0.0.1:40123 -> 8082
        let local = line.split("127.0.0.1:").nth(1);
        let local = local.and_then(|rest| rest.split(' ').next()?.parse().ok());
        let forward = Self {
            kubectl,
            _said: said,
            port: local.unwrap_or_default(),
        };
        if forward.port == 0 {
            return Err(format!("no way to port {port} of {pod}: {read:?} {line}"));
        }
        Ok(forward)
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A request with a bearer token; the answer's status and body. Without a body it is a GET.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ask(
        &self,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<(u16, String), String> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let exchange = || {
            let mut stream = self.connect()?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer: String = exchange().map_err(|error: std::io::Error| error.to_string())?;
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| format!("no answer: {answer:?}"))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// The certificate that is shown to one who asks for this name and trusts this authority.
    ///
    /// # Errors
    /// It is not one of that authority for that name, or there is none.
    pub fn certificate(
        &self,
        name: &str,
        authority: &str,
    ) -> Result<CertificateDer<'static>, Box<dyn std::error::Error>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name)?;
        let mut stream = self.connect()?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let shown = tls.peer_certificates().and_then(|chain| chain.first());
        Ok(shown.ok_or("no certificate")?.clone().into_owned())
    }
}
