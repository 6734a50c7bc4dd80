//! Blocking transfers of several buffers.

use super::Namespace;
use crate::{Error, Refusal, Result, engine::Io, error::SegmentFault};
use upcie_core::dma::DmaBuf;

impl Namespace {
    /// Reads blocks from `slba` on into all `buffers`, in their order, and waits for it. Each may have any length (together
    /// whole blocks) and begin anywhere in its memory: parts of buffers ([`DmaBuf::slice`], [`DmaBuf::split_at`]), for
    /// example. PRPs describe what begins and ends with pages; other data takes a controller with scatter gather lists.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// let (header, _) = controller.alloc(4096)?.split_at(24);
    /// let body = controller.alloc(5096)?;
    /// let mut buffers = [header, body];
    /// namespace.read_vectored(8, &mut buffers)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`read`](Self::read); after a timeout all buffers may be left empty. [`Refusal::Segment`] names the buffer
    /// that can't be part of the transfer (of chains among the buffers, the segments are counted): nothing is sent then.
    pub fn read_vectored(&self, slba: u64, buffers: &mut [DmaBuf]) -> Result<()> {
        self.transfer_all(Io::read(self, slba), buffers)
    }

    /// Writes all `buffers`, in their order, to the blocks from `slba` on, and waits for it. Otherwise like
    /// [`read_vectored`](Self::read_vectored).
    ///
    /// # Errors
    /// Those of [`read_vectored`](Self::read_vectored).
    pub fn write_vectored(&self, slba: u64, buffers: &mut [DmaBuf]) -> Result<()> {
        self.transfer_all(Io::write(self, slba), buffers)
    }

    fn transfer_all(&self, io: Io<'_>, buffers: &mut [DmaBuf]) -> Result<()> {
        self.check_usable()?;
        let total = buffers.iter().map(DmaBuf::total_len).sum();
        if let Some(number) = buffers.iter().position(DmaBuf::is_empty) {
            let reason = Refusal::Segment { number: number as u32, fault: SegmentFault::Length };
            return Err(Error::refused(
                self.controller.name(),
                self.what((io.direction().opcode(), io), total),
                reason,
            ));
        }
        let counts: Vec<usize> = buffers.iter().map(|buffer| buffer.segments().count()).collect();
        let mut chain = DmaBuf::gather(buffers.iter_mut().map(std::mem::take));
        let result = self.transfer(io, &mut chain, 0..total);
        // The controller may have kept all of them.
        let mut segments = chain.into_segments().into_iter();
        for (buffer, count) in buffers.iter_mut().zip(counts) {
            *buffer = DmaBuf::gather(segments.by_ref().take(count));
        }
        result
    }
}
