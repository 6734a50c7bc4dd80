//! `hugepages`, the program and upcie-core's module, on a kernel that a test may change: pools, mounts, and
//! memory that is released only after its device is off the bus.

mod clear;
mod release;
mod system;

use nix::sys::signal::Signal;
use std::{
    fs,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Instant,
};
use upcie_core::{
    Failure,
    hugetlb::{self, Mount, NamedFile, create_file, leftovers, mount_for},
    memory::{Memory, PageSize},
    mmio::Mapping,
    pci::Bdf,
};
use upcie_tests::{
    deadline,
    process::{Process, programs},
    says,
};

const PAGE: u64 = 2 << 20;

fn program() -> PathBuf {
    programs().join("hugepages")
}

fn run(arguments: &str) -> Output {
    Command::new(program()).args(arguments.split_whitespace()).output().expect("hugepages starts")
}

#[track_caller]
fn succeeds(arguments: &str) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn fails(arguments: &str) -> String {
    let output = run(arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments}: {error}");
    error
}

#[track_caller]
fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn as_user(arguments: &str) -> Output {
    let line = format!("{} {arguments}", program().display());
    Command::new("su").args(["user", "-s", "/bin/sh", "-c", &line]).output().expect("su starts")
}

fn controller() -> Bdf {
    "0000:02:00.0".parse().expect("an address")
}

fn total() -> u64 {
    hugetlb::pool(PageSize::Huge2M, None).expect("a pool").total
}

fn free() -> u64 {
    hugetlb::pool(PageSize::Huge2M, None).expect("a pool").available()
}

fn mount() -> Mount {
    mount_for(PageSize::Huge2M).expect("a mount")
}

/// Makes a named file that no process has open any more.
fn leave_behind(bdf: Bdf) -> PathBuf {
    let file = create_file(&mount(), bdf, 1).expect("a page");
    file.path().to_owned()
}

fn map(file: &NamedFile) -> Mapping {
    Mapping::new(file.as_fd(), 0, file.len() as usize, "test").expect("mapped")
}

#[test]
fn a_pool_grows_and_shrinks() {
    assert_eq!(total(), 64, "as init made it");
    contains_all(&succeeds("setup --count 70"), &["70 pages of 2 MiB", "before: 64", "--persist"]);
    assert_eq!(total(), 70);
    // A pool that another user sized gets smaller only with `--shrink`.
    contains_all(&succeeds("setup --count 64"), &["70 pages of 2 MiB", "6 more than asked for", "--shrink"]);
    assert_eq!(total(), 70);
    succeeds("setup --count 64 --shrink");
    let there = hugetlb::pool(PageSize::Huge2M, Some(0)).expect("a pool").total;
    let line = format!("{} pages of 2 MiB on node 0", there + 1);
    contains_all(&succeeds(&format!("setup --count {} --node 0", there + 1)), &[&line]);
    assert_eq!(total(), 65);
    succeeds(&format!("setup --count {there} --node 0 --shrink"));
    assert_eq!((total(), free()), (64, 64));
}

#[test]
fn pages_in_use_stay_until_they_are_freed() {
    let file = create_file(&mount(), controller(), PAGE * 3).unwrap();
    contains_all(&succeeds("setup --count 0 --shrink"), &["3 pages", "3 more than asked for are in use"]);
    file.remove().unwrap();
    drop(file);
    assert_eq!(total(), 0);
    succeeds("setup --count 64");
    assert_eq!(free(), 64);
}

#[test]
fn a_pool_that_gets_fewer_pages_than_asked_for_is_an_error() {
    // More than the guest has memory for, in pages so large that none is free by accident.
    let total = || hugetlb::pool(PageSize::Huge1G, None).unwrap().total;
    for how in ["", " --dry-run"] {
        let error = fails(&format!("setup --size 1G --count 16{how}"));
        contains_all(&error, &["16 pages of 1 GiB are 16 GiB", "this machine has"]);
    }
    // Pages for all of the memory, a part of which the kernel itself uses: the tool gives the pages back that
    // it got.
    let memory = memory_in_pages();
    let error = fails(&format!("setup --size 2M --count {memory}"));
    contains_all(&error, &[&format!("of {memory} pages of 2M"), "compact_memory", "There are 64 pages"]);
    assert_eq!((self::total(), total()), (64, 0), "a failed call keeps nothing");
}

/// A signal cuts the kernel's work short: the pages that it made until then stayed.
#[test]
fn an_interrupted_setup_puts_the_pool_back() {
    let mut command = Command::new(program());
    command.args(["setup", "--count", &memory_in_pages().to_string()]);
    let mut setup = Process::start(command);
    let end = Instant::now() + deadline();
    while total() == 64 && setup.is_running() {
        assert!(Instant::now() < end, "the pool does not grow");
        std::thread::yield_now();
    }
    // On one processor it may have ended before this thread saw a page: then it has put them back for want of memory.
    if setup.is_running() {
        setup.signal(Signal::SIGINT);
    }
    let (status, errors) = setup.finish();
    assert!([Some(1), Some(130)].contains(&status.code()), "{status}: {errors}");
    assert_eq!(total(), 64, "{errors}");
}

/// Returns the machine's memory in pages of 2 MiB.
fn memory_in_pages() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 11
}

#[test]
fn a_named_file_gets_all_its_pages_or_none() {
    let before = free();
    let file = create_file(&mount(), controller(), PAGE + 1).unwrap();
    assert_eq!((file.len(), before - free()), (2 * PAGE, 2), "present, not just promised");
    let data = fs::metadata(file.path()).unwrap();
    assert_eq!((data.mode() & 0o777, data.len()), (0o600, 2 * PAGE));
    let error = create_file(&mount(), controller(), PAGE * (before + 1)).unwrap_err();
    assert!(matches!(error.failure(), Failure::Memory { .. }), "{error}");
    says(&error, &[&format!("{} of 64 pages are free", before - 2), "hugepages setup --size 2M"]);
    let found = leftovers().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].bdf, found[0].pid, found[0].bytes), (controller(), std::process::id(), 2 * PAGE));
    drop(file);
    assert_eq!(free(), before - 2, "it outlives its handle");
    leftovers().unwrap().remove(0).remove().unwrap();
    assert_eq!(free(), before);
}

/// Counts the pages at this address by node, as the kernel reports them.
fn pages_by_node(address: usize) -> Vec<(u32, u64)> {
    let maps = fs::read_to_string("/proc/self/numa_maps").unwrap();
    let start = format!("{address:08x} ");
    let line =
        maps.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}: {maps}"));
    let counts = line.split(' ').filter_map(|word| {
        let (node, count) = word.strip_prefix('N')?.split_once('=')?;
        Some((node.parse().ok()?, count.parse().ok()?))
    });
    counts.collect()
}

#[test]
fn memory_is_allocated_on_the_requested_node() {
    let nodes: Vec<u32> =
        (0..8).filter(|node| Path::new(&format!("/sys/devices/system/node/node{node}")).exists()).collect();
    println!("nodes: {nodes:?}");
    for &node in &nodes {
        for page in [PageSize::Small, PageSize::Huge2M] {
            let memory = Memory::new_on(page.bytes() * 5, page, Some(node)).unwrap();
            assert_eq!(pages_by_node(memory.as_ptr() as usize), [(node, 5)], "{page}");
        }
    }
    // More pages than one node has: the other nodes supply the rest.
    let free = free();
    let memory = Memory::new_on((PAGE * free) as usize, PageSize::Huge2M, nodes.last().copied()).unwrap();
    let there = pages_by_node(memory.as_ptr() as usize);
    assert_eq!((there.len(), there.iter().map(|(_, count)| count).sum()), (nodes.len(), free), "{there:?}");
    drop(memory);
    let error =
        Memory::new_on((PAGE * (free + 1)) as usize, PageSize::Huge2M, nodes.last().copied()).unwrap_err();
    if let [_, .., last] = nodes[..] {
        says(&error, &[&format!("on node {last})")]);
    }
}

#[test]
fn a_mount_is_made_once_and_has_its_owner() {
    let path = Path::new("/tmp/huge pages");
    let line = |options: &str| {
        Command::new(program()).arg("mount").arg(path).args(options.split_whitespace()).output().unwrap()
    };
    let output = line("--owner user --mode 0700");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let data = fs::metadata(path).unwrap();
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o7777), (1000, 1000, 0o700));
    let mounts = hugetlb::mounts().unwrap();
    let mount = mounts.iter().find(|mount| mount.path == path).expect("in the kernel's list");
    assert_eq!((mount.page_bytes, mount.is_writable), (PAGE, true));
    let output = line("--mode 0750");
    contains_all(&String::from_utf8_lossy(&output.stdout), &["already", "owner 1000", "mode 0750"]);
    assert_eq!(hugetlb::mounts().unwrap(), mounts, "not mounted again");
    let output = line("--size 1G");
    assert_eq!(output.status.code(), Some(1));
    contains_all(&String::from_utf8_lossy(&output.stderr), &["already", "not 1G"]);
    assert!(Command::new("umount").arg(path).status().unwrap().success());
    fs::remove_dir(path).unwrap();
}

#[test]
fn a_mount_by_a_link_is_made_and_changed_at_its_target() {
    let at = |path: &str| Path::new("/tmp/huge links").join(path);
    fs::create_dir_all(at("real/inner")).unwrap();
    std::os::unix::fs::symlink("real/inner", at("link")).unwrap();
    let line = |path: &str, options: &str| {
        let mut command = Command::new(program());
        let output = command.arg("mount").arg(at(path)).args(options.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = line("link/../huge", "--mode 0700");
    contains_all(
        &said,
        &["/link/../huge leads to /tmp/huge links/real/huge", "is mounted at /tmp/huge links/real/huge"],
    );
    let there = || hugetlb::mounts().unwrap().iter().filter(|mount| mount.path == at("real/huge")).count();
    assert_eq!(there(), 1);
    assert!(!at("huge").exists());
    contains_all(&line("link/../huge", "--mode 0750"), &["already", "mode 0750"]);
    assert_eq!((there(), fs::metadata(at("real/huge")).unwrap().mode() & 0o7777), (1, 0o750));
    assert!(Command::new("umount").arg(at("real/huge")).status().unwrap().success());
    fs::remove_dir_all(at("")).unwrap();
}

#[test]
fn info_names_the_users_of_huge_pages() {
    let file = create_file(&mount(), controller(), PAGE * 2).unwrap();
    let mapping = map(&file);
    let me = std::process::id();
    let report: serde_json::Value = serde_json::from_str(&succeeds("info --json")).unwrap();
    let process = report["processes"].as_array().unwrap().iter().find(|user| user["pid"] == me);
    let process = process.unwrap_or_else(|| panic!("{report}"));
    assert_eq!(process["bytes"], PAGE * 2);
    assert_eq!(process["files"][0], file.path().to_str().unwrap());
    assert_eq!(report["dma_files"][0]["running"], true);
    assert_eq!(report["mounts"][0]["files_bytes"], PAGE * 2);
    contains_all(&succeeds("info"), &[&me.to_string(), "runs", "0000:02:00.0", "4 MiB", "/dev/hugepages"]);
    drop(mapping);
    file.remove().unwrap();
}

#[test]
fn info_tells_a_plain_user_what_is_missing() {
    let output = as_user("info");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    contains_all(
        &String::from_utf8_lossy(&output.stdout),
        &["2 MiB", "64", "Processes not inspected, for lack of permission (root can): "],
    );
    let output = as_user("setup --count 65");
    assert_eq!(output.status.code(), Some(1));
    contains_all(&String::from_utf8_lossy(&output.stderr), &["only root may", "nr_hugepages"]);
    let left = leave_behind(controller());
    let output = as_user("release");
    assert_eq!(output.status.code(), Some(1));
    contains_all(&String::from_utf8_lossy(&output.stderr), &["not released", "only root may"]);
    assert!(left.exists());
    fs::remove_file(left).unwrap();
    // The user can't write to the mount any more.
    let before = fs::metadata("/dev/hugepages").unwrap().permissions();
    fs::set_permissions("/dev/hugepages", fs::Permissions::from_mode(0o700)).unwrap();
    let output = as_user("info");
    fs::set_permissions("/dev/hugepages", before).unwrap();
    contains_all(&String::from_utf8_lossy(&output.stdout), &["can't be seen", "/dev/hugepages"]);
}
