//! Which processes have huge pages mapped, and which files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A process with huge pages.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub pid: u32,
    pub name: String,
    /// Bytes of huge pages that it has touched.
    pub bytes: u64,
    /// The files that they belong to, as the kernel names them.
    pub files: Vec<String>,
}

/// What could be learnt of all processes.
#[derive(Debug, Default)]
pub struct Users {
    /// In the order of their ids.
    pub seen: Vec<User>,
    /// Processes that this user may not look into.
    pub hidden: usize,
}

/// Looks into every process below `proc`.
pub fn scan(proc: &Path) -> io::Result<Users> {
    let mut users = Users::default();
    for entry in fs::read_dir(proc)? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let directory = proc.join(format!("{pid}"));
        match fs::read_to_string(directory.join("smaps_rollup")) {
            Ok(text) => {
                let bytes = huge_bytes(&text);
                if bytes > 0 {
                    let name = fs::read_to_string(directory.join("comm")).unwrap_or_default();
                    let maps = fs::read_to_string(directory.join("numa_maps")).unwrap_or_default();
                    users.seen.push(User { pid, name: name.trim().into(), bytes, files: files(&maps) });
                }
            }
            // The kernel's own threads have no memory, and no command line.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                users.hidden +=
                    usize::from(fs::read(directory.join("cmdline")).is_ok_and(|line| !line.is_empty()));
            }
            // Ended meanwhile, or without memory of its own.
            Err(_) => {}
        }
    }
    users.seen.sort_by_key(|user| user.pid);
    Ok(users)
}

/// Whether a process exists now.
pub fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Whether a process has the file with this device number and inode mapped; `None` where that can't be seen.
pub fn has_mapped(pid: u32, device: u64, inode: u64) -> Option<bool> {
    let path: PathBuf = ["/proc", &pid.to_string(), "maps"].iter().collect();
    match fs::read_to_string(path) {
        Ok(text) => Some(text.lines().any(|line| mapped_file(line) == Some((device, inode)))),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
        // It has ended.
        Err(_) => Some(false),
    }
}

/// Device and inode in a line of `maps`: range, permissions, offset, major:minor in hexadecimal, inode.
fn mapped_file(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace().skip(3);
    let (major, minor) = words.next()?.split_once(':')?;
    let hex = |text| u32::from_str_radix(text, 16).ok();
    let device = nix::sys::stat::makedev(hex(major)?.into(), hex(minor)?.into());
    Some((device, words.next()?.parse().ok()?))
}

/// The sum of `Shared_Hugetlb` and `Private_Hugetlb`, given in kB.
fn huge_bytes(smaps: &str) -> u64 {
    let counts = smaps.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let wanted = matches!(name, "Shared_Hugetlb" | "Private_Hugetlb");
        wanted.then(|| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).flatten()
    });
    counts.sum::<u64>() << 10
}

/// The files of a `numa_maps` that are of huge pages: those lines have the word `huge`.
fn files(numa_maps: &str) -> Vec<String> {
    let huge = numa_maps.lines().filter(|line| line.split(' ').any(|word| word == "huge"));
    let mut files: Vec<_> = huge
        .filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("file=")))
        .map(str::to_owned)
        .collect();
    files.sort();
    files.dedup();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_read() {
        let smaps = "55-7f ---p 00000000 00:00 0   [rollup]\nRss:  2204 kB\nShared_Hugetlb:  2048 kB\nPrivate_Hugetlb: 4096 kB\n";
        assert_eq!(huge_bytes(smaps), 6 << 20);
        assert_eq!(huge_bytes("Rss: 1 kB\nShared_Hugetlb: many\n"), 0);
        let maps = "7f00 default file=/usr/lib/huge.so mapped=2 N0=2 kernelpagesize_kB=4\n\
                    7f10 default file=/dev/hugepages/b huge dirty=1 N0=1 kernelpagesize_kB=2048\n\
                    7f20 default file=/dev/hugepages/b huge dirty=1\n7f30 default file=/anon_hugepage\\040(deleted) huge\n";
        assert_eq!(files(maps), ["/anon_hugepage\\040(deleted)", "/dev/hugepages/b"]);
        let line = "7f10-7f20 rw-s 00000000 00:2a 4711    /dev/hugepages/b";
        assert_eq!(mapped_file(line), Some((nix::sys::stat::makedev(0, 0x2a), 4711)));
        assert_eq!(mapped_file("garbage"), None);
    }

    #[test]
    fn processes_without_huge_pages_are_left_out() {
        let proc = std::env::temp_dir().join(format!("hugepages-proc-{}", std::process::id()));
        for (pid, kib) in [("12", 2048), ("7", 4096), ("9", 0), ("self", 2048)] {
            fs::create_dir_all(proc.join(pid)).unwrap();
            fs::write(proc.join(pid).join("smaps_rollup"), format!("Private_Hugetlb: {kib} kB\n")).unwrap();
            fs::write(proc.join(pid).join("comm"), "nvme\n").unwrap();
        }
        let users = scan(&proc).unwrap();
        let seen: Vec<_> = users.seen.iter().map(|user| (user.pid, &*user.name, user.bytes >> 20)).collect();
        assert_eq!((seen, users.hidden), (vec![(7, "nvme", 4), (12, "nvme", 2)], 0));
        fs::remove_dir_all(proc).unwrap();
    }
}
