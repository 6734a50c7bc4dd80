//! `upcie read` and `upcie write` on blocks with metadata and protection information.

mod program;

use program::{Dir, fails, run_upcie as run, succeeds};
use std::fs;

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ seed).collect()
}

/// A medium that outlives a run, and files for its blocks.
struct Disk {
    dir: Dir,
    emu: String,
}

impl Disk {
    fn new(name: &str, options: &str) -> Self {
        let dir = Dir::made(name);
        let emu = format!("emu:file={},size=1M,{options}", dir.path("disk"));
        Self { dir, emu }
    }

    /// Makes one that only refuses, which needs no file.
    fn unwritten(name: &str, options: &str) -> Self {
        Self { dir: Dir::made(name), emu: format!("emu:size=1M,{options}") }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path(name)
    }

    /// Makes a file.
    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn write(&self, arguments: &str) -> Vec<u8> {
        succeeds(run(&format!("write {} {arguments} --destructive", self.emu)))
    }

    fn read(&self, arguments: &str) -> Vec<u8> {
        succeeds(run(&format!("read {} {arguments}", self.emu)))
    }

    fn refuses(&self, arguments: &str, parts: &[&str]) {
        let mut words = arguments.splitn(2, ' ');
        let (verb, rest) = (words.next().unwrap(), words.next().unwrap_or_default());
        let consent = if verb == "write" { "--destructive" } else { "" };
        let error = fails(1, run(&format!("{verb} {} {rest} {consent}", self.emu)));
        for part in parts {
            assert!(error.contains(part), "{arguments}: {part:?} is not in: {error}");
        }
    }
}

#[test]
fn metadata_has_a_file_of_its_own() {
    for options in ["ms=8", "ms=16,extended=true", "lba=4096,ms=64", "lba=4096,ms=64,extended=true,mdts=16K"]
    {
        let disk = Disk::new("apart", options);
        let block = if options.contains("4096") { 4096 } else { 512 };
        let size: usize = options.split("ms=").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        let count = 40;
        let (data, metadata) = (bytes(count * block, 1), bytes(count * size, 2));
        let (from, with) = (disk.file("data", &data), disk.file("metadata", &metadata));
        let place = format!("--offset {}", 3 * block);
        disk.write(&format!("{from} --metadata {with} {place} --verify"));
        let (copy, more) = (disk.path("copy"), disk.path("more"));
        let part = format!("--offset {} --length {}", 5 * block, 30 * block);
        disk.read(&format!("{copy} -M {more} {part}"));
        assert!(fs::read(&copy).unwrap() == data[2 * block..32 * block], "{options}");
        assert!(fs::read(&more).unwrap() == metadata[2 * size..32 * size], "{options}");
        // One of both to stdout.
        assert!(disk.read(&format!("{copy} -M - {part}")) == metadata[2 * size..32 * size], "{options}");
        if options.contains("extended") {
            let whole = disk.read(&format!("--length {} --offset {}", block + size, 3 * (block + size)));
            assert!(whole[..block] == data[..block] && whole[block..] == metadata[..size], "{options}");
        }
        // Too little or too much metadata is refused before anything is written.
        for len in [count * size - 1, count * size + size, 0] {
            let short = disk.file("short", &vec![9; len]);
            disk.refuses(
                &format!("write {from} --metadata {short} {place}"),
                &["nothing was written", &format!("has {len} bytes")],
            );
        }
        assert!(disk.read(&format!("{copy} -M - {part}")) == metadata[2 * size..32 * size], "{options}");
    }
}

#[test]
fn protection_is_made_and_checked_by_nvme_cli_s_names() {
    for options in ["ms=8,pi=1", "ms=8,pi=2,extended=true", "lba=4096,ms=8,pi=1,extended=true"] {
        let disk = Disk::new("protected", options);
        let block = if options.contains("4096") { 4096 } else { 512 };
        let data = bytes(16 * block, 3);
        let (from, copy, more) = (disk.file("data", &data), disk.path("copy"), disk.path("more"));
        disk.write(&format!("{from} --prinfo 8 --app-tag 0x4321 --verify"));
        let part = format!("--length {}", 16 * block);
        disk.read(&format!("{copy} {part} --prinfo 15 --app-tag 4321h"));
        assert!(fs::read(&copy).unwrap() == data, "{options}");
        // The protection information itself: 2 bytes of guard, the application tag, the reference tag.
        disk.read(&format!("{copy} {part} --metadata {more} --prinfo 7 --app-tag 0x4321"));
        assert!(fs::read(&copy).unwrap() == data, "{options}");
        let stored = fs::read(&more).unwrap();
        for (number, field) in (0_u32..).zip(stored.chunks(8)) {
            assert_eq!(field[2..4], [0x43, 0x21], "{options}: block {number}");
            assert_eq!(field[4..], number.to_be_bytes(), "{options}: block {number}");
        }
        disk.refuses(
            &format!("read {copy} {part} --prinfo 10 --app-tag 0x4322"),
            &["reading at block 0", "Application Tag Check Error"],
        );
        disk.read(&format!("{copy} {part} --prinfo 10 --app-tag 0x4322 --app-tag-mask 0xff00"));
        // What was read is written elsewhere with the checks of the controller: type 1 says where it belongs.
        let elsewhere = format!("--offset {} --metadata {more} --prinfo 7 --app-tag 0x4321", 64 * block);
        if options.contains("pi=1") {
            let error = fails(1, run(&format!("write {} {from} {elsewhere} --destructive", disk.emu)));
            assert!(error.contains("Reference Tag Check Error"), "{options}: {error}");
            continue;
        }
        disk.write(&format!("{from} {elsewhere} --ref-tag 0 --verify"));
        let part = format!("--offset {} --length {}", 66 * block, 8 * block);
        disk.read(&format!("{copy} {part} --prinfo 9 --ref-tag 2"));
        disk.refuses(&format!("read {copy} {part} --prinfo 9"), &["Reference Tag Check Error"]);
    }
}

#[test]
fn metadata_options_that_do_not_fit_are_refused() {
    let protected = Disk::unwritten("fit-pi", "ms=8,pi=3");
    let (data, copy) = (protected.file("data", &[1; 4096]), protected.path("copy"));
    protected.refuses(&format!("read {copy} --length 4K --prinfo 1"), &["type 3", "give 0"]);
    protected.refuses(
        &format!("read {copy} --length 4K --prinfo 8 --metadata {copy}.md"),
        &["--prinfo 8", "leave one of both out"],
    );
    protected.refuses(&format!("write {data} --prinfo 0"), &["512+8 bytes", "--metadata FILE"]);
    let error = fails(2, run(&format!("read {} {copy} --prinfo 16", protected.emu)));
    assert!(error.contains("from 0 to 15"), "{error}");

    let plain = Disk::unwritten("fit-plain", "lba=512");
    plain.refuses(&format!("read {copy} --length 4K --metadata {copy}.md"), &["--metadata", "have none"]);
    for option in ["--prinfo 8", "--app-tag 1", "--app-tag-mask 1", "--ref-tag 1"] {
        let name = option.split(' ').next().unwrap();
        plain.refuses(&format!("read {copy} --length 4K {option}"), &[name, "leave it out", "--protection"]);
    }
    let separate = Disk::unwritten("fit-apart", "ms=8");
    separate.refuses(&format!("read {copy} --length 4K"), &["--metadata FILE", "--extended-metadata"]);
    separate.refuses(&format!("read {copy} --length 4K --metadata {copy}"), &["the same file"]);
    separate.refuses("write - --metadata -", &["stdin can't be both"]);
    let partly = Disk::new("fit-partly", "lba=4096,ms=64,pi=1,extended=true");
    let blocks = partly.file("blocks", &[5; 4160]);
    partly.refuses(&format!("write {blocks} --prinfo 8 --verify"), &["--verify", "--metadata"]);
    partly.write(&format!("{blocks} --prinfo 8"));
    partly.read(&format!("{copy} --length 4160 --prinfo 7"));
    assert!(!fs::exists(format!("{copy}.md")).unwrap(), "a refusal has made a file");
}

/// `perf --prinfo` lets the controller check what it strips.
#[test]
fn perf_counts_reads_that_fail_a_check() {
    let disk = Disk::new("perf-prinfo", "ms=8,pi=1");
    let from = disk.file("data", &bytes(64 * 512, 3));
    // Reference tags that are not those of the blocks.
    disk.write(&format!("{from} --prinfo 8 --ref-tag 1000"));
    let perf = |prinfo: u32, code| {
        let limits = "--length 32K --block-size 512 --depth 4 --count 64 --rw read";
        let output = run(&format!("perf {} --prinfo {prinfo} {limits} --json", disk.emu));
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["parameters"]["prinfo"], prinfo);
        report
    };
    for checks in [8, 12, 14] {
        assert_eq!(perf(checks, 0)["errors"], 0);
    }
    let report = perf(9, 3);
    assert_eq!(report["errors"], 64);
    assert_eq!(report["errors_by_status"]["End-to-end Reference Tag Check Error"], 64, "{report}");
    for (options, prinfo, code, part) in [
        ("size=1M", 8, 1, "have no protection information"),
        ("ms=8,pi=1,extended=true", 8, 1, "apart from the data"),
        ("ms=8,pi=3", 9, 1, "give 8"),
        ("ms=8,pi=1", 7, 2, "--prinfo needs the 8"),
        ("ms=8,pi=1", 16, 2, "from 0 to 15"),
    ] {
        let error = fails(code, run(&format!("perf emu:{options} --prinfo {prinfo} --count 1")));
        assert!(error.contains(part), "{options}: {error}");
    }
}
