//! Commands of the zoned command set that a turn submits: Zone Management Send and Receive; Zone Append is in `append`.

use super::{Extent, Refusal, Refused, Turn, common::first_words, prp::DataPointer};
use crate::spec::{NvmOpcode, ZoneAction, ZoneFilter, ZoneReceiveDword13, ZoneReportHeader, ZoneSendDword13};
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// The zones that a command changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ZoneSelect {
    /// The zone that begins with this block.
    At(u64),
    /// All zones that the change applies to.
    All,
}

impl<T> Turn<'_, T> {
    /// Submits a Zone Management Send without data: opens, closes, finishes, resets or takes offline a zone, or all zones that
    /// the action applies to. [`ZoneAction::RESET`] loses the zone's data. With `random_writes`, [`ZoneAction::OPEN`] also gives
    /// an empty zone a random write area. [`ZoneAction::FLUSH_RANDOM_WRITE_AREA`] takes the last block to commit for the zone.
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::NotZoned`], [`Refusal::ZoneStart`],
    /// [`Refusal::OutOfRange`], or [`Refusal::Length`] for an action that sends data
    /// ([`set_zone_extension`](Self::set_zone_extension)).
    pub fn manage_zones(
        &mut self,
        namespace: &impl AsRef<Extent>,
        action: ZoneAction,
        zones: ZoneSelect,
        random_writes: bool,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let slba = match (action, zones) {
            (ZoneAction::SET_DESCRIPTOR_EXTENSION, _) => Err(Refusal::Length),
            // Any block of a zone.
            (ZoneAction::FLUSH_RANDOM_WRITE_AREA, ZoneSelect::At(block)) => {
                let inside = self.zone_of(extent, ZoneSelect::At(block - block % extent.zones.blocks.max(1)));
                inside.and(extent.misplaced(block, 1).map_or(Ok(block), Err))
            }
            _ => self.zone_of(extent, zones),
        };
        match slba {
            Ok(slba) => {
                let dword = ZoneSendDword13::new()
                    .with_action(action)
                    .with_select_all(zones == ZoneSelect::All)
                    .with_allocate_random_write_area(random_writes);
                let first = first_words(NvmOpcode::ZONE_MANAGEMENT_SEND, extent);
                let words = [first, 0, 0, 0, 0, slba, u64::from(dword.into_bits()) << 32, 0];
                self.push(words, DmaBuf::empty(), tag, 0);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
        }
    }

    /// Submits a Zone Management Send that sets the descriptor extension of the empty zone that begins with block `zone` to all
    /// of `buffer`: as many bytes as an extension has. The zone is closed then.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reasons are those of
    /// [`set_zone_extension_held`](Self::set_zone_extension_held).
    pub fn set_zone_extension(
        &mut self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.extension_of(namespace.as_ref(), zone, &buffer, 0..buffer.total_len());
        self.push_owned(made, buffer, tag)
    }

    /// Submits a Zone Management Send that sets the descriptor extension of the empty zone that begins with block `zone` to the
    /// bytes `part` of `held`, which stays with the caller: as many as an extension has. The zone is closed then.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::NotZoned`], [`Refusal::ZoneStart`],
    /// [`Refusal::OutOfRange`], [`Refusal::Length`] for another number of bytes, or if zones have no extensions, or
    /// [`Refusal::TooLong`] for an extension that is longer than a transfer.
    pub unsafe fn set_zone_extension_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.extension_of(namespace.as_ref(), zone, held, part);
        self.push_held(made, tag)
    }

    /// Submits a Zone Management Receive: fills all of `buffer` with a partial report of the zones that match `filter`, from the
    /// zone of block `slba` on, as many as fit ([`ZoneDescriptor::list`](crate::spec::ZoneDescriptor::list)).
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait};
    /// use upcie_nvme::spec::{ZoneDescriptor, ZoneFilter};
    ///
    /// let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K")?;
    /// let namespace = controller.namespace(1)?;
    /// let mut queue = controller.queue_pair().create::<u64>()?;
    /// queue.turn()?.report_zones(&namespace, 0, ZoneFilter::EMPTY, controller.alloc(4096)?, 0)?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// let (_, result, report) = queue.turn()?.next().unwrap().into_parts();
    /// result?;
    /// let zones = ZoneDescriptor::list(&report.to_vec(), 0);
    /// assert_eq!((zones.len(), zones[3].0.start), (16, 3 * 128));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NotZoned`], [`Refusal::OutOfRange`],
    /// or [`Refusal::Length`] for a buffer that holds no header, ends within a dword, or is longer than a transfer.
    pub fn report_zones(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let (extent, all) = (namespace.as_ref(), 0..buffer.total_len());
        let made = self.report_of(extent, slba, ZoneReceiveDword13::REPORT, filter, (&buffer, all));
        self.push_owned(made, buffer, tag)
    }

    /// Submits a Zone Management Receive: fills the bytes `part` of `held`, which stays with the caller, with a partial report
    /// of the zones that match `filter`, from the zone of block `slba` on: a [`ZoneReportHeader`], then
    /// [`ZoneDescriptor`](crate::spec::ZoneDescriptor)s.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::NotZoned`], [`Refusal::OutOfRange`], or
    /// [`Refusal::Length`] for a part that holds no header or ends within a dword.
    pub unsafe fn report_zones_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let made = self.report_of(extent, slba, ZoneReceiveDword13::REPORT, filter, (held, part));
        self.push_held(made, tag)
    }

    /// Submits a report like [`report_zones`](Self::report_zones), in which each descriptor is followed by its zone's descriptor
    /// extension.
    ///
    /// # Errors
    /// Those of [`report_zones`](Self::report_zones); the reason is [`Refusal::Length`], too, if zones have no extensions.
    pub fn report_extended(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let (extent, all) = (namespace.as_ref(), 0..buffer.total_len());
        let made = self.report_of(extent, slba, ZoneReceiveDword13::EXTENDED_REPORT, filter, (&buffer, all));
        self.push_owned(made, buffer, tag)
    }

    /// Submits a report like [`report_zones_held`](Self::report_zones_held), in which each descriptor is followed by its zone's
    /// descriptor extension.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`report_zones_held`](Self::report_zones_held); the reason is [`Refusal::Length`], too, if zones have no
    /// extensions.
    pub unsafe fn report_extended_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        filter: ZoneFilter,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let made = self.report_of(extent, slba, ZoneReceiveDword13::EXTENDED_REPORT, filter, (held, part));
        self.push_held(made, tag)
    }

    /// Makes the words of a Set Zone Descriptor Extension with the bytes `part` of `held`, and their data pointer.
    fn extension_of(
        &mut self,
        extent: &Extent,
        zone: u64,
        held: &DmaBuf,
        part: Range<usize>,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        let len = part.end.wrapping_sub(part.start);
        let zone = self.zone_of(extent, ZoneSelect::At(zone))?;
        if len == 0 || len != extent.zones.extension as usize {
            return Err(Refusal::Length);
        }
        if len > extent.max_transfer() {
            return Err(Refusal::TooLong);
        }
        let dword = ZoneSendDword13::new().with_action(ZoneAction::SET_DESCRIPTOR_EXTENSION);
        let first = first_words(NvmOpcode::ZONE_MANAGEMENT_SEND, extent);
        let words = [first, 0, 0, 0, 0, zone, u64::from(dword.into_bits()) << 32, 0];
        Ok((words, self.pointer(NvmOpcode::ZONE_MANAGEMENT_SEND, held, part.start, len)?))
    }

    /// Makes the words of a Zone Management Receive of the kind `action`, which fills the bytes of a range, and their data
    /// pointer.
    fn report_of(
        &mut self,
        extent: &Extent,
        slba: u64,
        action: u8,
        filter: ZoneFilter,
        (held, part): (&DmaBuf, Range<usize>),
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        let len = part.end.wrapping_sub(part.start);
        self.zone_of(extent, ZoneSelect::All)?;
        if action == ZoneReceiveDword13::EXTENDED_REPORT && extent.zones.extension == 0 {
            return Err(Refusal::Length);
        }
        if let Some(reason) = extent.misplaced(slba, 1) {
            return Err(reason);
        }
        if len < size_of::<ZoneReportHeader>() || len % 4 != 0 || len > extent.max_transfer() {
            return Err(Refusal::Length);
        }
        let dword = ZoneReceiveDword13::new().with_action(action).with_filter(filter).with_partial(true);
        let last = (len / 4 - 1) as u64 | u64::from(dword.into_bits()) << 32;
        let words = [first_words(NvmOpcode::ZONE_MANAGEMENT_RECEIVE, extent), 0, 0, 0, 0, slba, last, 0];
        Ok((words, self.pointer(NvmOpcode::ZONE_MANAGEMENT_RECEIVE, held, part.start, len)?))
    }

    /// Returns the block that names the zones in a command, or the reason why the command can't be sent.
    pub(super) fn zone_of(&self, extent: &Extent, zones: ZoneSelect) -> Result<u64, Refusal> {
        self.check_namespace(extent)?;
        match zones {
            _ if !extent.is_zoned() => Err(Refusal::NotZoned),
            ZoneSelect::All => Ok(0),
            ZoneSelect::At(zone) if extent.misplaced(zone, 1).is_some() => Err(Refusal::OutOfRange),
            ZoneSelect::At(zone) if zone % extent.zones.blocks != 0 => Err(Refusal::ZoneStart),
            ZoneSelect::At(zone) => Ok(zone),
        }
    }
}
