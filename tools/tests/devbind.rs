//! Runs the `devbind` program without changing anything; the guest suite `guest_devbind` changes drivers.

mod program;

use program::{Dir, fails};
use serde_json::Value;
use std::{fs, process::Output};

fn run(arguments: &str) -> Output {
    program::run(env!("CARGO_BIN_EXE_devbind"), arguments)
}

fn succeeds(output: Output) -> String {
    String::from_utf8(program::succeeds(output)).unwrap()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Lists all functions of this machine.
fn functions() -> Vec<Value> {
    let text = succeeds(run("list --class all --json"));
    let Value::Array(all) = serde_json::from_str(&text).unwrap() else { panic!("no array: {text}") };
    all
}

fn option(state: &Dir) -> String {
    format!("--state-dir {}", state.0.display())
}

#[test]
fn the_list_matches_sysfs() {
    let mut expected: Vec<_> = fs::read_dir("/sys/bus/pci/devices")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    expected.sort();
    let all = functions();
    let listed: Vec<_> = all.iter().map(|function| function["address"].as_str().unwrap()).collect();
    assert_eq!(listed, expected);
    for function in &all {
        for key in
            ["vendor", "device", "class", "driver", "iommu_group", "numa_node", "model", "size", "nodes"]
        {
            assert!(function.get(key).is_some(), "{key}: {function}");
        }
        assert!(function["in_use"].is_array() && function["before"].is_null(), "{function}");
    }
    let table = succeeds(run("list --class all -v"));
    for address in &expected {
        assert!(table.lines().any(|line| line.starts_with(address)), "{address}: {table}");
    }
    if !expected.is_empty() {
        has(
            table.lines().next().unwrap(),
            &["ADDRESS", "MODEL", "SIZE", "DRIVER", "GROUP", "NUMA", "IN USE"],
        );
    }
}

#[test]
fn a_class_is_a_name_or_the_start_of_a_code() {
    let all = functions();
    let class = |function: &Value| format!("{:06x}", function["class"].as_u64().unwrap());
    for prefix in ["0", "01", "0108", "010802", "060400", "0x06"] {
        let text = succeeds(run(&format!("list --class {prefix} --json")));
        let listed: Vec<Value> = serde_json::from_str(&text).unwrap();
        let prefix = prefix.trim_start_matches("0x");
        assert_eq!(listed.len(), all.iter().filter(|function| class(function).starts_with(prefix)).count());
    }
    let output = run("list --class ffffff");
    has(&String::from_utf8_lossy(&output.stderr), &["None of the", "--class all"]);
    assert!(succeeds(output).is_empty());
    has(&fails(2, run("list --class disks")), &["nvme, all, or a class code"]);
}

#[test]
fn a_dry_run_shows_the_writes_or_the_users() {
    let dir = Dir::new("dry");
    for function in functions() {
        let bdf = function["address"].as_str().unwrap();
        let uses = function["in_use"].as_array().unwrap();
        let output = run(&format!("bind uio_pci_generic {bdf} --dry-run {}", option(&dir)));
        if function["driver"] == "uio_pci_generic" {
            has(&succeeds(output), &["already"]);
        } else if output.status.success() {
            assert!(uses.is_empty() || function["driver"].is_null(), "{function}");
            let text = succeeds(output);
            has(
                &text,
                &[&format!("{bdf}/driver_override <- uio_pci_generic"), "dry run: nothing was changed"],
            );
            has(&text, &[&format!("/sys/bus/pci/drivers_probe <- {bdf}")]);
            assert_eq!(text.contains("/driver/unbind <- "), !function["driver"].is_null(), "{text}");
        } else {
            has(&fails(1, output), &[bdf, "is in use", "--force"]);
        }
    }
    assert!(!dir.0.exists(), "a dry run keeps nothing");
}

#[test]
fn vfio_without_an_iommu_is_refused_before_a_change() {
    let dir = Dir::new("iommu");
    let parameter = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    if fs::read_to_string(parameter).is_ok_and(|text| text.trim() == "Y") {
        return println!("left out: the no-IOMMU mode is on here");
    }
    let without = |function: &&Value| function["iommu_group"].is_null() && function["driver"] != "vfio-pci";
    for function in functions().iter().filter(without) {
        let bdf = function["address"].as_str().unwrap();
        let error = fails(1, run(&format!("bind vfio-pci {bdf} {}", option(&dir))));
        // A user of the function is reported first.
        let words: &[&str] = match function["in_use"].as_array().unwrap().is_empty() {
            true => &["no IOMMU", "intel_iommu=on", "--unsafe-noiommu", "uio_pci_generic"],
            false => &["is in use", "--force"],
        };
        has(&error, &[&[bdf], words].concat());
        let output = run(&format!("bind vfio-pci {bdf} --unsafe-noiommu --force --dry-run {}", option(&dir)));
        has(&String::from_utf8_lossy(&output.stderr), &["tainted", "all memory"]);
        has(&succeeds(output), &["enable_unsafe_noiommu_mode <- Y", "driver_override <- vfio-pci"]);
    }
    assert!(!dir.0.exists());
}

#[test]
fn a_missing_function_is_named() {
    let dir = Dir::new("missing");
    for command in ["bind vfio-pci", "unbind"] {
        let error = fails(1, run(&format!("{command} 3f:1f.7 {}", option(&dir))));
        has(&error, &["0000:3f:1f.7", "no such device"]);
    }
    let error = fails(1, run(&format!("restore 3f:1f.7 {}", option(&dir))));
    has(&error, &["0000:3f:1f.7", "no such device"]);
    let nothing = Dir::new("nothing");
    let text = succeeds(run(&format!("restore --timeout 500ms {}", option(&nothing))));
    has(&text, &["nothing to restore"]);
    assert!(!nothing.0.exists(), "so a plain user is told the same");
    has(&fails(1, run("bind vfio-pci 3f:1f.7 --owner no-such-user")), &["no user", "no-such-user"]);
}

#[test]
fn a_disk_stands_for_its_function() {
    let dir = Dir::new("named");
    for entry in fs::read_dir("/sys/class/block").into_iter().flatten().flatten() {
        let Ok(path) = fs::canonicalize(entry.path()) else { continue };
        let on = |part: &str| path.to_str().is_some_and(|path| path.contains(part));
        if !on("/pci") || !(on("/nvme/nvme") || on("/virtio")) || on("/host") || on("/usb") {
            continue;
        }
        // The name of the function is told first, also of one that can't be unbound.
        let name = entry.file_name().into_string().unwrap();
        let output = run(&format!("unbind /dev/{name} --dry-run {}", option(&dir)));
        has(&String::from_utf8_lossy(&output.stdout), &[&format!("{name} is ")]);
    }
}

#[test]
fn dpdk_devbinds_options_work() {
    assert_eq!(succeeds(run("--status --json")), succeeds(run("list --json")));
    succeeds(run("status"));
    let dir = Dir::new("dpdk");
    let error = fails(1, run(&format!("--dry-run {} -u 3f:1f.7", option(&dir))));
    has(&error, &["0000:3f:1f.7", "no such device"]);
    let error = fails(1, run(&format!("--force --bind=vfio-pci 3f:1f.7 {}", option(&dir))));
    has(&error, &["0000:3f:1f.7", "no such device"]);
    assert!(!succeeds(run("--help")).contains("--status"), "hidden");
}

#[test]
fn every_refused_function_is_reported() {
    let error = fails(1, run("unbind 3f:1f.7 3e:1f.7 3f:1f.7 --dry-run"));
    assert_eq!(error.lines().count(), 2, "one for each: {error}");
    has(&error, &["0000:3e:1f.7", "0000:3f:1f.7"]);
}

#[test]
fn an_unknown_driver_is_named() {
    let Some(function) = functions().into_iter().find(|it| it["in_use"] == Value::Array(vec![])) else {
        return println!("left out: there is no function here that nothing uses");
    };
    let dir = Dir::new("driver");
    let bdf = function["address"].as_str().unwrap();
    let error = fails(1, run(&format!("bind no-such-driver {bdf} {}", option(&dir))));
    has(&error, &["no PCI driver no-such-driver"]);
    assert!(!dir.0.join(format!("{bdf}.json")).exists());
    let output = run(&format!("bind no-such-driver {bdf} --dry-run {}", option(&dir)));
    has(&String::from_utf8_lossy(&output.stderr), &["no PCI driver no-such-driver", "the bind fails"]);
    has(&succeeds(output), &["dry run: nothing was changed"]);
    has(
        &fails(1, run(&format!("bind ../nvme {bdf} {}", option(&dir)))),
        &["../nvme", "a name like vfio-pci"],
    );
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (arguments, words) in [
        ("bind vfio-pci", "FUNCTION"),
        ("unbind", "FUNCTION"),
        ("bind vfio-pci 01:00", "0000:01:00.0 or 01:00.0"),
        ("unbind 01:00.8", "0000:01:00.0 or 01:00.0"),
        ("unbind no-such-disk", "no disk, controller or interface of this machine"),
        ("-b vfio-pci", "FUNCTION"),
        ("bind nvme 01:00.0 --owner root", "--owner needs vfio-pci"),
        ("bind uio_pci_generic 01:00.0 --unsafe-noiommu", "--unsafe-noiommu needs vfio-pci"),
        ("unbind 01:00.0 --timeout 0", "above 0"),
        ("unbind 01:00.0 --timeout 2h", "an hour at most"),
        ("unbind 01:00.0 --timeout soon", "not a time"),
    ] {
        has(&fails(2, run(arguments)), &[words]);
    }
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeds(run(&format!("completions {shell}")));
        has(&script, &["devbind", "restore", "unsafe-noiommu", "state-dir"]);
    }
}
