//! Ctrl-C while `upcie` waits for something that does not come: it ends, and says what was done.

mod program;

use nix::{sys::signal::Signal, unistd::Pid};
use program::{Dir, Served, complains, run_upcie, succeeds, upcie};
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

/// Secondary controllers of a server are on as long as the tool runs.
#[test]
fn virtual_functions_are_on_until_the_tool_ends() {
    let dir = Dir::made("signals-functions");
    let sockets = ["first", "second"].map(|name| dir.path(name));
    let [first, second] = sockets.each_ref().map(String::as_str);
    let more = ["--socket", first, "--socket", second, "--vfs", "2", "--no-populate"];
    let Served(_server, address) = Served::with(&dir, "size=1M", &more);
    let virt = format!("virt {address} provide --queues 3 --interrupts 2");
    let error = complains(1, run_upcie(&virt));
    assert!(error.contains("--destructive"), "{error}");
    let error = complains(1, run_upcie(&format!("{virt} --destructive --functions 3")));
    assert!(error.contains("has 2 secondary controllers"), "{error}");
    let mut command = upcie(&format!("{virt} --destructive --functions 2"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    for (number, socket) in [(1, first), (2, second)] {
        let (line, has) = (lines.next().unwrap(), "3 queue pairs and 2 interrupt vectors");
        assert!(line.contains(&format!("virtual function {number}:")) && line.contains(has), "{line}");
        succeeds(run_upcie(&format!("info vfio-user:{socket}")));
    }
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let error = complains(1, run_upcie(&format!("info vfio-user:{first}")));
    assert!(error.contains("not online"), "{error}");
    let error = complains(1, run_upcie("virt emu:size=1M,vfs=1 provide"));
    assert!(error.contains("nvme-emu --vfs N"), "{error}");
}

/// The image was committed, with exit code 0.
#[test]
fn a_download_that_is_interrupted_is_not_committed() {
    let dir = Dir::made("signals-fw");
    let (image, plan) = (dir.path("image"), dir.path("plan.toml"));
    fs::write(&image, [&b"6.6\0"[..], &[0; 4 << 20]].concat()).unwrap();
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
