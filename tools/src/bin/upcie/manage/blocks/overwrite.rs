//! `upcie write-zeroes` and `upcie write-uncor`: blocks overwritten without a transfer.

use super::{BlocksArgs, Which, name_of, protect, run};
use crate::{
    guard::{self, Consent},
    manage::common::Effect,
    outcome::Outcome,
    prinfo::ProtectionArgs,
    structures::parse,
    target,
    units::number,
};
use anyhow::ensure;
use clap::Args;
use upcie_nvme::{IoFlags, Zeroes, spec::NvmOpcode};

/// Text below the options of `upcie write-zeroes --help`.
pub const ZEROES_EXAMPLES: &str = "\
Examples:
  upcie write-zeroes 0000:01:00.0 --lba 2048 --blocks 8 --destructive
  upcie write-zeroes 0000:01:00.0 --start-block 0 --block-count 0xffff --deac --destructive

One block is zeroed if no number is given.";

/// Text below the options of `upcie write-uncor --help`.
pub const UNCOR_EXAMPLES: &str = "\
Examples:
  upcie write-uncor 0000:01:00.0 --lba 2048 --blocks 8 --destructive
  upcie write-uncor 0000:01:00.0 --start-block 2048 --block-count 7 --destructive

Reads of the blocks fail until they are written: to try how a program takes that. One block is meant
if no number is given.";

/// Arguments of `upcie write-zeroes`.
#[derive(Debug, Args)]
pub struct ZeroesArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    range: BlocksArgs,
    /// Let the controller deallocate the blocks, if they read as zeros then
    #[arg(long, short = 'd', visible_alias = "deac")]
    deallocate: bool,
    /// Force unit access: the zeros go to the media, past a volatile cache
    #[arg(long, short = 'f', visible_alias = "fua")]
    force_unit_access: bool,
    /// Limited retry: the controller gives up sooner
    #[arg(long, short = 'l')]
    limited_retry: bool,
    /// Placement identifier of the zeros: `upcie fdp status` lists those of the namespace
    #[arg(long, value_name = "PID", value_parser = parse::<u16>)]
    placement: Option<u16>,
    #[command(flatten)]
    protection: ProtectionArgs,
    #[command(flatten)]
    consent: Consent,
}

/// Arguments of `upcie write-uncor`.
#[derive(Debug, Args)]
pub struct UncorArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    range: BlocksArgs,
    #[command(flatten)]
    consent: Consent,
}

/// Runs `upcie write-zeroes`.
pub fn run_zeroes(args: &ZeroesArgs) -> anyhow::Result<Outcome> {
    let effect = Effect::Erases(args.which.namespace, "write-zeroes overwrites blocks of");
    let (controller, namespace) = args.which.open(effect, args.consent)?;
    guard::check_unprotected(controller.name(), &namespace)?;
    let (slba, count) = (args.range.start_block, args.range.count());
    let (most, end) = (namespace.max_write_zeroes(), slba.saturating_add(count.into()));
    ensure!(
        most == 0 || count <= most || end > namespace.blocks(),
        "{}: {}: the controller zeroes {} at most in one command; nothing was written: zero them in parts",
        controller.name(),
        number(count.into(), "block"),
        number(most.into(), "block")
    );
    target::check_placement(&namespace, args.placement.as_slice())?;
    let mut flags = IoFlags::empty();
    flags.set(IoFlags::DEALLOCATE, args.deallocate);
    flags.set(IoFlags::FUA, args.force_unit_access);
    flags.set(IoFlags::LIMITED_RETRY, args.limited_retry);
    let mut zeroes = Zeroes::new(&namespace, slba, count).flags(flags);
    if let Some(identifier) = args.placement {
        zeroes = zeroes.placement(identifier);
    }
    if let Some(protect) = protect(&args.protection, &namespace)? {
        zeroes = zeroes.protect(protect);
    }
    let what = name_of(NvmOpcode::WRITE_ZEROES, &args.range, count, &namespace);
    run(&args.which, &controller, &what, |turn| turn.write_zeroes(zeroes, ()))?;
    let text = format!("zeroed {}", args.range.describe(count, &namespace));
    let fields = [("namespace", namespace.nsid().into()), ("slba", slba.into()), ("blocks", count.into())];
    args.which.common.print(controller.name(), &text, &fields)
}

/// Runs `upcie write-uncor`.
pub fn run_uncor(args: &UncorArgs) -> anyhow::Result<Outcome> {
    let effect = Effect::Erases(args.which.namespace, "write-uncor makes blocks unreadable of");
    let (controller, namespace) = args.which.open(effect, args.consent)?;
    guard::check_unprotected(controller.name(), &namespace)?;
    let (slba, count) = (args.range.start_block, args.range.count());
    let what = name_of(NvmOpcode::WRITE_UNCORRECTABLE, &args.range, count, &namespace);
    run(&args.which, &controller, &what, |turn| turn.write_uncorrectable(&namespace, slba, count, ()))?;
    let text = format!("unreadable until they are written: {}", args.range.describe(count, &namespace));
    let fields = [("namespace", namespace.nsid().into()), ("slba", slba.into()), ("blocks", count.into())];
    args.which.common.print(controller.name(), &text, &fields)
}
