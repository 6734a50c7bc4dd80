//! I/O queue pairs: described, made on the controller, deleted there.

use super::{Parts, Queue, QueuePair};
use crate::{
    Error, Result,
    controller::{Inner, MemoryBuffer, Step},
    interrupt::Waiter,
    prp::ListPool,
    spec::{Command, QueuePriority},
};
use std::sync::Arc;
use upcie_core::{
    dma::{DmaBuf, Heap},
    mmio::Caching,
};

/// PRP list memory of a queue, unless asked for otherwise.
const LIST_BYTES: usize = 64 << 10;
const DEPTH: u32 = 128;
/// Of queues whose class nobody chose; of no effect under round robin.
pub(crate) const PRIORITY: QueuePriority = QueuePriority::MEDIUM;

/// Describes an I/O queue pair; [`create`](Self::create) makes it.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `create`"]
pub struct QueuePairBuilder<'c> {
    controller: &'c Arc<Inner>,
    depth: Option<u32>,
    vector: Option<u16>,
    list_bytes: Option<usize>,
    in_controller: bool,
    priority: Option<QueuePriority>,
}

impl<'c> QueuePairBuilder<'c> {
    pub(crate) fn new(controller: &'c Arc<Inner>) -> Self {
        Self { controller, depth: None, vector: None, list_bytes: None, in_controller: false, priority: None }
    }

    /// Entries of each ring: 2 to CAP.MQES + 1 ([`Controller::max_depth`](crate::Controller::max_depth)). One stays
    /// empty, so one command less can be in flight. 128 by default, or fewer if the controller takes no more.
    pub fn depth(mut self, entries: u32) -> Self {
        self.depth = Some(entries);
        self
    }

    /// The interrupt vector that completions raise, below [`Controller::vectors`](crate::Controller::vectors): needed for
    /// [`Wait::Interrupt`](crate::Wait::Interrupt) and [`Wait::Adaptive`](crate::Wait::Adaptive). Several queues may share one; with INTx all share vector 0. None by
    /// default: the controller raises no interrupts for the queue.
    pub fn interrupt(mut self, vector: u16) -> Self {
        self.vector = Some(vector);
        self
    }

    /// Bytes of PRP list memory (rounded up to whole lists), for buffers that don't bring their own list: parts and
    /// chains of more than two pages. 64 KiB by default. When it is in use, such commands are refused.
    pub fn list_memory(mut self, bytes: usize) -> Self {
        self.list_bytes = Some(bytes);
        self
    }

    /// Puts the submission ring into the [controller's memory buffer](crate::Controller::memory_buffer): the controller
    /// fetches commands without a request to the host, and this process stores them across the bus (flushed before the
    /// doorbell, where the stores are write-combined). The completion ring, and PRP lists, stay in the host's memory. Off by
    /// default.
    pub fn submission_in_controller(mut self, yes: bool) -> Self {
        self.in_controller = yes;
        self
    }

    /// The priority class of the submission queue, on a controller that was opened with weighted round robin
    /// ([`ControllerOptions::arbitration`](crate::ControllerOptions::arbitration)). The controller fetches from urgent
    /// queues first, as long as they have commands; medium by default.
    pub fn priority(mut self, class: QueuePriority) -> Self {
        self.priority = Some(class);
        self
    }

    /// Makes the queue pair.
    ///
    /// # Errors
    /// [`Error::NoIo`] with the reason; the depth, the vector or the number of queues is more than the controller has (the error says how many); a priority,
    /// though the controller was not opened with weighted round robin; no memory buffer that takes submission queues, or no
    /// room left in it; no DMA memory; the controller's status.
    pub fn create<T>(self) -> Result<QueuePair<T>> {
        self.controller.check_owner("creating a queue pair")?;
        self.controller.check_io()?;
        self.controller.free_queue_id();
        let most = self.controller.max_queue_entries();
        let entries = self.depth.unwrap_or(DEPTH.min(most));
        if !(2..=most).contains(&entries) {
            return Err(Error::Argument {
                device: self.controller.name().to_string(),
                reason: format!("a queue of {entries} entries: the controller takes 2 to {most}"),
            });
        }
        let priority = self.checked_priority()?;
        let waiter = self.vector.map(|vector| Waiter::new(vector, self.controller.vector(vector)?));
        let waiter = waiter.transpose()?;
        let buffer = if self.in_controller { Some(self.controller.buffer_for_submission()?) } else { None };
        let queue =
            create(self.controller, entries, self.vector, self.list_bytes, buffer.as_deref(), priority)?;
        self.controller.hand_out(queue.qid());
        Ok(QueuePair::new(queue, waiter, self.controller.clone()))
    }

    fn checked_priority(&self) -> Result<QueuePriority> {
        let (Some(class), device) = (self.priority, self.controller.name()) else { return Ok(PRIORITY) };
        if self.controller.is_weighted() && class <= QueuePriority::LOW {
            return Ok(class);
        }
        let reason = if class > QueuePriority::LOW {
            format!("a queue of priority {class}: the classes are 0 (urgent) to 3 (low)")
        } else if self.controller.registers().capabilities().supports_weighted_round_robin() {
            format!("a queue of priority {class}: open the controller with ControllerOptions::arbitration")
        } else {
            format!(
                "a queue of priority {class}: the controller has no weighted round robin with urgent priority class \
                 (CAP.AMS bit 0 is 0), so its queues have none"
            )
        };
        Err(Error::Argument { device: device.to_string(), reason })
    }
}

/// Makes a queue pair on the controller, with its submission ring in `buffer` if there is one.
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
        // What is too much to be rounded up is too much for the heap, which says so.
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
            tracing::debug!(device = %inner.name(), qid, entries, ?vector, "made a queue pair");
            inner.finish_deletions();
            Ok(queue)
        }
        Err(error) => {
            // The controller may know the rings by now.
            if let Err(ticket) = inner.take_back(ticket) {
                inner.keep_for(ticket, queue.retire());
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Controller, queue::Retired};

    /// Soundness finding 1: rings and lists are in regions that no buffer of a user's leads to.
    #[test]
    fn no_buffer_is_in_a_region_of_rings_or_lists() {
        let controller = Controller::open(&"emu:size=1M".parse().unwrap()).unwrap();
        let buffers = [512, 64 << 10].map(|len| controller.alloc(len).unwrap());
        let inner = controller.queue_pair().controller;
        let mut queue = create::<u64>(inner, 64, None, None, None, PRIORITY).unwrap();
        assert!(inner.delete_queue(queue.qid()).is_ok());
        let Retired(private) = queue.retire();
        assert_eq!(private.len(), 3, "two rings and the lists");
        let region = |buffer: &DmaBuf| buffer.region().map(|region| region.id());
        assert!(private.iter().all(|ring| buffers.iter().all(|buffer| region(ring) != region(buffer))));
    }
}
