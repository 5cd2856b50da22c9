//! TLS by files, read again when they change.
//!
//! Owns: the server's certificate and key. Never here: a key in an error or a log line; a change of
//! certificate that drops connections, or that leaves the port without one (a pair that cannot be
//! used is reported, and the loaded one stays).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// PEM files, as in a mounted `kubernetes.io/tls` Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Whether a port could be served with these files now.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub async fn check(&self) -> Result<(), String> {
        Tls::load(self.clone()).await.map(drop)
    }
}

pub(super) struct Tls {
    files: TlsFiles,
    config: RustlsConfig,
    loaded: std::sync::Mutex<Pem>,
}

/// Both files' bytes.
#[derive(PartialEq, Eq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    pub async fn load(files: TlsFiles) -> Result<Self, String> {
        let pem = read(&files).await?;
        let config = RustlsConfig::from_config(server_config(&files, &pem)?);
        Ok(Self {
            files,
            config,
            loaded: std::sync::Mutex::new(pem),
        })
    }

    pub fn acceptor(&self) -> RustlsAcceptor {
        RustlsAcceptor::new(self.config.clone())
    }

    /// Takes over changed files, for ever.
    pub async fn watch(&self) {
        let mut complained = false;
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            match self.reload().await {
                Ok(changed) => {
                    if changed {
                        tracing::info!(cert = %self.files.cert.display(), "certificate reloaded");
                    }
                    complained = false;
                }
                Err(problem) if !complained => {
                    tracing::warn!(%problem, "cannot use the changed certificate; keeping the old one");
                    complained = true;
                }
                Err(_) => {}
            }
        }
    }

    async fn reload(&self) -> Result<bool, String> {
        let pem = read(&self.files).await?;
        let unchanged = *self.lock() == pem;
        if unchanged {
            return Ok(false);
        }
        let config = server_config(&self.files, &pem)?;
        self.config.reload_from_config(config);
        *self.lock() = pem;
        Ok(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pem> {
        self.loaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn read(files: &TlsFiles) -> Result<Pem, String> {
    let file = async |path: &PathBuf| {
        tokio::fs::read(path)
            .await
            .map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    Ok(Pem {
        cert: file(&files.cert).await?,
        key: file(&files.key).await?,
    })
}

fn server_config(files: &TlsFiles, pem: &Pem) -> Result<Arc<ServerConfig>, String> {
    let certs = CertificateDer::pem_slice_iter(&pem.cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{}: {error}", files.cert.display()))?;
    if certs.is_empty() {
        return Err(format!(
            "{}: expected at least one PEM certificate",
            files.cert.display()
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|_| format!("{}: expected a PEM private key", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| {
            format!(
                "{} and {}: {error}",
                files.cert.display(),
                files.key.display()
            )
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
