//! The admin queue.

use super::{Inner, Live, Registers, lock};
use crate::{
    Error, Result,
    interrupt::Backoff,
    prp::ListPool,
    queue::{Parts, Queue, Refused},
    spec::{Command, Status},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use upcie_core::{
    deadline::Budget,
    dma::{DmaBuf, Heap},
};

/// The admin queue pair and the commands on it. Behind a mutex: one command at a time, however many threads ask.
#[derive(Debug)]
pub(crate) struct Admin {
    queue: Queue<u64>,
    rings: (u64, u64),
    /// Tells a late answer to a command that timed out from the one that is waited for.
    next: u64,
}

impl Admin {
    pub(super) fn new(
        registers: &Registers,
        heap: &Arc<Heap>,
        name: &Arc<str>,
        live: &Arc<Live>,
        entries: u32,
        page_shift: u32,
    ) -> Result<Self> {
        let page = 1 << page_shift;
        let ring = |bytes: usize| -> Result<DmaBuf> {
            let mut ring = heap.alloc_aligned(bytes.next_multiple_of(page), page)?;
            ring.zero();
            Ok(ring)
        };
        let (sq, cq) = (ring(entries as usize * 64)?, ring(entries as usize * 16)?);
        let rings = (sq.iova(0), cq.iova(0));
        let queue = Queue::new(Parts {
            name: name.clone(),
            qid: 0,
            entries,
            sq,
            sq_combining: false,
            cq,
            sq_doorbell: registers.doorbell(0, false)?,
            cq_doorbell: registers.doorbell(0, true)?,
            lists: ListPool::new(heap.alloc_aligned(page, page)?, page, page_shift),
            live: live.clone(),
        });
        Ok(Self { queue, rings, next: 0 })
    }

    /// The device addresses of the submission and completion ring.
    pub(super) fn rings(&self) -> (u64, u64) {
        self.rings
    }
}

impl Inner {
    /// Runs an admin command with `data`, a buffer of whole pages (or the empty one) that it reads or writes.
    /// Gives dword 0 of the completion and the buffer.
    pub(crate) fn admin_data(&self, command: &Command, data: DmaBuf, what: &str) -> Result<(u32, DmaBuf)> {
        self.admin_within(command, data, what, self.options.timeout)
    }

    /// The same with a deadline of its own. A command that misses it keeps its slot and its buffer until the
    /// controller answers after all, or is reset.
    pub(crate) fn admin_within(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        after: Duration,
    ) -> Result<(u32, DmaBuf)> {
        let mut command = *command;
        if !data.is_empty() {
            // Whole pages of a heap of the driver's own: their list is ready.
            let transfer = data.transfer();
            command.set_data_pointer(transfer.iova, transfer.companion);
        }
        self.admin_exact(&command, data, what, after)
    }

    /// The same for a command that has its data pointer.
    pub(super) fn admin_exact(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        after: Duration,
    ) -> Result<(u32, DmaBuf)> {
        self.check_owner(what)?;
        let device = || self.name.to_string();
        let _budget = Budget::new(after);
        let mut admin = lock(&self.admin);
        let tag = admin.next;
        admin.next += 1;
        let mut turn = admin.queue.turn()?;
        // SAFETY: the command's data is in `data`, which it owns, or in memory that its maker keeps (`create`).
        let submitted = unsafe { turn.submit_raw(command, data, tag) };
        drop(turn);
        submitted.map_err(|Refused { reason, .. }| Error::Refused {
            device: device(),
            operation: what.into(),
            reason,
        })?;
        let mut backoff = Backoff::new(after);
        let start = Instant::now();
        loop {
            for done in admin.queue.turn()? {
                let dword0 = done.dword0();
                match done.into_parts() {
                    (done, result, data) if done == tag => {
                        self.log_admin(command, what, result, start.elapsed());
                        return match result {
                            Ok(()) => Ok((dword0, data)),
                            Err(status) => {
                                Err(Error::Status { device: device(), operation: what.into(), status })
                            }
                        };
                    }
                    (late, ..) => {
                        tracing::warn!(device = %self.name, late, "an admin command completed after its deadline");
                        // It may have been one that changes namespaces.
                        self.live.restamp();
                    }
                }
            }
            self.pause(&mut backoff, what)?;
        }
    }

    /// Logs an admin command that has ended.
    fn log_admin(&self, command: &Command, what: &str, result: Result<(), Status>, took: Duration) {
        let (opcode, cdw10) = (format_args!("{:#04x}", command.opcode), format_args!("{:#x}", command.cdw10));
        match result {
            Ok(()) => {
                tracing::trace!(device = %self.name, opcode, nsid = command.nsid, cdw10, ?took, "{what}")
            }
            Err(status) => {
                tracing::debug!(device = %self.name, opcode, nsid = command.nsid, cdw10, ?took, %status, "{what} failed");
            }
        }
    }

    /// Waits a little for a completion; an error when the time is up, or when the controller is gone or fails.
    pub(super) fn pause(&self, backoff: &mut Backoff, what: &str) -> Result<()> {
        if !backoff.pause() {
            let (device, after) = (self.name.to_string(), backoff.limit());
            return Err(Error::Timeout { device, operation: what.into(), after, kept: false });
        }
        if backoff.is_slow() { self.check_alive(what) } else { Ok(()) }
    }

    /// An error if the controller is gone or reports a fatal status.
    pub(crate) fn check_alive(&self, what: &str) -> Result<()> {
        let status = self.registers.status()?;
        if status.cfs() {
            return Err(Error::Fatal { device: self.name.to_string(), operation: what.into() });
        }
        Ok(())
    }
}
