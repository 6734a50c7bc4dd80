//! Support code of the suites over programs in C, which `cargo xtask test` has compiled and put beside the tools.

use std::process::Command;
use upcie_tests::process::{Process, programs};

/// Runs a program, which must print `words`, and succeed.
pub fn run(program: &str, arguments: &[&str], words: &str) {
    let mut command = Command::new(programs().join(program));
    command.args(arguments);
    let mut process = Process::start(command);
    process.wait_for(words).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    let (status, errors) = process.finish();
    assert!(status.success(), "{program} {arguments:?}: {status} {errors}");
}
