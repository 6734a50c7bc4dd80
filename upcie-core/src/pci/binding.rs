//! Which driver a function is bound to, and who drives it from user space.

use super::{
    Function,
    function::{Sysfs, link_name},
};
use crate::{
    Error, Result,
    process::{holders, holders_where, read_within},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the kernel may take over one step: a driver's probe of a slow device, or a user that closes it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// What a function is bound to: enough to put it back later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The driver.
    pub driver: Option<String>,
    /// The only driver that the kernel offers the function to, where one was named: see `driver_override` in the
    /// kernel's `Documentation/ABI/testing/sysfs-bus-pci`.
    pub driver_override: Option<String>,
}

/// Whether `driver` is vfio-pci or one of its variants for particular devices.
pub fn is_vfio_driver(driver: &str) -> bool {
    driver.replace('_', "-").ends_with("vfio-pci")
}

impl Function {
    /// What it is bound to now.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is gone, and the system's.
    pub fn binding(&self) -> Result<Binding> {
        self.refresh()?;
        Ok(Binding {
            driver: link_name(&self.path.join("driver"))?,
            driver_override: self.driver_override()?,
        })
    }

    /// The driver that is named in its `driver_override`.
    ///
    /// # Errors
    /// The system's.
    pub fn driver_override(&self) -> Result<Option<String>> {
        let path = self.path.join("driver_override");
        // The kernel answers only once an unbinding that goes on has ended.
        let text = read_within(&path, DEADLINE).map_err(|e| match e.kind() {
            io::ErrorKind::TimedOut => Error::Timeout {
                device: self.bdf.to_string(),
                operation: format!(
                    "reading {}: it is being unbound, which for VFIO waits for its user{} to close it",
                    path.display(),
                    by(&self.users())
                ),
                after: DEADLINE,
            },
            _ => Error::os(path.display().to_string(), "reading it", e),
        })?;
        Ok(Some(text.trim()).filter(|name| !matches!(*name, "" | "(null)")).map(str::to_owned))
    }

    /// Returns whether VFIO is letting go of it: an unbinding or a removal waits for its user to close the device.
    ///
    /// sysfs shows no driver from the beginning of an unbinding on. The VFIO group (`/sys/class/vfio/GROUP`) stays until
    /// its end, so a group without a bound member gives it away. It can't be told of a function that shares its group
    /// with one that is bound to VFIO, nor with a kernel without VFIO groups: `false` there.
    pub fn is_being_unbound(&self) -> bool {
        let Some(group) = &self.iommu_group else { return false };
        let is_vfio = |driver: &Option<String>| driver.as_deref().is_some_and(is_vfio_driver);
        // As it is now: the caller's copy may be of before.
        let is_bound = || !matches!(link_name(&self.path.join("driver")), Ok(None));
        let class = self.sysfs().join("class/vfio");
        let names = [group.number.to_string(), format!("noiommu-{}", group.number)];
        !is_bound()
            && !group
                .members
                .iter()
                .any(|member| is_vfio(&member.driver) && member.name != self.bdf.to_string())
            && names.iter().any(|name| class.join(name).exists())
    }

    /// Returns an error when it [is being unbound](Self::is_being_unbound), which names the processes that the kernel
    /// waits for.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn check_not_being_unbound(&self) -> Result<()> {
        if !self.is_being_unbound() {
            return Ok(());
        }
        Err(Error::Unusable {
            device: self.bdf.to_string(),
            reason: format!(
                "it is being unbound from its driver, and the kernel waits until its user{} closes it: end that, then \
                 try again",
                by(&self.former_users())
            ),
        })
    }

    /// Processes that still have it open while it [is being unbound](Self::is_being_unbound), as far as this user may
    /// see: by its VFIO group, or by a VFIO device whose node is gone already.
    pub fn former_users(&self) -> Vec<u32> {
        let group = link_name(&self.path.join("iommu_group")).ok().flatten();
        let groups = group.map(|group| [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")]);
        holders_where(move |path| {
            let Some(path) = path.to_str() else { return false };
            groups.iter().flatten().any(|group| group == path)
                || (path.starts_with("/dev/vfio/devices/") && path.ends_with(" (deleted)"))
        })
    }

    /// The nodes through which a program in user space drives it, as far as they exist: its VFIO group's, its VFIO
    /// device's, its UIO device's.
    pub fn nodes(&self) -> Vec<PathBuf> {
        let dev = Path::new("/dev");
        let mut nodes = Vec::new();
        let driver = link_name(&self.path.join("driver")).ok().flatten();
        if driver.is_some_and(|driver| is_vfio_driver(&driver)) {
            if let Ok(Some(group)) = link_name(&self.path.join("iommu_group")) {
                nodes.push(dev.join("vfio").join(&group));
                nodes.push(dev.join("vfio").join(format!("noiommu-{group}")));
            }
        }
        for (directory, dev) in [("vfio-dev", dev.join("vfio/devices")), ("uio", dev.to_owned())] {
            let entries = fs::read_dir(self.path.join(directory)).into_iter().flatten().flatten();
            nodes.extend(entries.map(|entry| dev.join(entry.file_name())));
        }
        nodes.retain(|node| node.exists());
        nodes
    }

    /// Processes that drive it from user space, as far as this user may see: those that have one of its
    /// [`nodes`](Self::nodes) open, or (others than this one) its configuration space, as users without a driver do.
    pub fn users(&self) -> Vec<u32> {
        let nodes = self.nodes();
        let mut paths = nodes.clone();
        paths.extend(fs::canonicalize(self.path.join("config")));
        let mut users = holders(&paths);
        let me = std::process::id();
        if users.contains(&me) && !holders(&nodes).contains(&me) {
            users.retain(|&pid| pid != me);
        }
        users
    }

    /// It as it is now.
    pub(super) fn refresh(&self) -> Result<Self> {
        Sysfs { root: self.sysfs().to_owned() }.function(self.bdf)
    }

    /// Where the sysfs that it was found in is mounted.
    pub(crate) fn sysfs(&self) -> &Path {
        self.path.ancestors().nth(4).unwrap_or(Path::new("/"))
    }

    pub(super) fn bus(&self) -> PathBuf {
        self.sysfs().join("bus/pci")
    }
}

/// ` by process 17, 18`.
pub(super) fn by(users: &[u32]) -> String {
    let pids: Vec<_> = users.iter().map(u32::to_string).collect();
    if pids.is_empty() { String::new() } else { format!(" by process {}", pids.join(", ")) }
}

#[cfg(test)]
mod tests {
    use crate::testing::FakeSysfs;
    use std::fs;

    #[test]
    fn a_vfio_group_without_a_bound_member_is_being_unbound() {
        let fake = FakeSysfs::new("unbinding");
        for (bdf, driver) in [("0000:01:00.0", None), ("0000:02:00.0", Some("vfio-pci"))] {
            fake.add(bdf, "0x010802", driver, Some(7));
        }
        fake.add("0000:03:00.0", "0x010802", None, Some(8));
        let is = |bdf| fake.function(bdf).unwrap().is_being_unbound();
        assert!(!is("0000:03:00.0"), "there is no VFIO group");
        for group in ["7", "noiommu-8"] {
            fs::create_dir_all(fake.0.join("class/vfio").join(group)).unwrap();
        }
        assert!(is("0000:03:00.0"));
        assert!(!is("0000:02:00.0"), "it has a driver");
        assert!(!is("0000:01:00.0"), "the group is another's, too");
        let error = fake.function("0000:03:00.0").unwrap().check_not_being_unbound().unwrap_err().to_string();
        assert!(error.contains("0000:03:00.0") && error.contains("being unbound"), "{error}");
    }
}
