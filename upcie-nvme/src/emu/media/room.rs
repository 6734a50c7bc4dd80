//! The memory available to this process: of the machine, and within the limits of its control groups.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// An amount of available memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// The source of the figure.
    pub place: String,
}

/// Returns the least of the memory that the machine and this process's control groups (version 2) have left;
/// `None` if neither is known.
pub fn least() -> Option<Room> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    let limits = of_groups(Path::new("/sys/fs/cgroup"), group.unwrap_or_default());
    limits.into_iter().chain(machine).min_by_key(|room| room.bytes)
}

/// Reads MemAvailable: the memory that programs may take without swapping, as the kernel estimates it.
fn of_machine(meminfo: &str) -> Option<Room> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(Room { bytes: kilobytes.saturating_mul(1024), place: "MemAvailable in /proc/meminfo".into() })
}

/// Returns the room in each group from `group` up to `root`: its limit less the used memory that can't be
/// dropped.
fn of_groups(root: &Path, group: &str) -> Vec<Room> {
    let own = root.join(group);
    let groups = own.ancestors().take_while(|path| path.starts_with(root));
    groups.filter_map(of_group).collect()
}

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
        let rooms = of_groups(&root, "a/b");
        fs::remove_dir_all(&root).unwrap();
        let place = outer.join("memory.max").display().to_string();
        assert_eq!(rooms, [Room { bytes: 100 - (60 - 23), place }]);
    }
}
