//! A controller behind its handles: its parts, and its end.

use super::{
    Admin, Cmb, DeviceMemory, HostMemory, Limit, Link, Notice, Properties, QueueIds, Registers, Subsystem,
    Vectors,
    device_memory::{self, Owner},
    effects::Effects,
    features::Features,
    late::Affected,
    lent::HostBuffer,
    permits::Aborts,
    resets::{Resets, Shapes},
    shared_look::SharedLook,
    stopping,
    transitions::{shutdown_patience, stop, stop_patience},
    unwinding::OnUnwind,
};
use crate::{
    NoIo, Result,
    engine::{Live, Queue, Retired},
    spec::IdentifyController,
    wait::Waiter,
};
use std::{fmt, sync::Arc, time::Duration};
use upcie_core::{
    deadline::Budget,
    device::Claim,
    dma::{DmaSpace, Heap},
    gate::{Gate, Pass},
};

/// A controller that is up: parts with fields and invariants of their own, in the order in which they are dropped. Its
/// methods are those that need several parts, in files by subject: `commands` (admin commands), `queues` (queue pairs),
/// `let_go` (the end of a controller), `reset`, and others.
pub(crate) struct Inner {
    /// Before the device: what it holds is given back only once the controller has stopped (`drop`).
    pub(super) admin: Admin,
    pub(super) calls: Calls,
    pub(super) queue_ids: QueueIds,
    pub(super) resets: Resets,
    pub(super) aborts: Aborts,
    pub(super) features: Features,
    pub(super) effects: Effects,
    pub(super) shapes: Shapes,
    pub(super) subsystem: Arc<Subsystem>,
    pub(super) vectors: Vectors,
    /// The device is wanted back.
    pub(super) removal: Notice,
    /// The device has failed (AER).
    pub(super) pci_error: Notice,
    /// The looks for such an error by calls that end at once.
    pub(super) pci_look: SharedLook,
    pub(super) device_memory: DeviceMemory,
    pub(super) host_buffer: HostBuffer,
    pub(super) memory: HostMemory,
    pub(super) properties: Properties,
    pub(super) link: Link,
    /// After all else of the driver but what unmaps memory: nobody else is given the device before.
    pub(super) device: Claim,
    /// After all that unmaps memory by message when it is dropped.
    pub(super) closing: Option<Budget>,
}

/// The gates of the blocking calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The calls' own queue pair, once there was a call.
    pub(super) queue: Gate<Option<Queue<u64>>>,
    /// For one thread at a time that changes blocks in part.
    pub(super) edges: Gate<()>,
    /// For one thread at a time that reads a boot partition.
    pub(super) boot: Gate<()>,
}

impl Inner {
    pub(crate) fn name(&self) -> &str {
        &self.link.name
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.link.name
    }

    /// Returns the parts with which memory in the controller is enabled.
    pub(super) fn owner(&self) -> Owner<'_> {
        Owner {
            device: &*self.device,
            link: &self.link,
            granted: self.properties.granted,
            page_shift: self.properties.page_shift,
            private: &self.memory.private,
        }
    }

    /// Returns the parts that a late answer on the admin queue changes.
    pub(super) fn affected(&self) -> Affected<'_> {
        Affected { name: &self.link.name, queue_ids: &self.queue_ids, subsystem: &self.subsystem }
    }

    pub(crate) fn space(&self) -> &Arc<DmaSpace> {
        self.memory.heap.space()
    }

    pub(crate) fn heap(&self) -> &Arc<Heap> {
        &self.memory.heap
    }

    /// Returns the heap for rings and lists.
    pub(crate) fn private(&self) -> &Arc<Heap> {
        &self.memory.private
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.link.live
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.link.registers
    }

    pub(crate) fn page_shift(&self) -> u32 {
        self.properties.page_shift
    }

    /// Returns the most entries of an I/O queue.
    pub(crate) fn max_queue_entries(&self) -> u32 {
        let registers = &self.link.registers;
        registers.quirks().most_entries(registers.capabilities()).min(self.properties.queue_entries)
    }

    pub(crate) fn max_transfer(&self) -> u64 {
        self.properties.max_transfer
    }

    /// Returns the bytes of the controller's smallest memory page: the unit of its limits.
    pub(crate) fn page_size_min(&self) -> u64 {
        self.link.registers.capabilities().page_size_min()
    }

    /// Returns the most bytes that one Write Zeroes may cover.
    pub(crate) fn max_zeroes(&self) -> u64 {
        self.properties.max_zeroes
    }

    pub(crate) fn identify(&self) -> &IdentifyController {
        &self.properties.identify
    }

    pub(crate) fn subsystem(&self) -> &Subsystem {
        &self.subsystem
    }

    /// Returns the reason why the controller takes no I/O, if it takes none.
    pub(crate) fn no_io(&self) -> Option<NoIo> {
        self.properties.no_io
    }

    /// Enters the section in which one thread at a time rewrites part of a block, like
    /// [`enter_blocking`](Self::enter_blocking).
    pub(crate) fn enter_edges(
        &self,
        limit: &Limit<'_>,
        operation: &dyn Fn() -> String,
    ) -> Result<Pass<'_, ()>> {
        self.link.enter(&self.calls.edges, limit, operation, "partial block writes")
    }

    /// Enters the section in which one thread at a time reads a boot partition, like
    /// [`enter_edges`](Self::enter_edges).
    pub(super) fn enter_boot_reads(&self, limit: &Limit<'_>, operation: &str) -> Result<Pass<'_, ()>> {
        self.link.enter(&self.calls.boot, limit, || operation.into(), "reads of boot partitions")
    }

    /// Returns the time that a call may take, beside that for its data.
    pub(crate) fn timeout(&self) -> Duration {
        self.link.options.timeout
    }

    /// Returns the default limit of commands on queues.
    pub(crate) fn command_timeout(&self) -> Option<Duration> {
        self.link.options.command_timeout
    }

    /// Starts the deadline of a call: the controller's timeout.
    pub(crate) fn limit(&self) -> Limit<'_> {
        self.limit_of(self.timeout())
    }

    /// Starts a deadline of `time`.
    pub(crate) fn limit_of(&self, time: Duration) -> Limit<'_> {
        Limit::new(self.clock(), time)
    }

    /// Starts the deadline of a call that moves so many bytes of data: the controller's timeout, and a second for each MiB.
    pub(crate) fn limit_for(&self, bytes: u64) -> Limit<'_> {
        let mut limit = self.limit();
        limit.allow_bytes(bytes);
        limit
    }

    /// Enters the queue pair of the blocking calls for `operation` once the calls of other threads have
    /// ended, within `limit`.
    pub(crate) fn enter_blocking(
        &self,
        limit: &Limit<'_>,
        operation: &dyn Fn() -> String,
    ) -> Result<Pass<'_, Option<Queue<u64>>>> {
        self.link.enter(&self.calls.queue, limit, operation, "calls")
    }

    /// Returns `true` if the controller was brought up with weighted round robin.
    pub(crate) fn is_weighted(&self) -> bool {
        self.link.options.arbitration.is_some()
    }

    /// Returns [`Failure::NoIo`](crate::Failure::NoIo) if the controller takes no I/O.
    pub(crate) fn check_io(&self) -> Result<()> {
        self.properties.check_io(&self.link.name)
    }

    /// Returns the memory buffer for a submission queue whose PRP lists are in the host's memory.
    pub(crate) fn buffer_for_submission(&self, limit: &mut Limit<'_>) -> Result<Arc<Cmb>> {
        self.device_memory.for_submission(self.owner(), limit)
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.link.is_inherited()
    }

    /// Refuses a call like [`check_owner`](Self::check_owner), and makes its text for an error alone.
    pub(crate) fn check_owner_of(&self, call: &dyn Fn() -> String) -> Result<()> {
        if self.is_inherited() { self.check_owner(&call()) } else { Ok(()) }
    }

    /// Refuses `operation` in a forked child. Call it before taking a lock, which a thread that does not
    /// exist in the child may hold, and before anything reaches the device.
    pub(crate) fn check_owner(&self, operation: &str) -> Result<()> {
        self.link.check_owner(operation)
    }

    /// Keeps memory until the controller is known to use no memory any more.
    pub(crate) fn keep(&self, retired: Retired) {
        if self.is_inherited() {
            return;
        }
        self.memory.retire(retired);
        self.release_if_let_go();
    }

    /// Returns what waits for interrupts of a vector.
    pub(crate) fn waiter(&self, vector: u16, limit: &mut Limit<'_>) -> Result<Waiter> {
        self.check_owner("turning interrupts on")?;
        let most = self.properties.most_vectors();
        let interrupt = self.vectors.eventfd(&*self.device, most, limit, vector)?;
        Waiter::new(vector, interrupt, self.vectors.wake.clone(), self.clock())
    }

    /// Stops the controller, unless it is another driver's by now.
    fn stop(&mut self) -> Result<()> {
        let shutdown = shutdown_patience(&self.link.registers, self.properties.identify.rtd3e);
        self.closing = Some(Budget::new(stop_patience(&self.link.registers, shutdown)));
        self.device.check_held()?;
        let registers = &self.link.registers;
        let stopped = stopping::or_reset(&self.device, registers, stop(registers, &self.link.name, shutdown));
        device_memory::release(&self.link);
        stopped
    }

    /// Logs, once per vector, that its interrupts don't arrive.
    pub(crate) fn report_silence(&self, vector: u16) {
        self.vectors.report_silence(&self.link.name, vector);
    }

    /// Asks for the vector's next interrupt, where that is needed.
    pub(crate) fn rearm(&self, vector: u16) -> Result<()> {
        self.check_owner("asking for an interrupt")?;
        self.vectors.rearm(&*self.device, &self.link.registers, vector)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.is_inherited() {
            // A forked child: the controller is the parent's.
            return;
        }
        self.link.live.end();
        let (name, space) = (self.link.name.clone(), self.space().clone());
        let unwinding = OnUnwind::new(|| space.close());
        let stopped = self.stop();
        unwinding.end();
        // A stopped controller uses no memory, so what the fields own can be freed.
        if let Err(error) = stopped {
            // First: a subscriber of the log may allocate memory, or panic.
            space.close();
            tracing::error!(device = %name, %error, "the controller did not stop: its memory is not used again");
        }
        self.removal.disconnect(&*self.device);
        self.pci_error.disconnect(&*self.device);
    }
}
