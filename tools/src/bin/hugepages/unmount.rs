//! `hugepages unmount`: takes a mount away that nobody uses.

use crate::{
    Size,
    cli::print,
    mount,
    place::{self, Place},
    users,
};
use anyhow::{Context, bail, ensure};
use clap::Args;
use nix::{errno::Errno, mount::MntFlags};
use std::{fmt::Write, fs, os::unix::fs::MetadataExt, path::PathBuf};
use upcie_core::hugetlb::{Mount, mounts};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hugepages unmount                  the mount at /dev/hugepages
  hugepages unmount /mnt/huge --dry-run

A mount that a process uses, or that has files, stays: the pages of a file whose name is gone get
another use, and a device may still write to them. `hugepages release` removes such files.";

/// Arguments of `hugepages unmount`.
#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// Directory of the mount [default: /dev/hugepages, or /dev/hugepages1G for 1 GiB pages]
    path: Option<PathBuf>,
    /// Size of the pages, if no directory is named
    #[arg(long, short, value_enum, ignore_case = true, default_value = "2M")]
    size: Size,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Runs `hugepages unmount`.
pub fn run(args: &UnmountArgs) -> anyhow::Result<()> {
    let path = place::resolve(args.path.as_deref().unwrap_or(mount::default_path(args.size)))?;
    let shown = path.display();
    // The last mount hides those before it.
    let found = mounts()?.into_iter().rfind(|mount| mount.path == path);
    let mount = found.with_context(|| {
        format!("no hugetlbfs is mounted at {shown}: `hugepages info` lists the mounts that there are")
    })?;
    check_unused(&mount)?;
    let mut text = String::new();
    if args.dry_run {
        let _ = writeln!(text, "would run: umount {shown}");
    } else {
        unmount(&mount)?;
        let _ = writeln!(text, "hugetlbfs is not mounted at {shown} any more");
    }
    let unit = mount::drop_in(&path, "");
    if unit.path.exists() {
        let name = unit.path.file_name().unwrap_or_default().display();
        let unit = unit.path.display();
        let _ = writeln!(text, "{unit} mounts it again at each boot; as root: systemctl disable '{name}'");
    }
    print(text.as_bytes())
}

/// Refuses a mount that a process uses, or that has a file.
fn check_unused(mount: &Mount) -> anyhow::Result<()> {
    let path = mount.path.display();
    let users = users::of_mount(mount).context("listing /proc")?;
    ensure!(users.is_empty(), "{path} is in use by {}: end that first", users.join(", "));
    let failed = || format!("listing the files of {path} (only root or its owner may)");
    let mut files = fs::read_dir(&mount.path).with_context(failed)?;
    if let Some(file) = mount.leftovers()?.first() {
        bail!(
            "{} is memory of {}, made by process {}: `hugepages release` removes it once the device can't write to it any \
             more",
            file.path.display(),
            file.bdf,
            file.pid
        );
    }
    if let Some(file) = files.next() {
        let file = file.with_context(failed)?.path();
        bail!("{path} has files, such as {}, whose content would be lost: remove them first", file.display());
    }
    Ok(())
}

/// Unmounts by the parent directory, which is held open: it stays the one that was looked at, and keeps nothing in the mount
/// open.
fn unmount(mount: &Mount) -> anyhow::Result<()> {
    let path = mount.path.display();
    let parent = mount.path.parent().zip(mount.path.file_name());
    let (parent, name) = parent.with_context(|| format!("{path} has no parent directory"))?;
    let parent = Place::open(parent)?.with_context(|| format!("{path} was removed in the meantime"))?;
    let target = parent.handle().join(name);
    let is_it = fs::symlink_metadata(&target).is_ok_and(|data| data.dev() == mount.device);
    ensure!(is_it, "{path} was unmounted in the meantime");
    nix::mount::umount2(&target, MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| {
        let reason = match errno {
            Errno::EPERM => " (only root may)",
            Errno::EBUSY => ": a process that can't be seen from here uses it, or another mount is below it",
            _ => "",
        };
        anyhow::Error::from(errno).context(format!("unmounting {path}{reason}"))
    })
}
