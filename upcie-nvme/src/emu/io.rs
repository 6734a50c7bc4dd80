//! The I/O commands Read, Write and Flush, and the way to the others: those that may take long are in `pieces`, the optional ones
//! in `optional`, and commands in uncommon forms in `uncommon`.

use super::{
    HostMemory, Options,
    data::{Data, Sgls},
    erasure::Erasure,
    formats::Layout,
    fused::FUSE,
    key_value::{self, Keys},
    limits::Limits,
    logs::{Counters, ErrorLog},
    marks::Marks,
    media::Media,
    namespace::{Away, Namespace},
    paths::Path,
    placement::Placement,
    prp,
    reservations::Reservations,
    rest::Rest,
    zones::{self, Fields, Zones},
};
use crate::spec::{ALL_NAMESPACES, Command, NvmOpcode, ReadWriteDword12, Status};
use std::collections::VecDeque;

/// Bytes that a flush of a volatile cache counts for: about those that a disk writes meanwhile.
pub(super) const FLUSH_BYTES: u64 = 64 << 10;
/// Bytes of a command that are moved, compared or checked at a time; a longer one is carried out in pieces.
pub(super) const PIECE: u64 = 1 << 20;

/// Everything that an I/O command uses: one struct, so that a command borrows it once, beside the queues. The commands of a kind
/// (zones, keys, metadata, copies, …) are in a file of their own.
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
    /// The most PRPs of a transfer of blocks (`prps=`); 0 for any number.
    pub(super) most_prps: u32,
    pub(super) limits: Limits,
    pub(super) marks: Marks,
    /// The erasures under way, the first one first.
    pub(super) erasures: VecDeque<Erasure>,
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
    /// Feature 16h: formats of source ranges of a Copy that the host has turned on, one bit each (CDFE).
    pub(super) copy_formats: u16,
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
    /// Some namespace is write protected, or the state of the path refuses commands.
    pub(super) guarded: bool,
    /// The path to the namespaces (`ana=`).
    pub(super) path: Path,
    /// The controller's own memory is at addresses of the host (`cmb=`, `pmr=`): data may be there, and must not be in
    /// both.
    pub(super) has_own_memory: bool,
    /// All commands take the path of uncommon ones: some namespace has metadata or keys, writes are placed, a reservation
    /// restricts this controller's host, a namespace is write protected or out of reach, the controller's own memory is at addresses of the host,
    /// or PRPs are limited.
    pub(super) careful: bool,
    /// The identifier of this controller in the NVM subsystem, counted from 1.
    pub(super) controller: u16,
    /// The half of a fused operation that was met last.
    pub(super) fused: Option<Command>,
    /// The blocks of the Copy that was carried out last.
    pub(super) copied: u64,
    /// The block that the present command failed at, if that is not its first one.
    pub(super) failing: Option<u64>,
    /// The rest of the present command, if it was carried out in part.
    pub(super) rest: Option<Box<Rest>>,
    /// Bytes processed by commands in stages, or moved by admin commands, since it was set to 0.
    pub(super) worked: u64,
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
            most_prps: options.prps,
            limits: Limits::of(options),
            marks: Marks::default(),
            erasures: VecDeque::new(),
            protected: options.ro,
            copy_formats: 0,
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
            guarded: false,
            path: Path::new(options),
            has_own_memory: false,
            careful: false,
            controller: 1,
            fused: None,
            copied: 0,
            failing: None,
            rest: None,
            worked: 0,
        };
        io.note_metadata();
        io
    }

    /// Notes whether the controller's own memory is at addresses of the host: commands take another way then.
    pub(super) fn note_own_memory(&mut self, is_there: bool) {
        if self.has_own_memory != is_there {
            self.has_own_memory = is_there;
            self.note_reservations();
        }
    }

    /// Prefetches the first bytes of block `slba`.
    #[inline(always)]
    pub fn prefetch(&self, nsid: u32, slba: u64) {
        if let Ok((offset, _)) = self.namespace(nsid).and_then(|namespace| namespace.range(slba, 1)) {
            self.media.prefetch(offset);
        }
    }

    /// Carries out a command of the submission queue `sq`; returns its status and the number of bytes that it counts for, which
    /// bounds the work of a step: those that were moved, zeroed or checked, and more for a flush.
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
                self.zero_blocks(command.nsid, [command.cdw10, command.cdw11, command.cdw12])
            }
            NvmOpcode::DATASET_MANAGEMENT => {
                let data = Data::Prps(command.prp1(), command.prp2());
                self.manage(host, command.nsid, data, (command.cdw10, command.cdw11))
            }
            NvmOpcode::COMPARE | NvmOpcode::VERIFY | NvmOpcode::WRITE_UNCORRECTABLE | NvmOpcode::COPY => {
                let (opcode, pointers) = (NvmOpcode(command.opcode), (command.prp1(), command.prp2()));
                let dwords = [command.cdw10, command.cdw11, command.cdw12];
                self.optional(host, opcode, command.nsid, pointers, dwords)
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

    #[inline(always)]
    fn read(&mut self, host: &mut impl HostMemory, command: Command) -> Result<u64, Status> {
        let (mut offset, len) = self.range(command)?;
        if len > PIECE && self.media.moves_data() {
            return self.move_pieces(host, command);
        }
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
        let (start, len) = self.range(command)?;
        if len > PIECE && self.media.moves_data() {
            return self.move_pieces(host, command);
        }
        self.writable()?;
        self.counters.writes += 1;
        self.counters.bytes_written += len;
        let (pointers, media, mut offset) = ((command.prp1(), command.prp2()), &mut self.media, start);
        if !media.moves_data() {
            prp::check(self.page, pointers, len)?;
            self.written(start, len);
            return Ok(0);
        }
        prp::walk(host, self.page, pointers, len, |host, iova, part| {
            media.write(host, offset, iova, part)?;
            offset += part as u64;
            Ok(())
        })?;
        let through = self.write_through(command.cdw12)?;
        self.written(start, len);
        Ok(len + through)
    }

    /// Returns an error if the namespaces are write protected.
    #[inline(always)]
    pub(super) fn writable(&self) -> Result<(), Status> {
        if self.protected { Err(Status::WRITE_PROTECTED.with_do_not_retry()) } else { Ok(()) }
    }

    /// Flushes a write to the media, if its dword 12 or the cache's feature asks for it; returns the bytes that this counts for.
    #[inline(always)]
    pub(super) fn write_through(&mut self, cdw12: u32) -> Result<u64, Status> {
        if self.is_durable(cdw12) { self.flush_media() } else { Ok(0) }
    }

    /// Returns `true` if a write with this dword 12 is flushed to the media.
    #[inline(always)]
    pub(super) fn is_durable(&self, cdw12: u32) -> bool {
        let through = !self.write_cache || ReadWriteDword12::from_bits(cdw12).fua();
        through && self.media.is_volatile()
    }

    /// Flushes the media; returns the bytes that this counts for.
    #[inline(never)]
    pub(super) fn flush_media(&mut self) -> Result<u64, Status> {
        self.media.flush()?;
        Ok(if self.media.is_volatile() { FLUSH_BYTES } else { 0 })
    }

    /// Returns the offset of the blocks of a read or write in the media, and their bytes.
    #[inline(always)]
    pub(super) fn range(&self, command: Command) -> Result<(u64, u64), Status> {
        let namespace = self.namespace(command.nsid)?;
        let (slba, count) = (command.slba(), u64::from(command.block_count()));
        let len = count << namespace.shift;
        if len > self.mdts {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        namespace.range(slba, count)
    }

    pub(super) fn flush(&mut self, nsid: u32) -> Result<u64, Status> {
        if nsid != ALL_NAMESPACES {
            self.namespace(nsid)?;
        }
        self.flush_media()
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
