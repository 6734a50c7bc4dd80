//! A pool is returned to the system, and a mount taken away, only while nobody uses them.

use super::{PAGE, as_user, contains_all, controller, fails, free, map, mount, succeeds, total};
use std::{
    fs::{self, File},
    path::Path,
};
use upcie_core::hugetlb::{Mount, create_file, leftovers, mounts};

/// Names this process as the tool does.
fn me() -> String {
    format!("process {}", std::process::id())
}

#[test]
fn a_pool_in_use_is_cleared_only_on_demand() {
    let file = create_file(&mount(), controller(), PAGE * 3).unwrap();
    let mapping = map(&file);
    for how in ["clear", "clear --dry-run", "clear --size 2M"] {
        contains_all(&fails(how), &["3 of 64 pages of 2 MiB", &me(), "--shrink", "other 61"]);
        assert_eq!(total(), 64, "{how}");
    }
    contains_all(&succeeds("clear --shrink --dry-run"), &["would write 0 to", "there are 64"]);
    assert_eq!(total(), 64);
    contains_all(&succeeds("clear --shrink"), &["61 pages of 2 MiB returned", "3 in use"]);
    assert_eq!(total(), 3);
    drop(mapping);
    file.remove().unwrap();
    drop(file);
    assert_eq!(total(), 0);
    contains_all(&succeeds("clear"), &["nothing to clear"]);
    succeeds("setup --count 64");
    let output = as_user("clear");
    assert_eq!(output.status.code(), Some(1));
    contains_all(&String::from_utf8_lossy(&output.stderr), &["only root may", "nr_hugepages"]);
    contains_all(&succeeds("clear"), &["64 pages of 2 MiB returned"]);
    assert_eq!(total(), 0);
    succeeds("setup --count 64");
    assert_eq!(free(), 64);
}

const PLACE: &str = "/tmp/huge-unmount";

fn there() -> Option<Mount> {
    mounts().unwrap().into_iter().find(|mount| mount.path == Path::new(PLACE))
}

#[test]
fn a_mount_in_use_stays() {
    let (unmount, at) = (format!("unmount {PLACE}"), |name: &str| Path::new(PLACE).join(name));
    contains_all(&fails(&unmount), &["no hugetlbfs is mounted at", PLACE, "hugepages info"]);
    succeeds(&format!("mount {PLACE} --mode 0755"));
    let file = create_file(&there().expect("mounted"), controller(), PAGE).unwrap();
    let mapping = map(&file);
    let stays = |parts: &[&str]| {
        for line in [unmount.clone(), format!("{unmount} --dry-run")] {
            contains_all(&fails(&line), parts);
            assert!(there().is_some(), "{line}");
        }
    };
    stays(&["in use by", &me()]);
    drop(file);
    stays(&["in use by", &me()]);
    drop(mapping);
    // Its process may be gone, but not its device.
    stays(&["memory of 0000:02:00.0", &format!("made by {}", me()), "hugepages release"]);
    leftovers().unwrap().remove(0).remove().unwrap();
    let nameless = File::create(at("nameless")).unwrap();
    fs::remove_file(at("nameless")).unwrap();
    stays(&["in use by", &me()]);
    drop(nameless);
    drop(File::create(at("other")).unwrap());
    stays(&["has files", "/tmp/huge-unmount/other", "remove them first"]);
    fs::remove_file(at("other")).unwrap();
    let output = as_user(&unmount);
    assert_eq!(output.status.code(), Some(1));
    contains_all(&String::from_utf8_lossy(&output.stderr), &["only root may"]);
    contains_all(&succeeds(&format!("{unmount} --dry-run")), &["would run: umount", PLACE]);
    assert!(there().is_some());
    contains_all(&succeeds(&unmount), &["is not mounted at", PLACE]);
    assert!(there().is_none());
    fs::remove_dir(PLACE).unwrap();
}
