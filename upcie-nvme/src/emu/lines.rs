//! INTx and MSI, which both follow the interrupt status register.

use super::{Interrupts, config::Allowed, queues::Queues};
use upcie_core::{irq::IrqKind, vfio_user::server::Delivery};

/// The interrupt status register (Base, "Pin Based, Single MSI, and Multiple MSI Behavior"), which the host can't read:
/// a bit for each of the first 32 vectors, set while a completion queue of the vector has entries that the host has not
/// acknowledged.
///
/// The pin is driven while bit 0 is set. A message is sent when a bit becomes visible (it is set, or its mask
/// is cleared). While the bit stays visible, a message is also sent whenever entries were posted since the
/// last message, and whenever a head doorbell moves and leaves entries. So no entry is missed by a host that
/// finds an empty queue and then moves the head.
#[derive(Debug, Default)]
pub(super) struct InterruptStatus {
    /// Bits that were set and not masked, while MSI was on.
    visible: u32,
}

impl InterruptStatus {
    /// Updates the register, and sends the messages that are due. `mask` is that of INTMS and INTMC. Returns
    /// `true` if the pin is wanted.
    pub fn update(
        &mut self,
        queues: Option<&mut Queues>,
        mask: u32,
        allowed: &Allowed,
        host: &mut impl Interrupts,
    ) -> bool {
        let (mut status, mut news) = (0, 0);
        for cq in queues.into_iter().flat_map(Queues::completion_queues) {
            let (unacknowledged, new) = cq.look_for_interrupt();
            let bit = cq.vector.and_then(|vector| 1_u32.checked_shl(vector.into())).unwrap_or(0);
            status |= if unacknowledged { bit } else { 0 };
            news |= if new { bit } else { 0 };
        }
        status &= !mask;
        let (delivery, messages) = allowed.msi;
        let visible = if delivery == Delivery::Off { 0 } else { status };
        let mut due = visible & (!self.visible | news);
        self.visible = visible;
        while due != 0 {
            // With fewer messages than vectors, each message stands for several vectors.
            host.trigger(IrqKind::Msi, due.trailing_zeros() & (messages - 1));
            due &= due - 1;
        }
        status & 1 != 0
    }
}
