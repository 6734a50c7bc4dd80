//! I/O queue pairs: described, made on the controller, deleted there.

use super::{OnTimeout, QueuePair, deadlines::Deadlines, one::notice};
use crate::{
    Controller, Error, Result,
    controller::{Inner, Limit, PRIORITY, create},
    engine::SglUse,
    spec::QueuePriority,
};
use std::{sync::Arc, time::Duration};

const DEPTH: u32 = 128;

/// Describes an I/O queue pair; [`create`](Self::create) makes it.
///
/// ```
/// use upcie_nvme::Controller;
///
/// let controller = Controller::open("emu:size=1M")?;
/// // One entry of a ring stays empty. The tags of its commands are of any type, here text.
/// let queue = controller.queue_pair().depth(64).create::<&str>()?;
/// assert_eq!(queue.capacity(), 63);
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `create`"]
pub struct QueuePairBuilder<'c> {
    controller: &'c Arc<Inner>,
    depth: Option<u32>,
    vector: Option<u16>,
    list_bytes: Option<usize>,
    sgl: Option<SglUse>,
    in_controller: bool,
    priority: Option<QueuePriority>,
    command_timeout: Option<Duration>,
    on_timeout: OnTimeout,
}

impl Controller {
    /// Returns a builder for an I/O queue pair.
    pub fn queue_pair(&self) -> QueuePairBuilder<'_> {
        QueuePairBuilder {
            controller: self.inner(),
            depth: None,
            vector: None,
            list_bytes: None,
            sgl: None,
            in_controller: false,
            priority: None,
            command_timeout: self.inner().command_timeout(),
            on_timeout: OnTimeout::default(),
        }
    }
}

impl QueuePairBuilder<'_> {
    /// Sets the number of entries of each ring: 2 to CAP.MQES + 1
    /// ([`Controller::max_depth`](crate::Controller::max_depth)). One entry stays empty, so `entries - 1`
    /// commands can be in flight. The default is 128, or fewer if the controller allows fewer.
    pub fn depth(mut self, entries: u32) -> Self {
        self.depth = Some(entries);
        self
    }

    /// Sets the interrupt vector that completions raise, below
    /// [`Controller::vectors`](crate::Controller::vectors). [`Wait::Interrupt`](crate::Wait::Interrupt) and
    /// [`Wait::Adaptive`](crate::Wait::Adaptive) need one. Several queues may share a vector; with INTx all
    /// share vector 0. By default the queue has none, and the controller raises no interrupts for it.
    pub fn interrupt(mut self, vector: u16) -> Self {
        self.vector = Some(vector);
        self
    }

    /// Sets the bytes of PRP list memory (rounded up to whole lists). Buffers without a list of their own use
    /// it: slices and chains of more than two pages, and SGLs of several segments. While all of it is in use, such commands are refused.
    /// The default is 64 KiB.
    pub fn list_memory(mut self, bytes: usize) -> Self {
        self.list_bytes = Some(bytes);
        self
    }

    /// Sets the use of scatter gather lists (SGLs) by the queue's commands; the default is the controller's
    /// ([`ControllerBuilder::sgl`](crate::ControllerBuilder::sgl)). Their lists are in the memory of the PRP lists.
    pub fn sgl(mut self, usage: SglUse) -> Self {
        self.sgl = Some(usage);
        self
    }

    /// Puts the submission ring into the [controller's memory buffer](crate::Controller::cmb). The
    /// controller then fetches commands without a request to the host, and this process stores them across
    /// the bus (flushed before the doorbell, where the stores are write-combined). The completion ring and
    /// the PRP lists stay in the host's memory. Off by default.
    pub fn submission_in_controller(mut self, yes: bool) -> Self {
        self.in_controller = yes;
        self
    }

    /// Sets the priority class of the submission queue; the default is medium. The controller must have been
    /// opened with weighted round robin
    /// ([`ControllerBuilder::arbitration`](crate::ControllerBuilder::arbitration)). It fetches from urgent
    /// queues first, as long as they have commands.
    pub fn priority(mut self, class: QueuePriority) -> Self {
        self.priority = Some(class);
        self
    }

    /// Limits the time that the controller may take for a command; by default a queue has the controller's limit, or none. The time is looked at in
    /// waits, every 50 ms and at their beginning, and by a turn after 1,024 turns without work or some 1,024 completions.
    /// It begins at the first look that finds the command in flight, so it ends late by up to two such intervals, and no
    /// clock is read for a command. [`Turn::limit_last`](crate::Turn::limit_last) sets the limit of one command,
    /// [`ControllerBuilder::command_timeout`](crate::ControllerBuilder::command_timeout) the default of queues.
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.command_timeout = Some(limit);
        self
    }

    /// Sets the reaction to a command that has missed its deadline; [`OnTimeout::Report`] by default.
    pub fn on_timeout(mut self, reaction: OnTimeout) -> Self {
        self.on_timeout = reaction;
        self
    }

    /// Creates the queue pair on the controller, within the controller's timeout: that includes waits for other threads (a reset;
    /// a blocking call, if all queue pairs are taken), the interrupts and the controller's memory, where they are turned on for
    /// it, and both commands. A half of it that was made is then undone, within the deadline of
    /// [`close`](crate::QueuePair::close).
    ///
    /// # Errors
    /// - [`Failure::NoIo`](crate::Failure::NoIo) with the reason why the controller takes no I/O.
    /// - The depth, the vector or the number of queues exceeds the controller's limit; the error names the
    ///   limit.
    /// - A priority was set, but the controller was not opened with weighted round robin.
    /// - [`SglUse::Always`], and the controller takes no SGLs.
    /// - The controller has no memory buffer that takes submission queues, or it is full.
    /// - The heap has no DMA memory left.
    /// - The controller refused a command: its status; or a timeout.
    pub fn create<T>(self) -> Result<QueuePair<T>> {
        let controller = self.controller;
        self.create_limited(&mut controller.limit())
    }

    /// Creates the queue pair like [`create`](Self::create), as a part of a call.
    pub(super) fn create_limited<T>(self, limit: &mut Limit<'_>) -> Result<QueuePair<T>> {
        self.controller.check_owner("creating a queue pair")?;
        self.controller.check_io()?;
        self.controller.free_queue_id(limit);
        let most = self.controller.max_queue_entries();
        let entries = self.depth.unwrap_or(DEPTH.min(most));
        if !(2..=most).contains(&entries) {
            return Err(Error::argument(
                self.controller.name(),
                format!("a queue of {entries} entries: the controller takes 2 to {most}"),
            ));
        }
        let priority = self.checked_priority()?;
        let sgl = self.sgl.unwrap_or(self.controller.sgl_use());
        self.controller.check_sgl(sgl)?;
        let waiter = self.vector.map(|vector| self.controller.waiter(vector, limit)).transpose()?;
        let buffer = match self.in_controller {
            true => Some(self.controller.buffer_for_submission(limit)?),
            false => None,
        };
        let mut queue = create(
            self.controller,
            entries,
            self.vector,
            (self.list_bytes, sgl),
            buffer.as_deref(),
            priority,
            limit,
        )?;
        self.controller.hand_out(queue.qid(), entries);
        if self.command_timeout.is_some() {
            queue.set_timed();
        }
        notice(&mut queue, self.controller);
        let deadlines = Deadlines::new(self.command_timeout, self.on_timeout);
        Ok(QueuePair::new(queue, waiter, (priority, deadlines), self.controller.clone()))
    }

    fn checked_priority(&self) -> Result<QueuePriority> {
        let (Some(class), device) = (self.priority, self.controller.name()) else { return Ok(PRIORITY) };
        if self.controller.is_weighted() && class <= QueuePriority::LOW {
            return Ok(class);
        }
        let reason = if class > QueuePriority::LOW {
            format!("a queue of priority {class}: the classes are 0 (urgent) to 3 (low)")
        } else if self.controller.registers().capabilities().supports_weighted_round_robin() {
            format!("a queue of priority {class}: open the controller with Controller::builder().arbitration")
        } else {
            format!(
                "a queue of priority {class}: the controller has no weighted round robin with urgent priority class \
                 (CAP.AMS bit 0 is 0), so its queues have none"
            )
        };
        Err(Error::argument(device.to_string(), reason))
    }
}
