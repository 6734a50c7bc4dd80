//! Options of opening a controller.

use crate::{engine::SglUse, spec::Arbitration};
use std::{sync::Arc, time::Duration};
use upcie_core::{
    clock::{Clock, SharedClock},
    irq::IrqKind,
    memory::PageSize,
    mmio::Caching,
};

/// Describes how to bring a controller up; [`open`](Self::open), [`from_device`](Self::from_device) or
/// [`open_beside`](Self::open_beside) does it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upcie_nvme::Controller;
///
/// let controller = Controller::builder().queues(2).timeout(Duration::from_secs(5)).open("emu:size=1M")?;
/// assert_eq!(controller.max_queue_pairs(), 2);
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use = "nothing is opened before `open`"]
pub struct ControllerBuilder {
    pub(crate) queues: u16,
    pub(crate) pages: Option<PageSize>,
    pub(crate) timeout: Duration,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) irq: Option<IrqKind>,
    pub(crate) cmb_caching: Option<Caching>,
    pub(crate) arbitration: Option<Arbitration>,
    pub(crate) untrusted_device: bool,
    pub(crate) retries: u32,
    pub(crate) sgl: SglUse,
    pub(crate) copies_between: bool,
    pub(crate) clock: SharedClock,
}

impl ControllerBuilder {
    /// Sets the number of I/O queue pairs to request; the controller may grant fewer. 64 by default.
    pub fn queues(mut self, count: u16) -> Self {
        self.queues = count;
        self
    }

    /// Sets the pages of DMA memory: 2 MiB pages while some are free and small ones otherwise by default (`None`); small ones also
    /// where a vfio-user server refuses huge ones, or [is not trusted](Self::untrusted_device).
    pub fn pages(mut self, size: impl Into<Option<PageSize>>) -> Self {
        self.pages = size.into();
        self
    }

    /// Limits the time of each call that waits for the controller, whatever number of commands it sends (a call that moves data
    /// has a second more for each MiB), and of each answer of a vfio-user server. 30 s by default; the crate's documentation has
    /// a table of all deadlines.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Limits the time of each command on queue pairs that set no limit of their own
    /// ([`QueuePairBuilder::command_timeout`](crate::queue::QueuePairBuilder::command_timeout)); by default there is none. The
    /// blocking calls have the [`timeout`](Self::timeout).
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.command_timeout = Some(limit);
        self
    }

    /// Sets the kind of interrupts. By default (`None`) it is the best that the transport has: MSI-X before MSI before INTx.
    /// Opening fails if the device lacks the kind.
    pub fn irq(mut self, kind: impl Into<Option<IrqKind>>) -> Self {
        self.irq = kind.into();
        self
    }

    /// Sets the caching of this process's accesses to the controller's own memory, once it is
    /// [used](crate::Controller::cmb). By default (`None`) writes are combined if the transport can, and nothing is cached
    /// otherwise. The first use fails if the transport lacks the caching.
    pub fn cmb_caching(mut self, caching: impl Into<Option<Caching>>) -> Self {
        self.cmb_caching = caching.into();
        self
    }

    /// Selects weighted round robin with an urgent priority class, with these weights and this burst, so that queue pairs can
    /// have a [priority](crate::queue::QueuePairBuilder::priority). Opening fails if the controller lacks it (CAP.AMS). Round
    /// robin by default (`None`).
    pub fn arbitration(mut self, weights: impl Into<Option<Arbitration>>) -> Self {
        self.arbitration = weights.into();
        self
    }

    /// Treats the device as one that may write to its memory at any time, also after it has completed a command: a vfio-user
    /// server that is not trusted, for example. Buffers can then only be copied from and to
    /// ([`DmaBuf::read_at`](upcie_core::dma::DmaBuf::read_at), [`write_at`](upcie_core::dma::DmaBuf::write_at)), and
    /// [`DmaBuf::as_slice`](upcie_core::dma::DmaBuf::as_slice) is `None`. A late write of the device is then wrong data,
    /// and can't be undefined behaviour.
    ///
    /// DMA memory is then in small pages where the device gets its files, as a vfio-user server does: it could take huge pages of
    /// them back, and the next access would end this process (SIGBUS) while no huge page is free. Huge pages that
    /// [`pages`](Self::pages) asks for, and memory that the program maps itself, are not guarded against that.
    ///
    /// `false` by default, also for `vfio-user:` addresses. An `emu:` device whose fault plan writes data after a completion is treated
    /// so in any case.
    pub fn untrusted_device(mut self, yes: bool) -> Self {
        self.untrusted_device = yes;
        self
    }

    /// Sends a command of a blocking read ([`Namespace::read`](crate::Namespace::read), [`Stream`](crate::Stream)) or flush
    /// again when the controller fails it without "do not retry" (DNR): each command up to `most` times, after the delay that
    /// the status names (CRD, CRDT1 to CRDT3 of Identify), all within the call's one deadline. A delay that ends after the
    /// deadline is not waited for: the call returns the status. The controller reports delays because this turns them on
    /// (feature Host Behavior Support, ACRE). The same holds for Identify, Get Log Page and Get Features in
    /// [`Controller::namespace`](crate::Controller::namespace), [`log`](crate::Controller::log) and their like, not for
    /// [`admin`](crate::Controller::admin) and raw commands.
    ///
    /// Writes, Write Zeroes and deallocations are never sent again, because another writer may have changed the blocks since;
    /// [`Error::is_retryable`](crate::Error::is_retryable) tells whether the program may. 0 by default.
    ///
    /// ```
    /// use upcie_nvme::Controller;
    /// let controller = Controller::builder().retries(3).open("emu:size=1M")?;
    /// controller.namespace(1)?.flush()?;
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    pub fn retries(mut self, most: u32) -> Self {
        self.retries = most;
        self
    }

    /// Sets the use of scatter gather lists (SGLs) by the blocking calls, and by queue pairs that do not set their own
    /// ([`QueuePairBuilder::sgl`](crate::queue::QueuePairBuilder::sgl)): where PRPs do not do by default, and for
    /// data of more than 33 pages on a controller that is known to take no more PRPs. Opening fails with
    /// [`SglUse::Always`] if the controller takes none.
    pub fn sgl(mut self, usage: SglUse) -> Self {
        self.sgl = usage;
        self
    }

    /// Lets a Copy take blocks of other namespaces of the controller
    /// ([`CopyRange::of_namespace`](crate::spec::CopyRange::of_namespace)), where the controller has source ranges of formats 2 and 3
    /// (CDFS): tells it so when it is opened and reset (feature Host Behavior Support, CDFE). Without them such a Copy is refused ([`Refusal::CopyFormat`](crate::Refusal::CopyFormat)). `false` by
    /// default.
    ///
    /// ```
    /// use upcie_nvme::{Controller, spec::CopyRange};
    ///
    /// let builder = Controller::builder().copy_between_namespaces(true);
    /// let controller = builder.open("emu:size=1M,namespaces=2")?;
    /// let (from, to) = (controller.namespace(1)?, controller.namespace(2)?);
    /// from.write_at(0, &[7; 4096])?;
    /// to.copy(&[CopyRange::new(0, 8).of_namespace(from.nsid())], 64)?;
    /// let mut bytes = [0; 4096];
    /// to.read_at(64 * 512, &mut bytes)?;
    /// assert_eq!(bytes, [7; 4096]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn copy_between_namespaces(mut self, yes: bool) -> Self {
        self.copies_between = yes;
        self
    }

    /// Sets the clock by which the controller is waited for, in bring-up, commands, waits for completions and shutdown: a
    /// test or a simulation can own the time. The system's by default. Two things keep the system's time: the answers of a
    /// vfio-user server, which is another process, and the wait of one thread for the call of another.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = SharedClock::new(clock);
        self
    }
}

impl Default for ControllerBuilder {
    fn default() -> Self {
        Self {
            queues: 64,
            pages: None,
            timeout: Duration::from_secs(30),
            command_timeout: None,
            irq: None,
            cmb_caching: None,
            arbitration: None,
            untrusted_device: false,
            retries: 0,
            sgl: SglUse::default(),
            copies_between: false,
            clock: SharedClock::default(),
        }
    }
}
