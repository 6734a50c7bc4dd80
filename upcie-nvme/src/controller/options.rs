//! The options of a controller's bring-up.

use crate::spec::Arbitration;
use std::time::Duration;
use upcie_core::{irq::IrqKind, memory::PageSize, mmio::Caching};

/// Options of a controller's bring-up.
#[derive(Debug, Clone)]
pub struct ControllerOptions {
    /// I/O queue pairs to ask for; the controller may grant fewer. 64 by default.
    pub queues: u16,
    /// Pages of DMA memory: `None` (the default) takes 2 MiB pages while some are free and small ones otherwise.
    pub pages: Option<PageSize>,
    /// How long a command of the admin queue, or of the blocking calls, may take, and each answer of a vfio-user server. 30 s
    /// by default; the crate's documentation has a table of all deadlines.
    pub timeout: Duration,
    /// The kind of interrupts: `None` (the default) takes the best that the way in has, MSI-X before MSI before INTx.
    /// One that it does not have is refused.
    pub irq: Option<IrqKind>,
    /// How this process's accesses to the controller's own memory are cached, once it is
    /// [used](crate::Controller::memory_buffer): `None` (the default) combines writes where the way in can, and caches nothing
    /// elsewhere. What the way in can't is refused.
    pub memory_buffer_caching: Option<Caching>,
    /// Weighted round robin with an urgent priority class, with these weights and this burst, so that queue pairs can
    /// have a [priority](crate::queue::QueuePairBuilder::priority): refused where the controller lacks it (CAP.AMS). `None` (the default)
    /// is round robin.
    pub arbitration: Option<Arbitration>,
    /// Takes the device for one that may write to any memory of its at any time, completed commands or not: a vfio-user
    /// server that is not trusted, say. Buffers can then only be copied from and to
    /// ([`DmaBuf::read_at`](upcie_core::dma::DmaBuf::read_at), [`write_at`](upcie_core::dma::DmaBuf::write_at)): deref panics, and
    /// [`DmaBuf::as_slice`](upcie_core::dma::DmaBuf::as_slice) is `None`. What the device writes late is then wrong data, and can't be
    /// undefined behaviour. `false` by default, `vfio-user:` addresses included.
    pub untrusted_device: bool,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            queues: 64,
            pages: None,
            timeout: Duration::from_secs(30),
            irq: None,
            memory_buffer_caching: None,
            arbitration: None,
            untrusted_device: false,
        }
    }
}
