//! The flags of `bellhop operator`, by the program itself: which provider it talks to, and where its
//! probe may go. Oracle: the condition that the API server holds, what a hop has counted, and the
//! operator's admin port.

use std::process::Command;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::super::plane::free_port;
use super::super::process::{bellhop, start};
use super::rig::{KEY, Rig};
use crate::probe::hop::{Authority, Then, hop, tls};
use crate::receiver::rig::{Setup, rig as receiver};
use bellhop::secrets::Secret;

fn operator(rig: &Rig, admin: &str, more: &[&str]) -> Command {
    let registry = rig.simulator.registry_url();
    let mut command = bellhop(&["operator", "--leader-elect=false"]);
    command
        .args(["--namespaces", &rig.space.name])
        .args(["--cluster-id", "a-cluster", "--admin-listen", admin])
        .args(["--sandbox-registry-url", &registry])
        .args(more)
        .env("KUBECONFIG", &rig.space.plane.admin);
    command
}

/// Without it the first probe after a start comes within half a minute.
async fn look_now(rig: &Rig, value: &str) {
    let now = json!({ "metadata": { "annotations": { "bellhop.dev/reconcile-at": value } } });
    rig.patch("shop", now).await;
}

#[tokio::test]
async fn the_probe_goes_to_private_addresses_only_when_told() {
    let Some(rig) = Rig::new("probe-private").await else {
        return;
    };
    let authority = Authority::new();
    let receiver = receiver(Setup::default()).await;
    let then = Then::Forward {
        to: receiver.address,
        path: Some("/redeam/rate"),
        without: &[],
    };
    let pair = authority.issue("localhost", 2020, 2099);
    let hop = hop(tls(pair, then)).await;
    rig.create_keys("redeam-keys", KEY).await;
    rig.create("shop", |object| {
        object["spec"]["url"] = json!(format!("https://localhost:{}/redeam", hop.port));
    })
    .await;
    let program = start("operator", &operator(&rig, "127.0.0.1:0", &[]));
    rig.until("shop", "Reachable", "False AddressRefused").await;
    rig.until("shop", "Ready", "True Ok").await;
    assert_eq!(hop.connections.load(Ordering::SeqCst), 0);
    drop(program);

    let key = rig.stored_key("shop", "probe").await.unwrap();
    receiver.keys.set_probe(vec![Secret::new(key)]);
    // Nobody trusts the certificate of a test, as the provider would not.
    let told = operator(&rig, "127.0.0.1:0", &["--probe-private"]);
    let program = start("operator", &told);
    look_now(&rig, "1").await;
    rig.until("shop", "Reachable", "False CertificateUntrusted")
        .await;
    assert!(hop.connections.load(Ordering::SeqCst) > 0);
    assert!(hop.requests.lock().unwrap().is_empty());
    drop(program);

    // A machine that trusts it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let mut trusting = operator(&rig, "127.0.0.1:0", &[]);
    trusting.env("BELLHOP_PROBE_PRIVATE", "true");
    trusting.env("SSL_CERT_FILE", &file);
    let _program = start("operator", &trusting);
    look_now(&rig, "2").await;
    rig.until("shop", "Reachable", "True Reachable").await;
}

#[tokio::test]
async fn the_providers_addresses_are_checked_and_shown() {
    let Some(rig) = Rig::new("addresses").await else {
        return;
    };
    for flag in [
        "--sandbox-registry-url",
        "--sandbox-api-url",
        "--production-registry-url",
        "--production-api-url",
    ] {
        let mut command = bellhop(&["operator", flag, "http://provider.example.com/v1.3"]);
        command.env("KUBECONFIG", &rig.space.plane.admin);
        let ended = command.output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{flag}");
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(
            said.contains(flag) && said.contains("--allow-plain-http"),
            "{said}"
        );
    }
    let admin = format!("127.0.0.1:{}", free_port());
    let api = rig.simulator.api_url();
    let _program = start(
        "operator",
        &operator(&rig, &admin, &["--sandbox-api-url", &api]),
    );
    let status = async || -> Option<Value> {
        let answer = reqwest::get(format!("http://{admin}/status")).await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    };
    bellhop::provider::client::install_crypto_provider();
    for _ in 0..600 {
        if status().await.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let shown = status().await.unwrap()["provider"].clone();
    assert_eq!(
        shown,
        json!({
            "sandbox": { "registryUrl": rig.simulator.registry_url(), "apiUrl": api },
            "production": {
                "registryUrl": "https://notifications.redeam.io/registry/v1",
                "apiUrl": "https://booking.redeam.io/v1.3",
            },
        })
    );
}
