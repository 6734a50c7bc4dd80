//! C programs over libupcie drive QEMU's controllers through VFIO, by type 1 and by iommufd: the examples, and the contract
//! program of xNVMe's backend.
//!
//! `cargo xtask test` compiles them, and puts them beside the tools.

use std::{env, process::Command};
use upcie_tests::process::{Process, programs};

/// The ways of VFIO.
const SCHEMES: [&str; 2] = ["vfio:", "iommufd:"];

/// Returns the addresses of both controllers by each way: first the one with two namespaces.
fn controllers() -> [[String; 2]; 2] {
    let functions = env::var("UPCIE_TEST_DEVICES").expect("UPCIE_TEST_DEVICES is set");
    let (one, two) = functions.split_once(',').expect("two functions");
    SCHEMES.map(|scheme| [two, one].map(|function| format!("{scheme}{function}")))
}

/// Runs a program, which must print `words`, and succeed.
fn run(program: &str, arguments: &[&str], words: &str) {
    let mut command = Command::new(programs().join(program));
    command.args(arguments);
    let mut process = Process::start(command);
    process.wait_for(words).unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    let (status, errors) = process.finish();
    assert!(status.success(), "{program} {arguments:?}: {status} {errors}");
}

#[test]
fn examples_run() {
    for address in controllers().concat() {
        run("c-hello", &[&address], "hello, controller");
        run("c-batch", &[&address, "500"], "500 reads, 0 failed");
        run("c-event-loop", &[&address], "64 flushes, 0 failed");
    }
}

#[test]
fn the_backend_keeps_the_contract() {
    for [first, other] in controllers() {
        run("c-contract", &[&first, &other, "512"], "contract: ok");
        // Another controller that shares no address space with the first.
        run("c-contract", &[&first, "emu:size=16M", "512"], "contract: ok");
    }
}
