//! Each example of the driver runs to its end over each device. (In the guest the lab runs them.)

use std::process::Command;
use upcie_tests::{
    on_each_device,
    process::{Process, programs},
};

fn run(name: &str) {
    let program = programs().join("examples").join(name);
    assert!(
        program.is_file(),
        "{} does not exist: `cargo build --package upcie-nvme --examples` makes it",
        program.display()
    );
    on_each_device(|device| {
        let mut command = Command::new(&program);
        command.arg(device.address().to_string());
        let (status, said) = Process::start(command).finish();
        assert!(status.success(), "{name} {}: {status}: {said}", device.address());
    });
}

#[test]
fn hello() {
    run("hello");
}

#[test]
fn batch() {
    run("batch");
}

#[test]
fn interrupts() {
    run("interrupts");
}

#[test]
fn recover() {
    run("recover");
}

#[test]
fn threads() {
    run("threads");
}

#[test]
fn shared_memory() {
    run("shared_memory");
}

#[test]
fn append_log() {
    run("append_log");
}

#[test]
fn threaded_reader() {
    run("threaded_reader");
}

#[test]
fn tokio_service() {
    run("tokio_service");
}

/// The embedded controller loses a read, whose time is up then.
#[test]
fn async_service() {
    run("async_service");
    let mut command = Command::new(programs().join("examples/async_service"));
    command.arg("emu:size=16M");
    let mut process = Process::start(command);
    let line = process.wait_for("blocks read back as written").unwrap();
    assert!(!line.ends_with(", 0 too late"), "{line}");
    let (status, said) = process.finish();
    assert!(status.success(), "async_service: {status}: {said}");
}

#[test]
fn async_handles() {
    run("async_handles");
}

/// On the devices under test it finds no zones; its own controller has some.
#[test]
fn zones() {
    run("zones");
    let program = programs().join("examples/zones");
    let (status, said) = Process::start(Command::new(&program)).finish();
    assert!(status.success(), "zones: {status}: {said}");
}

/// On the devices under test it finds no keys; its own controller has some.
#[test]
fn key_value() {
    run("key_value");
    let program = programs().join("examples/key_value");
    let (status, said) = Process::start(Command::new(&program)).finish();
    assert!(status.success(), "key_value: {status}: {said}");
}

#[test]
fn async_copy() {
    run("async_copy");
}
