//! The commands of a namespace with zones.

use super::{
    super::{
        HostMemory,
        data::Data,
        io::Io,
        media::Media,
        namespace::Away,
        optional::COPY_RANGES,
        pieces::ZERO_PIECE,
        reservations::is_reservation,
        rest::{Begun, IS_PART, Left, Rest},
    },
    Fields, HAS_RESULT, Zones,
    state::Place,
};
use crate::spec::{
    Command, CopyDword12, CopyRange, NvmOpcode, Status, StatusType, ZoneAction, ZoneReceiveDword13,
    ZoneSendDword13, ZoneState,
};
use std::ops::Range;

/// Zones that a piece of a command looks at, and the bytes that each counts for.
const ZONES_PIECE: u64 = 16 << 10;
const ZONE_BYTES: u64 = 64;
/// Bytes that a zone counts for that a report passes by.
const SEEN_BYTES: u64 = 4;

impl<M: Media> Io<M> {
    /// Ends a command that the path of plain namespaces has refused with `status`: carries it out if its namespace has zones, or
    /// if it is one of reservations.
    /// Returns its status and the bytes that it counts for, as [`Io::execute`] does.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn refused(
        &mut self,
        host: &mut impl HostMemory,
        sq: u16,
        fields: Fields,
        status: Status,
    ) -> (Status, u64) {
        let done = match self.zoned(fields.nsid) {
            _ if status == Status::RESERVATION_CONFLICT
                || status == Status::WRITE_PROTECTED
                || status.code_type() == StatusType::PATH =>
            {
                Err(status)
            }
            // A key value namespace has no reservations (RESCAP is 0).
            _ if is_reservation(fields.opcode)
                && status == Status::INVALID_OPCODE
                && !self.has_keys(fields.nsid) =>
            {
                self.reserve(host, fields)
            }
            _ if fields.opcode == NvmOpcode::CANCEL && status == Status::INVALID_OPCODE => {
                let dwords = [fields.dwords[0], fields.dwords[1]];
                self.check_cancel(sq, fields.cid, fields.nsid, dwords).map(|_| 0)
            }
            Some(index) => self.execute_zoned(host, index, fields),
            None => Err(status),
        };
        match done {
            Ok(bytes) => (Status::SUCCESS, bytes),
            Err(status) => {
                let has_lba = !self.has_keys(fields.nsid)
                    && !matches!(
                        fields.opcode,
                        NvmOpcode::FLUSH
                            | NvmOpcode::DATASET_MANAGEMENT
                            | NvmOpcode::COPY
                            | NvmOpcode::CANCEL
                            | NvmOpcode::IO_MANAGEMENT_RECEIVE
                            | NvmOpcode::IO_MANAGEMENT_SEND
                    )
                    && !is_reservation(fields.opcode);
                let lba = self.failing.take().unwrap_or(if has_lba { fields.slba() } else { 0 });
                let tried = self.tried(fields.opcode, fields.nsid, [fields.dwords[0], fields.dwords[2]]);
                (self.failed(sq, fields.cid, fields.nsid, lba, status), tried)
            }
        }
    }

    /// Returns the index of a namespace that has zones and takes commands.
    pub(in super::super) fn zoned(&self, nsid: u32) -> Option<usize> {
        let index = nsid.wrapping_sub(1) as usize;
        let namespace = self.namespaces.get(index)?;
        (namespace.zoned && namespace.away == Away::Not).then_some(index)
    }

    /// Returns `true` for an active namespace that has zones, whether it takes commands or not.
    pub(in super::super) fn has_zones(&self, nsid: u32) -> bool {
        let namespace = self.namespaces.get(nsid.wrapping_sub(1) as usize);
        namespace.is_some_and(|namespace| namespace.zoned && namespace.is_active())
    }

    /// Makes the zones of namespaces empty whose part of the media is erased.
    pub(in super::super) fn renew_zones(&mut self, start: u64, len: u64) {
        for (zones, namespace) in self.zones.iter_mut().zip(&self.namespaces) {
            let erased = namespace.start >= start && namespace.start < start.saturating_add(len);
            if let Some(zones) = zones.as_mut().filter(|_| erased) {
                *zones = zones.renewed(namespace.capacity, namespace.shift);
            }
        }
    }

    /// Takes dwords 0 and 1 of the completion of the command that was carried out last.
    #[inline(always)]
    pub fn take_result(&mut self) -> u64 {
        std::mem::take(&mut self.result)
    }

    fn zones(&mut self, index: usize) -> Result<&mut Zones, Status> {
        self.zones.get_mut(index).and_then(Option::as_mut).ok_or(Status::INTERNAL_ERROR)
    }

    fn execute_zoned(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        fields: Fields,
    ) -> Result<u64, Status> {
        let (slba, blocks) = (fields.slba(), fields.blocks());
        match fields.opcode {
            NvmOpcode::READ | NvmOpcode::COMPARE | NvmOpcode::VERIFY => {
                self.zones(index)?.check_read(slba, blocks)?;
                self.plainly(host, index, fields)
            }
            NvmOpcode::WRITE | NvmOpcode::WRITE_ZEROES | NvmOpcode::WRITE_UNCORRECTABLE => {
                self.write_zone(host, index, fields, slba, blocks)
            }
            NvmOpcode::ZONE_APPEND => {
                let limit = self.append_limit;
                if blocks << self.shift(index)? > limit {
                    return Err(Status::INVALID_FIELD.with_do_not_retry());
                }
                let place = self.zones(index)?.place_of_append(slba)?;
                let mut fields = Fields { opcode: NvmOpcode::WRITE, ..fields };
                (fields.dwords[0], fields.dwords[1]) = (place as u32, (place >> 32) as u32);
                let (mut bytes, mut before) = (self.write_zone(host, index, fields, place, blocks)?, 0);
                // All pieces at once: appends of other queues would take their places.
                while bytes & IS_PART != 0 {
                    let Rest { command, left, .. } =
                        *self.take_rest(fields.cid).ok_or(Status::INTERNAL_ERROR)?;
                    before += bytes & !IS_PART;
                    bytes = self.next_zoned_piece(host, index, &command, left)?;
                }
                self.result = place;
                Ok((before + bytes) | HAS_RESULT)
            }
            NvmOpcode::COPY => self.copy_to_zone(host, index, fields),
            NvmOpcode::ZONE_MANAGEMENT_SEND => match ZoneSendDword13::from_bits(fields.dwords[3]) {
                dword if dword.action() == ZoneAction::SET_DESCRIPTOR_EXTENSION => {
                    self.set_extension(host, index, fields, dword)
                }
                dword => self.manage_zones(index, fields, dword),
            },
            NvmOpcode::ZONE_MANAGEMENT_RECEIVE => {
                let dword = ZoneReceiveDword13::from_bits(fields.dwords[3]);
                let len = (u64::from(fields.dwords[2]) + 1) * 4;
                if len > self.mdts {
                    return Err(Status::INVALID_FIELD.with_do_not_retry());
                }
                let data = Data::of(fields.flags, fields.pointers, self.sgls)?;
                let (report, seen) = self.zones(index)?.report(slba, len as usize, dword)?;
                if self.media.moves_data() {
                    data.store_padded(host, self.page, report, len)?;
                } else {
                    data.check(self.page, (len, true))?;
                }
                Ok(len + seen * SEEN_BYTES)
            }
            NvmOpcode::FLUSH | NvmOpcode::DATASET_MANAGEMENT => self.plainly(host, index, fields),
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }

    fn shift(&self, index: usize) -> Result<u8, Status> {
        self.namespaces.get(index).map(|namespace| namespace.shift).ok_or(Status::INTERNAL_ERROR)
    }

    /// Carries out a write, if it is at its zone's write pointer, which it moves if it succeeds.
    fn write_zone(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        fields: Fields,
        slba: u64,
        blocks: u64,
    ) -> Result<u64, Status> {
        self.writable()?;
        let moves = fields.opcode == NvmOpcode::WRITE;
        if moves && blocks << self.shift(index)? > self.mdts {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let place = self.zones(index)?.begin_write(slba, blocks)?;
        let bytes = self.plainly(host, index, fields)?;
        self.end_write(index, place, bytes)?;
        Ok(bytes)
    }

    /// Moves the write pointer behind the blocks that are written: all, or those of the first pieces.
    fn end_write(&mut self, index: usize, place: Place, bytes: u64) -> Result<(), Status> {
        let left = match bytes & IS_PART {
            0 => 0,
            _ => self.rest.as_ref().map_or(0, |rest| rest.blocks()),
        };
        self.zones(index)?.written(place.without_last(left));
        Ok(())
    }

    /// Carries out the next piece of a command. Each piece of one that writes is a write of its own: it fails if the write pointer
    /// has moved meanwhile.
    pub(in super::super) fn next_zoned_piece(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        command: &Command,
        left: Left,
    ) -> Result<u64, Status> {
        let written = match &left {
            Left::After(Begun { done, .. }) => match NvmOpcode(command.opcode) {
                NvmOpcode::ZONE_MANAGEMENT_SEND => {
                    self.writable()?;
                    let (next, all) =
                        (*done as usize, ZoneSendDword13::from_bits(command.cdw13).select_all());
                    let end = if all { self.zones(index)?.count() } else { next + 1 };
                    return self.change_zones(index, command, next..end);
                }
                NvmOpcode::WRITE | NvmOpcode::WRITE_ZEROES => Some(*done),
                _ => {
                    let blocks = u64::from(command.block_count()) - done;
                    self.zones(index)?.check_read(command.slba() + done, blocks)?;
                    None
                }
            },
            Left::Copy { ranges, done } => {
                let zones = self.zones(index)?;
                ranges.iter().try_for_each(|&(slba, blocks)| zones.check_read(slba, blocks))?;
                Some(*done)
            }
            _ => None,
        };
        let place = match written {
            Some(done) => {
                let blocks = left.blocks(command);
                Some(self.zones(index)?.begin_write(command.slba() + done, blocks)?)
            }
            None => None,
        };
        let bytes = self.with_blocks(index, |io| io.next_piece(host, command, left))?;
        if let Some(place) = place {
            self.end_write(index, place, bytes)?;
        }
        Ok(bytes)
    }

    /// Carries out a command as on a namespace without zones.
    fn plainly(&mut self, host: &mut impl HostMemory, index: usize, fields: Fields) -> Result<u64, Status> {
        let Fields { opcode, flags, nsid, pointers, dwords, .. } = fields;
        // Blocks in zones have no metadata.
        self.with_blocks(index, |io| {
            io.uncommon(host, (opcode.0, flags), nsid, (pointers, 0), dwords, [0; 4])
        })
    }

    /// Calls `call` while the namespace has its blocks for the commands of plain namespaces.
    fn with_blocks<R>(&mut self, index: usize, call: impl FnOnce(&mut Self) -> R) -> R {
        if let Some(namespace) = self.namespaces.get_mut(index) {
            namespace.blocks = namespace.size();
        }
        let done = call(self);
        if let Some(namespace) = self.namespaces.get_mut(index) {
            namespace.blocks = 0;
        }
        done
    }

    /// Carries out a Copy to a zone's write pointer. The zone is checked for the blocks of the ranges that are copied.
    fn copy_to_zone(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        fields: Fields,
    ) -> Result<u64, Status> {
        let dword = CopyDword12::from_bits(fields.dwords[2]);
        let data = Data::of(fields.flags, fields.pointers, self.sgls)?;
        let mut all = [CopyRange::default(); COPY_RANGES];
        let ranges = self.copy_ranges(host, data, dword, &mut all)?;
        let zones = self.zones(index)?;
        let blocks = ranges.iter().try_fold(0_u64, |total, range| {
            let blocks = u64::from(range.nlb) + 1;
            zones.check_read(range.slba, blocks)?;
            Ok::<_, Status>(total + blocks)
        })?;
        self.writable()?;
        let place = self.zones(index)?.begin_write(fields.slba(), blocks)?;
        let [cdw10, cdw11, cdw12, _] = fields.dwords;
        let command = Command { cdw10, cdw11, cdw12, ..Command::io(fields.opcode, fields.nsid) };
        let bytes = self.with_blocks(index, |io| io.copy_to(&command, ranges))?;
        self.end_write(index, place, bytes)?;
        Ok(bytes)
    }

    /// Sets a zone's descriptor extension. The command's data has the length of one.
    fn set_extension(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        fields: Fields,
        dword: ZoneSendDword13,
    ) -> Result<u64, Status> {
        self.writable()?;
        let zones = self.zones(index)?;
        let (zone, len) = (zones.check_extension(fields.slba(), dword)?, zones.extension_size());
        let data = Data::of(fields.flags, fields.pointers, self.sgls)?;
        let mut extension = vec![0; len];
        if self.media.moves_data() {
            data.fetch(host, self.page, &mut extension)?;
        }
        self.zones(index)?.set_extension(zone, extension);
        Ok(len as u64)
    }

    fn manage_zones(&mut self, index: usize, fields: Fields, dword: ZoneSendDword13) -> Result<u64, Status> {
        if fields.flags & (Command::PSDT | 0x03) != 0 {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        self.writable()?;
        let zones = self.zones(index)?.begin(fields.slba(), dword)?;
        let [cdw10, cdw11, _, cdw13] = fields.dwords;
        let command = Command { cdw10, cdw11, cdw13, ..Command::io(fields.opcode, fields.nsid) };
        self.change_zones(index, &command, zones)
    }

    /// Changes zones as a Zone Management Send says, one after another, as far as a piece reaches. Those of all zones that are not
    /// selected are left out.
    fn change_zones(&mut self, index: usize, command: &Command, named: Range<usize>) -> Result<u64, Status> {
        let dword = ZoneSendDword13::from_bits(command.cdw13);
        let (action, all) = (dword.action(), dword.select_all());
        let namespace = *self.namespaces.get(index).ok_or(Status::INTERNAL_ERROR)?;
        let (mut next, mut seen, mut erased) = (named.start, 0, 0);
        while next < named.end {
            let zones = self.zones(index)?;
            let lost = zones.lost(next, action);
            let blocks =
                lost.as_ref().map_or(0, |lost| (lost.end - lost.start).min(ZERO_PIECE >> namespace.shift));
            let len = blocks << namespace.shift;
            if seen == ZONES_PIECE || erased > 0 && erased + len > ZERO_PIECE {
                return Ok(self.put_off(
                    *command,
                    Left::After((next as u64).into()),
                    erased + seen * ZONE_BYTES,
                ));
            }
            seen += 1;
            if let Some(lost) = lost {
                let offset = namespace.start + (lost.start << namespace.shift);
                self.media.zero(offset, len)?;
                self.written(offset, len);
                self.zones(index)?.note_erased(next, blocks);
                erased += len;
                // The rest of it, or its change, is next.
                continue;
            }
            if !all || zones.is_selected(next, action) {
                zones.change(next, action)?;
            }
            next += 1;
        }
        Ok(erased + seen * ZONE_BYTES)
    }

    /// Makes a zone of a namespace read-only or offline, as a controller does whose medium fails there; returns its first block,
    /// and `None` if nothing has changed.
    pub(in super::super) fn fail_zone(&mut self, nsid: u32, zone: u32, state: ZoneState) -> Option<u64> {
        let index = self.zoned(nsid)?;
        self.zones.get_mut(index)?.as_mut()?.fail(zone as usize, state)
    }
}
