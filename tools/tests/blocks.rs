//! `upcie flush`, `dsm`, `compare`, `verify`, `write-zeroes`, `write-uncor` and `copy`; `read` and `write` by blocks.

mod program;

use program::{Dir, Served, fails, run_upcie as run, succeeds, upcie};
use serde_json::Value;
use std::{
    fs,
    ops::Range,
    process::{Output, Stdio},
};

/// Bytes of a block.
const BLOCK: usize = 512;

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

/// Returns what a verb prints that has found something wrong, and says so by its exit code.
#[track_caller]
fn finds(output: Output) -> String {
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn refuses(arguments: &str, parts: &[&str]) {
    let error = fails(1, run(arguments));
    for part in parts {
        assert!(error.contains(part), "{arguments}: {part:?} is not in: {error}");
    }
}

/// A medium of 2048 blocks, none like its neighbours, in a file.
struct Disk {
    dir: Dir,
    emu: String,
    before: Vec<u8>,
}

impl Disk {
    fn new(name: &str) -> Self {
        let dir = Dir::made(name);
        let before: Vec<u8> = (0..2048_u32).flat_map(|block| [(block % 251 + 1) as u8; BLOCK]).collect();
        fs::write(dir.path("disk"), &before).unwrap();
        let emu = format!("emu:file={}", dir.path("disk"));
        Self { dir, emu, before }
    }

    /// Returns the bytes of blocks as they were.
    fn before(&self, blocks: Range<usize>) -> &[u8] {
        &self.before[blocks.start * BLOCK..blocks.end * BLOCK]
    }

    /// Checks that these blocks have these bytes now, and all others have what they had.
    #[track_caller]
    fn has(&self, changed: &[(Range<usize>, Vec<u8>)]) {
        let mut expected = self.before.clone();
        for (blocks, bytes) in changed {
            expected[blocks.start * BLOCK..blocks.end * BLOCK].copy_from_slice(bytes);
        }
        let now = fs::read(self.dir.path("disk")).unwrap();
        let differs = |block: &usize| {
            let bytes = block * BLOCK..(block + 1) * BLOCK;
            now.get(bytes.clone()) != expected.get(bytes)
        };
        let wrong: Vec<_> = (0..2048).filter(differs).collect();
        assert!(wrong.is_empty() && now.len() == expected.len(), "blocks {wrong:?}");
    }

    /// Makes a file of blocks as they were.
    fn file(&self, name: &str, blocks: Range<usize>) -> String {
        let path = self.dir.path(name);
        fs::write(&path, self.before(blocks)).unwrap();
        path
    }
}

fn zeros(blocks: Range<usize>) -> (Range<usize>, Vec<u8>) {
    let bytes = vec![0; blocks.len() * BLOCK];
    (blocks, bytes)
}

#[test]
fn all_active_namespaces_are_flushed() {
    assert!(text("flush emu").contains("flushed namespace 1"));
    let done = json("flush emu:namespaces=2");
    assert_eq!(done["namespaces"], serde_json::json!([1, 2]));
    assert_eq!(json("flush emu:namespaces=2 --namespace 2")["namespaces"], serde_json::json!([2]));
    assert!(text("flush emu:kv=true -n all").contains("flushed namespace 1"));
    refuses("flush emu --namespace 9", &["no namespace 9", "[1]"]);
}

#[test]
fn a_namespace_that_is_not_flushed_keeps_no_other_from_it() {
    let dir = Dir::made("flush");
    let plan = dir.path("plan.toml");
    let fault =
        "[[fault]]\nkind = \"status\"\nstatus = 0x281\ndnr = true\nopcode = \"flush\"\nnamespace = 1\n";
    fs::write(&plan, fault).unwrap();
    let emu = format!("emu:namespaces=2,faults={plan}");
    refuses(&format!("flush {emu}"), &["Flush (00h) of namespace 1", "; flushed namespace 2"]);
    refuses(&format!("flush {emu} --namespace 1"), &["Flush (00h) of namespace 1", "; nothing was flushed"]);
}

#[test]
fn ranges_are_deallocated_with_consent() {
    let disk = Disk::new("dsm");
    let emu = &disk.emu;
    let ranges = "--ranges 0+8,64+8 --deallocate";
    refuses(
        &format!("dsm {emu} {ranges}"),
        &["dsm deallocates blocks of namespace 1 of 1 MiB", "--destructive"],
    );
    // Hints cost nothing.
    assert!(text(&format!("dsm {emu} --ranges 0+8 --idr --idw --ctx-attrs 1")).contains("hints"));
    disk.has(&[]);
    let done = json(&format!("dsm {emu} {ranges} --destructive"));
    assert_eq!((&done["blocks"], &done["ranges"]), (&16.into(), &2.into()));
    text(&format!("dsm {emu} --slbs 16,0x20 --blocks 2,1 --ad --idr --destructive"));
    disk.has(&[zeros(0..8), zeros(64..72), zeros(16..18), zeros(32..33)]);
    refuses("dsm emu:size=1M --ranges 0+8,2040+9 --ad", &["LBA Out of Range"]);
    refuses("dsm emu --ranges 0+8", &["--deallocate", "--idr"]);
    refuses("dsm emu --slbs 0,8 --blocks 8 --ad", &["2 first blocks", "one number for each"]);
    refuses("dsm emu --ranges 0+8 --ad --ctx-attrs 1,2", &["2 attributes", "1 ranges"]);
    for (arguments, part) in
        [("--ad", "--ranges"), ("--ranges 8 --ad", "64+8"), ("--slbs 8 --ad", "--blocks")]
    {
        let error = fails(2, run(&format!("dsm emu {arguments}")));
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn blocks_are_compared_with_a_file() {
    let disk = Disk::new("compare");
    let (emu, same) = (&disk.emu, disk.file("same", 8..12));
    let said = text(&format!("compare {emu} --lba 8 --data {same}"));
    assert!(said.contains("4 blocks from block 8 on of namespace 1 have the bytes of"), "{said}");
    assert_eq!(json(&format!("compare {emu} -s 8 -c 1 -z 1024 -d {same}"))["blocks"], 2);
    let piped = upcie(&format!("compare {emu} --lba 8 --blocks 4"))
        .stdin(Stdio::from(fs::File::open(&same).unwrap()))
        .output()
        .unwrap();
    succeeds(piped);
    let found = finds(run(&format!("compare {emu} --lba 9 --data {same} --json")));
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((&found["equal"], &found["slba"], &found["blocks"]), (&false.into(), &9.into(), &4.into()));
    disk.has(&[]);
    refuses(&format!("compare {emu} --lba 2045 --data {same}"), &["Compare", "beyond the end"]);
    refuses(&format!("compare {emu} --blocks 5 --data {same}"), &["2048 bytes, less than 2560"]);
    refuses(&format!("compare {emu} --data-size 100 --data {same}"), &["not a positive multiple"]);
    let whole = disk.dir.path("disk");
    refuses(
        &format!("compare emu:size=2M,mdts=64K --data {whole}"),
        &["1 MiB", "64 KiB at most", "in parts"],
    );
}

#[test]
fn unreadable_blocks_do_not_pass_a_verify() {
    let dir = Dir::made("verify");
    let served = Served::new(&dir, "size=1M");
    let emu = &served.1;
    let verify = format!("verify {emu} --lba 8 --blocks 8");
    assert!(text(&verify).contains("8 blocks from block 8 on of namespace 1 were verified"));
    refuses(
        &format!("write-uncor {emu} --lba 10"),
        &["write-uncor makes blocks unreadable of namespace 1", "--destructive"],
    );
    let done = json(&format!("write-uncor {emu} --start-block 10 --block-count 1 --destructive"));
    assert_eq!((&done["slba"], &done["blocks"]), (&10.into(), &2.into()));
    let found: Value = serde_json::from_str(&finds(run(&format!("{verify} --json")))).unwrap();
    assert_eq!(found["verified"], false);
    assert!(found["error"].as_str().unwrap().contains("Unrecovered Read Error"), "{found}");
    assert!(finds(run(&verify)).contains("did not pass"));
    text(&format!("verify {emu} --lba 12"));
    refuses(&format!("read {emu} {} --lba 11 --blocks 1", dir.path("block")), &["Unrecovered Read Error"]);
    text(&format!("write-zeroes {emu} --lba 10 --blocks 2 --destructive"));
    assert_eq!(json(&verify)["verified"], true);
    refuses(&format!("verify {emu} --lba 2047 --blocks 2"), &["Verify", "beyond the end"]);
    refuses(
        &format!("write-uncor {emu} --lba 2048 --destructive"),
        &["Write Uncorrectable", "beyond the end"],
    );
    refuses(&format!("verify {emu} --prinfo 5"), &["--prinfo is for protection information"]);
}

#[test]
fn protection_information_is_checked_and_made() {
    let disk = Disk::new("protected");
    let served = Served::new(&disk.dir, "size=1M,ms=8,pi=1");
    let (emu, data) = (&served.1, disk.file("data", 0..8));
    succeeds(run(&format!("write {emu} {data} --destructive")));
    text(&format!("verify {emu} --blocks 8 --prinfo 7"));
    let found = finds(run(&format!("verify {emu} --blocks 8 --prinfo 2 --app-tag 5")));
    assert!(found.contains("Application Tag Check Error"), "{found}");
    // The reference tags of the new place are made anew.
    text(&format!("copy {emu} --ranges 0+8 --to 512 --prinfor 5 --prinfow 8 --destructive"));
    text(&format!("verify {emu} --lba 512 --blocks 8 --prinfo 7"));
    // One action for both: it was left out of the source's bits without a word.
    refuses(
        &format!("copy {emu} --ranges 0+8 --to 1024 --prinfor 13 --destructive"),
        &["--prinfor 13", "--prinfow 8", "--prinfor 5"],
    );
    text(&format!("write-zeroes {emu} --lba 512 --blocks 8 --prinfo 8 --app-tag 5 --destructive"));
    text(&format!("verify {emu} --lba 512 --blocks 8 --prinfo 7 --app-tag 5"));
    for verb in ["write-zeroes emu --prinfo 8", "copy emu --ranges 0+1 --to 8 --prinfow 8"] {
        refuses(verb, &["protection information", "upcie format"]);
    }
}

#[test]
fn a_copy_checks_the_tags_of_each_range() {
    let disk = Disk::new("tags");
    let served = Served::new(&disk.dir, "size=1M,ms=8,pi=2");
    let (emu, data) = (&served.1, disk.file("data", 0..8));
    succeeds(run(&format!("write {emu} {data} --prinfo 8 --app-tag 0x1201 --ref-tag 1000 --destructive")));
    let copy = format!("copy {emu} --ranges 0+4,6+2 --to 512 --prinfow 8 --destructive");
    let (tags, app_tags) = ("--expected-ref-tags 1000,1006", "--expected-app-tags 0x1201,0x1201");
    text(&format!("{copy} --prinfor 7 {tags} {app_tags} --app-tag 9 --ref-tag 50"));
    text(&format!("verify {emu} --lba 512 --blocks 6 --prinfo 7 --app-tag 9 --ref-tag 50"));
    // Each range has its own, and only the checks that are asked for count.
    for (options, part) in [
        ("--prinfor 1 -R 1000,1004", "Reference Tag Check Error"),
        ("--prinfor 1", "Reference Tag Check Error"),
        ("--prinfor 2 -A 0x1201,0x1202", "Application Tag Check Error"),
        ("--prinfor 2 -A 0x1201,0x1202 -M 0xffff,0xffff", "Application Tag Check Error"),
        ("--prinfor 2", "Application Tag Check Error"),
    ] {
        refuses(&format!("{copy} {options}"), &["Copy", part]);
    }
    text(&format!("{copy} --prinfor 2 -A 0x1201,0x1202 --expected-app-tag-masks 0xffff,0xff00"));
    text(&format!("{copy} --prinfor 4 -A 1,2 -R 3,4"));
    for (options, parts) in [
        (tags.replace(",1006", ""), ["--expected-ref-tags has 1 value", "the copy 2 ranges"]),
        (format!("{app_tags},1"), ["--expected-app-tags has 3 values", "one for each range"]),
        ("-M 1,2,3".into(), ["--expected-app-tag-masks has 3 values", "one for each range"]),
    ] {
        refuses(&format!("{copy} {options}"), &parts);
    }
    for option in ["--expected-ref-tags 1", "--expected-app-tags 1", "-M 1", "--app-tag 1", "--ref-tag 1"] {
        refuses(
            &format!("copy emu --ranges 0+1 --to 8 {option}"),
            &["protection information", "upcie format"],
        );
    }
    fails(2, run("copy emu --ranges 0+1 --to 8 --expected-app-tags 1 --placement 1"));
}

#[test]
fn zeros_are_written_with_consent() {
    let disk = Disk::new("zeroes");
    let emu = &disk.emu;
    refuses(
        &format!("write-zeroes {emu} --lba 8"),
        &["write-zeroes overwrites blocks of namespace 1 of 1 MiB", "--destructive"],
    );
    disk.has(&[]);
    let done = json(&format!("write-zeroes {emu} --lba 8 --blocks 2 --fua --destructive"));
    assert_eq!((&done["slba"], &done["blocks"]), (&8.into(), &2.into()));
    text(&format!("write-zeroes {emu} -s 0x40 -c 7 -d -f -l --destructive"));
    disk.has(&[zeros(8..10), zeros(64..72)]);
    refuses(&format!("write-zeroes {emu} --lba 2040 --blocks 9 --destructive"), &["beyond the end"]);
    refuses(&format!("write-zeroes {emu},ro=true --destructive"), &["write protected"]);
    refuses("write-zeroes emu --placement 1", &["no flexible data placement"]);
    let error = fails(2, run("write-zeroes emu --blocks 65537"));
    assert!(error.contains("65536"), "{error}");
    fails(2, run("write-zeroes emu --blocks 1 --block-count 1"));
}

#[test]
fn a_copy_joins_its_ranges_at_the_target() {
    let disk = Disk::new("copy");
    let emu = &disk.emu;
    let copy = format!("copy {emu} --ranges 0+8,64+2 --to 512");
    refuses(&copy, &["copy overwrites blocks of namespace 1 of 1 MiB", "--destructive"]);
    disk.has(&[]);
    let done = json(&format!("{copy} --destructive"));
    assert_eq!((&done["slba"], &done["ranges"], &done["blocks"]), (&512.into(), &2.into(), &10.into()));
    // nvme-cli's numbers of blocks begin with 0.
    text(&format!("copy {emu} --slbs 100 --blocks 3 --sdlba 600 --destructive"));
    disk.has(&[
        (512..520, disk.before(0..8).to_vec()),
        (520..522, disk.before(64..66).to_vec()),
        (600..604, disk.before(100..104).to_vec()),
    ]);
    refuses(
        "copy emu:size=16M --ranges 0+2049 --to 8192",
        &["is too long", "was not sent", "128 ranges, 2048 blocks in each, 8192 blocks in all"],
    );
    refuses("copy emu:size=1M --ranges 2040+9 --to 0", &["LBA Out of Range"]);
    refuses("copy emu:size=1M --ranges 0+1 --to 2048", &["beyond the end"]);
    refuses("copy emu --ranges 0+0 --to 8", &["1 to 65536 blocks"]);
}

/// Data goes by scatter gather lists where that is asked for, and a controller without them is refused.
#[test]
fn every_transfer_can_have_scatter_gather_lists() {
    let disk = Disk::new("lists");
    let (emu, copied, two) = (&disk.emu, disk.dir.path("copied"), disk.file("two", 8..10));
    succeeds(run(&format!("read {emu} {copied} --sgl")));
    assert_eq!(fs::read(&copied).unwrap(), disk.before(0..2048));
    succeeds(run(&format!("write {emu} {two} --lba 100 --sgl --verify --destructive")));
    disk.has(&[(100..102, disk.before(8..10).to_vec())]);
    assert!(text(&format!("compare {emu} --lba 100 --data {two} --sgl")).contains("have the bytes of"));
    for line in [
        "read ADDR FILE --length 4K",
        "write ADDR FILE",
        "compare ADDR --data FILE",
        "verify ADDR",
        "write-zeroes ADDR",
        "copy ADDR --ranges 0+1 --to 8",
        "zns zone-append ADDR --start-lba 0 --data FILE",
        "kv list ADDR",
        "perf ADDR --count 1",
    ] {
        let line = line.replace("ADDR", "emu:sgl=false").replace("FILE", &two);
        refuses(&format!("{line} --sgl"), &["it takes no scatter gather lists"]);
    }
}

#[test]
fn read_and_write_take_blocks() {
    let disk = Disk::new("by-blocks");
    let (emu, copied, two) = (&disk.emu, disk.dir.path("copied"), disk.file("two", 8..10));
    succeeds(run(&format!("read {emu} {copied} --lba 8 --blocks 2 --fua")));
    assert_eq!(fs::read(&copied).unwrap(), disk.before(8..10));
    succeeds(run(&format!("write {emu} {two} --start-block 0x64 --blocks 1 --fua --destructive")));
    disk.has(&[(100..101, disk.before(8..9).to_vec())]);
    refuses(
        &format!("read {emu} {copied} --lba 2048"),
        &["--lba 2048", "ends at byte 1048576", "2048 blocks"],
    );
    refuses(&format!("read {emu} {copied} --lba 2040 --blocks 9"), &["--blocks 9", "only 4096 bytes"]);
    refuses(&format!("write {emu} {two} --blocks 3 --destructive"), &["less than --blocks 3"]);
    fails(2, run("read emu --lba 1 --offset 512"));
    fails(2, run("read emu --blocks 1 --length 512"));
}
