//! What configuration space must say before a function is driven, while it is, and afterwards.
//!
//! VFIO does the part that concerns messages (MSI and MSI-X) in the kernel: wiring eventfds enables them. Everywhere else
//! it is done here.

use super::{ConfigSpace, cap, command, config::offset};
use crate::{Error, Result, irq::IrqKind};

/// Message Control of both capabilities, from the capability's start.
const CONTROL: u16 = 2;
/// MSI's Message Control: MSI Enable (PCI Express Base 6.0, 7.7.1.2).
const MSI_ENABLE: u16 = 1 << 0;
/// MSI's Message Control: Multiple Message Enable, the number of messages in use as a power of two.
const MSI_MESSAGES: u16 = 7 << 4;
/// MSI-X's Message Control: MSI-X Enable (PCI Express Base 6.0, 7.7.2.2).
const MSIX_ENABLE: u16 = 1 << 15;
/// MSI-X's Message Control: Function Mask.
const MSIX_MASK: u16 = 1 << 14;

/// Lets a function answer memory accesses and issue DMA, and keeps it from driving its pin, which nobody listens to before
/// its interrupt is wired. Gives the command register as it was before.
///
/// # Safety
/// The caller has the function to itself, and it is to issue DMA.
pub(crate) unsafe fn turn_on(config: &(impl ConfigSpace + ?Sized)) -> Result<u16> {
    let before = config.command()?;
    let needed = command::MEMORY | command::BUS_MASTER;
    let wanted = before | needed | command::INTX_DISABLE;
    if before != wanted {
        // SAFETY: the caller's promise; the pin goes off besides.
        unsafe { config.set_config_u16(offset::COMMAND, wanted) }?;
        // Interrupt Disable is not there in functions older than PCI 2.3.
        if config.command()? & needed != needed {
            return Err(Error::Unusable {
                device: config.device_name().into(),
                reason: "its memory space or bus master can't be turned on: reset it (echo 1 > its `reset` in sysfs), \
                         or its slot"
                    .into(),
            });
        }
    }
    Ok(before)
}

/// Takes a function off the bus: no DMA, no message, no pin.
pub(crate) fn turn_off(config: &(impl ConfigSpace + ?Sized)) -> Result<()> {
    let now = config.command()?;
    let silent = (now | command::INTX_DISABLE) & !command::BUS_MASTER;
    // SAFETY: it issues less than before, and its registers stay as they are.
    unsafe { config.set_config_u16(offset::COMMAND, silent) }?;
    // A read behind the write: what was on its way to memory has arrived.
    config.command().map(drop)
}

/// Lets a function drive its pin, or keeps it from that.
pub(crate) fn allow_pin(config: &(impl ConfigSpace + ?Sized), allowed: bool) -> Result<()> {
    let now = config.command()?;
    let wanted = if allowed { now & !command::INTX_DISABLE } else { now | command::INTX_DISABLE };
    if now == wanted {
        return Ok(());
    }
    // SAFETY: the bit that keeps its pin quiet, and no other.
    unsafe { config.set_config_u16(offset::COMMAND, wanted) }
}

/// Where a function's message signalled interrupts are controlled.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Messages {
    msi: Option<u16>,
    msix: Option<u16>,
}

impl Messages {
    pub(crate) fn find(config: &(impl ConfigSpace + ?Sized)) -> Result<Self> {
        let mut found = Self::default();
        for capability in config.capabilities() {
            let capability = capability?;
            match capability.id {
                cap::MSI => found.msi = Some(capability.offset + CONTROL),
                cap::MSIX => found.msix = Some(capability.offset + CONTROL),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Turns both kinds off, and MSI-X's function mask: a former user may have been killed with either on.
    pub(crate) fn turn_off(&self, config: &(impl ConfigSpace + ?Sized)) -> Result<()> {
        self.disable(config, IrqKind::Msix)?;
        self.disable(config, IrqKind::Msi)
    }

    /// Turns a kind on, for `count` vectors that are wired.
    pub(crate) fn enable(
        &self,
        config: &(impl ConfigSpace + ?Sized),
        kind: IrqKind,
        count: usize,
    ) -> Result<()> {
        match kind {
            IrqKind::Msix => change(config, self.msix, MSIX_MASK, MSIX_ENABLE),
            IrqKind::Msi => {
                let messages = count.next_power_of_two().ilog2() as u16;
                change(config, self.msi, MSI_MESSAGES, messages << 4 & MSI_MESSAGES | MSI_ENABLE)
            }
            _ => Ok(()),
        }
    }

    /// Turns a kind off.
    pub(crate) fn disable(&self, config: &(impl ConfigSpace + ?Sized), kind: IrqKind) -> Result<()> {
        match kind {
            IrqKind::Msix => change(config, self.msix, MSIX_ENABLE | MSIX_MASK, 0),
            IrqKind::Msi => change(config, self.msi, MSI_ENABLE | MSI_MESSAGES, 0),
            _ => Ok(()),
        }
    }
}

/// Clears and sets bits of the 16 bits at `at`, if the function has them.
fn change(config: &(impl ConfigSpace + ?Sized), at: Option<u16>, clear: u16, set: u16) -> Result<()> {
    let Some(at) = at else { return Ok(()) };
    let now = config.config_u16(at)?;
    let wanted = now & !clear | set;
    if now == wanted {
        return Ok(());
    }
    // SAFETY: a Message Control register: how many messages are sent, or none. Where they go to is set elsewhere.
    unsafe { config.set_config_u16(at, wanted) }
}
