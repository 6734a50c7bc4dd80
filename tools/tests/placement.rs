//! `upcie fdp`, and the other verbs with flexible data placement.

mod program;

use program::{Dir, Served, fails, perf, run_upcie as run, succeeds};
use serde_json::{Value, json as value};
use std::fs;

const OPTIONS: &str = "size=1M,nn=3,fdp=true,fdp-handles=4,fdp-groups=2,fdp-unit=64K";

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

/// Returns the blocks that are left in the unit of each placement identifier, in the order of the list.
fn left(emu: &str) -> Vec<u64> {
    let status = json(&format!("fdp status {emu}"));
    status["ruhss"].as_array().unwrap().iter().map(|handle| handle["ruamw"].as_u64().unwrap()).collect()
}

#[test]
fn units_are_filled_shown_and_updated() {
    let dir = Dir::made("placement");
    let served = Served::new(&dir, OPTIONS);
    let emu = &served.1;
    let status = json(&format!("fdp status {emu}"));
    assert_eq!((&status["namespace"], &status["nruhsd"]), (&value!(1), &value!(8)));
    let fourth = &status["ruhss"][3];
    let wanted = value!({ "pid": 0x8001, "ruhid": 1, "earutr": 0, "ruamw": 128 });
    assert_eq!(fourth, &wanted, "placement handle 1 in reclaim group 1");

    let file = dir.path("file");
    fs::write(&file, [7; 10 * 512]).unwrap();
    let write = format!("write {emu} {file} --placement 0x8001 --destructive");
    text(&write);
    assert_eq!(left(emu), [128, 128, 128, 118, 128, 128, 128, 128]);
    let shown = text(&format!("fdp status {emu}"));
    assert!(shown.contains("PID: 0x8001") && shown.contains("RUAMW: 118 blocks"), "{shown}");

    // The events of its reclaim unit handle, then an update.
    let set = json(&format!("fdp set-events {emu} -p 1 -t 0,3 --enable"));
    assert_eq!(set["events"], value!([{ "type": 0, "enabled": true }, { "type": 3, "enabled": true }]));
    let updated = text(&format!("fdp update {emu} --pids 0x8001,2"));
    assert!(updated.contains("0x8001, 0x2 of namespace 1 refer to empty reclaim units now"), "{updated}");
    assert_eq!(left(emu)[3], 128);
    let events = json(&format!("fdp events {emu} --host-events"));
    assert_eq!((&events["endurance_group"], &events["fields"]["count"]), (&value!(1), &value!(1)));
    assert_eq!(json(&format!("fdp events {emu}"))["fields"]["count"], 0, "the controller has none");
    let unset = text(&format!("fdp set-events {emu} -p 1 -t 0"));
    assert!(unset.contains("Written To Capacity (00h): not noted"), "{unset}");
    let error = fails(1, run(&format!("fdp update {emu} --pids 4")));
    assert!(error.contains("Invalid Field"), "{error}");

    // The names are nvme-cli's.
    let by_name = |verb: &str| -> Value {
        serde_json::from_slice(&succeeds(run(&format!("fdp {verb} {emu} -o json")))).unwrap()
    };
    let configs = by_name("configs");
    let first = &configs["configs"][0];
    assert_eq!((&first["nrg"], &first["nruh"], &first["runs"]), (&value!(2), &value!(4), &value!(65536)));
    assert_eq!(first["ruhs"].as_array().unwrap().len(), 4);
    assert_eq!(by_name("usage")["ruhus"].as_array().unwrap().len(), 4);
    assert_eq!((&by_name("stats")["hbmw"], &by_name("stats")["mbe"]), (&value!(5120), &value!(2 * 65536)));
    let event = &by_name("events --host-events")["events"][0];
    assert_eq!((&event["type"], &event["pid"], &event["nsid"]), (&value!(0), &value!(0x8001), &value!(1)));
    assert_eq!(by_name("status")["ruhss"][3]["pid"], 0x8001);

    let stats = json(&format!("fdp stats {emu}"));
    assert_eq!(stats["fields"]["host_bytes_with_metadata_written"], 5120);
    assert_eq!(stats["fields"]["media_bytes_erased"], 2 * 65536);
    assert!(text(&format!("fdp usage {emu}")).contains("host"));
    let configs = json(&format!("fdp configs {emu}"));
    assert_eq!(configs["fields"]["configuration_list"][0]["reclaim_groups"], 2);
    assert!(text(&format!("log {emu} fdp-stats --lsi 1")).contains("5120 bytes"));
}

#[test]
fn the_feature_is_changed_without_namespaces() {
    let dir = Dir::made("placement-feature");
    let served = Served::new(&dir, OPTIONS);
    let emu = &served.1;
    assert_eq!(json(&format!("fdp feature {emu}"))["enabled"], true);
    let error = fails(1, run(&format!("fdp feature {emu} --disable")));
    assert!(error.contains("Command Sequence Error"), "{error}");
    text(&format!("ns delete {emu} --namespace 1 --destructive"));
    assert!(text(&format!("fdp feature {emu} --disable")).contains("endurance group 1: off"));
    text(&format!("fdp feature {emu} --enable-conf-idx 0"));
    text(&format!("ns create {emu} --blocks 1024 --endurance-group 1 --placement-handles 3,1 --attach"));
    let status = json(&format!("fdp status {emu}"));
    let handles: Vec<_> = status["ruhss"].as_array().unwrap().iter().map(|handle| &handle["ruhid"]).collect();
    assert_eq!(handles, [3, 3, 1, 1]);
    let usage = json(&format!("fdp usage {emu}"));
    assert_eq!(usage["fields"]["handles"][1]["attributes"]["value"], 1, "{usage}");
}

#[test]
fn wrong_placements_say_what_to_do() {
    let error = fails(1, run("fdp status emu:size=1M"));
    assert!(error.contains("no flexible data placement") && error.contains("CTRATT bit 19"), "{error}");
    let error = fails(1, run("fdp update emu:size=1M,fdp=true -n 1 -p 9"));
    assert!(error.contains("Invalid Field"), "{error}");
    fails(2, run("fdp update emu:fdp=true"));
    fails(2, run("fdp set-events emu:fdp=true"));
    let file = Dir::made("placements");
    let path = file.path("file");
    fs::write(&path, [7; 512]).unwrap();
    let error = fails(1, run(&format!("write emu:size=1M,fdp=true,fdp-handles=2 {path} --placement 2")));
    assert!(error.contains("--placement 0x2") && error.contains("it has 0x0, 0x1"), "{error}");
    let error = fails(1, run("perf emu:size=1M --rw write --placement 0 --time 0.1"));
    assert!(error.contains("no flexible data placement"), "{error}");
    let error = fails(2, run("perf emu:size=1M --placement 0 --time 0.1"));
    assert!(error.contains("--placement needs a workload that writes"), "{error}");
}

/// `perf --placement` uses the identifiers in turn.
#[test]
fn perf_places_writes_in_turn() {
    let dir = Dir::made("placement-perf");
    let served = Served::new(&dir, "size=1M,fdp=true,fdp-handles=4,fdp-unit=1M");
    let emu = &served.1;
    let report = perf(&format!(
        "{emu} --rw randwrite --block-size 512 --count 90 --placement 1,3 --depth 8 --destructive"
    ));
    assert_eq!(report["parameters"]["placement"], value!([1, 3]));
    assert_eq!(left(emu), [2048, 2048 - 45, 2048, 2048 - 45]);
}
