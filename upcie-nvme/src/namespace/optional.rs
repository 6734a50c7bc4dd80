//! Blocking calls of the optional commands of blocks: Compare, Verify, Write Uncorrectable, Copy.

use super::{
    Namespace,
    blocking::{Order, What, refused, run, transfer, transfer_with_metadata},
    retries::Tries,
};
use crate::{
    Controller, IdentifyQuery, Refusal, Result,
    controller::Limit,
    engine::{CopySources, Io, Refused, Turn},
    protection::Protect,
    spec::{CopyRange, IdentifyNvmController, NvmOpcode, OptionalCommands, Status},
};
use upcie_core::dma::DmaBuf;

/// The most blocks that a command names by a number of 16 bits.
const MOST: u64 = 1 << 16;

impl Namespace {
    /// Compares all of `buffer` with the blocks from `slba` on, within the controller, and waits for it. Returns `false` if they
    /// differ. A longer buffer is compared by several commands, between which others may write.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// let mut buffer = controller.alloc(4096)?;
    /// buffer.fill(7);
    /// assert!(!namespace.compare(0, &mut buffer)?, "the blocks are zeros");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`read`](Self::read); [`Refusal::NoCommand`] if the controller does not have Compare, [`Refusal::Metadata`] for
    /// blocks with metadata apart from the data ([`compare_with_metadata`](Self::compare_with_metadata)).
    pub fn compare(&self, slba: u64, buffer: &mut DmaBuf) -> Result<bool> {
        self.compare_with(Io::write(self, slba), buffer)
    }

    /// Compares like [`compare`](Self::compare), with the place, the flags and the protection of `io`, a command of this namespace
    /// whose direction has no meaning. Protection information is checked, and not compared.
    ///
    /// # Errors
    /// Those of [`compare`](Self::compare); [`Refusal::Unprotected`] if `io` has protection and the namespace has none; the status of
    /// a failed check. Controllers refuse the [action](Protect::action).
    pub fn compare_with(&self, io: Io<'_>, buffer: &mut DmaBuf) -> Result<bool> {
        let (command, len) = ((NvmOpcode::COMPARE, io), buffer.total_len());
        self.compared(&|| self.what(command, len), |what| {
            let mut limit = self.controller.limit_for(len as u64);
            transfer(&self.controller, command, buffer, 0..len, what, &mut limit)
        })
    }

    /// Compares like [`compare_with`](Self::compare_with), with metadata apart from the data, of as many blocks.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Io};
    /// // Blocks of 512 bytes, and 8 bytes of metadata apart from them.
    /// let controller = Controller::open("emu:size=1M,ms=8")?;
    /// let namespace = controller.namespace(1)?;
    /// let (mut data, mut metadata) = (controller.alloc(4 * 512)?, controller.alloc(4 * 8)?);
    /// let io = Io::write(&namespace, 0);
    /// assert!(namespace.compare_with_metadata(io, &mut data, &mut metadata)?);
    /// metadata.write_at(31, &[1]);
    /// assert!(!namespace.compare_with_metadata(io, &mut data, &mut metadata)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`compare_with`](Self::compare_with) and of [`run_with_metadata`](Self::run_with_metadata).
    pub fn compare_with_metadata(
        &self,
        io: Io<'_>,
        data: &mut DmaBuf,
        metadata: &mut DmaBuf,
    ) -> Result<bool> {
        let (command, len) = ((NvmOpcode::COMPARE, io), data.total_len());
        self.compared(&|| self.what(command, len), |what| {
            transfer_with_metadata(&self.controller, command, data, metadata, what)
        })
    }

    /// Runs a comparison, if the controller has Compare; returns `false` if it finds a difference.
    fn compared(&self, what: What<'_>, run: impl FnOnce(What<'_>) -> Result<()>) -> Result<bool> {
        self.check_usable()?;
        if !self.extent.optional.contains(OptionalCommands::COMPARE) {
            return Err(refused(&self.controller, what, Refusal::NoCommand));
        }
        match run(what) {
            Ok(()) => Ok(true),
            Err(error) if error.status() == Some(Status::COMPARE_FAILURE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets the controller read `blocks` blocks from `slba` on without a transfer, and check their protection information as
    /// `protect` says, if it is given; waits for it. As many commands are sent as its limit takes (VSL).
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M,ms=8,pi=1")?;
    /// # let namespace = controller.namespace(1)?;
    /// use upcie_nvme::protection::{Checks, Protect};
    /// namespace.verify(0, namespace.blocks(), None)?;
    /// namespace.verify(8, 1, Protect::new().check(Checks::GUARD))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`read`](Self::read), the status of the first block that can't be read or does not pass among them;
    /// [`Refusal::NoCommand`] if the controller does not have Verify, [`Refusal::Unprotected`] for checks of blocks that have
    /// no protection information.
    pub fn verify(&self, slba: u64, blocks: u64, protect: impl Into<Option<Protect>>) -> Result<()> {
        let protect: Option<Protect> = protect.into();
        let format = &self.extent.format;
        let limit = IdentifyNvmController::max_verify;
        let command = (NvmOpcode::VERIFY, OptionalCommands::VERIFY, Order::Any);
        self.name_blocks(command, limit, (slba, blocks), |turn, done, count| match protect {
            None => turn.verify(self, slba + done, count, done),
            Some(protect) => {
                let protect = protect.after(format.protection(), done);
                turn.verify_protected(self, slba + done, count, protect, done)
            }
        })
    }

    /// Makes reads of `blocks` blocks from `slba` on fail until they are written, and waits for it. As many commands are sent as
    /// the controller's limit takes (WUSL); in zones one after the other, each at its zone's write pointer.
    ///
    /// # Errors
    /// Those of [`write`](Self::write); [`Refusal::NoCommand`] if the controller does not have Write Uncorrectable.
    pub fn write_uncorrectable(&self, slba: u64, blocks: u64) -> Result<()> {
        let limit = IdentifyNvmController::max_write_uncorrectable;
        let (opcode, order) = (NvmOpcode::WRITE_UNCORRECTABLE, Order::of_writes(&self.extent));
        let command = (opcode, OptionalCommands::WRITE_UNCORRECTABLE, order);
        self.name_blocks(command, limit, (slba, blocks), |turn, done, count| {
            turn.write_uncorrectable(self, slba + done, count, done * self.block_size() as u64)
        })
    }

    /// Copies the blocks in `ranges` (1 to [`CopyRange::MOST`]), one after the other, to the blocks from `slba` on, within the
    /// controller, and waits for it: by one command, whose limits [`identify`](Self::identify) has (`mssrl`, `mcl`, `msrc`). A range
    /// may name [another namespace](CopyRange::of_namespace) of the controller, if that was opened with
    /// [`copy_between_namespaces`](crate::ControllerBuilder::copy_between_namespaces), and the blocks have the same format.
    ///
    /// ```
    /// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// use upcie_nvme::spec::CopyRange;
    /// namespace.copy(&[CopyRange::new(0, 8), CopyRange::new(64, 8)], 512)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`write`](Self::write); [`Refusal::NoCommand`] if the controller does not have Copy, [`Refusal::Length`] for no
    /// range or too many, [`Refusal::CopyFormat`] for another namespace where that is not turned on, and the controller's status for
    /// ranges beyond its limits or blocks of another format.
    pub fn copy(&self, ranges: &[CopyRange], slba: u64) -> Result<()> {
        self.copy_to(ranges, slba, None)
    }

    /// Copies blocks like [`copy`](Self::copy), to the reclaim unit that `placement` names
    /// ([`Placement::identifier`](crate::Placement::identifier)).
    ///
    /// # Errors
    /// Those of [`copy`](Self::copy).
    pub fn copy_placed(&self, ranges: &[CopyRange], slba: u64, placement: u16) -> Result<()> {
        self.copy_to(ranges, slba, Some(placement))
    }

    fn copy_to(&self, ranges: &[CopyRange], slba: u64, placement: Option<u16>) -> Result<()> {
        self.check_usable()?;
        let (controller, extent, count) = (&self.controller, &self.extent, ranges.len());
        let what = || {
            let (opcode, nsid) = (NvmOpcode::COPY, self.nsid());
            format!("{opcode} of {count} ranges to block {slba} of namespace {nsid}")
        };
        if count > CopyRange::MOST {
            return Err(refused(controller, &what, Refusal::Length));
        }
        let blocks: u64 = ranges.iter().map(|range| u64::from(range.nlb) + 1).sum();
        let mut limit = controller.limit_for(blocks * extent.format.transfer_size() as u64);
        let mut buffer = controller.whole_pages(count * CopySources::SIZE, &mut limit)?;
        let sources = CopySources::plain(extent, ranges, &mut buffer);
        let sources = sources.map_err(|reason| refused(controller, &what, reason))?;
        run(controller, &mut buffer, &what, &mut limit, (Tries::NONE, Order::Any), |turn, held, _| {
            // SAFETY: `held` has the ranges. It outlives the command: `run` gives it back or frees it only when nothing is in
            // flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.copy_sources_held(extent, sources, held, (slba, placement), 0) }.map(|()| false)
        })
        .map(drop)
    }

    /// Sends commands that name `blocks` blocks from `slba` on and move nothing: `send` is given the blocks before each, and
    /// its own.
    fn name_blocks(
        &self,
        (opcode, command, order): (NvmOpcode, OptionalCommands, Order),
        bytes: fn(&IdentifyNvmController, u64) -> Option<u64>,
        (slba, blocks): (u64, u64),
        send: impl Fn(&mut Turn<'_, u64>, u64, u32) -> Result<(), Refused<u64>>,
    ) -> Result<()> {
        self.check_usable()?;
        let (controller, extent) = (&self.controller, &self.extent);
        let what =
            || format!("{opcode} of {blocks} blocks from block {slba} on of namespace {}", self.nsid());
        let lacks = (!extent.optional.contains(command)).then_some(Refusal::NoCommand);
        if let Some(reason) = lacks.or_else(|| extent.misplaced(slba, blocks)) {
            return Err(refused(controller, &what, reason));
        }
        let size = extent.format.transfer_size() as u64;
        let mut limit = controller.limit_for(blocks.saturating_mul(size));
        let most = self.most_named(bytes, &mut limit)?;
        let (mut done, how) = (0, (Tries::NONE, order));
        run(controller, &mut DmaBuf::empty(), &what, &mut limit, how, |turn, _, _| {
            // A command stays within a zone.
            let count = (blocks - done).min(most).min(extent.left_in_zone(slba + done));
            send(turn, done, count as u32)?;
            done += count;
            Ok(done < blocks)
        })
        .map(drop)
    }

    /// Returns the most blocks of a command that has a limit in `bytes`.
    fn most_named(
        &self,
        bytes: fn(&IdentifyNvmController, u64) -> Option<u64>,
        limit: &mut Limit<'_>,
    ) -> Result<u64> {
        let controller = Controller::of(&self.controller);
        let query = IdentifyQuery::default();
        let limits = match controller.identify_limited::<IdentifyNvmController>(&query, limit) {
            Ok(limits) => limits,
            // A controller without these data has no limit.
            Err(error) if error.status().is_some() => return Ok(MOST),
            Err(error) => return Err(error),
        };
        let bytes = bytes(&limits, controller.capabilities().page_size_min());
        let size = self.extent.format.data_size().max(1) as u64;
        Ok(bytes.map_or(MOST, |bytes| (bytes / size).clamp(1, MOST)))
    }
}
