//! The container: an I/O address space of a type1 IOMMU, shared by the devices of its groups.

use super::{
    abi,
    advice::{Counted, LockedMemory, busy},
    group::{Group, check},
    info::IommuInfo,
};
use crate::{
    Error, Result,
    device::VfToken,
    dma::Mapper,
    events::{Hold, emit},
    memory::{Memory, host_page_size},
    mmio::Mapping,
    pci::{Bdf, Function},
    process::Owner,
};
use std::{
    fs::{File, OpenOptions},
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An open, empty container.
#[derive(Debug)]
pub(super) struct Container {
    file: File,
    device: String,
}

impl Container {
    /// Opens `vfio` in `dev`, on behalf of `device`.
    pub(super) fn open(device: &str, dev: &Path) -> Result<Self> {
        let path = dev.join("vfio");
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| {
            let path = path.display();
            match e.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::unusable(device, format!(
                        "there is no {path}: load VFIO, as root: modprobe vfio-pci (in a container, also pass \
                         /dev/vfio into it)"
                    )),
                Some(libc::EACCES | libc::EPERM) => Error::unusable(device, format!("no permission to open {path}: as root: chmod 666 {path} (its usual mode)")),
                _ => Error::os(device, format!("opening {path}"), e),
            }
        })?;
        let container = Self { file, device: device.into() };
        let failed = |what: &str, e| Error::os(device, format!("querying VFIO's {what}"), e);
        match abi::api_version(container.as_fd()).map_err(|e| failed("API version", e))? {
            abi::API_VERSION => {}
            version => {
                return Err(Error::unsupported(
                    device,
                    format!("version {version} of VFIO's API"),
                    format!("version {} is", abi::API_VERSION),
                ));
            }
        }
        Ok(container)
    }

    /// Adds `group`, that of `function`, and turns the IOMMU on.
    pub(super) fn attach(self, group: Group, function: Bdf) -> Result<Member> {
        let failed = |what: &str, e| Error::os(&self.device, format!("querying VFIO's {what}"), e);
        if !abi::has_extension(self.as_fd(), abi::TYPE1V2_IOMMU).map_err(|e| failed("extensions", e))? {
            return Err(Error::unusable(
                self.device.clone(),
                "the kernel has no type1 IOMMU support loaded: as root: modprobe vfio_iommu_type1",
            ));
        }
        group.join(self.as_fd())?;
        abi::set_iommu(self.as_fd(), abi::TYPE1V2_IOMMU).map_err(|e| {
            let hint = match e.raw_os_error() {
                Some(libc::EPERM) => {
                    ": the kernel log says why (mostly that the platform does not remap interrupts, see the \
                     allow_unsafe_interrupts parameter of vfio_iommu_type1)"
                }
                _ => "",
            };
            let number = group.number();
            Error::os(&self.device, format!("giving IOMMU group {number} an address space{hint}"), e)
        })?;
        let offered = self.iommu_info()?;
        let mut info = offered.clone();
        let window = take_window(&mut info.ranges);
        let groups = Mutex::new(vec![Joined { group, devices: vec![function] }]);
        let (owner, window) = (Owner::current(), Mutex::new(window));
        let space = Arc::new(Type1 { owner, container: self, groups, offered, info, window });
        Ok(Member { space, function })
    }

    fn iommu_info(&self) -> Result<IommuInfo> {
        const OPERATION: &str = "querying the IOMMU's ranges";
        let (info, bytes) =
            abi::iommu_info(self.as_fd()).map_err(|e| Error::os(&self.device, OPERATION, e))?;
        IommuInfo::parse(&info, &bytes)
            .map_err(|reason| Error::protocol(self.device.clone(), OPERATION, reason))
    }
}

impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Device addresses reserved for [`Type1::prefault`], in bytes.
const WINDOW: u64 = 1 << 20;

/// Takes the first [`WINDOW`] bytes out of the first range that is much larger.
fn take_window(ranges: &mut [RangeInclusive<u64>]) -> Option<u64> {
    let range = ranges.iter_mut().find(|range| range.end() - range.start() >= 16 * WINDOW)?;
    let start = *range.start();
    *range = start + WINDOW..=*range.end();
    Some(start)
}

/// A container with its groups: the address space of their devices.
#[derive(Debug)]
pub(super) struct Type1 {
    owner: Owner,
    container: Container,
    /// The groups whose devices are open. At least one group stays, because the kernel drops all mappings when the last
    /// one leaves.
    groups: Mutex<Vec<Joined>>,
    /// The IOMMU's properties when the first group was added.
    offered: IommuInfo,
    info: IommuInfo,
    /// Start of the [`WINDOW`] bytes that the allocator does not have.
    window: Mutex<Option<u64>>,
}

/// A group in a container.
#[derive(Debug)]
struct Joined {
    group: Group,
    /// Open functions of the group.
    devices: Vec<Bdf>,
}

/// A device's membership in a container. The group leaves with its last device, unless it is the last group.
#[derive(Debug)]
pub(super) struct Member {
    space: Arc<Type1>,
    function: Bdf,
}

impl Member {
    pub(super) fn space(&self) -> &Arc<Type1> {
        &self.space
    }

    /// Opens the function, which is the one that the member was made for.
    pub(super) fn device(&self, function: &Function, token: Option<VfToken>) -> Result<OwnedFd> {
        let groups = self.space.groups();
        let joined = groups.iter().find(|joined| joined.devices.contains(&self.function));
        joined.expect("a member's group is in the list").group.device(function, token)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // A forked child: the list belongs to the parent, and its lock may be held by a thread that exists only there.
        if !self.space.owner.is_current() {
            return;
        }
        let mut groups = self.space.groups();
        for joined in groups.iter_mut() {
            joined.devices.retain(|function| *function != self.function);
        }
        if groups.len() > 1 {
            groups.retain(|joined| !joined.devices.is_empty());
        }
    }
}

impl Type1 {
    /// Returns the IOMMU's properties, without the reserved addresses.
    pub(super) fn info(&self) -> &IommuInfo {
        &self.info
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Joined>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the group of `function`, whose node is in `dev`, so that its devices share the mappings.
    pub(super) fn join(self: &Arc<Self>, function: &Function, dev: &Path) -> Result<Member> {
        let mut groups = self.groups();
        let number = check(function)?.number;
        let bdf = function.bdf;
        if let Some(joined) = groups.iter_mut().find(|joined| joined.group.number() == number) {
            if joined.devices.contains(&bdf) {
                let reason = busy("it", &[std::process::id()]);
                return Err(Error::unusable(bdf.to_string(), reason));
            }
            joined.devices.push(bdf);
            return Ok(Member { space: self.clone(), function: bdf });
        }
        let group = Group::open(function, dev)?;
        group.join(self.container.as_fd())?;
        // On an error below, dropping the group takes it out of the container.
        let now = self.container.iommu_info()?;
        self.offered.still_in(&now).map_err(|reason| {
            Error::unusable(
                bdf.to_string(),
                format!("it can't share the address space of {}: {reason}", self.container.device),
            )
        })?;
        // Removes the group of a closed device, which stayed only because it was the last.
        groups.retain(|joined| !joined.devices.is_empty());
        groups.push(Joined { group, devices: vec![bdf] });
        Ok(Member { space: self.clone(), function: bdf })
    }

    /// Fills the page tables of a mapped BAR, so that no later access faults.
    ///
    /// `MAP_POPULATE` and `madvise` refuse mappings of device memory, and reads here could have side effects. But the
    /// kernel faults pages in before it maps them for a device, so this maps them for a moment at unused addresses. If
    /// that fails, accesses fault as usual. Large BARs are memory, not registers, and are left out.
    pub(super) fn prefault(&self, bar: &Mapping) {
        let len = bar.len().next_multiple_of(host_page_size()) as u64;
        let _hold = Hold::new();
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(iova) = window.filter(|_| len <= WINDOW) else { return };
        match abi::map_bar(self.container.as_fd(), iova, bar, len) {
            Ok(()) => {
                if let Err(error) = abi::unmap(self.container.as_fd(), iova, len) {
                    let device = self.container.device.clone();
                    emit(move || tracing::warn!(device, %error, "unmapping a BAR from the IOMMU failed"));
                }
            }
            Err(error) => {
                let device = self.container.device.clone();
                emit(
                    move || tracing::debug!(device, %error, "filling the page tables of a BAR failed: its first accesses fault"),
                );
            }
        }
    }
}

// SAFETY: the kernel maps exactly the pages of the given range and pins them; an unmapping is `Ok` only when all of them
// have been unmapped.
unsafe impl Mapper for Arc<Type1> {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        let device = &self.container.device;
        let len = memory.len() as u64;
        abi::map_memory(self.container.as_fd(), iova, memory).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOMEM) => Error::memory(
                format!("{device}: mapping {len} bytes for DMA"),
                LockedMemory::now(Counted::Process).explain(len),
                e,
            ),
            Some(libc::ENOSPC) => Error::memory(
                format!("{device}: mapping {len} bytes for DMA"),
                format!(
                    "the container has no mapping left (it had {} at first): use larger regions, or raise \
                     dma_entry_limit of the module vfio_iommu_type1",
                    self.info.mappings_available.map_or("an unknown number".into(), |n| n.to_string())
                ),
                e,
            ),
            errno => {
                let hint = match errno {
                    Some(libc::EEXIST) => ": something is mapped there already",
                    Some(libc::EINVAL) => ": the IOMMU does not take this range",
                    _ => "",
                };
                Error::os(device, format!("mapping {len:#x} bytes at {iova:#x} for DMA{hint}"), e)
            }
        })
    }

    // The kernel does not pin device memory: the address space keeps `bar` until it has been unmapped.
    fn map_device(&self, iova: u64, bar: &Mapping) -> Result<()> {
        let len = bar.len() as u64;
        abi::map_bar(self.container.as_fd(), iova, bar, len).map_err(|e| {
            let hint = match e.raw_os_error() {
                Some(libc::EEXIST) => ": something is mapped there already",
                Some(libc::EINVAL) => ": it is not whole pages, or the IOMMU does not take this range",
                Some(libc::EFAULT) => ": the kernel does not map this device's memory",
                _ => "",
            };
            let operation = format!("mapping {len:#x} bytes of device memory at {iova:#x} for DMA{hint}");
            Error::os(&self.container.device, operation, e)
        })
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<()> {
        let device = &self.container.device;
        let operation = || format!("unmapping {len:#x} bytes at {iova:#x}");
        match abi::unmap(self.container.as_fd(), iova, len) {
            Ok(done) if done == len => Ok(()),
            Ok(done) => {
                Err(Error::protocol(device.clone(), operation(), format!("{done:#x} bytes were unmapped")))
            }
            Err(e) => Err(Error::os(device, operation(), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_window_is_taken_out_of_the_ranges() {
        let mut ranges = [0..=0xffff, 0x10_0000..=0xfedf_ffff];
        assert_eq!(take_window(&mut ranges), Some(0x10_0000));
        assert_eq!(ranges, [0..=0xffff, 0x20_0000..=0xfedf_ffff]);
        assert_eq!(take_window(&mut [0..=0xffff]), None);
        assert_eq!(take_window(&mut [0..=u64::MAX]), Some(0));
    }

    #[test]
    fn a_missing_vfio_error_says_how_to_load_it() {
        let error = Container::open("0000:01:00.0", Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("modprobe vfio-pci") && error.contains("0000:01:00.0"), "{error}");
    }

    #[test]
    fn another_file_is_refused_as_vfio() {
        let directory = std::env::temp_dir().join(format!("upcie-container-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vfio"), "").unwrap();
        let error = Container::open("0000:01:00.0", &directory).unwrap_err();
        assert!(matches!(error.failure(), crate::Failure::Os { .. }), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
