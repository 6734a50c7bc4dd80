//! C programs over the library: the examples, and the tests in C. Each is compiled as a user would, with all warnings as
//! errors, and run on the controller in software.

mod common;

use common::{compile, run};

const ADDRESSES: [&str; 2] = ["emu:size=16M", "emu:size=16M,lba=4096,mdts=64K"];

#[test]
fn examples_run() {
    for (name, expected) in [
        ("hello", "hello, controller"),
        ("batch", " reads, 0 failed"),
        ("event_loop", "64 flushes, 0 failed"),
    ] {
        let program = compile(&format!("examples/{name}.c"), &[]);
        for address in ADDRESSES {
            let printed = run(&program, &[address]);
            assert!(printed.contains(expected), "{name} {address}: {printed}");
        }
    }
}

#[test]
fn bad_input_is_one_error_each() {
    let program = compile("tests/c/bad_input.c", &["-pthread"]);
    assert!(run(&program, &["emu:size=16M"]).contains("bad input: ok"));
}

#[test]
fn data_reaches_every_controller_of_a_heap() {
    let program = compile("tests/c/transfers.c", &[]);
    assert!(run(&program, &["emu:size=16M"]).contains("transfers: ok"));
}
