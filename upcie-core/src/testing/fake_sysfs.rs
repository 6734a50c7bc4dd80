//! A sysfs for unit tests.

use crate::{
    Result,
    pci::{Function, Sysfs},
};
use std::{fs, os::unix::fs::symlink, path::PathBuf};

/// A sysfs tree in a temporary directory, removed when dropped.
pub(crate) struct FakeSysfs(pub(crate) PathBuf);

impl FakeSysfs {
    pub(crate) fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("upcie-sysfs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("bus/pci/devices")).unwrap();
        Self(root)
    }

    pub(crate) fn add(&self, bdf: &str, class: &str, driver: Option<&str>, group: Option<u32>) -> PathBuf {
        let path = self.0.join("bus/pci/devices").join(bdf);
        fs::create_dir_all(&path).unwrap();
        for (file, text) in [
            ("vendor", "0x1b36\n"),
            ("device", "0x0010\n"),
            ("subsystem_vendor", "0x1af4\n"),
            ("subsystem_device", "0x1100\n"),
            ("class", class),
            ("revision", "0x02\n"),
            ("numa_node", "-1\n"),
        ] {
            fs::write(path.join(file), text).unwrap();
        }
        if let Some(driver) = driver {
            symlink(format!("../../../bus/pci/drivers/{driver}"), path.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let directory = self.0.join(format!("kernel/iommu_groups/{group}"));
            fs::create_dir_all(directory.join("devices")).unwrap();
            symlink(&path, directory.join("devices").join(bdf)).unwrap();
            symlink(&directory, path.join("iommu_group")).unwrap();
        }
        path
    }

    pub(crate) fn function(&self, bdf: &str) -> Result<Function> {
        self.sysfs().function(bdf.parse().unwrap())
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs { root: self.0.clone() }
    }
}

impl Drop for FakeSysfs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
