//! The driver that a function is bound to, and the processes that drive it from user space.

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

/// Deadline for one step of the kernel: a driver's probe of a slow device, or a user that closes it.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// The binding of a function, which can be restored later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The driver.
    pub driver: Option<String>,
    /// The only driver to which the kernel offers the function, if one was named: see `driver_override` in the kernel's
    /// `Documentation/ABI/testing/sysfs-bus-pci`.
    pub driver_override: Option<String>,
}

/// Returns whether `driver` is vfio-pci or one of its variants for particular devices.
pub fn is_vfio_driver(driver: &str) -> bool {
    driver.replace('_', "-").ends_with("vfio-pci")
}

impl Function {
    /// Reads its present binding.
    ///
    /// # Errors
    /// [`Failure::NotFound`](crate::Failure::NotFound) when the function is gone, and the system's errors.
    pub fn binding(&self) -> Result<Binding> {
        self.refresh()?;
        Ok(Binding {
            driver: link_name(&self.path.join("driver"))?,
            driver_override: self.driver_override()?,
        })
    }

    /// Reads the driver named in its `driver_override`.
    ///
    /// # Errors
    /// The system's errors.
    pub fn driver_override(&self) -> Result<Option<String>> {
        let path = self.path.join("driver_override");
        // The kernel answers only after an unbinding in progress has ended.
        let text = read_within(&path, DEADLINE).map_err(|e| match e.kind() {
            io::ErrorKind::TimedOut => Error::timeout(
                self.bdf.to_string(),
                format!(
                    "reading {}: it is being unbound, which for VFIO waits for its user{} to close it",
                    path.display(),
                    by(&self.users())
                ),
                DEADLINE,
            ),
            _ => Error::os(path.display().to_string(), "reading it", e),
        })?;
        Ok(Some(text.trim()).filter(|name| !matches!(*name, "" | "(null)")).map(str::to_owned))
    }

    /// Returns whether VFIO is releasing it: an unbinding or a removal waits for its user to close the device.
    ///
    /// sysfs shows no driver from the beginning of an unbinding. The VFIO group (`/sys/class/vfio/GROUP`) stays until the
    /// end, so a group without a bound member reveals it. This returns `false` where that can't be seen: if the function
    /// shares its group with one bound to VFIO, and on a kernel without VFIO groups.
    pub fn is_being_unbound(&self) -> bool {
        let Some(group) = &self.iommu_group else { return false };
        let is_vfio = |driver: &Option<String>| driver.as_deref().is_some_and(is_vfio_driver);
        // Read anew, because the caller's snapshot may be older.
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
    /// [`Failure::Unusable`](crate::Failure::Unusable).
    pub fn check_not_being_unbound(&self) -> Result<()> {
        if !self.is_being_unbound() {
            return Ok(());
        }
        Err(Error::unusable(
            self.bdf.to_string(),
            format!(
                "it is being unbound from its driver, and the kernel waits until its user{} closes it: end that, then \
                 try again",
                by(&self.former_users())
            ),
        ))
    }

    /// Lists the processes that still have it open while it [is being unbound](Self::is_being_unbound), as far as this
    /// user can see them: by its VFIO group, or by a VFIO device whose node is already gone.
    pub fn former_users(&self) -> Vec<u32> {
        let group = link_name(&self.path.join("iommu_group")).ok().flatten();
        let groups = group.map(|group| [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")]);
        holders_where(move |path| {
            let Some(path) = path.to_str() else { return false };
            groups.iter().flatten().any(|group| group == path)
                || (path.starts_with("/dev/vfio/devices/") && path.ends_with(" (deleted)"))
        })
    }

    /// Lists the existing device nodes through which a program in user space drives it: those of its VFIO group, its VFIO
    /// device, and its UIO device.
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

    /// Lists the processes that drive it from user space, as far as this user can see them: those that have one of its
    /// [`nodes`](Self::nodes) open, and other processes that have its configuration space open, as users without a driver
    /// do.
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

    /// Reads the function again.
    pub(super) fn refresh(&self) -> Result<Self> {
        Sysfs { root: self.sysfs().to_owned() }.function(self.bdf)
    }

    /// Returns the mount point of the sysfs in which it was found.
    pub(crate) fn sysfs(&self) -> &Path {
        self.path.ancestors().nth(4).unwrap_or(Path::new("/"))
    }

    pub(super) fn bus(&self) -> PathBuf {
        self.sysfs().join("bus/pci")
    }
}

/// Formats ` by process 17, 18`; nothing for no users.
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
        assert!(!is("0000:03:00.0"), "it has no VFIO group");
        for group in ["7", "noiommu-8"] {
            fs::create_dir_all(fake.0.join("class/vfio").join(group)).unwrap();
        }
        assert!(is("0000:03:00.0"));
        assert!(!is("0000:02:00.0"), "it has a driver");
        assert!(!is("0000:01:00.0"), "another function shares the group");
        let error = fake.function("0000:03:00.0").unwrap().check_not_being_unbound().unwrap_err().to_string();
        assert!(error.contains("0000:03:00.0") && error.contains("being unbound"), "{error}");
    }
}
