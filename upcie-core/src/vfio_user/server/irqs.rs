//! The interrupts of a device in software: their eventfds and masks.

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
    /// Raised while it could not be delivered, as in MSI-X's pending bit array.
    pending: bool,
    /// Driven by the device, whatever the client does with its eventfd.
    asserted: bool,
    /// Raised by the line alone, and neither masked nor unmasked by the client since.
    raised_by_line: bool,
}

/// A client's eventfd and the mechanism that raises it.
#[derive(Debug)]
struct Eventfd {
    fd: OwnedFd,
    raiser: &'static Raiser,
}

/// The delivery of raised interrupts of a kind to the client, as set by the client in configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Interrupts are delivered.
    #[default]
    On,
    /// Interrupts are kept pending: MSI-X's function mask is set, or the device must not write to memory (bus master is
    /// off).
    Held,
    /// The client uses another kind: interrupts are neither delivered nor kept.
    Off,
}

/// All interrupts of a device in software, by kind: their eventfds and masks.
#[derive(Debug)]
pub struct Irqs {
    kinds: [Vec<Irq>; 5],
    delivery: [Delivery; 5],
    /// The pin was driven without an eventfd, and this was logged.
    unheard: bool,
}

impl Irqs {
    /// Makes interrupts without eventfds, as many of each kind as `counts` says.
    pub fn new(counts: &[u32; 5]) -> Self {
        let kinds = counts.map(|count| (0..count).map(|_| Irq::default()).collect());
        Self { kinds, delivery: Default::default(), unheard: false }
    }

    /// Returns flags and count of a kind for DEVICE_GET_IRQ_INFO.
    pub(super) fn describe(&self, kind: u32) -> Option<(u32, u32)> {
        let flags = vfio::IRQ_EVENTFD
            | match kind {
                _ if kind == IrqKind::Intx as u32 => vfio::IRQ_MASKABLE | vfio::IRQ_AUTOMASKED,
                _ if maskable(kind) => vfio::IRQ_MASKABLE,
                _ => 0,
            };
        Some((flags, self.kinds.get(kind as usize)?.len() as u32))
    }

    /// Raises an interrupt.
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

    /// Drives the pin, or stops driving it and takes back an interrupt that the client has not read yet.
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
                "the device drives its pin (INTx) and the client has set no eventfd for it: it has to set Interrupt Disable in the \
                 command register, or to set an eventfd"
            );
        }
        irq.deliver(self.delivery[kind], true);
    }

    /// Returns whether the client has set an eventfd for an interrupt.
    pub fn is_wired(&self, kind: IrqKind, vector: u32) -> bool {
        self.kinds[kind as usize].get(vector as usize).is_some_and(|irq| irq.eventfd.is_some())
    }

    /// Returns whether the pin was driven while it had no eventfd.
    #[cfg(test)]
    pub fn was_unheard(&self) -> bool {
        self.unheard
    }

    /// Sets whether interrupts of a kind are delivered. Pending ones are delivered when it becomes [`Delivery::On`].
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

    /// Masks or unmasks a vector, as set by the client in the device's own registers.
    pub fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        let delivery = self.delivery[kind as usize];
        if let Some(irq) = self.kinds[kind as usize].get_mut(vector as usize) {
            irq.masked = masked;
            irq.deliver(delivery, kind == IrqKind::Intx);
        }
    }

    /// Returns whether a vector is masked. A vector without an eventfd counts as masked, because nobody has set it up.
    pub fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        let irq = self.kinds[kind as usize].get(vector as usize);
        irq.is_none_or(|irq| irq.masked || irq.eventfd.is_none())
    }

    /// Returns whether a raised vector is pending.
    pub fn is_pending(&self, kind: IrqKind, vector: u32) -> bool {
        self.kinds[kind as usize].get(vector as usize).is_some_and(|irq| irq.pending)
    }

    /// Connects interrupts `0..fds.len()` of a kind to eventfds, in place of all former ones.
    ///
    /// # Errors
    /// `EINVAL` if there are more than the device has, or one is not an eventfd.
    pub fn connect(&mut self, kind: IrqKind, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let (index, count) = (kind as u32, fds.len() as u32);
        let all = SetIrqs { argsz: 0, flags: vfio::SET_NONE | vfio::SET_TRIGGER, index, start: 0, count: 0 };
        self.set(all, &[], Vec::new())?;
        if fds.is_empty() {
            return Ok(());
        }
        let some = SetIrqs { flags: vfio::SET_EVENTFD | vfio::SET_TRIGGER, count, ..all };
        self.set(some, &[], fds)
    }

    /// Masks or unmasks an interrupt, as DEVICE_SET_IRQS does.
    ///
    /// # Errors
    /// `EINVAL` if there is no such interrupt, or its kind can't be masked.
    pub fn mask(&mut self, kind: IrqKind, vector: u32, masked: bool) -> Result<(), Errno> {
        let action = if masked { vfio::SET_MASK } else { vfio::SET_UNMASK };
        let flags = vfio::SET_NONE | action;
        self.set(SetIrqs { argsz: 0, flags, index: kind as u32, start: vector, count: 1 }, &[], Vec::new())
    }

    /// Returns the number of interrupts of a kind.
    pub fn count(&self, kind: IrqKind) -> u32 {
        self.kinds[kind as usize].len() as u32
    }

    /// Executes DEVICE_SET_IRQS; `data` follows the structure.
    pub(in crate::vfio_user) fn set(
        &mut self,
        set: SetIrqs,
        data: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
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
            (vfio::SET_TRIGGER, vfio::SET_EVENTFD) => set_eventfds(range, fds, delivery, automask),
            (vfio::SET_TRIGGER, vfio::SET_NONE) if set.count == 0 && set.start == 0 => {
                irqs.iter_mut().for_each(|irq| *irq = Irq { asserted: irq.asserted, ..Irq::default() });
                Ok(())
            }
            // Events for masking are not supported: no client needs them.
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

/// Returns whether a kind can be masked: error and request interrupts can't.
fn maskable(kind: u32) -> bool {
    kind <= IrqKind::Msix as u32
}

/// Sets eventfds and unmasks their interrupts; without `fds` the eventfds are removed. A pending interrupt is delivered
/// to its new eventfd, because a client removes the eventfd for a moment when it moves a vector to another processor.
fn set_eventfds(
    range: &mut [Irq],
    fds: Vec<OwnedFd>,
    delivery: Delivery,
    automask: bool,
) -> Result<(), Errno> {
    if fds.is_empty() {
        range.iter_mut().for_each(|irq| irq.eventfd = None);
        return Ok(());
    }
    if fds.len() != range.len() {
        return Err(Errno::EINVAL);
    }
    // Only eventfds are accepted: a write to another file would use this process's rights, not the client's.
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
    /// Delivers the interrupt if it is pending or driven, and nothing blocks it; otherwise it stays pending.
    #[inline]
    fn deliver(&mut self, delivery: Delivery, automask: bool) {
        let wanted = self.pending || self.asserted;
        if wanted && !self.masked && delivery == Delivery::On && self.eventfd.is_some() {
            let was_pending = std::mem::take(&mut self.pending);
            self.raised_by_line = automask && !was_pending;
            self.raise(automask);
        }
    }

    /// Takes back an interrupt that the line raised and the client has not read: the line is low again, so the client
    /// would find nothing to do. QEMU unmasks the pin at any register access of its guest, and then drives the guest's
    /// pin for the next interrupt until the access after it. A guest that acknowledged everything before QEMU read that
    /// interrupt would be interrupted without end.
    #[cold]
    fn withdraw(&mut self) {
        let Some(eventfd) = self.eventfd.as_ref().filter(|_| self.raised_by_line) else { return };
        if eventfd.raiser.withdraw(eventfd.fd.as_fd()) {
            (self.masked, self.raised_by_line) = (false, false);
        }
    }

    fn raise(&mut self, automask: bool) {
        let Some(eventfd) = &self.eventfd else { return };
        self.masked = automask;
        if let Err(error) = eventfd.raiser.raise(eventfd.fd.as_fd()) {
            tracing::debug!(%error, "raising a client's interrupt failed");
        }
    }
}
