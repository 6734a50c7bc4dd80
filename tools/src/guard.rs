//! Refuses to overwrite what somebody uses.
//!
//! A function that this process can open is bound to vfio-pci, so the kernel has no disk on it. This is looked at all
//! the same before anything is written: a wrong address must not cost a file system.

use crate::target::Target;
use anyhow::{Context, bail};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use upcie_core::pci::{Bdf, Function};

/// Drivers that only give a function to user space.
const PASSING: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub"];

/// An error if the kernel drives the device, or has its partitions mounted.
pub fn check_writable(target: &Target) -> anyhow::Result<()> {
    let Some(bdf) = target.bdf() else { return Ok(()) };
    let function = Function::at(bdf)?;
    let uses = uses(&disks(&function.path))?;
    if !uses.is_empty() {
        bail!("{bdf}: refusing to write: {}. Unmount it, and bind the function to vfio-pci", uses.join(", "));
    }
    match function.driver.as_deref() {
        None => Ok(()),
        Some(driver) if PASSING.contains(&driver) || driver.starts_with("vfio") => Ok(()),
        Some(driver) => bail!("{}", bound(bdf, driver)),
    }
}

fn bound(bdf: Bdf, driver: &str) -> String {
    format!(
        "{bdf}: refusing to write: the kernel's driver {driver} is bound to it. To hand it over, as root: \
         `devbind bind vfio-pci {bdf}`"
    )
}

/// The block devices (disks and partitions) of a function: their directories in sysfs.
fn disks(function: &Path) -> Vec<PathBuf> {
    let list = |directory: &Path| -> Vec<PathBuf> {
        fs::read_dir(directory)
            .map(|all| all.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    // …/nvme/nvme0/nvme0n1/nvme0n1p1
    let disks: Vec<_> = list(&function.join("nvme"))
        .iter()
        .flat_map(|controller| list(controller))
        .filter(|path| path.join("dev").is_file() && path.join("size").is_file())
        .collect();
    let parts = disks.iter().flat_map(|disk| list(disk)).filter(|path| path.join("partition").is_file());
    let parts: Vec<_> = parts.collect();
    disks.into_iter().chain(parts).collect()
}

/// What uses the block devices: mounts, swap, and what is built on them.
fn uses(disks: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    if disks.is_empty() {
        return Ok(Vec::new());
    }
    let mounts = table("/proc/self/mountinfo")?;
    let swaps = table("/proc/swaps")?;
    let mut uses = Vec::new();
    for disk in disks {
        let name = disk.file_name().unwrap_or_default().to_string_lossy();
        let number = fs::read_to_string(disk.join("dev")).unwrap_or_default();
        uses.extend(mounted(&mounts, number.trim(), &name).map(|at| format!("{name} is mounted at {at}")));
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(&*format!("/dev/{name}"))) {
            uses.push(format!("{name} is used for swap"));
        }
        let holders = fs::read_dir(disk.join("holders")).into_iter().flatten().flatten();
        uses.extend(
            holders.map(|holder| format!("{name} is part of {}", holder.file_name().to_string_lossy())),
        );
    }
    Ok(uses)
}

fn table(path: &str) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("reading {path}")),
    }
}

/// Where a block device is mounted: by its number, or by its name for file systems that have numbers of their own.
fn mounted<'t>(mountinfo: &'t str, number: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let source = format!("/dev/{name}");
    mountinfo.lines().filter_map(move |line| {
        let mut words = line.split(' ');
        let (dev, at) = (words.nth(2)?, words.nth(1)?);
        let from = words.skip_while(|word| *word != "-").nth(2)?;
        (dev == number || from == source).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
30 22 259:1 / /boot/efi rw shared:2 - vfat /dev/nvme0n1p1 rw
31 22 0:40 / /data rw shared:3 - btrfs /dev/nvme1n1 rw,subvol=/
";

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let at = |number, name| mounted(MOUNTS, number, name).collect::<Vec<_>>();
        assert_eq!(at("259:2", "nvme0n1p2"), ["/"]);
        assert_eq!(at("259:9", "nvme1n1"), ["/data"]);
        assert!(at("259:0", "nvme0n1").is_empty());
    }

    #[test]
    fn what_is_built_on_a_partition_counts() {
        let root = std::env::temp_dir().join(format!("upcie-guard-{}", std::process::id()));
        let part = root.join("nvme/nvme0/nvme0n1/nvme0n1p1");
        fs::create_dir_all(part.join("holders/dm-0")).unwrap();
        for file in ["dev", "size"] {
            fs::write(part.parent().unwrap().join(file), "259:0").unwrap();
            fs::write(part.join(file), "259:1").unwrap();
        }
        fs::write(part.join("partition"), "1").unwrap();
        let disks = disks(&root);
        let uses = uses(&disks);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(disks.len(), 2, "{disks:?}");
        assert_eq!(uses.unwrap(), ["nvme0n1p1 is part of dm-0"]);
    }
}
