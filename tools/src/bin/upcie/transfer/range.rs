//! The range of blocks of `upcie read` and `upcie write`, in bytes or in blocks.

use super::blocks::Layout;
use crate::{
    structures::parse,
    target::Lists,
    units::{self, Bytes},
};
use anyhow::ensure;
use clap::Args;
use std::time::Duration;
use upcie_nvme::{ControllerBuilder, Namespace};

/// Arguments that both commands have.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// First byte; a multiple of the block size
    #[arg(long, short_alias = 'o', value_name = "BYTES", default_value = "0")]
    offset: Bytes,
    /// Bytes to transfer; a multiple of the block size (K, M, G, T are powers of 1024) [default: to the end of the
    /// namespace, or of the input]
    #[arg(long, short, alias = "size", value_name = "BYTES")]
    length: Option<Bytes>,
    /// First block, instead of --offset
    #[arg(long, short_alias = 's', visible_alias = "start-block", value_name = "LBA", value_parser = parse::<u64>, conflicts_with = "offset")]
    lba: Option<u64>,
    /// Number of blocks, instead of --length
    #[arg(long, value_name = "N", value_parser = parse::<u64>, conflicts_with = "length")]
    blocks: Option<u64>,
    /// Namespace to use [default: the first]
    #[arg(long, short, value_name = "NSID")]
    pub namespace: Option<u32>,
    /// Give up if the device completes nothing for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    pub timeout: Duration,
    #[command(flatten)]
    lists: Lists,
}

/// A range of a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// First block.
    pub first: u64,
    /// Bytes from there to the end of the namespace.
    pub left: u64,
    /// Bytes to transfer, if the user has said how many.
    pub length: Option<u64>,
}

impl RangeArgs {
    /// Returns the options of the controller.
    pub fn builder(&self) -> ControllerBuilder {
        self.lists.builder().timeout(self.timeout)
    }

    /// Returns the option for the first byte or block, as it was typed.
    pub fn start(&self) -> String {
        match self.lba {
            Some(lba) => format!("--lba {lba}"),
            None => format!("--offset {}", self.offset),
        }
    }

    /// Returns the option for the length, as it was typed; `None` without one.
    pub fn length(&self) -> Option<String> {
        match (&self.length, self.blocks) {
            (_, Some(blocks)) => Some(format!("--blocks {blocks}")),
            (Some(length), None) => Some(format!("--length {length}")),
            (None, None) => None,
        }
    }

    /// Checks the range, and returns it in blocks of the files.
    pub fn check(&self, namespace: &Namespace, layout: &Layout) -> anyhow::Result<Span> {
        let (block, nsid) = (layout.block as u64, namespace.nsid());
        let whole = |option: &str, bytes: u64| -> anyhow::Result<u64> {
            ensure!(
                bytes.is_multiple_of(block),
                "{option}: not a multiple of the block size of namespace {nsid}, {block} bytes"
            );
            Ok(bytes / block)
        };
        let start = self.start();
        let first = match self.lba {
            Some(lba) => lba,
            None => whole(&start, self.offset.bytes)?,
        };
        let total = namespace.blocks().saturating_mul(block);
        ensure!(
            first < namespace.blocks(),
            "{start}: namespace {nsid} ends at byte {total} ({}), after {} blocks",
            units::bytes(total),
            namespace.blocks()
        );
        let left = namespace.blocks() - first;
        let wanted = match (&self.length, self.blocks) {
            (_, Some(blocks)) => Some(blocks),
            (Some(length), None) => Some(whole(&format!("--length {length}"), length.bytes)?),
            (None, None) => None,
        };
        if let (Some(blocks), Some(option)) = (wanted, self.length()) {
            ensure!(blocks > 0, "{option}: nothing to do");
            ensure!(
                blocks <= left,
                "{option}: only {} bytes ({}, {left} blocks) of namespace {nsid} are left from {start} on",
                left.saturating_mul(block),
                units::bytes(left.saturating_mul(block))
            );
        }
        Ok(Span {
            first,
            left: left.saturating_mul(block),
            length: wanted.map(|blocks| blocks.saturating_mul(block)),
        })
    }
}
