//! Commands that may name more blocks than one step processes: Verify, Write Zeroes, Dataset Management, Copy and Zone Management
//! Send, and transfers where `mdts=` allows long ones, are carried out in pieces, between which other queues are served.
//!
//! A command that is carried out in part leaves its rest in [`Io::rest`], for its queue or its flight to keep. Each piece is checked
//! as the command was, since namespaces and reservations may have changed meanwhile.

use super::{
    HostMemory,
    checks::Protection,
    data::Data,
    formats::Layout,
    io::{FLUSH_BYTES, Io, PIECE},
    media::Media,
    metadata::refuse_action,
    namespace::{Away, refusal},
    rest::{Begun, IS_PART, Left, Rest, ranges_left},
};
use crate::spec::{Command, DatasetDword10, DatasetDword11, DatasetRange, NvmOpcode, Status};
use zerocopy::IntoBytes;

/// Bytes that a piece zeroes. Most media make holes, which is fast; smaller pieces would make a deallocation of a whole file slow.
pub(super) const ZERO_PIECE: u64 = 4 << 20;
/// Bytes that a range of Dataset Management counts for: the medium is called for each.
const RANGE_BYTES: u64 = 4096;

impl<M: Media> Io<M> {
    /// Takes the rest of the command that was carried out in part, whose identifier is `cid`.
    pub(super) fn take_rest(&mut self, cid: u16) -> Option<Box<Rest>> {
        let mut rest = self.rest.take()?;
        rest.command.cid = cid;
        Some(rest)
    }

    /// Notes the rest of a command of which a piece of `bytes` bytes was processed; returns the bytes, marked.
    pub(super) fn put_off(&mut self, command: Command, left: Left, bytes: u64) -> u64 {
        self.rest = Some(Box::new(Rest { command, left, format: self.format_of(command.nsid) }));
        bytes | IS_PART
    }

    /// Returns the generation of a namespace and the layout of its blocks.
    pub(super) fn format_of(&self, nsid: u32) -> Option<(u32, Layout)> {
        let namespace = self.namespaces.get(nsid.wrapping_sub(1) as usize)?;
        Some((namespace.generation, namespace.layout))
    }

    /// Checks that a namespace has the blocks that a command has begun with: it may have been formatted between two pieces, or
    /// another namespace may have its identifier. The rest would be at other places, and longer than its data.
    pub(super) fn check_format(&self, nsid: u32, before: Option<(u32, Layout)>) -> Result<(), Status> {
        match self.namespaces.get(nsid.wrapping_sub(1) as usize) {
            Some(namespace) if namespace.away == Away::Not => {
                let is_same = self.format_of(nsid) == before;
                if is_same { Ok(()) } else { Err(Status::FORMAT_IN_PROGRESS) }
            }
            other => Err(refusal(other)),
        }
    }

    /// Carries out the next piece of a command of the submission queue `sq`; returns its status and the bytes processed, as
    /// [`execute`](Self::execute) does.
    #[cold]
    #[inline(never)]
    pub(super) fn resume(&mut self, host: &mut impl HostMemory, sq: u16, rest: Rest) -> (Status, u64) {
        let Rest { command, left, format } = rest;
        let (opcode, nsid) = (NvmOpcode(command.opcode), command.nsid);
        let checked = self.check_command(opcode, nsid).and_then(|()| self.check_format(nsid, format));
        let done = checked.and_then(|()| match self.zoned(nsid) {
            Some(index) => self.next_zoned_piece(host, index, &command, left),
            None => self.next_piece(host, &command, left),
        });
        match done {
            Ok(bytes) => {
                if bytes & IS_PART == 0 {
                    self.place(&command);
                }
                (Status::SUCCESS, bytes)
            }
            Err(status) => {
                let lba = if opcode == NvmOpcode::DATASET_MANAGEMENT { 0 } else { command.slba() };
                let lba = self.failing.take().unwrap_or(lba);
                let tried = self.tried(opcode, nsid, [command.cdw10, command.cdw12]);
                (self.failed(sq, command.cid, nsid, lba, status), tried)
            }
        }
    }

    /// Carries out the next piece of a command at a namespace that has its blocks.
    pub(super) fn next_piece(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        left: Left,
    ) -> Result<u64, Status> {
        match left {
            Left::Copy { ranges, done } => self.copy_pieces(command, ranges.into_iter(), done),
            Left::Protected(copying) => self.go_on_copying(command, copying),
            Left::Ranges(ranges) => self.deallocate(*command, ranges.into_iter()),
            Left::After(begun) => match NvmOpcode(command.opcode) {
                NvmOpcode::VERIFY => self.verify(command, begun.done),
                NvmOpcode::WRITE_ZEROES => self.write_zeroes(command, begun.done),
                _ if self.has_metadata(command) => self.move_blocks(host, command, begun, None),
                NvmOpcode::COMPARE => self.compare(host, command, begun),
                _ => self.move_piece(host, command, begun),
            },
        }
    }

    /// Begins a long read or write of blocks without metadata.
    #[cold]
    #[inline(never)]
    pub(super) fn move_pieces(
        &mut self,
        host: &mut impl HostMemory,
        command: Command,
    ) -> Result<u64, Status> {
        self.move_piece(host, &command, Begun::default())
    }

    /// Moves a piece of the data of a read or write, after the blocks that are done.
    pub(super) fn move_piece(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        Begun { done, mut position }: Begun,
    ) -> Result<u64, Status> {
        let shift = self.namespace(command.nsid)?.shift;
        let (moved, len) = (done << shift, u64::from(command.block_count()) << shift);
        Ok(match self.transfer(host, *command, (moved, PIECE), &mut position, None)? {
            Some(end) => {
                let begun = Begun { done: end >> shift, position };
                self.put_off(*command, Left::After(begun), end - moved)
            }
            None => {
                let writes = NvmOpcode(command.opcode) == NvmOpcode::WRITE;
                // A write that was flushed counts for more.
                let through = if writes && self.is_durable(command.cdw12) { FLUSH_BYTES } else { 0 };
                len - moved + through
            }
        })
    }

    /// Carries out a Verify, or its next piece, after its first `done` blocks.
    pub(super) fn verify(&mut self, command: &Command, done: u64) -> Result<u64, Status> {
        let namespace = *self.namespace(command.nsid)?;
        let (slba, count) = (command.slba(), u64::from(command.block_count()));
        let (offset, len) = namespace.range(slba, count)?;
        self.limits.check(len)?;
        let protection = Protection::of(namespace.layout, command)?;
        refuse_action(protection.as_ref())?;
        let (part, first) = ((count - done).min(PIECE >> namespace.shift), done << namespace.shift);
        self.readable(offset + first, len - first)?;
        if namespace.layout.metadata() == 0 {
            self.each_chunk(offset + first, part << namespace.shift, |_, _, _| Ok(()))?;
        } else {
            self.check_stored(&namespace, protection.as_ref(), slba, done..done + part)?;
        }
        let bytes = part << namespace.shift;
        Ok(match done + part {
            done if done < count => self.put_off(*command, Left::After(done.into()), bytes),
            _ => bytes,
        })
    }

    /// Carries out a Write Zeroes by the fields that matter to blocks without metadata.
    #[cold]
    #[inline(never)]
    pub(super) fn zero_blocks(&mut self, nsid: u32, [cdw10, cdw11, cdw12]: [u32; 3]) -> Result<u64, Status> {
        let command = Command { cdw10, cdw11, cdw12, ..Command::io(NvmOpcode::WRITE_ZEROES, nsid) };
        self.write_zeroes(&command, 0)
    }

    /// Carries out a Write Zeroes, or its next piece, after its first `done` blocks.
    pub(super) fn write_zeroes(&mut self, command: &Command, done: u64) -> Result<u64, Status> {
        let namespace = *self.namespace(command.nsid)?;
        let (slba, count) = (command.slba(), u64::from(command.block_count()));
        let (offset, len) = namespace.range(slba, count)?;
        self.limits.check(len)?;
        let protection = Protection::of(namespace.layout, command)?;
        self.writable()?;
        // Protection information is made and written block by block.
        let most = if protection.is_some() { PIECE } else { ZERO_PIECE };
        let part = (count - done).min(most >> namespace.shift);
        let bytes = part << namespace.shift;
        self.media.zero(offset + (done << namespace.shift), bytes)?;
        self.zero_metadata(&namespace, protection.as_ref(), slba, done..done + part)?;
        if done + part < count {
            return Ok(self.put_off(*command, Left::After((done + part).into()), bytes));
        }
        let through = self.write_through(command.cdw12)?;
        self.written(offset, len);
        Ok(bytes + through)
    }

    /// Dataset Management: deallocates ranges; the other attributes are hints.
    #[cold]
    #[inline(never)]
    pub(super) fn manage(
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
        let fetched = size_of_val(ranges) as u64;
        if !self.media.moves_data() {
            return data.check(self.page, (fetched, false)).map(|()| 0);
        }
        data.fetch(host, self.page, ranges.as_mut_bytes())?;
        // Check all ranges before the first is deallocated.
        self.limits.check_ranges(ranges)?;
        for range in &*ranges {
            namespace.range(range.slba, range.nlb.into())?;
        }
        if !DatasetDword11::from_bits(cdw11).ad() {
            return Ok(fetched);
        }
        let command = Command { cdw10, cdw11, ..Command::io(NvmOpcode::DATASET_MANAGEMENT, nsid) };
        let named =
            ranges.iter().filter(|range| range.nlb > 0).map(|range| (range.slba, u64::from(range.nlb)));
        self.deallocate(command, named).map(|bytes| bytes + RANGE_BYTES * count as u64)
    }

    /// Deallocates ranges, a piece of them at most.
    fn deallocate(
        &mut self,
        command: Command,
        mut ranges: impl Iterator<Item = (u64, u64)>,
    ) -> Result<u64, Status> {
        let namespace = *self.namespace(command.nsid)?;
        self.writable()?;
        self.check_protection(command.nsid)?;
        let (most, mut done) = (ZERO_PIECE >> namespace.shift, 0);
        while let Some((slba, count)) = ranges.next() {
            let part = count.min(most - done);
            let (offset, len) = namespace.range(slba, part)?;
            self.media.zero(offset, len)?;
            self.deallocate_metadata(&namespace, slba, part)?;
            self.written(offset, len);
            done += part;
            if done == most {
                let left = ranges_left((slba, count), part, ranges);
                let bytes = done << namespace.shift;
                return Ok(match left.is_empty() {
                    true => bytes,
                    false => self.put_off(command, Left::Ranges(left), bytes),
                });
            }
        }
        Ok(done << namespace.shift)
    }

    /// Returns the bytes that a command counts for that has failed, by its dwords 10 and 12: no fewer than it may have processed.
    #[cold]
    pub(super) fn tried(&self, opcode: NvmOpcode, nsid: u32, [cdw10, cdw12]: [u32; 2]) -> u64 {
        let Some(namespace) = self.namespaces.get(nsid.wrapping_sub(1) as usize) else { return 0 };
        let named = (u64::from(cdw12 & 0xffff) + 1) << namespace.shift;
        match opcode {
            _ if namespace.keys => u64::from(cdw10).min(self.mdts),
            NvmOpcode::ZONE_APPEND => named.min(self.append_limit),
            NvmOpcode::READ | NvmOpcode::WRITE | NvmOpcode::COMPARE | NvmOpcode::VERIFY => named.min(PIECE),
            NvmOpcode::WRITE_ZEROES => named.min(ZERO_PIECE),
            NvmOpcode::DATASET_MANAGEMENT | NvmOpcode::ZONE_MANAGEMENT_SEND => ZERO_PIECE,
            // Read and written.
            NvmOpcode::COPY => 2 * PIECE,
            NvmOpcode::FLUSH => FLUSH_BYTES,
            _ => 0,
        }
    }
}
