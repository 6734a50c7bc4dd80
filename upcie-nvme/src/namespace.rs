//! A block view of a namespace.

use crate::{
    Error, Result,
    controller::Inner,
    queue::Refusal,
    spec::{IdentifyNamespace, NvmOpcode},
};
use std::{fmt, sync::Arc};
use upcie_core::dma::DmaBuf;

/// What the submission path reads of a namespace: one copy in each handle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// The stamp of the controller's namespaces when the handle was made; unique among all controllers.
    pub(crate) stamp: u64,
    /// The last block.
    pub(crate) last: u64,
    /// The namespace's id, where it goes in the first 8 bytes of a command.
    pub(crate) nsid_high: u64,
    /// Blocks that one command may transfer, at most as many as the namespace has; 0 when it can't be used for I/O.
    pub(crate) max_blocks: u32,
    /// Log2 of the block size in bytes.
    pub(crate) shift: u32,
    /// The controller's id.
    pub(crate) controller: u64,
}

impl Extent {
    pub(crate) fn nsid(&self) -> u32 {
        (self.nsid_high >> 32) as u32
    }

    /// Blocks of the namespace, if it can be used for I/O at all.
    pub(crate) fn blocks(&self) -> u64 {
        self.last.wrapping_add(1)
    }

    /// Bytes that one command may transfer: whole blocks.
    pub(crate) fn max_bytes(&self) -> usize {
        (self.max_blocks as usize) << self.shift
    }
}

/// A namespace of a controller: what queues need to address it, and blocking calls for convenience.
///
/// A handle keeps its controller open. It goes stale when the controller's namespaces change (Format NVM, namespace
/// management, [`Controller::rescan`](crate::Controller::rescan)): its blocks may mean something else then, so
/// commands through it are refused, and [`Controller::namespace`](crate::Controller::namespace) gives a new one.
#[derive(Clone)]
pub struct Namespace {
    pub(crate) extent: Extent,
    controller: Arc<Inner>,
    identify: Arc<IdentifyNamespace>,
    unusable: Option<Arc<str>>,
}

impl Namespace {
    pub(crate) fn new(
        controller: Arc<Inner>,
        mut extent: Extent,
        identify: IdentifyNamespace,
        unusable: Option<String>,
    ) -> Self {
        if unusable.is_some() {
            extent.max_blocks = 0;
        }
        Self { extent, controller, identify: Arc::new(identify), unusable: unusable.map(Into::into) }
    }

    /// Its id.
    pub fn nsid(&self) -> u32 {
        self.extent.nsid()
    }

    /// Its size in blocks (NSZE).
    pub fn blocks(&self) -> u64 {
        self.extent.blocks()
    }

    /// Bytes of a block; 0 where the format has none that this driver can address.
    pub fn block_size(&self) -> usize {
        if self.extent.shift == 0 { 0 } else { 1 << self.extent.shift }
    }

    /// The most bytes that one command on a queue may transfer; 0 when it is not [usable](Self::usable). The blocking
    /// calls split what is longer.
    pub fn max_transfer(&self) -> usize {
        self.extent.max_bytes()
    }

    /// What the controller says of it.
    pub fn identify(&self) -> &IdentifyNamespace {
        &self.identify
    }

    /// Whether this driver does I/O on it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the reason: metadata, a command set other than NVM, or blocks of a size outside of
    /// 512 bytes to 64 KiB.
    pub fn usable(&self) -> Result<()> {
        match &self.unusable {
            None => Ok(()),
            Some(reason) => Err(Error::Unsupported {
                device: self.controller.name().into(),
                reason: format!("namespace {} can't be used for I/O: {reason}", self.nsid()),
            }),
        }
    }

    /// Reads blocks from `slba` on into all of `buffer`, and waits for it.
    ///
    /// # Errors
    /// The controller's status, a refusal (nothing is sent then), or a timeout. After a timeout the controller may
    /// still own the buffer: then it is left empty, and the error says so.
    pub fn read(&self, slba: u64, buffer: &mut DmaBuf) -> Result<()> {
        self.transfer(NvmOpcode::READ, slba, buffer)
    }

    /// Writes all of `buffer` to the blocks from `slba` on, and waits for it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, slba: u64, buffer: &mut DmaBuf) -> Result<()> {
        self.transfer(NvmOpcode::WRITE, slba, buffer)
    }

    /// Makes what was written last: everything whose write has completed before this call survives a loss of power.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn flush(&self) -> Result<()> {
        self.usable()?;
        self.controller.blocking(&self.extent, NvmOpcode::FLUSH, 0, &mut DmaBuf::empty())
    }

    fn transfer(&self, opcode: NvmOpcode, slba: u64, buffer: &mut DmaBuf) -> Result<()> {
        self.usable()?;
        let refuse = |reason| Error::Refused {
            device: self.controller.name().into(),
            operation: format!(
                "{opcode} of {} bytes at block {slba} of namespace {}",
                buffer.total_len(),
                self.nsid()
            ),
            reason,
        };
        let len = buffer.total_len() as u64;
        let blocks = len >> self.extent.shift;
        if blocks == 0 || blocks << self.extent.shift != len {
            return Err(refuse(Refusal::Length));
        }
        if self.extent.blocks().saturating_sub(slba) < blocks {
            return Err(refuse(Refusal::OutOfRange));
        }
        if buffer
            .segments()
            .any(|segment| segment.transfer().space != self.controller.space().id() && !segment.is_empty())
        {
            return Err(refuse(Refusal::ForeignBuffer));
        }
        if let Some(reason) = self.controller.live().device_memory.refuse(opcode, buffer) {
            return Err(refuse(reason));
        }
        self.controller.blocking(&self.extent, opcode, slba, buffer)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("controller", &self.controller.name())
            .field("extent", &self.extent)
            .field("unusable", &self.unusable)
            .finish_non_exhaustive()
    }
}
