//! The I/O commands: Read, Write, Flush, Write Zeroes and Dataset Management; the others are in `optional`.

use super::{
    HostMemory, Options,
    bent::Bent,
    data::{Data, Sgls},
    formats::Layout,
    fused::{FUSE, IS_FUSED},
    key_value::{self, Keys},
    logs::{Counters, ErrorLog},
    marks::Marks,
    media::Media,
    namespace::{Away, Namespace},
    placement::Placement,
    prp,
    reservations::Reservations,
    zones::{self, Fields, Zones},
};
use crate::spec::{
    ALL_NAMESPACES, Command, DatasetDword10, DatasetDword11, DatasetRange, NvmOpcode, ReadWriteDword12,
    Status,
};
use zerocopy::IntoBytes;

/// Everything that an I/O command uses.
#[derive(Debug)]
pub(super) struct Io<M> {
    pub media: M,
    pub namespaces: Vec<Namespace>,
    /// The bytes of the media.
    pub capacity: u64,
    /// The most bytes of a command.
    pub mdts: u64,
    /// CC.MPS in bytes.
    pub page: u64,
    pub(super) sgls: Sgls,
    pub(super) marks: Marks,
    /// The zones of the namespaces; empty if none has zones.
    pub(super) zones: Vec<Option<Zones>>,
    /// The keys of the namespaces; empty if none has keys.
    pub(super) keys: Vec<Option<Keys>>,
    /// The most bytes of a Zone Append.
    pub(super) append_limit: u64,
    /// Dwords 0 and 1 of the completion of the last command, if it has any.
    pub(super) result: u64,
    /// `ro=true`: commands that would change data are refused.
    pub protected: bool,
    /// Feature 06h: writes may stay in the system's cache until a flush.
    pub write_cache: bool,
    pub counters: Counters,
    pub errors: ErrorLog,
    /// A fault plan has put a cache in front of the media, which would tear metadata from its blocks.
    pub(super) is_cached: bool,
    /// The blocks of some namespace have metadata.
    pub(super) any_metadata: bool,
    /// Flexible data placement (`fdp=true`).
    pub(super) placement: Option<Box<Placement>>,
    /// The reservations of the NVM subsystem.
    pub(super) reservations: Reservations,
    /// Reservations outlast a loss of power, if a host wishes so.
    pub(super) keeps_reservations: bool,
    /// A reservation keeps this controller's host from some command.
    pub(super) restricted: bool,
    /// All commands take the path of uncommon ones: some namespace has metadata or keys, writes are placed, or a reservation
    /// restricts this controller's host.
    pub(super) careful: bool,
    /// The identifier of this controller in the NVM subsystem, counted from 1.
    pub(super) controller: u16,
    /// The half of a fused operation that was met last.
    pub(super) fused: Option<Command>,
    /// The block that the present command failed at, if that is not its first one.
    pub(super) failing: Option<u64>,
}

impl<M: Media> Io<M> {
    /// Makes namespaces of `size` bytes each on `media`.
    pub fn new(options: &Options, media: M, size: u64) -> Self {
        let namespaces = (0..options.namespaces).map(|index| {
            let layout = options.layout(index).unwrap_or(Layout::PLAIN);
            let plain = Namespace::new(size * u64::from(index), size, layout, Away::Not);
            match () {
                () if options.zones.has(index) => plain.with_zones(options.zones.size),
                () if options.keys.has(index) => plain.with_keys(),
                () => plain,
            }
        });
        let spare = options.most_namespaces() - options.namespaces;
        let spare = std::iter::repeat_n(Namespace::NONE, spare as usize);
        let namespaces: Vec<_> = namespaces.chain(spare).collect();
        let mut io = Self {
            zones: zones::all(options, &namespaces),
            keys: key_value::all(options, &namespaces),
            append_limit: options.zones.append.unwrap_or(options.mdts).min(options.mdts).into(),
            result: 0,
            namespaces,
            capacity: size * u64::from(options.namespaces),
            media,
            mdts: options.mdts.into(),
            page: 4096,
            sgls: options.sgl,
            marks: Marks::default(),
            protected: options.ro,
            write_cache: true,
            counters: Counters::default(),
            errors: ErrorLog::default(),
            is_cached: false,
            any_metadata: false,
            placement: options.placement.on.then(|| {
                let (first, most) = (options.namespaces as usize, options.most_namespaces() as usize);
                Box::new(Placement::new(&options.placement, first, most))
            }),
            reservations: Reservations::new(options.most_namespaces() as usize),
            keeps_reservations: options.keeps_reservations(),
            restricted: false,
            careful: false,
            controller: 1,
            fused: None,
            failing: None,
        };
        io.note_metadata();
        io
    }

    /// Prefetches the first bytes of block `slba`.
    #[inline(always)]
    pub fn prefetch(&self, nsid: u32, slba: u64) {
        if let Ok((offset, _)) = self.namespace(nsid).and_then(|namespace| namespace.range(slba, 1)) {
            self.media.prefetch(offset);
        }
    }

    /// Carries out a command of the submission queue `sq`; returns its status and the number of bytes moved.
    #[inline(always)]
    pub fn execute(&mut self, host: &mut impl HostMemory, sq: u16, command: Command) -> (Status, u64) {
        let result = match NvmOpcode(command.opcode) {
            _ if command.flags & (FUSE | Command::PSDT) != 0 || self.careful => {
                let (kind, pointers) = ((command.opcode, command.flags), (command.prp1(), command.prp2()));
                let blocks = [command.cdw10, command.cdw11, command.cdw12, command.cdw13];
                let tags = [command.cdw2, command.cdw3, command.cdw14, command.cdw15];
                self.uncommon(host, kind, command.nsid, (pointers, command.mptr()), blocks, tags)
            }
            NvmOpcode::READ => self.read(host, command),
            NvmOpcode::WRITE => self.write(host, command),
            NvmOpcode::FLUSH => self.flush(command.nsid),
            // Pass fields by value, here and below: taking `&command` in any arm spills it to the stack, for
            // reads too.
            NvmOpcode::WRITE_ZEROES => {
                let blocks = (command.slba(), u64::from(command.block_count()));
                self.write_zeroes(command.nsid, blocks, command.cdw12)
            }
            NvmOpcode::DATASET_MANAGEMENT => {
                let data = Data::Prps(command.prp1(), command.prp2());
                self.manage(host, command.nsid, data, (command.cdw10, command.cdw11))
            }
            NvmOpcode::COMPARE | NvmOpcode::VERIFY | NvmOpcode::WRITE_UNCORRECTABLE | NvmOpcode::COPY => {
                let (opcode, data) = (NvmOpcode(command.opcode), Data::Prps(command.prp1(), command.prp2()));
                let dwords = [command.cdw10, command.cdw11, command.cdw12];
                self.optional(host, opcode, command.nsid, data, dwords)
            }
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        };
        match result {
            Ok(bytes) => (Status::SUCCESS, bytes),
            Err(status) => {
                let fields = Fields {
                    opcode: NvmOpcode(command.opcode),
                    flags: command.flags,
                    cid: command.cid,
                    nsid: command.nsid,
                    pointers: (command.prp1(), command.prp2()),
                    dwords: [command.cdw10, command.cdw11, command.cdw12, command.cdw13],
                };
                self.refused(host, sq, fields, status)
            }
        }
    }

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
            self.written(offset, len);
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
                let mut host = Bent { host, flip };
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
            NvmOpcode::READ | NvmOpcode::WRITE => {
                let (_, len) = self.range(command)?;
                data.check(self.page, (len, NvmOpcode(opcode) == NvmOpcode::READ)).map(|()| 0)
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

    #[inline(always)]
    fn read(&mut self, host: &mut impl HostMemory, command: Command) -> Result<u64, Status> {
        let (mut offset, len) = self.range(command)?;
        self.readable(offset, len)?;
        self.counters.reads += 1;
        self.counters.bytes_read += len;
        let (pointers, media) = ((command.prp1(), command.prp2()), &mut self.media);
        if !media.moves_data() {
            return prp::check(self.page, pointers, len).map(|_| 0);
        }
        prp::walk(host, self.page, pointers, len, |host, iova, part| {
            media.read(host, offset, iova, part)?;
            offset += part as u64;
            Ok(())
        })?;
        Ok(len)
    }

    #[inline(always)]
    fn write(&mut self, host: &mut impl HostMemory, command: Command) -> Result<u64, Status> {
        let (mut offset, len) = self.range(command)?;
        self.writable()?;
        self.written(offset, len);
        self.counters.writes += 1;
        self.counters.bytes_written += len;
        let (pointers, media) = ((command.prp1(), command.prp2()), &mut self.media);
        if !media.moves_data() {
            return prp::check(self.page, pointers, len).map(|_| 0);
        }
        prp::walk(host, self.page, pointers, len, |host, iova, part| {
            media.write(host, offset, iova, part)?;
            offset += part as u64;
            Ok(())
        })?;
        self.write_through(command.cdw12)?;
        Ok(len)
    }

    /// Returns an error if the namespaces are write protected.
    #[inline(always)]
    pub(super) fn writable(&self) -> Result<(), Status> {
        if self.protected { Err(Status::WRITE_PROTECTED.with_do_not_retry()) } else { Ok(()) }
    }

    /// Flushes a write to the media, if its dword 12 or the cache's feature asks for it.
    #[inline(always)]
    pub(super) fn write_through(&mut self, cdw12: u32) -> Result<(), Status> {
        let through = !self.write_cache || ReadWriteDword12::from_bits(cdw12).fua();
        if through && self.media.is_volatile() {
            self.media.flush()?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn write_zeroes(&mut self, nsid: u32, (slba, count): (u64, u64), cdw12: u32) -> Result<u64, Status> {
        let namespace = *self.namespace(nsid)?;
        let (offset, len) = namespace.range(slba, count)?;
        self.writable()?;
        self.written(offset, len);
        self.media.zero(offset, len)?;
        self.write_through(cdw12)?;
        Ok(0)
    }

    /// Dataset Management: deallocates ranges; the other attributes are hints.
    #[cold]
    #[inline(never)]
    fn manage(
        &mut self,
        host: &mut impl HostMemory,
        nsid: u32,
        data: Data,
        (cdw10, cdw11): (u32, u32),
    ) -> Result<u64, Status> {
        let namespace = *self.namespace(nsid)?;
        let count = usize::from(DatasetDword10::from_bits(cdw10).nr()) + 1;
        if cdw10 >> 8 != 0 {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let mut ranges = [DatasetRange::default(); DatasetRange::MOST];
        let ranges = &mut ranges[..count];
        if !self.media.moves_data() {
            return data.check(self.page, (size_of_val(ranges) as u64, false)).map(|()| 0);
        }
        data.fetch(host, self.page, ranges.as_mut_bytes())?;
        // Check all ranges before the first is deallocated.
        for range in &*ranges {
            namespace.range(range.slba, range.nlb.into())?;
        }
        if DatasetDword11::from_bits(cdw11).ad() {
            self.writable()?;
            for range in ranges.iter().filter(|range| range.nlb > 0) {
                let (offset, len) = namespace.range(range.slba, range.nlb.into())?;
                self.written(offset, len);
                self.media.zero(offset, len)?;
                self.deallocate_metadata(&namespace, range.slba, range.nlb.into())?;
            }
        }
        Ok(0)
    }

    /// Returns the offset of the blocks of a read or write in the media, and their bytes.
    #[inline(always)]
    fn range(&self, command: Command) -> Result<(u64, u64), Status> {
        let namespace = self.namespace(command.nsid)?;
        let (slba, count) = (command.slba(), u64::from(command.block_count()));
        let len = count << namespace.shift;
        if len > self.mdts {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        namespace.range(slba, count)
    }

    fn flush(&mut self, nsid: u32) -> Result<u64, Status> {
        if nsid != ALL_NAMESPACES {
            self.namespace(nsid)?;
        }
        self.media.flush().map(|()| 0)
    }

    #[cold]
    #[inline(never)]
    pub fn failed(&mut self, sq: u16, cid: u16, nsid: u32, lba: u64, status: Status) -> Status {
        if status.code_type() == crate::spec::StatusType::MEDIA && status != Status::COMPARE_FAILURE {
            self.counters.media_errors += 1;
        }
        self.errors.push(sq, cid, nsid, lba, status);
        status
    }
}
