//! Commands off the common path: carried out in pieces, fused, with scatter gather lists, or on namespaces with metadata,
//! keys, zones or reservations.

use super::{
    HostMemory,
    data::Data,
    flipped::FlippedMemory,
    fused::{FUSE, IS_FUSED},
    io::Io,
    media::Media,
};
use crate::spec::{Command, NvmOpcode, Status};

impl<M: Media> Io<M> {
    /// Carries out a command of the submission queue `sq`, or the next piece of a read or write: `piece` bytes after the
    /// first `moved`. Returns the bytes moved so far if there are more. `flip` is a random number: the position
    /// of a bit of the data to flip.
    ///
    /// # Errors
    /// The status with which the command completes.
    pub fn carry_out(
        &mut self,
        host: &mut impl HostMemory,
        sq: u16,
        command: Command,
        (moved, piece): (u64, u64),
        flip: Option<u64>,
    ) -> Result<Option<u64>, Status> {
        let moves = matches!(NvmOpcode(command.opcode), NvmOpcode::READ | NvmOpcode::WRITE);
        self.check_command(NvmOpcode(command.opcode), command.nsid)
            .map_err(|status| self.failed(sq, command.cid, command.nsid, command.slba(), status))?;
        if self.any_metadata && command.flags & FUSE == 0 && self.has_metadata(&command) {
            return match self.with_metadata(host, &command, flip) {
                Ok(_) => {
                    self.place(&command, 0);
                    Ok(None)
                }
                Err(status) => {
                    let lba = self.failing.take().unwrap_or(command.slba());
                    Err(self.failed(sq, command.cid, command.nsid, lba, status))
                }
            };
        }
        if let Some(index) = self.keyed(command.nsid).filter(|_| command.flags & FUSE == 0) {
            return match self.execute_keys(host, index, &command, flip) {
                Ok(_) => Ok(None),
                Err(status) => Err(self.failed(sq, command.cid, command.nsid, 0, status)),
            };
        }
        let whole = command.flags & FUSE != 0 || self.zoned(command.nsid).is_some();
        if !moves || whole || !self.media.moves_data() {
            let (status, _) = self.execute(host, sq, command);
            return if status.is_success() { Ok(None) } else { Err(status) };
        }
        let done = self.transfer(host, command, (moved, piece), flip);
        if let Ok(None) = done {
            self.place(&command, 0);
        }
        done.map_err(|status| self.failed(sq, command.cid, command.nsid, command.slba(), status))
    }

    /// Moves a piece of the data of a read or write.
    fn transfer(
        &mut self,
        host: &mut impl HostMemory,
        command: Command,
        (moved, piece): (u64, u64),
        flip: Option<u64>,
    ) -> Result<Option<u64>, Status> {
        let writes = NvmOpcode(command.opcode) == NvmOpcode::WRITE;
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        let (offset, len) = self.range(command)?;
        if writes {
            self.writable()?;
        } else {
            self.readable(offset, len)?;
        }
        let (end, media) = (moved.saturating_add(piece).min(len), &mut self.media);
        let flip = flip.map(|bit| (bit % (len * 8) / 8, 1 << (bit % 8)));
        let mut at = 0;
        data.walk(host, self.page, (len, !writes), |host, iova, part| {
            let (first, last) = (moved.max(at), end.min(at + part as u64));
            if let Some(iova) = iova.filter(|_| first < last) {
                let (iova, part) = (iova + (first - at), (last - first) as usize);
                let flip = flip.filter(|(byte, _)| (first..last).contains(byte));
                let flip = flip.map(|(byte, bit)| (iova + (byte - first), bit));
                let mut host = FlippedMemory { host, flip };
                match writes {
                    true => media.write(&mut host, offset + first, iova, part)?,
                    false => media.read(&mut host, offset + first, iova, part)?,
                }
            }
            at += part as u64;
            Ok(())
        })?;
        if end < len {
            return Ok(Some(end));
        }
        if writes {
            self.write_through(command.cdw12)?;
            self.written(offset, len);
            self.counters.writes += 1;
            self.counters.bytes_written += len;
        } else {
            self.counters.reads += 1;
            self.counters.bytes_read += len;
        }
        Ok(None)
    }

    /// Carries out a command whose FUSE or PSDT is not 0, or where blocks may have metadata, namespaces keys, or hosts
    /// reservations. The half of a fused operation is noted alone ([`IS_FUSED`]).
    #[cold]
    #[inline(never)]
    pub(super) fn uncommon(
        &mut self,
        host: &mut impl HostMemory,
        (opcode, flags): (u8, u8),
        nsid: u32,
        (pointers, mptr): ((u64, u64), u64),
        [cdw10, cdw11, cdw12, cdw13]: [u32; 4],
        [cdw2, cdw3, cdw14, cdw15]: [u32; 4],
    ) -> Result<u64, Status> {
        let tags = Command { cdw2, cdw3, cdw14, cdw15, ..Command::io(NvmOpcode(opcode), nsid) };
        let mut command = Command { flags, cdw10, cdw11, cdw12, cdw13, ..tags };
        command.set_data_pointer(pointers.0, pointers.1);
        command.set_metadata_pointer(mptr);
        match self.keyed(nsid) {
            // The key value command set has no fused operations.
            Some(_) if flags & FUSE != 0 => return Err(Status::INVALID_FIELD.with_do_not_retry()),
            Some(index) => return self.execute_keys(host, index, &command, None),
            None if flags & FUSE != 0 => {
                self.fused = Some(command);
                return Ok(IS_FUSED);
            }
            None => {}
        }
        self.check_command(NvmOpcode(opcode), nsid)?;
        let is_managed =
            matches!(NvmOpcode(opcode), NvmOpcode::IO_MANAGEMENT_RECEIVE | NvmOpcode::IO_MANAGEMENT_SEND);
        if is_managed && self.placement.is_some() {
            return self.manage_handles(host, &command);
        }
        let bytes = match self.has_metadata(&command) {
            true => self.with_metadata(host, &command, None),
            false => self.without_metadata(host, &command),
        }?;
        self.place(&command, bytes);
        Ok(bytes)
    }

    /// Carries out a command whose data has the form that its flags say, of blocks without metadata.
    fn without_metadata(&mut self, host: &mut impl HostMemory, command: &Command) -> Result<u64, Status> {
        let command = *command;
        let Command { opcode, flags, nsid, cdw10, cdw11, cdw12, .. } = command;
        let data = Data::of(flags, (command.prp1(), command.prp2()), self.sgls)?;
        match NvmOpcode(opcode) {
            NvmOpcode::READ | NvmOpcode::WRITE if self.media.moves_data() => {
                self.transfer(host, command, (0, u64::MAX), None)?;
                Ok(u64::from(command.block_count()) << self.namespace(nsid)?.shift)
            }
            NvmOpcode::READ => {
                let (offset, len) = self.range(command)?;
                self.readable(offset, len)?;
                data.check(self.page, (len, true)).map(|()| 0)
            }
            NvmOpcode::WRITE => {
                let (offset, len) = self.range(command)?;
                self.writable()?;
                data.check(self.page, (len, false))?;
                self.written(offset, len);
                Ok(0)
            }
            NvmOpcode::DATASET_MANAGEMENT => self.manage(host, nsid, data, (cdw10, cdw11)),
            NvmOpcode::COMPARE | NvmOpcode::VERIFY | NvmOpcode::WRITE_UNCORRECTABLE | NvmOpcode::COPY => {
                self.optional(host, NvmOpcode(opcode), nsid, data, [cdw10, cdw11, cdw12])
            }
            // The others have no data.
            NvmOpcode::FLUSH => self.flush(nsid),
            NvmOpcode::WRITE_ZEROES => {
                self.write_zeroes(nsid, (command.slba(), u64::from(command.block_count())), cdw12)
            }
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }
}
