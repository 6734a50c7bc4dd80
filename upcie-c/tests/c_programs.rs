//! C programs over the library: the examples, and the tests in C. Each is compiled as a user would, with all warnings
//! as errors, and run on the controller in software.

mod common;

use common::{compile, on_each_device, run, run_checked};

#[test]
fn examples_run() {
    let expected = [
        ("hello", "hello, controller"),
        ("batch", " reads, 0 failed"),
        ("event_loop", "64 flushes, 0 failed"),
    ];
    for (name, expected) in expected {
        let program = compile(&format!("examples/{name}.c"), &[]);
        for options in ["size=16M", "size=16M,lba=4096,mdts=64K"] {
            on_each_device(options, |address| {
                let printed = run(&program, &[address]);
                assert!(printed.contains(expected), "{name} {address}: {printed}");
            });
        }
    }
}

#[test]
fn bad_input_is_one_error_each() {
    let program = compile("tests/c/bad_input.c", &["-pthread"]);
    on_each_device("size=16M", |address| {
        assert!(run(&program, &[address]).contains("bad input: ok"));
    });
}

#[test]
fn data_reaches_every_controller_of_a_heap() {
    let program = compile("tests/c/transfers.c", &[]);
    on_each_device("size=16M", |address| {
        assert!(run(&program, &[address]).contains("transfers: ok"));
    });
}

#[test]
fn io_calls_allocate_no_memory() {
    let program = compile("tests/c/no_allocation.c", &[]);
    assert!(run(&program, &["emu:size=16M"]).contains("no allocation: ok"));
}

#[test]
fn memcheck_finds_nothing() {
    for name in ["examples/batch.c", "tests/c/transfers.c"] {
        let program = compile(name, &[]);
        run_checked(&program, &["emu:size=16M"]);
    }
}
