//! The blocking calls' own queue pair, made on first use, behind a mutex.

use super::{Inner, lock};
use crate::{
    Error, Result,
    interrupt::Backoff,
    namespace::Extent,
    queue::{self, Queue, Refusal, Retired},
    spec::{NvmOpcode, Status},
};
use upcie_core::dma::DmaBuf;

/// Entries of the rings: commands of one call that are under way together.
const ENTRIES: u32 = 32;

/// The queue pair. Its commands carry no buffers: the caller's is held by the call itself.
#[derive(Debug)]
pub(crate) struct Blocking {
    queue: Queue<u64>,
}

impl Inner {
    /// Transfers all of `buffer` from or to the blocks from `slba` on, in as many commands as it takes. The caller has
    /// checked the range, the lengths and the buffer's address space.
    pub(crate) fn blocking(
        &self,
        extent: &Extent,
        opcode: NvmOpcode,
        slba: u64,
        buffer: &mut DmaBuf,
    ) -> Result<()> {
        let what = format!("{opcode} at block {slba} of namespace {}", extent.nsid());
        let mut slot = lock(&self.blocking);
        let blocking = match &mut *slot {
            Some(blocking) => blocking,
            none => {
                let entries = ENTRIES.min(self.registers.capabilities().max_queue_entries());
                let queue = queue::create(self, entries, None, None, None)?;
                none.insert(Blocking { queue })
            }
        };
        // The buffer is this call's until the controller is done with it, whatever happens.
        let held = std::mem::take(buffer);
        match self.run(&mut blocking.queue, extent, opcode, slba, &held, &what) {
            Ok(result) => {
                *buffer = held;
                result.map_err(|status| Error::Status {
                    device: self.name.to_string(),
                    operation: what.clone(),
                    status,
                })
            }
            Err((error, false)) => {
                *buffer = held;
                Err(error)
            }
            Err((mut error, true)) => {
                // Commands may still be in flight: the queue goes, and with it, if the controller does not say that it
                // has let go, the buffer.
                let mut queue = slot.take().expect("made above").queue;
                if queue::delete(self, queue.qid()) {
                    drop(queue);
                    *buffer = held;
                } else {
                    self.keep(queue.retire());
                    self.keep(Retired(vec![held]));
                    if let Error::Timeout { kept, .. } = &mut error {
                        *kept = true;
                    }
                }
                Err(error)
            }
        }
    }

    /// `Ok` with the first bad status once nothing is in flight; otherwise the error, and whether commands still are.
    fn run(
        &self,
        queue: &mut Queue<u64>,
        extent: &Extent,
        opcode: NvmOpcode,
        slba: u64,
        held: &DmaBuf,
        what: &str,
    ) -> Result<Result<(), Status>, (Error, bool)> {
        let total = held.total_len();
        let piece = extent.max_bytes();
        let (mut sent, mut pending, mut result) = (0, 0_u32, Ok(()));
        let mut flush = opcode == NvmOpcode::FLUSH;
        let mut backoff = Backoff::new(self.options.timeout);
        loop {
            let mut turn = queue.turn().map_err(|error| (error, pending > 0))?;
            let before = pending;
            for done in turn.by_ref() {
                pending -= 1;
                if let (_, Err(status), _) = done.into_parts() {
                    result = result.and(Err(status));
                }
            }
            let progress = before != pending;
            while result.is_ok() && (sent < total || flush) {
                let len = piece.min(total - sent);
                let block = slba + (sent >> extent.shift) as u64;
                // SAFETY: `held` outlives the command: `blocking` gives it back or frees it only when nothing is in
                // flight, or once the queue has been deleted, and leaks it otherwise.
                match unsafe { turn.submit_range(opcode, extent, block, held, sent, len) } {
                    Ok(()) => {}
                    Err(Refusal::Full | Refusal::ListsInUse) if pending > 0 => break,
                    Err(reason) if pending == 0 => {
                        let device = self.name.to_string();
                        return Err((Error::Refused { device, operation: what.into(), reason }, false));
                    }
                    // The rest of what was sent is waited for first.
                    Err(_) => break,
                }
                pending += 1;
                sent += len;
                flush = false;
            }
            drop(turn);
            if pending == 0 && (result.is_err() || sent == total) {
                return Ok(result);
            }
            if progress {
                backoff = Backoff::new(self.options.timeout);
                continue;
            }
            self.pause(&mut backoff, what).map_err(|error| (error, true))?;
        }
    }
}
