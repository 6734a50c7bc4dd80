//! Blocks in a file, read and written in place.

use super::{
    super::{Error, HostMemory, Options},
    faults::Faults,
};
use crate::spec::Status;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, fallocate},
};
use std::{
    ffi::c_void,
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::FileExt,
    },
    path::Path,
    ptr::NonNull,
};

/// Bytes to copy at a time between the file and memory that is not mapped.
const BOUNCE: usize = 64 << 10;
/// Bytes of a hole that is made at a time to erase more: it takes as long as a small one, but for the pages in the system's cache.
const HOLE: u64 = 256 << 20;

/// The status of flushes once one has failed.
const LOST: Status = Status::WRITE_FAULT.with_do_not_retry();

/// The file, locked: exclusively, or with other readers.
#[derive(Debug)]
pub struct Backing {
    file: Flock<File>,
    faults: Faults,
    ro: bool,
    /// A flush has failed, so the system may have dropped written data.
    has_lost_writes: bool,
}

impl Backing {
    /// Opens and locks the file; also returns the size of one namespace in bytes. The file is created, or an
    /// empty one grown, only with `size=` and without `ro=true`.
    pub fn open(path: &Path, options: &Options) -> Result<(Self, u64), Error> {
        let refuse = |reason: String| Error::File { path: path.into(), reason, source: None };
        let fail = |reason: &str, source: io::Error| Error::File {
            path: path.into(),
            reason: reason.into(),
            source: Some(source),
        };
        let ro = options.ro;
        if !ro && std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().readonly()) {
            return Err(refuse("it is read-only: make it writable, or read it with ro=true".into()));
        }
        let create = options.size.is_some() && !ro;
        let opened = OpenOptions::new().read(true).write(!ro).create(create).truncate(false).open(path);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if ro => refuse("there is no such file".into()),
            io::ErrorKind::NotFound if !create => {
                refuse("there is no such file: give size= (size=1G) to make one".into())
            }
            _ if ro => fail("it can't be opened for reading", error),
            _ => fail("it can't be opened for reading and writing (ro=true: reading only)", error),
        })?;
        let metadata = |file: &File| -> Result<Metadata, Error> {
            file.metadata().map_err(|error| fail("its size can't be read", error))
        };
        if !metadata(&file)?.is_file() {
            return Err(refuse("it is not a regular file".into()));
        }
        let lock = if ro { FlockArg::LockSharedNonblock } else { FlockArg::LockExclusiveNonblock };
        let file = Flock::lock(file, lock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => refuse(
                "another controller uses it and has locked it: stop that controller, or use another file"
                    .into(),
            ),
            errno => fail("it can't be locked", errno.into()),
        })?;
        // Read the size again: another server may have created the file meanwhile.
        let size = match (metadata(&file)?.len(), options.size) {
            (0, Some(size)) if !ro => {
                let bytes = size * u64::from(options.namespaces);
                file.set_len(bytes).map_err(|error| fail("its size can't be set", error))?;
                size
            }
            (0, _) if ro => return Err(refuse("it is empty".into())),
            (0, _) => return Err(refuse("it is empty: give size= (size=1G) to set its size".into())),
            (len, _) => size_of(&file, len, options)
                .map_err(|error| fail("its end can't be read", error))?
                .map_err(refuse)?,
        };
        Ok((Self { file, faults: Faults::of(path.into()), ro, has_lost_writes: false }, size))
    }

    /// Returns `true` if the file may not be written.
    pub fn is_read_only(&self) -> bool {
        self.ro
    }

    /// Makes a hole, or writes zeros where the file system has no holes.
    pub fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        self.make_zeros(offset, len, len).map(|_| ())
    }

    /// Erases bytes from `offset` on: a large hole of the `len` bytes, or `most` of them where the file system has no holes.
    /// Returns the number of bytes that are zeros.
    pub fn erase(&mut self, offset: u64, len: u64, most: u64) -> Result<u64, Status> {
        self.make_zeros(offset, len.min(HOLE), most)
    }

    /// Makes a hole of `len` bytes, or writes zeros to `most` of them where the file system has no holes; returns the number of
    /// bytes that are zeros.
    fn make_zeros(&mut self, offset: u64, len: u64, most: u64) -> Result<u64, Status> {
        let made = match make_hole(&self.file, offset, len) {
            Err(Errno::EOPNOTSUPP) => {
                let part = len.min(most);
                write_zeros(&self.file, offset, part).map(|()| part)
            }
            made => made.map(|()| len).map_err(Into::into),
        };
        made.map_err(|error| self.failed("deallocating blocks", &error, Status::WRITE_FAULT))
    }

    /// Puts all written data on stable storage. Once that has failed, each later call fails, too, until the file is opened again:
    /// Linux reports lost data once per descriptor, and then takes it for written.
    ///
    /// # Errors
    /// Write Fault with Do Not Retry.
    pub fn flush(&mut self) -> Result<(), Status> {
        if self.ro {
            return Ok(());
        }
        if self.has_lost_writes {
            return Err(LOST);
        }
        self.file.sync_data().map_err(|error| {
            self.has_lost_writes = true;
            tracing::error!(
                "written data may be lost: each flush fails from now on, until the controller is made again with this file"
            );
            self.failed("flushing", &error, LOST)
        })
    }

    /// Logs how often each failure came.
    pub fn sum_up(&mut self) {
        self.faults.sum_up();
    }

    /// Moves `len` bytes between the file at `offset` and the client's memory at `iova`. If the memory is
    /// mapped, the system copies; otherwise the data goes through a buffer.
    pub fn transfer(
        &mut self,
        direction: Direction,
        host: &mut impl HostMemory,
        mut offset: u64,
        mut iova: u64,
        mut len: usize,
    ) -> Result<(), Status> {
        if let Some(mut at) = host.translate(iova, len) {
            while len > 0 {
                // SAFETY: `len` bytes of the client's memory are mapped at `at`, for no call of `host` has been made
                // since; the system copies, no reference is formed.
                let count = unsafe { direction.move_some(self.file.as_raw_fd(), at, len, offset) };
                let count = self.moved(direction, count, len)?;
                at = at.map_addr(|address| address.saturating_add(count));
                len -= count;
                offset += count as u64;
            }
            return Ok(());
        }
        let mut bounce = [0; BOUNCE];
        while len > 0 {
            let part = &mut bounce[..len.min(BOUNCE)];
            match direction {
                Direction::ToClient => {
                    self.file.read_exact_at(part, offset).map_err(|error| self.broken(direction, &error))?;
                    host.write(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                }
                Direction::ToFile => {
                    host.read(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                    self.file.write_all_at(part, offset).map_err(|error| self.broken(direction, &error))?;
                }
            }
            (iova, offset, len) =
                (iova.wrapping_add(part.len() as u64), offset + part.len() as u64, len - part.len());
        }
        Ok(())
    }

    /// Returns the bytes that a `pread` or `pwrite` of `len` bytes has moved: 0 when a signal came first. The
    /// end of the file is an error.
    fn moved(&mut self, direction: Direction, count: isize, len: usize) -> Result<usize, Status> {
        let errno = match usize::try_from(count) {
            // The file has become shorter than it was.
            Ok(0) => Errno::ENODATA,
            Ok(count) => return Ok(count.min(len)),
            Err(_) => Errno::last(),
        };
        if errno == Errno::EINTR {
            return Ok(0);
        }
        Err(self.broken(direction, &errno.into()))
    }

    #[cold]
    fn broken(&mut self, direction: Direction, error: &io::Error) -> Status {
        match direction {
            Direction::ToClient => self.failed("reading", error, Status::UNRECOVERED_READ_ERROR),
            Direction::ToFile => self.failed("writing", error, Status::WRITE_FAULT),
        }
    }

    #[cold]
    fn failed(&mut self, operation: &'static str, error: &io::Error, status: Status) -> Status {
        let errno = error.raw_os_error().map_or(Errno::ENODATA, Errno::from_raw);
        self.faults.note(operation, errno);
        status
    }
}

/// The direction of a copy.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    /// To the client's memory.
    ToClient,
    /// To the file.
    ToFile,
}

impl Direction {
    /// Moves at most `len` bytes between the file at `offset` and memory, by one system call; returns its
    /// result.
    ///
    /// # Safety
    /// `len` bytes at `at` are mapped, readable and writable, and no reference to them exists.
    unsafe fn move_some(self, file: RawFd, at: NonNull<u8>, len: usize, offset: u64) -> isize {
        let (at, offset) = (at.as_ptr().cast::<c_void>(), offset as i64);
        match self {
            // SAFETY: the caller's promise.
            Self::ToClient => unsafe { libc::pread(file, at, len, offset) },
            // SAFETY: the caller's promise.
            Self::ToFile => unsafe { libc::pwrite(file, at, len, offset) },
        }
    }
}

/// Returns the bytes of each namespace in a file of `len` bytes: all whole blocks. `Err` says why they don't
/// fit.
fn size_of(file: &File, len: u64, options: &Options) -> io::Result<Result<u64, String>> {
    let (namespaces, block) = (u64::from(options.namespaces), options.largest_block());
    if let Some(size) = options.size {
        let all = size * namespaces;
        return Ok(if all == len {
            Ok(size)
        } else {
            Err(format!(
                "it has {len} bytes, but size={size} and namespaces={namespaces} make {all}: leave size= out, or take \
                 another file"
            ))
        });
    }
    let size = len / namespaces / block * block;
    if size == 0 {
        return Ok(Err(format!(
            "it has {len} bytes, less than a block of {block} for each of {namespaces} namespaces"
        )));
    }
    let mut rest = vec![0; (len - size * namespaces) as usize];
    file.read_exact_at(&mut rest, size * namespaces)?;
    if rest.iter().all(|&byte| byte == 0) {
        return Ok(Ok(size));
    }
    let whole = block * namespaces;
    Ok(Err(format!(
        "it has {len} bytes, not a multiple of {block} bytes for {namespaces} namespace(s), and the rest is \
         not zeros: the last {} bytes would be cut off. Take another lba=, or pad a copy of it (`truncate -s %{whole}`)",
        rest.len()
    )))
}

/// Makes a hole.
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no holes, and the system's others.
fn make_hole(file: &File, offset: u64, len: u64) -> Result<(), Errno> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(file, flags, offset as i64, len as i64) {
            Err(Errno::EINTR) => {}
            made => return made,
        }
    }
}

fn write_zeros(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    let zeros = [0; BOUNCE];
    while len > 0 {
        let part = len.min(BOUNCE as u64);
        file.write_all_at(&zeros[..part as usize], offset)?;
        (offset, len) = (offset + part, len - part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device file, whose data can't be synchronized, takes the place of the file for one flush.
    #[test]
    fn a_failed_flush_is_remembered() {
        let path = std::env::temp_dir().join(format!("upcie-emu-{}-lost", std::process::id()));
        let options: Options = "size=64K".parse().unwrap();
        let open = || Backing::open(&path, &options).unwrap().0;
        let mut backing = open();
        assert_eq!(backing.flush(), Ok(()));
        let device = OpenOptions::new().read(true).write(true).open("/dev/zero").unwrap();
        let device = Flock::lock(device, FlockArg::LockSharedNonblock).unwrap();
        let file = std::mem::replace(&mut backing.file, device);
        let exact = |flushed: Result<(), Status>| flushed.map_err(Status::into_bits);
        assert_eq!(exact(backing.flush()), exact(Err(LOST)), "the first one");
        backing.file = file;
        assert_eq!(exact(backing.flush()), exact(Err(LOST)), "a later one, which the system would not fail");
        drop(backing);
        assert_eq!(open().flush(), Ok(()), "the file was opened again");
        std::fs::remove_file(&path).unwrap();
    }
}
