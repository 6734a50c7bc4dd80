//! Memory files as this process sees them: mapped at an aligned address, and found behind memory that the program has mapped.

use crate::errors::{Failure, Result};
use std::{
    ffi::c_void,
    fs,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// A mapping of a whole memory file; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct View {
    base: *mut u8,
    len: usize,
}

// SAFETY: an address range, which stays until it is dropped.
unsafe impl Send for View {}

impl View {
    /// Maps `len` bytes of `fd` at a multiple of `align` (a power of two, in whole pages of the file).
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, align: usize) -> Result<Self> {
        let failed = |what: &str| {
            let error = std::io::Error::last_os_error();
            let text = format!("{what} {len} bytes: {error}");
            Failure::new(error.raw_os_error().unwrap_or(libc::ENOMEM), text)
        };
        let reserved =
            len.checked_add(align).ok_or_else(|| Failure::new(libc::ENOMEM, "more than all addresses"))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let room = unsafe { libc::mmap(ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0) };
        if room == libc::MAP_FAILED {
            return Err(failed("reserving addresses for"));
        }
        let before = room.addr().next_multiple_of(align) - room.addr();
        let base = room.wrapping_byte_add(before);
        let (access, shared) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE);
        // SAFETY: the range is in the reservation just made, which nobody else knows.
        let mapped = unsafe { libc::mmap(base, len, access, shared, fd.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            let failure = failed("mapping");
            // SAFETY: the reservation, which nobody uses.
            unsafe { libc::munmap(room, reserved) };
            return Err(failure);
        }
        let unmap = |at: *mut c_void, bytes: usize| {
            if bytes > 0 {
                // SAFETY: a part of the reservation beside the file's mapping.
                unsafe { libc::munmap(at, bytes) };
            }
        };
        unmap(room, before);
        unmap(base.wrapping_byte_add(len), reserved - before - len);
        Ok(Self { base: base.cast(), len })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; its owner has taken it from all tables.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// The file behind a range of memory, and the range's offset in it.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) fd: OwnedFd,
    pub(crate) offset: u64,
}

/// One line of `/proc/self/maps`.
struct Line<'l> {
    start: usize,
    end: usize,
    access: &'l str,
    offset: u64,
    device: (u32, u32),
    inode: u64,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let access = words.next()?;
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (major, minor) = words.next()?.split_once(':')?;
    Some(Line {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        access,
        offset,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: words.next()?.parse().ok()?,
    })
}

/// Finds the file behind the mapped memory from `at` on.
pub(crate) fn behind(at: usize, len: usize) -> Result<Behind> {
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| Failure::new(libc::EIO, format!("/proc/self/maps: {error}")))?;
    let lines: Vec<_> = maps.lines().filter_map(parse).collect();
    let fault =
        || Failure::new(libc::EFAULT, format!("{len} bytes at {at:#x} are not mapped in this process"));
    let first = lines.iter().find(|line| (line.start..line.end).contains(&at)).ok_or_else(fault)?;
    let offset = first.offset + (at - first.start) as u64;
    // The kernel may show one mapping in several lines.
    let mut here = first.end;
    while here < at + len {
        let next = lines.iter().find(|line| line.start == here).ok_or_else(fault)?;
        let is_same = (next.device, next.inode) == (first.device, first.inode);
        if !is_same || next.offset != offset + (here - at) as u64 || !next.access.starts_with("rw") {
            return Err(private(at, "its parts are not mapped from one file in order"));
        }
        here = next.end;
    }
    if !first.access.starts_with("rw") || !first.access.ends_with('s') {
        return Err(private(at, "it is private, or can't be written"));
    }
    let is_it = |fd: i32| {
        // SAFETY: a structure of numbers.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is valid for the write.
        (unsafe { libc::fstat(fd, &mut stat) }) == 0
            && (libc::major(stat.st_dev), libc::minor(stat.st_dev)) == first.device
            && stat.st_ino == first.inode
    };
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = numbers.filter(|&fd| is_it(fd)).find_map(|fd| {
        // SAFETY: duplicates a number; if it was closed meanwhile this fails, or `is_it` tells another file.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            return None;
        }
        // SAFETY: a descriptor that was just made for this call.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        is_it(copy.as_raw_fd()).then_some(copy)
    });
    let fd = found.or_else(|| {
        let path = format!("/proc/self/map_files/{:x}-{:x}", first.start, first.end);
        Some(OwnedFd::from(fs::File::options().read(true).write(true).open(path).ok()?))
    });
    let fd = fd.ok_or_else(|| private(at, "no descriptor of its file is open in this process"))?;
    Ok(Behind { fd, offset })
}

fn private(at: usize, reason: &str) -> Failure {
    Failure::new(
        libc::ENOTSUP,
        format!(
            "the memory at {at:#x} can't be mapped for a controller: {reason}; map a memory file (memfd_create, or a file on \
             hugetlbfs) as MAP_SHARED, and keep its descriptor open until upcie_map returns"
        ),
    )
}
