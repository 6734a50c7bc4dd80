//! C programs over libupcie drive QEMU's controllers through VFIO, by type 1 and by iommufd: the examples, and the contract
//! programs of xNVMe's backend.
//!
//! `cargo xtask test` compiles them, and puts them beside the tools.

mod c_program;

use c_program::run;
use std::env;
use upcie_core::memory::PageSize;
use upcie_tests::bent::Bent;

/// The ways of VFIO, and the choice between them.
const SCHEMES: [&str; 3] = ["vfio:", "iommufd:", ""];

/// Returns the addresses of both controllers by each way: first the one with two namespaces.
fn controllers() -> [[String; 2]; 3] {
    let functions = env::var("UPCIE_TEST_DEVICES").expect("UPCIE_TEST_DEVICES is set");
    let (one, two) = functions.split_once(',').expect("two functions");
    SCHEMES.map(|scheme| [two, one].map(|function| format!("{scheme}{function}")))
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
fn functions_are_listed() {
    let functions = env::var("UPCIE_TEST_DEVICES").expect("UPCIE_TEST_DEVICES is set");
    let functions: Vec<_> = functions.split(',').collect();
    run("c-functions", &functions, "functions: ok");
}

/// A server that does not survive the loss of huge pages refuses them: the heap has small ones then.
#[test]
fn refused_huge_pages_give_way_to_small_ones() {
    let free = PageSize::Huge2M.available().map_or(0, |(free, _)| free);
    assert!(free > 16, "{free} huge pages are free, so that the heap takes some");
    let server = Bent::start("size=16M");
    let address = server.address().to_string();
    run("c-hello", &[&address], "hello, controller");
    run("c-batch", &[&address, "500"], "500 reads, 0 failed");
}

#[test]
fn huge_pages_are_memory_of_a_heap() {
    for [address, _] in controllers() {
        run("c-huge-pages", &[&address], "2097152 huge pages: ok");
    }
}

#[test]
fn the_backend_keeps_the_contract() {
    for [first, other] in controllers() {
        // Another controller, and one that shares no address space with the first.
        for other in [&*other, "emu:size=16M"] {
            run("c-contract", &[&first, other, "512"], "contract: ok");
            run("c-devices", &[&first, other, "512"], "devices: ok");
        }
    }
}
