//! Users of a function: file systems and swap on its disks, devices on top of these, network interfaces that
//! are up, programs.

use nix::libc;
use std::{
    fmt, fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use upcie_core::{
    pci::{Bdf, Function},
    process::holders,
};

/// View of the kernel's directories; the root is `/` except in tests.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    mounts: Vec<Mount>,
    /// Swap devices and files.
    swaps: Vec<PathBuf>,
}

#[derive(Debug)]
struct Mount {
    /// `major:minor`; for a file system on several disks it is not a block device.
    device: String,
    /// Block device, or another name.
    source: PathBuf,
    at: String,
}

/// A disk or a partition of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Name in `/dev`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// True for a partition.
    pub is_partition: bool,
    /// `major:minor`.
    device: String,
    path: PathBuf,
}

/// One use of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Kind of use.
    pub kind: Kind,
    /// Disk, partition or interface; empty for the function itself.
    pub device: String,
    /// User: mount point, device on top, or process.
    pub by: String,
    /// Process that has the function open.
    pub pid: Option<u32>,
}

/// Kinds of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file system on the function is mounted.
    Mounted,
    /// The kernel swaps to the disk.
    Swap,
    /// A device or a volume is built on the disk.
    Holder,
    /// A network interface of the function is up.
    Network,
    /// A program has the function open.
    Open,
    /// The kernel has claimed the disk, and does not tell for which use.
    Claimed,
}

impl Kind {
    /// Returns the name in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mounted => "mounted",
            Self::Swap => "swap",
            Self::Holder => "holder",
            Self::Network => "network",
            Self::Open => "open",
            Self::Claimed => "claimed",
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, device, by, .. } = self;
        match kind {
            Kind::Mounted => write!(f, "{device} mounted at {by}"),
            Kind::Swap => write!(f, "{device} is swap"),
            Kind::Holder => write!(f, "{device} is part of {by}"),
            Kind::Network => write!(f, "interface {device} is up"),
            Kind::Open if device.is_empty() => write!(f, "open by {by}"),
            Kind::Open => write!(f, "{device} open by {by}"),
            Kind::Claimed => {
                write!(f, "{device} is claimed in the kernel (by a file system or a volume manager)")
            }
        }
    }
}

impl Host {
    /// Reads the state of this machine.
    pub fn now() -> std::io::Result<Self> {
        Self::at(Path::new("/"))
    }

    /// Reads the state of a machine whose `proc` and `sys` are below `root`: a test's.
    ///
    /// # Errors
    /// The list of mounts can't be read.
    pub fn at(root: &Path) -> std::io::Result<Self> {
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo"))?;
        // A kernel without swap has no such file.
        let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
        Ok(Self {
            root: root.to_owned(),
            mounts: mounts.lines().filter_map(Mount::parse).collect(),
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| Some(unescape(line.split_whitespace().next()?).into()))
                .collect(),
        })
    }

    fn sys(&self, path: &str) -> PathBuf {
        self.root.join("sys").join(path)
    }

    /// Lists the entries of a class that belong to the function at `path`, with their real paths.
    fn class(&self, class: &str, path: &Path) -> Vec<(String, PathBuf)> {
        let mut found: Vec<_> = names(&self.sys("class").join(class))
            .into_iter()
            .filter_map(|name| {
                let real = fs::canonicalize(self.sys("class").join(class).join(&name)).ok()?;
                // Leave out devices behind a bridge.
                let is_bdf = |part: std::path::Component<'_>| {
                    part.as_os_str().to_str().is_some_and(|name| name.parse::<Bdf>().is_ok())
                };
                let own = real.strip_prefix(path).is_ok_and(|rest| !rest.components().any(is_bdf));
                own.then_some((name, real))
            })
            .collect();
        found.sort();
        found
    }

    /// Lists the disks of the function at `path` in sysfs, and their partitions.
    pub fn blocks(&self, path: &Path) -> Vec<Block> {
        let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
        let mut roots = vec![path.clone()];
        // With multipath an NVMe disk belongs to the subsystem, not to a controller.
        let controllers = names(&path.join("nvme"));
        for subsystem in names(&self.sys("class/nvme-subsystem")) {
            let subsystem = self.sys("class/nvme-subsystem").join(subsystem);
            if controllers.iter().any(|name| subsystem.join(name).exists()) {
                roots.extend(fs::canonicalize(subsystem));
            }
        }
        let mut found: Vec<Block> = Vec::new();
        for (name, path) in roots.iter().flat_map(|root| self.class("block", root)) {
            let text = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default().trim().to_owned();
            // The path devices of a multipath disk are hidden, and have no node.
            if text("hidden") == "1" || found.iter().any(|block| block.name == name) {
                continue;
            }
            found.push(Block {
                // sysfs counts units of 512 bytes for any block size.
                size: text("size").parse::<u64>().unwrap_or(0).saturating_mul(512),
                is_partition: path.join("partition").exists(),
                device: text("dev"),
                name,
                path,
            });
        }
        found
    }

    /// Lists the uses of disks: file systems, swap, and devices on top.
    pub fn disk_uses(&self, blocks: &[Block]) -> Vec<Use> {
        blocks.iter().flat_map(|block| self.block_uses(block)).collect()
    }

    /// Lists the uses of `function`.
    pub fn uses(&self, function: &Function) -> Vec<Use> {
        let blocks = self.blocks(&function.path);
        let mut uses = self.disk_uses(&blocks);
        uses.extend(self.network_uses(&function.path));
        let open = |device: &str, pid: u32| Use {
            kind: Kind::Open,
            device: device.into(),
            by: process_name(pid),
            pid: Some(pid),
        };
        uses.extend(function.users().into_iter().map(|pid| open("", pid)));
        let disks = blocks.iter().map(|block| block.name.clone());
        // Generic nodes reach a namespace without the block layer.
        let generic = disks.clone().filter_map(|name| Some(format!("ng{}", name.strip_prefix("nvme")?)));
        let nodes = names(&function.path.join("nvme")).into_iter().chain(disks).chain(generic);
        let nodes: Vec<_> = nodes.map(|name| Path::new("/dev").join(name)).collect();
        uses.extend(holders(&nodes).into_iter().map(|pid| open("", pid)));
        if function.is_being_unbound() {
            uses.extend(function.former_users().into_iter().map(|pid| open("", pid)));
        }
        uses.dedup();
        uses
    }

    /// Lists further uses of the disks that only the kernel knows: of other mount namespaces, or of a volume
    /// manager that is hidden. The test claims each disk for a moment, so it is made only before a change.
    pub fn claims(&self, function: &Function) -> Vec<Use> {
        let is_claimed = |block: &Block| {
            let node = Path::new("/dev").join(&block.name);
            let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(node);
            opened.is_err_and(|e| e.raw_os_error() == Some(libc::EBUSY))
        };
        let blocks = self.blocks(&function.path).into_iter().filter(is_claimed);
        blocks
            .map(|block| Use { kind: Kind::Claimed, device: block.name, by: String::new(), pid: None })
            .collect()
    }

    fn block_uses(&self, block: &Block) -> Vec<Use> {
        let use_as = |kind, by: String| Use { kind, device: block.name.clone(), by, pid: None };
        let is_block = |path: &Path| {
            let real = fs::canonicalize(path);
            let path = real.as_deref().unwrap_or(path);
            path.parent().is_some_and(|parent| parent.ends_with("dev"))
                && path.file_name().is_some_and(|name| *name == *block.name)
        };
        let mounts =
            self.mounts.iter().filter(|mount| mount.device == block.device || is_block(&mount.source));
        let mut uses: Vec<_> = mounts.map(|mount| use_as(Kind::Mounted, mount.at.clone())).collect();
        for volume in names(&self.sys("fs/btrfs")) {
            let member = self.sys("fs/btrfs").join(&volume).join("devices").join(&block.name);
            if uses.is_empty() && member.exists() {
                uses.push(use_as(Kind::Holder, format!("btrfs {volume}")));
            }
        }
        uses.extend(
            self.swaps.iter().filter(|path| is_block(path)).map(|_| use_as(Kind::Swap, String::new())),
        );
        for holder in names(&block.path.join("holders")) {
            let named = fs::read_to_string(self.sys("class/block").join(&holder).join("dm/name"));
            let by = named.map_or(holder.clone(), |name| format!("{holder} ({})", name.trim()));
            uses.push(use_as(Kind::Holder, by));
        }
        uses
    }

    fn network_uses(&self, path: &Path) -> Vec<Use> {
        const IFF_UP: u32 = 1;
        let Ok(path) = fs::canonicalize(path) else { return Vec::new() };
        let is_up = |path: &Path| {
            let flags = fs::read_to_string(path.join("flags")).unwrap_or_default();
            u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16)
                .is_ok_and(|flags| flags & IFF_UP != 0)
        };
        let interfaces = self.class("net", &path).into_iter().filter(|(_, path)| is_up(path));
        interfaces
            .map(|(device, _)| Use { kind: Kind::Network, device, by: String::new(), pid: None })
            .collect()
    }
}

impl Mount {
    /// Parses a line of mountinfo: `36 35 98:0 /root /at rw,noatime shared:1 - ext4 /dev/source rw`, see
    /// proc(5).
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let device = left.next()?.to_owned();
        let at = unescape(left.nth(1)?);
        let source = unescape(right.split(' ').nth(1)?).into();
        Some(Self { device, source, at })
    }
}

/// Undoes the kernel's escapes in a name, such as `\040` for a space.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[3..]);
            }
            None => {
                bytes.push(b'\\');
                bytes.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns `process PID (NAME)`.
fn process_name(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}

/// Lists the names in a directory, sorted; empty if there is no directory.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
