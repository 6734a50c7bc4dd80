//! Atomic writes: their units, and a check.

use super::{Namespace, blocking::refused};
use crate::{
    Refusal, Result,
    engine::Io,
    spec::{IdentifyController, IdentifyNamespace, NvmOpcode},
};
use upcie_core::dma::DmaBuf;

/// The bit of NSFEAT that tells that the namespace has units of its own (NSABP).
const OWN: u8 = 1 << 1;

/// The blocks that a write has as a whole or not at all (NVM, "Atomic Operation").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtomicUnit {
    blocks: u32,
    /// Blocks from one boundary to the next; 0 for none.
    boundary: u32,
    /// The first boundary.
    offset: u32,
}

/// The atomic units of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AtomicUnits {
    /// Blocks that other commands see as a whole: those of before the write, or those of after it (AWUN, NAWUN; NABSN, NABO). A
    /// host that has turned that off (feature Write Atomicity Normal) has the [other unit](Self::power_fail) only.
    pub normal: AtomicUnit,
    /// Blocks that are old or new as a whole after a loss of power (AWUPF, NAWUPF; NABSPF, NABO).
    pub power_fail: AtomicUnit,
}

impl AtomicUnit {
    /// Makes a unit of the namespace's own field and of the controller's, both 0's based.
    fn of(own: u16, common: u16, boundary: u16, offset: u16) -> Self {
        let last = if own != 0 { own } else { common };
        let boundary = if boundary == 0 { 0 } else { u32::from(boundary) + 1 };
        Self { blocks: u32::from(last) + 1, boundary, offset: offset.into() }
    }

    /// Returns the most blocks of an atomic write, 1 at least. Near a [boundary](Self::boundary) they are fewer.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Returns the block of the first boundary, and the number of blocks from one boundary to the next; `None` if there are none.
    /// A write that crosses a boundary is not atomic.
    pub fn boundary(&self) -> Option<(u32, u32)> {
        (self.boundary != 0).then_some((self.offset, self.boundary))
    }

    /// Returns the most blocks of an atomic write that begins with block `slba`.
    pub fn blocks_at(&self, slba: u64) -> u32 {
        let Some((first, distance)) = self.boundary() else { return self.blocks };
        let left = match slba.checked_sub(first.into()) {
            None => u64::from(first) - slba,
            Some(behind) => u64::from(distance) - behind % u64::from(distance),
        };
        left.min(self.blocks.into()) as u32
    }

    /// Checks that a write of `blocks` blocks from `slba` on is atomic, if it is one command.
    ///
    /// ```
    /// use upcie_nvme::{Controller, Refusal};
    ///
    /// let controller = Controller::open("emu:size=1M,awun=16,nabsn=32")?;
    /// let unit = controller.namespace(1)?.atomic_units().normal;
    /// assert_eq!(unit.check(8, 16), Ok(()));
    /// assert_eq!(unit.check(8, 17), Err(Refusal::NotAtomic));
    /// assert_eq!(unit.check(24, 16), Err(Refusal::NotAtomic), "it crosses the boundary at block 32");
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal::NotAtomic`].
    pub fn check(&self, slba: u64, blocks: u64) -> Result<(), Refusal> {
        if blocks > self.blocks_at(slba).into() { Err(Refusal::NotAtomic) } else { Ok(()) }
    }
}

impl AtomicUnits {
    fn of(controller: &IdentifyController, namespace: &IdentifyNamespace) -> Self {
        let has_own = namespace.nsfeat & OWN != 0;
        let own = |field: u16| if has_own { field } else { 0 };
        let unit = |field, common, boundary| AtomicUnit::of(own(field), common, boundary, namespace.nabo);
        Self {
            normal: unit(namespace.nawun, controller.awun, namespace.nabsn),
            power_fail: unit(namespace.nawupf, controller.awupf, namespace.nabspf),
        }
    }
}

impl Namespace {
    /// Returns the blocks that the controller writes as a whole. Before a command on a queue, a program asks
    /// [`AtomicUnit::check`]; [`write_atomic`](Self::write_atomic) does so itself.
    pub fn atomic_units(&self) -> AtomicUnits {
        AtomicUnits::of(self.controller.identify(), &self.identify)
    }

    /// Writes all of `buffer` to the blocks from `slba` on by one command that `unit` has as a whole, and waits for it.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M,awupf=8")?;
    /// # let namespace = controller.namespace(1)?;
    /// let mut page = controller.alloc(4096)?;
    /// page.fill(7);
    /// // A loss of power leaves the old page, or this one.
    /// namespace.write_atomic(16, &mut page, &namespace.atomic_units().power_fail)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`write`](Self::write). [`Refusal::NotAtomic`] if the unit has fewer blocks there, or the write crosses the end of a
    /// zone, and [`Refusal::TooLong`] if it is longer than [one command](Self::max_transfer): nothing is sent then.
    pub fn write_atomic(&self, slba: u64, buffer: &mut DmaBuf, unit: &AtomicUnit) -> Result<()> {
        self.check_usable()?;
        let (io, len) = (Io::write(self, slba), buffer.total_len());
        let blocks = (len / self.block_size().max(1)) as u64;
        let reason = match unit.check(slba, blocks) {
            _ if len > self.max_transfer() => Some(Refusal::TooLong),
            Err(reason) => Some(reason),
            Ok(()) => (self.extent.left_in_zone(slba) < blocks).then_some(Refusal::NotAtomic),
        };
        match reason {
            Some(reason) => {
                Err(refused(&self.controller, &|| self.what((NvmOpcode::WRITE, io), len), reason))
            }
            None => self.transfer(io, buffer, 0..len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn a_unit_is_the_namespaces_own_or_the_controllers() {
        let (mut controller, mut namespace) =
            (IdentifyController::new_zeroed(), IdentifyNamespace::new_zeroed());
        (controller.awun, controller.awupf, namespace.nawun) = (15, 7, 31);
        let blocks = |namespace: &IdentifyNamespace| {
            let AtomicUnits { normal, power_fail } = AtomicUnits::of(&controller, namespace);
            (normal.blocks(), power_fail.blocks())
        };
        assert_eq!(blocks(&namespace), (16, 8), "the field means nothing without its bit");
        namespace.nsfeat = OWN;
        // 0 is that of the controller.
        assert_eq!(blocks(&namespace), (32, 8));
        assert_eq!(blocks(&IdentifyNamespace::new_zeroed()), (16, 8));
    }

    #[test]
    fn no_atomic_write_crosses_a_boundary() {
        let unit = AtomicUnit::of(0, 7, 15, 5);
        assert_eq!((unit.blocks(), unit.boundary()), (8, Some((5, 16))));
        for (slba, most) in [(0, 5), (4, 1), (5, 8), (13, 8), (14, 7), (20, 1), (21, 8), (u64::MAX, 6)] {
            assert_eq!(unit.blocks_at(slba), most, "block {slba}");
            assert_eq!(unit.check(slba, most.into()), Ok(()));
            assert_eq!(unit.check(slba, u64::from(most) + 1), Err(Refusal::NotAtomic));
        }
        let free = AtomicUnit::of(0, 0xffff, 0, 9);
        assert_eq!((free.blocks_at(3), free.boundary()), (65536, None));
    }
}
