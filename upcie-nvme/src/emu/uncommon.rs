//! Commands off the common path: carried out in pieces, fused, with scatter gather lists, or on namespaces with metadata,
//! keys, zones or reservations.

use super::{
    HostMemory,
    data::{Data, Piece},
    flipped::FlippedMemory,
    fused::{FUSE, IS_FUSED},
    io::{FLUSH_BYTES, Io},
    media::Media,
    own_memory::OneMemory,
    prp::Position,
    rest::{Begun, IS_PART},
    zones::HAS_RESULT,
};
use crate::spec::{Command, NvmOpcode, Status};

impl<M: Media> Io<M> {
    /// Carries out a command of the submission queue `sq`, or the next piece of a read or write: `piece` bytes after the first
    /// `moved`. Returns the bytes moved so far if there are more; [`Io::rest`] then has the rest of a command that is no read or
    /// write. `position` is that of the piece, then of the next one. `flip` is a random number: the position of a bit
    /// of the data to flip.
    ///
    /// # Errors
    /// The status with which the command completes.
    pub fn carry_out(
        &mut self,
        host: &mut impl HostMemory,
        sq: u16,
        command: Command,
        (moved, piece): (u64, u64),
        position: &mut Position,
        flip: Option<u64>,
    ) -> Result<Option<u64>, Status> {
        let moves = matches!(NvmOpcode(command.opcode), NvmOpcode::READ | NvmOpcode::WRITE);
        self.check_command(NvmOpcode(command.opcode), command.nsid)
            .map_err(|status| self.failed(sq, command.cid, command.nsid, command.slba(), status))?;
        if self.any_metadata && command.flags & FUSE == 0 && self.has_metadata(&command) {
            return match self.with_metadata(host, &command, flip) {
                Ok(bytes) => {
                    if bytes & IS_PART == 0 {
                        self.place(&command);
                    }
                    self.progress((Status::SUCCESS, bytes), moved)
                }
                Err(status) => {
                    let lba = self.failing.take().unwrap_or(command.slba());
                    let status = self.failed(sq, command.cid, command.nsid, lba, status);
                    self.progress((status, self.tried_by(&command)), moved)
                }
            };
        }
        if let Some(index) = self.keyed(command.nsid).filter(|_| command.flags & FUSE == 0) {
            return match self.execute_keys(host, index, &command, flip) {
                Ok(bytes) => self.progress((Status::SUCCESS, bytes), moved),
                Err(status) => {
                    let status = self.failed(sq, command.cid, command.nsid, 0, status);
                    self.progress((status, self.tried_by(&command)), moved)
                }
            };
        }
        let whole = command.flags & FUSE != 0 || self.zoned(command.nsid).is_some();
        if !moves || whole || !self.media.moves_data() {
            let done = self.execute(host, sq, command);
            return self.progress(done, moved);
        }
        let done = self.transfer(host, command, (moved, piece), position, flip);
        let writes = NvmOpcode(command.opcode) == NvmOpcode::WRITE;
        let through = if writes && self.is_durable(command.cdw12) { FLUSH_BYTES } else { 0 };
        self.worked += piece.min(self.tried_by(&command)) + through;
        if let Ok(None) = done {
            self.place(&command);
        }
        done.map_err(|status| self.failed(sq, command.cid, command.nsid, command.slba(), status))
    }

    /// Returns the bytes that a command counts for if it fails.
    fn tried_by(&self, command: &Command) -> u64 {
        self.tried(NvmOpcode(command.opcode), command.nsid, [command.cdw10, command.cdw12])
    }

    /// Ends a stage of a command that had moved so many bytes before, by its status and the bytes that the stage counts for;
    /// returns the bytes moved so far if the command is not finished.
    pub(super) fn progress(
        &mut self,
        (status, bytes): (Status, u64),
        moved: u64,
    ) -> Result<Option<u64>, Status> {
        let processed = bytes & !(HAS_RESULT | IS_FUSED | IS_PART);
        self.worked += processed;
        status.result().map(|()| (bytes & IS_PART != 0).then_some(moved + processed))
    }

    /// Moves a piece of the data of a read or write, at `position`, which is then that of the next piece.
    pub(super) fn transfer(
        &mut self,
        host: &mut impl HostMemory,
        command: Command,
        (moved, piece): (u64, u64),
        position: &mut Position,
        flip: Option<u64>,
    ) -> Result<Option<u64>, Status> {
        let writes = NvmOpcode(command.opcode) == NvmOpcode::WRITE;
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        let (offset, len) = self.range(command)?;
        self.check_prps(&command, len)?;
        if writes {
            self.writable()?;
        } else {
            self.readable(offset, len)?;
        }
        let (end, media) = (moved.saturating_add(piece).min(len), &mut self.media);
        let flip = flip.map(|bit| (bit % (len * 8) / 8, 1 << (bit % 8)));
        let piece = Piece { len, range: moved..end, position };
        data.walk(&mut OneMemory::of(host), host, self.page, !writes, piece, |host, at, iova, part| {
            // Without an address the host discards the part.
            let Some(iova) = iova else { return Ok(()) };
            let flip = flip.filter(|(byte, _)| (at..at + part as u64).contains(byte));
            let flip = flip.map(|(byte, bit)| (iova + (byte - at), bit));
            let mut host = FlippedMemory { host, flip };
            match writes {
                true => media.write(&mut host, offset + at, iova, part),
                false => media.read(&mut host, offset + at, iova, part),
            }
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

    /// Refuses a transfer of `len` bytes by more PRPs than the controller takes (`prps=`).
    pub(super) fn check_prps(&self, command: &Command, len: u64) -> Result<(), Status> {
        let pages = ((command.prp1() & (self.page - 1)) + len).div_ceil(self.page);
        let is_many = self.most_prps != 0 && pages > self.most_prps.into();
        if is_many && command.flags & Command::PSDT == 0 {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        Ok(())
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
        if self.guarded {
            self.path.check(NvmOpcode(opcode))?;
        }
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
        if bytes & IS_PART == 0 {
            self.place(&command);
        }
        Ok(bytes)
    }

    /// Carries out a command whose data has the form that its flags say, of blocks without metadata.
    fn without_metadata(&mut self, host: &mut impl HostMemory, command: &Command) -> Result<u64, Status> {
        let command = *command;
        let Command { opcode, flags, nsid, cdw10, cdw11, .. } = command;
        let data = Data::of(flags, (command.prp1(), command.prp2()), self.sgls)?;
        match NvmOpcode(opcode) {
            NvmOpcode::READ | NvmOpcode::WRITE if self.media.moves_data() => {
                self.move_piece(host, &command, Begun::default())
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
            NvmOpcode::COMPARE => self.compare(host, &command, Begun::default()),
            NvmOpcode::COPY => self.copy(host, &command),
            NvmOpcode::VERIFY => self.verify(&command, 0),
            NvmOpcode::WRITE_UNCORRECTABLE => self.mark(&command),
            // The others have no data.
            NvmOpcode::FLUSH => self.flush(nsid),
            NvmOpcode::WRITE_ZEROES => self.write_zeroes(&command, 0),
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        }
    }
}
