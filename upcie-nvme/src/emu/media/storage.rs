//! The storage of the blocks that options describe.

use super::{
    super::{Error, HostMemory, Options},
    Cached, Media,
    file::{Backing, Direction},
    memory::Anonymous,
};
use crate::spec::Status;
use std::sync::atomic::AtomicBool;

/// Default of `size=`.
const DEFAULT_SIZE: u64 = 1 << 30;

/// The blocks that [`Options`] describe: in memory, in a file, or none.
#[derive(Debug)]
pub struct Storage(Kind);

#[derive(Debug)]
enum Kind {
    /// No data is moved.
    Null,
    /// Memory whose pages are allocated when they are written.
    Memory(Anonymous),
    /// A file, read and written in place.
    File(Backing),
    /// One of the others behind a volatile write cache.
    Cached(Box<Cached<Storage>>),
}

impl Storage {
    /// Opens the medium that the options describe; also returns the size of one namespace in bytes.
    ///
    /// # Errors
    /// There is not enough memory, or the file can't be used; the error gives the reason.
    pub fn open(options: &Options) -> Result<(Self, u64), Error> {
        if let Some(path) = &options.file {
            let (backing, size) = Backing::open(path, options)?;
            return Ok((Self(Kind::File(backing)), size));
        }
        let size = options.size.unwrap_or(DEFAULT_SIZE);
        let media = match options.null {
            true => Kind::Null,
            false => Kind::Memory(Anonymous::new(size * u64::from(options.namespaces))?),
        };
        Ok((Self(media), size))
    }

    /// Returns a medium without blocks.
    pub(in crate::emu) fn nothing() -> Self {
        Self(Kind::Null)
    }

    /// Populates blocks in memory, as far as possible until `stop`; returns the bytes of all blocks.
    pub(in crate::emu) fn fill(
        &mut self,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, Error> {
        match &mut self.0 {
            Kind::Memory(memory) => memory.fill(stop, progress),
            Kind::Null | Kind::File(_) => Ok(0),
            Kind::Cached(cached) => cached.medium().fill(stop, progress),
        }
    }
}

// SAFETY: memory is copied here, and a file's by `Backing::transfer`, both for the call's `len` bytes at `iova` and before the call
// returns; `Cached` has the same contract.
unsafe impl Media for Storage {
    #[inline(always)]
    fn moves_data(&self) -> bool {
        !matches!(self.0, Kind::Null)
    }

    fn is_volatile(&self) -> bool {
        match &self.0 {
            Kind::File(file) => !file.is_read_only(),
            Kind::Cached(_) => true,
            Kind::Null | Kind::Memory(_) => false,
        }
    }

    #[inline(always)]
    fn prefetches(&self) -> bool {
        matches!(self.0, Kind::Memory(_))
    }

    #[inline(always)]
    fn prefetch(&self, offset: u64) {
        if let Kind::Memory(memory) = &self.0 {
            memory.prefetch(offset);
        }
    }

    #[inline]
    fn read(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        match &mut self.0 {
            Kind::Null => Ok(()),
            Kind::Memory(memory) => {
                let bytes = memory.bytes(offset, len).ok_or(Status::INTERNAL_ERROR)?;
                if let Some(to) = host.translate(iova, len) {
                    // SAFETY: `len` bytes of the client's memory are mapped there, and no reference to them exists;
                    // they are no part of the media, which is this value's own.
                    unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len) };
                    return Ok(());
                }
                host.write(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Kind::File(file) => file.transfer(Direction::ToClient, host, offset, iova, len),
            Kind::Cached(cached) => cached.read(host, offset, iova, len),
        }
    }

    #[inline]
    fn write(
        &mut self,
        host: &mut impl HostMemory,
        offset: u64,
        iova: u64,
        len: usize,
    ) -> Result<(), Status> {
        match &mut self.0 {
            Kind::Null => Ok(()),
            Kind::Memory(memory) => {
                let bytes = memory.bytes(offset, len).ok_or(Status::INTERNAL_ERROR)?;
                if let Some(from) = host.translate(iova, len) {
                    // SAFETY: `translate` has checked that `len` bytes are mapped there, and the medium's bytes are elsewhere. The client
                    // may write meanwhile, which spoils only its own data.
                    unsafe { from.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
                    return Ok(());
                }
                host.read(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Kind::File(file) => file.transfer(Direction::ToFile, host, offset, iova, len),
            Kind::Cached(cached) => cached.write(host, offset, iova, len),
        }
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        match &mut self.0 {
            Kind::Null => Ok(()),
            Kind::Memory(memory) => memory.zero(offset, len).ok_or(Status::INTERNAL_ERROR),
            Kind::File(file) => file.zero(offset, len),
            Kind::Cached(cached) => cached.zero(offset, len),
        }
    }

    fn erase(&mut self, offset: u64, len: u64, most: u64) -> Result<u64, Status> {
        match &mut self.0 {
            Kind::Null => Ok(len),
            // The system frees pages one by one.
            Kind::Memory(memory) => {
                let part = len.min(most);
                memory.zero(offset, part).map(|()| part).ok_or(Status::INTERNAL_ERROR)
            }
            Kind::File(file) => file.erase(offset, len, most),
            Kind::Cached(cached) => cached.erase(offset, len, most),
        }
    }

    fn flush(&mut self) -> Result<(), Status> {
        match &mut self.0 {
            Kind::Null | Kind::Memory(_) => Ok(()),
            Kind::File(file) => file.flush(),
            Kind::Cached(cached) => cached.flush(),
        }
    }

    fn cache(&mut self, unit: u64, capacity: u64) -> bool {
        let medium = Self(std::mem::replace(&mut self.0, Kind::Null));
        self.0 = Kind::Cached(Box::new(Cached::new(medium, unit, capacity)));
        true
    }

    fn lose_power(&mut self, random: &mut dyn FnMut() -> u64) {
        if let Kind::Cached(cached) = &mut self.0 {
            cached.lose_power(random);
        }
    }

    fn forget_host(&mut self) {
        match &mut self.0 {
            Kind::File(file) => file.sum_up(),
            Kind::Cached(cached) => cached.forget_host(),
            Kind::Null | Kind::Memory(_) => {}
        }
    }
}
