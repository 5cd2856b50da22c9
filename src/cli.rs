//! The command line: parse, assemble, run.

use std::process::ExitCode;

/// Runs the program and says how it ended: 0 fine, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
