//! The memory available to this process: of the machine, and within the limits of its control groups (version 2).

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directory of the control groups.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// An amount of available memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    /// The bytes that are left.
    pub bytes: u64,
    /// The source of the figure.
    pub place: String,
}

/// Returns the least of the memory that the machine and this process's control groups (version 2) have left;
/// `None` if neither is known.
pub fn least() -> Option<Room> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = own_groups(Path::new(CGROUPS), &groups).into_iter().filter_map(|group| of_group(&group));
    limits.chain(machine()).min_by_key(|room| room.bytes)
}

/// Returns the memory that programs may take without swapping, as the kernel estimates it (MemAvailable). It does not
/// include free huge pages.
pub fn machine() -> Option<Room> {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text))
}

/// Lists the directories below `root` of the control group that `groups` (`/proc/self/cgroup`) names and of all groups
/// around it, from the inside out. Each of them may have a limit.
pub(crate) fn own_groups(root: &Path, groups: &str) -> Vec<PathBuf> {
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let own = root.join(own);
    own.ancestors().take_while(|path| path.starts_with(root)).map(Path::to_path_buf).collect()
}

fn of_machine(meminfo: &str) -> Option<Room> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(Room { bytes: kilobytes.saturating_mul(1024), place: "MemAvailable in /proc/meminfo".into() })
}

/// Returns the room in a group: its limit less the used memory that can't be dropped.
fn of_group(group: &Path) -> Option<Room> {
    let file = |name: &str| -> (PathBuf, String) {
        let path = group.join(name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        (path, text)
    };
    let (path, limit) = file("memory.max");
    // `max` is not a number, and the root has no such file.
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = file("memory.current").1.trim().parse().ok()?;
    let (_, stat) = file("memory.stat");
    let of = |key: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        value.unwrap_or(0)
    };
    let cache = of("inactive_file ").saturating_add(of("active_file "));
    Some(Room { bytes: limit.saturating_sub(used.saturating_sub(cache)), place: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_free_memory_is_known() {
        let room = of_machine("MemTotal: 9 kB\nMemAvailable:    3 kB\n").unwrap();
        assert_eq!((room.bytes, of_machine("MemTotal: 9 kB\n")), (3072, None));
        assert!(least().is_some_and(|room| room.bytes > 0), "this machine");
    }

    #[test]
    fn each_cgroup_up_to_the_root_counts() {
        let root = std::env::temp_dir().join(format!("upcie-room-{}", std::process::id()));
        let (outer, inner) = (root.join("a"), root.join("a/b"));
        fs::create_dir_all(&inner).unwrap();
        let set = |group: &Path, max: &str, current: &str| {
            fs::write(group.join("memory.max"), max).unwrap();
            fs::write(group.join("memory.current"), current).unwrap();
            fs::write(group.join("memory.stat"), "anon 5\ninactive_file 20\nactive_file 3\n").unwrap();
        };
        set(&outer, "100\n", "60\n");
        set(&inner, "max\n", "60\n");
        let groups = own_groups(&root, "1:name=systemd:/x\n0::/a/b\n");
        let rooms: Vec<_> = groups.iter().filter_map(|group| of_group(group)).collect();
        assert_eq!(groups, [inner.clone(), outer.clone(), root.clone()]);
        fs::remove_dir_all(&root).unwrap();
        let place = outer.join("memory.max").display().to_string();
        assert_eq!(rooms, [Room { bytes: 100 - (60 - 23), place }]);
    }
}
