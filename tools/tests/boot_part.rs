//! `upcie boot-part`, and `upcie fw` for boot partitions.

mod program;

use program::{Dir, Served, fails, run_upcie as run, succeeds};
use serde_json::Value;
use std::fs;

fn info(address: &str) -> (u64, u64) {
    let shown = succeeds(run(&format!("boot-part info {address} --json")));
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    (shown["size"].as_u64().unwrap(), shown["active"].as_u64().unwrap())
}

#[test]
fn an_image_is_stored_read_and_activated() {
    let dir = Dir::made("boot");
    let Served(_server, address) = &Served::new(&dir, "size=1M,boot-partitions=256K");
    let image: Vec<u8> = (0..200_u32 << 10).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let (file, copy) = (dir.path("image"), dir.path("copy"));
    fs::write(&file, &image).unwrap();
    let store = format!("fw download {address} {file} --action replace-boot-partition --bpid 1");
    assert!(fails(1, run(&store)).contains("--destructive"));
    let locked = fails(1, run(&format!("{store} --destructive")));
    assert!(locked.contains("Boot Partition Write Prohibited"), "{locked}");
    let unlock = "set boot-partition-write-protection-config partition_1=1 --destructive";
    succeeds(run(&format!("feature {address} {unlock}")));
    succeeds(run(&format!("{store} --destructive")));
    assert_eq!(info(address), (256 << 10, 0));
    succeeds(run(&format!("boot-part read {address} {copy} --bpid 1")));
    let read = fs::read(&copy).unwrap();
    assert!(
        read.len() == 256 << 10
            && read[..image.len()] == image
            && read[image.len()..].iter().all(|&byte| byte == 0)
    );
    // The active one is the default.
    assert!(succeeds(run(&format!("boot-part read {address} --length 4K"))).iter().all(|&byte| byte == 0));
    succeeds(run(&format!("fw commit {address} --action activate-boot-partition --bpid 1 --destructive")));
    assert_eq!(info(address), (256 << 10, 1));
    assert!(
        succeeds(run(&format!("boot-part read {address} --offset 8K --length 5000"))) == image[8192..13192]
    );
    let text = String::from_utf8(succeeds(run(&format!("boot-part info {address}")))).unwrap();
    assert!(text.contains("2 boot partitions of 256 KiB, 1 is active"), "{text}");
}

#[test]
fn what_is_not_there_is_refused() {
    let dir = Dir::made("no-boot");
    let copy = dir.path("copy");
    for verb in ["info emu", "read emu FILE"] {
        let error = fails(1, run(&format!("boot-part {}", verb.replace("FILE", &copy))));
        assert!(error.contains("no boot partitions (CAP.BPS is 0)"), "{error}");
    }
    for (arguments, part) in [
        ("--offset 512", "multiple of 4K"),
        ("--offset 256K", "below the 262144 bytes"),
        ("--length 257K", "has 262144 bytes"),
        ("--offset 252K --length 5000", "has 4096 bytes"),
        ("--length 0", "--length 0"),
    ] {
        let error = fails(1, run(&format!("boot-part read emu:boot-partitions=256K {copy} {arguments}")));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    assert!(!fs::exists(&copy).unwrap(), "a refusal has made a file");
}
