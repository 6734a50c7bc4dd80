//! `upcie zns`: the zones of a namespace: reports, changes of their states, appends.

use super::{
    common::{Common, Effect, namespace_of},
    zone_reports::{ExtensionArgs, ReportArgs, report, set_extension, state_name},
};
use crate::{
    guard::Consent,
    input,
    outcome::Outcome,
    structures::parse,
    target::{self, Lists},
    units,
};
use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use upcie_nvme::{
    Controller, IdentifyQuery, ZoneSelect, Zones,
    spec::{Csi, Structure, ZonedController},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie zns report-zones emu:zoned=true --count 4
  upcie zns report-zones 0000:01:00.0 --namespace 2 --state full --json
  upcie zns set-zone-desc 0000:01:00.0 --start-lba 0 --data name.bin
  upcie zns zone-append 0000:01:00.0 --start-lba 0x8000 --data record.bin --destructive
  upcie zns reset-zone 0000:01:00.0 --start-lba 0x8000 --destructive
  upcie zns open-zone 0000:01:00.0 --start-lba 0 --zrwaa

A zone is named by its first block. Reset and offline lose data; open, close and finish lose none.
The first zoned namespace is meant if none is named.";

/// Arguments of `upcie zns`.
#[derive(Debug, Args)]
pub struct ZnsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List zones: their states and write pointers
    ReportZones(ReportArgs),
    /// Set the descriptor extension of an empty zone: bytes of the host's own
    SetZoneDesc(ExtensionArgs),
    /// Open a zone, or all closed ones
    OpenZone(OpenArgs),
    /// Close an open zone, or all
    CloseZone(ZoneArgs),
    /// Finish a zone, or all active ones: it takes no more data until it is reset
    FinishZone(ZoneArgs),
    /// Reset a zone, or all: its data is lost
    ResetZone(ZoneArgs),
    /// Take a read-only zone offline, or all: its data is lost
    OfflineZone(ZoneArgs),
    /// Commit the random write area of a zone up to a block
    ZrwaFlush(FlushArgs),
    /// Append a file to a zone, and print the block at which it begins
    ZoneAppend(AppendArgs),
    /// Show what Identify says of a namespace's zones
    IdNs(IdArgs),
    /// Show what Identify says of the controller's limits for zones
    IdCtrl(IdArgs),
}

/// The device and its namespace.
#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    common: Common,
    /// Namespace; the first zoned one by default
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>)]
    namespace: Option<u32>,
}

#[derive(Debug, Args)]
struct ZoneArgs {
    #[command(flatten)]
    which: Which,
    /// First block of the zone
    #[arg(long, short = 's', value_name = "LBA", value_parser = parse::<u64>, required_unless_present = "select_all")]
    start_lba: Option<u64>,
    /// All zones that this applies to
    #[arg(long, short = 'a', conflicts_with = "start_lba")]
    select_all: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct OpenArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// Give the zone, which must be empty, a random write area
    #[arg(long, short = 'r', conflicts_with = "select_all")]
    zrwaa: bool,
}

#[derive(Debug, Args)]
struct FlushArgs {
    #[command(flatten)]
    which: Which,
    /// The last block to commit
    #[arg(long, short = 'l', value_name = "LBA", value_parser = parse::<u64>)]
    lba: u64,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct AppendArgs {
    #[command(flatten)]
    which: Which,
    /// First block of the zone
    #[arg(long, short = 's', alias = "zslba", value_name = "LBA", value_parser = parse::<u64>)]
    start_lba: u64,
    /// The data, a whole number of blocks
    #[arg(long, short = 'd', value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    lists: Lists,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct IdArgs {
    #[command(flatten)]
    which: Which,
}

impl Which {
    pub(super) fn name(&self, namespace: u32) -> String {
        format!("namespace {namespace}")
    }

    /// Returns the zones of the namespace.
    pub(super) fn zones(&self, controller: &Controller) -> anyhow::Result<Zones> {
        Ok(namespace_of(controller, self.namespace, Csi::ZONED, "zones")?.zones()?)
    }

    pub(super) fn open(&self, effect: Effect<'_>, consent: Consent) -> anyhow::Result<(Controller, Zones)> {
        let controller = self.common.open(effect, consent)?;
        let zones = self.zones(&controller)?;
        Ok((controller, zones))
    }

    /// Returns the namespace that an effect is about: the one that is named, or the first zoned one.
    fn erased(&self, consent: Consent) -> anyhow::Result<Option<u32>> {
        self.common
            .erased(self.namespace, consent, |controller| Ok(self.zones(controller)?.namespace().nsid()))
    }

    pub(super) fn print(
        &self,
        controller: &Controller,
        text: &str,
        fields: &[(&str, Value)],
    ) -> anyhow::Result<Outcome> {
        self.common.print(controller.name(), text, fields)
    }
}

/// Runs `upcie zns`.
pub fn run(args: &ZnsArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::ReportZones(args) => report(args),
        Verb::SetZoneDesc(args) => set_extension(args),
        Verb::OpenZone(args) => change(&args.zone, Change::Open(args.zrwaa)),
        Verb::CloseZone(args) => change(args, Change::Close),
        Verb::FinishZone(args) => change(args, Change::Finish),
        Verb::ResetZone(args) => change(args, Change::Reset),
        Verb::OfflineZone(args) => change(args, Change::Offline),
        Verb::ZrwaFlush(args) => flush(args),
        Verb::ZoneAppend(args) => append(args),
        Verb::IdNs(args) => identify_namespace(&args.which),
        Verb::IdCtrl(args) => identify_controller(&args.which),
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    /// With a random write area, or without.
    Open(bool),
    Close,
    Finish,
    Reset,
    Offline,
}

fn change(args: &ZoneArgs, change: Change) -> anyhow::Result<Outcome> {
    let which = &args.which;
    let (verb, erases) = match change {
        Change::Open(_) => ("opened", None),
        Change::Close => ("closed", None),
        Change::Finish => ("finished", None),
        Change::Reset => ("reset", Some("zns reset-zone erases zones of")),
        Change::Offline => ("taken offline", Some("zns offline-zone erases zones of")),
    };
    let effect = match erases {
        Some(what) => Effect::Erases(which.erased(args.consent)?, what),
        None => Effect::Changes,
    };
    let (controller, zones) = which.open(effect, args.consent)?;
    let select = match args.start_lba {
        Some(block) if !args.select_all => ZoneSelect::At(block),
        _ => ZoneSelect::All,
    };
    match (change, select) {
        (Change::Open(true), ZoneSelect::At(zone)) => zones.open_for_random_writes(zone),
        (Change::Open(_), _) => zones.open(select),
        (Change::Close, _) => zones.close(select),
        (Change::Finish, _) => zones.finish(select),
        (Change::Reset, _) => zones.reset(select),
        (Change::Offline, _) => zones.offline(select),
    }?;
    let nsid = zones.namespace().nsid();
    let mut fields = vec![("namespace", nsid.into())];
    let text = match select {
        ZoneSelect::All => format!("{verb}: all zones of namespace {nsid} to which that applies"),
        ZoneSelect::At(block) => {
            let found = zones.report(block, 1)?;
            let zone = found.first().context("the zone is not in the report any more")?;
            fields.extend([("slba", block.into()), ("state", state_name(zone.state()).into())]);
            format!(
                "{verb}: the zone of block {block:#x} of namespace {nsid}, which is {} now",
                state_name(zone.state())
            )
        }
    };
    which.print(&controller, &text, &fields)
}

fn flush(args: &FlushArgs) -> anyhow::Result<Outcome> {
    let (controller, zones) = args.which.open(Effect::Changes, args.consent)?;
    zones.flush_random_writes(args.lba)?;
    let nsid = zones.namespace().nsid();
    let text = format!("committed: the random write area up to block {:#x} of namespace {nsid}", args.lba);
    args.which.print(&controller, &text, &[("namespace", nsid.into()), ("lba", args.lba.into())])
}

fn append(args: &AppendArgs) -> anyhow::Result<Outcome> {
    let data = input::read(&args.data, input::COMMAND)?;
    let erased = args.which.erased(args.consent)?;
    let effect = Effect::Erases(erased, "zns zone-append writes to");
    let controller = args.which.common.open_with(effect, args.consent, args.lists.builder())?;
    let zones = args.which.zones(&controller)?;
    let block = zones.namespace().block_size();
    let name = args.data.display();
    ensure!(
        !data.is_empty() && data.len() % block == 0,
        "{name} has {} bytes, not a positive multiple of the block size, {block} bytes; nothing was written",
        data.len()
    );
    ensure!(
        data.len() <= zones.max_append(),
        "{name} has {}, and one append writes {} at most; nothing was written: append it in parts",
        units::bytes(data.len() as u64),
        units::bytes(zones.max_append() as u64)
    );
    let mut buffer = target::memory_of(&controller, &data)?;
    let first = zones.append(args.start_lba, &mut buffer)?;
    let nsid = zones.namespace().nsid();
    let text = format!("appended {} bytes to namespace {nsid} at block {first:#x}", data.len());
    let fields = [("namespace", nsid.into()), ("lba", first.into()), ("bytes", data.len().into())];
    args.which.print(&controller, &text, &fields)
}

fn identify_namespace(which: &Which) -> anyhow::Result<Outcome> {
    let (controller, zones) = which.open(Effect::Reads, Consent::default())?;
    let (nsid, id) = (zones.namespace().nsid(), zones.identify());
    let format = zones.namespace().identify().format_index();
    let text = format!("{}\n{}", which.name(nsid), indented(&id.to_string()));
    let formats: Vec<Value> = id
        .format_extensions
        .iter()
        .enumerate()
        .filter(|(_, extension)| extension.zone_size != 0)
        .map(|(index, extension)| {
            json!({
                "lbafe": index,
                "zsze": extension.zone_size,
                "zdes": extension.zone_descriptor_extension_size,
                "in_use": index == format,
            })
        })
        .collect();
    let fields = [
        ("namespace", nsid.into()),
        ("zoc", id.zone_operation_characteristics.into()),
        ("ozcs", id.optional_commands.into()),
        ("mar", id.max_active_resources.into()),
        ("mor", id.max_open_resources.into()),
        ("rrl", id.reset_recommended_limit.into()),
        ("frl", id.finish_recommended_limit.into()),
        ("numzrwa", id.random_write_areas.into()),
        ("zrwafg", id.random_write_area_flush_granularity.into()),
        ("zrwasz", id.random_write_area_size.into()),
        ("zrwacap", id.random_write_area_capabilities.into()),
        ("lbafe", formats.into()),
    ];
    which.print(&controller, &text, &fields)
}

fn identify_controller(which: &Which) -> anyhow::Result<Outcome> {
    let controller = which.common.open(Effect::Reads, Consent::default())?;
    let id = controller.identify_as::<ZonedController>(&IdentifyQuery::default())?;
    let text = format!("{}\n{}", ZonedController::TITLE, indented(&id.to_string()));
    which.print(&controller, &text, &[("zasl", id.zone_append_size_limit.into())])
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
