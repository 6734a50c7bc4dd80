//! Memory in the controller that DMA can target: its memory buffer and its persistent memory region.

mod buffer;
mod persistent;
mod place;

pub use buffer::Cmb;
pub use persistent::Pmr;
pub(super) use place::Owner;

use super::{Limit, Link, Registers};
use crate::{
    Error, Result,
    spec::{CmbMemorySpaceControl, PmrCapabilities, offset},
};
use std::sync::Arc;
use upcie_core::gate::Gate;

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
    buffer: Known<Cmb>,
    persistent: Known<Pmr>,
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
    /// Returns the memory if it was enabled.
    fn known(&self, link: &Link, limit: &Limit<'_>) -> Result<Option<Arc<M>>> {
        let what = "using its own memory after a reset";
        Ok(link.enter(&self.0, limit, || what.into(), "calls")?.clone().flatten())
    }

    /// Returns the known answer, or that of `enable`, which is asked again after an error.
    fn get(
        &self,
        link: &Link,
        what: &str,
        limit: &Limit<'_>,
        enable: impl FnOnce() -> Result<Option<Arc<M>>>,
    ) -> Result<Option<Arc<M>>> {
        link.check_owner(what)?;
        let mut slot = link.enter(&self.0, limit, || what.into(), "calls")?;
        match &*slot {
            Some(known) => Ok(known.clone()),
            None => Ok(slot.insert(enable()?).clone()),
        }
    }
}

/// Takes the addresses of its memory away from the controller.
pub(super) fn release(link: &Link) {
    if let Err(error) = turn_off(&link.registers) {
        tracing::warn!(device = %link.name, %error, "turning the controller's own memory off");
    }
}

impl DeviceMemory {
    /// Enables again what was enabled before a reset, at the same addresses. The time that the persistent memory region states
    /// for this does not count.
    pub fn restore(&self, controller: Owner<'_>, limit: &mut Limit<'_>) -> Result<()> {
        if let Some(buffer) = self.buffer.known(controller.link, limit)? {
            buffer.restore(controller.link)?;
        }
        if let Some(region) = self.persistent.known(controller.link, limit)? {
            limit.outside(|| region.restore(controller.link))?;
        }
        Ok(())
    }

    /// Returns the memory buffer, enabled on the first call; `None` if the controller has none.
    pub fn buffer(&self, controller: Owner<'_>, limit: &mut Limit<'_>) -> Result<Option<Arc<Cmb>>> {
        let _budget = limit.budget();
        self.buffer.get(controller.link, "using its memory buffer", limit, || buffer::enable(controller))
    }

    /// Returns the persistent memory region, enabled on the first call; `None` if the controller has none. The call waits for
    /// other threads within `limit`, and then for the time that the region states.
    pub fn persistent(&self, controller: Owner<'_>, limit: &Limit<'_>) -> Result<Option<Arc<Pmr>>> {
        let what = "using its persistent memory";
        self.persistent.get(controller.link, what, limit, || persistent::enable(controller))
    }

    /// Returns the memory buffer for a submission queue whose PRP lists are in the host's memory.
    pub fn for_submission(&self, controller: Owner<'_>, limit: &mut Limit<'_>) -> Result<Arc<Cmb>> {
        let refuse = |reason: &str| {
            Error::unsupported(
                controller.link.name.to_string(),
                format!("a submission queue in the controller's memory: {reason}"),
            )
        };
        let buffer =
            self.buffer(controller, limit)?.ok_or_else(|| refuse("it has no memory buffer (CAP.CMBS)"))?;
        if !buffer.properties().sqs() {
            return Err(refuse("its memory buffer takes no submission queues (CMBSZ.SQS)"));
        }
        if !buffer.location().cdpcils() {
            return Err(refuse(
                "PRP lists of its commands would have to be in its memory, too (CMBLOC.CDPCILS), but this driver keeps \
                 them in host memory",
            ));
        }
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use crate::Controller;
    use std::time::Duration;

    #[test]
    fn a_call_behind_another_thread_keeps_its_deadline() {
        let options = Controller::builder().timeout(Duration::from_secs(1));
        let controller = options.open("emu:size=1M").unwrap();
        let memory = &controller.inner().device_memory;
        // Another thread seems to enable both.
        let none = || Duration::ZERO;
        let held = (memory.buffer.0.enter(none).unwrap(), memory.persistent.0.enter(none).unwrap());
        for error in [controller.cmb().map(drop).unwrap_err(), controller.pmr().map(drop).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("waiting for calls of other threads") && text.contains("1s"), "{text}");
        }
        drop(held);
        controller.cmb().unwrap();
        controller.pmr().unwrap();
    }
}
