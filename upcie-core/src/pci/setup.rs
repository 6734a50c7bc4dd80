//! Sets up configuration space before a function is driven, meanwhile and afterwards.
//!
//! The kernel controls the messages (MSI and MSI-X) for VFIO: setting eventfds enables them. For all other transports
//! this module does it.

use super::{ConfigSpace, cap, command, config::offset};
use crate::{Error, Result, irq::IrqKind};

/// Offset of Message Control in both capabilities.
const CONTROL: u16 = 2;
/// MSI's Message Control: MSI Enable (PCI Express Base 6.0, 7.7.1.2).
const MSI_ENABLE: u16 = 1 << 0;
/// MSI's Message Control: Multiple Message Enable, the number of messages in use as a power of two.
const MSI_MESSAGES: u16 = 7 << 4;
/// MSI-X's Message Control: MSI-X Enable (PCI Express Base 6.0, 7.7.2.2).
const MSIX_ENABLE: u16 = 1 << 15;
/// MSI-X's Message Control: Function Mask.
const MSIX_MASK: u16 = 1 << 14;

/// Lets a function answer memory accesses and issue DMA, and disables its interrupt pin, which has no handler until its
/// interrupt is set. Returns the former command register.
///
/// # Safety
/// The caller is the function's only user, and the function may issue DMA.
pub(crate) unsafe fn turn_on(config: &(impl ConfigSpace + ?Sized)) -> Result<u16> {
    let before = config.command()?;
    let needed = command::MEMORY | command::BUS_MASTER;
    let wanted = before | needed | command::INTX_DISABLE;
    if before != wanted {
        // SAFETY: the caller promises that the function may issue DMA; disabling the pin is harmless.
        unsafe { config.set_config_u16(offset::COMMAND, wanted) }?;
        // Functions older than PCI 2.3 don't have Interrupt Disable.
        if config.command()? & needed != needed {
            return Err(Error::unusable(
                config.device_name(),
                "its memory space or bus master can't be turned on: reset it (echo 1 > its `reset` in sysfs), \
                         or its slot",
            ));
        }
    }
    Ok(before)
}

/// Stops a function's DMA, messages and interrupt pin.
pub(crate) fn turn_off(config: &(impl ConfigSpace + ?Sized)) -> Result<()> {
    let now = config.command()?;
    let silent = (now | command::INTX_DISABLE) & !command::BUS_MASTER;
    // SAFETY: the change only stops requests, and its registers do not change.
    unsafe { config.set_config_u16(offset::COMMAND, silent) }?;
    // A read after the write: requests that were already issued have arrived in memory.
    config.command().map(drop)
}

/// Enables or disables a function's interrupt pin.
pub(crate) fn allow_pin(config: &(impl ConfigSpace + ?Sized), allowed: bool) -> Result<()> {
    let now = config.command()?;
    let wanted = if allowed { now & !command::INTX_DISABLE } else { now | command::INTX_DISABLE };
    if now == wanted {
        return Ok(());
    }
    // SAFETY: only the bit that disables its interrupt pin changes.
    unsafe { config.set_config_u16(offset::COMMAND, wanted) }
}

/// The Message Control registers of a function's message signalled interrupts.
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

    /// Turns both kinds and MSI-X's function mask off: a killed user may have left any of them on.
    pub(crate) fn turn_off(&self, config: &(impl ConfigSpace + ?Sized)) -> Result<()> {
        self.disable(config, IrqKind::Msix)?;
        self.disable(config, IrqKind::Msi)
    }

    /// Turns a kind on, for `count` vectors with eventfds.
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

/// Clears and sets bits of the 16-bit register at `at`, if the function has it.
fn change(config: &(impl ConfigSpace + ?Sized), at: Option<u16>, clear: u16, set: u16) -> Result<()> {
    let Some(at) = at else { return Ok(()) };
    let now = config.config_u16(at)?;
    let wanted = now & !clear | set;
    if now == wanted {
        return Ok(());
    }
    // SAFETY: a Message Control register sets how many messages are sent; their addresses are set elsewhere.
    unsafe { config.set_config_u16(at, wanted) }
}
