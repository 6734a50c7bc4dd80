//! Blocking transfers with metadata in a buffer of its own, and with protection.

use super::{Namespace, blocking};
use crate::{Result, engine::Io, protection::BlockFormat};
use upcie_core::dma::DmaBuf;

impl Namespace {
    /// Returns the format of the blocks: data, metadata and protection information. All sizes are 0 if this driver can't
    /// address the blocks.
    pub fn format(&self) -> &BlockFormat {
        &self.extent.format
    }

    /// Carries out `io`, a command of this namespace, with all of `buffer`, and waits for it: with its flags and protection.
    /// Longer transfers are split, their reference tags counted on.
    ///
    /// # Errors
    /// Those of [`read`](Self::read). [`Refusal::Metadata`](crate::Refusal::Metadata) if the blocks have metadata apart from
    /// the data, and the controller does not insert and strip it: use [`run_with_metadata`](Self::run_with_metadata).
    /// [`Refusal::Unprotected`](crate::Refusal::Unprotected) if `io` has protection and the namespace has none. The status
    /// of a failed check has a [`protection_field`](crate::spec::Status::protection_field).
    pub fn run(&self, io: Io<'_>, buffer: &mut DmaBuf) -> Result<()> {
        let all = 0..buffer.total_len();
        self.transfer(io, buffer, all)
    }

    /// Carries out `io`, a command of this namespace, with all of `data` and `metadata`, and waits for it. The metadata is
    /// that of the blocks one after the other, in one buffer that is contiguous for the device.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Io};
    /// // Blocks of 512 bytes, and 8 bytes of metadata apart from them.
    /// let controller = Controller::open("emu:size=1M,ms=8")?;
    /// let namespace = controller.namespace(1)?;
    /// let (mut data, mut metadata) = (controller.alloc(4 * 512)?, controller.alloc(4 * 8)?);
    /// metadata.fill(0x5a);
    /// namespace.run_with_metadata(Io::write(&namespace, 0), &mut data, &mut metadata)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and of [`Turn::submit_with_metadata`](crate::Turn::submit_with_metadata). After a
    /// timeout both buffers may be left empty.
    pub fn run_with_metadata(&self, io: Io<'_>, data: &mut DmaBuf, metadata: &mut DmaBuf) -> Result<()> {
        self.check_usable()?;
        let len = data.total_len();
        let command = (io.direction().opcode(), io);
        let what = || self.what(command, len);
        blocking::transfer_with_metadata(&self.controller, command, data, metadata, &what)
    }
}
