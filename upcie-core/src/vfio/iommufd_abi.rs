//! The ioctls and structures of `<linux/iommufd.h>`, and those of `<linux/vfio.h>` that attach a device to an iommufd, as
//! far as this crate uses them.

use super::abi::{argsz, ioctl};
use crate::device::VfToken;
use std::{
    io,
    mem::offset_of,
    ops::RangeInclusive,
    os::fd::{AsRawFd, BorrowedFd},
};

const MAP_FIXED_IOVA: u32 = 1 << 0;
const MAP_WRITEABLE: u32 = 1 << 1;
const MAP_READABLE: u32 = 1 << 2;
const BIND_TOKEN: u32 = 1 << 0;

/// `_IO(';', n)`, as in VFIO: numbers from 0x80 on belong to iommufd.
const fn request(n: u32) -> u32 {
    (b';' as u32) << 8 | n
}

const DESTROY: u32 = request(0x80);
const IOAS_ALLOC: u32 = request(0x81);
const IOAS_IOVA_RANGES: u32 = request(0x84);
const IOAS_MAP: u32 = request(0x85);
const IOAS_UNMAP: u32 = request(0x86);
const DEVICE_BIND_IOMMUFD: u32 = request(118);
const DEVICE_ATTACH_IOMMUFD_PT: u32 = request(119);
const DEVICE_DETACH_IOMMUFD_PT: u32 = request(120);

/// Declares structures of fixed size, whose first field is their size.
macro_rules! structures {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        #[derive(Debug, Clone, Copy, Default)]
        #[repr(C)]
        struct $name {
            size: u32,
            $($field: $type),*
        }
    )* };
}

structures! {
    Destroy { id: u32 }
    IoasAlloc { flags: u32, out_ioas_id: u32 }
    // `ranges` is the address of an array of `[first, last]`.
    IovaRanges { ioas_id: u32, num_iovas: u32, reserved: u32, ranges: u64, out_alignment: u64 }
    IoasMap { flags: u32, ioas_id: u32, reserved: u32, user_va: u64, length: u64, iova: u64 }
    IoasUnmap { ioas_id: u32, iova: u64, length: u64 }
    BindIommufd { flags: u32, iommufd: i32, out_devid: u32, token_uuid_ptr: u64 }
    AttachPt { flags: u32, pt_id: u32 }
    DetachPt { flags: u32 }
}

/// Calls `request` with the structure `value`, which has its size set and no pointers that the kernel follows.
macro_rules! structure {
    ($fd:expr, $request:expr, $value:expr) => {{
        let value: *mut _ = $value;
        // SAFETY: `value` is a live, exclusively borrowed structure of the request's type, with its size; the kernel only
        // maps an address in it and does not access it.
        unsafe { ioctl($fd, $request, value.cast()) }.map(drop)
    }};
}

/// Binds a device's file to an iommufd, with a VF token if there is one. After that the device answers queries.
pub(super) fn bind(device: BorrowedFd<'_>, iommu: BorrowedFd<'_>, token: Option<&VfToken>) -> io::Result<()> {
    let mut bind = BindIommufd { iommufd: iommu.as_raw_fd(), ..Default::default() };
    match token {
        // Kernels before 6.17 have no such field.
        None => bind.size = offset_of!(BindIommufd, token_uuid_ptr) as u32,
        Some(token) => {
            bind.size = argsz::<BindIommufd>();
            bind.flags = BIND_TOKEN;
            bind.token_uuid_ptr = token.bytes().as_ptr().expose_provenance() as u64;
        }
    }
    let at: *mut BindIommufd = &mut bind;
    // SAFETY: the structure is live and has its size; the kernel reads the 16 bytes of the borrowed token at the pointer if the
    // flag is set, and follows no pointer otherwise.
    unsafe { ioctl(device, DEVICE_BIND_IOMMUFD, at.cast()) }.map(drop)
}

/// Attaches a bound device to an I/O address space.
pub(super) fn attach(device: BorrowedFd<'_>, ioas: u32) -> io::Result<()> {
    let mut attach = AttachPt { size: argsz::<AttachPt>(), flags: 0, pt_id: ioas };
    structure!(device, DEVICE_ATTACH_IOMMUFD_PT, &mut attach)
}

/// Detaches a device: its DMA reaches no memory then.
pub(super) fn detach(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut detach = DetachPt { size: argsz::<DetachPt>(), flags: 0 };
    structure!(device, DEVICE_DETACH_IOMMUFD_PT, &mut detach)
}

/// Allocates an I/O address space and returns its id.
pub(super) fn ioas_alloc(iommu: BorrowedFd<'_>) -> io::Result<u32> {
    let mut alloc = IoasAlloc { size: argsz::<IoasAlloc>(), ..Default::default() };
    structure!(iommu, IOAS_ALLOC, &mut alloc)?;
    Ok(alloc.out_ioas_id)
}

/// Destroys an unused object.
pub(super) fn destroy(iommu: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    let mut destroy = Destroy { size: argsz::<Destroy>(), id };
    structure!(iommu, DESTROY, &mut destroy)
}

/// Returns the mappable device addresses in ascending order, and their required alignment.
pub(super) fn iova_ranges(iommu: BorrowedFd<'_>, ioas: u32) -> io::Result<(Vec<RangeInclusive<u64>>, u64)> {
    const MOST: usize = 1 << 16;
    // Enough for most IOMMUs.
    let mut room = 4;
    // The number of ranges may grow between two calls; the number of attempts is limited.
    for _ in 0..8 {
        let mut array = vec![[0u64; 2]; room];
        let mut ask = IovaRanges {
            size: argsz::<IovaRanges>(),
            ioas_id: ioas,
            num_iovas: room as u32,
            ranges: array.as_mut_ptr().expose_provenance() as u64,
            ..Default::default()
        };
        let at: *mut IovaRanges = &mut ask;
        // SAFETY: the structure is live and has its size; `ranges` is the address of a live array of `num_iovas` ranges.
        let answer = unsafe { ioctl(iommu, IOAS_IOVA_RANGES, at.cast()) };
        let count = ask.num_iovas as usize;
        match answer {
            Ok(_) if count <= room => {
                let ranges = array[..count].iter().map(|&[first, last]| first..=last);
                let mut ranges: Vec<_> = ranges.filter(|range| !range.is_empty()).collect();
                ranges.sort_by_key(|range| *range.start());
                return Ok((ranges, ask.out_alignment));
            }
            Err(e) if e.raw_os_error() != Some(libc::EMSGSIZE) => return Err(e),
            _ if count > MOST => break,
            _ => room = count.max(room + 1),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel asks for a larger buffer again and again"))
}

/// Lets the space's devices read and write `len` bytes at `at`, at `iova`.
///
/// This is safe for the reasons given at [`map_memory`](super::abi::map_memory).
pub(super) fn ioas_map(iommu: BorrowedFd<'_>, ioas: u32, iova: u64, at: *mut u8, len: u64) -> io::Result<()> {
    let mut map = IoasMap {
        size: argsz::<IoasMap>(),
        flags: MAP_READABLE | MAP_WRITEABLE | MAP_FIXED_IOVA,
        ioas_id: ioas,
        user_va: at.expose_provenance() as u64,
        length: len,
        iova,
        ..Default::default()
    };
    structure!(iommu, IOAS_MAP, &mut map)
}

/// Unmaps all mappings in `len` bytes at `iova`, and returns how many bytes were unmapped.
pub(super) fn ioas_unmap(iommu: BorrowedFd<'_>, ioas: u32, iova: u64, len: u64) -> io::Result<u64> {
    let mut unmap = IoasUnmap { size: argsz::<IoasUnmap>(), ioas_id: ioas, iova, length: len };
    structure!(iommu, IOAS_UNMAP, &mut unmap)?;
    Ok(unmap.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_layouts_match_the_kernel() {
        // Values from <linux/iommufd.h> and <linux/vfio.h>.
        assert_eq!((DESTROY, IOAS_UNMAP), (0x3b80, 0x3b86));
        assert_eq!((DEVICE_BIND_IOMMUFD, DEVICE_DETACH_IOMMUFD_PT), (0x3b76, 0x3b78));
        assert_eq!((size_of::<Destroy>(), size_of::<IoasAlloc>(), size_of::<IovaRanges>()), (8, 12, 32));
        assert_eq!((size_of::<IoasMap>(), size_of::<IoasUnmap>()), (40, 24));
        assert_eq!((size_of::<BindIommufd>(), size_of::<AttachPt>(), size_of::<DetachPt>()), (24, 12, 8));
        assert_eq!(offset_of!(BindIommufd, token_uuid_ptr), 16);
        assert_eq!((offset_of!(IovaRanges, ranges), offset_of!(IoasMap, user_va)), (16, 16));
        assert_eq!((offset_of!(IoasMap, iova), offset_of!(IoasUnmap, iova)), (32, 8));
    }

    #[test]
    fn other_files_are_refused_as_iommufd() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = std::os::fd::AsFd::as_fd(&file);
        assert!(ioas_alloc(fd).is_err() && iova_ranges(fd, 1).is_err());
        let token = VfToken::new([1; 16]);
        assert!(bind(fd, fd, None).is_err() && bind(fd, fd, Some(&token)).is_err());
        assert!(attach(fd, 1).is_err() && detach(fd).is_err());
    }
}
