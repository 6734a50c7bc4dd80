//! The blocking calls' own queue pair, made on first use, behind a mutex.

use super::Inner;
use crate::{
    Error, IoFlags, Namespace, Patience, Result,
    interrupt::Backoff,
    queue::{self, Direction, Queue, Refused, Retired, Turn},
    spec::{DatasetRange, Status},
};
use std::time::Duration;
use upcie_core::{deadline::Budget, dma::DmaBuf};
use zerocopy::IntoBytes;

/// Entries of the rings: commands of one call that are under way together.
const ENTRIES: u32 = 32;
/// What a device gets for each unit of a call's work, beside one timeout for all of it: slower than that, it does not do its
/// work.
const SECOND: Duration = Duration::from_secs(1);
/// The unit of transfers in bytes; that of others is a command.
const UNIT: u64 = 1 << 20;
/// What the ranges of one Dataset Management command can take.
const RANGES_BYTES: usize = DatasetRange::MOST * size_of::<DatasetRange>();

/// The queue pair. Its commands carry no buffers: the caller's is held by the call itself.
#[derive(Debug)]
pub(crate) struct Blocking {
    queue: Queue<u64>,
}

impl Inner {
    /// Transfers all of `buffer` from or to the blocks from `slba` on, in as many commands as it takes. The caller has
    /// checked the range, the lengths and the buffer's address space.
    pub(crate) fn blocking_transfer(
        &self,
        namespace: &Namespace,
        direction: Direction,
        slba: u64,
        buffer: &mut DmaBuf,
        what: &str,
    ) -> Result<()> {
        let (total, piece, shift) = (buffer.total_len(), namespace.max_transfer(), namespace.extent.shift);
        let mut sent = 0;
        self.blocking(buffer, what, total as u64 / UNIT, |turn, held| {
            let len = piece.min(total - sent);
            let block = slba + (sent >> shift) as u64;
            // SAFETY: `held` outlives the command: `blocking` gives it back or frees it only when nothing is in
            // flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.transfer_held(direction, namespace, block, held, sent, len, IoFlags::empty(), 0) }?;
            sent += len;
            Ok(sent < total)
        })
    }

    pub(crate) fn blocking_flush(&self, namespace: &Namespace, what: &str) -> Result<()> {
        self.blocking(&mut DmaBuf::empty(), what, 0, |turn, _| turn.flush(namespace, 0).map(|()| false))
    }

    /// Write Zeroes to `blocks` (not 0) blocks from `slba` on. The caller has checked the range.
    pub(crate) fn blocking_zeroes(
        &self,
        namespace: &Namespace,
        slba: u64,
        blocks: u64,
        what: &str,
    ) -> Result<()> {
        let mut sent = 0;
        let commands = blocks / u64::from(namespace.extent.max_zeroes.max(1));
        self.blocking(&mut DmaBuf::empty(), what, commands, |turn, _| {
            let count = (blocks - sent).min(namespace.extent.max_zeroes.into());
            turn.write_zeroes(namespace, slba + sent, count as u32, IoFlags::empty(), 0)?;
            sent += count;
            Ok(sent < blocks)
        })
    }

    /// Deallocates `ranges` (not none).
    pub(crate) fn blocking_deallocate(
        &self,
        namespace: &Namespace,
        ranges: &[DatasetRange],
        what: &str,
    ) -> Result<()> {
        let bytes = ranges.as_bytes();
        // Some controllers read the ranges' whole page, however few there are.
        let mut buffer =
            self.heap().alloc_aligned(bytes.len().next_multiple_of(RANGES_BYTES), RANGES_BYTES)?;
        buffer.write_at(0, bytes);
        let mut sent = 0;
        let commands = (ranges.len() / DatasetRange::MOST) as u64;
        self.blocking(&mut buffer, what, commands, |turn, held| {
            let count = (ranges.len() - sent).min(DatasetRange::MOST);
            // SAFETY: as in `blocking_transfer`.
            unsafe { turn.deallocate_held(namespace, held, sent * size_of::<DatasetRange>(), count, 0) }?;
            sent += count;
            Ok(sent < ranges.len())
        })
    }

    /// Waits until the blocking call that is under way, if there is one, has nothing in flight; `false` when that took longer
    /// than `limit`.
    pub(super) fn wait_for_blocking_call(&self, patience: &mut Patience, limit: Duration) -> bool {
        self.blocking.enter(patience, limit).is_some()
    }

    /// Sends commands until `send` says that there are no more, and waits for them. They may use `buffer` as they like: it
    /// is given back when all is done. The whole may take the controller's timeout and a second for each of `units`.
    fn blocking(
        &self,
        buffer: &mut DmaBuf,
        what: &str,
        units: u64,
        mut send: impl FnMut(&mut Turn<'_, u64>, &DmaBuf) -> Result<bool, Refused<u64>>,
    ) -> Result<()> {
        self.check_owner(what)?;
        let seconds = SECOND.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX));
        let whole = self.options.timeout.saturating_add(seconds);
        let mut patience = Patience::new();
        let _budget = Budget::new(whole);
        let slot = self.blocking.enter(&mut patience, whole);
        let mut slot = slot.ok_or_else(|| Error::Timeout {
            device: self.name.to_string(),
            operation: format!("{what}: waiting for calls of other threads"),
            after: whole,
            kept: false,
        })?;
        let blocking = match &mut *slot {
            Some(blocking) => blocking,
            none => {
                let entries = ENTRIES.min(self.queue_entries);
                let queue = queue::create(self, entries, None, None, None, queue::PRIORITY)?;
                none.insert(Blocking { queue })
            }
        };
        // The buffer is this call's until the controller is done with it, whatever happens.
        let held = std::mem::take(buffer);
        let backoff = Backoff::of_several(patience, self.options.timeout, whole);
        match self.run(&mut blocking.queue, what, backoff, whole, |turn| send(turn, &held)) {
            Ok(result) => {
                *buffer = held;
                result.map_err(|status| Error::Status {
                    device: self.name.to_string(),
                    operation: what.into(),
                    status,
                })
            }
            Err((error, false)) => {
                *buffer = held;
                Err(error)
            }
            Err((mut error, true)) => {
                if let Error::Timeout { after, .. } = &mut error {
                    *after = if *after < self.options.timeout { whole } else { *after };
                }
                // Commands may still be in flight: the queue goes, and with it, if the controller does not say that it
                // has let go, the buffer.
                let mut queue = slot.take().expect("made above").queue;
                match self.delete_queue(queue.qid()) {
                    Ok(()) => {
                        drop(queue);
                        *buffer = held;
                    }
                    Err(ticket) => {
                        self.keep_for(ticket, queue.retire());
                        self.keep_for(ticket, Retired(vec![held]));
                        if let Error::Timeout { kept, .. } = &mut error {
                            *kept = true;
                        }
                    }
                }
                Err(error)
            }
        }
    }

    /// Where all I/O queue pairs are taken, the blocking calls' own one makes room: their next call makes another.
    pub(crate) fn free_queue_id(&self) {
        if self.has_free_queue_id() {
            return;
        }
        // Nothing of a call is in flight outside of it. One that is under way keeps the queue pair for its time.
        let pass = self.blocking.enter(&mut Patience::new(), self.options.timeout);
        if let Some(mut queue) = pass.and_then(|mut slot| slot.take()).map(|blocking| blocking.queue) {
            if let Err(ticket) = self.delete_queue(queue.qid()) {
                self.keep_for(ticket, queue.retire());
            }
        }
    }

    /// `Ok` with the first bad status once nothing is in flight; otherwise the error, and whether commands still are. No
    /// command, nor `whole` of them, may take too long.
    fn run(
        &self,
        queue: &mut Queue<u64>,
        what: &str,
        mut backoff: Backoff,
        whole: Duration,
        mut send: impl FnMut(&mut Turn<'_, u64>) -> Result<bool, Refused<u64>>,
    ) -> Result<Result<(), Status>, (Error, bool)> {
        let (mut more, mut pending, mut result) = (true, 0_u32, Ok(()));
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
            while result.is_ok() && more {
                match send(&mut turn) {
                    Ok(rest) => {
                        pending += 1;
                        more = rest;
                    }
                    // What was sent is waited for first, whether there is room then or not.
                    Err(_) if pending > 0 => break,
                    Err(Refused { reason, .. }) => {
                        let device = self.name.to_string();
                        return Err((Error::Refused { device, operation: what.into(), reason }, false));
                    }
                }
            }
            drop(turn);
            if pending == 0 && (result.is_err() || !more) {
                return Ok(result);
            }
            if progress {
                backoff.renew(self.options.timeout, whole);
                if !backoff.limit().is_zero() {
                    continue;
                }
            }
            self.pause(&mut backoff, what).map_err(|error| (error, true))?;
        }
    }
}
