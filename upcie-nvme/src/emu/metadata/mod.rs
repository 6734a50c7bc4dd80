//! Commands of namespaces whose blocks have metadata: Read, Write, Compare and Copy, and the metadata of Verify and Write Zeroes.
//!
//! The metadata of all blocks is behind their data in the namespace's part of the media, so data is where it is without
//! metadata. Bytes of protection information are kept inverted: blocks that were never written, or were deallocated, have
//! all bits set there, which exempts them from checks.

mod buffers;
mod copy;
mod copying;

pub(super) use copying::Copying;

use super::{
    HostMemory,
    checks::Protection,
    io::{Io, PIECE},
    media::{Bytes, Media},
    namespace::Namespace,
    prp::Position,
    rest::{Begun, Left},
};
use crate::spec::{Command, NvmOpcode, Status};
use buffers::{Blocks, Buffers, INVALID_FIELD, Moved};
use std::ops::Range;

/// Blocks that are handled at a time where a command moves no data.
const CHUNK: u64 = 64;

const INVALID_PROTECTION: Status = Status::INVALID_PROTECTION_INFORMATION.with_do_not_retry();

/// A piece of a Read, Write or Compare.
#[derive(Debug)]
struct Piece<'a> {
    namespace: &'a Namespace,
    protection: Option<Protection>,
    command: &'a Command,
    /// The buffers of the whole command.
    buffers: &'a Buffers,
    /// The blocks, counted from the first one of the command.
    range: Range<u64>,
}

impl<M: Media> Io<M> {
    /// Returns `true` if a command is one of this file, at a namespace whose blocks have metadata.
    pub(super) fn has_metadata(&self, command: &Command) -> bool {
        let is_here = matches!(
            NvmOpcode(command.opcode),
            NvmOpcode::READ
                | NvmOpcode::WRITE
                | NvmOpcode::COMPARE
                | NvmOpcode::VERIFY
                | NvmOpcode::WRITE_ZEROES
                | NvmOpcode::COPY
        );
        is_here && self.namespace(command.nsid).is_ok_and(|namespace| namespace.layout.metadata() != 0)
    }

    /// Notes whether any namespace has blocks with metadata: commands take another way then.
    pub(super) fn note_metadata(&mut self) {
        self.any_metadata = self.namespaces.iter().any(|namespace| namespace.layout.metadata() != 0);
        self.note_reservations();
    }

    /// Carries out a command of this file. `flip` is the position of a bit of the data buffer to flip.
    #[cold]
    #[inline(never)]
    pub(super) fn with_metadata(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        flip: Option<u64>,
    ) -> Result<u64, Status> {
        let (opcode, namespace) = (NvmOpcode(command.opcode), *self.namespace(command.nsid)?);
        match opcode {
            NvmOpcode::COPY => return self.copy_blocks(host, &namespace, command),
            NvmOpcode::VERIFY => return self.verify(command, 0),
            NvmOpcode::WRITE_ZEROES => return self.write_zeroes(command, 0),
            _ => {}
        }
        self.move_blocks(host, command, Begun::default(), flip)
    }

    /// Carries out a Read, Write or Compare of blocks with metadata, or its next piece, after those that are done.
    pub(super) fn move_blocks(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        Begun { done, mut position }: Begun,
        flip: Option<u64>,
    ) -> Result<u64, Status> {
        let (opcode, namespace) = (NvmOpcode(command.opcode), *self.namespace(command.nsid)?);
        let (slba, count) = (command.slba(), u64::from(command.block_count()));
        let (offset, len) = namespace.range(slba, count)?;
        let protection = Protection::of(namespace.layout, command)?;
        let moved = Moved::of(namespace.layout, protection.as_ref(), count);
        if moved.data > self.mdts {
            return Err(INVALID_FIELD);
        }
        self.check_prps(command, moved.data)?;
        let buffers = Buffers::of(host, command, self.sgls, self.page, moved)?;
        let flip = flip.map(|bit| (bit % (moved.data * 8) / 8, 1 << (bit % 8)));
        // The bit to flip may be anywhere in the data.
        let most = if flip.is_some() { count } else { PIECE >> namespace.shift };
        let end = done.saturating_add(most).min(count);
        let piece = Piece { namespace: &namespace, protection, command, buffers: &buffers, range: done..end };
        match opcode {
            NvmOpcode::READ => {
                self.readable(offset, len)?;
                self.read_blocks(host, &piece, &mut position, flip)?;
            }
            NvmOpcode::WRITE => {
                self.writable()?;
                self.write_blocks(host, &piece, &mut position, flip)?;
            }
            _ => {
                refuse_action(protection.as_ref())?;
                self.readable(offset, len)?;
                self.compare_blocks(host, &piece, &mut position)?;
            }
        }
        let bytes = moved.data / count * (end - done);
        if end < count {
            return Ok(self.put_off(*command, Left::After(Begun { done: end, position }), bytes));
        }
        let mut through = 0;
        match opcode {
            NvmOpcode::READ => {
                self.counters.reads += 1;
                self.counters.bytes_read += len;
            }
            NvmOpcode::WRITE => {
                through = self.write_through(command.cdw12)?;
                self.written(offset, len);
                self.counters.writes += 1;
                self.counters.bytes_written += len;
            }
            _ => {}
        }
        Ok(bytes + through)
    }

    fn read_blocks(
        &mut self,
        host: &mut impl HostMemory,
        piece: &Piece<'_>,
        position: &mut Position,
        flip: Option<(u64, u8)>,
    ) -> Result<(), Status> {
        let mut blocks = self.load_piece(piece)?;
        let mut all = if piece.buffers.moved.interleaved { blocks.interleaved() } else { blocks.data };
        piece.buffers.put(host, piece.range.start, position, &mut all, &mut blocks.metadata, flip)
    }

    fn write_blocks(
        &mut self,
        host: &mut impl HostMemory,
        piece: &Piece<'_>,
        position: &mut Position,
        flip: Option<(u64, u8)>,
    ) -> Result<(), Status> {
        let Piece { namespace, protection, command, buffers, ref range } = *piece;
        let (slba, first) = (command.slba(), range.start);
        let mut blocks = buffers.fetch(host, namespace.layout, range, position, flip)?;
        match protection {
            Some(protection) if protection.is_action() => blocks.insert(&protection, first),
            protection => self.check(&mut blocks, protection.as_ref(), slba, first)?,
        }
        self.store(namespace, slba + first, blocks)
    }

    fn compare_blocks(
        &mut self,
        host: &mut impl HostMemory,
        piece: &Piece<'_>,
        position: &mut Position,
    ) -> Result<(), Status> {
        let layout = piece.namespace.layout;
        let mut theirs = piece.buffers.fetch(host, layout, &piece.range, position, None)?;
        let mut mine = self.load_piece(piece)?;
        // Protection information is checked, and not compared.
        let place = layout.protection_place();
        let ignore = |blocks: &mut Blocks| {
            for metadata in blocks.metadata.chunks_exact_mut(layout.metadata().max(1)) {
                place
                    .clone()
                    .and_then(|place| metadata.get_mut(place))
                    .into_iter()
                    .for_each(|part| part.fill(0));
            }
        };
        ignore(&mut theirs);
        ignore(&mut mine);
        match mine.data == theirs.data && mine.metadata == theirs.metadata {
            true => Ok(()),
            false => Err(Status::COMPARE_FAILURE),
        }
    }

    /// Reads the blocks of a piece from the media, and checks them.
    fn load_piece(&mut self, piece: &Piece<'_>) -> Result<Blocks, Status> {
        let (slba, first) = (piece.command.slba(), piece.range.start);
        let mut blocks = self.load(piece.namespace, slba + first, piece.range.end - first)?;
        self.check(&mut blocks, piece.protection.as_ref(), slba, first)?;
        Ok(blocks)
    }

    /// Checks blocks on the media: those of `range`, counted from the first one of the command, which is `slba`.
    pub(super) fn check_stored(
        &mut self,
        namespace: &Namespace,
        protection: Option<&Protection>,
        slba: u64,
        range: Range<u64>,
    ) -> Result<(), Status> {
        let mut done = range.start;
        while done < range.end {
            let part = (range.end - done).min(CHUNK);
            let mut blocks = self.load(namespace, slba + done, part)?;
            self.check(&mut blocks, protection, slba, done)?;
            done += part;
        }
        Ok(())
    }

    /// Checks blocks, of which the first is the block `first` behind block `slba`; notes the block that does not pass.
    fn check(
        &mut self,
        blocks: &mut Blocks,
        protection: Option<&Protection>,
        slba: u64,
        first: u64,
    ) -> Result<(), Status> {
        let Some(protection) = protection else { return Ok(()) };
        let checked = blocks.each(|data, metadata, index| protection.check(data, metadata, first + index));
        checked.map_err(|(index, status)| {
            self.failing = Some(slba + index);
            status
        })
    }

    /// Reads blocks from the media.
    fn load(&mut self, namespace: &Namespace, slba: u64, count: u64) -> Result<Blocks, Status> {
        let mut blocks = Blocks::zeros(namespace.layout, count);
        let (offset, _) = namespace.range(slba, count)?;
        let (data, metadata) = (blocks.data.len(), blocks.metadata.len());
        self.media.read(&mut Bytes(&mut blocks.data), offset, 0, data)?;
        if metadata > 0 {
            self.media.read(&mut Bytes(&mut blocks.metadata), namespace.metadata(slba), 0, metadata)?;
        }
        blocks.invert();
        Ok(blocks)
    }

    /// Writes blocks to the media.
    fn store(&mut self, namespace: &Namespace, slba: u64, mut blocks: Blocks) -> Result<(), Status> {
        blocks.invert();
        let (data, metadata) = (blocks.data.len(), blocks.metadata.len());
        let (offset, _) = namespace.range(slba, (data >> namespace.shift) as u64)?;
        self.media.write(&mut Bytes(&mut blocks.data), offset, 0, data)?;
        match metadata {
            0 => Ok(()),
            _ => self.media.write(&mut Bytes(&mut blocks.metadata), namespace.metadata(slba), 0, metadata),
        }
    }

    /// Writes the metadata of zeroed blocks: zeros, and protection information as PRACT says. `range` are the blocks, counted
    /// from the first one of the command, which is `slba`.
    pub(super) fn zero_metadata(
        &mut self,
        namespace: &Namespace,
        protection: Option<&Protection>,
        slba: u64,
        range: Range<u64>,
    ) -> Result<(), Status> {
        let Some(protection) = protection else {
            return self.deallocate_metadata(namespace, slba + range.start, range.end - range.start);
        };
        let mut done = range.start;
        while done < range.end {
            let part = (range.end - done).min(CHUNK);
            let mut blocks = Blocks::zeros(namespace.layout, part);
            if protection.is_action() {
                blocks.insert(protection, done);
            }
            self.store(namespace, slba + done, blocks)?;
            done += part;
        }
        Ok(())
    }

    /// Zeroes the metadata of deallocated blocks, whose protection information has all bits set then.
    pub(super) fn deallocate_metadata(
        &mut self,
        namespace: &Namespace,
        slba: u64,
        count: u64,
    ) -> Result<(), Status> {
        match namespace.layout.metadata() as u64 {
            0 => Ok(()),
            size => self.media.zero(namespace.metadata(slba), count * size),
        }
    }
}

/// Refuses PRACT, for commands that move no protection information.
pub(super) fn refuse_action(protection: Option<&Protection>) -> Result<(), Status> {
    if protection.is_some_and(Protection::is_action) { Err(INVALID_PROTECTION) } else { Ok(()) }
}
