//! Creation of a queue pair on the controller: its memory, its id, its two commands.

use super::{Inner, MemoryBuffer, Step};
use crate::{
    Patience, Result,
    engine::{ListPool, Parts, Queue},
    spec::{Command, QueuePriority},
};
use std::{sync::Arc, time::Duration};
use upcie_core::{
    dma::{DmaBuf, Heap},
    events::emit,
    mmio::Caching,
};

/// The default bytes of a queue's PRP list memory.
const LIST_BYTES: usize = 64 << 10;
/// The default priority class; it has no effect under round robin.
pub(crate) const PRIORITY: QueuePriority = QueuePriority::MEDIUM;

/// Creates a queue pair on the controller, with its submission ring in `buffer` if there is one.
pub(crate) fn create<T>(
    inner: &Inner,
    entries: u32,
    vector: Option<u16>,
    list_bytes: Option<usize>,
    buffer: Option<&MemoryBuffer>,
    priority: QueuePriority,
) -> Result<Queue<T>> {
    let page = 1 << inner.page_shift();
    let memory_of = |heap: &Arc<Heap>, bytes: usize| -> Result<DmaBuf> {
        // On overflow pass usize::MAX: the heap refuses it with its own error.
        let bytes = bytes.checked_next_multiple_of(page).unwrap_or(usize::MAX);
        let mut memory = heap.alloc_aligned(bytes, page)?;
        memory.zero();
        Ok(memory)
    };
    let memory = |bytes| memory_of(inner.private(), bytes);
    let sq = memory_of(buffer.map_or(inner.private(), MemoryBuffer::heap), entries as usize * 64)?;
    let sq_combining = buffer.is_some_and(|buffer| buffer.caching() == Caching::WriteCombining);
    let cq = memory(entries as usize * 16)?;
    let (sq_iova, cq_iova) = (sq.iova(0), cq.iova(0));
    let chunk = ListPool::chunk_bytes(inner.max_transfer(), inner.page_shift());
    let least = ListPool::least_bytes(inner.max_transfer(), inner.page_shift());
    let list_bytes = list_bytes.unwrap_or(LIST_BYTES).max(least);
    let lists = ListPool::new(memory(list_bytes)?, chunk, inner.page_shift());
    inner.reap_late();
    inner.finish_deletions();
    let (qid, ticket) = inner.take_queue_id()?;
    let doorbells = inner
        .registers()
        .doorbell(qid, false)
        .and_then(|sq| Ok((sq, inner.registers().doorbell(qid, true)?)));
    let (sq_doorbell, cq_doorbell) = doorbells.inspect_err(|_| inner.return_queue_id(ticket))?;
    let mut queue = Queue::new(Parts {
        name: inner.shared_name().clone(),
        qid,
        entries,
        sq,
        sq_combining,
        cq,
        sq_doorbell,
        cq_doorbell,
        lists,
        live: inner.live().clone(),
    });
    let cq = Command::create_completion_queue(qid, entries, cq_iova, vector);
    let sq = Command::create_submission_queue(qid, entries, sq_iova, qid, priority);
    let steps = [(Step::CreateCq, cq), (Step::CreateSq, sq)];
    match steps.iter().try_for_each(|(step, command)| inner.create_step(ticket, *step, command)) {
        Ok(()) => {
            inner.created(ticket);
            let device = inner.shared_name().clone();
            emit(move || tracing::debug!(%device, qid, entries, ?vector, "made a queue pair"));
            inner.finish_deletions();
            Ok(queue)
        }
        Err(error) => {
            // The controller may already use the rings.
            if let Err(ticket) = inner.take_back(ticket) {
                inner.keep_for(ticket, queue.retire());
            }
            Err(error)
        }
    }
}

impl Inner {
    /// Waits until a blocking call that is under way has nothing in flight; returns `false` when that took
    /// longer than `limit`.
    pub(super) fn wait_for_blocking_call(&self, patience: &mut Patience, limit: Duration) -> bool {
        self.blocking.enter(|| limit.saturating_sub(patience.waited())).is_some()
    }

    /// Deletes the blocking calls' own queue pair if all I/O queue pairs are taken. The next such call makes
    /// another.
    pub(crate) fn free_queue_id(&self) {
        if self.has_free_queue_id() {
            return;
        }
        // A blocking call has no commands in flight once it releases the gate; one under way keeps its queue
        // pair.
        let (mut patience, limit) = (Patience::new(), self.options.timeout);
        let pass = self.blocking.enter(|| limit.saturating_sub(patience.waited()));
        if let Some(mut queue) = pass.and_then(|mut slot| slot.take()) {
            if let Err(ticket) = self.delete_queue(queue.qid()) {
                self.keep_for(ticket, queue.retire());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Controller, engine::Retired};

    /// Soundness finding 1: rings and lists are in regions that no buffer of a user's leads to.
    #[test]
    fn no_buffer_is_in_a_region_of_rings_or_lists() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let buffers = [512, 64 << 10].map(|len| controller.alloc(len).unwrap());
        let inner = controller.inner();
        let mut queue = create::<u64>(inner, 64, None, None, None, PRIORITY).unwrap();
        assert!(inner.delete_queue(queue.qid()).is_ok());
        let Retired(private) = queue.retire();
        assert_eq!(private.len(), 3, "two rings and the lists");
        let region = |buffer: &DmaBuf| buffer.region().map(|region| region.id());
        assert!(private.iter().all(|ring| buffers.iter().all(|buffer| region(ring) != region(buffer))));
    }
}
