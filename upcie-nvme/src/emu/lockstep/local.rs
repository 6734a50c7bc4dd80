//! The driver's memory and eventfds, as a controller in the same thread reaches them.

use super::super::{HostMemory, Interrupts};
use nix::errno::Errno;
use std::{collections::BTreeMap, io, ops::Range as Addresses, ptr::NonNull, sync::Arc};
use upcie_core::{
    irq::IrqKind,
    memory::Memory,
    vfio_user::server::{Delivery, Irqs},
};

/// A range of the driver's memory.
#[derive(Debug, Clone, Copy)]
struct Range {
    base: NonNull<u8>,
    len: u64,
}

// SAFETY: an address range of this process, without thread affinity.
unsafe impl Send for Range {}

/// The host of a controller in the same process.
#[derive(Debug)]
pub struct Local {
    /// The mapped ranges by device address.
    ranges: BTreeMap<u64, Range>,
    /// The controller's own memories, in front of the ranges, with the device address of each.
    own: Vec<(u64, Arc<Memory>)>,
    generation: u64,
    pub irqs: Irqs,
}

impl Local {
    /// Makes a host without memory, with as many interrupts of each kind as `irqs` says.
    pub fn new(irqs: &[u32; 5]) -> Self {
        Self { ranges: BTreeMap::new(), own: Vec::new(), generation: 1, irqs: Irqs::new(irqs) }
    }

    /// Lets the controller reach `memory` at `iova`.
    ///
    /// # Safety
    /// The memory stays until [`unmap`](Self::unmap) was called, and no references to its bytes exist while the controller
    /// acts on them.
    pub unsafe fn map(&mut self, iova: u64, memory: &Memory) {
        if let Some(base) = NonNull::new(memory.as_ptr()) {
            self.ranges.insert(iova, Range { base, len: memory.len() as u64 });
        }
    }

    /// Takes the range at `iova` away.
    pub fn unmap(&mut self, iova: u64) {
        self.ranges.remove(&iova);
        self.generation += 1;
    }

    /// Returns the number of mapped ranges.
    pub fn mapped(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the address of the bytes at `iova`, and how many of them are contiguous.
    fn find(&self, iova: u64) -> Option<(NonNull<u8>, u64)> {
        let mut covered = u64::MAX;
        for (start, memory) in &self.own {
            let (within, len) = (iova.wrapping_sub(*start), memory.len() as u64);
            if within < len {
                let base = NonNull::new(memory.as_ptr())?;
                // SAFETY: inside the mapping, as just checked.
                return Some((unsafe { base.add(within as usize) }, len - within));
            }
            covered = start.checked_sub(iova).unwrap_or(covered).min(covered);
        }
        let (start, range) = self.ranges.range(..=iova).next_back()?;
        let within = iova - start;
        let left = range.len.checked_sub(within).filter(|&left| left > 0)?;
        // SAFETY: `within` is below the range's length, and its bytes are mapped (`map`).
        Some((unsafe { range.base.add(within as usize) }, left.min(covered)))
    }

    /// Returns the address of up to `len` bytes at `iova`, and their number.
    fn piece(&self, iova: u64, len: usize) -> io::Result<(NonNull<u8>, usize)> {
        let (at, left) = self.find(iova).ok_or(Errno::EFAULT)?;
        Ok((at, usize::try_from(left).unwrap_or(usize::MAX).min(len)))
    }
}

// SAFETY: a found range is mapped until `unmap`, which changes the generation, and the controller's own memory until it is
// replaced, which does, too; the promise of `map` covers references, and a medium's memory is never mapped for a device.
unsafe impl HostMemory for Local {
    fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        let (at, left) = self.find(iova)?;
        (len as u64 <= left).then_some(at)
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn read(&mut self, mut iova: u64, mut data: &mut [u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (from, len) = self.piece(iova, data.len())?;
            let (part, rest) = data.split_at_mut(len);
            // SAFETY: `len` mapped bytes, to which no reference exists (`map`); `part` is as long, and the controller's own.
            unsafe { part.as_mut_ptr().copy_from_nonoverlapping(from.as_ptr(), len) };
            (data, iova) = (rest, iova.wrapping_add(len as u64));
        }
        Ok(())
    }

    fn write(&mut self, mut iova: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let (to, len) = self.piece(iova, data.len())?;
            let (part, rest) = data.split_at(len);
            // SAFETY: `len` mapped bytes, to which no reference exists (`map`); `part` is as long, and the controller's own.
            unsafe { to.as_ptr().copy_from_nonoverlapping(part.as_ptr(), len) };
            (data, iova) = (rest, iova.wrapping_add(len as u64));
        }
        Ok(())
    }

    fn set_own_memory(&mut self, memories: Vec<(u64, Arc<Memory>)>) -> bool {
        self.own = memories;
        self.generation += 1;
        true
    }

    fn own_memory(&self, index: usize) -> Option<Addresses<u64>> {
        self.own.get(index).map(|(start, memory)| *start..*start + memory.len() as u64)
    }
}

impl Interrupts for Local {
    fn trigger(&mut self, kind: IrqKind, vector: u32) {
        self.irqs.trigger(kind as u32, vector);
    }

    fn set_pin(&mut self, asserted: bool) {
        self.irqs.set_pin(asserted);
    }

    fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery) {
        self.irqs.set_delivery(kind, delivery);
    }

    fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        self.irqs.set_masked(kind, vector, masked);
    }

    fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        self.irqs.is_masked(kind, vector)
    }

    fn is_pending(&self, kind: IrqKind, vector: u32) -> bool {
        self.irqs.is_pending(kind, vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_core::memory::PageSize;

    const START: u64 = 1 << 20;
    const SIZE: usize = 64 << 10;

    #[test]
    fn own_memory_is_in_front_of_the_drivers() {
        let memory = |len| Memory::new(len, PageSize::Small).unwrap().shared();
        let (driver, own, other) = (memory(3 * SIZE), Arc::new(memory(SIZE)), Arc::new(memory(SIZE)));
        let mut local = Local::new(&[0; 5]);
        // SAFETY: the memory outlives `local`'s use of it, and no reference to its bytes exists.
        unsafe { local.map(START, &driver) };
        let (at, before) = (START + SIZE as u64, local.generation());
        assert!(local.set_own_memory(vec![(at, own.clone())]));
        assert!(local.generation() != before, "earlier pointers are invalid");
        assert_eq!((local.own_memory(0), local.own_memory(1)), (Some(at..at + SIZE as u64), None));
        local.write(START, &vec![7; 3 * SIZE]).unwrap();
        let address = |iova, len, local: &mut Local| local.translate(iova, len).map(NonNull::as_ptr);
        assert_eq!(address(at, SIZE, &mut local), Some(own.as_ptr()));
        let behind = Some(driver.as_ptr().wrapping_add(2 * SIZE));
        assert_eq!(address(at + SIZE as u64, SIZE, &mut local), behind);
        for (iova, len) in [(at - 1, 2), (at, SIZE + 1), (START, 3 * SIZE)] {
            assert_eq!(address(iova, len, &mut local), None, "{len} bytes at {iova:#x} are in two memories");
        }
        let beside = START - SIZE as u64;
        assert!(local.set_own_memory(vec![(at, own.clone()), (beside, other.clone())]));
        assert_eq!(local.own_memory(1), Some(beside..START));
        assert_eq!(address(beside, SIZE, &mut local), Some(other.as_ptr()));
        assert_eq!(address(START, SIZE, &mut local), Some(driver.as_ptr()));
        for (iova, len) in [(START - 1, 2), (START, SIZE + 1)] {
            assert_eq!(address(iova, len, &mut local), None, "{len} bytes at {iova:#x} are in two memories");
        }
        assert!(local.set_own_memory(Vec::new()));
        let mut bytes = vec![1; 3 * SIZE];
        local.read(START, &mut bytes).unwrap();
        assert!(bytes[..SIZE].iter().chain(&bytes[2 * SIZE..]).all(|&byte| byte == 7));
        assert!(bytes[SIZE..2 * SIZE].iter().all(|&byte| byte == 0), "the controller's memory was written");
    }
}
