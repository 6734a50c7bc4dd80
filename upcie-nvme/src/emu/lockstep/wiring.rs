//! The parts of configuration space that the kernel's VFIO would set for a driver: bus mastering and interrupts.

use super::{
    super::{
        Media, Region,
        config::{COMMAND, MSI, MSIX},
    },
    State,
};
use std::{io, os::fd::BorrowedFd};
use upcie_core::{Error, Result, irq::IrqKind, pci::command};

impl<M: Media> State<M> {
    /// Turns memory accesses and bus mastering on, and disables the interrupt pin.
    pub fn turn_on(&mut self) {
        self.set_command(command::INTX_DISABLE);
    }

    fn set_command(&mut self, more: u16) {
        let value = command::MEMORY | command::BUS_MASTER | more;
        self.machine.write(&mut self.host, Region::Config, COMMAND as u64, &value.to_le_bytes());
    }

    /// Connects interrupts of a kind to eventfds, and lets the function raise them.
    pub fn set_irqs(&mut self, name: &str, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let count = self.host.irqs.count(kind);
        if fds.len() > count as usize {
            let operation = format!("setting {kind} interrupts");
            return Err(Error::out_of_range(name, operation, 0, fds.len() as u64, count.into()));
        }
        if count == 0 {
            return Ok(());
        }
        let owned: io::Result<Vec<_>> = fds.iter().map(|fd| fd.try_clone_to_owned()).collect();
        self.machine.update_interrupts(&mut self.host);
        let set = owned.and_then(|owned| Ok(self.host.irqs.connect(kind, owned)?));
        set.map_err(|source| Error::os(name, format!("setting {kind} interrupts"), source))?;
        let on = !fds.is_empty();
        match kind {
            IrqKind::Intx => self.set_command(if on { 0 } else { command::INTX_DISABLE }),
            // Message control: MSI-X Enable is the highest bit.
            IrqKind::Msix => self.set_control(MSIX + 3, if on { 0x80 } else { 0 }),
            // MSI Enable, and the number of messages as a power of two.
            IrqKind::Msi => {
                let messages = fds.len().next_power_of_two().trailing_zeros() as u8;
                self.set_control(MSI + 2, if on { messages << 4 | 1 } else { 0 });
            }
            IrqKind::Error | IrqKind::Request => {}
        }
        Ok(())
    }

    fn set_control(&mut self, at: usize, value: u8) {
        self.machine.write(&mut self.host, Region::Config, at as u64, &[value]);
    }
}
