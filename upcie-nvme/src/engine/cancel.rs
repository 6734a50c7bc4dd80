//! Cancel: ends commands that are in flight on the queue that it is submitted to.

use super::{
    Extent, Refusal, Refused, Turn,
    common::{CLOSED, refuse_namespace},
    slot::FREE_MASK,
};
use crate::spec::{ALL_NAMESPACES, CancelDword10, CancelDword11, NvmOpcode};
use upcie_core::dma::DmaBuf;

/// The command Cancel (Base, "Cancel command"), for [`Turn::cancel`]: the controller is to end commands that are in flight on
/// the same queue. [`Controller::cancel`](crate::Controller::cancel) makes one for all of them;
/// [`of_namespace`](Self::of_namespace) and [`of_slot`](Self::of_slot) choose some.
///
/// ```
/// use std::time::Duration;
/// use upcie_nvme::{Controller, Wait};
///
/// let controller = Controller::open("emu:size=1M,latency=10s")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<&str>()?;
/// let mut turn = queue.turn()?;
/// turn.read(&namespace, 0, controller.alloc(4096)?, "slow")?;
/// turn.cancel(controller.cancel()?.of_namespace(&namespace), "cancel")?;
/// drop(turn);
/// // Both come back, the read with its buffer.
/// while queue.in_flight() > 0 {
///     assert!(queue.wait(Wait::Poll, Duration::from_secs(30))?, "{}", queue.diagnose());
///     for done in queue.turn()? {
///         println!("{}: {}", done.tag(), done.status());
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Cancel<'n> {
    pub(crate) controller: u64,
    pub(crate) extent: Option<&'n Extent>,
    pub(crate) slot: Option<u32>,
}

impl<'n> Cancel<'n> {
    /// Makes a Cancel of all commands, for queues of the controller with the id `controller`.
    pub(crate) fn new(controller: u64) -> Self {
        Self { controller, extent: None, slot: None }
    }

    /// Ends commands for this namespace alone.
    #[must_use]
    pub fn of_namespace(self, namespace: &'n impl AsRef<Extent>) -> Self {
        Self { extent: Some(namespace.as_ref()), ..self }
    }

    /// Ends the command in this slot alone: the number that [`Turn::next_slot`] returned before the command was submitted.
    #[must_use]
    pub fn of_slot(self, slot: u32) -> Self {
        Self { slot: Some(slot), ..self }
    }
}

impl<T> Turn<'_, T> {
    /// Submits a Cancel: the controller ends commands that are in flight on this queue, as far as it can, and they complete
    /// with [`Status::ABORT_REQUESTED`](crate::spec::Status::ABORT_REQUESTED) or as if nothing had happened. Nothing comes
    /// back without its completion. The Cancel takes a slot of the queue itself, so a full queue has none for it. Dword 0 of
    /// its completion is a [`CancelResult`](crate::spec::CancelResult).
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait, spec::{CancelResult, Status}};
    /// # let controller = Controller::open("emu:size=1M,latency=10s")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<&str>()?;
    /// let cancel = controller.cancel()?; // an error if the controller does not have the command
    /// let mut turn = queue.turn()?;
    /// let slot = turn.next_slot();
    /// turn.read(&namespace, 0, controller.alloc(4096)?, "slow")?;
    /// turn.cancel(cancel.of_slot(slot), "cancel")?;
    /// drop(turn);
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(5))?);
    /// let done = queue.turn()?.next().unwrap();
    /// assert_eq!((*done.tag(), done.status()), ("slow", Status::ABORT_REQUESTED));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::NotInFlight`] if the slot has no command that
    /// is in flight, [`Refusal::ForeignCancel`] if the Cancel is another controller's.
    pub fn cancel(&mut self, cancel: Cancel<'_>, tag: T) -> Result<(), Refused<T>> {
        match self.cancel_words(&cancel) {
            Ok(words) => {
                self.push(words, DmaBuf::empty(), tag, 0);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
        }
    }

    fn cancel_words(&self, cancel: &Cancel<'_>) -> Result<[u64; 8], Refusal> {
        let controller = self.queue.live.controller;
        if self.namespaces == CLOSED {
            return Err(Refusal::Closed);
        }
        if cancel.controller != controller {
            return Err(Refusal::ForeignCancel);
        }
        if let Some(extent) = cancel.extent.filter(|extent| extent.stamp != self.namespaces) {
            return Err(refuse_namespace(extent, controller, self.namespaces));
        }
        if self.is_full() {
            return Err(Refusal::Full);
        }
        let (id, action) = match cancel.slot {
            None => (u16::MAX, 1),
            Some(slot) => (self.id_in_flight(slot).ok_or(Refusal::NotInFlight)?, 0),
        };
        let nsid = cancel.extent.map_or(u64::from(ALL_NAMESPACES) << 32, |extent| extent.nsid_high);
        let dword10 = CancelDword10::new().with_sqid(self.queue.qid).with_cid(id).into_bits();
        let dword11 = CancelDword11::new().with_acode(action).into_bits();
        let dwords = u64::from(dword10) | u64::from(dword11) << 32;
        Ok([u64::from(NvmOpcode::CANCEL.0) | nsid, 0, 0, 0, 0, dwords, 0, 0])
    }

    /// Returns the id of the command that is in flight in a slot.
    fn id_in_flight(&self, slot: u32) -> Option<u16> {
        let word = self.queue.slots().get(slot as usize)?.word;
        (word & FREE_MASK == 0).then_some(word as u16)
    }
}
