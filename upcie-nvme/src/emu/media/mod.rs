//! The storage of the blocks: none, memory, a file, or the caller's own.

mod cache;
mod faults;
mod file;
mod memory;
mod populate;
mod storage;

#[cfg(test)]
mod tests;

pub(super) use cache::Bytes;
pub use cache::Cached;
pub use storage::Storage;

use super::HostMemory;
use crate::spec::Status;
use std::fmt;

/// The blocks of all namespaces, one namespace after another, addressed by byte offsets.
///
/// ```
/// use upcie_nvme::{
///     emu::{HostMemory, Machine, Media, Options},
///     spec::Status,
/// };
///
/// /// A medium that is always zero.
/// #[derive(Debug)]
/// struct Zeros;
///
/// // SAFETY: only `read` accesses the host's memory, at the address of its call, and the access ends with the call.
/// unsafe impl Media for Zeros {
///     fn read(&mut self, host: &mut impl HostMemory, _: u64, iova: u64, len: usize) -> Result<(), Status> {
///         host.write(iova, &vec![0; len]).map_err(|_| Status::DATA_TRANSFER_ERROR)
///     }
///
///     fn write(&mut self, _: &mut impl HostMemory, _: u64, _: u64, _: usize) -> Result<(), Status> {
///         Ok(())
///     }
///
///     fn zero(&mut self, _: u64, _: u64) -> Result<(), Status> {
///         Ok(())
///     }
///
///     fn flush(&mut self) -> Result<(), Status> {
///         Ok(())
///     }
/// }
///
/// let machine = Machine::with_media(&Options::default(), Zeros, 1 << 20)?;
/// assert_eq!(machine.namespace_size(), 1 << 20);
/// # Ok::<(), upcie_nvme::emu::Error>(())
/// ```
///
/// # Safety
/// A program may have references to the bytes of its buffers while no command names them, and the controller reports a command as
/// done as soon as its last call has returned. So an implementation accesses the memory of a `host` in [`read`](Self::read) and
/// [`write`](Self::write) only: the `len` bytes at the `iova` of the call and no others, until the call returns and not later,
/// through a pointer of [`HostMemory::translate`] either. `read` alone writes there.
pub unsafe trait Media: fmt::Debug + Send {
    /// Returns `false` if no data is moved: commands are checked, and [`read`](Self::read) and [`write`](Self::write) are
    /// not called.
    #[inline(always)]
    fn moves_data(&self) -> bool {
        true
    }

    /// Returns `true` if completed writes may be lost without a [`flush`](Self::flush).
    fn is_volatile(&self) -> bool {
        false
    }

    /// Returns `true` if [`prefetch`](Self::prefetch) helps.
    #[inline(always)]
    fn prefetches(&self) -> bool {
        false
    }

    /// Starts to load the first bytes at `offset`, which a command will use soon.
    #[inline(always)]
    fn prefetch(&self, offset: u64) {
        let _ = offset;
    }

    /// Copies `len` bytes at `offset` to the host's address `iova`.
    ///
    /// # Errors
    /// The status with which the command completes.
    fn read(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize) -> Result<(), Status>;

    /// Copies `len` bytes at the host's address `iova` to `offset`.
    ///
    /// # Errors
    /// The status with which the command completes.
    fn write(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize)
    -> Result<(), Status>;

    /// Zeroes `len` bytes at `offset`.
    ///
    /// # Errors
    /// The status with which the command completes.
    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status>;

    /// Erases bytes from `offset` on, as [`zero`](Self::zero) does: the first `most` of `len` bytes, or more of them if that takes
    /// no longer. Returns the number of bytes that are erased, at least 1. It is called until all are: for a namespace that is
    /// formatted or deleted, or for the whole medium.
    ///
    /// Erased bytes of a [volatile](Self::is_volatile) medium may come back in a loss of power before the next
    /// [`flush`](Self::flush), which follows the last call. After that nothing does, not from a cache either.
    ///
    /// # Errors
    /// The status with which the command completes.
    fn erase(&mut self, offset: u64, len: u64, most: u64) -> Result<u64, Status> {
        let part = len.min(most);
        self.zero(offset, part).map(|()| part)
    }

    /// Puts all written data on stable storage. Once a medium may have lost written data, it fails here for good, with Do Not
    /// Retry: a host takes one success for all the data that it wrote before.
    ///
    /// # Errors
    /// The status with which the command completes.
    fn flush(&mut self) -> Result<(), Status>;

    /// Puts a volatile write cache in front of the blocks: of `capacity` bytes, in units of `unit` bytes. Returns
    /// `false` if the medium can't have one.
    fn cache(&mut self, unit: u64, capacity: u64) -> bool {
        let _ = (unit, capacity);
        false
    }

    /// Loses data that was not flushed, as far as `random` decides: the power was cut.
    fn lose_power(&mut self, random: &mut dyn FnMut() -> u64) {
        let _ = random;
    }

    /// Ends the log of the host that has left.
    fn forget_host(&mut self) {}
}
