//! `upcie perf --verify` on devices that return the right data, and on devices that don't.

mod program;

use program::{Dir, Served, fails, perf, run_upcie as run, succeeds, upcie};
use serde_json::Value;
use std::{
    fs,
    io::Read,
    os::unix::fs::FileExt,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

#[test]
fn verify_accepts_a_good_device() {
    for (address, options) in [
        ("emu:size=8M,lba=512", "--rw randrw --block-size 512 --queues 2"),
        ("emu:size=8M,lba=4096", "--rw randwrite --block-size 64K --depth 4"),
        ("emu:size=8M", "--rw read --block-size 12K --wait irq"),
        ("emu:size=8M", "--rw write --offset 512 --size 4M"),
        ("emu:size=8M", "--rw rw --mix 50 --queues 2 --fua"),
    ] {
        let report = perf(&format!("{address} {options} --verify --count 5000"));
        assert_eq!((&report["errors"], &report["ios"]), (&0.into(), &5000.into()), "{options}");
    }
}

#[test]
fn cpu_time_covers_the_measured_part() {
    let report = perf("emu --verify --rw write --size 256K --time 500ms --wait poll");
    // Polling uses the whole measured time; the pass that reads 64 I/Os back takes nearly none.
    let cpu = report["threads"][0]["cpu_ns"].as_u64().unwrap();
    assert!(cpu > 10_000_000, "{cpu} ns of 500 ms");
}

#[test]
fn verify_notices_that_data_was_not_moved() {
    let dir = Dir::made("notmoved");
    let served = Served::new(&dir, "size=8M,null=true");
    let output = run(&format!("perf {} --verify --destructive --count 500 --json", served.1));
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["mismatches"].as_u64() > Some(0));
    assert_eq!(report["errors"], report["mismatches"]);
}

#[test]
fn verify_notices_a_change_by_another_program() {
    let dir = Dir::made("behind");
    let disk = dir.path("disk");
    let mut child = upcie(&format!("perf emu:file={disk},size=1M --verify --destructive --depth 4 --time 3"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The disk holds data once the first pass has written the range.
    let start = Instant::now();
    let written = |disk: &str| {
        fs::read(disk)
            .is_ok_and(|data| data.len() == 1 << 20 && data[(1 << 20) - 512..].iter().any(|&byte| byte != 0))
    };
    while !written(&disk) && start.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(10));
    }
    let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(b"X", 300_000).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{text}");
    assert!(text.contains("block 585: differs from the last write (version 1) from byte 480 on"), "{text}");
}

/// All commands that overwrite data follow one rule.
#[test]
fn data_is_overwritten_only_with_consent() {
    let dir = Dir::made("consent");
    let disk = dir.path("disk");
    let before: Vec<u8> = (0..1_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&disk, &before).unwrap();
    let source = dir.path("source");
    fs::write(&source, [0; 4096]).unwrap();
    for (command, rest) in [
        ("perf", "--verify --count 10"),
        ("perf", "--rw write --count 10"),
        ("perf", "--rw randrw --count 10"),
        ("perf", "--rw randtrim --count 10"),
        ("write", &source),
    ] {
        let error = fails(1, run(&format!("{command} emu:file={disk} {rest}")));
        assert!(error.contains("--destructive") && error.contains("1 MiB"), "{command} {rest}: {error}");
    }
    assert_eq!(fs::read(&disk).unwrap(), before);
    // A missing file is not created either.
    let absent = dir.path("absent");
    let error = fails(1, run(&format!("write emu:file={absent},size=1M {source}")));
    assert!(error.contains("--destructive"), "{error}");
    assert!(!fs::exists(&absent).unwrap());
    // Memory of the process itself needs no consent.
    succeeds(run(&format!("write emu:size=1M {source}")));
}

/// The error names the content of the device.
#[test]
fn a_refusal_names_the_file_system() {
    let dir = Dir::made("signature");
    let disk = dir.path("disk");
    for (at, mark, name) in [
        (512, &b"EFI PART"[..], "a GPT partition table"),
        (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
        ((2 << 20) - 512, b"EFI PART", "the backup of a GPT"),
    ] {
        let mut image = vec![0; 2 << 20];
        image[at..at + mark.len()].copy_from_slice(mark);
        fs::write(&disk, &image).unwrap();
        let error = fails(1, run(&format!("perf emu:file={disk} --rw trim --count 1")));
        assert!(error.contains(name) && error.contains("--destructive"), "{error}");
        assert!(fs::read(&disk).unwrap() == image);
    }
}

#[test]
fn verify_covers_the_parts_of_all_threads_and_devices() {
    let report = perf(
        "emu:size=4M emu:size=8M,lba=4096 --rw randrw --verify --threads 2 --queues 2 --depth 8 --count 8000 --warmup \
         50ms",
    );
    assert_eq!((&report["errors"], &report["ios"]), (&0.into(), &8000.into()));
    let dir = Dir::made("liar");
    let served = Served::new(&dir, "size=4M,null=true");
    let command =
        format!("perf emu:size=4M {} --rw randrw --verify --destructive --count 2000 --json", served.1);
    let output = upcie(&command).output();
    let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(report["devices"][0]["errors"], 0);
    assert!(
        report["devices"][1]["mismatches"].as_u64() > Some(0),
        "the errors belong to the device that moves no data"
    );
}
