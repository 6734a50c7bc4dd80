//! The optional I/O commands beside the common ones: Compare, Verify, Write Uncorrectable and Copy.

use super::{
    HostMemory,
    data::Data,
    io::Io,
    media::{Bytes, Media},
};
use crate::spec::{Command, CopyDword12, CopyRange, NvmOpcode, Status};
use zerocopy::IntoBytes;

/// Bytes to handle at a time.
const CHUNK: usize = 4096;
/// Bytes that Write Uncorrectable counts for: it notes a range, whatever its length.
const MARK_BYTES: u64 = 4096;
/// The most source ranges of a Copy, the most blocks of one, and the most blocks in all.
pub(super) const COPY_RANGES: usize = 128;
pub(super) const COPY_RANGE_BLOCKS: u16 = 2048;
pub(super) const COPY_BLOCKS: u32 = 8192;

const TOO_MUCH: Status = Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_do_not_retry();

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

    /// Carries out one of the commands of this file.
    #[cold]
    #[inline(never)]
    pub(super) fn optional(
        &mut self,
        host: &mut impl HostMemory,
        opcode: NvmOpcode,
        nsid: u32,
        data: Data,
        [cdw10, cdw11, cdw12]: [u32; 3],
    ) -> Result<u64, Status> {
        let (slba, count) = (u64::from(cdw10) | u64::from(cdw11) << 32, u64::from(cdw12 & 0xffff) + 1);
        match opcode {
            NvmOpcode::COPY => return self.copy(host, nsid, data, slba, CopyDword12::from_bits(cdw12)),
            NvmOpcode::VERIFY => {
                let command = Command { cdw10, cdw11, cdw12, ..Command::io(opcode, nsid) };
                return self.verify(&command, 0);
            }
            _ => {}
        }
        let namespace = *self.namespace(nsid)?;
        if opcode == NvmOpcode::COMPARE && count << namespace.shift > self.mdts {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        let (offset, len) = namespace.range(slba, count)?;
        if opcode == NvmOpcode::COMPARE {
            return self.compare(host, data, offset, len);
        }
        self.writable()?;
        if self.marks.set(offset..offset + len) { Ok(MARK_BYTES) } else { Err(Status::INTERNAL_ERROR) }
    }

    fn compare(
        &mut self,
        host: &mut impl HostMemory,
        data: Data,
        offset: u64,
        len: u64,
    ) -> Result<u64, Status> {
        self.readable(offset, len)?;
        if !self.media.moves_data() {
            return data.check(self.page, (len, false)).map(|()| 0);
        }
        let (page, mut at) = (self.page, offset);
        let (mut same, mut theirs) = (true, [0; CHUNK]);
        data.walk(host, page, (len, false), |host, iova, part| {
            let iova = iova.ok_or(Status::INTERNAL_ERROR)?;
            self.each_chunk(at, part as u64, |_, done, mine| {
                let theirs = theirs.get_mut(..mine.len()).ok_or(Status::INTERNAL_ERROR)?;
                host.read(iova + done, theirs).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                same &= mine == theirs;
                Ok(())
            })?;
            at += part as u64;
            Ok(())
        })?;
        if same { Ok(len) } else { Err(Status::COMPARE_FAILURE) }
    }

    /// Copies blocks of the namespace, which have no metadata, to the blocks from `to` on.
    fn copy(
        &mut self,
        host: &mut impl HostMemory,
        nsid: u32,
        data: Data,
        to: u64,
        cdw12: CopyDword12,
    ) -> Result<u64, Status> {
        self.namespace(nsid)?;
        let mut all = [CopyRange::default(); COPY_RANGES];
        let ranges = self.copy_ranges(host, data, cdw12, &mut all)?;
        self.copy_to(nsid, ranges, to, cdw12)
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

    /// Copies the blocks of `ranges`, which have no metadata, to the blocks of the namespace from `to` on.
    pub(super) fn copy_to(
        &mut self,
        nsid: u32,
        ranges: &[CopyRange],
        to: u64,
        cdw12: CopyDword12,
    ) -> Result<u64, Status> {
        let namespace = *self.namespace(nsid)?;
        if !self.media.moves_data() {
            return Ok(0);
        }
        // Check everything before the first block is copied.
        let mut total = 0;
        for range in ranges {
            let blocks = u64::from(range.nlb) + 1;
            if blocks > COPY_RANGE_BLOCKS.into() {
                return Err(TOO_MUCH);
            }
            let (offset, len) = namespace.range(range.slba, blocks)?;
            self.readable(offset, len)?;
            total += blocks;
        }
        if total > COPY_BLOCKS.into() {
            return Err(TOO_MUCH);
        }
        let (mut target, len) = namespace.range(to, total)?;
        self.writable()?;
        let start = target;
        for range in ranges {
            let (offset, len) = namespace.range(range.slba, u64::from(range.nlb) + 1)?;
            self.each_chunk(offset, len, |media, done, bytes| {
                let len = bytes.len();
                media.write(&mut Bytes(bytes), target + done, 0, len)
            })?;
            target += len;
        }
        let through = self.write_through(cdw12.into_bits())?;
        self.written(start, len);
        Ok(2 * len + through)
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
