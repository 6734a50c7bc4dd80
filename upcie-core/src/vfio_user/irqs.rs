//! The interrupts of a device in software: which eventfd each has, and whether it is masked.

use super::{
    raise::{Raiser, is_eventfd},
    wire::{SetIrqs, vfio},
};
use crate::irq::IrqKind;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug, Default)]
struct Irq {
    eventfd: Option<Eventfd>,
    masked: bool,
    /// It was raised while masked.
    pending: bool,
    /// The device drives the line. It stays so whatever the client does about its eventfd.
    asserted: bool,
}

/// A client's, and what raises it.
#[derive(Debug)]
struct Eventfd {
    fd: OwnedFd,
    raiser: &'static Raiser,
}

/// All interrupts of a device, by kind.
#[derive(Debug)]
pub struct Irqs {
    kinds: [Vec<Irq>; 5],
}

impl Irqs {
    /// As many of each kind.
    pub fn new(counts: &[u32; 5]) -> Self {
        Self { kinds: counts.map(|count| (0..count).map(|_| Irq::default()).collect()) }
    }

    /// What DEVICE_GET_IRQ_INFO says of a kind.
    pub fn describe(&self, kind: u32) -> Option<(u32, u32)> {
        let flags = vfio::IRQ_EVENTFD
            | match kind {
                _ if kind == IrqKind::Intx as u32 => vfio::IRQ_MASKABLE | vfio::IRQ_AUTOMASKED,
                _ if maskable(kind) => vfio::IRQ_MASKABLE,
                _ => 0,
            };
        Some((flags, self.kinds.get(kind as usize)?.len() as u32))
    }

    /// Raises one.
    #[inline]
    pub fn trigger(&mut self, kind: u32, vector: u32) {
        if let Some(irq) = self.kinds.get_mut(kind as usize).and_then(|irqs| irqs.get_mut(vector as usize)) {
            irq.trigger(kind == IrqKind::Intx as u32);
        }
    }

    /// Drives the pin, or lets go of it.
    pub fn set_pin(&mut self, asserted: bool) {
        if let Some(irq) = self.kinds[IrqKind::Intx as usize].first_mut() {
            if !std::mem::replace(&mut irq.asserted, asserted) && asserted && !irq.masked {
                irq.fire(true);
            }
        }
    }

    /// DEVICE_SET_IRQS: `data` is what follows the structure.
    pub fn set(&mut self, set: SetIrqs, data: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let (action, kind) = (set.flags & vfio::SET_ACTION, set.flags & vfio::SET_DATA);
        let irqs = self.kinds.get_mut(set.index as usize).ok_or(Errno::EINVAL)?;
        let end = set.start.checked_add(set.count).ok_or(Errno::EINVAL)?;
        let range = irqs.get_mut(set.start as usize..end as usize).ok_or(Errno::EINVAL)?;
        if set.flags & !(vfio::SET_ACTION | vfio::SET_DATA) != 0
            || (action != vfio::SET_TRIGGER && !maskable(set.index))
            || (kind != vfio::SET_EVENTFD && !fds.is_empty())
            || (kind == vfio::SET_BOOL && data.len() != set.count as usize)
        {
            return Err(Errno::EINVAL);
        }
        let automask = set.index == IrqKind::Intx as u32;
        match (action, kind) {
            (vfio::SET_TRIGGER, vfio::SET_EVENTFD) => wire(range, fds, automask),
            (vfio::SET_TRIGGER, vfio::SET_NONE) if set.count == 0 && set.start == 0 => {
                irqs.iter_mut().for_each(|irq| *irq = Irq { asserted: irq.asserted, ..Irq::default() });
                Ok(())
            }
            // Events on masking: nobody needs to be told.
            (vfio::SET_MASK | vfio::SET_UNMASK, vfio::SET_EVENTFD) => Err(Errno::ENOTSUP),
            (vfio::SET_MASK | vfio::SET_UNMASK | vfio::SET_TRIGGER, vfio::SET_NONE | vfio::SET_BOOL) => {
                for (index, irq) in range.iter_mut().enumerate() {
                    if kind == vfio::SET_BOOL && data[index] == 0 {
                        continue;
                    }
                    match action {
                        vfio::SET_MASK => irq.masked = true,
                        vfio::SET_UNMASK => irq.unmask(automask),
                        _ => irq.trigger(automask),
                    }
                }
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

/// Whether a kind can be masked: what a device reports about itself can't.
fn maskable(kind: u32) -> bool {
    kind <= IrqKind::Msix as u32
}

/// Gives interrupts their eventfds; no eventfds take them away.
fn wire(range: &mut [Irq], fds: Vec<OwnedFd>, automask: bool) -> Result<(), Errno> {
    if fds.is_empty() {
        range.iter_mut().for_each(|irq| irq.eventfd = None);
        return Ok(());
    }
    if fds.len() != range.len() {
        return Err(Errno::EINVAL);
    }
    // Whatever else could be written to belongs to the client's rights, not to this process's.
    if !fds.iter().all(|fd| is_eventfd(fd.as_fd())) {
        return Err(Errno::EINVAL);
    }
    let raiser = Raiser::shared().inspect_err(|error| {
        tracing::warn!(%error, "no interrupts for a client: io_setup(2) failed (a limit is in fs.aio-max-nr)");
    })?;
    let wired = fds.into_iter().map(|fd| Irq { eventfd: Some(Eventfd { fd, raiser }), ..Irq::default() });
    for (irq, new) in range.iter_mut().zip(wired) {
        *irq = Irq { asserted: irq.asserted, ..new };
        if irq.asserted {
            irq.fire(automask);
        }
    }
    Ok(())
}

impl Irq {
    fn trigger(&mut self, automask: bool) {
        if self.masked {
            self.pending = true;
        } else {
            self.fire(automask);
        }
    }

    fn fire(&mut self, automask: bool) {
        let Some(eventfd) = &self.eventfd else { return };
        self.masked = automask;
        if let Err(error) = eventfd.raiser.raise(eventfd.fd.as_fd()) {
            tracing::debug!(%error, "raising a client's interrupt");
        }
    }

    fn unmask(&mut self, automask: bool) {
        self.masked = false;
        if std::mem::take(&mut self.pending) || self.asserted {
            self.fire(automask);
        }
    }
}
