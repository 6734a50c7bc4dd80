//! The I/O commands: Read, Write and Flush.

use super::{Error, Options, logs::ErrorLog, media::Media, prp};
use crate::spec::{ALL_NAMESPACES, Command, NvmOpcode, ReadWriteDword12, Status};
use upcie_core::vfio_user::server::Guest;

/// A namespace: blocks of one size, one part of the media.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespace {
    /// Where it starts in the media, in bytes.
    pub start: u64,
    /// Its size in blocks.
    pub blocks: u64,
    /// Its block size, as a power of two.
    pub shift: u8,
}

/// What the SMART log counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub reads: u64,
    pub writes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub media_errors: u64,
}

/// Everything that an I/O command touches.
#[derive(Debug)]
pub(super) struct Io {
    pub media: Media,
    pub namespaces: Vec<Namespace>,
    /// The most bytes of a command.
    pub mdts: u64,
    /// CC.MPS in bytes.
    pub page: u64,
    /// Feature 06h: writes may stay in the system's cache until a flush.
    pub write_cache: bool,
    pub counters: Counters,
    pub errors: ErrorLog,
}

impl Io {
    pub fn new(options: &Options) -> Result<Self, Error> {
        let (media, size) = Media::open(options)?;
        let namespaces = (0..options.namespaces).map(|index| {
            let shift = options.block_size(index).trailing_zeros() as u8;
            Namespace { start: size * u64::from(index), blocks: size >> shift, shift }
        });
        Ok(Self {
            namespaces: namespaces.collect(),
            media,
            mdts: options.mdts.into(),
            page: 4096,
            write_cache: true,
            counters: Counters::default(),
            errors: ErrorLog::default(),
        })
    }

    /// The namespace `nsid`, if there is one.
    #[inline(always)]
    pub fn namespace(&self, nsid: u32) -> Result<&Namespace, Status> {
        let found = self.namespaces.get(nsid.wrapping_sub(1) as usize);
        found.ok_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry())
    }

    /// Carries out a command of the submission queue `sq`; says how it ended and how many bytes were moved.
    #[inline(always)]
    pub fn execute(&mut self, guest: &mut Guest, sq: u16, command: Command) -> (Status, u64) {
        let result = match NvmOpcode(command.opcode) {
            // Neither fused operations nor SGLs: FUSE and PSDT must be 0.
            _ if command.flags & 0xc3 != 0 => Err(Status::INVALID_FIELD.with_do_not_retry()),
            NvmOpcode::READ => self.read(guest, command),
            NvmOpcode::WRITE => self.write(guest, command),
            NvmOpcode::FLUSH => self.flush(command.nsid),
            _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
        };
        match result {
            Ok(bytes) => (Status::SUCCESS, bytes),
            Err(status) => {
                // Values only: a command whose address is taken leaves its registers.
                let lba = if command.opcode == NvmOpcode::FLUSH.0 { 0 } else { command.slba() };
                (self.failed(sq, command.cid, command.nsid, lba, status), 0)
            }
        }
    }

    #[inline(always)]
    fn read(&mut self, guest: &mut Guest, command: Command) -> Result<u64, Status> {
        let (mut offset, len) = self.range(command)?;
        self.counters.reads += 1;
        self.counters.bytes_read += len;
        let (pointers, media) = ((command.prp1(), command.prp2()), &mut self.media);
        if let Media::Null = media {
            return prp::check(self.page, pointers, len).map(|_| 0);
        }
        prp::walk(guest, self.page, pointers, len, |guest, iova, part| {
            media.read(guest, offset, iova, part)?;
            offset += part as u64;
            Ok(())
        })?;
        Ok(len)
    }

    #[inline(always)]
    fn write(&mut self, guest: &mut Guest, command: Command) -> Result<u64, Status> {
        let (mut offset, len) = self.range(command)?;
        self.counters.writes += 1;
        self.counters.bytes_written += len;
        let (pointers, media) = ((command.prp1(), command.prp2()), &mut self.media);
        if let Media::Null = media {
            return prp::check(self.page, pointers, len).map(|_| 0);
        }
        prp::walk(guest, self.page, pointers, len, |guest, iova, part| {
            media.write(guest, offset, iova, part)?;
            offset += part as u64;
            Ok(())
        })?;
        let through = !self.write_cache || ReadWriteDword12::from_bits(command.cdw12).fua();
        if through && media.is_volatile() {
            media.flush()?;
        }
        Ok(len)
    }

    /// Where the blocks of a read or write are in the media, and how many bytes they are.
    #[inline(always)]
    fn range(&self, command: Command) -> Result<(u64, u64), Status> {
        let namespace = self.namespace(command.nsid)?;
        let (slba, count) = (command.slba(), u64::from(command.block_count()));
        let len = count << namespace.shift;
        if len > self.mdts {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        if count > namespace.blocks || slba > namespace.blocks - count {
            return Err(Status::LBA_OUT_OF_RANGE.with_do_not_retry());
        }
        Ok((namespace.start + (slba << namespace.shift), len))
    }

    fn flush(&mut self, nsid: u32) -> Result<u64, Status> {
        if nsid != ALL_NAMESPACES {
            self.namespace(nsid)?;
        }
        self.media.flush().map(|()| 0)
    }

    #[cold]
    #[inline(never)]
    fn failed(&mut self, sq: u16, cid: u16, nsid: u32, lba: u64, status: Status) -> Status {
        if status.code_type() == crate::spec::StatusType::MEDIA {
            self.counters.media_errors += 1;
        }
        self.errors.push(sq, cid, nsid, lba, status);
        status
    }
}
