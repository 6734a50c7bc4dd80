//! INTx and MSI, which both follow the interrupt status register.

use super::admin::Queues;
use upcie_core::{irq::IrqKind, vfio_user::server::Guest};

/// The interrupt status register (Base, "Pin Based, Single MSI, and Multiple MSI Behavior"), which the host can't read:
/// a bit for each of the first 32 vectors.
///
/// A message is sent when a bit becomes 1, and the pin is driven while bit 0 is. So one message can stand for any number
/// of completions; a host that is done asks for the next by acknowledging all, or by masking and unmasking the vector.
#[derive(Debug, Default)]
pub(super) struct InterruptStatus(u32);

impl InterruptStatus {
    /// Brings it up to date: vectors with completions that the client has not acknowledged, but for those in `mask`
    /// (INTMS and INTMC). `true` if the pin is to be driven.
    pub fn update(&mut self, queues: Option<&Queues>, mask: u32, guest: &mut Guest) -> bool {
        let mut now = 0;
        for cq in queues.into_iter().flat_map(Queues::completion_queues) {
            let bit = cq.vector.and_then(|vector| 1_u32.checked_shl(vector.into())).unwrap_or(0);
            if bit & !now != 0 && cq.is_unacknowledged() {
                now |= bit;
            }
        }
        now &= !mask;
        let mut risen = now & !std::mem::replace(&mut self.0, now);
        while risen != 0 {
            guest.trigger(IrqKind::Msi, risen.trailing_zeros());
            risen &= risen - 1;
        }
        now & 1 != 0
    }
}
