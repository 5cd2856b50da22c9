//! Where `make tools` put the programs, and what happens when it did not.

use std::path::{Path, PathBuf};

/// The Kubernetes of this run.
pub fn version() -> String {
    std::env::var("BELLHOP_KUBERNETES").unwrap_or_else(|_| "1.35".into())
}

/// A program of target/tools/bin; none, with a word, where it is not installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/tools/bin")
        .join(name);
    if program.is_file() {
        return Some(program);
    }
    let why = format!("skipped: no {} here; run `make tools`", program.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    crate::skip::tell(&why);
    None
}

/// A program of the chosen Kubernetes.
pub fn kubernetes(name: &str) -> Option<PathBuf> {
    find(&format!("kubernetes-{}/{name}", version()))
}
