//! Which driver a function is bound to, and who drives it from user space.

use super::{
    Binder, Function,
    function::{Sysfs, link_name},
};
use crate::{
    Error, Result,
    process::{holders, read_within},
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

    /// Binds it to `driver`: [`Binder::bind`] with nothing set.
    ///
    /// # Errors
    /// As there.
    pub fn bind(&self, driver: &str) -> Result<()> {
        Binder::new().bind(self, driver)
    }

    /// Takes it from its driver: [`Binder::unbind`] with nothing set.
    ///
    /// # Errors
    /// As there.
    pub fn unbind(&self) -> Result<()> {
        Binder::new().unbind(self)
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
    pub(super) fn sysfs(&self) -> &Path {
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
