//! The zones of a namespace: their geometry, reports, changes of their states, and appends.

use super::{
    Namespace,
    blocking::{Order, What, run},
    retries::Tries,
};
use crate::{
    Error, Result,
    controller::Limit,
    engine::{Io, ZoneSelect},
    spec::{NvmOpcode, ZoneAction, ZoneDescriptor, ZoneFilter, ZoneReportHeader, ZonedNamespace},
};
use upcie_core::dma::DmaBuf;

/// Descriptors of a zone that one command asks for, at most.
const PIECE: usize = 1023;
const DESCRIPTOR: usize = size_of::<ZoneDescriptor>();
const HEADER: usize = size_of::<ZoneReportHeader>();

/// The zones of a namespace of the zoned command set (ZNS): parts of one size that are written from their first block
/// on, in order, and reset as a whole.
///
/// [`Namespace::write`] writes at a zone's write pointer alone; [`append`](Self::append), and
/// [`Turn::append`](crate::Turn::append) for several at once, leave the place to the controller.
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, ZoneSelect, spec::ZoneState};
///
/// let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K")?;
/// let zones = controller.namespace(1)?.zones()?;
/// let first = zones.start_of(2);
/// let mut buffer = controller.alloc(4096)?;
/// assert_eq!(zones.append(first, &mut buffer)?, first);
/// let zone = zones.report(first, 1)?[0];
/// assert_eq!((zone.state(), zone.written()), (ZoneState::IMPLICITLY_OPENED, Some(8)));
/// zones.reset(ZoneSelect::At(first))?;
/// assert_eq!(zones.report(first, 1)?[0].state(), ZoneState::EMPTY);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Zones {
    pub(super) namespace: Namespace,
}

/// A zone of a report, and the bytes of its descriptor extension.
pub(super) type Reported = (ZoneDescriptor, Vec<u8>);

impl Namespace {
    /// Returns the namespace's zones.
    ///
    /// # Errors
    /// The namespace is not [usable](Self::check_usable), or has no zones.
    pub fn zones(&self) -> Result<Zones> {
        self.check_usable()?;
        if self.zones.is_none() {
            let reason =
                format!("namespace {} has no zones: its command set is {}", self.nsid(), self.command_set);
            return Err(Error::unsupported(self.controller.name(), reason));
        }
        Ok(Zones { namespace: self.clone() })
    }
}

impl Zones {
    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the Identify data of the zones.
    pub fn identify(&self) -> &ZonedNamespace {
        self.namespace.zones.as_ref().expect("checked when this was made")
    }

    /// Returns the number of zones.
    pub fn count(&self) -> u64 {
        self.namespace.blocks() / self.zone_blocks()
    }

    /// Returns the blocks from the start of a zone to that of the next (ZSZE). The capacity, which can be written, may
    /// be less; it may differ from zone to zone, and is in their [reports](Self::report).
    pub fn zone_blocks(&self) -> u64 {
        // Not 0: such a namespace is not usable.
        self.namespace.extent.zones.blocks.max(1)
    }

    /// Returns the first block of the zone with a number, counted from 0. The block is beyond the namespace for a
    /// number that is not below [`count`](Self::count).
    pub fn start_of(&self, number: u64) -> u64 {
        number.saturating_mul(self.zone_blocks())
    }

    /// Returns the first block of the zone that has a block.
    pub fn zone_of(&self, block: u64) -> u64 {
        block - block % self.zone_blocks()
    }

    /// Returns the most bytes that one append may write (ZASL, MDTS), a whole number of blocks.
    pub fn max_append(&self) -> usize {
        (self.namespace.extent.zones.append as usize) << self.namespace.extent.shift
    }

    /// Returns the most zones that can be open at a time; `None` if there is no limit (MOR).
    pub fn max_open(&self) -> Option<u32> {
        self.identify().max_open_resources.checked_add(1)
    }

    /// Returns the most zones that can be active (open or closed) at a time; `None` if there is no limit (MAR).
    pub fn max_active(&self) -> Option<u32> {
        self.identify().max_active_resources.checked_add(1)
    }

    /// Returns the blocks of a zone's random write area, from the write pointer on (ZRWASZ); 0 if zones can't have one.
    pub fn random_write_area(&self) -> u64 {
        let has = self.identify().optional_commands & 1 << 1 != 0;
        if has { self.identify().random_write_area_size.into() } else { 0 }
    }

    /// Reports at most `most` zones, from the one that has block `first` on, in the order of their blocks. It takes the
    /// controller's timeout and a second for each MiB of descriptors (16384 zones) at most, and each command the
    /// timeout.
    ///
    /// # Errors
    /// Those of [`Namespace::read`]; [`Failure::Protocol`](crate::Failure::Protocol) for a report that contradicts
    /// itself.
    pub fn report(&self, first: u64, most: usize) -> Result<Vec<ZoneDescriptor>> {
        self.report_some(ZoneFilter::ALL, first, most)
    }

    /// Reports zones like [`report`](Self::report), only those that `filter` names.
    ///
    /// # Errors
    /// Those of [`report`](Self::report).
    pub fn report_some(&self, filter: ZoneFilter, first: u64, most: usize) -> Result<Vec<ZoneDescriptor>> {
        Ok(self.list(filter, first, most, 0)?.into_iter().map(|(zone, _)| zone).collect())
    }

    /// Lists zones, each with its descriptor extension of `extension` bytes.
    pub(super) fn list(
        &self,
        filter: ZoneFilter,
        first: u64,
        most: usize,
        extension: usize,
    ) -> Result<Vec<Reported>> {
        let namespace = &self.namespace;
        namespace.check_usable()?;
        let what = || {
            format!(
                "{} from block {first} on of namespace {}",
                NvmOpcode::ZONE_MANAGEMENT_RECEIVE,
                self.nsid()
            )
        };
        let lie = |reason| Error::protocol(namespace.controller.name(), what(), reason);
        let piece = PIECE.min((namespace.extent.max_transfer() - HEADER) / (DESCRIPTOR + extension));
        if piece == 0 {
            let reason = format!("one transfer has no room for a zone's extension of {extension} bytes");
            return Err(Error::unsupported(namespace.controller.name(), reason));
        }
        let mut zones: Vec<Reported> = Vec::new();
        let mut next = self.zone_of(first);
        let behind = namespace.blocks().saturating_sub(next) / self.zone_blocks();
        let bytes = behind.min(most as u64).saturating_mul((DESCRIPTOR + extension) as u64);
        let mut limit = namespace.controller.limit_for(bytes);
        while zones.len() < most && (zones.is_empty() || next < namespace.blocks()) {
            let wanted = piece.min(most - zones.len());
            let found = self.report_piece(filter, next, (wanted, extension), &what, &mut limit)?;
            if found.is_empty() {
                break;
            }
            next = follow(&found, next, self.zone_blocks(), namespace.blocks())
                .ok_or_else(|| lie("the zones are not in the order of their blocks"))?;
            zones.extend(found);
        }
        Ok(zones)
    }

    /// Reads one piece of a report.
    fn report_piece(
        &self,
        filter: ZoneFilter,
        first: u64,
        (most, extension): (usize, usize),
        what: What<'_>,
        limit: &mut Limit<'_>,
    ) -> Result<Vec<Reported>> {
        let (controller, extent) = (&self.namespace.controller, &self.namespace.extent);
        let len = HEADER + most * (DESCRIPTOR + extension);
        let mut buffer = controller.whole_pages(len, limit)?;
        let how = (Tries::of(controller), Order::Any);
        run(controller, &mut buffer, what, limit, how, |turn, held, _| {
            let sent = match extension {
                // SAFETY: the part is inside of `held`. It outlives the command: `run` gives it back or frees it only
                // when nothing is in flight, or once the queue has been deleted, and leaks it otherwise.
                0 => unsafe { turn.report_zones_held(extent, first, filter, held, 0..len, 0) },
                // SAFETY: the part is inside of `held`, which outlives the command: `run` frees it only when nothing is
                // in flight, or once the queue has been deleted.
                _ => unsafe { turn.report_extended_held(extent, first, filter, held, 0..len, 0) },
            };
            sent.map(|()| false)
        })?;
        let mut bytes = vec![0; len];
        buffer.read_at(0, &mut bytes);
        Ok(ZoneDescriptor::list(&bytes, extension))
    }

    /// Opens a zone, or all closed ones: it stays open until it is closed, finished, full or reset.
    ///
    /// # Errors
    /// Those of [`Namespace::read`]: [`Status::TOO_MANY_OPEN_ZONES`](crate::spec::Status::TOO_MANY_OPEN_ZONES),
    /// [`Status::TOO_MANY_ACTIVE_ZONES`](crate::spec::Status::TOO_MANY_ACTIVE_ZONES), or
    /// [`Status::ZONE_INVALID_TRANSITION`](crate::spec::Status::ZONE_INVALID_TRANSITION) if the zone's state does not
    /// allow it.
    pub fn open(&self, zones: ZoneSelect) -> Result<()> {
        self.manage(ZoneAction::OPEN, zones, false)
    }

    /// Opens an empty zone with a random write area (ZRWA): the blocks from the write pointer on,
    /// [`random_write_area`](Self::random_write_area) of them, can be written in any order and again, until a write
    /// beyond them or [`flush_random_writes`](Self::flush_random_writes) moves the write pointer.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Status::NO_RANDOM_WRITE_AREA`](crate::spec::Status::NO_RANDOM_WRITE_AREA).
    pub fn open_for_random_writes(&self, zone: u64) -> Result<()> {
        self.manage(ZoneAction::OPEN, ZoneSelect::At(zone), true)
    }

    /// Commits the random write area of a zone up to and with block `last`: the write pointer is behind it then.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Status::INVALID_FIELD`](crate::spec::Status::INVALID_FIELD) if the blocks are
    /// no multiple of the granularity (ZRWAFG).
    pub fn flush_random_writes(&self, last: u64) -> Result<()> {
        self.manage(ZoneAction::FLUSH_RANDOM_WRITE_AREA, ZoneSelect::At(last), false)
    }

    /// Closes an open zone, or all: it can be written again, and counts as active only.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn close(&self, zones: ZoneSelect) -> Result<()> {
        self.manage(ZoneAction::CLOSE, zones, false)
    }

    /// Finishes a zone, or all active ones: it is full, and takes no more data until it is reset.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn finish(&self, zones: ZoneSelect) -> Result<()> {
        self.manage(ZoneAction::FINISH, zones, false)
    }

    /// Resets a zone, or all that are active or full: it is empty, and its data is lost.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn reset(&self, zones: ZoneSelect) -> Result<()> {
        self.manage(ZoneAction::RESET, zones, false)
    }

    /// Takes a read-only zone, or all, offline: its data is lost for good.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn offline(&self, zones: ZoneSelect) -> Result<()> {
        self.manage(ZoneAction::OFFLINE, zones, false)
    }

    /// Appends all of `buffer` to the zone that begins with block `zone`, waits for it, and returns the first block
    /// that was written. After an error that is not the controller's status the data may have been appended: it is not
    /// sent again.
    ///
    /// # Errors
    /// Those of [`Namespace::write`]; a refusal as of [`Turn::append`](crate::Turn::append), when nothing is sent;
    /// [`Failure::Protocol`](crate::Failure::Protocol) if the controller names a block that is not in the zone.
    pub fn append(&self, zone: u64, buffer: &mut DmaBuf) -> Result<u64> {
        self.append_with(Io::write(&self.namespace, zone), buffer)
    }

    /// Appends like [`append`](Self::append), with the flags, the directive and the protection of `io`, a write of this
    /// namespace whose block is the first one of the zone ([`Turn::append_with`](crate::Turn::append_with)).
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    pub fn append_with(&self, io: Io<'_>, buffer: &mut DmaBuf) -> Result<u64> {
        let namespace = &self.namespace;
        namespace.check_usable()?;
        let (controller, zone, len) = (&namespace.controller, io.slba(), buffer.total_len());
        let what = || {
            format!(
                "{} of {len} bytes to the zone of block {zone} of namespace {}",
                NvmOpcode::ZONE_APPEND,
                self.nsid()
            )
        };
        let (how, mut limit) = ((Tries::NONE, Order::Any), controller.limit_for(len as u64));
        let block = run(controller, buffer, &what, &mut limit, how, |turn, held, _| {
            // SAFETY: `held` is `buffer`. It outlives the command: `run` gives it back or frees it only when nothing is
            // in flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.append_held_with(io, held, 0..len, 0) }.map(|()| false)
        })?;
        let end = zone.saturating_add(self.zone_blocks());
        if !(zone..end).contains(&block) {
            let reason = format!("it names block {block}, which is not in the zone");
            return Err(Error::protocol(controller.name(), what(), reason));
        }
        Ok(block)
    }

    fn manage(&self, action: ZoneAction, zones: ZoneSelect, random_writes: bool) -> Result<()> {
        let (controller, extent) = (&self.namespace.controller, &self.namespace.extent);
        self.namespace.check_usable()?;
        let what = || {
            let which = match zones {
                ZoneSelect::All => "all zones".into(),
                ZoneSelect::At(block) => format!("block {block}"),
            };
            format!("{} of {which} of namespace {}", action.name().unwrap_or("a zone command"), self.nsid())
        };
        let (how, mut limit) = ((Tries::NONE, Order::Any), controller.limit());
        run(controller, &mut DmaBuf::empty(), &what, &mut limit, how, |turn, _, _| {
            turn.manage_zones(extent, action, zones, random_writes, 0).map(|()| false)
        })
        .map(drop)
    }

    pub(super) fn nsid(&self) -> u32 {
        self.namespace.nsid()
    }
}

/// Returns the block behind the zones of a report that begins with block `next`, of a namespace of `blocks` blocks in
/// zones of `size`; `None` if they are not in the order of their blocks.
fn follow(zones: &[Reported], next: u64, size: u64, blocks: u64) -> Option<u64> {
    zones.iter().try_fold(next, |next, (zone, _)| {
        let good = zone.start >= next && zone.start < blocks && zone.start % size == 0;
        good.then(|| zone.start.saturating_add(size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn zones(starts: &[u64]) -> Vec<Reported> {
        let zone = |&start: &u64| (ZoneDescriptor { start, ..FromZeros::new_zeroed() }, Vec::new());
        starts.iter().map(zone).collect()
    }

    #[test]
    fn a_report_that_goes_back_or_beyond_is_refused() {
        assert_eq!(follow(&zones(&[8, 16, 40]), 8, 8, 64), Some(48));
        assert_eq!(follow(&[], 8, 8, 64), Some(8));
        for wrong in [&[0][..], &[8, 8], &[16, 8], &[9], &[64], &[u64::MAX]] {
            assert_eq!(follow(&zones(wrong), 8, 8, 64), None, "{wrong:?}");
        }
    }
}
