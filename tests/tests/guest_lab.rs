//! The guest has the properties that the other suites rely on: functions bound to vfio-pci in groups of their
//! own, their device nodes, huge pages, the tools.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the addresses that the suites are given.
fn devices() -> Vec<String> {
    let value = env::var("UPCIE_TEST_DEVICES").expect("UPCIE_TEST_DEVICES is set");
    value.split(',').map(str::to_owned).collect()
}

fn sysfs(device: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(device)
}

/// Returns the last part of the target of a link in sysfs.
fn link(path: &Path) -> String {
    let target = fs::read_link(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    target.file_name().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn the_guest_is_marked() {
    assert_eq!(env::var("UPCIE_GUEST").as_deref(), Ok("1"), "guest_ suites run in the guest only");
    assert_eq!(devices(), ["0000:01:00.0", "0000:02:00.0"]);
}

#[test]
fn both_controllers_are_bound_to_vfio_pci() {
    for device in devices() {
        let class = fs::read_to_string(sysfs(&device).join("class")).expect("a class");
        assert_eq!(class.trim(), "0x010802", "{device} is an NVMe controller");
        assert_eq!(link(&sysfs(&device).join("driver")), "vfio-pci", "{device}");
    }
}

#[test]
fn each_function_has_its_own_group_and_nodes() {
    let mut groups = BTreeSet::new();
    for device in devices() {
        let group = link(&sysfs(&device).join("iommu_group"));
        let members = fs::read_dir(sysfs(&device).join("iommu_group/devices")).expect("members").count();
        assert_eq!(members, 1, "{device} is alone in group {group}");
        assert!(Path::new("/dev/vfio").join(&group).exists(), "/dev/vfio/{group}");
        let cdev = fs::read_dir(sysfs(&device).join("vfio-dev")).expect("a vfio-dev").next();
        let cdev = cdev.expect("one entry").expect("readable").file_name();
        assert!(Path::new("/dev/vfio/devices").join(&cdev).exists(), "/dev/vfio/devices/{cdev:?}");
        groups.insert(group);
    }
    assert_eq!(groups.len(), devices().len());
    assert!(Path::new("/dev/vfio/vfio").exists());
    assert!(Path::new("/dev/iommu").exists());
}

#[test]
fn controller_a_has_a_memory_buffer() {
    let text = fs::read_to_string(sysfs("0000:01:00.0").join("resource")).expect("resource");
    let line = text.lines().nth(2).expect("BAR 2");
    let words: Vec<_> = line
        .split_whitespace()
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("hexadecimal"))
        .collect();
    assert_eq!(words[1] - words[0] + 1, 16 << 20, "BAR 2 is the CMB");
}

#[test]
fn huge_pages_are_reserved() {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").expect("a count");
    assert_eq!(text.trim(), "64");
}

#[test]
fn file_systems_and_tools_are_there() {
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    for path in ["/dev/shm", "/dev/hugepages", "/sys/kernel/debug", "/tmp"] {
        assert!(mounts.lines().any(|line| line.split(' ').nth(1) == Some(path)), "{path} is mounted");
    }
    let bin = PathBuf::from(env::var_os("UPCIE_BIN").expect("UPCIE_BIN is set"));
    for tool in ["upcie", "nvme-emu", "hugepages"] {
        assert!(bin.join(tool).is_file(), "{tool} is in {}", bin.display());
    }
}

#[test]
fn there_is_a_plain_user() {
    let output =
        Command::new("su").args(["user", "-s", "/bin/sh", "-c", "id -u"]).output().expect("su starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "1000");
}
