//! `promtool check metrics` as an oracle for what `/metrics` says.

use std::io::Write;
use std::process::{Command, Stdio};

/// Fails when promtool finds fault. Skipped, with a word, where it is not installed.
pub fn check(text: &str) {
    let spawned = Command::new(std::env::var("PROMTOOL").as_deref().unwrap_or("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        crate::skip::without("promtool is missing; install it or set PROMTOOL to its path");
        return;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
