//! The character device of one function, and its binding to an iommufd.

use super::{
    advice::{busy, no_permission, not_shared},
    group::{blocking, check, not_viable},
    iommufd_abi as abi,
    nodes::{device_node, nodes},
};
use crate::{Error, Result, device::VfToken, pci::Function, process::holders_but};
use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// An open `/dev/vfio/devices/vfioN`. Opening it has no effect; binding does.
#[derive(Debug)]
pub(super) struct Cdev {
    file: File,
    /// All nodes that another user of the function may hold.
    nodes: Vec<PathBuf>,
    device: String,
    /// The function with its group, for errors.
    function: Function,
}

impl Cdev {
    /// Opens the node of `function` in the directory `devices` of `dev`, on behalf of `device`.
    pub(super) fn open(device: &str, function: &Function, dev: &Path) -> Result<Self> {
        let unusable = |reason| Error::unusable(device, reason);
        check(function)?;
        let Some(name) = device_node(function) else {
            return Err(unusable(format!(
                "the kernel has no character device for it: it is built without CONFIG_VFIO_DEVICE_CDEV (`zgrep CDEV \
                 /proc/config.gz` or /boot/config-* says), or older than 6.6; vfio:{} goes through the group instead",
                function.bdf
            )));
        };
        let path = dev.join("devices").join(name);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| {
            let shown = path.display();
            match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => unusable(format!(
                    "there is no {shown} although the kernel has that device: in a container, pass {shown} into it \
                     (and /dev/iommu)"
                )),
                Some(libc::EACCES | libc::EPERM) => {
                    unusable(no_permission(function.bdf, &path, "SUBSYSTEM==\"vfio-dev\""))
                }
                _ => Error::os(device, format!("opening {shown}"), e),
            }
        })?;
        Ok(Self { file, nodes: nodes(function, dev), device: device.into(), function: function.clone() })
    }

    /// Binds the device to `iommu`, with a VF token if there is one. After that only this file can use it.
    pub(super) fn bind(&self, iommu: BorrowedFd<'_>, token: Option<VfToken>) -> Result<()> {
        let bound = abi::bind(self.file.as_fd(), iommu, token.as_ref());
        let bound = match bound {
            // Kernels before 6.17 know no token here, and ask for none.
            Err(e) if token.is_some() && e.raw_os_error() == Some(libc::EINVAL) => {
                let device = &self.device;
                tracing::warn!(device, "VFIO takes no VF token on its character device: binding it without");
                abi::bind(self.file.as_fd(), iommu, None)
            }
            bound => bound,
        };
        bound.map_err(|e| {
            not_shared(&self.function, token, e.raw_os_error()).unwrap_or_else(|| self.refused(e))
        })
    }

    /// Attaches the device to an I/O address space.
    pub(super) fn attach(&self, ioas: u32) -> io::Result<()> {
        abi::attach(self.file.as_fd(), ioas)
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// Makes the error of a failed binding.
    fn refused(&self, e: io::Error) -> Error {
        let unusable = |reason| Error::unusable(self.device.clone(), reason);
        match e.raw_os_error() {
            // The device is bound by another file, or opened through its group: the kernel gives either error.
            Some(libc::EBUSY | libc::EINVAL) => {
                let group = self.function.iommu_group.as_ref();
                let blocked = group.filter(|group| !blocking(group).is_empty()).map(not_viable);
                match (holders_but(&self.nodes, 1), blocked) {
                    (holders, _) if !holders.is_empty() => unusable(busy("it", &holders)),
                    (_, Some(reason)) => unusable(reason),
                    (holders, None) if e.raw_os_error() == Some(libc::EBUSY) => {
                        unusable(busy("it", &holders))
                    }
                    _ => Error::os(
                        &self.device,
                        "binding it to iommufd (it is in use by a process of another user, or its DMA bypasses the \
                         processor's caches: the kernel log says)",
                        e,
                    ),
                }
            }
            Some(libc::EPERM) => Error::os(
                &self.device,
                "binding it to iommufd: the kernel log says why (mostly that the platform does not remap interrupts, \
                 see the allow_unsafe_interrupts parameter of iommufd)",
                e,
            ),
            Some(libc::ENODEV) => Error::gone(self.device.clone(), "binding it to iommufd"),
            _ => Error::os(&self.device, "binding it to iommufd", e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use std::fs;

    const BDF: &str = "0000:01:00.0";

    /// Makes a function bound to vfio-pci, with a character device named `cdev`.
    fn bound(test: &str, cdev: Option<&str>) -> (FakeSysfs, Function) {
        let fake = FakeSysfs::new(test);
        let path = fake.add(BDF, "0x010802\n", Some("vfio-pci"), Some(5));
        if let Some(name) = cdev {
            let entry = path.join("vfio-dev").join(name);
            fs::create_dir_all(&entry).unwrap();
            fs::write(entry.join("dev"), "511:0\n").unwrap();
        }
        let function = fake.function(BDF).unwrap();
        (fake, function)
    }

    #[test]
    fn missing_cdev_support_differs_from_a_missing_node() {
        let (fake, function) = bound("cdev-none", None);
        let error = Cdev::open(BDF, &function, &fake.0).unwrap_err().to_string();
        for part in [BDF, "CONFIG_VFIO_DEVICE_CDEV", "vfio:0000:01:00.0"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let (fake, function) = bound("cdev-node", Some("vfio7"));
        let error = Cdev::open(BDF, &function, &fake.0).unwrap_err().to_string();
        assert!(error.contains("there is no") && error.contains("devices/vfio7"), "{error}");
        let all = nodes(&function, Path::new("/dev/vfio"));
        assert_eq!(all, [Path::new("/dev/vfio/5"), Path::new("/dev/vfio/devices/vfio7")]);
    }

    #[test]
    fn a_failed_binding_names_holder_or_group_members() {
        let (fake, function) = bound("cdev-busy", Some("vfio7"));
        fs::create_dir_all(fake.0.join("devices")).unwrap();
        fs::write(fake.0.join("devices/vfio7"), "").unwrap();
        let cdev = Cdev::open(BDF, &function, &fake.0).unwrap();
        let why = |cdev: &Cdev, errno| cdev.refused(io::Error::from_raw_os_error(errno)).to_string();
        assert!(why(&cdev, libc::EBUSY).contains("in use by another process"));
        let second = Cdev::open(BDF, &function, &fake.0).unwrap();
        for errno in [libc::EBUSY, libc::EINVAL] {
            assert!(why(&cdev, errno).contains("in use by this process"));
        }
        drop(second);
        assert!(why(&cdev, libc::EINVAL).contains("the kernel log says"));
        assert!(why(&cdev, libc::EPERM).contains("allow_unsafe_interrupts"));
        let gone = cdev.refused(io::Error::from_raw_os_error(libc::ENODEV));
        assert!(matches!(gone.failure(), crate::Failure::Gone { .. }), "{gone}");
        drop(cdev);
        fake.add("0000:01:00.1", "0x020000\n", Some("e1000e"), Some(5));
        let cdev = Cdev::open(BDF, &fake.function(BDF).unwrap(), &fake.0).unwrap();
        assert!(why(&cdev, libc::EBUSY).contains("0000:01:00.1 (bound to e1000e)"));
    }
}
