//! A block view of a namespace.

mod access;
mod atomic;
mod blocking;
mod bytes;
mod dataset;
mod fused;
mod key_limits;
mod key_value;
mod open;
mod optional;
mod placement;
mod protected;
mod reservations;
mod retries;
mod stream;
#[cfg(test)]
mod tests;
mod vectored;
mod zone_extensions;
mod zone_limits;
mod zones;

pub use atomic::{AtomicUnit, AtomicUnits};
pub use key_value::KeyValue;
pub use placement::Placement;
pub use reservations::Reservations;
pub use stream::Stream;
pub use zones::Zones;

use crate::{
    Controller, Error, IoFlags, Refusal, Result,
    controller::{Inner, Limit},
    engine::{Extent, Io},
    spec::{Csi, IdentifyNamespace, KeyValueNamespace, NvmOpcode, ZonedNamespace},
};
use blocking::refused;
use std::{fmt, ops::Range, sync::Arc};
use upcie_core::dma::DmaBuf;

/// A namespace of a controller: its address for queues, and blocking calls for convenience.
///
/// A handle keeps its controller open. It goes stale when the controller's namespaces change (Format NVM,
/// namespace management, [`Controller::invalidate_namespaces`](crate::Controller::invalidate_namespaces)).
/// Its blocks may have another size or meaning then, so commands through it are refused; get a new handle
/// from [`Controller::namespace`](crate::Controller::namespace).
///
/// ```
/// use upcie_nvme::Controller;
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// println!("{} blocks of {} bytes", namespace.blocks(), namespace.block_size());
///
/// let mut buffer = controller.alloc(4096)?;
/// buffer.fill(7);
/// namespace.write(0, &mut buffer)?;
/// namespace.flush()?;
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
///
/// It can be sent to, and shared between, threads; a clone is the same handle.
// Its methods are in a file for each kind of call.
#[derive(Clone)]
pub struct Namespace {
    extent: Extent,
    controller: Arc<Inner>,
    identify: Arc<IdentifyNamespace>,
    unusable: Option<Arc<str>>,
    command_set: Csi,
    zones: Option<Arc<ZonedNamespace>>,
    keys: Option<Arc<KeyValueNamespace>>,
}

impl Controller {
    /// Returns a handle to a namespace. A namespace that can't be used for I/O has a handle, too, which gives
    /// the [reason](Namespace::check_usable).
    ///
    /// # Errors
    /// There is no such active namespace (the error lists the active ones), the controller's status, or a
    /// timeout of all commands together.
    pub fn namespace(&self, nsid: u32) -> Result<Namespace> {
        self.namespace_limited(nsid, &mut self.inner().limit())
    }

    fn namespace_limited(&self, nsid: u32, limit: &mut Limit<'_>) -> Result<Namespace> {
        Ok(Namespace::new(self.inner().clone(), open::ask(self.inner(), nsid, limit)?))
    }

    /// Returns a handle to each namespace that is active on this controller, in the order of their ids. A namespace that
    /// is detached meanwhile is an error: try again. It takes the controller's timeout and a second for each namespace at most.
    ///
    /// ```
    /// let controller = upcie_nvme::Controller::open("emu:size=1M,namespaces=2")?;
    /// for namespace in controller.namespaces()? {
    ///     println!("{namespace}: {} blocks of {} bytes", namespace.blocks(), namespace.block_size());
    /// }
    /// # assert_eq!(controller.namespaces()?.len(), 2);
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`namespace_ids`](Self::namespace_ids) and [`namespace`](Self::namespace).
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        let mut limit = self.inner().limit();
        let ids = self.inner().active_namespaces(&mut limit)?;
        limit.allow_seconds(ids.len() as u64);
        ids.into_iter().map(|nsid| self.namespace_limited(nsid, &mut limit)).collect()
    }

    /// Flushes all namespaces that are attached to the controller, by one command: every write completed before this call
    /// survives a loss of power.
    ///
    /// ```
    /// let controller = upcie_nvme::Controller::open("emu:size=1M,namespaces=2")?;
    /// controller.flush_all()?;
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::NoIo`](crate::Failure::NoIo) if the controller takes no I/O, [`Failure::Unsupported`](crate::Failure::Unsupported) if
    /// it has no Flush of all namespaces (VWC bits 2:1): flush each of them then. Otherwise those of [`Namespace::flush`].
    pub fn flush_all(&self) -> Result<()> {
        let inner = self.inner();
        inner.check_io()?;
        if self.identify().vwc >> 1 & 3 != 3 {
            let reason = "it does not flush all namespaces by one command (VWC bits 2:1): flush each (`Namespace::flush`)";
            return Err(Error::unsupported(inner.name(), reason));
        }
        blocking::flush_all(inner, &|| format!("{} of all namespaces", NvmOpcode::FLUSH), &mut inner.limit())
    }
}

impl Namespace {
    fn new(controller: Arc<Inner>, known: open::Known) -> Self {
        let open::Known { mut extent, identify, unusable, command_set, zones, keys } = known;
        if unusable.is_some() {
            extent.take_no_io();
        }
        let (unusable, zones, keys) = (unusable.map(Into::into), zones.map(Arc::new), keys.map(Arc::new));
        Self { extent, controller, identify: Arc::new(identify), unusable, command_set, zones, keys }
    }

    /// Returns the namespace's id.
    pub fn nsid(&self) -> u32 {
        self.extent.nsid()
    }

    /// Returns the namespace's command set: [`Csi::NVM`], [`Csi::ZONED`] for a namespace with [zones](Self::zones), or
    /// [`Csi::KEY_VALUE`] for one with [keys](Self::keys).
    pub fn command_set(&self) -> Csi {
        self.command_set
    }

    /// Returns the size in blocks (NSZE).
    pub fn blocks(&self) -> u64 {
        self.extent.blocks()
    }

    /// Returns the size of a block in a data buffer in bytes: with metadata that is at its end ([`format`](Self::format)
    /// has both sizes); 0 if this driver can't address the format's blocks.
    pub fn block_size(&self) -> usize {
        self.extent.block_size()
    }

    /// Returns the most bytes that one command on a queue may transfer; 0 if the namespace is not
    /// [usable](Self::check_usable). The blocking calls split longer transfers.
    pub fn max_transfer(&self) -> usize {
        self.extent.max_transfer()
    }

    /// Returns the most blocks that one Write Zeroes command on a queue may cover; 0 if the namespace is not
    /// [usable](Self::check_usable), or the controller does not have the command.
    pub fn max_write_zeroes(&self) -> u32 {
        self.extent.max_zeroes
    }

    /// Returns `true` if blocks can be [deallocated](Self::deallocate): the controller has Dataset
    /// Management.
    pub fn can_deallocate(&self) -> bool {
        self.extent.deallocates
    }

    /// Returns the Identify Namespace data; zeros for a namespace with [keys](Self::keys), which has no blocks.
    pub fn identify(&self) -> &IdentifyNamespace {
        &self.identify
    }

    /// Checks that this driver can do I/O on the namespace's blocks.
    ///
    /// # Errors
    /// [`Failure::NoIo`](crate::Failure::NoIo) if the controller takes none; [`Failure::Unsupported`](crate::Failure::Unsupported) with the reason: a
    /// command set other than NVM and Zoned Namespace (one with keys has [others calls](Self::keys)), data of blocks outside of 512 bytes to 64 KiB, or a form of protection
    /// information that is not known here.
    pub fn check_usable(&self) -> Result<()> {
        self.controller.check_io()?;
        match &self.unusable {
            None => Ok(()),
            Some(reason) => Err(Error::unsupported(
                self.controller.name(),
                format!("namespace {} can't be used for I/O: {reason}", self.nsid()),
            )),
        }
    }

    /// Reads blocks from `slba` on into all of `buffer`, and waits for it.
    ///
    /// # Errors
    /// The controller's status, a refusal (nothing is sent then), or a timeout: no progress within the controller's timeout, or
    /// no end within that and a second for each MiB. After a timeout the controller may still use the buffer: then `buffer` is
    /// left empty, and the error says so.
    pub fn read(&self, slba: u64, buffer: &mut DmaBuf) -> Result<()> {
        let all = 0..buffer.total_len();
        self.transfer(Io::read(self, slba), buffer, all)
    }

    /// Reads the bytes `part` of all segments of `buffer` from the blocks from `slba` on, with `flags`, and waits for it.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`Refusal::Length`] if the part is not within the buffer.
    pub fn read_with(
        &self,
        slba: u64,
        buffer: &mut DmaBuf,
        part: Range<usize>,
        flags: IoFlags,
    ) -> Result<()> {
        self.transfer(Io::read(self, slba).flags(flags), buffer, part)
    }

    /// Writes all of `buffer` to the blocks from `slba` on, and waits for it.
    ///
    /// More bytes than one command [transfers](Self::max_transfer) are written by several at once. If one of them fails, the error
    /// names the byte from which on it was to write, and the others may have written. To a namespace with [zones](Self::zones) the
    /// commands go one after the other, each within a zone; an error tells how many bytes were written before it.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn write(&self, slba: u64, buffer: &mut DmaBuf) -> Result<()> {
        let all = 0..buffer.total_len();
        self.transfer(Io::write(self, slba), buffer, all)
    }

    /// Writes the bytes `part` of all segments of `buffer` to the blocks from `slba` on, with `flags`, and waits for it.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// use upcie_nvme::IoFlags;
    /// let mut buffer = controller.alloc(8192)?;
    /// buffer.fill(0x5a);
    /// // The second half survives a loss of power once this returns.
    /// namespace.write_with(8, &mut buffer, 4096..8192, IoFlags::FUA)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`read_with`](Self::read_with).
    pub fn write_with(
        &self,
        slba: u64,
        buffer: &mut DmaBuf,
        part: Range<usize>,
        flags: IoFlags,
    ) -> Result<()> {
        self.transfer(Io::write(self, slba).flags(flags), buffer, part)
    }

    /// Flushes: every write completed before this call survives a loss of power.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn flush(&self) -> Result<()> {
        self.flush_limited(&mut self.controller.limit())
    }

    /// Flushes like [`flush`](Self::flush), as a part of a call.
    fn flush_limited(&self, limit: &mut Limit<'_>) -> Result<()> {
        self.check_usable()?;
        let what = || format!("{} of namespace {}", NvmOpcode::FLUSH, self.nsid());
        blocking::flush(&self.controller, &self.extent, &what, limit)
    }

    /// Zeroes `blocks` blocks from `slba` on with Write Zeroes, and waits for it; no data is transferred. It takes no flags:
    /// [`flush`](Self::flush) makes the zeros durable, and [`Zeroes`](crate::Zeroes) has the flags of the command on a queue.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`Refusal::NoCommand`] if the controller does not have Write Zeroes.
    pub fn write_zeroes(&self, slba: u64, blocks: u64) -> Result<()> {
        self.write_zeroes_with(slba, blocks, IoFlags::empty())
    }

    /// Zeroes blocks like [`write_zeroes`](Self::write_zeroes), with `flags`: [`IoFlags::DEALLOCATE`] lets the controller deallocate
    /// them, if they read as zeros afterwards.
    ///
    /// # Errors
    /// Those of [`write_zeroes`](Self::write_zeroes).
    pub fn write_zeroes_with(&self, slba: u64, blocks: u64, flags: IoFlags) -> Result<()> {
        self.check_usable()?;
        let what = || {
            let (opcode, nsid) = (NvmOpcode::WRITE_ZEROES, self.nsid());
            format!("{opcode} to {blocks} blocks from block {slba} on of namespace {nsid}")
        };
        let lacks = (self.extent.max_zeroes == 0).then_some(Refusal::NoCommand);
        if let Some(reason) = lacks.or_else(|| self.extent.misplaced(slba, blocks)) {
            return Err(refused(&self.controller, &what, reason));
        }
        blocking::zeroes(&self.controller, &self.extent, (slba, blocks), flags, &what)
    }

    fn transfer(&self, io: Io<'_>, buffer: &mut DmaBuf, part: Range<usize>) -> Result<()> {
        let mut limit = self.controller.limit_for(part.len() as u64);
        self.transfer_limited(io, buffer, part, &mut limit)
    }

    /// Transfers the bytes `part` of `buffer`, as a part of a call.
    fn transfer_limited(
        &self,
        io: Io<'_>,
        buffer: &mut DmaBuf,
        part: Range<usize>,
        limit: &mut Limit<'_>,
    ) -> Result<()> {
        self.check_usable()?;
        let len = part.end.saturating_sub(part.start);
        let command = (io.direction().opcode(), io);
        blocking::transfer(&self.controller, command, buffer, part, &|| self.what(command, len), limit)
    }

    /// Names a transfer, for messages.
    fn what(&self, (opcode, io): (NvmOpcode, Io<'_>), len: usize) -> String {
        let nsid = self.nsid();
        format!("{opcode} of {len} bytes at block {} of namespace {nsid}", io.slba())
    }
}

impl AsRef<Extent> for Namespace {
    /// Returns the namespace's extent for commands on a queue.
    #[inline(always)]
    fn as_ref(&self) -> &Extent {
        &self.extent
    }
}

/// Prints the controller's name and the namespace id: `0000:01:00.0 namespace 1`.
impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} namespace {}", self.controller.name(), self.nsid())
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
