//! The admin queue.

use super::{QueueIds, Registers, Subsystem, queue_ids::Ticket, subsystem::Change};
use crate::{
    Completion, Error, Result,
    engine::{ListPool, Live, Parts, Queue},
    spec::Command,
};
use std::{collections::BTreeMap, sync::Arc};
use upcie_core::{
    dma::{DmaBuf, Heap},
    events::emit,
};

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

/// The parts of a controller that a late answer changes.
pub(super) struct Affected<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) queue_ids: &'a QueueIds,
    pub(super) subsystem: &'a Subsystem,
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
        let ring =
            |bytes: usize| -> Result<DmaBuf> { Ok(heap.alloc_aligned(bytes.next_multiple_of(page), page)?) };
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

    /// Returns the number of commands that can be unanswered at once.
    pub(super) fn capacity(&self) -> u32 {
        self.queue.capacity()
    }

    /// Sends a command whose data pointer is set, and returns its tag; `None` if unanswered commands take all
    /// slots.
    pub(super) fn send(&mut self, command: &Command, data: DmaBuf) -> Result<Option<u64>> {
        let tag = self.next;
        self.next += 1;
        let mut turn = self.queue.turn()?;
        // SAFETY: the command's data is in `data`, which it owns, or in memory that its maker keeps (`create`).
        let submitted = unsafe { turn.submit_raw(command, data, tag) };
        Ok(submitted.is_ok().then_some(tag))
    }

    /// Notes the meaning of the answer to a command that has missed its deadline.
    pub(super) fn expect_late(&mut self, tag: u64, late: Late) {
        self.late.insert(tag, late);
    }

    /// Reaps all completions, and returns that of `wanted` if it is there. All others belong to commands that
    /// missed their deadline.
    pub(super) fn reap(
        &mut self,
        affected: Affected<'_>,
        wanted: Option<u64>,
    ) -> Result<Option<Completion<u64>>> {
        let Self { queue, late, .. } = self;
        let mut found = None;
        for done in queue.turn()? {
            affected.queue_ids.set_silent(false);
            if Some(*done.tag()) == wanted {
                found = Some(done);
                continue;
            }
            let (tag, answer, buffer) = done.into_parts();
            let device = affected.name.clone();
            emit(move || tracing::warn!(%device, "an admin command completed after its deadline"));
            drop(buffer);
            match late.remove(&tag) {
                Some(Late::Step(ticket)) => affected.queue_ids.answered(ticket, answer),
                Some(Late::Raw) => affected.subsystem.make_stale(),
                // Dropping the change ends it.
                Some(Late::Change(_) | Late::Nothing) | None => {}
            }
        }
        Ok(found)
    }

    /// Frees the buffers of unanswered commands: the controller uses them no more, for the reason in `error`.
    pub(super) fn release(&mut self, subsystem: &Subsystem, error: &Error) {
        self.queue.release(error);
        for (_, late) in std::mem::take(&mut self.late) {
            if let Late::Raw = late {
                subsystem.make_stale();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Controller, Failure};
    use std::{sync::mpsc, thread, time::Duration};

    /// Soundness finding 5: a command that waits behind another thread's slow one ends by its own deadline, with an error
    /// that says so.
    #[test]
    fn a_command_behind_a_slow_one_keeps_its_deadline() {
        let options = Controller::builder().timeout(Duration::from_secs(2));
        let controller = options.open("emu:size=1M").unwrap();
        let queue = controller.queue_pair().create::<u64>().unwrap();
        // Hold the queue, like a thread whose command is not answered.
        let slow = controller.inner.admin.enter(|| Duration::ZERO);
        let (send, receive) = mpsc::channel();
        let handle = controller.clone();
        thread::spawn(move || {
            send.send(handle.namespace_ids().map(drop)).unwrap();
            send.send(queue.close()).unwrap();
        });
        let within = Duration::from_secs(60);
        let error = receive.recv_timeout(within).expect("it ends while the other one goes on").unwrap_err();
        let text = error.to_string();
        assert!(matches!(error.failure(), Failure::Timeout { kept: false, .. }), "{text}");
        for part in [controller.name(), "Identify", "waiting for admin commands of other threads", "2s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let error = receive.recv_timeout(within).expect("it ends while the other one goes on").unwrap_err();
        assert!(matches!(error.failure(), Failure::Undeleted { qid: 1, .. }), "{error}");
        drop(slow);
        // And what was left goes on.
        assert_eq!(controller.namespace_ids().unwrap(), [1]);
        let all: Result<Vec<_>, _> =
            (0..controller.max_queue_pairs()).map(|_| controller.queue_pair().create::<u64>()).collect();
        assert!(all.is_ok(), "the id of the queue is back: {all:?}");
    }
}
