//! C programs over the library: the examples, and the tests in C. Each is compiled as a user would, with all warnings
//! as errors, and run on the controller in software.

mod common;

use common::{compile, on_each_device, run, run_checked};
use std::{fs, path::Path};

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
    let program = compile("tests/c/memory.c", &["-pthread"]);
    let plan = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slow-directives.toml");
    let rule = "[[fault]]\nkind = \"delay\"\ntime = \"300ms\"\nqueue = \"admin\"\nopcode = 0x1a\n";
    fs::write(&plan, rule).expect("writing a plan of faults");
    let slow = format!("emu:size=1M,serial=SLOW,faults={}", plan.display());
    on_each_device("size=16M", |address| {
        assert!(run(&program, &[address, &slow]).contains("memory: ok"));
    });
}

#[test]
fn commands_of_any_shape_move_their_data() {
    let program = compile("tests/c/transfers.c", &[]);
    on_each_device("size=16M", |address| {
        assert!(run(&program, &[address]).contains("transfers: ok"));
    });
}

#[test]
fn functions_are_listed() {
    let program = compile("tests/c/functions.c", &[]);
    assert!(run(&program, &[]).contains("functions: ok"));
}

#[test]
fn command_sets_work_through_the_c_calls() {
    let program = compile("tests/c/command_sets.c", &[]);
    let parts = [
        ("metadata", "size=4M,ms=8,pi=1"),
        ("zones", "size=1M,zoned=true,zone-size=64K"),
        ("keys", "size=1M,kv=true"),
        ("reservations", "size=1M"),
        ("placement", "size=1M,fdp=true,fdp-unit=64K"),
        ("fused", "size=1M"),
    ];
    for (part, options) in parts {
        on_each_device(options, |address| {
            assert!(run(&program, &[part, address]).contains(&format!("{part}: ok")));
        });
    }
}

#[test]
fn io_calls_allocate_no_memory() {
    let program = compile("tests/c/no_allocation.c", &[]);
    assert!(run(&program, &["emu:size=16M"]).contains("no allocation: ok"));
}

#[test]
fn memcheck_finds_nothing() {
    for name in ["examples/batch.c", "tests/c/transfers.c", "tests/c/memory.c", "tests/c/bad_input.c"] {
        let program = compile(name, &["-pthread"]);
        run_checked(&program, &["emu:size=16M"]);
    }
    let program = compile("tests/c/command_sets.c", &[]);
    run_checked(&program, &["metadata", "emu:size=4M,ms=8,pi=1"]);
}
