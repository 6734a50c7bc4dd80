//! A controller: brought up, identified, asked, and stopped again.

mod admin;
mod bringup;
mod class;
mod device_memory;
mod identify;
mod io_refusal;
mod let_go;
mod options;
mod passthrough;
mod policy;
mod queue_ids;
mod queues;
mod quirks;
mod registers;
mod removal;
mod subsystem;
mod transitions;
mod vectors;

pub use crate::error::NoIo;
use crate::{
    Error, Patience, Result,
    engine::{BufferLists, Live, Queue, Retired},
    spec::{Capabilities, CommandSet, IdentifyController, Version},
};
use admin::Admin;
pub(crate) use class::check as check_class;
pub use device_memory::{MemoryBuffer, PersistentMemory};
pub use options::ControllerOptions;
use queue_ids::Ids;
pub(crate) use queue_ids::Step;
pub(crate) use queues::{PRIORITY, create};
pub(crate) use registers::Registers;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use subsystem::Subsystem;
use upcie_core::{
    deadline::Budget,
    device::{Address, Claim, Device},
    dma::{DmaBuf, DmaSpace, Heap, Region},
    gate::{Gate, Pass},
    irq::{EventFd, IrqKind},
};
use vectors::Vectors;

/// An NVMe controller that this process drives.
///
/// Handles made from it (namespaces, queue pairs) keep it open; when the last is dropped, the controller is shut down
/// and disabled, within a deadline. It can be shared between threads.
///
/// ```
/// use upcie_nvme::Controller;
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut buffer = controller.alloc(namespace.block_size())?;
/// buffer.fill(7);
/// namespace.write(0, &mut buffer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Controller {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// Declared before `device`, which holds the memory that this uses: it is freed only once the controller
    /// has stopped (`drop`).
    admin: Gate<Admin>,
    /// The queue pair of the blocking calls, once one was made.
    blocking: Gate<Option<Queue<u64>>>,
    /// Held by a thread that rewrites part of a block.
    edges: Gate<()>,
    retired: Mutex<Vec<Retired>>,
    queue_ids: Mutex<Ids>,
    subsystem: Arc<Subsystem>,
    vectors: Vectors,
    /// Signalled when the kernel wants the device back, where the transport says so.
    wanted_back: Option<EventFd>,
    /// The controller did not answer the deletion of a queue, and has completed no admin command since.
    /// Further deletions don't wait for it.
    silent: AtomicBool,
    /// The memory buffer, or the fact that there is none; filled in by the first call that asks.
    memory_buffer: Gate<Option<Option<Arc<MemoryBuffer>>>>,
    persistent_memory: Gate<Option<Option<Arc<PersistentMemory>>>>,
    heap: Arc<Heap>,
    /// Memory for rings and lists, which no user buffer can reach.
    private: Arc<Heap>,
    live: Arc<Live>,
    registers: Registers,
    identify: Box<IdentifyController>,
    version: Version,
    /// Log2 of CC.MPS in bytes.
    page_shift: u32,
    /// The most bytes that one command may transfer.
    max_transfer: u64,
    /// The most bytes that one Write Zeroes may cover.
    max_zeroes: u64,
    granted: u16,
    command_set: CommandSet,
    /// The most entries of an I/O queue.
    queue_entries: u32,
    /// The reason why the controller takes no I/O, if it takes none.
    no_io: Option<NoIo>,
    options: ControllerOptions,
    name: Arc<str>,
    /// Declared after everything but what unmaps memory: nobody else may have the device before that is done.
    device: Claim,
    /// Declared after everything that unmaps memory by message when it is dropped.
    closing: Option<Budget>,
}

impl Controller {
    /// Brings up the controller behind a device that the caller has opened, and claims the device ([`Claim`])
    /// until the last handle is dropped.
    ///
    /// # Errors
    /// Another driver in this process has the device; it is not an NVMe controller that this driver can use;
    /// or it does not become ready.
    pub fn from_device(device: Arc<dyn Device>, options: ControllerOptions) -> Result<Self> {
        let inner = Arc::new(bringup::bring_up(device, options)?);
        inner.subsystem.join(&inner);
        Ok(Self { inner })
    }

    /// Opens and brings up the controller at `address` in the address space of this one. Buffers of either
    /// controller, including those in their [own memory](Self::memory_buffer), can then be used with both:
    /// peer-to-peer.
    ///
    /// # Errors
    /// The two transports can't share an address space (the error says which can), or an error of
    /// [`open`](Self::open).
    pub fn open_beside<A>(&self, address: A, options: ControllerOptions) -> Result<Self>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let address = address.try_into()?;
        check_class(&address)?;
        self.inner.check_owner("opening another controller beside it")?;
        Self::from_device(self.inner.device.open_beside(&address)?, options)
    }

    /// Returns the controller memory buffer (CMB), mapped and enabled by the first call; `None` if there is
    /// none.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// if let Some(memory) = controller.memory_buffer()? {
    ///     let mut buffer = memory.alloc(4096)?;
    ///     buffer.write_at(0, b"through the controller");
    ///     controller.namespace(1)?.write(0, &mut buffer)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Its registers are inconsistent, it can't be mapped (as
    /// [requested](ControllerOptions::memory_buffer_caching)), or it only works without an IOMMU.
    pub fn memory_buffer(&self) -> Result<Option<Arc<MemoryBuffer>>> {
        self.inner.memory_buffer()
    }

    /// Returns the persistent memory region (PMR), mapped and enabled by the first call; `None` if there is
    /// none. When the controller is stopped, the region stays enabled but loses its device addresses.
    ///
    /// # Errors
    /// An error of [`memory_buffer`](Self::memory_buffer), or the region does not become ready.
    pub fn persistent_memory(&self) -> Result<Option<Arc<PersistentMemory>>> {
        self.inner.persistent_memory()
    }

    /// Returns the controller's address, as errors name it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the Identify Controller data.
    pub fn identify(&self) -> &IdentifyController {
        &self.inner.identify
    }

    /// Returns the capabilities register.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.registers.capabilities()
    }

    /// Returns the version of the specification that the controller implements.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// Returns the size of a memory page in bytes (CC.MPS).
    pub fn page_size(&self) -> usize {
        1 << self.inner.page_shift
    }

    /// Returns the most bytes that one command may transfer: MDTS, or this driver's limit of 32 MiB if that
    /// is less.
    pub fn max_transfer(&self) -> usize {
        self.inner.max_transfer as usize
    }

    /// Returns the number of I/O queue pairs that the controller granted.
    pub fn max_queue_pairs(&self) -> u16 {
        self.inner.granted
    }

    /// Returns the most entries that an I/O queue can have: CAP.MQES + 1, or less on a controller whose
    /// CAP.MQES is known to be wrong. 65536 at most; 1 if no I/O queue can be made.
    pub fn max_depth(&self) -> u32 {
        self.inner.queue_entries
    }

    /// Checks that the controller takes I/O. A controller that takes none still opens, for its registers,
    /// Identify and admin commands; it grants 0 [queue pairs](Self::max_queue_pairs), and refuses the
    /// blocking calls.
    ///
    /// # Errors
    /// [`Error::NoIo`] with the reason.
    pub fn check_io(&self) -> Result<()> {
        self.inner.check_io()
    }

    /// Reads a 32-bit register of the controller at a byte offset into BAR 0.
    ///
    /// # Errors
    /// The offset is out of bounds, or the device reports an error. All-ones is a value here, not an error.
    pub fn register(&self, offset: usize) -> Result<u32> {
        self.inner.registers.peek(offset)
    }

    /// Returns the kind of interrupts that queues can have; `None` if the transport has none, so that all is
    /// polled.
    pub fn irq_kind(&self) -> Option<IrqKind> {
        self.inner.vectors.kind()
    }

    /// Returns the number of interrupts of a kind that the transport has, used or not.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        Ok(self.inner.device.irq_count(kind)?)
    }

    /// Returns the number of vectors that queues can use, of the [kind](Self::irq_kind) in use: at most one
    /// for each queue pair and one for the admin queue; with INTx one in all. The admin queue uses vector 0,
    /// too. The first call enables the vectors.
    ///
    /// # Errors
    /// The device reports an error.
    pub fn vectors(&self) -> Result<u16> {
        self.inner.check_owner("turning interrupts on")?;
        let inner = &self.inner;
        inner.vectors.count(&*inner.device, inner.most_vectors(), inner.options.timeout)
    }

    /// Returns the heap that [`alloc`](Self::alloc) takes from.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.inner.heap
    }

    /// Returns a heap over `region`, memory in the controller's address space (`heap().space()`) that other
    /// processes share or provided ([`upcie_core::share`]). Its buffers are prepared for commands like those
    /// of [`alloc`](Self::alloc); their PRP lists stay in the driver's own memory.
    ///
    /// # Errors
    /// The region is of another address space, or has less than 512 bytes.
    pub fn heap_over(&self, region: Region) -> Result<Arc<Heap>> {
        let lists = BufferLists { page_shift: self.inner.page_shift };
        Ok(Heap::over(region, Some(Box::new(lists)), &self.inner.private)?)
    }

    /// Allocates a buffer of `len` bytes that the controller can reach, zeroed.
    ///
    /// # Errors
    /// No DMA memory is left.
    pub fn alloc(&self, len: usize) -> Result<DmaBuf> {
        Ok(self.inner.heap.alloc_zeroed(len)?)
    }

    /// Keeps `buffer` until the controller is known to use no memory any more (it was stopped or reset, or
    /// its vfio-user server has closed the connection), then frees it. For memory that commands of a queue
    /// use that could not be [closed](crate::QueuePair::close).
    pub fn keep(&self, buffer: DmaBuf) {
        self.inner.keep(Retired(vec![buffer]));
    }

    /// Returns the vectors whose interrupts were found not to arrive.
    #[cfg(test)]
    pub(crate) fn silent_vectors(&self) -> Vec<u16> {
        self.inner.vectors.silent()
    }

    /// Returns the ids of the namespaces that are active on this controller, ascending.
    ///
    /// # Errors
    /// The controller's status, or a timeout.
    pub fn namespaces(&self) -> Result<Vec<u32>> {
        self.inner.active_namespaces()
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn space(&self) -> &Arc<DmaSpace> {
        self.heap.space()
    }

    pub(crate) fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// Returns the heap for rings and lists.
    pub(crate) fn private(&self) -> &Arc<Heap> {
        &self.private
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    pub(crate) fn page_shift(&self) -> u32 {
        self.page_shift
    }

    /// Returns the most entries of an I/O queue.
    pub(crate) fn max_queue_entries(&self) -> u32 {
        self.queue_entries
    }

    pub(crate) fn max_transfer(&self) -> u64 {
        self.max_transfer
    }

    /// Returns the most bytes that one Write Zeroes may cover.
    pub(crate) fn max_zeroes(&self) -> u64 {
        self.max_zeroes
    }

    pub(crate) fn identify(&self) -> &IdentifyController {
        &self.identify
    }

    pub(crate) fn subsystem(&self) -> &Subsystem {
        &self.subsystem
    }

    /// Returns the reason why the controller takes no I/O, if it takes none.
    pub(crate) fn no_io(&self) -> Option<NoIo> {
        self.no_io
    }

    /// Enters the section in which one thread at a time rewrites part of a block, like
    /// [`enter_blocking`](Self::enter_blocking).
    pub(crate) fn enter_edges(
        &self,
        patience: &mut Patience,
        limit: Duration,
        operation: &str,
    ) -> Result<Pass<'_, ()>> {
        self.enter(&self.edges, patience, limit, || operation.into(), "changes of blocks in part")
    }

    /// Returns the time that a command may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Enters the queue pair of the blocking calls for `operation` once the calls of other threads have
    /// ended: within `limit`, as counted by `patience`.
    pub(crate) fn enter_blocking(
        &self,
        patience: &mut Patience,
        limit: Duration,
        operation: &dyn Fn() -> String,
    ) -> Result<Pass<'_, Option<Queue<u64>>>> {
        self.enter(&self.blocking, patience, limit, operation, "calls")
    }

    /// Returns `true` if the controller was brought up with weighted round robin.
    pub(crate) fn is_weighted(&self) -> bool {
        self.options.arbitration.is_some()
    }

    pub(crate) fn is_inherited(&self) -> bool {
        !self.live.owner().is_current()
    }

    /// Refuses `operation` in a forked child. Call it before taking a lock, which a thread that does not
    /// exist in the child may hold, and before anything reaches the device.
    pub(crate) fn check_owner(&self, operation: &str) -> Result<()> {
        self.live.check_owner(&self.name, operation)
    }

    /// Keeps memory until the controller is known to use no memory any more.
    pub(crate) fn keep(&self, retired: Retired) {
        if self.is_inherited() {
            return;
        }
        lock(&self.retired).push(retired);
        self.release_if_let_go();
    }

    /// Waits for a gate that another thread holds, at most `limit` as counted by `patience`, for `operation`;
    /// `whose` says what that thread does.
    fn enter<'g, T>(
        &self,
        gate: &'g Gate<T>,
        patience: &mut Patience,
        limit: Duration,
        operation: impl FnOnce() -> String,
        whose: &str,
    ) -> Result<Pass<'g, T>> {
        let entered = gate.enter(|| limit.saturating_sub(patience.waited()));
        entered.ok_or_else(|| Error::Timeout {
            device: self.name.to_string(),
            operation: format!("{}: waiting for {whose} of other threads", operation()),
            after: limit,
            kept: false,
        })
    }

    /// Returns the vectors wanted: one for each queue.
    fn most_vectors(&self) -> u32 {
        u32::from(self.granted) + 1
    }

    /// Returns the eventfd of an interrupt vector.
    pub(crate) fn vector(&self, vector: u16) -> Result<Arc<EventFd>> {
        self.check_owner("turning interrupts on")?;
        self.vectors.eventfd(&*self.device, self.most_vectors(), self.options.timeout, vector)
    }

    /// Logs, once per vector, that its interrupts don't arrive.
    pub(crate) fn report_silence(&self, vector: u16) {
        self.vectors.report_silence(&self.name, vector);
    }

    /// Asks for the vector's next interrupt, where that is needed.
    pub(crate) fn rearm(&self, vector: u16) -> Result<()> {
        self.check_owner("asking for an interrupt")?;
        self.vectors.rearm(&*self.device, &self.registers, vector)
    }
}

/// Prints the controller's name, which is its address in most cases.
impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
        self.live.stop();
        self.closing = Some(Budget::new(self.stop_patience()));
        // A stopped controller uses no memory, so what the fields own can be freed.
        if let Err(error) = self.stop() {
            tracing::error!(device = %self.name, %error, "the controller did not stop: its memory goes to nobody else");
            self.space().close();
        }
        self.release_device_memory();
        self.unwire_wanted_back();
    }
}

/// Locks `mutex` even if it is poisoned: the data behind these locks is valid at any point.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
