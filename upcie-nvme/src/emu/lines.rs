//! INTx and MSI, which both follow the interrupt status register.

use super::{admin::Queues, config::Allowed};
use upcie_core::{
    irq::IrqKind,
    vfio_user::server::{Delivery, Guest},
};

/// The interrupt status register (Base, "Pin Based, Single MSI, and Multiple MSI Behavior"), which the host can't read:
/// a bit for each of the first 32 vectors, set while a completion queue of the vector has entries that the host has not
/// acknowledged.
///
/// The pin is driven while bit 0 is set. A message is sent when a bit becomes visible (it is set, or its mask is cleared),
/// and while it stays visible, whenever entries were posted since the last message, and whenever a head doorbell moves and
/// leaves entries. So a host that looks, finds nothing and is about to move the head is told of what came between.
#[derive(Debug, Default)]
pub(super) struct InterruptStatus {
    /// Bits that were set and not masked, while MSI was on.
    visible: u32,
}

impl InterruptStatus {
    /// Brings it up to date, and sends the messages that are due. `mask` is that of INTMS and INTMC. `true` if the pin is
    /// wanted.
    pub fn update(
        &mut self,
        queues: Option<&mut Queues>,
        mask: u32,
        allowed: &Allowed,
        guest: &mut Guest,
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
            // Of fewer messages than vectors, each stands for several.
            guest.trigger(IrqKind::Msi, due.trailing_zeros() & (messages - 1));
            due &= due - 1;
        }
        status & 1 != 0
    }
}
