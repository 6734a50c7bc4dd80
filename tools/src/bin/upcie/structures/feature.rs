//! `upcie feature`: shows a feature.

use super::{identify::namespace, names, output::Output};
use crate::{outcome::Outcome, target::Target};
use anyhow::bail;
use clap::{Args, ValueEnum};
use upcie_nvme::{
    FeatureQuery,
    spec::{FeatureId, FeatureInfo, FeatureSelect, Structure},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie feature emu get number-of-queues
  upcie feature emu get 0x04 --dword11 0x100000        the threshold below which it is too cold
  upcie feature 0000:01:00.0 get power-management --select supported --json

Features: a number, or the specification's name (the beginning is enough). `upcie admin` with opcode
0x09 sets one.";

/// Arguments of `upcie feature`.
#[derive(Debug, Args)]
pub struct FeatureArgs {
    #[command(flatten)]
    target: Target,
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// Feature, by number or name
    #[arg(value_parser = parse_feature)]
    feature: FeatureId,
    #[command(flatten)]
    output: Output,
    /// Value to show
    #[arg(long, value_enum, default_value = "current")]
    select: Select,
    /// Namespace; the first active one for features of a namespace
    #[arg(long, value_name = "NSID", value_parser = names::parse::<u32>)]
    namespace: Option<u32>,
    /// Command dword 11: a sensor, a vector, an NVM set, an endurance group
    #[arg(long, value_name = "N", value_parser = names::parse::<u32>)]
    dword11: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Show the value
    Get,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Select {
    /// The value in use
    Current,
    /// The value that the controller came with
    Default,
    /// The value after the next power cycle
    Saved,
    /// What hosts can do with the feature
    Supported,
}

fn parse_feature(text: &str) -> Result<FeatureId, String> {
    let all: Vec<_> = FeatureInfo::ALL.iter().map(|info| (info.id.0, info.title)).collect();
    names::find(text, "feature", &[], &all).map(FeatureId)
}

/// Runs `upcie feature`.
pub fn run(args: &FeatureArgs) -> anyhow::Result<Outcome> {
    let Action::Get = args.action;
    let controller = args.output.open(&args.target)?;
    let title = args.feature.to_string();
    if args.select == Select::Supported {
        let capabilities = controller.feature_capabilities(args.feature)?;
        let bytes = capabilities.into_bits().to_le_bytes();
        return args.output.print(controller.name(), &title, Some(capabilities.fields()), &bytes);
    }
    // The extended host identifier is another structure of the same feature.
    let known = FeatureInfo::ALL.iter().filter(|info| info.id == args.feature);
    let known = known.clone().find(|info| args.dword11 == Some(info.dword11)).or(known.clone().next());
    let Some(known) = known else {
        bail!(
            "{title}: the length of its data is not known here: use `upcie admin {} --opcode 0x0a --dword10 {:#x} --length …`",
            args.target.address,
            args.feature.0
        );
    };
    let query = FeatureQuery {
        select: match args.select {
            Select::Default => FeatureSelect::DEFAULT,
            Select::Saved => FeatureSelect::SAVED,
            Select::Current | Select::Supported => FeatureSelect::CURRENT,
        },
        nsid: namespace(&controller, args.namespace, known.of_namespace)?,
        dword11: Some(args.dword11.unwrap_or(known.dword11)),
    };
    let (dword0, data) = controller.feature_bytes(args.feature, known.data, &query)?;
    let bytes = if data.is_empty() { dword0.to_le_bytes().to_vec() } else { data };
    args.output.print(controller.name(), &title, (known.fields)(dword0, &bytes), &bytes)
}
