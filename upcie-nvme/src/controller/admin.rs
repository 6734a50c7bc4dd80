//! The admin queue.

use super::{Inner, Registers, queue_ids::Ticket, subsystem::Change};
use crate::{
    Completion, Error, Patience, Result,
    engine::{ListPool, Live, Parts, Queue},
    spec::{Command, Status},
    wait::Backoff,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use upcie_core::{
    deadline::Budget,
    dma::{DmaBuf, Heap},
    events::emit,
};

/// Shows a number in hexadecimal in the log.
struct Hex(u32);

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// The admin queue pair and the commands on it. Behind a gate: one command at a time, however many threads ask.
#[derive(Debug)]
pub(crate) struct Admin {
    queue: Queue<u64>,
    rings: (u64, u64),
    /// The next tag: it tells a late answer to a timed-out command from the answer to the current one.
    next: u64,
    /// The meaning of each late answer, by tag.
    late: BTreeMap<u64, Late>,
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
        Ok(Self { queue, rings, next: 0, late: BTreeMap::new() })
    }

    /// Returns the device addresses of the submission and completion ring.
    pub(super) fn rings(&self) -> (u64, u64) {
        self.rings
    }
}

/// The meaning of an answer that comes after its command's deadline.
#[derive(Debug)]
pub(super) enum Late {
    /// The answer has no consequence.
    Nothing,
    /// Namespaces may have changed, and may still change until then.
    Change(#[expect(dead_code, reason = "ends when it is dropped")] Change),
    /// Namespaces may have changed, by a raw command.
    Raw,
    /// A queue pair's creation or deletion goes on.
    Step(Ticket),
}

impl Admin {
    /// Reaps all completions, and returns that of `wanted` if it is there. All others belong to commands that
    /// missed their deadline.
    fn reap(&mut self, inner: &Inner, wanted: Option<u64>) -> Result<Option<Completion<u64>>> {
        let Self { queue, late, .. } = self;
        let mut found = None;
        for done in queue.turn()? {
            inner.silent.store(false, Ordering::Relaxed);
            if Some(*done.tag()) == wanted {
                found = Some(done);
                continue;
            }
            let (tag, answer, buffer) = done.into_parts();
            let device = inner.name.clone();
            emit(move || tracing::warn!(%device, "an admin command completed after its deadline"));
            drop(buffer);
            match late.remove(&tag) {
                Some(Late::Step(ticket)) => inner.queue_answered(ticket, answer),
                Some(Late::Raw) => inner.subsystem.make_stale(),
                // Dropping the change ends it.
                Some(Late::Change(_) | Late::Nothing) | None => {}
            }
        }
        Ok(found)
    }

    /// Frees the buffers of unanswered commands: the controller uses them no more, for the reason in `error`.
    pub(super) fn release(&mut self, inner: &Inner, error: &Error) {
        self.queue.release(error);
        for (_, late) in std::mem::take(&mut self.late) {
            if let Late::Raw = late {
                inner.subsystem.make_stale();
            }
        }
    }
}

impl Inner {
    /// Runs an admin command with `data`, a buffer of whole pages (or the empty one) that it reads or writes.
    /// Returns dword 0 of the completion and the buffer.
    pub(crate) fn admin_data(&self, command: &Command, data: DmaBuf, what: &str) -> Result<(u32, DmaBuf)> {
        self.admin_late(command, data, what, Late::Nothing)
    }

    /// Runs an admin command like [`admin_data`](Self::admin_data); `late` is the meaning of an answer after
    /// the deadline. A command that misses its deadline keeps its slot and its buffer until the controller
    /// answers or is reset.
    pub(super) fn admin_late(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        late: Late,
    ) -> Result<(u32, DmaBuf)> {
        let mut command = *command;
        if !data.is_empty() {
            // Whole pages of the driver's own heap: their PRP list is prepared.
            let transfer = data.transfer();
            command.set_data_pointer(transfer.iova, transfer.companion);
        }
        let done = self.exchange(&command, data, what, self.options.timeout, late);
        if done.is_ok() {
            // The controller answers again, and may have answered earlier deletions.
            self.finish_deletions();
        }
        done.map_err(|(error, _)| error)
    }

    /// Runs an admin command whose data pointer is set, with a deadline of its own.
    ///
    /// # Errors
    /// The `bool` says whether the command was sent: if so, the controller may still carry it out.
    pub(super) fn exchange(
        &self,
        command: &Command,
        data: DmaBuf,
        what: &str,
        after: Duration,
        late: Late,
    ) -> Result<(u32, DmaBuf), (Error, bool)> {
        self.check_owner(what).map_err(|error| (error, false))?;
        let device = || self.name.to_string();
        let _budget = Budget::new(after);
        let mut patience = Patience::new();
        let admin = self.enter(&self.admin, &mut patience, after, || what.into(), "admin commands");
        let mut admin = admin.map_err(|error| (error, false))?;
        // Late answers free slots. If the queue is closed, the controller's state tells the reason.
        let reaped = admin.reap(self, None);
        reaped.map_err(|error| (self.check_alive(&|| what.into()).err().unwrap_or(error), false))?;
        let tag = admin.next;
        admin.next += 1;
        let mut turn = admin.queue.turn().map_err(|error| (error, false))?;
        // SAFETY: the command's data is in `data`, which it owns, or in memory that its maker keeps (`create`).
        let submitted = unsafe { turn.submit_raw(command, data, tag) };
        drop(turn);
        if submitted.is_err() {
            let (operation, count) = (what.into(), admin.queue.capacity());
            return Err((Error::Unanswered { device: device(), operation, count }, false));
        }
        let mut backoff = Backoff::of_several(patience, after, after);
        let start = Instant::now();
        let error = loop {
            match admin.reap(self, Some(tag)) {
                Ok(None) => {}
                Ok(Some(done)) => {
                    let dword0 = done.dword0();
                    let (_, result, data) = done.into_parts();
                    self.log_admin(command, what, result, start.elapsed());
                    let failed = |status| Error::Status { device: device(), operation: what.into(), status };
                    return result.map(|()| (dword0, data)).map_err(|status| (failed(status), true));
                }
                Err(error) => break error,
            }
            match self.pause(&mut backoff, &|| what.into()) {
                Ok(()) => {}
                // The limit includes the wait for other threads.
                Err(Error::Timeout { device, operation, kept, .. }) => {
                    break Error::Timeout { device, operation, after, kept };
                }
                Err(error) => break error,
            }
        };
        admin.late.insert(tag, late);
        drop(admin);
        if !matches!(error, Error::Timeout { .. }) {
            // Now that the queue is free.
            self.release_if_let_go();
        }
        Err((error, true))
    }

    /// Reaps completions that came after their deadline, without sending anything.
    pub(crate) fn reap_late(&self) {
        // A thread that holds the queue reaps, too. An error will also fail the next command.
        if let Some(mut admin) = self.admin.enter(|| Duration::ZERO) {
            let _ = admin.reap(self, None);
        }
    }

    /// Logs an admin command that has ended.
    fn log_admin(&self, command: &Command, what: &str, result: Result<(), Status>, took: Duration) {
        let (device, nsid, what) = (self.name.clone(), command.nsid, what.to_owned());
        let (opcode, cdw10) = (Hex(command.opcode.into()), Hex(command.cdw10));
        emit(move || match result {
            Ok(()) => tracing::trace!(%device, ?opcode, nsid, ?cdw10, ?took, "{what}"),
            Err(status) => tracing::debug!(%device, ?opcode, nsid, ?cdw10, ?took, %status, "{what} failed"),
        });
    }

    /// Waits a little for a completion; returns an error when the time is up, or when the controller is gone
    /// or fails.
    pub(crate) fn pause(&self, backoff: &mut Backoff, what: &dyn Fn() -> String) -> Result<()> {
        if !backoff.pause() {
            let (device, after) = (self.name.to_string(), backoff.limit());
            return Err(Error::Timeout { device, operation: what(), after, kept: false });
        }
        if backoff.is_slow() { self.check_alive(what) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Controller, ControllerOptions, Error};
    use std::{sync::mpsc, thread, time::Duration};

    /// Soundness finding 5: a command that waits behind another thread's slow one ends by its own deadline, with an error
    /// that says so.
    #[test]
    fn a_command_behind_a_slow_one_keeps_its_deadline() {
        let options = ControllerOptions { timeout: Duration::from_secs(2), ..ControllerOptions::default() };
        let controller = Controller::open_with("emu:size=1M", options).unwrap();
        let queue = controller.queue_pair().create::<u64>().unwrap();
        // Hold the queue, like a thread whose command is not answered.
        let slow = controller.inner.admin.enter(|| Duration::ZERO);
        let (send, receive) = mpsc::channel();
        let handle = controller.clone();
        thread::spawn(move || {
            send.send(handle.namespaces().map(drop)).unwrap();
            send.send(queue.close()).unwrap();
        });
        let within = Duration::from_secs(60);
        let error = receive.recv_timeout(within).expect("it ends while the other one goes on").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Timeout { kept: false, .. }), "{text}");
        for part in [controller.name(), "Identify", "waiting for admin commands of other threads", "2s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let error = receive.recv_timeout(within).expect("it ends while the other one goes on").unwrap_err();
        assert!(matches!(error, Error::Undeleted { qid: 1, .. }), "{error}");
        drop(slow);
        // And what was left goes on.
        assert_eq!(controller.namespaces().unwrap(), [1]);
        let all: Result<Vec<_>, _> =
            (0..controller.max_queue_pairs()).map(|_| controller.queue_pair().create::<u64>()).collect();
        assert!(all.is_ok(), "the id of the queue is back: {all:?}");
    }
}
