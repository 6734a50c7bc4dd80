//! `upcie copy`: the controller copies blocks within a namespace.

use super::{
    Which, failed,
    ranges::{BlockRange, pair, parse_range},
    send,
};
use crate::{
    guard::{self, Consent},
    manage::common::Effect,
    outcome::Outcome,
    prinfo::{self, ACTION, parse_prinfo},
    structures::parse,
    target,
    units::number,
};
use anyhow::{Context, ensure};
use clap::Args;
use upcie_nvme::{
    Namespace, Refusal,
    protection::Protect,
    spec::{CopyRange, IdentifyNamespace, NvmOpcode, Status, WideCopyRange},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie copy emu --ranges 0+8,64+8 --to 512
  upcie copy 0000:01:00.0 --slbs 0,64 --blocks 7,7 --sdlba 512 --destructive
  upcie copy 0000:01:00.0 --ranges 0+8 --to 512 --prinfor 5 --prinfow 8 --destructive
  upcie copy 0000:01:00.0 --ranges 0+8,64+8 --to 512 --prinfor 2 -A 7,9 --destructive

The ranges follow each other at the target. The data does not come to the host. --blocks counts from
0 as nvme-cli has it: 7 are eight blocks. Protection information keeps the reference tags of the
old place, so checks of these tags fail, unless --prinfow has 8.";

/// Arguments of `upcie copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    #[command(flatten)]
    which: Which,
    /// First block of the target
    #[arg(long, short = 'd', visible_alias = "to", value_name = "LBA", value_parser = parse::<u64>)]
    sdlba: u64,
    /// Source ranges, each its first block and the number of blocks
    #[arg(
        long,
        value_name = "LBA+N",
        value_delimiter = ',',
        value_parser = parse_range,
        conflicts_with_all = ["slbs", "blocks"],
        required_unless_present = "slbs"
    )]
    ranges: Vec<BlockRange>,
    /// First block of each source range, instead of --ranges
    #[arg(long, short = 's', value_name = "LBAS", value_delimiter = ',', value_parser = parse::<u64>, requires = "blocks")]
    slbs: Vec<u64>,
    /// Blocks of each range of --slbs, 0's based as nvme-cli has it
    #[arg(long, short = 'b', value_name = "NS", value_delimiter = ',', value_parser = parse::<u16>, requires = "slbs")]
    blocks: Vec<u16>,
    /// Checks of the protection information that is read, the sum of 4, 2, 1: guard, application tag, reference tag
    #[arg(long, short = 'P', value_name = "BITS", value_parser = parse_prinfo)]
    prinfor: Option<u8>,
    /// Protection information that is written, the sum of 8: the controller makes it anew; 4, 2, 1: checks
    #[arg(long, short = 'p', value_name = "BITS", value_parser = parse_prinfo)]
    prinfow: Option<u8>,
    #[command(flatten)]
    tags: TagArgs,
    /// Placement identifier of the target: `upcie fdp status` lists those of the namespace
    #[arg(long, value_name = "PID", value_parser = parse::<u16>, conflicts_with_all = ["prinfor", "prinfow", "TagArgs"])]
    placement: Option<u16>,
    #[command(flatten)]
    consent: Consent,
}

/// The tags of the blocks that are read, and of those that are written.
#[derive(Debug, Args)]
struct TagArgs {
    /// Reference tag that the first block of each range is checked for [default: its number; 0 with protection type 3]
    #[arg(long, short = 'R', value_name = "TAGS", value_delimiter = ',', value_parser = parse::<u64>)]
    expected_ref_tags: Vec<u64>,
    /// Application tag that each range is checked for [default: 0]
    #[arg(long, short = 'A', value_name = "TAGS", value_delimiter = ',', value_parser = parse::<u16>)]
    expected_app_tags: Vec<u16>,
    /// Bits of the application tag of each range that are checked [default: 0xffff]
    #[arg(
        long,
        short = 'M',
        visible_alias = "expected-app-masks",
        value_name = "MASKS",
        value_delimiter = ',',
        value_parser = parse::<u16>
    )]
    expected_app_tag_masks: Vec<u16>,
    /// Reference tag of the first block that is written [default: its number; 0 with protection type 3]
    #[arg(long, short = 'r', value_name = "TAG", value_parser = parse::<u64>)]
    ref_tag: Option<u64>,
    /// Application tag of the blocks that are written [default: 0]
    #[arg(long, short = 'a', value_name = "TAG", value_parser = parse::<u16>)]
    app_tag: Option<u16>,
    /// Bits of that application tag that are checked [default: 0xffff]
    #[arg(long, short = 'm', visible_alias = "app-mask", value_name = "MASK", value_parser = parse::<u16>)]
    app_tag_mask: Option<u16>,
}

impl TagArgs {
    /// Returns the options whose values are those of one range each, and their number of values.
    fn lists(&self) -> [(&'static str, usize); 3] {
        [
            ("--expected-ref-tags", self.expected_ref_tags.len()),
            ("--expected-app-tags", self.expected_app_tags.len()),
            ("--expected-app-tag-masks", self.expected_app_tag_masks.len()),
        ]
    }

    /// Returns the first option that is given.
    fn first(&self) -> Option<&'static str> {
        let of_target = [
            ("--ref-tag", usize::from(self.ref_tag.is_some())),
            ("--app-tag", usize::from(self.app_tag.is_some())),
            ("--app-tag-mask", usize::from(self.app_tag_mask.is_some())),
        ];
        let all = self.lists().into_iter().chain(of_target);
        all.into_iter().find_map(|(option, values)| (values > 0).then_some(option))
    }

    /// Adds the tags that the blocks of range `index` are checked for.
    fn of_source(&self, protect: Protect, index: usize) -> Protect {
        let tag = self.expected_ref_tags.get(index).copied();
        let (application, mask) = (self.expected_app_tags.get(index), self.expected_app_tag_masks.get(index));
        with_tags(protect, tag, application.copied(), mask.copied())
    }

    /// Adds the tags of the blocks that are written.
    fn of_target(&self, protect: Protect) -> Protect {
        with_tags(protect, self.ref_tag, self.app_tag, self.app_tag_mask)
    }
}

/// Adds the tags that are given.
fn with_tags(
    mut protect: Protect,
    reference: Option<u64>,
    application: Option<u16>,
    mask: Option<u16>,
) -> Protect {
    if let Some(tag) = reference {
        protect = protect.reference_tag(tag);
    }
    if let Some(tag) = application {
        protect = protect.application_tag(tag);
    }
    match mask {
        Some(mask) => protect.application_mask(mask),
        None => protect,
    }
}

/// Runs `upcie copy`.
pub fn run(args: &CopyArgs) -> anyhow::Result<Outcome> {
    let counts = args.blocks.iter().map(|&last| u32::from(last) + 1);
    let named = pair(&args.ranges, &args.slbs, counts, CopyRange::MOST)?;
    let ranges = named.iter().map(described).collect::<anyhow::Result<Vec<_>>>()?;
    let effect = Effect::Erases(args.which.namespace, "copy overwrites blocks of");
    let (controller, namespace) = args.which.open(effect, args.consent)?;
    guard::check_unprotected(controller.name(), &namespace)?;
    target::check_placement(&namespace, args.placement.as_slice())?;
    let (nsid, to) = (namespace.nsid(), args.sdlba);
    let blocks = named.iter().map(|range| u64::from(range.blocks)).sum::<u64>();
    let (said, count) = (number(blocks, "block"), number(ranges.len() as u64, "range"));
    let said = format!("{said} in {count} to block {to} of namespace {nsid}");
    let what = format!("{} of {said}", NvmOpcode::COPY);
    let sent = match protection(args, &namespace, &ranges)? {
        Some((sources, target)) => {
            let memory = controller.alloc(sources.len() * size_of::<WideCopyRange>())?;
            send(&args.which, &controller, &what, |turn| {
                turn.copy_protected(&namespace, &sources, memory, to, target, ())
            })
        }
        None => {
            let listed: Vec<u8> = ranges.iter().flat_map(|range| range.to_bytes()).collect();
            let memory = target::memory_of(&controller, &listed)?;
            send(&args.which, &controller, &what, |turn| match args.placement {
                Some(identifier) => turn.copy_placed(&namespace, memory, ranges.len(), to, identifier, ()),
                None => turn.copy(&namespace, memory, ranges.len(), to, ()),
            })
        }
    };
    let status = match sent {
        Err(error) if matches!(error.downcast_ref(), Some(Refusal::CopyLimits)) => {
            let limits = limits(namespace.identify());
            return Err(error.context(format!("{}: {what} is too long{limits}", controller.name())));
        }
        sent => sent?,
    };
    let limits = match status {
        Err(status) if status == Status::COMMAND_SIZE_LIMIT_EXCEEDED => limits(namespace.identify()),
        _ => String::new(),
    };
    status.with_context(|| format!("{}{limits}", failed(&controller, &what)))?;
    let fields = [
        ("namespace", nsid.into()),
        ("slba", to.into()),
        ("ranges", ranges.len().into()),
        ("blocks", blocks.into()),
    ];
    args.which.common.print(controller.name(), &format!("copied {said}"), &fields)
}

/// Returns a source range as the command has it.
fn described(range: &BlockRange) -> anyhow::Result<CopyRange> {
    let BlockRange { slba, blocks } = *range;
    ensure!(
        (1..=65536).contains(&blocks),
        "--ranges {slba}+{blocks}: a range of a copy has 1 to 65536 blocks"
    );
    Ok(CopyRange::new(slba, blocks))
}

/// Each range with the protection of its blocks, and the protection of the blocks that are written.
type Protection = (Vec<(CopyRange, Protect)>, Protect);

/// Returns the ranges with the protection of the blocks that are read, and that of those that are written; `None` if
/// none is asked for.
fn protection(
    args: &CopyArgs,
    namespace: &Namespace,
    ranges: &[CopyRange],
) -> anyhow::Result<Option<Protection>> {
    let by_bits = [("--prinfor", args.prinfor), ("--prinfow", args.prinfow)];
    let by_bits = by_bits.into_iter().find_map(|(option, bits)| bits.map(|_| option));
    let Some(option) = by_bits.or_else(|| args.tags.first()) else { return Ok(None) };
    ensure!(
        namespace.format().protection().is_some(),
        "{namespace}: {option} is for protection information, which blocks of {} do not have: leave it out, or use `upcie \
         format` with --protection",
        namespace.format()
    );
    for (option, values) in args.tags.lists() {
        ensure!(
            values == 0 || values == ranges.len(),
            "{option} has {}, and the copy {}: give one for each range",
            number(values as u64, "value"),
            number(ranges.len() as u64, "range")
        );
    }
    let (source, target) = (args.prinfor.unwrap_or(0), args.prinfow.unwrap_or(0));
    // The library takes the action of the target for both: controllers refuse two that differ.
    ensure!(
        source & ACTION == 0 || target & ACTION != 0,
        "--prinfor {source}: a copy has one action, that of --prinfow: give --prinfow {} to have protection information \
         made anew, or --prinfor {} to keep it",
        target | ACTION,
        source & !ACTION
    );
    let source = prinfo::protect(source);
    let sources = ranges
        .iter()
        .enumerate()
        .map(|(index, &range)| (range, args.tags.of_source(source, index)))
        .collect();
    Ok(Some((sources, args.tags.of_target(prinfo::protect(target)))))
}

/// Tells the limits of a copy, for a message.
fn limits(id: &IdentifyNamespace) -> String {
    let (ranges, each, all) = (u32::from(id.msrc) + 1, id.mssrl, id.mcl);
    format!(" (one command takes {ranges} ranges, {each} blocks in each, {all} blocks in all)")
}
