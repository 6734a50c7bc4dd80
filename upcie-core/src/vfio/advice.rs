//! Texts for errors: the holder and owner of a device node, and the limit on locked memory.

use crate::{
    Error,
    device::VfToken,
    pci::{Bdf, Function},
};
use nix::sys::resource::{Resource, getrlimit};
use std::{fs, path::Path};

/// The scope in which the kernel counts locked memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// This process alone: the type1 container.
    Process,
    /// All processes of the user: iommufd.
    User,
}

/// The limit against which memory mapped for DMA counts.
#[derive(Debug)]
pub(super) struct LockedMemory {
    /// Limit in bytes; `None` if unlimited.
    limit: Option<u64>,
    /// Bytes of this process that count against it now, if the kernel tells.
    used: Option<u64>,
    counted: Counted,
}

impl LockedMemory {
    pub(super) fn now(counted: Counted) -> Self {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(libc::RLIM_INFINITY, |(soft, _)| soft);
        // iommufd pins memory, the container locks it.
        let field = if counted == Counted::User { "VmPin:" } else { "VmLck:" };
        let used = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib << 10)
        });
        Self { limit: (limit != libc::RLIM_INFINITY).then_some(limit), used, counted }
    }

    /// Explains why `needed` bytes could not be locked, and what to do.
    pub(super) fn explain(&self, needed: u64) -> String {
        const RAISE: &str = "raise it with `ulimit -l unlimited` as root before starting the program, with memlock in \
                             /etc/security/limits.conf, or with LimitMEMLOCK=infinity in a systemd unit";
        let used = self.used.unwrap_or(0);
        match (self.limit, self.counted) {
            (Some(limit), Counted::Process) if used.saturating_add(needed) > limit => format!(
                "the limit on locked memory (RLIMIT_MEMLOCK) is {limit} bytes, {used} are locked already and this \
                 needs {needed} more: {RAISE}"
            ),
            // The locked memory of the user's other processes is unknown, so this limit may be the reason even if this
            // process has little.
            (Some(limit), Counted::User) => format!(
                "the limit on locked memory (RLIMIT_MEMLOCK) is {limit} bytes, and iommufd counts what all processes \
                 of the user have locked: this one has {used} bytes, and this needs {needed} more; {RAISE}"
            ),
            _ => "the kernel has no memory for it".into(),
        }
    }
}

/// Explains why this user can't open a node of `function`: its owner, and how to get access. `rule` is a udev rule's
/// match for the node.
pub(super) fn no_permission(function: Bdf, path: &Path, rule: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let owner = match fs::metadata(path) {
        Ok(meta) => format!(
            "it belongs to {}:{}, mode {:04o}",
            account("/etc/passwd", meta.uid()),
            account("/etc/group", meta.gid()),
            meta.mode() & 0o7777
        ),
        Err(e) => format!("its owner is unknown: {e}"),
    };
    format!(
        "no permission to open {shown}: {owner}. As root: `devbind bind vfio-pci {function} --owner {}` (until the \
         node is made anew), or for good a udev rule: {rule}, GROUP=\"…\", MODE=\"0660\"",
        account("/etc/passwd", nix::unistd::geteuid().as_raw())
    )
}

/// Returns the name of an account in a passwd or group file, or its number if it is not there.
fn account(file: &str, id: u32) -> String {
    let number = id.to_string();
    fs::read_to_string(file)
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                (fields.nth(1)? == number).then(|| name.to_owned())
            })
        })
        .unwrap_or(number)
}

/// Makes the error of a function that VFIO did not open because of its VF token, or because it has none; `None` if the system's
/// error has another cause.
pub(super) fn not_shared(function: &Function, token: Option<VfToken>, errno: Option<i32>) -> Option<Error> {
    let bdf = function.bdf;
    let physical = function.physical_function().ok().flatten();
    let reason = match (errno?, physical, token) {
        (libc::EACCES, Some(physical), None) => format!(
            "its physical function {physical} is bound to vfio-pci too, so VFIO wants a VF token: open {physical} first, with a \
             token of your choice (vfio:{physical},token=UUID; `uuidgen` makes one), then this one with the same \
             (vfio:{bdf},token=UUID)"
        ),
        (libc::EACCES, Some(physical), Some(_)) => format!(
            "its VF token is not the one with which its physical function {physical} was opened first: use that one"
        ),
        (libc::EACCES, None, _) => {
            "virtual functions of it are in use, so VFIO wants the VF token with which they were \
                                    opened: add ,token=UUID to its address"
                .to_owned()
        }
        (libc::EINVAL, Some(physical), Some(_)) => format!(
            "its physical function {physical} is not bound to vfio-pci, so it takes no VF token: leave that out"
        ),
        (libc::EINVAL, None, Some(_)) => {
            "it has no virtual functions and is none (SR-IOV), so it takes no VF token: leave that out"
                .to_owned()
        }
        _ => return None,
    };
    Some(Error::unusable(bdf.to_string(), reason))
}

/// Says that `what` is in use, and by which processes.
pub(super) fn busy(what: &str, holders: &[u32]) -> String {
    let me = std::process::id();
    let who = match holders {
        [] => "another process (of another user: try `fuser -v` as root)".into(),
        [pid] if *pid == me => {
            format!("this process ({me}); close the device, and drop its memory and BARs, first")
        }
        _ => {
            let pids: Vec<_> = holders.iter().map(u32::to_string).collect();
            format!("process {}; end it first", pids.join(", "))
        }
    };
    format!("{what} is in use by {who}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::holders_but, testing::FakeSysfs};
    use std::os::fd::AsFd;

    #[test]
    fn a_failed_lock_names_the_limit_and_the_way_out() {
        let most = |counted, limit, used| LockedMemory { limit, used, counted }.explain(2 << 20);
        for (counted, used) in [(Counted::Process, 65536), (Counted::User, 4096)] {
            let text = most(counted, Some(65536), Some(used));
            let used = used.to_string();
            for part in
                ["RLIMIT_MEMLOCK", "65536", &used, "2097152", "ulimit -l", "limits.conf", "LimitMEMLOCK="]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert_eq!(text.contains("all processes of the user"), counted == Counted::User, "{text}");
            let text = most(counted, None, None);
            assert!(!text.contains("RLIMIT_MEMLOCK"), "not this limit's fault: {text}");
        }
        let text = most(Counted::Process, Some(8 << 20), None);
        assert!(!text.contains("RLIMIT_MEMLOCK"), "not this limit's fault: {text}");
    }

    #[test]
    fn a_node_error_names_owner_and_holder() {
        let path = std::env::temp_dir().join(format!("upcie-advice-{}", std::process::id()));
        fs::write(&path, [0; 4096]).unwrap();
        let text = no_permission("0000:01:00.0".parse().unwrap(), &path, "SUBSYSTEM==\"vfio\"");
        for part in
            ["belongs to", "mode 0", "vfio-pci 0000:01:00.0 --owner", "udev rule: SUBSYSTEM==\"vfio\", GROUP"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let file = fs::File::open(&path).unwrap();
        let paths = ["/nowhere".into(), path.clone()];
        assert_eq!(holders_but(&paths, 0), [std::process::id()]);
        assert!(holders_but(&paths, 1).is_empty(), "its own does not count");
        drop(file);
        assert!(holders_but(&paths, 0).is_empty());
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mapping = crate::mmio::Mapping::new(file.as_fd(), 0, 4096, "a file").unwrap();
        drop(file);
        assert_eq!(holders_but(&paths, 0), [std::process::id()], "a mapping holds it too");
        drop(mapping);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_refused_token_error_names_the_physical_function() {
        let fake = FakeSysfs::new("token");
        fake.add("0000:01:00.0", "0x010802\n", Some("vfio-pci"), Some(5));
        let path = fake.add("0000:01:00.1", "0x010802\n", Some("vfio-pci"), Some(6));
        std::os::unix::fs::symlink("../0000:01:00.0", path.join("physfn")).unwrap();
        let token = Some(VfToken::new([7; 16]));
        let why = |bdf: &str, token, errno| {
            not_shared(&fake.function(bdf).unwrap(), token, Some(errno)).map(|error| error.to_string())
        };
        let [physical, virtual_one] = ["0000:01:00.0", "0000:01:00.1"];
        for (bdf, token, errno, part) in [
            (virtual_one, None, libc::EACCES, "open 0000:01:00.0 first"),
            (virtual_one, token, libc::EACCES, "not the one with which its physical function 0000:01:00.0"),
            (virtual_one, token, libc::EINVAL, "0000:01:00.0 is not bound to vfio-pci"),
            (physical, None, libc::EACCES, "virtual functions of it are in use"),
            (physical, token, libc::EACCES, "virtual functions of it are in use"),
            (physical, token, libc::EINVAL, "takes no VF token"),
        ] {
            let text = why(bdf, token, errno).expect(part);
            assert!(text.contains(part) && text.contains(bdf) && !text.contains("0707"), "{text}");
        }
        assert_eq!(why(virtual_one, None, libc::EINVAL), None, "not the token's fault");
        assert_eq!(why(virtual_one, token, libc::EBUSY), None);
    }

    #[test]
    fn a_busy_error_names_the_holders() {
        assert!(busy("IOMMU group 5", &[17, 18]).contains("IOMMU group 5 is in use by process 17, 18"));
        assert!(busy("it", &[std::process::id()]).contains("this process"));
        assert!(busy("it", &[]).contains("another process"));
    }
}
