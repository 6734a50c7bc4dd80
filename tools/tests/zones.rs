//! `upcie zns`, and the other verbs on a zoned namespace.

mod program;

use program::{Dir, Served, fails, run_upcie as run, succeeds};
use serde_json::Value;
use std::fs;

/// A plain namespace of 1 MiB, then a zoned one.
const OPTIONS: &str = "size=1M,namespaces=2,zoned=false+true,zone-size=64K,zone-capacity=48K,max-open=3,max-active=5,zrwa=16K,zasl=16K,zde=64";

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

fn zone(emu: &str, number: u64) -> (String, u64) {
    let listed = json(&format!("zns report-zones {emu} --start-lba {} --count 1", number * 128));
    let zone = &listed["zone_list"][0];
    (zone["state"].as_str().unwrap().into(), zone["wp"].as_u64().unwrap())
}

#[test]
fn zones_are_reported_changed_and_appended_to() {
    let dir = Dir::made("zones");
    let served = Served::new(&dir, OPTIONS);
    let emu = &served.1;
    let listed = json(&format!("zns report-zones {emu}"));
    assert_eq!((&listed["namespace"], &listed["nr_zones"]), (&2.into(), &16.into()));
    let third = &listed["zone_list"][3];
    assert_eq!((&third["slba"], &third["wp"], &third["cap"]), (&384.into(), &384.into(), &96.into()));
    assert_eq!(
        (&third["state"], &third["type"], &third["attrs"]),
        (&"EMPTY".into(), &"SEQWRITE_REQ".into(), &0.into())
    );
    let named = succeeds(run(&format!("zns report-zones {emu} -o json")));
    assert_eq!(serde_json::from_slice::<Value>(&named).unwrap()["zone_list"], listed["zone_list"]);
    let shown = text(&format!("zns report-zones {emu} --count 2"));
    assert!(shown.contains("16 zones of 128 blocks; listed: 2") && shown.contains("SLBA: 0x80"), "{shown}");

    // A name for a zone, in its descriptor extension.
    let name = dir.path("name");
    fs::write(&name, b"log").unwrap();
    let named = json(&format!("zns set-zone-desc {emu} --start-lba 640 --data {name}"));
    assert_eq!((&named["slba"], &named["bytes"]), (&640.into(), &64.into()));
    let extended = json(&format!("zns report-zones {emu} --start-lba 512 --count 2 --extended"));
    assert_eq!(extended["zone_list"][0]["ext_data"], "Not valid");
    let bytes = extended["zone_list"][1]["ext_data"].as_array().unwrap();
    assert_eq!((bytes.len(), &bytes[..4]), (64, &[b'l'.into(), b'o'.into(), b'g'.into(), 0.into()][..]));
    let shown = text(&format!("zns report-zones {emu} -s 640 -d 1 -E"));
    assert!(shown.contains("State: CLOSED") && shown.contains("\n    6c 6f 67 00 "), "{shown}");
    let again = fails(1, run(&format!("zns set-zone-desc {emu} -s 640 --data {name}")));
    assert!(again.contains("Invalid Zone State Transition"), "{again}");
    text(&format!("zns reset-zone {emu} -s 640 --destructive"));

    let record = dir.path("record");
    fs::write(&record, [7; 1024]).unwrap();
    // Appends and resets change data: the one rule for all verbs.
    let error = fails(1, run(&format!("zns zone-append {emu} --start-lba 128 --data {record}")));
    assert!(error.contains("namespace 2 of 1 MiB") && error.contains("--destructive"), "{error}");
    let append = format!("zns zone-append {emu} --start-lba 128 --data {record} --destructive");
    assert_eq!(json(&append)["lba"], 128);
    assert!(text(&append).contains("at block 0x82"));
    assert_eq!(zone(emu, 1), ("IMP_OPENED".into(), 132));
    assert!(text(&format!("zns close-zone {emu} --start-lba 128")).contains("which is CLOSED now"));
    assert_eq!(json(&format!("zns open-zone {emu} --start-lba 128"))["state"], "EXP_OPENED");
    text(&format!("zns finish-zone {emu} -s 0x80"));
    let full = json(&format!("zns report-zones {emu} --state full"));
    assert_eq!((&full["nr_zones"], &full["zone_list"][0]["slba"]), (&1.into(), &128.into()));
    assert!(fails(1, run(&append)).contains("Zone Is Full"));
    let error = fails(1, run(&format!("zns reset-zone {emu} --select-all")));
    assert!(
        error.contains("zns reset-zone erases zones of namespace 2") && error.contains("--destructive"),
        "{error}"
    );
    text(&format!("zns reset-zone {emu} --select-all --destructive"));
    assert_eq!(zone(emu, 1), ("EMPTY".into(), 128));
    let error = fails(1, run(&format!("zns offline-zone {emu} --start-lba 0 --destructive")));
    assert!(error.contains("Invalid Zone State Transition"), "{error}");

    // A random write area.
    text(&format!("zns open-zone {emu} --start-lba 256 --zrwaa"));
    assert!(text(&format!("zns report-zones {emu} -s 256 -d 1")).contains("random write area"));
    text(&format!("zns zrwa-flush {emu} --lba 263"));
    assert_eq!(zone(emu, 2), ("EXP_OPENED".into(), 264));
}

#[test]
fn wrong_zone_commands_say_what_to_do() {
    let record = Dir::made("records");
    let file = record.path("record");
    fs::write(&file, [7; 1000]).unwrap();
    let emu = format!("emu:{OPTIONS}");
    let error = fails(1, run(&format!("zns zone-append {emu} --start-lba 128 --data {file}")));
    assert!(error.contains("not a positive multiple of the block size"), "{error}");
    fs::write(&file, [7; 32768]).unwrap();
    let error = fails(1, run(&format!("zns zone-append {emu} --start-lba 128 --data {file}")));
    assert!(error.contains("one append writes 16 KiB at most"), "{error}");
    let error = fails(1, run(&format!("zns open-zone {emu} --start-lba 5")));
    assert!(error.contains("not the first one of a zone"), "{error}");
    let error = fails(1, run("zns report-zones emu:size=1M"));
    assert!(error.contains("no namespace of it has zones"), "{error}");
    let error = fails(1, run(&format!("zns report-zones {emu} --namespace 1")));
    assert!(error.contains("namespace 1 has no zones"), "{error}");
    fails(2, run(&format!("zns reset-zone {emu}")));
}

#[test]
fn identify_data_of_zones_has_nvme_clis_names() {
    let emu = format!("emu:{OPTIONS}");
    let id = json(&format!("zns id-ns {emu}"));
    assert_eq!((&id["mar"], &id["mor"], &id["ozcs"]), (&4.into(), &2.into(), &2.into()));
    assert_eq!((&id["lbafe"][0]["zsze"], &id["lbafe"][0]["in_use"]), (&128.into(), &true.into()));
    assert_eq!(json(&format!("zns id-ctrl {emu}"))["zasl"], 2);
    let info = json(&format!("info {emu}"));
    let namespaces = &info["namespaces"];
    assert_eq!(
        (&namespaces[0]["command_set"], &namespaces[1]["command_set"]),
        (&"NVM".into(), &"Zoned Namespace".into())
    );
    assert_eq!((&namespaces[0]["zones"], &namespaces[1]["zones"]), (&Value::Null, &16.into()));
    let effects = text(&format!("log {emu} effects-log --csi 2"));
    assert!(effects.contains("Zone Append"), "{effects}");
}

/// `write` and `read` go zone by zone; what writes in any order is refused with the way out.
#[test]
fn blocks_of_zones_are_written_in_order() {
    let dir = Dir::made("zoned");
    let served = Served::new(&dir, "size=1M,zoned=true,zone-size=64K");
    let emu = &served.1;
    let (file, back) = (dir.path("file"), dir.path("back"));
    let data: Vec<u8> = (0..200 << 10).map(|at| (at / 512 * 7 + at) as u8).collect();
    fs::write(&file, &data).unwrap();
    text(&format!("write {emu} {file} --destructive --verify"));
    text(&format!("read {emu} {back} --length 200K"));
    assert!(fs::read(&back).unwrap() == data);
    let listed = json(&format!("zns report-zones {emu} --count 4"));
    let states: Vec<_> =
        listed["zone_list"].as_array().unwrap().iter().map(|zone| zone["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["FULL", "FULL", "FULL", "IMP_OPENED"]);
    let error = fails(1, run(&format!("write {emu} {file} --destructive")));
    assert!(error.contains("Zone Is Full") && error.contains("0 B (0 bytes) were written"), "{error}");
    let error = fails(1, run("perf emu:size=1M,zoned=true,zone-size=64K --rw write --time 0.1"));
    assert!(error.contains("has zones") && error.contains("zonemode=zbd"), "{error}");
    text("perf emu:size=1M,zoned=true,zone-size=64K --time 0.1");
}
