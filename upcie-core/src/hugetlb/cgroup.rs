//! The limit of a control group on huge pages, which is independent of the pool's free pages.

use super::short_size;
use crate::room::{CGROUPS, own_groups};
use std::{fs, path::Path};

/// Describes the limit of this process's control groups (version 2) that leaves fewer than `wanted` bytes of huge pages
/// of `page` bytes; `None` if none does. See `hugetlb.<size>.max` in the kernel's `admin-guide/cgroup-v2.rst`.
pub(crate) fn limit(page: u64, wanted: u64) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_in(Path::new(CGROUPS), &groups, page, wanted)
}

fn limit_in(root: &Path, groups: &str, page: u64, wanted: u64) -> Option<String> {
    own_groups(root, groups).into_iter().find_map(|path| {
        let file = |name: &str| path.join(format!("hugetlb.{}B.{name}", short_size(page)));
        let value = |name: &str| -> Option<u64> { fs::read_to_string(file(name)).ok()?.trim().parse().ok() };
        // "max" is not a number: no limit.
        let limit = value("max")?;
        let used = value("current").unwrap_or(0);
        (used.saturating_add(wanted) > limit).then(|| {
            format!(
                "this process's control group may have {limit} bytes of them, {used} are taken and this needs {wanted} \
                 more: raise {}",
                file("max").display()
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_limit_is_named_with_its_file() {
        let root = std::env::temp_dir().join(format!("upcie-cgroup-{}", std::process::id()));
        let leaf = root.join("pod/app");
        fs::create_dir_all(&leaf).unwrap();
        let write = |path: &Path, file: &str, text: &str| fs::write(path.join(file), text).unwrap();
        write(&leaf, "hugetlb.2MB.max", "max\n");
        let groups = "1:name=systemd:/x\n0::/pod/app\n";
        let ask = || limit_in(&root, groups, 2 << 20, 8 << 20);
        assert_eq!(ask(), None);
        write(&root.join("pod"), "hugetlb.2MB.max", "8388608\n");
        assert_eq!(ask(), None, "just enough");
        write(&root.join("pod"), "hugetlb.2MB.current", "2097152\n");
        let text = ask().unwrap();
        for part in ["8388608 bytes", "2097152 are taken", "pod/hugetlb.2MB.max"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(limit_in(&root, groups, 1 << 30, 1 << 30), None, "another size");
        fs::remove_dir_all(root).unwrap();
    }
}
