//! Memory in the controller that DMA can target: its memory buffer and its persistent memory region.

mod buffer;
mod persistent;

pub use buffer::MemoryBuffer;
pub(super) use buffer::{for_submission, memory_buffer};
pub use persistent::PersistentMemory;
pub(super) use persistent::persistent_memory;

use super::{Inner, Link, Registers};
use crate::{
    Error, Result,
    engine::BufferLists,
    spec::{CmbMemorySpaceControl, PmrCapabilities, offset},
};
use std::sync::Arc;
use upcie_core::{
    Chain,
    device::Device,
    dma::Heap,
    gate::Gate,
    mmio::{Bar, Caching},
};

/// Makes the controller decode no address as its own memory. Its last user may have been killed, and the
/// address range may be the host's memory now.
pub(super) fn turn_off(registers: &Registers) -> Result<()> {
    let cap = registers.capabilities();
    if cap.cmbs() {
        // SAFETY: with CMSE clear it answers to no address.
        unsafe { registers.write_u64(offset::CMBMSC, CmbMemorySpaceControl::new().into_bits()) }?;
    }
    if cap.pmrs() && PmrCapabilities::from_bits(registers.peek(offset::PMRCAP)?).cmss() {
        // SAFETY: with CMSE clear it answers to no address.
        unsafe { registers.write_u32(offset::PMRMSCL, 0) }?;
    }
    Ok(())
}

/// The memory that a controller has of its own: looked for by the first call that asks.
#[derive(Debug, Default)]
pub(super) struct DeviceMemory {
    buffer: Known<MemoryBuffer>,
    persistent: Known<PersistentMemory>,
}

/// `None` until somebody has asked; then the memory, or `None` if the controller has none.
#[derive(Debug)]
struct Known<M>(Gate<Option<Option<Arc<M>>>>);

impl<M> Default for Known<M> {
    fn default() -> Self {
        Self(Gate::default())
    }
}

impl<M> Known<M> {
    /// Returns the known answer, or that of `enable`, which is asked again after an error.
    fn get(
        &self,
        link: &Link,
        what: &str,
        enable: impl FnOnce() -> Result<Option<Arc<M>>>,
    ) -> Result<Option<Arc<M>>> {
        link.check_owner(what)?;
        let (mut watch, limit) = (link.stopwatch(), link.options.timeout);
        let mut slot = link.enter(&self.0, &mut watch, limit, || what.into(), "calls")?;
        match &*slot {
            Some(known) => Ok(known.clone()),
            None => Ok(slot.insert(enable()?).clone()),
        }
    }
}

/// A part of a base address register that is memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    bar: u8,
    /// In bytes.
    offset: u64,
    /// `None` for the whole register.
    len: Option<u64>,
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
struct Mapped {
    heap: Arc<Heap>,
    bar: Bar,
    iova: u64,
    len: usize,
    /// The reason why other devices can't reach it.
    unshared: Option<String>,
}

/// Maps the memory. `ready` says that every transfer from and to it is possible, so that buffers can be
/// prepared.
fn map_memory(
    controller: &Inner,
    what: &str,
    place: Place,
    caching: Option<Caching>,
    ready: bool,
) -> Result<Mapped> {
    let bar = bar(&*controller.device, place.bar, caching)?;
    let broken = |reason| broken(&controller.link.name, what, reason);
    let stride = controller.link.registers.capabilities().doorbell_stride() as u64;
    let doorbells = offset::DOORBELLS as u64 + (u64::from(controller.properties.granted) + 1) * 2 * stride;
    let len = place.check(bar.size(), doorbells).map_err(broken)?;
    let space = controller.space();
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
    let lists = BufferLists { page_shift: controller.properties.page_shift };
    let prepare = ready.then(|| Box::new(lists) as Box<dyn upcie_core::dma::Prepare>);
    let heap = Heap::over(region, prepare, &controller.memory.private)?;
    Ok(Mapped { heap, bar, iova, len, unshared })
}

/// Takes the addresses of its memory away from the controller.
pub(super) fn release(controller: &Inner) {
    if let Err(error) = turn_off(&controller.link.registers) {
        tracing::warn!(device = %controller.link.name, %error, "turning the controller's own memory off");
    }
}

impl Mapped {
    fn check_peers(&self, device: &str, what: &str) -> Result<()> {
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

fn broken(device: &str, what: &str, reason: String) -> Error {
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
