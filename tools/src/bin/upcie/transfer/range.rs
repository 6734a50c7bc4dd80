//! The range of blocks of `upcie read` and `upcie write`.

use super::blocks::Layout;
use crate::units::{self, Bytes};
use anyhow::ensure;
use clap::Args;
use std::time::Duration;
use upcie_nvme::Namespace;

/// Arguments that both commands have.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// First byte; a multiple of the block size
    #[arg(long, short_alias = 'o', value_name = "BYTES", default_value = "0")]
    pub offset: Bytes,
    /// Bytes to transfer; a multiple of the block size (K, M, G, T are powers of 1024) [default: to the end of the
    /// namespace, or of the input]
    #[arg(long, short, alias = "size", value_name = "BYTES")]
    pub length: Option<Bytes>,
    /// Namespace to use [default: the first]
    #[arg(long, short, value_name = "NSID")]
    pub namespace: Option<u32>,
    /// Give up if the device completes nothing for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    pub timeout: Duration,
}

impl RangeArgs {
    /// Checks the range; returns the bytes from the offset to the end of the namespace.
    pub fn check(&self, namespace: &Namespace, layout: &Layout) -> anyhow::Result<u64> {
        let block = layout.block as u64;
        let total = namespace.blocks().saturating_mul(block);
        let nsid = namespace.nsid();
        let whole = |name: &str, value: &Bytes| -> anyhow::Result<()> {
            ensure!(
                value.bytes.is_multiple_of(block),
                "{name} {value}: not a multiple of the block size of namespace {nsid}, {block} bytes"
            );
            Ok(())
        };
        let Self { offset, .. } = self;
        whole("--offset", offset)?;
        ensure!(
            offset.bytes < total,
            "--offset {offset}: namespace {nsid} ends at byte {total} ({})",
            units::bytes(total)
        );
        let left = total - offset.bytes;
        if let Some(length) = &self.length {
            whole("--length", length)?;
            ensure!(length.bytes > 0, "--length {length}: nothing to do");
            ensure!(
                length.bytes <= left,
                "--length {length}: only {left} bytes ({}) of namespace {nsid} are left from --offset {offset} on",
                units::bytes(left)
            );
        }
        Ok(left)
    }
}
