//! The program under test as processes of its own, as a person starts it.

use std::process::Command;

use super::plane::free_port;
use super::supervise::Supervised;

/// A process of the program under test.
pub fn bellhop(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command.args(arguments);
    command
}

/// The simulated provider that knows the keys of the examples; its registry's address.
pub fn provider() -> (Supervised, String) {
    let listen = format!("127.0.0.1:{}", free_port());
    let keys = [
        "--api-key",
        "example-api-key-not-real",
        "--api-secret",
        "example-api-secret-not-real",
    ];
    let command = bellhop(&[&["simulate", "--listen", &listen], &keys[..]].concat());
    (
        start("simulate", &command),
        format!("http://{listen}/registry/v1"),
    )
}

/// Starts it in a folder of its own.
pub fn start(name: &str, command: &Command) -> Supervised {
    let folder = tempfile::Builder::new()
        .prefix("bellhop-")
        .tempdir()
        .unwrap();
    Supervised::start(&folder.keep(), name, command)
}
