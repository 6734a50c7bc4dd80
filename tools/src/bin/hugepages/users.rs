//! Processes that have huge pages mapped, and their files.

use std::{fs, io, path::Path, time::Duration};
use upcie_core::{hugetlb::Mount, process::look_at};

/// Deadline for reading the files of one process.
const DEADLINE: Duration = Duration::from_secs(2);

/// A process with huge pages.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub pid: u32,
    pub name: String,
    /// Bytes of huge pages that the process has touched.
    pub bytes: u64,
    /// Files of these pages, as the kernel names them.
    pub files: Vec<String>,
}

/// Result of a scan of all processes.
#[derive(Debug, Default)]
pub struct Users {
    /// Processes with huge pages, by id.
    pub seen: Vec<User>,
    /// Number of processes that this user may not inspect.
    pub hidden: usize,
}

/// Inspects every process below `proc`. Leaves out a process that does not answer, for example because a file
/// system blocks it.
pub fn scan(proc: &Path) -> io::Result<Users> {
    let (mut users, pids, proc) = (Users::default(), pids(proc)?, proc.to_owned());
    for seen in look_at(pids, DEADLINE, move |pid| inspect(pid, &proc.join(pid.to_string()))) {
        match seen {
            Mapped::User(user) => users.seen.push(user),
            Mapped::Hidden => users.hidden += 1,
        }
    }
    users.seen.sort_by_key(|user| user.pid);
    Ok(users)
}

/// Inspects a process; `None` if it has ended or has no huge pages.
fn inspect(pid: u32, directory: &Path) -> Option<Mapped> {
    match fs::read_to_string(directory.join("smaps_rollup")) {
        Ok(text) => {
            let bytes = huge_bytes(&text);
            let maps = || fs::read_to_string(directory.join("numa_maps")).unwrap_or_default();
            (bytes > 0)
                .then(|| Mapped::User(User { pid, name: name(directory), bytes, files: files(&maps()) }))
        }
        // Kernel threads have no memory and no command line.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            fs::read(directory.join("cmdline")).is_ok_and(|line| !line.is_empty()).then_some(Mapped::Hidden)
        }
        Err(_) => None,
    }
}

/// Lists the processes below `proc`.
fn pids(proc: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir(proc)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Returns the name of the process whose directory this is.
fn name(directory: &Path) -> String {
    fs::read_to_string(directory.join("comm")).unwrap_or_default().trim().to_owned()
}

/// Lists the processes that keep a mount busy, as `process PID (NAME)`: by an open or mapped file, or their working or root
/// directory. Leaves out those that this user may not inspect.
pub fn of_mount(mount: &Mount) -> io::Result<Vec<String>> {
    let (path, device) = (mount.path.clone(), mount.device);
    let uses = move |pid: u32| {
        let directory = Path::new("/proc").join(pid.to_string());
        let open =
            fs::read_dir(directory.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut links = open.chain(["cwd", "root"].map(|name| directory.join(name)));
        let maps = || fs::read_to_string(directory.join("maps")).unwrap_or_default();
        let is_busy = links.any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(&path)))
            || maps().lines().any(|line| mapped_file(line).is_some_and(|(on, _)| on == device));
        is_busy.then(|| (pid, name(&directory)))
    };
    let mut users = look_at(pids(Path::new("/proc"))?, DEADLINE, uses);
    users.sort();
    Ok(users.into_iter().map(|(pid, name)| format!("process {pid} ({name})")).collect())
}

enum Mapped {
    User(User),
    Hidden,
}

/// Returns true if the process exists.
pub fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Returns true if the process has the file with this device number and inode mapped; `None` if that can't be
/// read.
pub fn has_mapped(pid: u32, device: u64, inode: u64) -> Option<bool> {
    let inspect = move |pid| {
        Some(match fs::read_to_string(format!("/proc/{pid}/maps")) {
            Ok(text) => Some(text.lines().any(|line| mapped_file(line) == Some((device, inode)))),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
            // The process has ended.
            Err(_) => Some(false),
        })
    };
    // `None` also if the process does not answer.
    look_at(vec![pid], DEADLINE, inspect).pop().flatten()
}

/// Parses device and inode from a line of `maps`: range, permissions, offset, major:minor in hexadecimal,
/// inode.
fn mapped_file(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace().skip(3);
    let (major, minor) = words.next()?.split_once(':')?;
    let hex = |text| u32::from_str_radix(text, 16).ok();
    let device = nix::sys::stat::makedev(hex(major)?.into(), hex(minor)?.into());
    Some((device, words.next()?.parse().ok()?))
}

/// Sums up `Shared_Hugetlb` and `Private_Hugetlb`, which are in kB.
fn huge_bytes(smaps: &str) -> u64 {
    let counts = smaps.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let wanted = matches!(name, "Shared_Hugetlb" | "Private_Hugetlb");
        wanted.then(|| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).flatten()
    });
    counts.sum::<u64>() << 10
}

/// Lists the files in the lines of `numa_maps` that have the word `huge`.
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
    fn the_kernel_s_files_about_a_process_are_parsed() {
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
