//! Where `make tools` put the programs, and what happens when it did not.

use std::io::Write as _;
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
    let next = if on_path("go") {
        "run `make tools`"
    } else {
        "install Go (https://go.dev/dl), then run `make tools`"
    };
    let why = format!("skipped: no {} here; {next}", program.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    // Past the test runner, which shows the output of a test that passes to nobody. The bench has
    // this file as well, and not what the tests share.
    let _ = writeln!(std::io::stderr(), "{why}");
    None
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A program of the chosen Kubernetes.
pub fn kubernetes(name: &str) -> Option<PathBuf> {
    find(&format!("kubernetes-{}/{name}", version()))
}
