//! `hugepages mount`: mounts a directory for named files of huge pages.

use crate::{
    Size,
    cli::print,
    persist::{DropIn, Persistence, escape},
    place::{self, Place},
};
use anyhow::{Context, bail};
use clap::Args;
use nix::{
    errno::Errno,
    mount::MsFlags,
    unistd::{Gid, Uid, User},
};
use std::{
    fmt::Write,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};
use upcie_core::hugetlb::mounts;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  hugepages mount                                     2 MiB pages at /dev/hugepages
  hugepages mount --size 1G --owner alice --mode 0700 1 GiB pages at /dev/hugepages1G, for alice
  hugepages mount /mnt/huge --persist                 elsewhere, and at each boot

Links and `..` of the path are resolved first: the directory that they lead to is mounted on and recorded.
Devices without an IOMMU need a mount: their memory has a name, so that it outlives its process.
Pages come from the pool: `hugepages setup`.";

/// Arguments of `hugepages mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// Directory to mount at [default: /dev/hugepages, or /dev/hugepages1G for 1 GiB pages]
    path: Option<PathBuf>,
    /// The same by the name that the program on PyPI has for it
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "path")]
    mountpoint: Option<PathBuf>,
    /// Size of the pages
    #[arg(long, short, alias = "pagesize", value_enum, ignore_case = true, default_value = "2M")]
    size: Size,
    /// User who may create files there, by name or number [default: root]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Permissions of the directory, octal [default: 0755]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    mode: Option<u32>,
    #[command(flatten)]
    persistence: Persistence,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(mode),
        _ => Err(format!("{text:?} is not an octal mode such as 0770")),
    }
}

/// Runs `hugepages mount`.
pub fn run(args: &MountArgs) -> anyhow::Result<()> {
    let typed = args.path.as_deref().or(args.mountpoint.as_deref()).unwrap_or(default_path(args.size));
    let is_here = args.persistence.is_running_system();
    let path = if is_here { place::resolve(typed)? } else { place::of_another_system(typed)? };
    let owner = args.owner.as_deref().map(find_owner).transpose()?;
    let options = options(args.size, args.mode, owner);
    let drop_in = drop_in(&path, &options);
    let mut text = String::new();
    if is_here {
        if !is_plain(typed, &path) {
            let _ = writeln!(text, "{} leads to {}", typed.display(), path.display());
        }
        text += &mount_at(&path, args, &options, owner)?;
    }
    text += &args.persistence.apply(&drop_in, || {
        format!(
            "the mount was not made permanent (in /etc/fstab: hugetlbfs {} hugetlbfs nosuid,nodev,{options} 0 0)",
            path.display()
        )
    })?;
    print(text.as_bytes())
}

/// Returns the directory for pages of this size if the user names none.
pub fn default_path(size: Size) -> &'static Path {
    Path::new(match size {
        Size::Huge2M => "/dev/hugepages",
        Size::Huge1G => "/dev/hugepages1G",
    })
}

/// Returns `true` if `typed` has neither links nor `..`: nothing is surprising about `path` then.
fn is_plain(typed: &Path, path: &Path) -> bool {
    std::path::absolute(typed).is_ok_and(|typed| typed == path)
}

/// Mounts at a resolved path, or sets owner and mode of what is mounted there; returns the message.
fn mount_at(path: &Path, args: &MountArgs, options: &str, owner: Owner) -> anyhow::Result<String> {
    let (shown, size) = (path.display(), args.size.name());
    let place = Place::open(path)?;
    let is_mounted = place.as_ref().map(|place| is_mounted(place, args.size)).transpose()?;
    match (is_mounted.unwrap_or(false), args.persistence.dry_run, place) {
        (true, true, _) => Ok(format!("hugetlbfs of {size} pages is mounted at {shown} already\n")),
        (true, false, Some(place)) => adjust(&place, args, owner),
        (_, true, _) => {
            Ok(format!("would run: mount -t hugetlbfs -o nosuid,nodev,{options} hugetlbfs {shown}\n"))
        }
        (_, false, place) => {
            let place = match place {
                Some(place) => place,
                None => Place::create(path)?,
            };
            mount(&place, options)?;
            Ok(format!("hugetlbfs of {size} pages is mounted at {shown}\n"))
        }
    }
}

/// A user and the user's group, if it is known.
type Owner = Option<(Uid, Option<Gid>)>;

fn find_owner(name: &str) -> anyhow::Result<(Uid, Option<Gid>)> {
    let user = match name.parse::<u32>() {
        Ok(id) => {
            let id = Uid::from_raw(id);
            match User::from_uid(id).with_context(|| format!("looking user {id} up"))? {
                Some(user) => Some(user),
                None => return Ok((id, None)),
            }
        }
        Err(_) => User::from_name(name).with_context(|| format!("looking user {name} up"))?,
    };
    let user = user.with_context(|| format!("there is no user {name:?}"))?;
    Ok((user.uid, Some(user.gid)))
}

/// Makes the options of mount(8).
fn options(size: Size, mode: Option<u32>, owner: Owner) -> String {
    let mut options = format!("pagesize={}", size.name());
    if let Some(mode) = mode {
        let _ = write!(options, ",mode={mode:04o}");
    }
    if let Some((uid, gid)) = owner {
        let _ = write!(options, ",uid={uid}");
        if let Some(gid) = gid {
            let _ = write!(options, ",gid={gid}");
        }
    }
    options
}

/// Returns `true` if hugetlbfs with pages of this size is mounted at a place, and `false` if it can be.
///
/// # Errors
/// Another file system is mounted there, or the directory can't be mounted on.
fn is_mounted(place: &Place, size: Size) -> anyhow::Result<bool> {
    let (data, shown) = (place.metadata()?, place.path.display());
    // The last mount hides those before it.
    let mounts = mounts()?.into_iter();
    let mount = mounts.filter(|mount| mount.device == data.dev()).rfind(|mount| mount.path == place.path);
    if let Some(mount) = mount {
        if mount.page_bytes != size.page().bytes() as u64 {
            bail!(
                "hugetlbfs is mounted at {shown} already, with pages of {} bytes, not {}: choose another path",
                mount.page_bytes,
                size.name()
            );
        }
        return Ok(true);
    }
    let parent = fs::metadata(place.handle().join("..")).ok();
    if parent.is_some_and(|parent| parent.dev() != data.dev()) {
        bail!("another file system is mounted at {shown} already: choose another path");
    }
    let mut entries = fs::read_dir(place.handle()).with_context(|| shown.to_string())?;
    if entries.next().is_some() {
        bail!("{shown} is not empty, and a mount would hide its content: choose another path");
    }
    Ok(false)
}

/// Sets owner and mode of an existing mount.
fn adjust(place: &Place, args: &MountArgs, owner: Owner) -> anyhow::Result<String> {
    let path = place.path.display();
    if let Some((uid, gid)) = owner {
        chown(place.handle(), Some(uid.as_raw()), gid.map(Gid::as_raw))
            .with_context(|| format!("changing the owner of {path} to user {uid} (only root may)"))?;
    }
    if let Some(mode) = args.mode {
        fs::set_permissions(place.handle(), fs::Permissions::from_mode(mode))
            .with_context(|| format!("setting the mode of {path} (only root or its owner may)"))?;
    }
    let data = place.metadata()?;
    Ok(format!(
        "hugetlbfs of {} pages is mounted at {path} already; owner {}, mode {:04o}\n",
        args.size.name(),
        data.uid(),
        data.mode() & 0o7777
    ))
}

fn mount(place: &Place, options: &str) -> anyhow::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let (kind, target) = (Some("hugetlbfs"), place.handle());
    nix::mount::mount(kind, &target, kind, flags, Some(options)).map_err(|errno| {
        let reason = match errno {
            Errno::EINVAL => ": the kernel has no pages of this size; `hugepages info` shows which it has",
            Errno::EPERM => " (only root may)",
            _ => "",
        };
        let path = place.path.display();
        anyhow::Error::from(errno).context(format!("mounting hugetlbfs at {path} with {options}{reason}"))
    })
}

/// Makes the mount unit; systemd creates the directory.
pub fn drop_in(path: &Path, options: &str) -> DropIn {
    // Unit settings use per cent signs for specifiers.
    let place = path.display().to_string().replace('%', "%%");
    let text = format!(
        "# Written by: hugepages mount --persist\n\
         [Unit]\n\
         Description=Huge pages at {place}\n\
         DefaultDependencies=no\n\
         Before=basic.target\n\n\
         [Mount]\n\
         What=hugetlbfs\n\
         Where={place}\n\
         Type=hugetlbfs\n\
         Options=nosuid,nodev,{options}\n\n\
         [Install]\n\
         WantedBy=basic.target\n"
    );
    DropIn::unit(&format!("{}.mount", escape(path)), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_hugetlbfs() {
        assert_eq!(options(Size::Huge2M, None, None), "pagesize=2M");
        let owner = Some((Uid::from_raw(7), Some(Gid::from_raw(8))));
        assert_eq!(options(Size::Huge1G, Some(0o770), owner), "pagesize=1G,mode=0770,uid=7,gid=8");
        assert_eq!(options(Size::Huge1G, None, Some((Uid::from_raw(7), None))), "pagesize=1G,uid=7");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0770"), Ok(0o770));
        for wrong in ["", "9", "rwx", "17777", "+7", "-1"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mount_that_would_hide_files_is_refused() {
        let path = std::env::temp_dir().join(format!("hugepages-mount-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let path = fs::canonicalize(path).unwrap();
        let checked = |path: &Path| {
            let place = Place::open(path).unwrap().unwrap();
            is_mounted(&place, Size::Huge2M).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&path), Ok(false));
        fs::write(path.join("file"), "").unwrap();
        assert!(checked(&path).unwrap_err().contains("not empty"));
        assert!(checked(Path::new("/proc")).unwrap_err().contains("another file system"));
        fs::remove_dir_all(path).unwrap();
    }
}
