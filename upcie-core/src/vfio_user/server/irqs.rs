//! The interrupts of a device in software: which eventfd each has, and whether it is masked.

use super::raise::Raiser;
use crate::{
    irq::{IrqKind, is_eventfd},
    vfio_user::wire::{SetIrqs, vfio},
};
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

#[derive(Debug, Default)]
struct Irq {
    eventfd: Option<Eventfd>,
    masked: bool,
    /// It was raised while it could not be delivered, as a bit of MSI-X's pending bit array says.
    pending: bool,
    /// The device drives the line. It stays so whatever the client does about its eventfd.
    asserted: bool,
    /// The line alone raised it, and the client has neither masked nor unmasked it since.
    raised_by_line: bool,
}

/// A client's, and what raises it.
#[derive(Debug)]
struct Eventfd {
    fd: OwnedFd,
    raiser: &'static Raiser,
}

/// Whether interrupts of a kind that the device raises go to the client, as the client has set it in configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// They go.
    #[default]
    On,
    /// They wait: MSI-X's function mask is set, or the device may not write to memory (bus master is off).
    Held,
    /// The client uses another kind: nothing is raised, and nothing waits.
    Off,
}

/// All interrupts of a device, by kind.
#[derive(Debug)]
pub struct Irqs {
    kinds: [Vec<Irq>; 5],
    delivery: [Delivery; 5],
    /// The pin was driven and nobody heard it: said once.
    unheard: bool,
}

impl Irqs {
    /// As many of each kind.
    pub fn new(counts: &[u32; 5]) -> Self {
        let kinds = counts.map(|count| (0..count).map(|_| Irq::default()).collect());
        Self { kinds, delivery: Default::default(), unheard: false }
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
        let Some(irq) = self.kinds.get_mut(kind as usize).and_then(|irqs| irqs.get_mut(vector as usize))
        else {
            return;
        };
        let delivery = self.delivery[kind as usize];
        if delivery != Delivery::Off {
            irq.pending = true;
            irq.deliver(delivery, kind == IrqKind::Intx as u32);
        }
    }

    /// Drives the pin, or lets go of it, together with an interrupt that the client has not read yet.
    pub fn set_pin(&mut self, asserted: bool) {
        let kind = IrqKind::Intx as usize;
        let Some(irq) = self.kinds[kind].first_mut() else { return };
        if std::mem::replace(&mut irq.asserted, asserted) == asserted {
            return;
        }
        if !asserted {
            irq.withdraw();
            return;
        }
        if irq.eventfd.is_none() && !std::mem::replace(&mut self.unheard, true) {
            tracing::error!(
                "the device drives its pin (INTx) and the client does not listen: it has to set Interrupt Disable in the \
                 command register, or to wire an eventfd"
            );
        }
        irq.deliver(self.delivery[kind], true);
    }

    /// Whether the client has given an interrupt an eventfd.
    pub fn is_wired(&self, kind: IrqKind, vector: u32) -> bool {
        self.kinds[kind as usize].get(vector as usize).is_some_and(|irq| irq.eventfd.is_some())
    }

    /// Whether the pin was driven while no eventfd was wired.
    #[cfg(test)]
    pub fn was_unheard(&self) -> bool {
        self.unheard
    }

    /// Sets whether interrupts of a kind go to the client. What waits goes when it becomes [`Delivery::On`].
    #[inline]
    pub fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery) {
        if std::mem::replace(&mut self.delivery[kind as usize], delivery) != delivery {
            self.deliver_all(kind);
        }
    }

    #[cold]
    fn deliver_all(&mut self, kind: IrqKind) {
        let delivery = self.delivery[kind as usize];
        for irq in &mut self.kinds[kind as usize] {
            irq.pending &= delivery != Delivery::Off;
            irq.deliver(delivery, kind == IrqKind::Intx);
        }
    }

    /// Masks or unmasks one, as the client says in the device's own registers.
    pub fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        let delivery = self.delivery[kind as usize];
        if let Some(irq) = self.kinds[kind as usize].get_mut(vector as usize) {
            irq.masked = masked;
            irq.deliver(delivery, kind == IrqKind::Intx);
        }
    }

    /// Whether one is masked. Without an eventfd it is: nobody has set it up.
    pub fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        let irq = self.kinds[kind as usize].get(vector as usize);
        irq.is_none_or(|irq| irq.masked || irq.eventfd.is_none())
    }

    /// Whether one was raised and waits.
    pub fn is_pending(&self, kind: IrqKind, vector: u32) -> bool {
        self.kinds[kind as usize].get(vector as usize).is_some_and(|irq| irq.pending)
    }

    /// DEVICE_SET_IRQS: `data` is what follows the structure.
    pub fn set(&mut self, set: SetIrqs, data: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let (action, kind) = (set.flags & vfio::SET_ACTION, set.flags & vfio::SET_DATA);
        let irqs = self.kinds.get_mut(set.index as usize).ok_or(Errno::EINVAL)?;
        let delivery = self.delivery[set.index as usize];
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
            (vfio::SET_TRIGGER, vfio::SET_EVENTFD) => wire(range, fds, delivery, automask),
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
                        vfio::SET_MASK => (irq.masked, irq.raised_by_line) = (true, false),
                        vfio::SET_UNMASK => (irq.masked, irq.raised_by_line) = (false, false),
                        _ => irq.pending |= irq.eventfd.is_some(),
                    }
                    irq.deliver(delivery, automask);
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

/// Gives interrupts their eventfds, and unmasks them; no eventfds take them away. One that was raised while it had none goes
/// to the new one: a client that moves a vector to another processor takes its eventfd away for a moment.
fn wire(range: &mut [Irq], fds: Vec<OwnedFd>, delivery: Delivery, automask: bool) -> Result<(), Errno> {
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
        *irq = Irq { asserted: irq.asserted, pending: irq.pending, ..new };
        irq.deliver(delivery, automask);
    }
    Ok(())
}

impl Irq {
    /// Raises it if it is wanted and nothing is in the way; what is in the way leaves it pending.
    #[inline]
    fn deliver(&mut self, delivery: Delivery, automask: bool) {
        let wanted = self.pending || self.asserted;
        if wanted && !self.masked && delivery == Delivery::On && self.eventfd.is_some() {
            self.raised_by_line = automask && !std::mem::take(&mut self.pending);
            self.fire(automask);
        }
    }

    /// Takes back an interrupt that the line raised and the client has not read: the line is low again, so the client would
    /// find nothing to do. QEMU, for one, unmasks the pin at any register access of its guest, and drives the guest's own pin
    /// for the interrupt that follows until the next one. A guest that acknowledged everything before QEMU read that
    /// interrupt would be interrupted without end.
    #[cold]
    fn withdraw(&mut self) {
        let Some(eventfd) = self.eventfd.as_ref().filter(|_| self.raised_by_line) else { return };
        if eventfd.raiser.withdraw(eventfd.fd.as_fd()) {
            (self.masked, self.raised_by_line) = (false, false);
        }
    }

    fn fire(&mut self, automask: bool) {
        let Some(eventfd) = &self.eventfd else { return };
        self.masked = automask;
        if let Err(error) = eventfd.raiser.raise(eventfd.fd.as_fd()) {
            tracing::debug!(%error, "raising a client's interrupt");
        }
    }
}
