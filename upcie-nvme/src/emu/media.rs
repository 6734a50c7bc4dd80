//! Where the blocks are: nowhere, in memory, or in a file.

use super::{Error, Options};
use crate::spec::Status;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, fallocate},
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap},
};
use std::{
    arch::asm,
    fs::{File, OpenOptions},
    io,
    num::NonZeroUsize,
    os::fd::AsRawFd,
    os::unix::fs::FileExt,
    path::Path,
    ptr::NonNull,
};
use upcie_core::{memory::host_page_size, vfio_user::server::Guest};

/// Default of `size=`.
const DEFAULT_SIZE: u64 = 1 << 30;
/// Bytes that go between a file and memory which is not mapped at a time.
const BOUNCE: usize = 64 << 10;

/// The blocks of all namespaces, one namespace after another.
#[derive(Debug)]
pub(super) enum Media {
    /// Nothing is moved.
    Null,
    /// Pages that come into being when they are written.
    Memory(Anonymous),
    /// A file, read and written in place.
    File(Flock<File>),
}

impl Media {
    /// As the options say, and the size of one namespace in bytes.
    pub fn open(options: &Options) -> Result<(Self, u64), Error> {
        let namespaces = u64::from(options.namespaces);
        let (file, size) = match &options.file {
            Some(path) => {
                let (file, size) = open_file(path, options.size, namespaces)?;
                (Some(file), size)
            }
            None => (None, options.size.unwrap_or(DEFAULT_SIZE)),
        };
        let media = match file {
            Some(file) => Self::File(file),
            None if options.null => Self::Null,
            None => Self::Memory(Anonymous::new(size * namespaces)?),
        };
        Ok((media, size))
    }

    /// Whether completed writes may be lost without a flush.
    pub fn is_volatile(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Whether the blocks are in memory of this process.
    #[inline(always)]
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Copies `len` bytes at `offset` to the client's address `iova`.
    #[inline]
    pub fn read(&mut self, guest: &mut Guest, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        match self {
            Self::Null => Ok(()),
            Self::Memory(memory) => {
                let bytes = memory.bytes(offset, len).ok_or(Status::INTERNAL_ERROR)?;
                if let Some(to) = guest.translate(iova, len) {
                    // SAFETY: `len` bytes of the client's memory are mapped there, and no reference to them exists;
                    // they are no part of the media, which is this value's own.
                    unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len) };
                    return Ok(());
                }
                guest.write(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Self::File(file) => read_file(file, guest, offset, iova, len),
        }
    }

    /// Copies `len` bytes at the client's address `iova` to `offset`.
    #[inline]
    pub fn write(&mut self, guest: &mut Guest, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        match self {
            Self::Null => Ok(()),
            Self::Memory(memory) => {
                let bytes = memory.bytes(offset, len).ok_or(Status::INTERNAL_ERROR)?;
                if let Some(from) = guest.translate(iova, len) {
                    // SAFETY: as for a read. The client may write meanwhile, which spoils only its own data.
                    unsafe { from.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
                    return Ok(());
                }
                guest.read(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Self::File(file) => write_file(file, guest, offset, iova, len),
        }
    }

    /// Makes `len` bytes at `offset` zeros, and gives back what they took.
    pub fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        match self {
            Self::Null => Ok(()),
            Self::Memory(memory) => memory.zero(offset, len).ok_or(Status::INTERNAL_ERROR),
            Self::File(file) => punch(file, offset, len).map_err(|error| {
                tracing::error!(%error, "punching a hole into the file");
                Status::WRITE_FAULT
            }),
        }
    }

    /// What was written is on stable storage afterwards.
    pub fn flush(&mut self) -> Result<(), Status> {
        match self {
            Self::Null | Self::Memory(_) => Ok(()),
            Self::File(file) => file.sync_data().map_err(|error| {
                tracing::error!(%error, "flushing the file");
                Status::WRITE_FAULT
            }),
        }
    }
}

/// Opens the file, locks it, and gives a new one its size.
fn open_file(path: &Path, size: Option<u64>, namespaces: u64) -> Result<(Flock<File>, u64), Error> {
    let fail = |reason: &str, source: io::Error| Error::File {
        path: path.into(),
        reason: reason.into(),
        source: Some(source),
    };
    let refuse = |reason: String| Error::File { path: path.into(), reason, source: None };
    if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().readonly()) {
        return Err(refuse("it is read-only: make it writable, or copy it".into()));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| fail("it can't be opened for reading and writing", e))?;
    let metadata = file.metadata().map_err(|e| fail("its size can't be read", e))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".into()));
    }
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => {
            refuse("another controller uses it: it is locked. Stop that one, or take another file".into())
        }
        errno => fail("it can't be locked", errno.into()),
    })?;
    // Again: another server may have made it meanwhile.
    let len = file.metadata().map_err(|e| fail("its size can't be read", e))?.len();
    let size = match (size, len) {
        (size, 0) => {
            let size = size.unwrap_or(DEFAULT_SIZE);
            file.set_len(size * namespaces).map_err(|e| fail("it can't be given its size", e))?;
            size
        }
        (Some(size), _) if size * namespaces == len => size,
        (None, _) if len / namespaces >= 4096 => (len / namespaces) & !4095,
        (size, _) => {
            let size = size.unwrap_or(4096);
            return Err(refuse(format!(
                "it has {len} bytes, but size={size} and namespaces={namespaces} make {}: leave size= out, or take \
                 another file",
                size * namespaces
            )));
        }
    };
    Ok((file, size))
}

/// Makes a hole, or writes zeros where the file system has no holes.
fn punch(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        return match fallocate(file, flags, offset as i64, len as i64) {
            Err(Errno::EINTR) => continue,
            Err(Errno::EOPNOTSUPP) => {
                let zeros = [0; BOUNCE];
                while len > 0 {
                    let part = len.min(BOUNCE as u64);
                    file.write_all_at(&zeros[..part as usize], offset)?;
                    (offset, len) = (offset + part, len - part);
                }
                Ok(())
            }
            result => result.map_err(Into::into),
        };
    }
}

/// Where the client's memory is mapped, the system copies; else the data bounces.
fn read_file(
    file: &File,
    guest: &mut Guest,
    mut offset: u64,
    mut iova: u64,
    mut len: usize,
) -> Result<(), Status> {
    if let Some(mut at) = guest.translate(iova, len) {
        while len > 0 {
            // SAFETY: `len` bytes of the client's memory are mapped at `at`, for no call of `guest` has been made
            // since; the system copies, no reference is formed.
            let count = unsafe { libc::pread(file.as_raw_fd(), at.as_ptr().cast(), len, offset as i64) };
            let count = moved(count, len).ok_or(Status::UNRECOVERED_READ_ERROR)?;
            // SAFETY: `count` is at most `len`.
            at = unsafe { at.add(count) };
            len -= count;
            offset += count as u64;
        }
        return Ok(());
    }
    let mut bounce = [0; BOUNCE];
    while len > 0 {
        let part = &mut bounce[..len.min(BOUNCE)];
        file.read_exact_at(part, offset).map_err(|_| Status::UNRECOVERED_READ_ERROR)?;
        guest.write(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        (iova, offset, len) =
            (iova.wrapping_add(part.len() as u64), offset + part.len() as u64, len - part.len());
    }
    Ok(())
}

/// As [`read_file`], the other way.
fn write_file(
    file: &File,
    guest: &mut Guest,
    mut offset: u64,
    mut iova: u64,
    mut len: usize,
) -> Result<(), Status> {
    if let Some(mut at) = guest.translate(iova, len) {
        while len > 0 {
            // SAFETY: as in `read_file`.
            let count = unsafe { libc::pwrite(file.as_raw_fd(), at.as_ptr().cast(), len, offset as i64) };
            let count = moved(count, len).ok_or(Status::WRITE_FAULT)?;
            // SAFETY: `count` is at most `len`.
            at = unsafe { at.add(count) };
            len -= count;
            offset += count as u64;
        }
        return Ok(());
    }
    let mut bounce = [0; BOUNCE];
    while len > 0 {
        let part = &mut bounce[..len.min(BOUNCE)];
        guest.read(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        file.write_all_at(part, offset).map_err(|_| Status::WRITE_FAULT)?;
        (iova, offset, len) =
            (iova.wrapping_add(part.len() as u64), offset + part.len() as u64, len - part.len());
    }
    Ok(())
}

/// What a `pread` or `pwrite` of `len` bytes has moved: `Some(0)` when a signal came first, `None` for the end of the
/// file or an error.
fn moved(count: isize, len: usize) -> Option<usize> {
    match usize::try_from(count) {
        Ok(0) => None,
        Ok(count) => Some(count.min(len)),
        Err(_) if Errno::last() == Errno::EINTR => Some(0),
        Err(_) => {
            tracing::error!(error = %Errno::last(), "the file behind the controller");
            None
        }
    }
}

/// Zeroed memory that takes no pages before it is written.
#[derive(Debug)]
pub(super) struct Anonymous {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its mapping; nothing else points into it.
unsafe impl Send for Anonymous {}

impl Anonymous {
    fn new(len: u64) -> Result<Self, Error> {
        let fail = |source: io::Error| Error::Memory { size: len, source };
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let size = size.ok_or_else(|| fail(Errno::ENOMEM.into()))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing existing is replaced.
        let base = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
        let base = base.map_err(|e| fail(e.into()))?;
        // Blocks at random are a walk through page tables each: huge pages make most of them short.
        // SAFETY: the mapping that was just made; what it reads as stays the same.
        if let Err(error) = unsafe { madvise(base, size.get(), MmapAdvise::MADV_HUGEPAGE) } {
            tracing::debug!(%error, "an embedded controller has small pages: slower, nothing else");
        }
        Ok(Self { base: base.cast(), len: size.get() })
    }

    /// `len` bytes at `offset`; `None` where that is outside.
    #[inline]
    fn bytes(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        let offset = usize::try_from(offset).ok()?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: inside the mapping, as just checked.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: initialised (zero) memory of this value alone, borrowed as it is.
        Some(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) })
    }
}

impl Anonymous {
    /// Has the processor fetch the 512 bytes at `offset`, the smallest block there is; it notices by itself when more are
    /// read.
    #[inline(always)]
    pub fn prefetch(&self, offset: u64) {
        for line in 0..512 / 64 {
            prefetch(self.base.as_ptr().wrapping_add(offset as usize + line * 64));
        }
    }

    /// Zeroes `len` bytes at `offset`, and gives whole pages back; `None` where that is outside.
    fn zero(&mut self, offset: u64, len: u64) -> Option<()> {
        let page = host_page_size();
        let bytes = self.bytes(offset, usize::try_from(len).ok()?)?;
        let before = bytes.as_ptr().align_offset(page).min(bytes.len());
        let (head, rest) = bytes.split_at_mut(before);
        let (pages, tail) = rest.split_at_mut(rest.len() / page * page);
        head.fill(0);
        tail.fill(0);
        if !pages.is_empty() {
            let at = NonNull::from(&mut *pages).cast();
            // SAFETY: whole pages of this value's own private anonymous memory, borrowed mutably; they are zeros afterwards.
            if let Err(error) = unsafe { madvise(at, pages.len(), MmapAdvise::MADV_DONTNEED) } {
                // Locked memory, say: it stays.
                tracing::debug!(%error, "pages of an embedded controller are not given back");
                pages.fill(0);
            }
        }
        Some(())
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no slice of it is borrowed.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "unmapping the memory of an embedded controller");
        }
    }
}

/// Has the processor fetch the cache line at `at`; nothing where `at` is no memory.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing and does not fault, wherever it points.
    unsafe {
        asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    }
}
