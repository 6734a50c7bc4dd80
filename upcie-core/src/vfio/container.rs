//! The container: an I/O address space that the devices of its groups share, of IOMMU type 1.

use super::{
    abi,
    group::Group,
    info::{IommuInfo, Malformed},
};
use crate::{
    Error, Result,
    dma::Mapper,
    memory::{Memory, host_page_size},
    mmio::Mapping,
};
use nix::sys::resource::{Resource, getrlimit};
use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::RangeInclusive,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// An open container that nothing is in yet.
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
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::Unusable {
                    device: device.into(),
                    reason: format!(
                        "there is no {path}: load VFIO, as root: modprobe vfio-pci (in a container, also pass \
                         /dev/vfio into it)"
                    ),
                },
                Some(libc::EACCES | libc::EPERM) => Error::Unusable {
                    device: device.into(),
                    reason: format!("no permission to open {path}: as root: chmod 666 {path} (its usual mode)"),
                },
                _ => Error::os(device, format!("opening {path}"), e),
            }
        })?;
        let container = Self { file, device: device.into() };
        let failed = |what: &str, e| Error::os(device, format!("asking VFIO for its {what}"), e);
        match abi::api_version(container.as_fd()).map_err(|e| failed("API version", e))? {
            abi::API_VERSION => {}
            version => {
                return Err(Error::Unsupported {
                    device: device.into(),
                    what: format!("version {version} of VFIO's API"),
                    reason: format!("version {} is", abi::API_VERSION),
                });
            }
        }
        if !abi::has_extension(container.as_fd(), abi::TYPE1V2_IOMMU).map_err(|e| failed("extensions", e))? {
            return Err(Error::Unusable {
                device: device.into(),
                reason: "the kernel has no type1 IOMMU support loaded: as root: modprobe vfio_iommu_type1"
                    .into(),
            });
        }
        Ok(container)
    }

    /// Puts `group` in and turns the IOMMU on.
    pub(super) fn attach(self, group: Group) -> Result<Type1> {
        group.join(self.as_fd())?;
        abi::set_iommu(self.as_fd(), abi::TYPE1V2_IOMMU).map_err(|e| {
            let hint = match e.raw_os_error() {
                Some(libc::EPERM) => {
                    ": the kernel log says why (mostly that the platform does not remap interrupts, see the \
                     allow_unsafe_interrupts parameter of vfio_iommu_type1)"
                }
                _ => "",
            };
            Error::os(
                &self.device,
                format!("giving IOMMU group {} an address space{hint}", group.number()),
                e,
            )
        })?;
        let broken = |reason: Malformed| Error::Protocol {
            device: self.device.clone(),
            operation: "asking for the IOMMU's ranges".into(),
            reason: reason.into(),
        };
        let (info, bytes) = abi::iommu_info(self.as_fd())
            .map_err(|e| Error::os(&self.device, "asking for the IOMMU's ranges", e))?;
        let mut info = IommuInfo::parse(&info, &bytes).map_err(broken)?;
        let window = take_window(&mut info.ranges);
        Ok(Type1 { container: self, group, info, window: Mutex::new(window) })
    }
}

impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Device addresses kept back for [`Type1::prefault`], in bytes.
const WINDOW: u64 = 1 << 20;

/// Takes the first [`WINDOW`] bytes out of the first range that has plenty.
fn take_window(ranges: &mut [RangeInclusive<u64>]) -> Option<u64> {
    let range = ranges.iter_mut().find(|range| range.end() - range.start() >= 16 * WINDOW)?;
    let start = *range.start();
    *range = start + WINDOW..=*range.end();
    Some(start)
}

/// A container with its group, as a device's address space.
#[derive(Debug)]
pub(super) struct Type1 {
    container: Container,
    group: Group,
    info: IommuInfo,
    /// Where [`WINDOW`] bytes are that the allocator doesn't have.
    window: Mutex<Option<u64>>,
}

impl Type1 {
    /// What the IOMMU offers, less what is kept back here.
    pub(super) fn info(&self) -> &IommuInfo {
        &self.info
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Fills the page tables of a mapped BAR, so that no access to it faults later.
    ///
    /// `MAP_POPULATE` and `madvise` refuse mappings of device memory, and touching it here could have side effects.
    /// But the kernel faults pages in before it maps them for a device: so they are, for a moment, in addresses that
    /// nothing uses. Where that fails, accesses fault as usual. Large BARs are memory, not registers: left out.
    pub(super) fn prefault(&self, bar: &Mapping) {
        let len = bar.len().next_multiple_of(host_page_size()) as u64;
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(iova) = window.filter(|_| len <= WINDOW) else { return };
        match abi::map_bar(self.container.as_fd(), iova, bar, len) {
            Ok(()) => {
                if let Err(error) = abi::unmap(self.container.as_fd(), iova, len) {
                    tracing::warn!(device = self.container.device, %error, "unmapping a BAR from the IOMMU");
                }
            }
            Err(error) => {
                tracing::debug!(device = self.container.device, %error, "a BAR is not populated in advance");
            }
        }
    }
}

// SAFETY: the kernel maps exactly the pages of the range given, which it pins, and an unmapping is `Ok` only when it has taken
// all of them away.
unsafe impl Mapper for std::sync::Arc<Type1> {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        let device = &self.container.device;
        let len = memory.len() as u64;
        abi::map_memory(self.container.as_fd(), iova, memory).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOMEM) => Error::Memory {
                what: format!("{device}: mapping {len} bytes for DMA"),
                reason: LockedMemory::now().explain(len),
                source: e,
            },
            Some(libc::ENOSPC) => Error::Memory {
                what: format!("{device}: mapping {len} bytes for DMA"),
                reason: format!(
                    "the container has no mapping left (it had {} at first): use larger regions, or raise \
                     dma_entry_limit of the module vfio_iommu_type1",
                    self.info.mappings_available.map_or("an unknown number".into(), |n| n.to_string())
                ),
                source: e,
            },
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

    fn unmap(&self, iova: u64, len: u64) -> Result<()> {
        let device = &self.container.device;
        let operation = || format!("unmapping {len:#x} bytes at {iova:#x}");
        match abi::unmap(self.container.as_fd(), iova, len) {
            Ok(done) if done == len => Ok(()),
            Ok(done) => Err(Error::Protocol {
                device: device.clone(),
                operation: operation(),
                reason: format!("{done:#x} bytes were unmapped"),
            }),
            Err(e) => Err(Error::os(device, operation(), e)),
        }
    }
}

/// The limit that mapping memory for DMA counts against.
#[derive(Debug)]
struct LockedMemory {
    /// Bytes; `None` where there is no limit.
    limit: Option<u64>,
    /// Bytes locked by this process now, where the kernel says.
    used: Option<u64>,
}

impl LockedMemory {
    fn now() -> Self {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(libc::RLIM_INFINITY, |(soft, _)| soft);
        let used = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
            let kib: u64 = status
                .lines()
                .find_map(|line| line.strip_prefix("VmLck:"))?
                .split_whitespace()
                .next()?
                .parse()
                .ok()?;
            Some(kib << 10)
        });
        Self { limit: (limit != libc::RLIM_INFINITY).then_some(limit), used }
    }

    /// Why `needed` bytes could not be locked, and what to do.
    fn explain(&self, needed: u64) -> String {
        let used = self.used.unwrap_or(0);
        match self.limit {
            Some(limit) if used.saturating_add(needed) > limit => format!(
                "the limit on locked memory (RLIMIT_MEMLOCK) is {limit} bytes, {used} are locked already and this \
                 needs {needed} more: raise it with `ulimit -l unlimited` as root before starting the program, with \
                 memlock in /etc/security/limits.conf, or with LimitMEMLOCK=infinity in a systemd unit"
            ),
            _ => "the kernel has no memory for it".into(),
        }
    }
}

/// Why a group or device node could not be opened by this user: whose it is, and how to be given it.
pub(super) fn no_permission(path: &Path) -> String {
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
        "no permission to open {shown}: {owner}. As root: chown {} {shown} (until the driver is bound anew), or for \
         good a udev rule: SUBSYSTEM==\"vfio\", GROUP=\"…\", MODE=\"0660\"",
        account("/etc/passwd", nix::unistd::geteuid().as_raw())
    )
}

/// The name of an account in a passwd or group file, or else its number.
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

/// Which processes have `path` open, as far as this user may see.
pub(super) fn holders(path: &Path) -> Vec<u32> {
    let is_open = |pid: u32| -> io::Result<bool> {
        let links = fs::read_dir(format!("/proc/{pid}/fd"))?;
        Ok(links.flatten().any(|link| fs::read_link(link.path()).is_ok_and(|target| target == path)))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_open(pid).unwrap_or(false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_lock_names_the_limit_and_the_way_out() {
        let text = LockedMemory { limit: Some(65536), used: Some(4096) }.explain(2 << 20);
        for part in
            ["RLIMIT_MEMLOCK", "65536", "4096", "2097152", "ulimit -l", "limits.conf", "LimitMEMLOCK="]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        for limit in [None, Some(8 << 20)] {
            let text = LockedMemory { limit, used: None }.explain(2 << 20);
            assert!(!text.contains("RLIMIT_MEMLOCK"), "not this limit's fault: {text}");
        }
    }

    #[test]
    fn the_window_is_taken_out_of_the_ranges() {
        let mut ranges = [0..=0xffff, 0x10_0000..=0xfedf_ffff];
        assert_eq!(take_window(&mut ranges), Some(0x10_0000));
        assert_eq!(ranges, [0..=0xffff, 0x20_0000..=0xfedf_ffff]);
        assert_eq!(take_window(&mut [0..=0xffff]), None);
        assert_eq!(take_window(&mut [0..=u64::MAX]), Some(0));
    }

    #[test]
    fn an_absent_vfio_says_how_to_load_it() {
        let error = Container::open("0000:01:00.0", Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("modprobe vfio-pci") && error.contains("0000:01:00.0"), "{error}");
    }

    #[test]
    fn what_is_no_vfio_is_an_error() {
        let directory = std::env::temp_dir().join(format!("upcie-container-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("vfio"), "").unwrap();
        let error = Container::open("0000:01:00.0", &directory).unwrap_err();
        assert!(matches!(error, Error::Os { .. }), "{error}");
        assert!(no_permission(&directory.join("vfio")).contains("udev"));
        let file = File::open(directory.join("vfio")).unwrap();
        assert!(holders(&directory.join("vfio")).contains(&std::process::id()));
        drop(file);
        fs::remove_dir_all(&directory).unwrap();
    }
}
