//! `bellhop run` as a process of its own: the manifest, and the command line. What starts it, hears
//! it and ends it is each test's own.

use std::path::Path;
use std::process::{Command, Stdio};

/// The program under test.
pub fn bellhop() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    // What the caller's shell sets is not what is tested.
    for (name, _) in std::env::vars() {
        if name.starts_with("BELLHOP_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A manifest of a subscription and its Secret, with these lines of YAML as the rest of its spec.
pub fn manifest(spec: &str) -> String {
    let spec = spec
        .lines()
        .fold(String::new(), |text, line| text + "  " + line + "\n");
    format!(
        "apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: {{ name: shop, namespace: default }}
spec:
  environment: sandbox
  url: https://hooks.example.com/redeam
  credentialsSecretRef: {{ name: redeam-keys }}
{spec}---
apiVersion: v1
kind: Secret
metadata: {{ name: redeam-keys, namespace: default }}
stringData: {{ apiKey: demo-key, apiSecret: demo-secret }}
"
    )
}

/// The addresses of the public, the admin and the feed port.
pub type Addresses<'a> = [&'a str; 3];

/// Three free ports.
pub const FREE: Addresses<'static> = ["127.0.0.1:0"; 3];

/// `bellhop run` against a registry and an API.
pub fn run(
    manifest: &Path,
    data: &Path,
    (registry, api): (&str, &str),
    [public, admin, feed]: Addresses<'_>,
) -> Command {
    let mut command = bellhop();
    command
        .arg("run")
        .args(["--public-listen", public])
        .args(["--admin-listen", admin])
        .args(["--feed-listen", feed])
        .args(["--registry-url", registry])
        .args(["--api-url", api])
        .arg("--data-dir")
        .arg(data)
        .arg("-f")
        .arg(manifest);
    command
}
