use super::{
    file::{create_file, parse_name},
    mount::{choose, mounts_in},
    pool::{find, pools_below},
    *,
};
use crate::{Failure, page::PageSize, pci::Bdf};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// A directory for one test, removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("upcie-hugetlb-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn pool(&self, parent: &str, kib: u64, [total, free, reserved, surplus]: [u64; 4]) -> PathBuf {
        let path = self.0.join(parent).join(format!("hugepages/hugepages-{kib}kB"));
        fs::create_dir_all(&path).unwrap();
        for (name, value) in [("nr_", total), ("free_", free), ("resv_", reserved), ("surplus_", surplus)] {
            fs::write(path.join(format!("{name}hugepages")), format!("{value}\n")).unwrap();
        }
        path
    }

    /// Makes a mount as far as the code can tell: a directory, and pages of 4 KiB.
    fn mount(&self) -> Mount {
        let device = fs::metadata(&self.0).unwrap().dev();
        Mount { path: self.0.clone(), page_bytes: 4096, is_writable: true, device }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bdf() -> Bdf {
    "0000:01:00.0".parse().unwrap()
}

#[test]
fn a_file_for_two_devices_stays_until_both_names_go() {
    let dir = Dir::new("names");
    let other: Bdf = "0000:02:00.0".parse().unwrap();
    let names = || dir.mount().leftovers().unwrap().into_iter().map(|file| file.bdf).collect::<Vec<_>>();
    let file = create_file(&dir.mount(), bdf(), 4096).unwrap();
    file.also_for(other).unwrap();
    file.also_for(other).expect("it has it already");
    assert_eq!(names(), [bdf(), other]);
    // Removing a leftover of the one device keeps the file for the other.
    dir.mount().leftovers().unwrap().remove(0).remove().unwrap();
    assert_eq!(names(), [other]);
    assert_eq!(file.file().metadata().unwrap().nlink(), 1);
    let left = dir.mount().leftovers().unwrap().remove(0);
    left.also_for(bdf()).unwrap();
    assert_eq!(names(), [bdf(), other]);
    // A name that belongs to another file can't be added.
    let third: Bdf = "0000:03:00.0".parse().unwrap();
    let name = file.path().to_str().unwrap().replace("0000:01:00.0", "0000:03:00.0");
    fs::write(&name, "").unwrap();
    assert!(file.also_for(third).unwrap_err().to_string().contains("0000:03:00.0"));
    file.remove().unwrap();
    assert_eq!(names(), [third], "all names of its own go at once");
}

#[test]
fn pools_of_the_machine_and_its_nodes_are_listed() {
    let dir = Dir::new("pools");
    dir.pool("kernel/mm", 1 << 20, [1, 1, 0, 0]);
    dir.pool("kernel/mm", 2048, [64, 10, 4, 2]);
    let node = dir.pool("devices/system/node/node1", 2048, [32, 5, 0, 1]);
    // The kernel does not count them by node.
    fs::remove_file(node.join("resv_hugepages")).unwrap();
    fs::create_dir_all(dir.0.join("devices/system/node/power/hugepages/hugepages-2048kB")).unwrap();
    let pools = pools_below(&dir.0).unwrap();
    let seen: Vec<_> =
        pools.iter().map(|p| (p.page_bytes >> 20, p.node, p.total, p.free, p.reserved, p.surplus)).collect();
    assert_eq!(
        seen,
        [(2, None, 64, 10, Some(4), 2), (2, Some(1), 32, 5, None, 1), (1024, None, 1, 1, Some(0), 0)]
    );
    assert_eq!((pools[0].available(), pools[1].available()), (6, 5), "reserved pages are not available");
    assert_eq!(pools[2].page_size(), Some(PageSize::Huge1G));
    let error = find(pools.clone(), PageSize::Huge1G, Some(1)).unwrap_err().to_string();
    assert!(error.contains("1 GiB on node 1") && error.contains("2M on node 1"), "{error}");
    assert_eq!(find(pools, PageSize::Huge2M, Some(1)).unwrap().total, 32);
    assert!(pools_below(&dir.0.join("absent")).unwrap().is_empty());
    fs::write(node.join("free_hugepages"), "many").unwrap();
    let error = pools_below(&dir.0).unwrap_err().to_string();
    assert!(error.contains("node1") && error.contains("many"), "{error}");
}

#[test]
fn setting_a_pool_returns_the_kernels_count() {
    let dir = Dir::new("set");
    let path = dir.pool("kernel/mm", 2048, [64, 10, 4, 0]);
    let mut pool = pools_below(&dir.0).unwrap().remove(0);
    assert_eq!(pool.set(100).unwrap(), 100);
    assert_eq!(fs::read_to_string(pool.file()).unwrap(), "100");
    // A file whose count does not change.
    fs::remove_file(path.join("nr_hugepages")).unwrap();
    symlink("/dev/full", path.join("nr_hugepages")).unwrap();
    let error = pool.set(7).unwrap_err().to_string();
    assert!(error.contains("requesting 7 huge pages"), "{error}");
    assert_eq!(pool.total, 100, "the pool is unchanged");
}

/// Makes a line of mountinfo for an existing directory, and so a known device.
fn line(path: &Path, fstype: &str, options: &str) -> String {
    let device = fs::metadata(path).unwrap().dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let path = path.to_str().unwrap().replace(' ', "\\040");
    format!("36 35 {major}:{minor} / {path} rw,noatime shared:1 master:2 - {fstype} none {options}\n")
}

#[test]
fn mounts_have_page_sizes_and_hidden_ones_are_skipped() {
    let dir = Dir::new("mounts");
    let (small, large) = (dir.0.join("with space"), dir.0.join("large"));
    fs::create_dir(&small).unwrap();
    fs::create_dir(&large).unwrap();
    let hidden = line(&small, "hugetlbfs", "rw,pagesize=2M").replacen("36 35 ", "36 35 9", 1);
    let text = [
        line(&dir.0, "tmpfs", "rw,pagesize=2M"),
        hidden,
        line(&small, "hugetlbfs", "rw,relatime,pagesize=2M"),
        line(&large, "hugetlbfs", "rw,pagesize=1024M"),
        line(&large, "hugetlbfs", "rw"),
        "garbage\n".into(),
        "1 2 x:y / /p rw - hugetlbfs none rw\n".into(),
    ]
    .concat();
    let file = dir.0.join("mountinfo");
    fs::write(&file, text).unwrap();
    let mounts = mounts_in(&file).unwrap();
    let seen: Vec<_> = mounts.iter().map(|m| (m.path.as_path(), m.page_bytes, m.is_writable)).collect();
    let block = nix::sys::statvfs::statvfs(&large).unwrap().block_size();
    assert_eq!(seen, [(&*small, 2 << 20, true), (&*large, 1 << 30, true), (&*large, block, true)]);
    assert!(mounts_in(&dir.0.join("absent")).is_err());
}

#[test]
fn the_first_writable_mount_is_chosen() {
    let dir = Dir::new("choose");
    let mount = |bytes, is_writable| Mount { page_bytes: bytes, is_writable, ..dir.mount() };
    let mounts = vec![mount(1 << 30, true), mount(2 << 20, false)];
    let error = choose(mounts.clone(), PageSize::Huge2M).unwrap_err();
    assert!(matches!(error.failure(), Failure::Unusable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("may not create files in") && text.contains("hugepages mount --size 2M"), "{text}");
    let text = choose(Vec::new(), PageSize::Huge1G).unwrap_err().to_string();
    assert!(text.contains("none is mounted") && text.contains("hugepages mount --size 1G"), "{text}");
    assert_eq!(choose(mounts.clone(), PageSize::Huge1G).unwrap(), mounts[0]);
    assert!(choose(mounts, PageSize::Small).is_err());
}

/// Soundness R1: an owner or writer of the directory could remove the name of a file.
#[test]
fn a_mount_that_others_can_change_is_refused() {
    let dir = Dir::new("others");
    let (outer, inner) = (dir.0.join("outer"), dir.0.join("outer/inner"));
    fs::create_dir_all(&inner).unwrap();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let mount = |path: &Path| Mount { path: path.into(), page_bytes: 2 << 20, ..dir.mount() };
    let chosen = || choose(vec![mount(&inner)], PageSize::Huge2M);
    mode(&outer, 0o755);
    for (bits, good) in [(0o755, true), (0o775, false), (0o757, false), (0o1777, true), (0o700, true)] {
        mode(&inner, bits);
        assert_eq!(chosen().is_ok(), good, "{bits:o}");
    }
    // The same is true for a user who can replace a parent directory.
    mode(&outer, 0o777);
    let text = chosen().unwrap_err().to_string();
    for part in [inner.to_str().unwrap(), outer.to_str().unwrap(), "mode 0777", "hugepages mount --size 2M"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The next mount that qualifies is chosen.
    let good = dir.0.join("good");
    fs::create_dir(&good).unwrap();
    mode(&good, 0o755);
    assert_eq!(choose(vec![mount(&inner), mount(&good)], PageSize::Huge2M).unwrap().path, good);
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&good, Some(4711), None).unwrap();
        let text = choose(vec![mount(&good)], PageSize::Huge2M).unwrap_err().to_string();
        assert!(text.contains("belongs to user 4711"), "{text}");
    }
}

#[test]
fn a_named_file_outlives_its_handle_and_is_found_again() {
    let dir = Dir::new("file");
    let mount = dir.mount();
    let first = create_file(&mount, bdf(), 1).unwrap();
    let second = create_file(&mount, bdf(), 4097).unwrap();
    assert_ne!(first.path(), second.path());
    assert_eq!((first.len(), second.len()), (4096, 8192), "whole pages");
    let data = first.file().metadata().unwrap();
    assert_eq!((data.permissions().mode() & 0o777, data.len(), data.blocks() * 512), (0o600, 4096, 4096));
    let flags = nix::fcntl::fcntl(&first, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, libc::FD_CLOEXEC);
    let kept = second.path().to_owned();
    drop(second);
    first.remove().unwrap();
    first.remove().expect("a removed file is no error");
    // Foreign names are ignored.
    fs::write(dir.0.join("upcie-0000:01:00.0-1-x"), "").unwrap();
    fs::create_dir(dir.0.join("upcie-0000:01:00.0-1-1")).unwrap();
    symlink("/etc/passwd", dir.0.join("upcie-0000:01:00.0-1-2")).unwrap();
    let mut found = mount.leftovers().unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let left = found.remove(0);
    assert_eq!((left.bdf, left.pid, left.bytes), (bdf(), std::process::id(), 8192));
    assert_eq!(left.path, kept);
    left.clone().remove().unwrap();
    left.remove().expect("a removed file is no error");
    assert!(!kept.exists());
    let nowhere = Mount { path: dir.0.join("absent"), ..mount };
    assert!(nowhere.leftovers().is_err(), "a failed listing is an error");
    assert!(create_file(&nowhere, bdf(), 1).is_err());
}

#[test]
fn a_file_without_memory_leaves_no_name() {
    let dir = Dir::new("none");
    let error = create_file(&dir.mount(), bdf(), u64::MAX).unwrap_err();
    assert!(matches!(error.failure(), Failure::Memory { .. }), "{error}");
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn written_names_are_parsed() {
    assert_eq!(parse_name("upcie-0000:01:00.0-4711-0"), Some((bdf(), 4711)));
    for name in [
        "upcie-0000:01:00.0-4711",
        "upcie-01:00.0-4711-0",
        "upcie-0000:01:00.0--1-0",
        "upcie-0000:01:00.0-+1-0",
        "upcie-0000:01:00.0-99999999999-0",
        "other-0000:01:00.0-1-0",
        "upcie-0000:01:00.0-1-",
    ] {
        assert_eq!(parse_name(name), None, "{name}");
    }
}

#[test]
fn pools_and_mounts_of_this_machine_are_read() {
    for pool in pools().unwrap() {
        assert!(pool.free <= pool.total && pool.page_bytes > 4096, "{pool:?}");
    }
    for mount in mounts().unwrap() {
        assert!(mount.page_bytes > 4096, "{mount:?}");
    }
}
