//! Metadata and protection of the blocks that `upcie read` and `upcie write` move.

use crate::{
    prinfo::{self, ACTION, parse_prinfo},
    structures, target,
};
use anyhow::{bail, ensure};
use clap::Args;
use std::path::PathBuf;
use upcie_nvme::{
    Controller, Direction, Io, Namespace,
    protection::{BlockFormat, Protect, ProtectionType},
};

/// Arguments that both commands have.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// File of the metadata of all blocks, one after the other; FILE has the data alone then
    #[arg(long, short = 'M', value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Protection information, the sum of 8: the controller makes and strips it; 4, 2, 1: it checks guard, application tag,
    /// reference tag
    #[arg(long, short = 'p', value_name = "BITS", value_parser = parse_prinfo)]
    prinfo: Option<u8>,
    /// Application tag that the blocks get, or are checked for [default: 0]
    #[arg(long, short = 'a', value_name = "TAG", value_parser = structures::parse::<u16>)]
    app_tag: Option<u16>,
    /// Bits of the application tag that are checked [default: 0xffff]
    #[arg(long, value_name = "MASK", value_parser = structures::parse::<u16>)]
    app_tag_mask: Option<u16>,
    /// Reference tag of the first block [default: its number; 0 with protection type 3]
    #[arg(long, short = 'r', value_name = "TAG", value_parser = structures::parse::<u64>)]
    ref_tag: Option<u64>,
}

impl BlockArgs {
    /// Returns the first option about protection, if there is one.
    fn first_of_protection(&self) -> Option<&'static str> {
        [
            ("--prinfo", self.prinfo.is_some()),
            ("--app-tag", self.app_tag.is_some()),
            ("--app-tag-mask", self.app_tag_mask.is_some()),
            ("--ref-tag", self.ref_tag.is_some()),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Returns the protection of commands, without the reference tag.
    fn protect(&self) -> Protect {
        prinfo::protect(self.prinfo.unwrap_or(0))
            .application_tag(self.app_tag.unwrap_or(0))
            .application_mask(self.app_tag_mask.unwrap_or(u16::MAX))
    }
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
        if let Some(option) = args.first_of_protection()
            && format.protection().is_none()
        {
            bail!(
                "{option} is for protection information, which blocks of {format} do not have: leave it out, or use `upcie \
                 format` with --protection"
            );
        }
        ensure!(
            !has_file || format.metadata_size() != 0,
            "--metadata: blocks of {format} have none: leave it out, or use `upcie format` with --metadata BYTES"
        );
        let protection = format.protection();
        let kind = protection.map(|protection| protection.kind());
        let bits = args.prinfo.unwrap_or(0);
        if kind == Some(ProtectionType::Type3) && bits & 1 != 0 {
            bail!(
                "--prinfo {bits}: with protection type 3 the reference tag is the application's, and controllers refuse to \
                 check it: give {}",
                bits & !1
            );
        }
        let acts = bits & ACTION != 0;
        // Without options, the driver lets the controller insert and strip what is apart.
        let is_implied = args.first_of_protection().is_none() && format.is_separate() && !has_file;
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
        let protect = args.first_of_protection().map(|_| args.protect());
        let moved = if is_stripped { format.data_size() } else { format.transfer_size() };
        let metadata = if has_file { format.metadata_size() } else { 0 };
        Ok(Self {
            block: if has_file { format.data_size() } else { moved },
            moved,
            data: format.data_size(),
            metadata,
            is_apart: metadata != 0 && format.is_separate(),
            is_made: acts,
            protect,
            reference: args.ref_tag.map(|tag| (tag, kind != Some(ProtectionType::Type3))),
        })
    }

    /// Returns a command for the blocks from `slba` on, of a copy that begins at block `first`.
    pub fn io<'n>(&self, direction: Direction, namespace: &'n Namespace, slba: u64, first: u64) -> Io<'n> {
        let io = Io::new(direction, namespace, slba);
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
