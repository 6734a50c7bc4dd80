//! The host as a controller sees it: memory that it reads and writes, and interrupts that it raises.

use nix::errno::Errno;
use std::{io, ops::Range, ptr::NonNull, sync::Arc};
use upcie_core::{
    irq::IrqKind,
    memory::Memory,
    vfio_user::server::{Client, Delivery},
};

/// The host's memory, at the addresses that the host gives the controller.
///
/// # Safety
/// The bytes returned by [`translate`](Self::translate) are mapped in this process, readable and writable, until
/// [`generation`](Self::generation) changes. No reference to them exists, and they are no memory of a medium.
pub unsafe trait HostMemory {
    /// Returns the address in this process of `len` bytes at the host's address `iova`, if they are mapped in one piece,
    /// readable and writable. The host changes this memory at any time: use raw pointers only, and read each byte once.
    fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>>;

    /// Returns a number that changes whenever memory is taken away, which invalidates earlier pointers.
    fn generation(&self) -> u64;

    /// Copies from memory that may be mapped in pieces, or not at all.
    ///
    /// # Errors
    /// The range is not the host's, or can't be reached. Part of `data` may have been read then.
    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()>;

    /// Copies to memory that may be mapped in pieces, or not at all.
    ///
    /// # Errors
    /// The range is not the host's, or can't be reached. Part of `data` may have been written then.
    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()>;

    /// Puts memories of the controller, two at most, at the host's addresses from each `.0` on, in front of what the
    /// host has there, and takes away what was put before: the functions above find these bytes then, and the
    /// generation changes. They don't overlap, and end before the last address. Returns `false`, and puts nothing, if
    /// this host can't have them. By default a host has none; the controller then refuses the address (CMBSTS.CBAI,
    /// PMRSTS.CBAI).
    fn set_own_memory(&mut self, memories: Vec<(u64, Arc<Memory>)>) -> bool {
        memories.is_empty()
    }

    /// Returns the addresses of one of the [controller's own memories](Self::set_own_memory), in the order in which
    /// they were put.
    fn own_memory(&self, index: usize) -> Option<Range<u64>> {
        let _ = index;
        None
    }

    /// Returns `true` if accesses were so slow that the controller should end its step after the present command.
    fn is_slow(&self) -> bool {
        false
    }
}

/// The interrupts of a controller.
pub trait Interrupts {
    /// Raises an interrupt. While the host has masked it, it is [pending](Self::is_pending).
    fn trigger(&mut self, kind: IrqKind, vector: u32);

    /// Drives the pin (INTx), or stops driving it.
    fn set_pin(&mut self, asserted: bool);

    /// Sets whether interrupts of a kind are delivered, which the host decides in configuration space.
    fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery);

    /// Masks or unmasks a vector; an interrupt raised while it was masked is delivered at the unmasking.
    fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool);

    /// Returns `true` if a vector is masked.
    fn is_masked(&self, kind: IrqKind, vector: u32) -> bool;

    /// Returns `true` if a raised vector waits for its delivery.
    fn is_pending(&self, kind: IrqKind, vector: u32) -> bool;
}

/// A host: its memory and the interrupts to it.
pub trait Host: HostMemory + Interrupts {}

impl<H: HostMemory + Interrupts> Host for H {}

/// Returns the number of a system's error.
#[cold]
pub(super) fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

// SAFETY: a server translates to its own mappings of the client's files and to the controller's memory, which it unmaps only
// after the generation has changed, and to which it makes no references.
unsafe impl HostMemory for Client<'_> {
    #[inline(always)]
    fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        Client::translate(self, iova, len)
    }

    #[inline(always)]
    fn generation(&self) -> u64 {
        Client::generation(self)
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        Client::read(self, iova, data)
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        Client::write(self, iova, data)
    }

    fn set_own_memory(&mut self, memories: Vec<(u64, Arc<Memory>)>) -> bool {
        self.set_device_memory(memories)
    }

    fn own_memory(&self, index: usize) -> Option<Range<u64>> {
        self.device_memory(index)
    }

    #[inline(always)]
    fn is_slow(&self) -> bool {
        Client::is_slow(self)
    }
}

impl Interrupts for Client<'_> {
    #[inline]
    fn trigger(&mut self, kind: IrqKind, vector: u32) {
        Client::trigger(self, kind, vector);
    }

    #[inline]
    fn set_pin(&mut self, asserted: bool) {
        Client::set_pin(self, asserted);
    }

    #[inline]
    fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery) {
        Client::set_delivery(self, kind, delivery);
    }

    fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        Client::set_masked(self, kind, vector, masked);
    }

    fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        Client::is_masked(self, kind, vector)
    }

    fn is_pending(&self, kind: IrqKind, vector: u32) -> bool {
        Client::is_pending(self, kind, vector)
    }
}
