//! `upcie ns`, `format`, `sanitize`, `fw`, `selftest`, `io`, `reset` and `feature set`; nvme-cli's names.

mod program;

use program::{Dir, Served, fails, run_upcie as run, succeeds};
use serde_json::Value;
use std::fs;

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

#[test]
fn namespaces_are_created_attached_and_deleted() {
    let dir = Dir::made("ns");
    let served = Served::new(&dir, "size=1M,namespaces=2,nn=4");
    let emu = &served.1;
    let error = fails(1, run(&format!("ns delete {emu} --namespace 2")));
    for part in ["ns delete deletes namespace 2 of 1 MiB", "--destructive"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = fails(1, run(&format!("ns create {emu} --size 4K")));
    assert!(error.contains("Namespace Insufficient Capacity"), "{error}");
    text(&format!("ns delete {emu} --namespace 2 --destructive"));
    let made = json(&format!("create-ns {emu} --size 512K --block-size 4096 --attach"));
    assert_eq!(
        (&made["namespace"], &made["blocks"], &made["attached"]),
        (&2.into(), &128.into(), &true.into())
    );
    let made = json(&format!("ns create {emu} --blocks 8"));
    assert_eq!((&made["namespace"], &made["attached"]), (&3.into(), &false.into()));
    let listed = json(&format!("ns list {emu}"));
    let rows: Vec<_> = listed["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (row["namespace"].as_u64().unwrap(), row["attached"] == true, row["block_size"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(rows, [(1, true, 512), (2, true, 4096), (3, false, 512)]);
    assert_eq!(listed["unallocated_capacity"], (512 << 10) - 4096);
    assert!(text(&format!("attach-ns {emu} --namespace 3")).contains("namespace 3 attached to controller 1"));
    text(&format!("read {emu} {} --namespace 3", dir.path("blocks")));
    assert!(text(&format!("ns detach {emu} --namespace 3")).contains("detached"));
    assert!(fails(1, run(&format!("ns detach {emu} --namespace 3"))).contains("Namespace Not Attached"));
    // A detached namespace is deleted by the same rule.
    let error = fails(1, run(&format!("ns delete {emu} --namespace 3")));
    assert!(error.contains("namespace 3") && error.contains("--destructive"), "{error}");
    text(&format!("delete-ns {emu} --namespace all --destructive"));
    assert!(text(&format!("ns list {emu}")).contains("no namespaces"));
    assert!(
        fails(1, run(&format!("ns delete {emu} --namespace 4 --destructive"))).contains("no namespace 4")
    );
    let error = fails(1, run(&format!("ns delete {emu} --namespace 9 --destructive")));
    assert!(error.contains("no namespace 9"), "{error}");
    assert!(fails(2, run("ns create emu")).contains("--size"));
}

#[test]
fn a_format_needs_consent_and_changes_the_blocks() {
    let dir = Dir::made("format");
    let disk = dir.path("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let emu = format!("emu:file={disk}");
    let error = fails(1, run(&format!("format {emu} --block-size 4096")));
    assert!(
        error.contains("format erases namespace 1 of 1 MiB") && error.contains("--destructive"),
        "{error}"
    );
    assert!(fs::read(&disk).unwrap().iter().all(|&byte| byte == 7), "nothing was changed");
    let done = json(&format!("format {emu} --block-size 4096 --destructive"));
    assert_eq!(
        (&done["blocks"], &done["block_size"], &done["format"]),
        (&256.into(), &4096.into(), &1.into())
    );
    assert!(fs::read(&disk).unwrap().iter().all(|&byte| byte == 0), "the data is gone");
    let error = fails(1, run("format emu --block-size 1024"));
    assert!(error.contains("512, 4096"), "{error}");
    assert!(fails(1, run("format emu --format 40")).contains("Invalid Format"));
    let said = text("format emu --metadata 8 --extended-metadata --protection 1");
    assert!(
        said.contains("512 bytes and 8 bytes of metadata at the end of each") && said.contains("type 1"),
        "{said}"
    );
    assert!(fails(1, run("format emu --metadata 24")).contains("4096+64"));
    assert!(text("format emu:namespaces=2 --namespace all --erase crypto").contains("all namespaces"));
    assert!(fails(1, run("format emu --namespace 9")).contains("no namespace 9"));
}

#[test]
fn a_sanitize_is_followed_to_its_end() {
    let dir = Dir::made("sanitize");
    let disk = dir.path("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let emu = format!("emu:file={disk}");
    assert!(text(&format!("sanitize {emu}")).contains("was never sanitized"));
    let error = fails(1, run(&format!("sanitize {emu} --action block")));
    assert!(error.contains("erases every namespace") && error.contains("--destructive"), "{error}");
    let done = json(&format!("sanitize {emu} --action overwrite --passes 2 --destructive"));
    assert_eq!((&done["state"], &done["in_progress"]), (&1.into(), &false.into()));
    assert!(fs::read(&disk).unwrap().iter().all(|&byte| byte == 0));
    let begun = json("sanitize emu --action block --no-wait");
    assert_eq!((&begun["state"], &begun["in_progress"]), (&2.into(), &true.into()));
    assert!(text("sanitize-log emu").contains("never sanitized"));
    assert!(fails(1, run("sanitize emu --action overwrite --no-deallocate")).contains("Invalid Field"));
}

/// Consent for all namespaces names each of them, with what it has.
#[test]
fn every_namespace_that_would_be_lost_is_named() {
    let dir = Dir::made("every");
    let served = Served::new(&dir, "size=1M,namespaces=2,nn=4");
    let emu = &served.1;
    let mut boot = vec![0; 4096];
    boot[510..512].copy_from_slice(&[0x55, 0xaa]);
    boot[446 + 4] = 0x83;
    boot[446 + 8] = 1;
    boot[446 + 12] = 8;
    let image = dir.path("image");
    fs::write(&image, &boot).unwrap();
    text(&format!("write {emu} {image} --namespace 2 --destructive"));
    text(&format!("ns detach {emu} --namespace 1"));
    for line in [
        "sanitize ADDR --action block",
        "format ADDR --namespace all",
        "ns delete ADDR --namespace all",
        "admin ADDR --opcode 0x80 --namespace 0xffffffff",
    ] {
        let error = fails(1, run(&line.replace("ADDR", emu)));
        let lines: Vec<_> = error.lines().map(str::trim).collect();
        assert!(lines[0].contains("every namespace of it") && lines[0].contains("--destructive"), "{error}");
        assert!(lines[1].starts_with("namespace 2 of 1 MiB, which contains"), "{error}");
        assert_eq!(lines[2..], ["namespace 1, which is detached"], "{line}");
    }
    // One namespace stays one line.
    let error = fails(1, run(&format!("format {emu} --namespace 2")));
    assert!(error.lines().count() == 1 && error.contains("format erases namespace 2 of 1 MiB"), "{error}");
}

#[test]
fn a_self_test_tells_its_result() {
    assert!(text("selftest emu").contains("no self-test was run"));
    assert!(text("selftest emu short").contains("short test (1h): completed without error"));
    let done = json("device-self-test emu short --namespace 1");
    assert_eq!((&done["in_progress"], &done["result"], &done["test"]), (&false.into(), &0.into(), &1.into()));
    let begun = json("selftest emu extended --no-wait");
    assert_eq!((&begun["in_progress"], &begun["results"]), (&true.into(), &0.into()));
    // An extended one goes on after the reset by which another program opens the device.
    let dir = Dir::made("selftest");
    let served = Served::new(&dir, "size=1M");
    let emu = &served.1;
    json(&format!("selftest {emu} extended --no-wait"));
    assert!(text(&format!("selftest {emu} show")).contains("in progress"));
    assert!(fails(1, run(&format!("selftest {emu} short"))).contains("Device Self-test In Progress"));
    assert!(text(&format!("selftest {emu} abort")).contains("aborted by a Device Self-test command"));
}

#[test]
fn firmware_is_downloaded_and_activated() {
    let dir = Dir::made("fw");
    let (image, bad) = (dir.path("image"), dir.path("bad"));
    fs::write(&image, [&b"2.5-beta"[..], &[0xa5; 300_000]].concat()).unwrap();
    fs::write(&bad, [1; 100]).unwrap();
    let served = Served::new(&dir, "size=1M");
    let emu = &served.1;
    let error = fails(1, run(&format!("fw download {emu} {image} --slot 2")));
    assert!(error.contains("replaces firmware") && error.contains("--destructive"), "{error}");
    let error = fails(1, run(&format!("fw download {emu} {image} --slot 1 --destructive")));
    assert!(error.contains("slot 1 is read-only"), "{error}");
    let error = fails(1, run(&format!("fw download {emu} {bad} --slot 2 --destructive")));
    assert!(error.contains("Invalid Firmware Image"), "{error}");
    let stored = text(&format!("fw-download {emu} {image} --slot 3 --action store --destructive"));
    assert!(stored.contains("slot 1: 1.0 (active), slot 3: 2.5-beta"), "{stored}");
    let next = json(&format!("fw commit {emu} --slot 3 --destructive"));
    assert_eq!((&next["active_slot"], &next["next_slot"]), (&1.into(), &3.into()));
    // The next program that opens it has reset it.
    let log = json(&format!("fw log {emu}"));
    assert_eq!((&log["active_slot"], &log["revisions"][2]), (&3.into(), &"2.5-beta".into()));
    assert!(text(&format!("id-ctrl {emu}")).contains("2.5-beta"));
    assert!(
        text(&format!("fw commit {emu} --slot 1 --action activate-now --destructive"))
            .contains("1.0 (active)")
    );
    assert!(fails(1, run(&format!("fw download {emu} /no/such --destructive"))).contains("/no/such"));
}

#[test]
fn io_commands_are_passed_through() {
    let dir = Dir::made("io");
    let (disk, data, back) = (dir.path("disk"), dir.path("data"), dir.path("back"));
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    fs::write(&data, [0x5a; 1024]).unwrap();
    let emu = format!("emu:file={disk}");
    let write = format!("io {emu} --opcode 1 --dword10 8 --dword12 1 --data {data}");
    let error = fails(1, run(&write));
    assert!(error.contains("Write (01h) may change namespace 1 of 1 MiB"), "{error}");
    text(&format!("{write} --destructive"));
    let disk = fs::read(&disk).unwrap();
    assert_eq!((&disk[4096..5120], disk[4095], disk[5120]), (&[0x5a; 1024][..], 7, 7));
    let shown = json(&format!("io {emu} --opcode 2 --dword10 8 --dword12 0 --length 512"));
    assert_eq!((shown["data"].as_str().unwrap().len(), &shown["dword0"]), (1024, &0.into()));
    text(&format!("io-passthru {emu} --opcode 2 --dword10 9 --length 512 --raw {back}"));
    assert_eq!(fs::read(&back).unwrap(), [0x5a; 512]);
    for (arguments, part) in [
        ("--opcode 2 --length 4096", "512 bytes here"),
        ("--opcode 2 --dword10 2048 --length 512", "LBA Out of Range"),
        ("--opcode 0x99 --destructive", "not known here"),
        ("--opcode 2 --namespace 9 --length 512", "Invalid Namespace"),
        ("--opcode 2 --dword12 0xffff --length 33554432", "takes"),
        ("--opcode 1 --length 512", "--data instead"),
    ] {
        let error = fails(1, run(&format!("io {emu} {arguments}")));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    text("io emu --opcode 0");
}

#[test]
fn a_feature_is_set_by_its_fields() {
    let set = json("feature emu set temperature-threshold threshold=350");
    assert_eq!(set["fields"]["threshold"], 350);
    // The other threshold, and fields that keep their values.
    let set = json("set-feature emu 4 threshold=10 threshold_type=1");
    assert_eq!(set["fields"]["threshold"], 10);
    let set = json("feature emu set arbitration arbitration_burst=3 high-priority-weight=9");
    assert_eq!(
        (&set["fields"]["high_priority_weight"], &set["fields"]["low_priority_weight"]),
        (&9.into(), &1.into())
    );
    let set = json("feature emu set timestamp timestamp=1700000000000");
    assert_eq!(set["fields"]["attributes"]["origin"]["value"], 1);
    let set = json("feature emu set host-behavior-support advanced_command_retry=1");
    assert_eq!(set["fields"]["advanced_command_retry"], 1);
    let set = json("feature emu set error-recovery time_limited_error_recovery=5 --namespace 1");
    assert_eq!(set["fields"]["time_limited_error_recovery"], 5);
    for (arguments, part) in [
        ("arbitration", "nothing to set"),
        ("arbitration burst=1", "it has arbitration_burst"),
        ("arbitration arbitration_burst=8", "0 to 7"),
        ("number-of-queues submission_queues=4", "the driver's own"),
        ("arbitration arbitration_burst=1 --save", "Not Saveable"),
        ("namespace-write-protection state=5", "Invalid Field"),
        ("0xc0 x=1", "length of its data is not known"),
        ("arbitration --data /dev/zero", "has no data: set its fields"),
    ] {
        let error = fails(1, run(&format!("feature emu set {arguments}")));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    let dir = Dir::made("feature");
    let disk = dir.path("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let error = fails(1, run(&format!("feature emu:file={disk} set namespace-write-protection state=3")));
    assert!(error.contains("for good") && error.contains("--destructive"), "{error}");
}

#[test]
fn what_a_controller_lacks_is_refused_with_the_reason() {
    for (arguments, part) in [
        ("security receive emu --protocol 0", "OACS bit 0"),
        ("directive receive emu --length 4096", "OACS bit 5"),
        ("directive enable emu streams", "OACS bit 5"),
        ("virt emu online --controller 2", "OACS bit 7"),
        ("lockdown emu --command 0x80 --prohibit", "OACS bit 10"),
        ("lba-status emu --action allocated", "OACS bit 9"),
        ("get-lba-status emu", "OACS bit 9"),
        ("capacity emu create-group --size 1G", "CTRATT bit 11"),
    ] {
        let error = fails(1, run(arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    // Consent comes first.
    let dir = Dir::made("lacks");
    let disk = dir.path("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    for arguments in ["lockdown ADDR --command 0x80 --prohibit", "virt ADDR online --controller 2"] {
        let error = fails(1, run(&arguments.replace("ADDR", &format!("emu:file={disk}"))));
        assert!(error.contains("--destructive"), "{error}");
    }
    for kind in ["", "--function", "--subsystem"] {
        assert!(text(&format!("reset emu {kind}")).contains("ready again"), "{kind}");
    }
    assert!(fails(2, run("reset emu --function --subsystem")).contains("cannot be used with"));
}
