//! Bellhop's resource on a real Kubernetes API server (etcd and kube-apiserver, built by `make tools`).
//! Oracle: that server and the real kubectl. Nothing here runs where they are not installed: such a
//! test says `skipped: why`, and fails with CI=true.
//!
//! One control plane serves the whole run. Each test has a namespace of its own in it, and shows
//! what is in there when it fails. `BELLHOP_KUBERNETES` chooses the version: a folder of
//! tests/tools/kubernetes.

mod apply;
pub mod kstatus;
mod kubectl;
mod limits;
mod operator;
mod plain;
mod plane;
mod process;
mod remaining;
mod rights;
mod rules;
mod space;
mod supervise;
pub mod tools;
mod walk;
mod wire;

use std::time::{Duration, Instant};

/// What a condition gives once it holds. Polls: what is waited for is in another process.
#[track_caller]
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            started.elapsed() < Duration::from_mins(1),
            "not so after 60 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
