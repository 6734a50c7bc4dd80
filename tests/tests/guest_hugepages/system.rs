//! Huge pages that are refused: beyond a control group's limit, and on a mount in which another user may rename files.

use super::{PAGE, controller, mount, succeeds};
use nix::mount::{MntFlags, MsFlags, umount2};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};
use upcie_core::{
    Failure,
    hugetlb::{create_file, leftovers, mount_for},
    memory::{Memory, PageSize},
};
use upcie_tests::{
    process::{Process, again, role},
    says,
};

/// A file system that is mounted until this is dropped.
struct Mounted(&'static Path);

impl Mounted {
    fn new(kind: &str, path: &'static str, options: &str) -> Self {
        let path = Path::new(path);
        nix::mount::mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
            .unwrap_or_else(|error| panic!("mounting {kind} ({options}) at {}: {error}", path.display()));
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

const GROUPS: &str = "/sys/fs/cgroup";

/// A control group that is removed when this is dropped. Its processes have ended by then.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let path = Path::new(GROUPS).join(name);
        fs::write(Path::new(GROUPS).join("cgroup.subtree_control"), "+hugetlb")
            .expect("CONFIG_CGROUP_HUGETLB");
        fs::create_dir(&path).expect("a control group");
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Joins the group, which may have one page, and asks for two.
fn ask_for_two_pages() {
    let group = Path::new(GROUPS).join("upcie-limited");
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let allocate = |page| Memory::new(PAGE as usize, page);
    let first = allocate(PageSize::Huge2M).expect("a page within the limit");
    let refused = [allocate(PageSize::Huge2M).map(drop), create_file(&mount(), controller(), PAGE).map(drop)];
    for error in refused.map(Result::unwrap_err) {
        assert!(matches!(error.failure(), Failure::Memory { .. }), "{error}");
        let file = format!("raise {}", group.join("hugetlb.2MB.max").display());
        says(&error, &["may have 2097152 bytes", "2097152 are taken", "2097152 more", &file]);
    }
    assert!(leftovers().unwrap().is_empty());
    allocate(PageSize::Small).expect("small pages, which this limit does not count");
    drop(first);
    allocate(PageSize::Huge2M).expect("the page that was given back");
}

/// The pool has free pages: its figures would lead nowhere.
#[test]
fn a_control_groups_limit_is_named_with_its_file() {
    const NAME: &str = "system::a_control_groups_limit_is_named_with_its_file";
    if role().is_some() {
        return ask_for_two_pages();
    }
    let _groups = Mounted::new("cgroup2", GROUPS, "");
    let group = Group::new("upcie-limited");
    fs::write(group.0.join("hugetlb.2MB.max"), PAGE.to_string()).unwrap();
    let (status, said) = Process::start(again(NAME, "limited")).finish();
    assert!(status.success(), "{status}: {said}");
}

/// A device still writes to a file's pages when its process is gone: nobody else may take the file's name away.
#[test]
fn a_mount_in_which_another_user_may_rename_is_refused() {
    const PLACE: &str = "/dev/hugepages";
    let own = Path::new("/dev/hugepages2M-root");
    for (options, why) in [
        ("pagesize=2M,uid=1000,mode=0777", "it belongs to user 1000"),
        ("pagesize=2M,uid=1000,mode=1777", "it belongs to user 1000"),
        ("pagesize=2M,mode=0777", "it has mode 0777"),
    ] {
        // It hides init's mount, which is sticky and root's.
        let mounted = Mounted::new("hugetlbfs", PLACE, options);
        let error = mount_for(PageSize::Huge2M).unwrap_err();
        assert!(matches!(error.failure(), Failure::Unusable { .. }), "{error}");
        let why = format!("{PLACE}: {why}");
        says(&error, &["others could rename or remove its files", &why, "hugepages mount --size 2M"]);
        // The kernel does let that user rename a file of root's.
        let (file, other) = (mounted.0.join("file"), mounted.0.join("other"));
        File::create(&file).unwrap();
        let line = format!("mv {} {}", file.display(), other.display());
        let moved = Command::new("su").args(["user", "-s", "/bin/sh", "-c", &line]).status().unwrap();
        assert!(moved.success() && other.exists() && !file.exists(), "{options}");
        // The way out that the error names.
        succeeds(&format!("mount --size 2M {}", own.display()));
        let chosen = mount_for(PageSize::Huge2M);
        umount2(own, MntFlags::empty()).unwrap();
        fs::remove_dir(own).unwrap();
        assert_eq!(chosen.unwrap().path, own, "{options}");
    }
    assert_eq!(mount().path, Path::new(PLACE));
}
