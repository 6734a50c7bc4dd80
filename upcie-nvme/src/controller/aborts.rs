//! Abort commands, which nobody waits for.

use super::{Inner, Permit, admin::Sent, late::Late, pending::Pending};
use crate::{
    Result,
    spec::{Command, Status},
};
use upcie_core::dma::DmaBuf;

impl Inner {
    /// Sends an Abort of a command; `None` if that is not possible now: the controller takes no more Aborts (ACL), the admin
    /// queue is full or in use, or another thread resets the controller.
    pub(crate) fn send_abort(&self, qid: u16, id: u16) -> Result<Option<(u64, Permit)>> {
        let most = u32::from(self.properties.identify.acl) + 1;
        let Some(permit) = self.aborts.permit(most) else { return Ok(None) };
        let Some(mut rings) = self.admin.enter_now() else { return Ok(None) };
        if self.resets.is_elsewhere() {
            return Ok(None);
        }
        self.admin.reap(&mut rings, self.affected())?;
        let Sent::Yes(tag) = self.admin.send(&mut rings, &Command::abort(qid, id), DmaBuf::empty())? else {
            return Ok(None);
        };
        let mut pending = Pending::new(self, Late::Abort(permit));
        pending.sent(tag);
        // Emits the log events that the section has kept.
        drop(rings);
        match pending.end() {
            Some(Late::Abort(permit)) => Ok(Some((tag, permit))),
            _ => Ok(None),
        }
    }

    /// Returns the answer to an Abort, once it has come: `true` if the command was aborted.
    pub(crate) fn abort_answer(&self, tag: u64) -> Option<Result<bool, Status>> {
        self.reap_late();
        let (done, _) = self.admin.take(tag)?;
        // Bit 0 of dword 0: the command was not aborted.
        Some(done.result().map(|()| done.dword0() & 1 == 0))
    }

    /// Stops waiting for the answer to an Abort, which counts as unanswered until it comes.
    pub(crate) fn forget_abort(&self, tag: u64, permit: Permit) {
        drop(self.admin.give_up(tag, Late::Abort(permit)));
    }
}
