//! The simulated provider over https. Oracle: a client that trusts the certificate, and one that
//! does not.

use bellhop::simulator::{Simulator, TlsPair};
use rcgen::{CertificateParams, KeyPair};

use super::config;

#[tokio::test]
async fn it_serves_https() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let files = TlsPair {
        cert: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
    };
    std::fs::write(&files.cert, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    let mut config = config();
    config.tls = Some(files.clone());
    let simulator = Simulator::start(config).await.unwrap();
    assert!(simulator.registry_url().starts_with("https://127.0.0.1:"));

    let status = format!("{}/control/status", simulator.base_url());
    let root = reqwest::Certificate::from_pem(certificate.pem().as_bytes()).unwrap();
    let trusting = reqwest::Client::builder().tls_certs_only([root]).build();
    let answer = trusting.unwrap().get(&status).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let other = reqwest::Client::builder().tls_certs_only([]).build();
    assert!(other.unwrap().get(&status).send().await.is_err());
    simulator.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsPair {
        cert: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
    };
    let mut config = config();
    config.tls = Some(files);
    let error = Simulator::start(config).await.unwrap_err().to_string();
    assert!(
        error.contains("tls.crt") && error.contains("tls.key"),
        "{error}"
    );
}
