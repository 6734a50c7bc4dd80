//! An I/O address space of iommufd, which its attached devices share.

use super::{
    advice::{Counted, LockedMemory, no_permission},
    cdev::Cdev,
    info::IommuInfo,
    iommufd_abi as abi,
};
use crate::{
    Error, Result, device::VfToken, dma::Mapper, events::emit, memory::Memory, mmio::Mapping, pci::Bdf,
    process::Owner,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

/// An I/O address space in an iommufd of its own. It and its mappings end when its last device and its last memory are
/// dropped.
#[derive(Debug)]
pub struct Ioas {
    iommu: File,
    id: u32,
    /// The device that opened it first, for messages.
    device: String,
    owner: Owner,
    /// The addresses that the first device left usable.
    info: IommuInfo,
}

/// Opens `path`, which is `/dev/iommu`, on behalf of `device`, which is `function`.
pub(super) fn open_iommu(device: &str, function: Bdf, path: &Path) -> Result<File> {
    let unusable = |reason| Error::unusable(device, reason);
    let shown = path.display();
    OpenOptions::new().read(true).write(true).open(path).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => unusable(format!(
            "there is no {shown}: as root: modprobe iommufd; a kernel without CONFIG_IOMMUFD has none (in a container, \
             also pass {shown} into it); the transport through the group, `vfio:`, needs none"
        )),
        Some(libc::EACCES | libc::EPERM) => {
            unusable(no_permission(function, path, "KERNEL==\"iommu\", SUBSYSTEM==\"misc\""))
        }
        _ => Error::os(device, format!("opening {shown}"), e),
    })
}

impl Ioas {
    /// Makes an address space in `iommu`, with `cdev` bound and attached, on behalf of `device`.
    pub(super) fn with(device: &str, iommu: File, cdev: &Cdev, token: Option<VfToken>) -> Result<Arc<Self>> {
        cdev.bind(iommu.as_fd(), token)?;
        let failed = |operation, e| Error::os(device, operation, e);
        let id = abi::ioas_alloc(iommu.as_fd()).map_err(|e| failed("making an I/O address space", e))?;
        let nothing = IommuInfo { page_sizes: 0, ranges: Vec::new(), mappings_available: None };
        let mut ioas = Self { iommu, id, device: device.into(), owner: Owner::current(), info: nothing };
        cdev.attach(id).map_err(|e| failed("attaching it to an I/O address space", e))?;
        ioas.info = ioas.ranges()?;
        Ok(Arc::new(ioas))
    }

    /// Attaches `cdev` too, so that it shares the mappings.
    pub(super) fn attach(&self, device: &str, cdev: &Cdev, token: Option<VfToken>) -> Result<()> {
        let cant = |reason| {
            Error::unusable(device, format!("it can't share the address space of {}: {reason}", self.device))
        };
        cdev.bind(self.iommu.as_fd(), token)?;
        cdev.attach(self.id).map_err(|e| match e.raw_os_error() {
            Some(libc::EADDRINUSE) => cant(
                "addresses that are reserved for it are in use there: open it first, and the other one beside it"
                    .into(),
            ),
            _ => Error::os(device, format!("attaching it to the address space of {}", self.device), e),
        })?;
        // On an error, dropping `cdev` detaches it.
        self.info.still_in(&self.ranges()?).map_err(cant)
    }

    fn ranges(&self) -> Result<IommuInfo> {
        let (ranges, alignment) = abi::iova_ranges(self.iommu.as_fd(), self.id)
            .map_err(|e| Error::os(&self.device, "querying the IOMMU's ranges", e))?;
        if !alignment.is_power_of_two() {
            return Err(Error::protocol(
                self.device.clone(),
                "querying the IOMMU's ranges",
                format!("an alignment of {alignment} bytes"),
            ));
        }
        Ok(IommuInfo { page_sizes: alignment, ranges, mappings_available: None })
    }

    /// Returns the properties of its devices' IOMMU.
    pub fn info(&self) -> &IommuInfo {
        &self.info
    }

    fn map_at(&self, iova: u64, at: *mut u8, len: u64) -> io::Result<()> {
        abi::ioas_map(self.iommu.as_fd(), self.id, iova, at, len)
    }

    /// Makes the error of a failed mapping of `memory`.
    fn no_memory(&self, memory: &Memory, e: io::Error) -> Error {
        let len = memory.len() as u64;
        let hint = match e.raw_os_error() {
            Some(libc::ENOMEM) => {
                return Error::memory(
                    format!("{}: mapping {len} bytes for DMA", self.device),
                    LockedMemory::now(Counted::User).explain(len),
                    e,
                );
            }
            Some(libc::EEXIST | libc::EADDRINUSE) => ": something is mapped there already",
            Some(libc::ENOSPC) => ": no device address is free",
            Some(libc::EINVAL) => ": the IOMMU does not take this range",
            _ => "",
        };
        Error::os(&self.device, format!("mapping {len:#x} bytes for DMA{hint}"), e)
    }
}

impl AsFd for Ioas {
    /// Returns the iommufd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.iommu.as_fd()
    }
}

impl Drop for Ioas {
    fn drop(&mut self) {
        // A forked child: the space belongs to the parent.
        if !self.owner.is_current() {
            return;
        }
        // Closing the file is not enough: a mapped BAR keeps the device's file open, which keeps the iommufd.
        if let Err(error) = abi::destroy(self.iommu.as_fd(), self.id) {
            let device = self.device.clone();
            emit(move || tracing::warn!(device, %error, "destroying an I/O address space failed"));
        }
    }
}

// SAFETY: the kernel maps exactly the pages of the given range and pins them; an unmapping is `Ok` only when all of them
// have been unmapped.
unsafe impl Mapper for Arc<Ioas> {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        let mapped = self.map_at(iova, memory.as_ptr(), memory.len() as u64);
        mapped.map_err(|e| self.no_memory(memory, e))
    }

    fn map_device(&self, iova: u64, bar: &Mapping) -> Result<()> {
        let len = bar.len() as u64;
        match self.map_at(iova, bar.as_ptr(), len) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Err(Error::unsupported(
                self.device.clone(),
                "mapping memory of a device for other devices",
                "iommufd of this kernel does not map device memory; the type1 container does: open both devices \
                         through their groups, `vfio:`",
            )),
            Err(e) => {
                let operation = format!("mapping {len:#x} bytes of device memory at {iova:#x} for DMA");
                Err(Error::os(&self.device, operation, e))
            }
        }
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<()> {
        let operation = || format!("unmapping {len:#x} bytes at {iova:#x}");
        match abi::ioas_unmap(self.iommu.as_fd(), self.id, iova, len) {
            Ok(done) if done == len => Ok(()),
            Ok(done) => Err(Error::protocol(
                self.device.clone(),
                operation(),
                format!("{done:#x} bytes were unmapped"),
            )),
            Err(e) => Err(Error::os(&self.device, operation(), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_iommufd_error_says_how_to_load_it() {
        let (name, path) = ("0000:01:00.0", Path::new("/nonexistent/iommu"));
        let error = open_iommu(name, name.parse().unwrap(), path).unwrap_err().to_string();
        for part in ["modprobe iommufd", "CONFIG_IOMMUFD", "vfio:", "0000:01:00.0"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
