//! The blocks of a command with metadata, and the host's buffers that they come from and go to.

use crate::{
    emu::{
        HostMemory,
        checks::Protection,
        data::{Data, Sgls},
        formats::Layout,
        own_memory::OneMemory,
        prp::Position,
    },
    spec::{Command, SglDescriptor, Status},
};
use std::ops::Range;
use zerocopy::{FromZeros, IntoBytes};

pub(super) const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// The blocks of a command, data and metadata apart.
#[derive(Debug)]
pub(super) struct Blocks {
    layout: Layout,
    pub(super) data: Vec<u8>,
    pub(super) metadata: Vec<u8>,
}

impl Blocks {
    pub(super) fn zeros(layout: Layout, count: u64) -> Self {
        let count = count as usize;
        Self {
            layout,
            data: vec![0; count << layout.format().shift],
            metadata: vec![0; count * layout.metadata()],
        }
    }

    /// Calls `each` for the data and the metadata of each block.
    pub(super) fn each<E>(
        &mut self,
        mut each: impl FnMut(&mut [u8], &mut [u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let (size, metadata) = (1 << self.layout.format().shift, self.layout.metadata().max(1));
        let blocks = self.data.chunks_exact_mut(size).zip(self.metadata.chunks_exact_mut(metadata));
        (0..).zip(blocks).try_for_each(|(index, (data, metadata))| each(data, metadata, index))
    }

    /// Makes the protection information of the blocks, of which the first is the block `first` of the command.
    pub(super) fn insert(&mut self, protection: &Protection, first: u64) {
        let _: Result<(), ()> = self.each(|data, metadata, index| {
            protection.insert(data, metadata, first + index);
            Ok(())
        });
    }

    /// Inverts the bytes of protection information: from the media, or to them.
    pub(super) fn invert(&mut self) {
        if let Some(place) = self.layout.protection_place() {
            for metadata in self.metadata.chunks_exact_mut(self.layout.metadata().max(1)) {
                metadata.get_mut(place.clone()).into_iter().flatten().for_each(|byte| *byte = !*byte);
            }
        }
    }

    /// Returns the bytes that the data buffer has: with the metadata of each block at its end, or without.
    pub(super) fn interleaved(&self) -> Vec<u8> {
        let (size, metadata) = (1 << self.layout.format().shift, self.layout.metadata().max(1));
        let blocks = self.data.chunks_exact(size).zip(self.metadata.chunks_exact(metadata));
        blocks.flat_map(|(data, metadata)| [data, metadata].concat()).collect()
    }

    /// Takes blocks apart that have their metadata at their end.
    pub(super) fn take_apart(&mut self, all: &[u8]) {
        let stride = (1 << self.layout.format().shift) + self.layout.metadata();
        let mut blocks = all.chunks_exact(stride);
        let _: Result<(), ()> = self.each(|data, metadata, _| {
            let (from, rest) = blocks.next().unwrap_or_default().split_at_checked(data.len()).ok_or(())?;
            data.copy_from_slice(from);
            metadata.copy_from_slice(rest);
            Ok(())
        });
    }
}

/// The buffers that a command moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    /// Blocks of the command.
    count: u64,
    /// Bytes of the data buffer.
    pub(super) data: u64,
    /// Bytes of the metadata buffer.
    metadata: u64,
    /// The data buffer has the metadata, too.
    pub(super) interleaved: bool,
}

impl Moved {
    pub(super) fn of(layout: Layout, protection: Option<&Protection>, count: u64) -> Self {
        let (size, metadata) = (1 << layout.format().shift, layout.metadata() as u64);
        let whole = layout.metadata() == usize::from(layout.format().protection_size());
        let stripped = whole && protection.is_some_and(Protection::is_action);
        let (inside, apart) = match (stripped, layout.extended) {
            (true, _) => (0, 0),
            (false, true) => (metadata, 0),
            (false, false) => (0, metadata),
        };
        Self { count, data: count * (size + inside), metadata: count * apart, interleaved: inside != 0 }
    }
}

/// The host's buffers of a command.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) moved: Moved,
    page: u64,
    data: Data,
    metadata: Metadata,
}

/// The host's buffer of metadata.
#[derive(Debug, Clone, Copy)]
enum Metadata {
    /// Contiguous, from this address on.
    At(u64),
    List(Data),
}

impl Buffers {
    pub(super) fn of(
        host: &mut impl HostMemory,
        command: &Command,
        sgls: Sgls,
        page: u64,
        moved: Moved,
    ) -> Result<Self, Status> {
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), sgls)?;
        let mptr = command.mptr();
        let metadata = match command.flags & Command::PSDT {
            Command::PSDT_SGL_METADATA if moved.metadata != 0 => {
                let mut descriptor = SglDescriptor::new_zeroed();
                host.read(mptr, descriptor.as_mut_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                Metadata::List(Data::Sgl(descriptor, sgls))
            }
            0 if moved.metadata != 0 && mptr & 3 != 0 => return Err(INVALID_FIELD),
            _ => Metadata::At(mptr),
        };
        Ok(Self { moved, page, data, metadata })
    }

    /// Returns the bytes of a block in the data buffer, and in that of metadata.
    fn strides(&self) -> (u64, u64) {
        let count = self.moved.count.max(1);
        (self.moved.data / count, self.moved.metadata / count)
    }

    /// Reads blocks of a command from the host: those of `range`, counted from the first one, at `position` in the
    /// data.
    pub(super) fn fetch(
        &self,
        host: &mut impl HostMemory,
        layout: Layout,
        range: &Range<u64>,
        position: &mut Position,
        flip: Option<(u64, u8)>,
    ) -> Result<Blocks, Status> {
        let ((data, metadata), count) = (self.strides(), range.end - range.start);
        let mut blocks = Blocks::zeros(layout, count);
        let mut all = vec![0; (count * data) as usize];
        let mut memory = OneMemory::of(host);
        self.data.fetch_part(
            &mut memory,
            host,
            self.page,
            (self.moved.data, range.start * data),
            position,
            &mut all,
        )?;
        flip_bit(&mut all, flip);
        match self.moved.interleaved {
            true => blocks.take_apart(&all),
            false => blocks.data = all,
        }
        if self.moved.metadata != 0 {
            let first = range.start * metadata;
            match self.metadata {
                Metadata::At(mptr) => {
                    memory.check(mptr, self.moved.metadata as usize)?;
                    let read = host.read(mptr.wrapping_add(first), &mut blocks.metadata);
                    read.map_err(|_| Status::DATA_TRANSFER_ERROR)?;
                }
                Metadata::List(list) => {
                    let place = (self.moved.metadata, first);
                    let start = &mut Position::default();
                    list.fetch_part(&mut memory, host, self.page, place, start, &mut blocks.metadata)?;
                }
            }
        }
        Ok(blocks)
    }

    /// Writes the bytes of blocks to both buffers of the host, from the block `first` of the command on, at `position`
    /// in the data.
    pub(super) fn put(
        &self,
        host: &mut impl HostMemory,
        first: u64,
        position: &mut Position,
        all: &mut [u8],
        metadata: &mut [u8],
        flip: Option<(u64, u8)>,
    ) -> Result<(), Status> {
        flip_bit(all, flip);
        let strides = self.strides();
        let mut memory = OneMemory::of(host);
        let place = (self.moved.data, first * strides.0);
        self.data.store_part(&mut memory, host, self.page, place, position, all)?;
        if self.moved.metadata == 0 {
            return Ok(());
        }
        let first = first * strides.1;
        match self.metadata {
            Metadata::At(mptr) => {
                memory.check(mptr, self.moved.metadata as usize)?;
                let written = host.write(mptr.wrapping_add(first), metadata);
                written.map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Metadata::List(list) => {
                let place = (self.moved.metadata, first);
                list.store_part(&mut memory, host, self.page, place, &mut Position::default(), metadata)
            }
        }
    }
}

/// Flips a bit of one of the bytes, if they have that one.
fn flip_bit(bytes: &mut [u8], flip: Option<(u64, u8)>) {
    if let Some((byte, bit)) = flip.and_then(|(at, bit)| Some((bytes.get_mut(at as usize)?, bit))) {
        *byte ^= bit;
    }
}
