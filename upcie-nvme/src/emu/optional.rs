//! The optional I/O commands beside the common ones: Compare, Verify, Write Uncorrectable and Copy.

use super::{
    HostMemory,
    data::{Data, Piece},
    io::{Io, PIECE},
    media::{Bytes, Media},
    namespace::Namespace,
    own_memory::OneMemory,
    rest::{Begun, Left, ranges_left},
};
use crate::spec::{Command, CopyDword12, CopyRange, NvmOpcode, Status};
use zerocopy::IntoBytes;

/// Bytes to handle at a time.
const CHUNK: usize = 4096;
/// Bytes that Write Uncorrectable counts for: it notes a range, whatever its length.
const MARK_BYTES: u64 = 4096;
/// The formats of source ranges, one bit each: of the namespace and of others, with guards of 16 bits and with wider ones.
pub(super) const COPY_FORMATS: u16 = 0b1111;
/// The most source ranges of a Copy, the most blocks of one, and the most blocks in all.
pub(super) const COPY_RANGES: usize = 128;
pub(super) const COPY_RANGE_BLOCKS: u16 = 2048;
pub(super) const COPY_BLOCKS: u32 = 8192;

pub(super) const TOO_MUCH: Status = Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_do_not_retry();

/// Returns `true` for a Copy whose source ranges name namespaces: formats 2 and 3.
pub(super) fn names_namespaces(dword: CopyDword12) -> bool {
    matches!(dword.desfmt(), 2 | 3)
}

impl<M: Media> Io<M> {
    /// Returns an error if a block of these bytes is marked as uncorrectable.
    #[inline(always)]
    pub(super) fn readable(&self, offset: u64, len: u64) -> Result<(), Status> {
        if !self.marks.is_empty() && self.marks.touch(offset..offset + len) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        Ok(())
    }

    /// Notes that these bytes were written. A write that fails leaves marks where they are: some of its blocks may have neither
    /// the old data nor the new.
    #[inline(always)]
    pub(super) fn written(&mut self, offset: u64, len: u64) {
        if !self.marks.is_empty() {
            self.marks.clear(offset..offset + len);
        }
    }

    /// Carries out one of the commands of this file, or a Verify, by the fields that matter to blocks without metadata.
    #[cold]
    #[inline(never)]
    pub(super) fn optional(
        &mut self,
        host: &mut impl HostMemory,
        opcode: NvmOpcode,
        nsid: u32,
        pointers: (u64, u64),
        [cdw10, cdw11, cdw12]: [u32; 3],
    ) -> Result<u64, Status> {
        let mut command = Command { cdw10, cdw11, cdw12, ..Command::io(opcode, nsid) };
        command.set_data_pointer(pointers.0, pointers.1);
        match opcode {
            NvmOpcode::COPY => self.copy(host, &command),
            NvmOpcode::VERIFY => self.verify(&command, 0),
            NvmOpcode::COMPARE => self.compare(host, &command, Begun::default()),
            _ => self.mark(&command),
        }
    }

    /// Carries out a Write Uncorrectable.
    pub(super) fn mark(&mut self, command: &Command) -> Result<u64, Status> {
        let namespace = self.namespace(command.nsid)?;
        let (offset, len) = namespace.range(command.slba(), command.block_count().into())?;
        self.limits.check(len)?;
        self.writable()?;
        if self.marks.set(offset..offset + len) { Ok(MARK_BYTES) } else { Err(Status::INTERNAL_ERROR) }
    }

    /// Carries out a Compare of blocks without metadata, or its next piece, after those that are done.
    pub(super) fn compare(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        Begun { done, mut position }: Begun,
    ) -> Result<u64, Status> {
        let (offset, len) = self.range(*command)?;
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        self.check_prps(command, len)?;
        self.readable(offset, len)?;
        if !self.media.moves_data() {
            return data.check(self.page, (len, false)).map(|()| 0);
        }
        let (page, shift) = (self.page, self.namespace(command.nsid)?.shift);
        let first = done << shift;
        let end = first.saturating_add(PIECE).min(len);
        let (mut same, mut theirs) = (true, [0; CHUNK]);
        let piece = Piece { len, range: first..end, position: &mut position };
        data.walk(&mut OneMemory::of(host), host, page, false, piece, |host, at, iova, part| {
            let iova = iova.ok_or(Status::INTERNAL_ERROR)?;
            self.each_chunk(offset + at, part as u64, |_, done, mine| {
                let theirs = theirs.get_mut(..mine.len()).ok_or(Status::INTERNAL_ERROR)?;
                host.read(iova + done, theirs).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                same &= mine == theirs;
                Ok(())
            })
            .map(|_| ())
        })?;
        match same {
            false => Err(Status::COMPARE_FAILURE),
            true if end < len => {
                let begun = Begun { done: end >> shift, position };
                Ok(self.put_off(*command, Left::After(begun), end - first))
            }
            true => Ok(end - first),
        }
    }

    /// Copies blocks that have no metadata.
    pub(super) fn copy(&mut self, host: &mut impl HostMemory, command: &Command) -> Result<u64, Status> {
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        let namespace = *self.namespace(command.nsid)?;
        let dword = CopyDword12::from_bits(command.cdw12);
        if names_namespaces(dword) {
            return self.copy_blocks(host, &namespace, command);
        }
        let mut all = [CopyRange::default(); COPY_RANGES];
        let ranges = self.copy_ranges(host, data, dword, &mut all)?;
        self.copy_to(command, ranges)
    }

    /// Fetches the source ranges of a Copy into `all`. All checks and the copy itself take these: a host may answer differently
    /// the next time. A medium without data leaves them as they are.
    pub(super) fn copy_ranges<'r>(
        &self,
        host: &mut impl HostMemory,
        data: Data,
        cdw12: CopyDword12,
        all: &'r mut [CopyRange; COPY_RANGES],
    ) -> Result<&'r [CopyRange], Status> {
        if cdw12.desfmt() != 0 {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let ranges = all.get_mut(..usize::from(cdw12.nr()) + 1).ok_or(TOO_MUCH)?;
        if self.media.moves_data() {
            data.fetch(host, self.page, ranges.as_mut_bytes())?;
        } else {
            data.check(self.page, (size_of_val(ranges) as u64, false))?;
        }
        Ok(ranges)
    }

    /// Begins to copy the blocks of `ranges`, which have no metadata, to those that the command names.
    pub(super) fn copy_to(&mut self, command: &Command, ranges: &[CopyRange]) -> Result<u64, Status> {
        let namespace = *self.namespace(command.nsid)?;
        if !self.media.moves_data() {
            self.copied = 0;
            return Ok(0);
        }
        let ranges = ranges.iter().map(|range| (range.slba, u64::from(range.nlb) + 1));
        self.check_copy(command, &namespace, ranges.clone().map(|(slba, blocks)| (namespace, slba, blocks)))?;
        self.copy_pieces(command, ranges, 0)
    }

    /// Checks the source ranges of a Copy, each its namespace, the first block and the number of blocks, and its target: all
    /// before the first block is copied.
    pub(super) fn check_copy(
        &self,
        command: &Command,
        namespace: &Namespace,
        ranges: impl Iterator<Item = (Namespace, u64, u64)>,
    ) -> Result<(), Status> {
        let mut total = 0;
        for (source, slba, blocks) in ranges {
            if blocks > COPY_RANGE_BLOCKS.into() {
                return Err(TOO_MUCH);
            }
            let (offset, len) = source.range(slba, blocks)?;
            self.readable(offset, len)?;
            total += blocks;
        }
        if total > COPY_BLOCKS.into() {
            return Err(TOO_MUCH);
        }
        namespace.range(command.slba(), total)?;
        self.writable()
    }

    /// Copies ranges of blocks behind the first `done` ones that the command names, a piece of them at most.
    pub(super) fn copy_pieces(
        &mut self,
        command: &Command,
        mut ranges: impl Iterator<Item = (u64, u64)>,
        done: u64,
    ) -> Result<u64, Status> {
        let namespace = *self.namespace(command.nsid)?;
        self.writable()?;
        let (most, mut copied) = (PIECE >> namespace.shift, 0);
        while let Some((slba, count)) = ranges.next() {
            let part = count.min(most - copied);
            let (offset, len) = namespace.range(slba, part)?;
            let (target, _) = namespace.range(command.slba() + done + copied, part)?;
            self.readable(offset, len)?;
            self.each_chunk(offset, len, |media, at, bytes| {
                let len = bytes.len();
                media.write(&mut Bytes(bytes), target + at, 0, len)
            })?;
            copied += part;
            if copied == most {
                let ranges = ranges_left((slba, count), part, ranges);
                if ranges.is_empty() {
                    break;
                }
                let left = Left::Copy { ranges, done: done + copied };
                return Ok(self.put_off(*command, left, (2 * copied) << namespace.shift));
            }
        }
        self.copied = done + copied;
        let (start, len) = namespace.range(command.slba(), self.copied)?;
        let through = self.write_through(command.cdw12)?;
        self.written(start, len);
        Ok(((2 * copied) << namespace.shift) + through)
    }

    /// Reads bytes of the media, and calls `each` with the media, the position in the bytes, and some of them.
    pub(super) fn each_chunk(
        &mut self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&mut M, u64, &mut [u8]) -> Result<(), Status>,
    ) -> Result<u64, Status> {
        let (mut bytes, mut done) = ([0; CHUNK], 0);
        while self.media.moves_data() && done < len {
            let part = (len - done).min(CHUNK as u64) as usize;
            let bytes = bytes.get_mut(..part).ok_or(Status::INTERNAL_ERROR)?;
            self.media.read(&mut Bytes(bytes), offset + done, 0, part)?;
            each(&mut self.media, done, bytes)?;
            done += part as u64;
        }
        Ok(len)
    }
}
