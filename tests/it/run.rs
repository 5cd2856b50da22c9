//! What `bellhop run` refuses before it does anything. Oracle: the program's exit code, and that it
//! names what to write instead.

use std::process::Command;

const MANIFESTS: &str = "\
apiVersion: bellhop.dev/v1alpha1
kind: WebhookSubscription
metadata: { name: redeam, namespace: shop }
spec:
  environment: sandbox
  url: https://hooks.example.com/redeam
  credentialsSecretRef: { name: redeam-keys }
  feed: { auth: AUTH }
---
apiVersion: v1
kind: Secret
metadata: { name: redeam-keys, namespace: shop }
stringData: { apiKey: example-api-key, apiSecret: example-api-secret }
";

/// Exit code and what was said. Nothing that could be reached listens, whatever happens: an
/// address that is not this machine's cannot be bound.
fn run(auth: &str, feed: &str, with_file: bool) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command
        .arg("run")
        .arg("-f")
        .arg(write("all.yaml", &MANIFESTS.replace("AUTH", auth)))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--public-listen", "127.0.0.1:0"])
        .args(["--admin-listen", "127.0.0.1:0", "--feed-listen", feed]);
    if with_file {
        let token = write("token", "0123456789abcdef0123456789abcdef");
        command.arg("--feed-token-file").arg(token);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), told)
}

#[test]
fn a_feed_without_a_token_is_refused_beyond_loopback() {
    const OUTSIDE: &str = "192.0.2.1:8082";
    for (auth, with_file) in [("None", true), ("None", false), ("Token", false)] {
        let (code, told) = run(auth, OUTSIDE, with_file);
        assert_eq!(code, Some(2), "{auth} {with_file}: {told}");
        assert!(told.contains("spec.feed.auth"), "{told}");
    }
    // With a token it is taken; that the address is not ours is another matter.
    let (code, told) = run("Token", OUTSIDE, true);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("cannot listen on 192.0.2.1"), "{told}");
}
