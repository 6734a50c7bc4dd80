//! Metadata and protection of the blocks that `upcie read` and `upcie write` move.

use crate::{
    prinfo::{ACTION, ProtectionArgs},
    target,
};
use anyhow::ensure;
use clap::Args;
use std::path::PathBuf;
use upcie_nvme::{
    Controller, Direction, Io, IoFlags, Namespace,
    protection::{BlockFormat, Protect, ProtectionType},
};

/// Arguments that both commands have.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// File of the metadata of all blocks, one after the other; FILE has the data alone then
    #[arg(long, short = 'M', value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Force unit access: each command goes to the media, past a volatile cache
    #[arg(long, short_alias = 'f', visible_alias = "force-unit-access")]
    fua: bool,
    #[command(flatten)]
    protection: ProtectionArgs,
}

/// The blocks of a namespace in files and in the buffers of commands.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Bytes of a block in the file of data.
    pub block: usize,
    /// Bytes of a block in the data buffer of a command.
    pub moved: usize,
    /// Bytes of data of a block.
    data: usize,
    /// Bytes of a block in the file of metadata; 0 if there is none.
    pub metadata: usize,
    /// Metadata has a buffer of its own.
    pub is_apart: bool,
    /// The controller changes the metadata that it is given.
    pub is_made: bool,
    /// Flags of all commands.
    flags: IoFlags,
    protect: Option<Protect>,
    /// The reference tag of the first block, if it is the user's, and whether it counts up.
    reference: Option<(u64, bool)>,
}

impl Layout {
    /// Opens the namespace, and decides how its blocks are moved.
    ///
    /// # Errors
    /// Fails if the arguments don't fit the namespace's blocks; the error says what to give.
    pub fn open(
        controller: &Controller,
        nsid: Option<u32>,
        args: &BlockArgs,
    ) -> anyhow::Result<(Namespace, Self)> {
        let namespace = target::namespace(controller, nsid)?;
        let layout = Self::of(namespace.format(), args).map_err(|error| {
            error.context(format!("{}: namespace {}", controller.name(), namespace.nsid()))
        })?;
        Ok((namespace, layout))
    }

    fn of(format: &BlockFormat, args: &BlockArgs) -> anyhow::Result<Self> {
        let has_file = args.metadata.is_some();
        let protect = args.protection.of(format)?;
        ensure!(
            !has_file || format.metadata_size() != 0,
            "--metadata: blocks of {format} have none: leave it out, or use `upcie format` with --metadata BYTES"
        );
        let kind = format.protection().map(|protection| protection.kind());
        let bits = args.protection.bits();
        let acts = bits & ACTION != 0;
        // Without options, the driver lets the controller insert and strip what is apart.
        let is_implied = protect.is_none() && format.is_separate() && !has_file;
        let is_stripped = format.is_stripped() && (acts || is_implied);
        ensure!(
            !has_file || !is_stripped,
            "--metadata: with --prinfo {bits} the controller makes and strips all of it: leave one of both out"
        );
        ensure!(
            has_file || is_stripped || !format.is_separate(),
            "blocks of {format}: --metadata FILE moves the metadata; `upcie format` with --extended-metadata puts it at the \
             end of each block, with --metadata 0 there is none"
        );
        let moved = if is_stripped { format.data_size() } else { format.transfer_size() };
        let metadata = if has_file { format.metadata_size() } else { 0 };
        Ok(Self {
            block: if has_file { format.data_size() } else { moved },
            moved,
            data: format.data_size(),
            metadata,
            is_apart: metadata != 0 && format.is_separate(),
            is_made: acts,
            flags: if args.fua { IoFlags::FUA } else { IoFlags::empty() },
            protect,
            reference: args.protection.reference().map(|tag| (tag, kind != Some(ProtectionType::Type3))),
        })
    }

    /// Returns a command for the blocks from `slba` on, of a copy that begins at block `first`.
    pub fn io<'n>(&self, direction: Direction, namespace: &'n Namespace, slba: u64, first: u64) -> Io<'n> {
        let io = Io::new(direction, namespace, slba).flags(self.flags);
        let Some(protect) = self.protect else { return io };
        io.protect(match self.reference {
            None => protect,
            Some((tag, counts)) => {
                protect.reference_tag(if counts { tag.wrapping_add(slba - first) } else { tag })
            }
        })
    }

    /// Returns `true` if the bytes of a block go to two files and are one in the buffer.
    pub fn is_split(&self) -> bool {
        self.metadata != 0 && !self.is_apart
    }

    /// Returns `true` if the controller changes bytes of the file of data.
    pub fn changes_data(&self) -> bool {
        self.is_made && self.metadata == 0 && self.moved != self.data
    }

    /// Takes blocks with metadata at their end apart: data, and metadata.
    pub fn split(&self, blocks: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let blocks = || blocks.chunks_exact(self.moved).map(|block| block.split_at(self.block));
        (
            blocks().flat_map(|(data, _)| data).copied().collect(),
            blocks().flat_map(|(_, more)| more).copied().collect(),
        )
    }

    /// Puts data and metadata of blocks together.
    pub fn join(&self, data: &[u8], metadata: &[u8], blocks: &mut [u8]) {
        let parts = data.chunks_exact(self.block).zip(metadata.chunks_exact(self.metadata.max(1)));
        for (block, (data, metadata)) in blocks.chunks_exact_mut(self.moved).zip(parts) {
            let (first, second) = block.split_at_mut(self.block);
            first.copy_from_slice(data);
            second.copy_from_slice(metadata);
        }
    }
}
