//! No client of ours goes through a proxy that the environment names: it would get the provider's
//! credentials and the sinks' headers. Oracle: tests that talk to servers of their own, run again
//! in a process whose environment names a proxy at which nobody listens.

use std::process::Command;

#[test]
fn proxies_of_the_environment_are_not_used() {
    let tests = [
        "provider::registry::requests_are_as_the_reference_has_them",
        "publish::http::the_request_is_a_cloudevent_in_binary_mode",
    ];
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("--exact").args(tests);
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        child.env(name, "http://127.0.0.1:1");
        child.env(name.to_uppercase(), "http://127.0.0.1:1");
        child.env_remove("no_proxy").env_remove("NO_PROXY");
    }
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("test result: ok. 2 passed"), "{told}");
}
