//! The place of a controller's memory in its base address registers, and its mapping.

use crate::{Error, Result, controller::Link, engine::BufferLists, spec::offset};
use std::sync::Arc;
use upcie_core::{
    Chain,
    device::Device,
    dma::Heap,
    mmio::{Bar, Caching},
};

/// The parts of a controller that its memory is enabled with.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub device: &'a dyn Device,
    pub link: &'a Link,
    /// The number of I/O queue pairs that the controller has granted.
    pub granted: u16,
    /// Bytes of a memory page, as a power of two.
    pub page_shift: u32,
    /// The heap for lists.
    pub private: &'a Arc<Heap>,
}

/// A part of a base address register that is memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub bar: u8,
    /// Offset in the register, in bytes.
    pub offset: u64,
    /// `None` for the whole register.
    pub len: Option<u64>,
}

impl Place {
    /// Returns its length in bytes, if it lies in its register of `size` bytes and behind the controller's
    /// own registers (in BAR 0 the doorbells end at `doorbells`): a store to a doorbell would send the
    /// controller to any address.
    fn check(self, size: u64, doorbells: u64) -> Result<usize, String> {
        let len = self.len.unwrap_or(size);
        if self.offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(format!("{self:x?} is not within the register's {size:#x} bytes"));
        }
        if self.bar == 0 && self.offset < doorbells {
            return Err(format!("{self:x?} overlaps its registers, which end at {doorbells:#x}"));
        }
        usize::try_from(len).map_err(|_| format!("{self:x?} is too large"))
    }
}

/// A mapped part of a BAR, with an address for the controller.
#[derive(Debug)]
pub(super) struct Mapped {
    pub heap: Arc<Heap>,
    pub bar: Bar,
    pub iova: u64,
    pub len: usize,
    /// The reason why other devices can't reach it.
    unshared: Option<String>,
}

/// Maps the memory. `ready` says that every transfer from and to it is possible, so that buffers can be
/// prepared.
pub(super) fn map_memory(
    controller: Owner<'_>,
    what: &str,
    place: Place,
    caching: Option<Caching>,
    ready: bool,
) -> Result<Mapped> {
    let bar = bar(controller.device, place.bar, caching)?;
    let broken = |reason| broken(&controller.link.name, what, reason);
    let stride = controller.link.registers.capabilities().doorbell_stride() as u64;
    let doorbells = offset::DOORBELLS as u64 + (u64::from(controller.granted) + 1) * 2 * stride;
    let len = place.check(bar.size(), doorbells).map_err(broken)?;
    let space = controller.private.space();
    // SAFETY: a register of the claimed device, as the device has it. The range is the memory that the controller's
    // registers say, behind its doorbells (`check`), and mapped once: callers keep what they got.
    let map = |shared| unsafe { space.map_bar(&bar, place.offset, len, shared) };
    let (region, unshared) = if space.is_physical() {
        (map(false)?, None)
    } else if place.bar == 0 {
        let reason = "it is in BAR 0, beside registers that no other device may reach, over any transport";
        (map(false)?, Some(reason.to_owned()))
    } else {
        match map(true) {
            Ok(region) => (region, None),
            Err(error) if matches!(error.failure(), upcie_core::Failure::OutOfRange { .. }) => {
                return Err(error.into());
            }
            Err(error) => (map(false)?, Some(Chain(&error).to_string())),
        }
    };
    let iova = region.iova(0);
    if iova % 4096 != 0 {
        return Err(broken(format!("its address {iova:#x} is not aligned to 4 KiB")));
    }
    let lists = BufferLists { page_shift: controller.page_shift };
    let prepare = ready.then(|| Box::new(lists) as Box<dyn upcie_core::dma::Prepare>);
    let heap = Heap::over(region, prepare, controller.private)?;
    Ok(Mapped { heap, bar, iova, len, unshared })
}

impl Mapped {
    pub fn check_peers(&self, device: &str, what: &str) -> Result<()> {
        match &self.unshared {
            None => Ok(()),
            Some(reason) => {
                Err(Error::unsupported(device, format!("other devices can't reach its {what}: {reason}")))
            }
        }
    }
}

/// Returns the BAR, write-combined if possible, unless another caching is requested.
fn bar(device: &dyn Device, index: u8, caching: Option<Caching>) -> Result<Bar> {
    let best = || -> upcie_core::Result<Option<Caching>> {
        // The registers are in BAR 0.
        let combining = index > 0 && device.cachings(index)?.contains(&Caching::WriteCombining);
        Ok(combining.then_some(Caching::WriteCombining))
    };
    Ok(match caching.map_or_else(best, |caching| Ok(Some(caching)))? {
        Some(caching) => device.bar_as(index, caching)?,
        None => device.bar(index)?,
    })
}

pub(super) fn broken(device: &str, what: &str, reason: String) -> Error {
    Error::protocol(device, format!("enabling its {what}"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controller_memory_overlaps_no_registers() {
        let at = |bar, offset, len| Place { bar, offset, len };
        assert_eq!(at(2, 0, None).check(1 << 20, 0x1010), Ok(1 << 20));
        assert_eq!(at(2, 0x1000, Some(0x1000)).check(0x2000, 0x1010), Ok(0x1000));
        assert_eq!(at(0, 0x2000, Some(0x1000)).check(0x4000, 0x1010), Ok(0x1000));
        for (place, word) in [
            (at(2, 0x1000, Some(0x1001)), "not within"),
            (at(2, u64::MAX, Some(1)), "not within"),
            (at(2, 1, None), "not within"),
            (at(0, 0, Some(0x1000)), "registers"),
            (at(0, 0x1000, Some(0x1000)), "registers"),
        ] {
            let error = place.check(0x2000, 0x1010).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
