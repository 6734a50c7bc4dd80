//! `upcie dsm`: Dataset Management: deallocates ranges of blocks, or tells how they will be used.

use super::{
    Which,
    ranges::{BlockRange, pair, parse_range},
};
use crate::{
    guard::{self, Consent},
    manage::common::Effect,
    outcome::Outcome,
    signal,
    structures::parse,
    units::number,
};
use anyhow::ensure;
use clap::Args;
use upcie_nvme::spec::{Command, DatasetDword11, DatasetRange};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie dsm emu --ranges 0+8,64+8 --deallocate
  upcie dsm 0000:01:00.0 --slbs 0,64 --blocks 8,8 --ad --destructive
  upcie dsm 0000:01:00.0 --ranges 0+4096 --idr

Deallocated blocks lose their data; `upcie id ADDR ns` tells what reads of them return (DLFEAT). The
other attributes are hints, and no data is lost.";

/// Arguments of `upcie dsm`.
#[derive(Debug, Args)]
pub struct DsmArgs {
    #[command(flatten)]
    which: Which,
    /// Ranges of blocks, each its first block and the number of blocks
    #[arg(
        long,
        value_name = "LBA+N",
        value_delimiter = ',',
        value_parser = parse_range,
        conflicts_with_all = ["slbs", "blocks"],
        required_unless_present = "slbs"
    )]
    ranges: Vec<BlockRange>,
    /// First block of each range, instead of --ranges
    #[arg(long, short = 's', value_name = "LBAS", value_delimiter = ',', value_parser = parse::<u64>, requires = "blocks")]
    slbs: Vec<u64>,
    /// Number of blocks of each range of --slbs
    #[arg(long, short = 'b', value_name = "NS", value_delimiter = ',', value_parser = parse::<u32>, requires = "slbs")]
    blocks: Vec<u32>,
    /// Context attributes of each range: access hints
    #[arg(long, short = 'a', value_name = "BITS", value_delimiter = ',', value_parser = parse::<u32>)]
    ctx_attrs: Vec<u32>,
    /// Deallocate the blocks: their data is lost
    #[arg(long, short = 'd', visible_alias = "ad")]
    deallocate: bool,
    /// Hint: the ranges will be written together
    #[arg(long, short = 'w')]
    idw: bool,
    /// Hint: the ranges will be read together
    #[arg(long, short = 'r')]
    idr: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Runs `upcie dsm`.
pub fn run(args: &DsmArgs) -> anyhow::Result<Outcome> {
    ensure!(
        args.deallocate || args.idw || args.idr,
        "dsm says nothing without an attribute: give --deallocate (--ad), --idw or --idr"
    );
    let ranges = pair(&args.ranges, &args.slbs, args.blocks.iter().copied(), DatasetRange::MOST)?;
    ensure!(
        args.ctx_attrs.is_empty() || args.ctx_attrs.len() == ranges.len(),
        "--ctx-attrs has {} attributes, and there are {} ranges: give one for each",
        args.ctx_attrs.len(),
        ranges.len()
    );
    let attributes = args.ctx_attrs.iter().copied().chain(std::iter::repeat(0));
    let ranges: Vec<_> =
        ranges.iter().zip(attributes).map(|(range, hints)| described(range, hints)).collect();
    let effect = match args.deallocate {
        true => Effect::Erases(args.which.namespace, "dsm deallocates blocks of"),
        false => Effect::Changes,
    };
    let (controller, namespace) = args.which.open(effect, args.consent)?;
    if args.deallocate {
        guard::check_unprotected(controller.name(), &namespace)?;
    }
    let nsid = namespace.nsid();
    signal::check("nothing was sent")?;
    signal::say_that_it_waits();
    if args.deallocate && !args.idw && !args.idr {
        namespace.deallocate(&ranges)?;
    } else {
        // The library's own call has one attribute.
        let mut command = Command::deallocate(nsid, ranges.len() as u32);
        let attributes = DatasetDword11::new().with_ad(args.deallocate);
        command.cdw11 = attributes.with_idw(args.idw).with_idr(args.idr).into_bits();
        let mut data: Vec<u8> = ranges.iter().flat_map(|range| range.to_bytes()).collect();
        controller.io(&command, &mut data, args.which.common.timeout)?;
    }
    let blocks = ranges.iter().map(|range| u64::from(range.nlb)).sum::<u64>();
    let done = if args.deallocate { "deallocated" } else { "hints were given for" };
    let (said, count) = (number(blocks, "block"), number(ranges.len() as u64, "range"));
    let text = format!("{done} {said} in {count} of namespace {nsid}");
    let fields = [
        ("namespace", nsid.into()),
        ("ranges", ranges.len().into()),
        ("blocks", blocks.into()),
        ("deallocated", args.deallocate.into()),
    ];
    args.which.common.print(controller.name(), &text, &fields)
}

/// Returns a range as the command has it, with access hints.
fn described(range: &BlockRange, hints: u32) -> DatasetRange {
    DatasetRange { attributes: hints, ..DatasetRange::new(range.slba, range.blocks) }
}
