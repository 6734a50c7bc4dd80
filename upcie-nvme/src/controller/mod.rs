//! A controller: brought up, identified, asked, and stopped again.

mod aborts;
mod admin;
mod attach;
mod boot;
mod bringup;
mod cancel;
mod class;
mod commands;
mod device_memory;
mod effects;
mod ending;
mod event;
mod event_queue;
mod events;
mod execute;
mod features;
#[cfg(test)]
mod fork_tests;
mod halt;
mod heed;
mod host_buffer;
mod inner;
mod late;
mod lent;
mod let_go;
mod limit;
mod link;
mod lock;
mod memory;
mod namespace_ids;
mod notice;
mod options;
mod passthrough;
mod pending;
mod permits;
mod policy;
mod properties;
mod queue_ids;
mod queues;
mod quirks;
mod registers;
mod reset;
mod resets;
mod retries;
mod secondary;
mod set_feature;
mod sgl;
mod shared_look;
mod stopping;
mod subsystem;
mod transitions;
mod typed;
mod unwinding;
mod vectors;

pub use crate::error::NoIo;
use crate::{
    Result,
    engine::{BufferLists, Retired},
    spec::{Capabilities, IdentifyController, Version},
};
use admin::Admin;
pub use boot::BootPartitions;
pub(crate) use class::check as check_class;
use device_memory::DeviceMemory;
pub use device_memory::{Cmb, Pmr};
pub use event::Event;
pub use events::Events;
use inner::Calls;
pub(crate) use inner::Inner;
pub(crate) use limit::Limit;
use link::Link;
pub(crate) use lock::lock;
use memory::HostMemory;
pub(crate) use namespace_ids::IDS;
use notice::Notice;
pub use options::ControllerBuilder;
pub(crate) use permits::Permit;
use properties::Properties;
use queue_ids::QueueIds;
pub(crate) use queues::{PRIORITY, create};
pub(crate) use registers::Registers;
pub(crate) use resets::Shape;
pub use set_feature::FeatureUpdate;
use std::{fmt, os::fd::BorrowedFd, sync::Arc};
pub use stopping::ResetKind;
use subsystem::Subsystem;
pub use typed::{FeatureQuery, IdentifyQuery, LogQuery};
use upcie_core::{
    dma::{DmaBuf, Heap, Region},
    irq::IrqKind,
};
use vectors::Vectors;

/// An NVMe controller that this process drives.
///
/// Handles made from it (namespaces, queue pairs) keep it open; when the last is dropped, the controller is shut down
/// and disabled, within a deadline. It can be sent to, and shared between, threads (`Send`, `Sync`); a clone is the
/// same controller.
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
// Its methods are in several files, beside the part that they are about: passthrough, events, subsystem; and, in
// modules above this one, the makers of namespaces and queue pairs.
#[derive(Debug, Clone)]
pub struct Controller {
    inner: Arc<Inner>,
}

impl Controller {
    /// Returns the controller memory buffer (CMB), mapped and enabled by the first call; `None` if there is
    /// none.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M,cmb=1M")?;
    /// if let Some(memory) = controller.cmb()? {
    ///     let mut buffer = memory.alloc(4096)?;
    ///     buffer.write_at(0, b"through the controller");
    ///     controller.namespace(1)?.write(0, &mut buffer)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Its registers are inconsistent, it can't be mapped (as
    /// [requested](ControllerBuilder::cmb_caching)), or it only works without an IOMMU.
    pub fn cmb(&self) -> Result<Option<Arc<Cmb>>> {
        self.inner.device_memory.buffer(self.inner.owner(), &mut self.inner.limit())
    }

    /// Returns the persistent memory region (PMR), mapped and enabled by the first call; `None` if there is
    /// none. When the controller is stopped, the region stays enabled but loses its device addresses.
    ///
    /// # Errors
    /// An error of [`cmb`](Self::cmb), or the region does not become ready.
    pub fn pmr(&self) -> Result<Option<Arc<Pmr>>> {
        self.inner.device_memory.persistent(self.inner.owner(), &self.inner.limit())
    }

    /// Returns the controller's address, as errors name it.
    pub fn name(&self) -> &str {
        &self.inner.link.name
    }

    /// Returns the Identify Controller data.
    pub fn identify(&self) -> &IdentifyController {
        &self.inner.properties.identify
    }

    /// Returns the capabilities register, as it was at the opening or after the last [reset](Self::reset).
    pub fn capabilities(&self) -> Capabilities {
        self.inner.link.registers.capabilities()
    }

    /// Returns the version of the specification that the controller implements.
    pub fn version(&self) -> Version {
        self.inner.properties.version
    }

    /// Returns the size of a memory page in bytes (CC.MPS).
    pub fn page_size(&self) -> usize {
        1 << self.inner.properties.page_shift
    }

    /// Returns the most bytes that one command may transfer: MDTS, or this driver's limit of 32 MiB if that
    /// is less.
    pub fn max_transfer(&self) -> usize {
        self.inner.properties.max_transfer as usize
    }

    /// Returns the number of I/O queue pairs that the controller granted.
    pub fn max_queue_pairs(&self) -> u16 {
        self.inner.properties.granted
    }

    /// Returns the most entries that an I/O queue can have: CAP.MQES + 1, or less on a controller whose CAP.MQES is
    /// known to be wrong. 65536 at most; 1 if no I/O queue can be made. A [reset](Self::reset) may lower it.
    pub fn max_depth(&self) -> u32 {
        self.inner.max_queue_entries()
    }

    /// Checks that the controller takes I/O. A controller that takes none still opens, for its registers,
    /// Identify and admin commands; it grants 0 [queue pairs](Self::max_queue_pairs), and refuses the
    /// blocking calls.
    ///
    /// # Errors
    /// [`Failure::NoIo`](crate::Failure::NoIo) with the reason.
    pub fn check_io(&self) -> Result<()> {
        self.inner.check_io()
    }

    /// Reads a 32-bit register of the controller at a byte offset into BAR 0.
    ///
    /// # Errors
    /// The offset is out of bounds, or the device reports an error. All-ones is a value here, not an error.
    pub fn register(&self, offset: usize) -> Result<u32> {
        self.inner.link.registers.peek(offset)
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
        self.inner.check_owner("counting interrupts")?;
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
        inner.vectors.count(&*inner.device, inner.properties.most_vectors(), &mut inner.limit())
    }

    /// Returns the heap that [`alloc`](Self::alloc) takes from.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.inner.memory.heap
    }

    /// Returns a heap over `region`, memory in the controller's address space (`heap().space()`) that other
    /// processes share or provided ([`upcie_core::share`]). Its buffers are prepared for commands like those
    /// of [`alloc`](Self::alloc); their PRP lists stay in the driver's own memory.
    ///
    /// # Errors
    /// The region is of another address space, or has less than 512 bytes.
    pub fn heap_over(&self, region: Region) -> Result<Arc<Heap>> {
        let lists = BufferLists { page_shift: self.inner.properties.page_shift };
        Ok(Heap::over(region, Some(Box::new(lists)), &self.inner.memory.private)?)
    }

    /// Allocates a buffer of `len` bytes that the controller can reach, zeroed.
    ///
    /// # Errors
    /// No DMA memory is left.
    pub fn alloc(&self, len: usize) -> Result<DmaBuf> {
        Ok(self.inner.memory.heap.alloc(len)?)
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
    /// - [`Failure::Protocol`](crate::Failure::Protocol) for a list that is not ascending, or has more ids than the
    ///   controller supports (NN) or 2^20.
    /// - The controller's status, or a timeout of the whole list.
    pub fn namespace_ids(&self) -> Result<Vec<u32>> {
        self.inner.active_namespaces(&mut self.inner.limit())
    }

    /// Returns the ids of the namespaces that exist in the NVM subsystem, ascending, attached to this controller or
    /// not: Identify with CNS 10h, which controllers with namespace management (OACS bit 3) have.
    ///
    /// # Errors
    /// Those of [`namespace_ids`](Self::namespace_ids).
    pub fn allocated_namespace_ids(&self) -> Result<Vec<u32>> {
        self.inner.allocated_namespaces(&mut self.inner.limit())
    }

    /// Returns a handle to the controller of a namespace.
    pub(crate) fn of(inner: &Arc<Inner>) -> Self {
        Self { inner: inner.clone() }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Invalidates every [`Namespace`](crate::Namespace) that was made before. Call it after another host, or a raw
    /// command, changed one. Does nothing in a forked child, which can use none.
    pub fn invalidate_namespaces(&self) {
        self.inner.link.live.restamp();
    }

    /// Returns whether the device is wanted back: the kernel removes it or unbinds its driver, or its vfio-user server
    /// ends. Over VFIO and vfio-user the device goes on working, and the kernel or the server waits, until every handle
    /// of this controller is dropped. Over `uio:` and `sysfs:` the kernel does not ask: the device is taken already,
    /// which is noticed within some 100 ms, and the drop leaves its registers alone.
    ///
    /// Asks the kernel each time: not for each I/O. See VFIO_PCI_REQ_IRQ_INDEX in the kernel's `linux/vfio.h`.
    pub fn is_wanted_back(&self) -> bool {
        self.inner.removal.is_given()
    }

    /// Returns a descriptor that becomes readable, and stays so, once the device is wanted back
    /// ([`is_wanted_back`](Self::is_wanted_back)); `None` where the transport never asks: `emu`, and vfio-user servers
    /// without that interrupt. Wait for it by poll(2) beside other events.
    pub fn wanted_back_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.removal.fd()
    }

    /// Says who wants the device back and why, for a message once it [is](Self::is_wanted_back).
    pub fn wanted_back_reason(&self) -> String {
        let name = self.name();
        match name.split_once(':').map(|(scheme, _)| scheme) {
            Some("vfio-user") => format!("its server wants {name} back (it is being stopped)"),
            Some("uio" | "sysfs") => {
                format!("the kernel has taken {name} (a removal, or another driver)")
            }
            _ => format!("the kernel wants {name} back (a removal, or an unbinding)"),
        }
    }
}

/// Prints the controller's name, which is its address in most cases.
impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
