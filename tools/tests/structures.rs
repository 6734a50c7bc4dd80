//! `upcie log`, `id`, `feature` and `admin`: the structures of the specification.

mod program;

use program::{Dir, fails, run_upcie as run, succeeds};
use serde_json::Value;
use std::{fs, path::Path};
use upcie_nvme::spec::{self, FeatureInfo, IdentifyInfo, LogPageInfo};

fn text(arguments: &str) -> String {
    String::from_utf8(succeeds(run(arguments))).unwrap()
}

fn json(arguments: &str) -> Value {
    serde_json::from_slice(&succeeds(run(&format!("{arguments} --json")))).unwrap()
}

/// Each page that the controller lists is shown as text, as JSON and as bytes, which agree.
#[test]
fn every_supported_log_page_is_shown() {
    let supported = json("log emu");
    let pages: Vec<u64> = supported["fields"]["log_pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page["code"]["value"].as_u64().unwrap())
        .collect();
    assert_eq!(pages, [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x12, 0x13, 0x80, 0x81]);
    for page in pages {
        let shown = json(&format!("log emu {page}"));
        let (name, fields) = (shown["structure"].as_str().unwrap(), &shown["fields"]);
        assert!(name.ends_with(&format!("({page:02X}h)")) && fields["bytes"].is_null(), "{name}");
        let text = text(&format!("log emu {page:#x}"));
        for field in fields.as_object().unwrap().keys() {
            assert!(text.contains(&field.replace('_', " ")), "{field}: {text}");
        }
        let bytes = succeeds(run(&format!("log emu {page} --raw -")));
        assert!(bytes.len() >= 64 && bytes.len().is_multiple_of(4), "{name}: {} bytes", bytes.len());
    }
    assert!(fails(1, run("log emu 0x09")).contains("Invalid Log Page"));
    // A page without a type has a name.
    assert!(fails(1, run("log emu sanitize-namespace-status-list")).contains("Invalid Log Page"));
}

/// A page that one command does not transfer.
#[test]
fn telemetry_is_collected_into_a_file() {
    let dir = Dir::made("telemetry");
    let read = |emu: &str, more: &str| {
        let path = dir.path(if more.is_empty() { "header.bin" } else { "page.bin" });
        succeeds(run(&format!("log {emu} telemetry-log {more} --raw {path}")));
        fs::read(path).unwrap()
    };
    for emu in ["emu", "emu:mdts=8K"] {
        assert_eq!(read(emu, "").len(), 512, "nothing was collected");
        let page = read(emu, "--lsp 1");
        let last = usize::from(u16::from_le_bytes([page[12], page[13]]));
        assert!(last > 256 && page.len() == (last + 1) * 512, "{} bytes, block {last}", page.len());
        assert!(page[512..].starts_with(b"reason: a host asked"));
        assert_eq!(page[last * 512..][..4], (last as u32).to_le_bytes());
    }
}

#[test]
fn health_and_errors_are_in_plain_words() {
    let smart = text("log emu smart-log");
    for line in [
        "available spare: 100 %",
        "composite temperature: 300 K (27 °C)",
        "critical warning: none",
        "data units written: 0 × 512,000 bytes (0.00 kB)",
    ] {
        assert!(smart.contains(line), "{line}: {smart}");
    }
    assert_eq!(json("log emu smart-log")["fields"]["available_spare"], 100);
    // The failed command of the same process is not there: each has a controller of its own.
    assert_eq!(json("log emu error-log")["fields"]["errors"], Value::Array(vec![]));
    assert_eq!(json("log emu error-log")["fields"]["entries"], 64);
    let firmware = text("log emu firmware");
    assert!(firmware.contains("active slot: 1") && firmware.contains("revisions: 1.0"), "{firmware}");
}

#[test]
fn identify_data_is_shown_by_nvme_clis_names() {
    let controller = json("id emu:serial=S-1 id-ctrl");
    let fields = &controller["fields"];
    assert_eq!((&fields["sn"], &fields["mn"]), (&"S-1".into(), &"uPCIe embedded NVMe controller".into()));
    let namespace = json("id emu:size=1M,lba=4096 ns --namespace 1");
    assert_eq!(namespace["fields"]["nsze"], 256);
    let formats = namespace["fields"]["lbaf"].as_array().unwrap();
    let used: Vec<_> = formats.iter().filter(|format| format["in_use"] == true).collect();
    assert!(used.len() == 1 && used[0]["data_size"] == 4096, "{formats:?}");
    assert_eq!(json("id emu:namespaces=3 list-ns")["fields"]["namespaces"], serde_json::json!([1, 2, 3]));
    // Each way shows the same identifiers of a namespace.
    let emu = "emu:serial=IDENTIFIERS";
    let descriptors = text(&format!("id {emu} ns-descs"));
    let shown = json(&format!("info {emu}"))["namespaces"][0].clone();
    let of_nvme_cli: Value = serde_json::from_slice(&succeeds(run(&format!("id-ns {emu} -o json")))).unwrap();
    for (name, prefix, digits) in [("eui64", "eui.", 16), ("nguid", "nguid.", 32)] {
        let id = shown[name].as_str().unwrap();
        assert!(id.len() == digits && descriptors.contains(&format!("{prefix}{id}")), "{id}: {descriptors}");
        assert_eq!(of_nvme_cli[name], id, "{name}");
    }
    assert!(descriptors.contains("uuid."), "{descriptors}");
    // A structure that the controller doesn't have, and a namespace that isn't there.
    for (arguments, part) in
        [("id emu nvmset", "Invalid Field"), ("id emu ns --namespace 9", "Invalid Namespace")]
    {
        let error = fails(1, run(arguments));
        assert!(error.contains(part) && error.contains("Identify"), "{error}");
    }
}

#[test]
fn features_are_shown_with_each_selection() {
    assert_eq!(json("feature emu:queues=3 get number-of-queues")["fields"]["submission_queues"], 3);
    let threshold = |select: &str| json(&format!("feature emu get 4 --select {select}"))["fields"].clone();
    assert_eq!(threshold("current")["threshold"], 343);
    assert_eq!(threshold("default")["threshold"], 343);
    assert_eq!(threshold("supported")["changeable"], true);
    assert_eq!(
        json("feature emu get error-recovery")["fields"]["deallocated_or_unwritten_block_error"],
        false
    );
    assert!(fails(1, run("feature emu get spinup-control")).contains("Invalid Field"));
    // Text is taken, and the controller has no such feature.
    let error = fails(1, run("feature emu set namespace-admin-label label=text --save"));
    assert!(error.contains("Invalid Field"), "{error}");
    let error = fails(1, run("feature emu get 0xc0"));
    assert!(error.contains("length of its data is not known"), "{error}");
    let error = fails(2, run("feature emu get no-such"));
    assert!(error.contains("number-of-queues"), "{error}");
}

#[test]
fn commands_that_change_something_need_consent() {
    let dir = Dir::made("admin");
    let (disk, data) = (dir.path("disk"), dir.path("data"));
    let emu = format!("emu:file={disk},size=1M");
    let set = format!("admin {emu} --opcode 9 --dword10 4 --dword11 350");
    let error = fails(1, run(&set));
    assert!(error.contains("Set Features") && error.contains("--destructive"), "{error}");
    assert!(!fs::exists(&disk).unwrap(), "nothing was made");
    let done = text(&format!("{set} --destructive"));
    assert!(done.contains("Set Features (09h)") && done.contains("0x00000000"), "{done}");
    // Commands that read need none, and the bytes are the same as those of `id`.
    succeeds(run(&format!("admin {emu} --opcode 6 --dword10 1 --length 4096 --raw {data}")));
    assert_eq!(fs::read(&data).unwrap().len(), 4096);
    assert_eq!(&fs::read(&data).unwrap()[24..29], b"uPCIe");
    let answer = json(&format!("admin {emu} --opcode 0x0a --dword10 7"));
    assert!(answer["dword0"].as_u64().unwrap() > 0 && answer["data"] == "", "{answer}");
    // The driver's own business stays refused, with consent too.
    for (arguments, part) in [
        ("--opcode 0 --dword10 1 --destructive", "drop the queue pair"),
        ("--opcode 0x0c --destructive", "completes only when an event happens"),
        ("--opcode 6 --length 512", "4096 bytes"),
        ("--opcode 0xc0 --destructive", "not known here"),
    ] {
        let error = fails(1, run(&format!("admin {emu} {arguments}")));
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn outputs_are_not_the_medium() {
    let dir = Dir::made("outputs");
    let disk = dir.path("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    for verb in ["log", "id", "admin"] {
        let more = if verb == "admin" { "--opcode 6 --dword10 1 --length 4096" } else { "" };
        let error = fails(1, run(&format!("{verb} emu:file={disk} --raw {disk} {more}")));
        assert!(error.contains("same file"), "{verb}: {error}");
    }
    assert!(fs::read(&disk).unwrap().iter().all(|&byte| byte == 7), "the medium is as it was");
}

/// docs/nvme.md lists every structure that is typed, and each verb in it is understood.
#[test]
fn the_document_is_complete_and_its_verbs_work() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/nvme.md");
    let document = fs::read_to_string(path).unwrap();
    let logs = LogPageInfo::ALL.iter().map(|info| (info.id.0, info.title));
    let structures = IdentifyInfo::ALL.iter().map(|info| (info.cns.0, info.title));
    let features = FeatureInfo::ALL.iter().map(|info| (info.id.0, info.title));
    let all: Vec<_> = logs.chain(structures).chain(features).collect();
    for (number, title) in &all {
        let row = format!("| {number:02X}h | {title} | `");
        assert_eq!(document.matches(&row).count(), 1, "{row}");
    }
    let verbs = document.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let verbs =
        verbs.filter_map(|line| Some((line.split('|').nth(1)?.trim(), line.split("`upcie ").nth(1)?)));
    let mut count = 0;
    for (number, verb) in verbs {
        let output = run(&verb.trim_end_matches("` |").replace("ADDR", "emu"));
        // The embedded controller lacks most of them: its status names what the command asked for.
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{number}: {verb}: {error}");
        let shown = String::from_utf8_lossy(&output.stdout).contains(&format!("({number})"));
        let refused = ["Invalid Field", "Invalid Log Page"].iter().any(|status| error.contains(status));
        assert!(shown || refused, "{number}: {verb}: {error}");
        count += 1;
    }
    assert_eq!(count, all.len());
}

#[test]
fn values_that_json_has_no_number_for_are_text() {
    use spec::Value::{Bytes, List, Named, Number};
    let values = List(vec![Number(u128::MAX), Number(u64::MAX.into()), Bytes(vec![1, 0xab]), Named(3, None)]);
    let name = Value::Null;
    let expected = serde_json::json!([u128::MAX.to_string(), u64::MAX, "01ab", { "value": 3, "name": name }]);
    assert_eq!(serde_json::to_value(values).unwrap(), expected);
}

/// The device may stand behind the name, and nvme-cli's letters mean what they mean there.
#[test]
fn lines_of_nvme_cli_work_as_they_are() {
    for (line, same) in [
        ("log smart emu", "log emu smart-log"),
        ("log 0x03 emu", "log emu fw-log"),
        ("get-log emu -i 2 -l 512", "log emu smart-log"),
        ("id ctrl emu:serial=S", "id emu:serial=S ctrl"),
        ("id ns emu:serial=S -n 1", "id emu:serial=S ns --namespace 1"),
        ("id-ns emu:serial=S -n 1 -H", "id emu:serial=S ns --namespace 1"),
        ("feature get emu 4", "feature emu get 4"),
        ("feature get temperature-threshold emu", "feature emu get 4"),
        ("get-feature emu -f 4 -s 1", "feature emu get 4 --select default"),
        ("set-feature emu -f 4 -V 350", "feature emu set 4 threshold=350"),
        ("set-feature -f 4 emu threshold=350", "feature emu set 4 threshold=350"),
    ] {
        // The NQN of a controller without a file is one of its process.
        let steady =
            |line| text(line).lines().filter(|line| !line.contains("subnqn")).collect::<Vec<_>>().join("\n");
        assert_eq!(steady(line), steady(same), "{line}");
    }
    assert_eq!(succeeds(run("id-ctrl -b emu")).len(), 4096);
    assert_eq!(succeeds(run("admin-passthru emu -o 6 -r -4 1 -l 4096 -b")).len(), 4096);
    assert!(text("device-self-test emu -s 1 -n 1").contains("short test"));
    assert!(text("subsystem-reset emu").contains("ready again"));
    let error = fails(1, run("set-feature emu -f 4 -V 350 -s"));
    assert!(error.contains("Not Saveable"), "{error}");
    assert!(fails(2, run("set-feature emu -f 4 -V 350 threshold=3")).contains("cannot be used with"));
    let error = fails(2, run("log smart nowhere"));
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn registers_are_read_and_left_to_the_driver() {
    assert_eq!(json("property get emu --offset 0x1c")["value"], 1, "CSTS.RDY");
    let cap = json("get-property emu -O 0")["value"].as_u64().unwrap();
    assert_eq!(cap & 0xffff, 4095, "CAP.MQES");
    assert!(cap > u64::from(u32::MAX), "{cap:#x}");
    assert!(text("get-property emu --offset 8").starts_with("emu: property 0x8: 0x1"));
    for (arguments, part) in [
        ("property get emu --offset 6", "multiples of 4"),
        ("property set emu --offset 0x14 --value 0", "upcie reset"),
        ("property set emu --offset 0x20 --value 1", "0x4e564d65"),
    ] {
        let error = fails(1, run(arguments));
        assert!(error.contains(part), "{arguments}: {error}");
    }
    text("set-property emu --offset 0x20 -V 0x4e564d65");
}

/// Fields that are stored less one.
const ZEROS_BASED: &[&str] =
    &["acl", "aerl", "elpe", "npss", "awun", "awupf", "acwu", "nlbaf", "nawun", "nawupf", "nacwu", "msrc"];

/// `-o json` has nvme-cli's names, and the values that `--json` shows under the same names.
#[test]
fn nvme_clis_json_has_the_same_values() {
    let by_name = |arguments: &str| -> Value {
        serde_json::from_slice(&succeeds(run(&format!("{arguments} -o json")))).unwrap()
    };
    for (verb, least) in [("id-ctrl emu:serial=S-1", 40), ("id-ns emu:size=1M --namespace 1", 15)] {
        let (theirs, ours) = (by_name(verb), json(verb));
        let same: Vec<_> = theirs
            .as_object()
            .unwrap()
            .iter()
            .filter_map(|(name, value)| Some((name, value, ours["fields"].get(name)?.as_u64()?)))
            .collect();
        assert!(same.len() >= least, "{verb}: {} names in common", same.len());
        for (name, value, number) in same {
            // `--json` counts from one, nvme-cli from zero, as the structure does.
            let number = number - u64::from(ZEROS_BASED.contains(&name.as_str()));
            assert_eq!(value.as_u64(), Some(number), "{verb}: {name}");
        }
    }
    // Fields of 2.1 are in both.
    assert_eq!(by_name("id-ctrl emu")["cqt"], json("id-ctrl emu")["fields"]["cqt"]);
    let controller = by_name("id-ctrl emu:serial=S-1");
    assert_eq!(controller["sn"], "S-1                 ", "all 20 characters");
    assert_eq!(controller["psds"].as_array().unwrap().len(), 1);
    assert_eq!(by_name("id-ns emu:size=1M --namespace 1")["lbafs"][0]["ds"], 9);
    assert_eq!(by_name("smart-log emu")["temperature"], 300);
    assert_eq!(by_name("error-log emu")["errors"].as_array().unwrap().len(), 64);
    assert_eq!(by_name("fw-log emu")["emu"]["Active Firmware Slot (afi)"], 1);
    assert_eq!(by_name("effects-log emu")[0]["io_cmd_set"]["IOCS_2 (Read)"], 1);
    assert_eq!(by_name("get-feature emu 4")["feature: 0x04"][0]["name"], "Temperature Threshold");
    assert_eq!(succeeds(run("smart-log emu -o binary")).len(), 512);
    assert_eq!(text("smart-log emu -o normal"), text("smart-log emu"));
    assert!(fails(2, run("smart-log emu -o json --json")).contains("--json"));
    // No table for it: the names of `--json`.
    assert_eq!(by_name("log emu changed-ns-list-log")["structure"], "Changed Attached Namespace List (04h)");
}

/// Lists, and the states of what takes long, by nvme-cli's names.
#[test]
fn nvme_clis_json_has_lists() {
    let by_name = |arguments: &str| -> Value {
        serde_json::from_slice(&succeeds(run(&format!("{arguments} -o json")))).unwrap()
    };
    let both = serde_json::json!([{ "nsid": 1 }, { "nsid": 2 }]);
    for verb in ["list-ns", "id list-allocated-ns", "ns list"] {
        assert_eq!(by_name(&format!("{verb} emu:namespaces=2,nn=4"))["nsid_list"], both, "{verb}");
    }
    let controllers = by_name("list-ctrl emu");
    assert_eq!((&controllers["num_ctrl"], &controllers["ctrl_list"][0]["ctrl_id"]), (&1.into(), &1.into()));
    let emu = "emu:serial=DESCRIPTORS,version=2.1";
    let namespace = by_name(&format!("id-ns {emu}"));
    let descriptors = by_name(&format!("ns-descs {emu}"));
    let list = descriptors["ns-descs"].as_array().unwrap();
    let of = |name: &str| list.iter().find(|one| one["Type"] == name).unwrap();
    assert_eq!(of("eui64")["eui64"], namespace["eui64"]);
    assert_eq!(of("nguid")["nguid"], namespace["nguid"]);
    assert_eq!((of("uuid")["uuid"].as_str().unwrap().len(), &of("csi")["csi"]), (36, &"0".into()));
    let ends = list.iter().map(|one| one["loc"].as_u64().unwrap() + 4 + one["nidl"].as_u64().unwrap());
    let begins = list.iter().skip(1).map(|one| one["loc"].as_u64().unwrap());
    assert!(list[0]["loc"] == 0 && ends.take(list.len() - 1).eq(begins), "{list:?}");
    // Bit 0 of each entry: it is supported.
    let pages = by_name("supported-log-pages emu");
    assert_eq!(pages["supported_logs"][2]["lid_0x2 "].as_u64().unwrap() & 1, 1, "{pages}");
    let features = by_name("fid-support-effects-log emu");
    assert_eq!(features["fid_support"][0]["fid_1"].as_u64().unwrap() & 1, 1, "{features}");
    let tests = by_name("self-test-log emu");
    assert_eq!(tests["Current Device Self-Test Operation"], 0);
    assert_eq!(tests["List of Valid Reports"].as_array().unwrap().len(), 20);
    let sanitize = &by_name("sanitize-log emu")["emu"];
    assert_eq!((&sanitize["sprog"], &sanitize["sstat"]["global_erased"]), (&0xffff.into(), &0.into()));
    assert!(sanitize["sstat"]["status"].as_str().unwrap().starts_with("(0) "), "{sanitize}");
    let listed = by_name("list emu:size=1M,namespaces=2,lba=512+4096,serial=LISTED");
    let second = &listed["Devices"][1];
    assert_eq!((&second["NameSpace"], &second["SectorSize"]), (&2.into(), &4096.into()));
    assert_eq!((&second["MaximumLBA"], &second["PhysicalSize"]), (&256.into(), &(1 << 20).into()));
    assert_eq!(second["SerialNumber"], "LISTED");
    assert!(second["DevicePath"].as_str().unwrap().starts_with("emu"), "{second}");
    assert!(fails(2, run("list emu -o json --json")).contains("--json"));
}
