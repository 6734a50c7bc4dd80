//! `upcie compare` and `upcie verify`: blocks compared with a file, or checked by the controller.

use super::{BlocksArgs, Which, failed, name_of, protect, send};
use crate::{
    files::{Place, read_input},
    guard::Consent,
    input,
    manage::common::Effect,
    outcome::Outcome,
    prinfo::ProtectionArgs,
    target, units,
};
use anyhow::{Context, ensure};
use clap::Args;
use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};
use upcie_nvme::spec::{NvmOpcode, Status, StatusType};

/// Text below the options of `upcie compare --help`.
pub const COMPARE_EXAMPLES: &str = "\
Examples:
  upcie compare 0000:01:00.0 --data blocks.bin
  upcie compare 0000:01:00.0 --lba 2048 --blocks 8 --data blocks.bin --json
  upcie compare 0000:01:00.0 --start-block 2048 --block-count 7 --data-size 4096 --data blocks.bin

The controller compares, and the blocks are not read to the host. The exit code is 3 if they differ.";

/// Text below the options of `upcie verify --help`.
pub const VERIFY_EXAMPLES: &str = "\
Examples:
  upcie verify 0000:01:00.0 --lba 2048 --blocks 8
  upcie verify 0000:01:00.0 --start-block 0 --block-count 0xffff --prinfo 5

The controller reads the blocks and checks them; nothing is transferred. The exit code is 3 if they
can't be read, or do not pass a check.";

/// Arguments of `upcie compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    range: BlocksArgs,
    /// File to compare with, or - for stdin
    #[arg(long, short = 'd', value_name = "FILE", default_value = "-")]
    data: PathBuf,
    /// Bytes of the file to compare [default: all, or as many as the blocks have]
    #[arg(long, short = 'z', value_name = "BYTES", value_parser = units::parse_bytes)]
    data_size: Option<u64>,
}

/// Arguments of `upcie verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    range: BlocksArgs,
    #[command(flatten)]
    protection: ProtectionArgs,
}

/// Runs `upcie compare`.
pub fn run_compare(args: &CompareArgs) -> anyhow::Result<Outcome> {
    let is_typed = matches!(Place::input(&args.data), Place::Stdin) && io::stdin().is_terminal();
    ensure!(!is_typed, "nothing to compare with: name a file (--data), or pipe data in");
    let (name, mut data) = read_input(&args.data, input::COMMAND)?;
    let mut cut = |bytes: u64, asked: &str| -> anyhow::Result<()> {
        let len = data.len();
        ensure!(
            bytes <= len as u64,
            "{name} has {len} bytes, less than {bytes} ({asked}); nothing was compared"
        );
        data.truncate(bytes as usize);
        Ok(())
    };
    if let Some(size) = args.data_size {
        cut(size, "--data-size")?;
    }
    let (controller, namespace) = args.which.open(Effect::Reads, Consent::default())?;
    let block = namespace.block_size();
    if let Some(count) = args.range.given() {
        cut(u64::from(count) * block as u64, "the blocks that are asked for")?;
    }
    ensure!(
        !data.is_empty() && data.len().is_multiple_of(block),
        "{name} has {} bytes, not a positive multiple of the block size, {block} bytes; nothing was compared",
        data.len()
    );
    ensure!(
        data.len() <= namespace.max_transfer(),
        "{name} has {}, and one command compares {} at most; nothing was compared: compare it in parts",
        units::bytes(data.len() as u64),
        units::bytes(namespace.max_transfer() as u64)
    );
    let count = (data.len() / block) as u32;
    let buffer = target::memory_of(&controller, &data)?;
    let what = name_of(NvmOpcode::COMPARE, &args.range, count, &namespace);
    let slba = args.range.start_block;
    let status = send(&args.which, &controller, &what, |turn| turn.compare(&namespace, slba, buffer, ()))?;
    let equal = match status {
        Err(status) if status == Status::COMPARE_FAILURE => false,
        status => {
            status.with_context(|| failed(&controller, &what))?;
            true
        }
    };
    let is = if equal { "have the bytes of" } else { "differ from" };
    let text = format!("{} {is} {name}", args.range.describe(count, &namespace));
    let fields = [
        ("namespace", namespace.nsid().into()),
        ("slba", slba.into()),
        ("blocks", count.into()),
        ("equal", equal.into()),
    ];
    args.which.common.print(controller.name(), &text, &fields)?;
    Ok(if equal { Outcome::Done } else { Outcome::Faults })
}

/// Runs `upcie verify`.
pub fn run_verify(args: &VerifyArgs) -> anyhow::Result<Outcome> {
    let (controller, namespace) = args.which.open(Effect::Reads, Consent::default())?;
    let protect = protect(&args.protection, &namespace)?;
    let (slba, count) = (args.range.start_block, args.range.count());
    let what = name_of(NvmOpcode::VERIFY, &args.range, count, &namespace);
    let status = send(&args.which, &controller, &what, |turn| match protect {
        Some(protect) => turn.verify_protected(&namespace, slba, count, protect, ()),
        None => turn.verify(&namespace, slba, count, ()),
    })?;
    let found = match status {
        Err(status) if status.code_type() == StatusType::MEDIA => Some(status.to_string()),
        status => {
            status.with_context(|| failed(&controller, &what))?;
            None
        }
    };
    let blocks = args.range.describe(count, &namespace);
    let text = match &found {
        None => format!("{blocks} were verified"),
        Some(found) => format!("{blocks} did not pass: {found}"),
    };
    let outcome = if found.is_none() { Outcome::Done } else { Outcome::Faults };
    let fields = [
        ("namespace", namespace.nsid().into()),
        ("slba", slba.into()),
        ("blocks", count.into()),
        ("verified", found.is_none().into()),
        ("error", found.into()),
    ];
    args.which.common.print(controller.name(), &text, &fields)?;
    Ok(outcome)
}
