//! Ctrl-C while `upcie` waits for something that does not come: it ends, and says what was done.

mod program;

use nix::{sys::signal::Signal, unistd::Pid};
use program::{Dir, complains, upcie};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

/// Sends Ctrl-C, and waits for the end.
fn interrupt(mut child: Child) -> Output {
    nix::sys::signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("the first signal does not end it: {:?}", child.wait_with_output());
        }
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap()
}

#[test]
fn a_write_ends_that_waits_for_its_input() {
    let mut command = upcie("write emu:size=64M");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds, so the copy has begun. The input stays open.
    input.write_all(&vec![7; 1 << 20]).unwrap();
    let error = complains(130, interrupt(child));
    assert!(error.contains("interrupted: ") && error.contains("were written from byte 0 on"), "{error}");
    drop(input);
}

#[test]
fn a_read_ends_whose_reader_takes_nothing() {
    let mut command = upcie("read emu:size=64M");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut [0; 4096]).unwrap();
    let error = complains(130, interrupt(child));
    assert!(error.contains("of 64 MiB were written to stdout"), "{error}");
    drop(output);
}

/// The image was committed, with exit code 0.
#[test]
fn a_download_that_is_interrupted_is_not_committed() {
    let dir = Dir::made("signals-fw");
    let (image, plan) = (dir.path("image"), dir.path("plan.toml"));
    fs::write(&image, [&b"6.6"[..], &[0; 4 << 20]].concat()).unwrap();
    fs::write(&plan, "[[fault]]\nkind = \"delay\"\ntime = \"200ms\"\nqueue = \"admin\"\nopcode = 0x11\n")
        .unwrap();
    let arguments = format!("--log=trace fw download emu:size=1M,faults={plan} {image} --slot 2");
    let mut child = upcie(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("Firmware Image Download")), "the download has begun");
    let output = interrupt(child);
    let said: Vec<String> = said.collect();
    assert_eq!(output.status.code(), Some(130), "{said:?}");
    assert!(said.iter().any(|line| line.contains("nothing was committed")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("Firmware Commit")), "{said:?}");
}
