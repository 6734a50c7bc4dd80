//! Memory files as this process sees them: mapped at an aligned address, and found behind memory that the program has
//! mapped.

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
        let failed = |what: &str| system(&format!("{what} {len} bytes"));
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

/// The source of memory that the program has mapped.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file, and the memory's offset in it.
    File(OwnedFd, u64),
    /// Anonymous and private memory.
    Private,
}

/// One line of `/proc/self/maps`.
struct Line<'l> {
    start: usize,
    end: usize,
    access: &'l str,
    offset: u64,
    device: (u32, u32),
    inode: u64,
    /// Empty, or in brackets, for anonymous memory of small pages.
    name: &'l str,
}

impl Line<'_> {
    fn is_stack(&self) -> bool {
        self.name.starts_with("[stack")
    }

    fn is_anonymous_huge(&self) -> bool {
        self.name.starts_with("/anon_hugepage")
    }
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
        name: words.next().unwrap_or_default(),
    })
}

/// Finds the source of the `len` bytes at `at`, which are whole pages.
pub(crate) fn source(at: usize, len: usize) -> Result<Source> {
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| Failure::new(libc::EIO, format!("/proc/self/maps: {error}")))?;
    let lines: Vec<_> = maps.lines().filter_map(parse).collect();
    let fault =
        || Failure::new(libc::EFAULT, format!("{len} bytes at {at:#x} are not mapped in this process"));
    let first = lines.iter().find(|line| (line.start..line.end).contains(&at)).ok_or_else(fault)?;
    let is_private = first.access == "rw-p" && first.inode == 0 && !first.is_stack();
    let offset = first.offset + (at - first.start) as u64;
    // The kernel may show one mapping in several lines.
    let mut here = first.end;
    while here < at + len {
        let next = lines.iter().find(|line| line.start == here).ok_or_else(fault)?;
        let is_same = (next.device, next.inode, next.access) == (first.device, first.inode, first.access);
        if !is_same || next.is_stack() || !is_private && next.offset != offset + (here - at) as u64 {
            return Err(unusable(at, "its parts are not mapped from one source in order"));
        }
        here = next.end;
    }
    if is_private {
        return Ok(Source::Private);
    }
    if !first.access.starts_with("rw") || !first.access.ends_with('s') {
        return Err(unusable(
            at,
            if first.is_anonymous_huge() {
                "it is anonymous memory of huge pages"
            } else {
                "it is a private view of a file or a stack, or can't be written"
            },
        ));
    }
    let file = descriptor(first).ok_or_else(|| {
        let is_anonymous = first.is_anonymous_huge() || first.name.starts_with("/dev/zero");
        unusable(
            at,
            if is_anonymous { "it is anonymous and shared" } else { "no descriptor of its file is open" },
        )
    })?;
    Ok(Source::File(file, offset))
}

/// Returns a descriptor of a mapping's file.
fn descriptor(line: &Line<'_>) -> Option<OwnedFd> {
    let is_it = |fd: i32| {
        // SAFETY: a structure of numbers.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` is valid for the write.
        (unsafe { libc::fstat(fd, &mut stat) }) == 0
            && (libc::major(stat.st_dev), libc::minor(stat.st_dev)) == line.device
            && stat.st_ino == line.inode
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
    // The kernel lets privileged users only.
    found.or_else(|| {
        let path = format!("/proc/self/map_files/{:x}-{:x}", line.start, line.end);
        Some(OwnedFd::from(fs::File::options().read(true).write(true).open(path).ok()?))
    })
}

/// Puts memory of the file `fd` in the place of the `len` bytes at `at`, with their bytes.
///
/// # Safety
/// The range is whole pages of anonymous private memory, and nobody writes to it during the call.
pub(crate) unsafe fn share(fd: BorrowedFd<'_>, at: *mut u8, len: usize) -> Result<()> {
    let view = View::new(fd, len, 4096)?;
    // SAFETY: both have so many bytes, and the view is a new mapping.
    unsafe { ptr::copy_nonoverlapping(at, view.base, len) };
    // SAFETY: the caller's promise; the view is moved, so it is not unmapped where it was.
    unsafe { replace(view.base.cast(), at, len) }?;
    std::mem::forget(view);
    Ok(())
}

/// Makes memory private and anonymous again after [`share`], with its bytes.
///
/// # Safety
/// The range was given to [`share`], and nobody writes to it during the call.
pub(crate) unsafe fn unshare(at: *mut u8, len: usize) -> Result<()> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
    let new = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if new == libc::MAP_FAILED {
        return Err(system(&format!("mapping {len} bytes")));
    }
    // SAFETY: both have so many bytes, and one is a new mapping.
    unsafe { ptr::copy_nonoverlapping(at, new.cast(), len) };
    // SAFETY: the caller's promise.
    let replaced = unsafe { replace(new, at, len) };
    if replaced.is_err() {
        // SAFETY: the new mapping, which stayed where it was.
        unsafe { libc::munmap(new, len) };
    }
    replaced
}

/// Moves the mapping `new` to `at`, in one step.
///
/// # Safety
/// `new` is a whole mapping of `len` bytes, which the caller gives up on success; the bytes at `at` are the
/// program's, and are replaced.
unsafe fn replace(new: *mut c_void, at: *mut u8, len: usize) -> Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: the caller's promise.
    let moved = unsafe { libc::mremap(new, len, len, flags, at) };
    if moved == libc::MAP_FAILED { Err(system(&format!("moving {len} bytes to {at:p}"))) } else { Ok(()) }
}

fn system(what: &str) -> Failure {
    let error = std::io::Error::last_os_error();
    Failure::new(error.raw_os_error().unwrap_or(libc::ENOMEM), format!("{what}: {error}"))
}

fn unusable(at: usize, reason: &str) -> Failure {
    Failure::new(
        libc::ENOTSUP,
        format!(
            "the memory at {at:#x} can't be mapped for a controller: {reason}; use private anonymous memory of small \
             pages, or a memory file (memfd_create, or a file on hugetlbfs) mapped as MAP_SHARED, whose descriptor is open \
             until upcie_map returns"
        ),
    )
}
