//! Gives VFIO's nodes to a user, and explains the user's memory limit.

use crate::{Global, report, state::as_root};
use anyhow::{Context, bail};
use nix::{
    libc,
    sys::resource::{Resource, getrlimit},
    unistd::Uid,
};
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use upcie_core::{
    deadline::{Backoff, Stopwatch},
    pci::{Bdf, Function},
};
use upcie_tools::user;

/// Deadline for a node to appear after the function was bound.
const DEADLINE: Duration = Duration::from_secs(10);

/// User that gets the nodes.
#[derive(Debug, PartialEq, Eq)]
pub struct Owner {
    name: String,
    uid: u32,
    /// Group; `None` keeps the current one.
    gid: Option<u32>,
}

impl Owner {
    /// Parses `USER` or `USER:GROUP`, names or numbers; the user's own group is the default.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (name, uid, gid) = user::parse(text)?;
        Ok(Self { name, uid, gid })
    }

    /// Returns the user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the user the VFIO nodes of the function at `bdf`, and the nodes that all VFIO devices share.
    pub fn give(&self, global: &Global, bdf: Bdf) -> anyhow::Result<()> {
        if global.dry_run {
            let group = Function::at(bdf)?.iommu_group;
            let group = group.map_or("noiommu-N".into(), |group| group.number.to_string());
            report(format_args!(
                "chown {} /dev/vfio/{group} and, where they exist, the function's node in \
                              /dev/vfio/devices and /dev/iommu",
                self.name
            ));
            return Ok(());
        }
        settle()?;
        let function = Function::at(bdf)?;
        for node in wait_for_nodes(&function)? {
            self.chown(global, &node)?;
        }
        if is_noiommu(&function) {
            // iommufd does not handle functions without an IOMMU.
            return Ok(());
        }
        for node in ["/dev/vfio/vfio", "/dev/iommu"].map(Path::new) {
            // A node that everybody may open needs no owner.
            if fs::metadata(node).is_ok_and(|meta| meta.mode() & 0o006 != 0o006) {
                self.chown(global, node)?;
            }
        }
        Ok(())
    }

    fn chown(&self, global: &Global, node: &Path) -> anyhow::Result<()> {
        let shown = node.display();
        if global.verbose {
            report(format_args!("chown {} {shown}", self.name));
        }
        chown(node, Some(self.uid), self.gid)
            .map_err(as_root)
            .with_context(|| format!("giving {shown} to {}", self.name))
    }

    /// Explains the user's limit on locked memory, with its current value if that is known.
    pub fn limits(&self, noiommu: bool) -> String {
        let Self { name, .. } = self;
        if noiommu {
            return format!(
                "{name} owns the node, but without an IOMMU programs still need root: CAP_SYS_RAWIO to open it, \
                 CAP_SYS_ADMIN to read physical addresses and to write the configuration space"
            );
        }
        let known = match self.memlock() {
            Some((soft, hard)) => format!("the current limit of {name} is {soft} (hard {hard})"),
            None => format!("the current limit of {name} is unknown (`ulimit -l` shows it)"),
        };
        format!(
            "{name} may open it. All DMA memory counts against the limit on locked memory (RLIMIT_MEMLOCK), which must \
             be as large as what is mapped at a time: for each process with the VFIO group (type1), for all of the user's \
             processes together with iommufd; {known}. To raise it, add to /etc/security/limits.conf and log in again:\n  \
             {name} - memlock unlimited"
        )
    }

    /// Returns the memory limit of the user's sessions: of this process if the user runs it, else of another
    /// process.
    fn memlock(&self) -> Option<(String, String)> {
        if Uid::current().as_raw() == self.uid {
            let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
            return Some((bytes(soft), bytes(hard)));
        }
        let processes = fs::read_dir("/proc").ok()?.flatten();
        processes
            .filter(|entry| {
                entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
                    && entry.metadata().is_ok_and(|meta| meta.uid() == self.uid)
            })
            .find_map(|entry| parse_limits(&fs::read_to_string(entry.path().join("limits")).ok()?))
    }
}

fn bytes(limit: libc::rlim_t) -> String {
    if limit == libc::RLIM_INFINITY { "unlimited".into() } else { format!("{limit} bytes") }
}

/// Parses the soft and the hard limit on locked memory from `/proc/PID/limits`.
fn parse_limits(text: &str) -> Option<(String, String)> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    let mut words = line.split_whitespace();
    let mut value = || {
        let word = words.next()?;
        Some(if word == "unlimited" {
            word.to_owned()
        } else {
            format!("{} bytes", word.parse::<u64>().ok()?)
        })
    };
    Some((value()?, value()?))
}

/// Returns true if VFIO drives the function without an IOMMU.
pub fn is_noiommu(function: &Function) -> bool {
    function.iommu_group.as_ref().is_some_and(|group| group.is_noiommu)
}

/// Waits until udev has processed the new nodes; it would reset an earlier owner. Returns at once without udev.
fn settle() -> anyhow::Result<()> {
    let limit = format!("--timeout={}", DEADLINE.as_secs());
    let mut command = Command::new("udevadm");
    match command
        .args(["settle", &limit])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
    {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).context("waiting for udev"),
    }
}

/// Waits for the VFIO nodes of a function: its group's node, and its own if the kernel makes one.
fn wait_for_nodes(function: &Function) -> anyhow::Result<Vec<PathBuf>> {
    let group = function.iommu_group.as_ref().context("VFIO has no group for the function")?;
    let name = if group.is_noiommu { format!("noiommu-{}", group.number) } else { group.number.to_string() };
    let mut wanted = vec![Path::new("/dev/vfio").join(name)];
    let own = crate::usage::names(&function.path.join("vfio-dev"));
    // A function without an IOMMU has an entry in `vfio-dev`, but no node.
    if !group.is_noiommu {
        wanted.extend(own.iter().map(|name| Path::new("/dev/vfio/devices").join(name)));
        // Only kernels with VFIO_DEVICE_CDEV make nodes for devices; the entry holds the device number then.
        wanted.retain(|node| !node.starts_with("/dev/vfio/devices") || has_number(function, node));
    }
    let mut backoff = Backoff::new(Stopwatch::new(), DEADLINE);
    while let Some(missing) = wanted.iter().find(|node| !node.exists()) {
        if !backoff.pause() {
            bail!("{}: {} did not appear within {DEADLINE:?}", function.bdf, missing.display());
        }
    }
    Ok(wanted)
}

/// Returns true if the kernel gave the function's VFIO device a number, and so a node.
fn has_number(function: &Function, node: &Path) -> bool {
    node.file_name().is_some_and(|name| function.path.join("vfio-dev").join(name).join("dev").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let root = Owner { name: "root".into(), uid: 0, gid: Some(0) };
        for text in ["root", "0", "root:root", "root:0"] {
            assert_eq!(Owner::parse(text).unwrap(), root, "{text}");
        }
        assert_eq!(
            Owner::parse("4000000:7").unwrap(),
            Owner { name: "4000000".into(), uid: 4_000_000, gid: Some(7) }
        );
        assert_eq!(Owner::parse("4000000").unwrap().gid, None);
        for text in ["no-such-user", "", "root:no-such-group", "root:", "-1"] {
            assert!(Owner::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_limit_of_a_running_process_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max locked memory         8388608              unlimited            bytes\n";
        assert_eq!(parse_limits(text), Some(("8388608 bytes".into(), "unlimited".into())));
        assert_eq!(parse_limits("Max locked memory"), None);
        let own = parse_limits(&fs::read_to_string("/proc/self/limits").unwrap()).unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        assert_eq!(own, (bytes(soft), bytes(hard)));
    }

    #[test]
    fn the_advice_has_the_line_for_the_file() {
        let text = Owner::parse("root").unwrap().limits(false);
        assert!(text.contains("root - memlock unlimited") && text.contains("iommufd"), "{text}");
        assert!(Owner::parse("root").unwrap().limits(true).contains("CAP_SYS_RAWIO"));
    }
}
