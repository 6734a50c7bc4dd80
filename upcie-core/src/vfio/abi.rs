//! Typed ioctls and structures of `<linux/vfio.h>`, as far as this crate uses them.
//!
//! Field order and sizes are the kernel's. Values filled in by the kernel are checked at their use.

use crate::memory::Memory;
use std::{
    ffi::{CStr, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(super) const API_VERSION: i32 = 0;
/// Type1 IOMMU, version 2: an unmapping must match whole mappings.
pub(super) const TYPE1V2_IOMMU: u32 = 3;
/// No IOMMU: devices use physical addresses.
pub(super) const NOIOMMU: u32 = 8;

pub(super) const GROUP_VIABLE: u32 = 1 << 0;

pub(super) const DEVICE_RESET: u32 = 1 << 0;
pub(super) const DEVICE_PCI: u32 = 1 << 1;

pub(super) const REGION_WRITE: u32 = 1 << 1;
pub(super) const REGION_MMAP: u32 = 1 << 2;
pub(super) const REGION_CAPS: u32 = 1 << 3;
pub(super) const REGION_CAP_SPARSE_MMAP: u16 = 1;
pub(super) const REGION_CAP_MSIX_MAPPABLE: u16 = 3;
pub(super) const REGION_INDEX_CONFIG: u32 = 7;

pub(super) const IRQ_MASKABLE: u32 = 1 << 1;
pub(super) const IRQ_DATA_NONE: u32 = 1 << 0;
pub(super) const IRQ_DATA_EVENTFD: u32 = 1 << 2;
pub(super) const IRQ_ACTION_MASK: u32 = 1 << 3;
pub(super) const IRQ_ACTION_UNMASK: u32 = 1 << 4;
pub(super) const IRQ_ACTION_TRIGGER: u32 = 1 << 5;

pub(super) const IOMMU_PAGE_SIZES: u32 = 1 << 0;
pub(super) const IOMMU_CAPS: u32 = 1 << 1;
pub(super) const IOMMU_CAP_IOVA_RANGE: u16 = 1;
pub(super) const IOMMU_CAP_DMA_AVAILABLE: u16 = 3;

const DMA_READ: u32 = 1 << 0;
const DMA_WRITE: u32 = 1 << 1;

/// `_IO(';', 100 + n)`: VFIO's requests encode neither direction nor size; structures have their size in `argsz`.
const fn request(n: u32) -> u32 {
    (b';' as u32) << 8 | (100 + n)
}

const GET_API_VERSION: u32 = request(0);
const CHECK_EXTENSION: u32 = request(1);
const SET_IOMMU: u32 = request(2);
const GROUP_GET_STATUS: u32 = request(3);
const GROUP_SET_CONTAINER: u32 = request(4);
const GROUP_GET_DEVICE_FD: u32 = request(6);
const DEVICE_GET_INFO: u32 = request(7);
const DEVICE_GET_REGION_INFO: u32 = request(8);
const DEVICE_GET_IRQ_INFO: u32 = request(9);
const DEVICE_SET_IRQS: u32 = request(10);
const DEVICE_RESET_REQUEST: u32 = request(11);
const IOMMU_GET_INFO: u32 = request(12);
const IOMMU_MAP_DMA: u32 = request(13);
const IOMMU_UNMAP_DMA: u32 = request(14);

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DeviceInfo {
    argsz: u32,
    pub(super) flags: u32,
    /// Highest region index + 1.
    pub(super) num_regions: u32,
    /// Highest interrupt index + 1.
    pub(super) num_irqs: u32,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RegionInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    pub(super) index: u32,
    /// Offset from the start of this structure; 0 for none.
    pub(super) cap_offset: u32,
    pub(super) size: u64,
    /// The region's offset in the device's file.
    pub(super) offset: u64,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct IrqInfo {
    argsz: u32,
    pub(super) flags: u32,
    index: u32,
    pub(super) count: u32,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct IommuInfo {
    pub(super) argsz: u32,
    pub(super) flags: u32,
    /// Bit mask of page sizes.
    pub(super) page_sizes: u64,
    /// Offset from the start of this structure; 0 for none.
    pub(super) cap_offset: u32,
    pub(super) reserved: u32,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// The fixed part of `vfio_irq_set`; eventfds follow it as 32-bit numbers.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
}

/// The header of each capability that follows an info structure.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CapHeader {
    pub(super) id: u16,
    pub(super) version: u16,
    /// Offset from the start of the info structure; 0 at the end of the chain.
    pub(super) next: u32,
}

/// Calls one ioctl, and repeats it if a signal interrupts it.
///
/// # Safety
/// `argument` suits `request`: it is a number, or a pointer to the request's structure, valid for reads and writes of
/// `argsz` bytes.
pub(super) unsafe fn ioctl(fd: BorrowedFd<'_>, request: u32, argument: *mut c_void) -> io::Result<i32> {
    loop {
        // SAFETY: the caller promises that `argument` suits `request`.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

pub(super) fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

/// Calls `request`, which takes a plain number.
macro_rules! number {
    ($fd:expr, $request:expr, $value:expr) => {{
        let value = ptr::without_provenance_mut($value as usize);
        // SAFETY: the request takes a number; nothing is read or written through it.
        unsafe { ioctl($fd, $request, value) }
    }};
}

/// Calls `request`, which takes a structure of fixed size with its `argsz` set.
macro_rules! structure {
    ($fd:expr, $request:expr, $value:expr) => {{
        let value: *mut _ = $value;
        // SAFETY: a live, exclusively borrowed structure of the request's type, whose `argsz` is its size.
        unsafe { ioctl($fd, $request, value.cast()) }
    }};
}

pub(super) fn api_version(container: BorrowedFd<'_>) -> io::Result<i32> {
    number!(container, GET_API_VERSION, 0)
}

pub(super) fn has_extension(container: BorrowedFd<'_>, extension: u32) -> io::Result<bool> {
    number!(container, CHECK_EXTENSION, extension).map(|yes| yes != 0)
}

pub(super) fn set_iommu(container: BorrowedFd<'_>, iommu: u32) -> io::Result<()> {
    number!(container, SET_IOMMU, iommu).map(drop)
}

pub(super) fn group_flags(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = GroupStatus { argsz: argsz::<GroupStatus>(), flags: 0 };
    structure!(group, GROUP_GET_STATUS, &mut status)?;
    Ok(status.flags)
}

pub(super) fn group_set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = container.as_raw_fd();
    let fd: *mut i32 = &mut fd;
    // SAFETY: the request reads one 32-bit descriptor, which lives until the call returns.
    unsafe { ioctl(group, GROUP_SET_CONTAINER, fd.cast()) }.map(drop)
}

/// Opens a device of a group. The kernel makes the descriptor close-on-exec.
pub(super) fn group_device(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the request reads a string up to its end, and writes nothing.
    let fd = unsafe { ioctl(group, GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut().cast()) }?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn device_info(device: BorrowedFd<'_>) -> io::Result<DeviceInfo> {
    let mut info = DeviceInfo { argsz: argsz::<DeviceInfo>(), ..DeviceInfo::default() };
    structure!(device, DEVICE_GET_INFO, &mut info)?;
    Ok(info)
}

/// Returns the region's info, and the whole answer: the info with its capabilities.
pub(super) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<(RegionInfo, Vec<u8>)> {
    let ask = RegionInfo { index, ..RegionInfo::default() };
    chained(device, DEVICE_GET_REGION_INFO, ask)
}

pub(super) fn irq_info(device: BorrowedFd<'_>, index: u32) -> io::Result<IrqInfo> {
    let mut info = IrqInfo { argsz: argsz::<IrqInfo>(), index, ..IrqInfo::default() };
    structure!(device, DEVICE_GET_IRQ_INFO, &mut info)?;
    Ok(info)
}

/// Makes one SET_IRQS call for `start..start + count` of `index`, with eventfds if `flags` say so. A result above 0 is
/// the number of available vectors: fewer than requested, and none is set.
pub(super) fn set_irqs(
    device: BorrowedFd<'_>,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    fds: &[BorrowedFd<'_>],
) -> io::Result<i32> {
    debug_assert!(fds.is_empty() || fds.len() as u32 == count);
    let size = size_of::<IrqSet>() + size_of_val(fds);
    let head = IrqSet { argsz: size as u32, flags, index, start, count };
    let head: [u32; 5] = zerocopy::transmute!(head);
    let mut words: Vec<u32> = head.into_iter().chain(fds.iter().map(|fd| fd.as_raw_fd() as u32)).collect();
    // SAFETY: `words` has `argsz` bytes: the head and one word for each descriptor.
    unsafe { ioctl(device, DEVICE_SET_IRQS, words.as_mut_ptr().cast()) }
}

pub(super) fn device_reset(device: BorrowedFd<'_>) -> io::Result<()> {
    number!(device, DEVICE_RESET_REQUEST, 0).map(drop)
}

/// Returns the IOMMU's info, and the whole answer: the info with its capabilities.
pub(super) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<(IommuInfo, Vec<u8>)> {
    chained(container, IOMMU_GET_INFO, IommuInfo::default())
}

/// Lets the container's devices read and write `memory` at `iova`.
///
/// This is safe: DMA memory holds no Rust state (see [`crate::dma`]), and the kernel pins its pages while they are
/// mapped, even if the process unmaps them.
pub(super) fn map_memory(container: BorrowedFd<'_>, iova: u64, memory: &Memory) -> io::Result<()> {
    map(container, iova, memory.as_ptr(), memory.len() as u64)
}

/// Maps a BAR as [`map_memory`] maps memory. The kernel does not pin device memory, so the caller must keep the BAR
/// mapped in this process until it has been unmapped from the IOMMU.
pub(super) fn map_bar(
    container: BorrowedFd<'_>,
    iova: u64,
    bar: &crate::mmio::Mapping,
    len: u64,
) -> io::Result<()> {
    map(container, iova, bar.as_ptr(), len)
}

fn map(container: BorrowedFd<'_>, iova: u64, at: *mut u8, size: u64) -> io::Result<()> {
    let vaddr = at.expose_provenance() as u64;
    let mut map = DmaMap { argsz: argsz::<DmaMap>(), flags: DMA_READ | DMA_WRITE, vaddr, iova, size };
    structure!(container, IOMMU_MAP_DMA, &mut map).map(drop)
}

/// Unmaps all mappings in `size` bytes at `iova`, and returns how many bytes were unmapped.
pub(super) fn unmap(container: BorrowedFd<'_>, iova: u64, size: u64) -> io::Result<u64> {
    let mut unmap = DmaUnmap { argsz: argsz::<DmaUnmap>(), flags: 0, iova, size };
    structure!(container, IOMMU_UNMAP_DMA, &mut unmap)?;
    Ok(unmap.size)
}

/// Requests a structure that starts with `argsz` and is followed by capabilities. The kernel returns in `argsz` how many
/// bytes it needs.
fn chained<T>(fd: BorrowedFd<'_>, request: u32, ask: T) -> io::Result<(T, Vec<u8>)>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    const MOST: usize = 1 << 20;
    let mut size = size_of::<T>();
    // Capabilities may grow between two calls; the number of attempts is limited.
    for _ in 0..8 {
        // 64-bit words, for the alignment.
        let mut buffer = vec![0u64; size.div_ceil(8)];
        let bytes = buffer.as_mut_bytes();
        bytes[..size_of::<T>()].copy_from_slice(ask.as_bytes());
        bytes[..4].copy_from_slice(&(size as u32).to_ne_bytes());
        // SAFETY: the buffer has at least `argsz` bytes and is aligned for the structure at its start.
        unsafe { ioctl(fd, request, bytes.as_mut_ptr().cast()) }?;
        let needed = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if needed <= size {
            let (info, _) = T::read_from_prefix(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
            return Ok((info, bytes[..size].to_vec()));
        }
        if needed > MOST {
            break;
        }
        size = needed;
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel asks for a larger buffer again and again"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn numbers_and_layouts_match_the_kernel() {
        // Values from <linux/vfio.h> on x86-64 and aarch64.
        assert_eq!((GET_API_VERSION, IOMMU_UNMAP_DMA), (0x3b64, 0x3b72));
        assert_eq!(size_of::<GroupStatus>(), 8);
        assert_eq!(size_of::<DeviceInfo>(), 16);
        assert_eq!(size_of::<RegionInfo>(), 32);
        assert_eq!((offset_of!(RegionInfo, cap_offset), offset_of!(RegionInfo, offset)), (12, 24));
        assert_eq!(size_of::<IrqInfo>(), 16);
        assert_eq!(size_of::<IommuInfo>(), 24);
        assert_eq!((offset_of!(IommuInfo, page_sizes), offset_of!(IommuInfo, cap_offset)), (8, 16));
        assert_eq!((size_of::<DmaMap>(), size_of::<DmaUnmap>()), (32, 24));
        assert_eq!((size_of::<IrqSet>(), size_of::<CapHeader>()), (20, 8));
    }
}
