//! `upcie feature`: shows and sets features.

use super::{
    assign::Assignment,
    identify::namespace,
    names,
    nvme_cli::Source,
    output::{Output, Page},
};
use crate::{
    guard::Consent,
    input::{self, Limit},
    outcome::Outcome,
    target::Target,
};
use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use upcie_nvme::{
    Controller, FeatureQuery, FeatureUpdate,
    spec::{FeatureId, FeatureInfo, FeatureSelect, Field, Structure},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie feature emu get number-of-queues
  upcie feature emu get 0x04 --dword11 0x100000        the threshold below which it is too cold
  upcie feature 0000:01:00.0 get power-management --select supported --json
  upcie feature 0000:01:00.0 set temperature-threshold threshold=350 threshold_type=0
  upcie feature 0000:01:00.0 set volatile-write-cache write_cache_enabled=no --save
  upcie feature 0000:01:00.0 set host-identifier --data id.bin
  upcie set-feature 0000:01:00.0 -f 4 -V 350           with nvme-cli's options
  upcie feature 0000:01:00.0 set namespace-admin-label 'label=CRM data' --save

Features: a number, or the specification's name (the beginning is enough). The device may stand
behind `get` or `set` as well: `upcie feature get emu number-of-queues`. Fields have the names that
`get` prints; those that are not given keep their values. Without --save a value lasts until the
controller is reset, which the next program does that opens it. Protection that can't be undone
needs --destructive.";

/// Arguments of `upcie feature`.
#[derive(Debug, Args)]
pub struct FeatureArgs {
    #[command(flatten)]
    target: Target,
    /// Action on the feature
    #[arg(value_enum)]
    action: Action,
    /// Feature, by number or name
    #[arg(value_parser = parse_feature)]
    feature: FeatureId,
    /// Values to set: `field=value`
    #[arg(value_name = "FIELD=VALUE", value_parser = Assignment::parse)]
    values: Vec<Assignment>,
    #[command(flatten)]
    output: Output,
    /// Value to show
    #[arg(long, short = 's', alias = "sel", value_enum, default_value = "current")]
    select: Select,
    /// Namespace; the first active one for features of a namespace
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = names::parse::<u32>)]
    namespace: Option<u32>,
    /// Command dword 11: a sensor, a vector, an NVM set, an endurance group
    #[arg(long, value_name = "N", value_parser = names::parse::<u32>)]
    dword11: Option<u32>,
    /// Set: the dword that has the fields, as a number
    #[arg(long, short = 'V', value_name = "N", value_parser = names::parse::<u32>, conflicts_with_all = ["values", "data"])]
    value: Option<u32>,
    /// Set: keep the value over resets and power cycles
    #[arg(long)]
    save: bool,
    /// Set: the whole data, from a file
    #[arg(long, short = 'd', value_name = "FILE", conflicts_with = "values")]
    data: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Show the value
    Get,
    /// Set the value
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Select {
    /// The value in use
    #[value(alias = "0")]
    Current,
    /// The value that the controller came with
    #[value(alias = "1")]
    Default,
    /// The value after the next power cycle
    #[value(alias = "2")]
    Saved,
    /// The capabilities of the feature
    #[value(alias = "3")]
    Supported,
}

impl From<Select> for FeatureSelect {
    fn from(select: Select) -> Self {
        match select {
            Select::Current => Self::CURRENT,
            Select::Default => Self::DEFAULT,
            Select::Saved => Self::SAVED,
            Select::Supported => Self::SUPPORTED,
        }
    }
}

fn parse_feature(text: &str) -> Result<FeatureId, String> {
    let all: Vec<_> = FeatureInfo::ALL.iter().map(|info| (info.id.0, info.title)).collect();
    names::find(text, "feature", &[], &all).map(FeatureId)
}

/// Returns `true` for the name or the number of a feature.
pub fn is_feature(text: &str) -> bool {
    parse_feature(text).is_ok()
}

/// Features whose values can't be undone, or only by a power cycle.
const FINAL: [FeatureId; 2] =
    [FeatureId::NAMESPACE_WRITE_PROTECTION, FeatureId::BOOT_PARTITION_WRITE_PROTECTION];

/// Runs `upcie feature`.
pub fn run(args: &FeatureArgs) -> anyhow::Result<Outcome> {
    match args.action {
        Action::Get => {
            ensure!(
                args.values.is_empty() && args.data.is_none() && args.value.is_none() && !args.save,
                "`get` takes no values: use `set`"
            );
            let controller = args.output.open(&args.target)?;
            show(args, &controller)
        }
        Action::Set => set(args),
    }
}

/// Returns the feature's description. Some features have several structures, of which dword 11 chooses one: the extended host
/// identifier, performance attributes.
fn known(feature: FeatureId, dword11: Option<u32>) -> Option<&'static FeatureInfo> {
    let mut known = FeatureInfo::ALL.iter().filter(|info| info.id == feature);
    let chosen = |info: &&FeatureInfo| {
        dword11.is_some_and(|dword11| dword11 & !info.selects == info.dword11 & !info.selects)
    };
    let exact = known.clone().find(|info| dword11 == Some(info.dword11));
    exact.or_else(|| known.clone().find(chosen)).or(known.next())
}

fn unknown(args: &FeatureArgs, opcode: u8) -> anyhow::Error {
    anyhow::anyhow!(
        "{}: the length of its data is not known here: use `upcie admin {} --opcode {opcode:#04x} --dword10 {:#x} …`",
        args.feature,
        args.target.address,
        args.feature.0
    )
}

fn show(args: &FeatureArgs, controller: &Controller) -> anyhow::Result<Outcome> {
    if args.select == Select::Supported {
        let capabilities = controller.feature_capabilities(args.feature)?;
        let dword0 = capabilities.into_bits();
        return print(args, controller, dword0, Some(capabilities.fields()), &dword0.to_le_bytes());
    }
    let known = known(args.feature, args.dword11).ok_or_else(|| unknown(args, 0x0a))?;
    show_value(args, controller, known, args.dword11)
}

/// Reads the value and prints it.
fn show_value(
    args: &FeatureArgs,
    controller: &Controller,
    known: &FeatureInfo,
    dword11: Option<u32>,
) -> anyhow::Result<Outcome> {
    let (dword0, data) = value(args, controller, known, dword11)?;
    let bytes = if data.is_empty() { dword0.to_le_bytes().to_vec() } else { data };
    print(args, controller, dword0, (known.fields)(dword0, &bytes), &bytes)
}

fn print(
    args: &FeatureArgs,
    controller: &Controller,
    dword0: u32,
    fields: Option<Vec<Field>>,
    bytes: &[u8],
) -> anyhow::Result<Outcome> {
    args.output.print(Page {
        device: controller.name(),
        title: &args.feature.to_string(),
        source: Source::Feature(args.feature, args.select.into(), dword0),
        fields,
        bytes,
    })
}

/// Reads the value; dword 11 selects one of several.
fn value(
    args: &FeatureArgs,
    controller: &Controller,
    known: &FeatureInfo,
    dword11: Option<u32>,
) -> anyhow::Result<(u32, Vec<u8>)> {
    let query = FeatureQuery {
        select: args.select.into(),
        nsid: namespace(controller, args.namespace, known.of_namespace)?,
        dword11: Some(dword11.unwrap_or(known.dword11)),
    };
    Ok(controller.feature_bytes(args.feature, known.data, &query)?)
}

fn set(args: &FeatureArgs) -> anyhow::Result<Outcome> {
    ensure!(args.select == Select::Current, "`set` sets the current value; --save the saved one, too");
    let known = known(args.feature, args.dword11).ok_or_else(|| unknown(args, 0x09))?;
    let given = args.data.as_ref().map(|path| {
        ensure!(known.data > 0, "{} has no data: set its fields (`field=value`)", args.feature);
        let reason = format!("the data of {}: take only these bytes", args.feature);
        let bytes = input::read(path, Limit { bytes: known.data as u64, reason: &reason })?;
        ensure!(
            bytes.len() == known.data,
            "{} has {} bytes of data, not {}",
            args.feature,
            known.data,
            bytes.len()
        );
        Ok(bytes)
    });
    let given = given.transpose()?;
    if given.is_none() && args.values.is_empty() && args.value.is_none() {
        bail!("nothing to set: `field=value`, --value N or --data FILE; `get` shows the fields");
    }
    if FINAL.contains(&args.feature) {
        let what = format!("{} may protect for good what is written on", args.feature);
        args.consent.check_settings(&args.target, &what)?;
    } else {
        args.consent.check_use(&args.target)?;
    }
    let controller = args.output.open_to_change(&args.target)?;
    // The fields that choose one of several values choose the one that is read, too.
    let (dword_places, data_places) = (known.places)();
    let mut chosen = args.value.unwrap_or(0).to_le_bytes();
    let mut dummy = vec![0; known.data];
    let selecting: Vec<_> = args.values.iter().collect();
    for value in &selecting {
        value.put(&mut [(dword_places.clone(), &mut chosen[..]), (data_places.clone(), &mut dummy[..])])?;
    }
    let selects = if known.in_dword12 { 0 } else { known.selects };
    let dword11 = args.dword11.unwrap_or(known.dword11 | u32::from_le_bytes(chosen) & selects);
    let (dword, mut data) = match given {
        Some(data) => (0, data),
        None => value(args, &controller, known, Some(dword11))?,
    };
    let dword = args.value.unwrap_or(dword);
    let mut dword = (dword & !selects | dword11 & selects | known.dword11).to_le_bytes();
    for value in &selecting {
        value.put(&mut [(dword_places.clone(), &mut dword[..]), (data_places.clone(), &mut data[..])])?;
    }
    let update = FeatureUpdate {
        nsid: namespace(&controller, args.namespace, known.of_namespace)?,
        save: args.save,
        group: args.dword11.unwrap_or(0) as u16,
        uuid_index: 0,
    };
    controller.set_feature_bytes(args.feature, u32::from_le_bytes(dword), &data, &update)?;
    // The value as the controller has it now.
    show_value(args, &controller, known, Some(dword11))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dword_11_chooses_one_of_several_structures() {
        let title = |feature, dword11| known(feature, dword11).unwrap().title;
        let performance = FeatureId::PERFORMANCE_CHARACTERISTICS;
        assert_eq!(title(performance, None), "Performance Characteristics");
        assert_eq!(title(performance, Some(0)), "Performance Characteristics");
        assert_eq!(title(performance, Some(0xc0)), "Performance Characteristics (identifiers)");
        for attribute in [0xc1, 0xc2, 0xff] {
            assert_eq!(title(performance, Some(attribute)), "Performance Characteristics (vendor specific)");
        }
        assert_eq!(title(FeatureId::HOST_IDENTIFIER, Some(1)), "Host Identifier (128 bits)");
        assert_eq!(title(FeatureId::HOST_IDENTIFIER, None), "Host Identifier");
        assert!(title(FeatureId::TEMPERATURE_THRESHOLD, Some(1 << 20)).starts_with("Temperature"));
        assert!(known(FeatureId(0xc0), None).is_none());
    }
}
