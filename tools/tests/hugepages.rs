//! Runs the `hugepages` program without changing the machine.

mod program;

use program::Dir;
use serde_json::Value;
use std::{fs, process::Output};

fn run(arguments: &str) -> Output {
    program::run(env!("CARGO_BIN_EXE_hugepages"), arguments)
}

#[track_caller]
fn succeeds(arguments: &str) -> String {
    String::from_utf8(program::succeeds(run(arguments))).unwrap()
}

/// Checks that a command fails; returns the message.
#[track_caller]
fn fails(code: i32, arguments: &str) -> String {
    program::complains(code, run(arguments))
}

/// Makes a root directory that looks like a system with systemd.
fn with_systemd(name: &str) -> Dir {
    let dir = Dir::made(name);
    fs::create_dir_all(dir.0.join("usr/lib/systemd")).unwrap();
    fs::write(dir.0.join("usr/lib/systemd/systemd"), "").unwrap();
    dir
}

/// Lists the kernel's page sizes by the names of its directories.
fn kernel_sizes() -> Vec<u64> {
    let list = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut sizes: Vec<_> = list
        .map(|entry| {
            let name = name(entry.unwrap());
            name.trim_start_matches("hugepages-").trim_end_matches("kB").parse::<u64>().unwrap() << 10
        })
        .collect();
    sizes.sort();
    sizes
}

#[test]
fn info_shows_every_pool() {
    let report: Value = serde_json::from_str(&succeeds("info --json")).unwrap();
    let pools = report["pools"].as_array().unwrap();
    let global: Vec<_> = pools.iter().filter(|pool| pool["node"].is_null()).collect();
    let sizes: Vec<_> = global.iter().map(|pool| pool["page_bytes"].as_u64().unwrap()).collect();
    assert_eq!(sizes, kernel_sizes());
    for pool in global {
        let kib = pool["page_bytes"].as_u64().unwrap() >> 10;
        let file = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages");
        assert_eq!(pool["total"].to_string(), fs::read_to_string(file).unwrap().trim());
    }
    for key in ["mounts", "processes", "dma_files"] {
        assert!(report[key].is_array(), "{key}: {report}");
    }
    assert!(report["processes_hidden"].is_u64());
    let text = succeeds("info");
    if kernel_sizes().contains(&(2 << 20)) {
        assert!(text.contains("RESERVED") && text.contains("2 MiB"), "{text}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let count = || fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").unwrap();
    let before = count();
    // One more than the current number: this neither shrinks the pool nor exceeds the memory.
    let wanted = before.trim().parse::<u64>().unwrap() + 1;
    let text = succeeds(&format!("setup --count {wanted} --dry-run --persist"));
    let file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    assert!(text.contains(&format!("would write {wanted} to {file}")), "{text}");
    let setting = format!("vm.nr_hugepages = {wanted}");
    assert!(text.contains("60-upcie-hugepages.conf") && text.contains(&setting), "{text}");
    assert_eq!(count(), before);
    // Other programs may have pages of this machine.
    let text = succeeds("clear --shrink --dry-run");
    assert!(
        text.contains(&format!("would write 0 to {file}")) || text.contains("nothing to clear"),
        "{text}"
    );
    assert_eq!(count(), before);
    let dir = Dir::made("huge-dry");
    let place = dir.0.join("huge");
    let text = succeeds(&format!("mount --dry-run --mode 0770 --owner root {}", place.display()));
    assert!(text.contains("pagesize=2M,mode=0770,uid=0,gid=0"), "{text}");
    assert!(!place.exists());
    // The options of the program of the same name on PyPI.
    let text = succeeds(&format!("mount --dry-run --pagesize 2048 --mountpoint {}", place.display()));
    assert!(text.contains("pagesize=2M") && text.contains(place.to_str().unwrap()), "{text}");
}

#[test]
fn links_and_parents_of_a_path_are_resolved() {
    let dir = Dir::made("huge-links");
    let real = fs::canonicalize(&dir.0).unwrap();
    fs::create_dir_all(real.join("real/inner")).unwrap();
    std::os::unix::fs::symlink("real/inner", real.join("link")).unwrap();
    let text = succeeds(&format!("mount --dry-run --persist {}/link/../huge", real.display()));
    let place = format!("{}/real/huge", real.display());
    for part in [
        format!("/link/../huge leads to {place}\n"),
        format!("hugetlbfs {place}\n"),
        format!("Where={place}\n"),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    let error = fails(1, &format!("mount --dry-run {}/none/../huge", real.display()));
    assert!(error.contains("without `..`"), "{error}");
    let error = fails(1, "mount --persist --root /nonexistent /mnt/../huge");
    assert!(error.contains("`..`"), "{error}");
}

#[test]
fn permanent_settings_are_written_below_a_root() {
    let dir = with_systemd("huge-persist");
    let root = dir.0.display();
    let text = succeeds(&format!("setup --count 7 --persist --root {root}"));
    assert!(text.contains("at each boot, by /etc/sysctl.d/60-upcie-hugepages.conf"), "{text}");
    assert!(dir.read("etc/sysctl.d/60-upcie-hugepages.conf").contains("\nvm.nr_hugepages = 7\n"));
    if kernel_sizes().contains(&(1 << 30)) {
        let text = succeeds(&format!("setup --count 2 --size 1G --persist --root {root}"));
        assert!(text.contains("systemctl enable 'upcie-hugepages-1G.service'"), "{text}");
        let unit = dir.read("etc/systemd/system/upcie-hugepages-1G.service");
        assert!(
            unit.contains("echo 2 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"),
            "{unit}"
        );
    }
    succeeds(&format!("mount --size 1G --owner root --mode 0750 --persist --root {root} /mnt/huge-1G"));
    let unit = dir.read("etc/systemd/system/mnt-huge\\x2d1G.mount");
    assert!(
        unit.contains("\nWhere=/mnt/huge-1G\n") && unit.contains("pagesize=1G,mode=0750,uid=0,gid=0\n"),
        "{unit}"
    );
}

#[test]
fn without_systemd_no_unit_is_written() {
    let dir = Dir::made("huge-none");
    let error = fails(1, &format!("mount --persist --root {} /mnt/huge", dir.0.display()));
    assert!(
        error.contains("no systemd") && error.contains("/etc/fstab: hugetlbfs /mnt/huge hugetlbfs"),
        "{error}"
    );
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn wrong_arguments_are_refused() {
    for (arguments, part) in [
        ("", "Usage"),
        ("setup", "--count"),
        ("setup --count many", "many"),
        ("setup --count 1 --size 3M", "2M"),
        ("setup --count 1 --root /tmp", "--persist"),
        ("mount --mode 999", "octal"),
        ("release 01:00", "domain:bus:device.function"),
        ("clear --count 3", "--count"),
        ("mount /mnt/a --mountpoint /mnt/b", "--mountpoint"),
        ("completions klingon", "klingon"),
    ] {
        let error = fails(2, arguments);
        assert!(error.contains(part), "{arguments}: {error}");
    }
    for (arguments, part) in [
        ("setup --count 1 --node 99", "on node 99"),
        ("mount --owner no-such-user /tmp/upcie-absent", "no user"),
        ("mount /proc", "another file system is mounted"),
        ("clear --node 99", "on node 99"),
        ("unmount /proc", "no hugetlbfs is mounted at /proc"),
        ("unmount /tmp/upcie-absent", "`hugepages info`"),
        ("mount /dev/null", "not a directory"),
    ] {
        let error = fails(1, arguments);
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn completions_know_the_commands() {
    let script = succeeds("completions bash");
    for word in ["info", "setup", "clear", "mount", "unmount", "release", "--persist"] {
        assert!(script.contains(word), "{word}");
    }
}
