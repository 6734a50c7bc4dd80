//! `upcie fdp`: flexible data placement: what an endurance group has and counts, and the handles of a namespace.

use super::common::{Common, Effect, print_json};
use crate::{
    guard::Consent,
    outcome::Outcome,
    structures::{Source, of_nvme_cli, parse},
};
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use upcie_nvme::{
    Controller, FeatureQuery, FeatureUpdate, LogQuery, Placement,
    spec::{
        Csi, FlexibleDataPlacement, HandleUsageLog, LogPage, PlacementConfigurationsLog, PlacementEventType,
        PlacementEventsLog, PlacementStatisticsLog, Value as Shown,
    },
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie fdp status emu:fdp=true
  upcie fdp configs 0000:01:00.0 -o json       as nvme-cli prints it
  upcie fdp update 0000:01:00.0 --pids 0,0x4001
  upcie fdp set-events 0000:01:00.0 --placement-handle 1 --event-types 0,3 --enable
  upcie fdp events 0000:01:00.0 --host-events
  upcie fdp feature 0000:01:00.0 --enable-conf-idx 0
  upcie write 0000:01:00.0 disk.img --placement 2 --destructive

A placement identifier names a placement handle of a namespace and a reclaim group; `fdp status`
lists them. An update begins an empty reclaim unit, and loses no data. The feature is changed while
the endurance group has no namespace: `ns delete` first, `ns create --placement-handles` afterwards.
The first namespace with flexible data placement is meant if none is named.";

/// Arguments of `upcie fdp`.
#[derive(Debug, Args)]
pub struct FdpArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the configurations: reclaim groups, reclaim unit handles, the size of a unit
    Configs(GroupArgs),
    /// Show who uses each reclaim unit handle
    Usage(GroupArgs),
    /// Show the bytes that were written by hosts, written to the media, and erased
    Stats(GroupArgs),
    /// Show the events that were noted
    Events(EventsArgs),
    /// List the placement identifiers of a namespace, and the room in their reclaim units
    Status(StatusArgs),
    /// Begin empty reclaim units
    Update(UpdateArgs),
    /// Choose the events that are noted of a placement handle
    SetEvents(SetEventsArgs),
    /// Show whether flexible data placement is on, or turn it on or off
    Feature(FeatureArgs),
}

/// The device and an endurance group.
#[derive(Debug, Args)]
struct GroupArgs {
    #[command(flatten)]
    common: Common,
    /// Endurance group
    #[arg(long, short = 'e', value_name = "ENDGID", value_parser = parse::<u16>, default_value = "1")]
    endgrp_id: u16,
}

#[derive(Debug, Args)]
struct EventsArgs {
    #[command(flatten)]
    group: GroupArgs,
    /// Show the events of hosts, not those of the controller
    #[arg(long, short = 'E')]
    host_events: bool,
}

/// The device and its namespace.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    common: Common,
    /// Namespace; the first one with flexible data placement by default
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>)]
    namespace: Option<u32>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct UpdateArgs {
    #[command(flatten)]
    which: Which,
    /// Placement identifiers, with commas between them
    #[arg(long, short = 'p', value_name = "PIDS", value_delimiter = ',', required = true, value_parser = parse::<u16>)]
    pids: Vec<u16>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct SetEventsArgs {
    #[command(flatten)]
    which: Which,
    /// Placement handle
    #[arg(long, short = 'p', value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    placement_handle: u16,
    /// Types of events, with commas between them: 0 unit not fully written, 1 time limit, 2 reset, 3
    /// invalid placement identifier, 0x80 media moved, 0x81 handle changed
    #[arg(long, short = 't', value_name = "TYPES", value_delimiter = ',', required = true, value_parser = parse::<u8>)]
    event_types: Vec<u8>,
    /// Note them; without this they are not noted any more
    #[arg(long, short = 'e', visible_alias = "ev-enable")]
    enable: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct FeatureArgs {
    #[command(flatten)]
    group: GroupArgs,
    /// Turn it on, with this configuration
    #[arg(long, short = 'c', value_name = "INDEX", value_parser = parse::<u8>)]
    enable_conf_idx: Option<u8>,
    /// Turn it off
    #[arg(long, short = 'd', conflicts_with = "enable_conf_idx")]
    disable: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Which {
    /// Returns the placement handles of the namespace.
    fn placement(&self, controller: &Controller) -> anyhow::Result<Placement> {
        if let Some(nsid) = self.namespace {
            return Ok(controller.namespace(nsid)?.placement()?);
        }
        let mut first = None;
        for namespace in controller.namespaces()? {
            match namespace.placement() {
                Ok(placement) => return Ok(placement),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.with_context(|| format!("{}: there is no namespace", controller.name()))?.into())
    }

    fn open(&self, effect: Effect<'_>, consent: Consent) -> anyhow::Result<(Controller, Placement)> {
        let controller = self.common.open(effect, consent)?;
        let placement = self.placement(&controller)?;
        Ok((controller, placement))
    }
}

/// Runs `upcie fdp`.
pub fn run(args: &FdpArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Configs(args) => page::<PlacementConfigurationsLog>(args, 0),
        Verb::Usage(args) => page::<HandleUsageLog>(args, 0),
        Verb::Stats(args) => page::<PlacementStatisticsLog>(args, 0),
        Verb::Events(args) => page::<PlacementEventsLog>(&args.group, args.host_events.into()),
        Verb::Status(args) => status(args),
        Verb::Update(args) => update(args),
        Verb::SetEvents(args) => set_events(args),
        Verb::Feature(args) => feature(args),
    }
}

/// Prints a log page of an endurance group.
fn page<L: LogPage>(args: &GroupArgs, parameter: u8) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Reads, Consent::default())?;
    let query = LogQuery { parameter, identifier: args.endgrp_id, ..LogQuery::default() };
    let bytes = controller.log_bytes(L::ID, &query, L::len)?;
    if args.common.is_of_nvme_cli() {
        let json = of_nvme_cli(Source::Log(L::ID, Csi::NVM), controller.name(), &bytes);
        if let Some(json) = json {
            return print_json(&json).map(|()| Outcome::Done);
        }
    }
    let log = L::from_page(&bytes);
    let log = log.with_context(|| format!("{}: {} is too short", controller.name(), L::TITLE))?;
    let fields = Shown::Fields(log.fields());
    let group = args.endgrp_id;
    let text = format!("{} of endurance group {group}\n{}", L::TITLE, indented(&fields.to_string()));
    let all = [("endurance_group", group.into()), ("fields", serde_json::to_value(fields)?)];
    args.common.print(controller.name(), &text, &all)
}

fn status(args: &StatusArgs) -> anyhow::Result<Outcome> {
    let (controller, placement) = args.which.open(Effect::Reads, Consent::default())?;
    let handles = placement.handles()?;
    let nsid = placement.namespace().nsid();
    let mut text = format!("namespace {nsid}: {} placement identifiers", handles.len());
    for handle in &handles {
        let (group, number) = placement.configuration().parts_of(handle.placement_identifier);
        write!(
            text,
            "\n  PID: {:<8} handle: {number:<4} group: {group:<4} RUHID: {:<4} RUAMW: {} blocks",
            format!("{:#x}", handle.placement_identifier),
            handle.reclaim_unit_handle,
            handle.available_media_writes,
        )?;
    }
    let list: Vec<Value> = handles
        .iter()
        .map(|handle| {
            json!({
                "pid": handle.placement_identifier,
                "ruhid": handle.reclaim_unit_handle,
                "earutr": handle.estimated_time_remaining,
                "ruamw": handle.available_media_writes,
            })
        })
        .collect();
    let fields = [("namespace", nsid.into()), ("nruhsd", handles.len().into()), ("ruhss", list.into())];
    args.which.common.print(controller.name(), &text, &fields)
}

fn update(args: &UpdateArgs) -> anyhow::Result<Outcome> {
    let (controller, placement) = args.which.open(Effect::Changes, args.consent)?;
    placement.update(&args.pids)?;
    let nsid = placement.namespace().nsid();
    let pids: Vec<String> = args.pids.iter().map(|pid| format!("{pid:#x}")).collect();
    let text = format!("updated: {} of namespace {nsid} refer to empty reclaim units now", pids.join(", "));
    let fields = [("namespace", nsid.into()), ("pids", args.pids.clone().into())];
    args.which.common.print(controller.name(), &text, &fields)
}

fn set_events(args: &SetEventsArgs) -> anyhow::Result<Outcome> {
    let (controller, placement) = args.which.open(Effect::Changes, args.consent)?;
    let types: Vec<_> = args.event_types.iter().copied().map(PlacementEventType).collect();
    placement.set_events(args.placement_handle, &types, args.enable)?;
    let (nsid, handle) = (placement.namespace().nsid(), args.placement_handle);
    let mut text = format!("the events of placement handle {handle} of namespace {nsid}:");
    let mut list = Vec::new();
    for event in placement.events(handle)? {
        let noted = event.attributes.enabled();
        write!(text, "\n  {}: {}", event.kind(), if noted { "noted" } else { "not noted" })?;
        list.push(json!({ "type": event.event_type, "enabled": noted }));
    }
    let fields = [("namespace", nsid.into()), ("placement_handle", handle.into()), ("events", list.into())];
    args.which.common.print(controller.name(), &text, &fields)
}

fn feature(args: &FeatureArgs) -> anyhow::Result<Outcome> {
    let (common, group) = (&args.group.common, args.group.endgrp_id);
    let wanted = match args.enable_conf_idx {
        Some(index) => Some(FlexibleDataPlacement::new().with_enabled(true).with_configuration(index)),
        None => args.disable.then(FlexibleDataPlacement::new),
    };
    let effect = if wanted.is_some() { Effect::Changes } else { Effect::Reads };
    let controller = common.open(effect, args.consent)?;
    if let Some(value) = wanted {
        controller.set_feature_with(&value, &FeatureUpdate { group, ..FeatureUpdate::default() })?;
    }
    let query = FeatureQuery { dword11: Some(group.into()), ..FeatureQuery::default() };
    let value = controller.feature_with::<FlexibleDataPlacement>(&query)?;
    let state = match value.enabled() {
        true => format!("on, with configuration {}", value.configuration()),
        false => "off".into(),
    };
    let text = format!("flexible data placement of endurance group {group}: {state}");
    let fields = [
        ("endurance_group", group.into()),
        ("enabled", value.enabled().into()),
        ("configuration", value.configuration().into()),
    ];
    common.print(controller.name(), &text, &fields)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
