//! Blocks in a file, read and written in place.

use super::{
    super::{Error, Options},
    faults::Faults,
};
use crate::spec::Status;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, fallocate},
};
use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};
use upcie_core::vfio_user::server::Guest;

/// Bytes that go between the file and memory which is not mapped at a time.
const BOUNCE: usize = 64 << 10;

/// The file, locked: for itself, or with other readers.
#[derive(Debug)]
pub struct Backing {
    file: Flock<File>,
    faults: Faults,
    ro: bool,
}

impl Backing {
    /// Opens and locks the file; gives the size of one namespace in bytes, too. Only with `size=` and without `ro=true` the
    /// file is made, or grown from nothing.
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
                refuse("there is no such file; with size= (size=1G) one of that size is made".into())
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
            Errno::EWOULDBLOCK => {
                refuse("another controller uses it: it is locked. Stop that one, or take another file".into())
            }
            errno => fail("it can't be locked", errno.into()),
        })?;
        // Again: another server may have made it meanwhile.
        let size = match (metadata(&file)?.len(), options.size) {
            (0, Some(size)) if !ro => {
                let bytes = size * u64::from(options.namespaces);
                file.set_len(bytes).map_err(|error| fail("it can't be given its size", error))?;
                size
            }
            (0, _) if ro => return Err(refuse("it is empty".into())),
            (0, _) => return Err(refuse("it is empty; with size= (size=1G) it is given that size".into())),
            (len, _) => size_of(&file, len, options)
                .map_err(|error| fail("its end can't be read", error))?
                .map_err(refuse)?,
        };
        Ok((Self { file, faults: Faults::of(path.into()), ro }, size))
    }

    /// Whether nothing may be written.
    pub fn is_read_only(&self) -> bool {
        self.ro
    }

    /// Makes a hole, or writes zeros where the file system has no holes.
    pub fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        punch(&self.file, offset, len)
            .map_err(|error| self.failed("deallocating blocks", &error, Status::WRITE_FAULT))
    }

    /// What was written is on stable storage afterwards.
    pub fn flush(&mut self) -> Result<(), Status> {
        let flushed = if self.ro { Ok(()) } else { self.file.sync_data() };
        flushed.map_err(|error| self.failed("flushing", &error, Status::WRITE_FAULT))
    }

    /// Says how often each failure came.
    pub fn sum_up(&mut self) {
        self.faults.sum_up();
    }

    /// Copies `len` bytes at `offset` to the client's address `iova`. Where the client's memory is mapped, the system
    /// copies; else the data bounces.
    pub fn read(
        &mut self,
        guest: &mut Guest,
        mut offset: u64,
        mut iova: u64,
        mut len: usize,
    ) -> Result<(), Status> {
        if let Some(mut at) = guest.translate(iova, len) {
            while len > 0 {
                // SAFETY: `len` bytes of the client's memory are mapped at `at`, for no call of `guest` has been made
                // since; the system copies, no reference is formed.
                let count =
                    unsafe { libc::pread(self.file.as_raw_fd(), at.as_ptr().cast(), len, offset as i64) };
                let count = self.moved("reading", count, len).ok_or(Status::UNRECOVERED_READ_ERROR)?;
                at = at.map_addr(|address| address.saturating_add(count));
                len -= count;
                offset += count as u64;
            }
            return Ok(());
        }
        let mut bounce = [0; BOUNCE];
        while len > 0 {
            let part = &mut bounce[..len.min(BOUNCE)];
            let read = self.file.read_exact_at(part, offset);
            read.map_err(|error| self.failed("reading", &error, Status::UNRECOVERED_READ_ERROR))?;
            guest.write(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            (iova, offset, len) =
                (iova.wrapping_add(part.len() as u64), offset + part.len() as u64, len - part.len());
        }
        Ok(())
    }

    /// As [`read`](Self::read), the other way.
    pub fn write(
        &mut self,
        guest: &mut Guest,
        mut offset: u64,
        mut iova: u64,
        mut len: usize,
    ) -> Result<(), Status> {
        if let Some(mut at) = guest.translate(iova, len) {
            while len > 0 {
                // SAFETY: `len` bytes of the client's memory are mapped at `at`, for no call of `guest` has been made
                // since; the system copies, no reference is formed.
                let count =
                    unsafe { libc::pwrite(self.file.as_raw_fd(), at.as_ptr().cast(), len, offset as i64) };
                let count = self.moved("writing", count, len).ok_or(Status::WRITE_FAULT)?;
                at = at.map_addr(|address| address.saturating_add(count));
                len -= count;
                offset += count as u64;
            }
            return Ok(());
        }
        let mut bounce = [0; BOUNCE];
        while len > 0 {
            let part = &mut bounce[..len.min(BOUNCE)];
            guest.read(iova, part).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            let written = self.file.write_all_at(part, offset);
            written.map_err(|error| self.failed("writing", &error, Status::WRITE_FAULT))?;
            (iova, offset, len) =
                (iova.wrapping_add(part.len() as u64), offset + part.len() as u64, len - part.len());
        }
        Ok(())
    }

    /// What a `pread` or `pwrite` of `len` bytes has moved: `Some(0)` when a signal came first, `None` for the end of the
    /// file or an error.
    fn moved(&mut self, operation: &'static str, count: isize, len: usize) -> Option<usize> {
        let errno = match usize::try_from(count) {
            // The file has been made shorter than it was.
            Ok(0) => Errno::ENODATA,
            Ok(count) => return Some(count.min(len)),
            Err(_) => Errno::last(),
        };
        if errno == Errno::EINTR {
            return Some(0);
        }
        self.faults.note(operation, errno);
        None
    }

    #[cold]
    fn failed(&mut self, operation: &'static str, error: &io::Error, status: Status) -> Status {
        let errno = error.raw_os_error().map_or(Errno::ENODATA, Errno::from_raw);
        self.faults.note(operation, errno);
        status
    }
}

/// Bytes of each namespace in a file of `len` bytes: all whole blocks. `Err` says why they don't fit.
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
        "it has {len} bytes, no whole number of blocks of {block} bytes for {namespaces} namespace(s), and what is over is \
         not zeros: the last {} bytes would be cut off. Take another lba=, or pad a copy of it (`truncate -s %{whole}`)",
        rest.len()
    )))
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
