//! `upcie zns report-zones`, and the descriptor extensions that it shows.

use super::{common::Effect, zones::Which};
use crate::{
    guard::Consent,
    input::{self, Limit},
    outcome::Outcome,
    structures::parse,
};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::{fmt::Write as _, path::PathBuf};
use upcie_nvme::spec::{ZoneDescriptor, ZoneFilter, ZoneState};

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    which: Which,
    /// Block from whose zone on zones are listed
    #[arg(long, short = 's', value_name = "LBA", value_parser = parse::<u64>, default_value = "0")]
    start_lba: u64,
    /// The most zones to list; all by default
    #[arg(long, short = 'd', alias = "descs", value_name = "N", value_parser = parse::<u64>)]
    count: Option<u64>,
    /// The zones to list
    #[arg(long, short = 'S', value_enum, default_value = "all")]
    state: State,
    /// Show the descriptor extensions, too, of all states
    #[arg(long, short = 'E', conflicts_with = "state")]
    extended: bool,
}

#[derive(Debug, Args)]
pub struct ExtensionArgs {
    #[command(flatten)]
    which: Which,
    /// First block of the zone, which must be empty
    #[arg(long, short = 's', value_name = "LBA", value_parser = parse::<u64>)]
    start_lba: u64,
    /// The bytes, at most as many as an extension has; zeros follow them
    #[arg(long, short = 'd', value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    #[value(alias = "0")]
    All,
    #[value(alias = "1")]
    Empty,
    #[value(alias = "2")]
    ImplicitlyOpened,
    #[value(alias = "3")]
    ExplicitlyOpened,
    #[value(alias = "4")]
    Closed,
    #[value(alias = "5")]
    Full,
    #[value(alias = "6")]
    ReadOnly,
    #[value(alias = "7")]
    Offline,
}

/// nvme-cli's name of a state.
pub fn state_name(state: ZoneState) -> &'static str {
    match state {
        ZoneState::EMPTY => "EMPTY",
        ZoneState::IMPLICITLY_OPENED => "IMP_OPENED",
        ZoneState::EXPLICITLY_OPENED => "EXP_OPENED",
        ZoneState::CLOSED => "CLOSED",
        ZoneState::READ_ONLY => "READONLY",
        ZoneState::FULL => "FULL",
        ZoneState::OFFLINE => "OFFLINE",
        _ => "Unknown State",
    }
}

pub fn report(args: &ReportArgs) -> anyhow::Result<Outcome> {
    let (controller, zones) = args.which.open(Effect::Reads, Consent::default())?;
    let filter = match args.state {
        State::All => ZoneFilter::ALL,
        State::Empty => ZoneFilter::EMPTY,
        State::ImplicitlyOpened => ZoneFilter::IMPLICITLY_OPENED,
        State::ExplicitlyOpened => ZoneFilter::EXPLICITLY_OPENED,
        State::Closed => ZoneFilter::CLOSED,
        State::Full => ZoneFilter::FULL,
        State::ReadOnly => ZoneFilter::READ_ONLY,
        State::Offline => ZoneFilter::OFFLINE,
    };
    let most = args.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let found = match args.extended {
        true => zones.report_extended(args.start_lba, most)?,
        false => {
            let found = zones.report_some(filter, args.start_lba, most)?;
            found.into_iter().map(|zone| (zone, Vec::new())).collect()
        }
    };
    let nsid = zones.namespace().nsid();
    let mut text = format!(
        "{}: {} zones of {} blocks; listed: {}",
        args.which.name(nsid),
        zones.count(),
        zones.zone_blocks(),
        found.len()
    );
    for (zone, extension) in &found {
        let pointer = match zone.state().has_write_pointer() {
            true => format!("{:#x}", zone.write_pointer),
            false => "-".into(),
        };
        write!(
            text,
            "\n  SLBA: {:<#12x} WP: {pointer:<12} Cap: {:<#10x} State: {}",
            zone.start,
            zone.capacity,
            state_name(zone.state()),
        )?;
        if zone.attributes.random_write_area() {
            text += ", random write area";
        }
        if args.extended && zone.attributes.extension_valid() {
            for line in extension.chunks(16) {
                let bytes: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(text, "\n    {}", bytes.join(" "))?;
            }
        }
    }
    let list: Vec<Value> =
        found.iter().map(|(zone, extension)| listed(zone, args.extended.then_some(extension))).collect();
    let fields = [("namespace", nsid.into()), ("nr_zones", found.len().into()), ("zone_list", list.into())];
    args.which.print(&controller, &text, &fields)
}

/// Describes a zone by nvme-cli's names, with its descriptor extension if that is wanted.
fn listed(zone: &ZoneDescriptor, extension: Option<&Vec<u8>>) -> Value {
    let mut listed = json!({
        "slba": zone.start,
        "wp": zone.write_pointer,
        "cap": zone.capacity,
        "state": state_name(zone.state()),
        "type": if zone.kind().0 == 2 { "SEQWRITE_REQ" } else { "Unknown" },
        "attrs": zone.attributes.into_bits(),
        "attrs_info": zone.attribute_information,
    });
    if let Some(extension) = extension {
        listed["ext_data"] = match zone.attributes.extension_valid() {
            true => json!(extension),
            false => "Not valid".into(),
        };
    }
    listed
}

/// A descriptor extension: ZDES has 8 bits, and counts 64 bytes.
const LARGEST: Limit<'static> =
    Limit { bytes: 255 * 64, reason: "the most of a zone's descriptor extension: take fewer bytes" };

/// Runs `upcie zns set-zone-desc`.
pub fn set_extension(args: &ExtensionArgs) -> anyhow::Result<Outcome> {
    let mut data = input::read(&args.data, LARGEST)?;
    let (controller, zones) = args.which.open(Effect::Changes, args.consent)?;
    let (nsid, size) = (zones.namespace().nsid(), zones.extension_size());
    ensure!(size > 0, "the zones of namespace {nsid} have no descriptor extensions (ZDES)");
    ensure!(
        !data.is_empty() && data.len() <= size,
        "{} has {} bytes, and a zone's extension has {size}; nothing was set",
        args.data.display(),
        data.len()
    );
    data.resize(size, 0);
    zones.set_extension(args.start_lba, &data)?;
    let text = format!(
        "set: the extension of the zone of block {:#x} of namespace {nsid}, which is closed now",
        args.start_lba
    );
    let fields = [("namespace", nsid.into()), ("slba", args.start_lba.into()), ("bytes", size.into())];
    args.which.print(&controller, &text, &fields)
}
