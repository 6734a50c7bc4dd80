//! `upcie lba-status`: which blocks are allocated, or may be unreadable.

use super::common::{Common, Effect};
use crate::{guard::Consent, outcome::Outcome, structures::parse};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::fmt::Write as _;
use upcie_nvme::spec::{GetLbaStatus, LbaStatusAction};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie lba-status 0000:01:00.0 --action tracked
  upcie lba-status 0000:01:00.0 --action allocated --block 0 --blocks 65535 --json";

/// Arguments of `upcie lba-status`.
#[derive(Debug, Args)]
pub struct LbaStatusArgs {
    #[command(flatten)]
    common: Common,
    /// Namespace (NSID)
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>, default_value = "1")]
    namespace: u32,
    /// First block
    #[arg(long, short_alias = 's', alias = "start-lba", value_name = "LBA", value_parser = parse::<u64>, default_value = "0")]
    block: u64,
    /// Blocks, 65535 at most; all up to the end of the namespace by default
    #[arg(long, short_alias = 'l', alias = "range-len", value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    blocks: u16,
    /// Kind of status to report
    #[arg(long, short, value_enum, default_value = "tracked")]
    action: Action,
    /// The most ranges to return
    #[arg(long, value_name = "N", default_value = "255", value_parser = clap::value_parser!(u32).range(1..=4096))]
    ranges: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Blocks that are allocated
    #[value(alias = "0x02")]
    Allocated,
    /// Scan for blocks that may be unreadable
    #[value(alias = "0x10")]
    Scan,
    /// Known blocks that may be unreadable
    #[value(alias = "0x11")]
    Tracked,
}

/// Runs `upcie lba-status`.
pub fn run(args: &LbaStatusArgs) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Reads, Consent::default())?;
    let command = GetLbaStatus {
        nsid: args.namespace,
        slba: args.block,
        blocks: args.blocks,
        action: match args.action {
            Action::Allocated => LbaStatusAction::ALLOCATED,
            Action::Scan => LbaStatusAction::SCAN,
            Action::Tracked => LbaStatusAction::TRACKED,
        },
        descriptors: args.ranges,
    };
    let list = controller.execute_within(&command, args.common.timeout)?;
    let mut text = extent(list.completion).to_owned();
    for range in &list.descriptors {
        write!(text, "\n  {} blocks from block {} on", range.blocks, range.slba)?;
    }
    let ranges: Vec<_> = list
        .descriptors
        .iter()
        .map(|range| json!({ "block": range.slba, "blocks": range.blocks, "status": range.status }))
        .collect();
    args.common.print(
        controller.name(),
        &text,
        &[("completion", list.completion.into()), ("ranges", ranges.into())],
    )
}

/// Says how much of the range the controller has looked at (CMPC).
fn extent(completion: u8) -> &'static str {
    match completion {
        1 => "not all of the range was looked at",
        2 => "the whole range was looked at",
        _ => "the controller does not say whether the whole range was looked at",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_nvme::spec::AdminCommand;

    /// No controller in software has the command: these are the answers of one that has.
    #[test]
    fn a_scan_that_was_not_whole_is_told() {
        let command = GetLbaStatus { descriptors: 1, ..GetLbaStatus::default() };
        let answer = |completion: u8| {
            let mut data = vec![0; command.returns()];
            data[4] = completion;
            extent(command.answer(0, data).unwrap().completion)
        };
        assert!(answer(1).starts_with("not all of the range"));
        assert!(answer(2).starts_with("the whole range"));
        for completion in [0, 3, 0xff] {
            assert!(answer(completion).contains("does not say"), "{completion}");
        }
    }
}
