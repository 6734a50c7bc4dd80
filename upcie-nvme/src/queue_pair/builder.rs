//! I/O queue pairs: described, made on the controller, deleted there.

use super::QueuePair;
use crate::{
    Controller, Error, Result,
    controller::{Inner, PRIORITY, create},
    spec::QueuePriority,
    wait::Waiter,
};
use std::sync::Arc;

const DEPTH: u32 = 128;

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

impl Controller {
    /// A builder for an I/O queue pair.
    pub fn queue_pair(&self) -> QueuePairBuilder<'_> {
        QueuePairBuilder {
            controller: self.inner(),
            depth: None,
            vector: None,
            list_bytes: None,
            in_controller: false,
            priority: None,
        }
    }
}

impl QueuePairBuilder<'_> {
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
