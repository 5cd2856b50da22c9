//! Tests that need a foreign program.
//!
//! Never here: a test that is left out in silence, or at all where CI=true.

/// Says that a test is left out for want of `what`, and fails where CI=true.
pub fn without(what: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "CI=true, and {what}");
    println!("skipped: {what}");
}
