//! `upcie ns`: lists, creates, deletes, attaches and detaches namespaces.

use super::common::{Common, Effect, name, parse_namespace};
use crate::{guard::Consent, outcome::Outcome, signal, structures::parse, units};
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::fmt::Write as _;
use upcie_nvme::{
    Controller, IdentifyQuery,
    spec::{
        ALL_NAMESPACES, AttachNamespace, Cns, CreateNamespace, Csi, DeleteNamespace, DetachNamespace,
        FromBytes, IdentifyData, IdentifyNamespace, KeyValueNamespace,
    },
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie ns list emu:namespaces=2
  upcie ns create 0000:01:00.0 --size 100G --block-size 4096 --attach
  upcie ns detach 0000:01:00.0 --namespace 2
  upcie ns delete 0000:01:00.0 --namespace 2 --destructive

A new namespace is detached: attach it to see it, here with --attach. Delete loses the data; detach
keeps it.";

/// Arguments of `upcie ns`.
#[derive(Debug, Args)]
pub struct NsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the namespaces, attached and detached ones
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Create a namespace of the capacity that is free
    Create(Box<CreateArgs>),
    /// Delete a namespace and its data
    Delete {
        #[command(flatten)]
        common: Common,
        /// Namespace, or `all`
        #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse_namespace)]
        namespace: u32,
        #[command(flatten)]
        consent: Consent,
    },
    /// Attach a namespace to controllers
    Attach(AttachArgs),
    /// Detach a namespace from controllers; its data stays
    Detach(AttachArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    common: Common,
    /// Size: bytes, with a unit such as G, rounded down to whole blocks
    #[arg(long, value_parser = units::parse_bytes, required_unless_present = "blocks", conflicts_with = "blocks")]
    size: Option<u64>,
    /// Size in blocks
    #[arg(long, short_alias = 's', alias = "nsze", value_name = "N", value_parser = parse::<u64>)]
    blocks: Option<u64>,
    /// Blocks that may be in use at a time; all by default, less is thin provisioning
    #[arg(long, short, alias = "ncap", value_name = "BLOCKS", value_parser = parse::<u64>)]
    capacity: Option<u64>,
    /// Bytes of data of a block; the first format that has as many, and the metadata of --metadata
    #[arg(long, short, value_parser = units::parse_bytes, conflicts_with = "format")]
    block_size: Option<u64>,
    /// Bytes of metadata of a block; needs --block-size
    #[arg(long, value_name = "BYTES", value_parser = parse::<u16>, requires = "block_size", default_value = "0")]
    metadata: u16,
    /// Metadata at the end of each block
    #[arg(long)]
    extended_metadata: bool,
    /// Index of the block format
    #[arg(long, short, alias = "flbas", value_name = "N", value_parser = parse::<u8>)]
    format: Option<u8>,
    /// Protection settings (DPS)
    #[arg(long, short_alias = 'd', alias = "dps", value_name = "N", value_parser = parse::<u8>, default_value = "0")]
    protection: u8,
    /// Let several controllers attach it
    #[arg(long)]
    shared: bool,
    /// ANA group
    #[arg(long, short, alias = "anagrp-id", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    ana_group: u32,
    /// NVM set
    #[arg(long, short_alias = 'i', alias = "nvmset-id", value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    nvm_set: u16,
    /// Endurance group
    #[arg(long, short, alias = "endg-id", value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    endurance_group: u16,
    /// Placement handles, with commas between them
    #[arg(long, short, alias = "phndls", value_name = "HANDLES", value_delimiter = ',', value_parser = parse::<u16>)]
    placement_handles: Vec<u16>,
    /// Command set: 0 NVM, 1 key value, 2 zoned
    #[arg(long, short = 'y', value_name = "N", value_parser = parse::<u8>, default_value = "0")]
    csi: u8,
    /// Attach it to this controller
    #[arg(long)]
    attach: bool,
}

#[derive(Debug, Args)]
struct AttachArgs {
    #[command(flatten)]
    common: Common,
    /// Namespace
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse_namespace)]
    namespace: u32,
    /// Controllers (CNTLID), with commas between them; this one by default
    #[arg(long, short, value_name = "IDS", value_delimiter = ',', value_parser = parse::<u16>)]
    controllers: Vec<u16>,
}

impl AttachArgs {
    fn open(&self) -> anyhow::Result<(Controller, Vec<u16>)> {
        let controller = self.common.open(Effect::Changes, Consent::default())?;
        let this = vec![controller.identify().cntlid];
        let controllers = if self.controllers.is_empty() { this } else { self.controllers.clone() };
        Ok((controller, controllers))
    }
}

/// Runs `upcie ns`.
pub fn run(args: &NsArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::List { common } => list(common),
        Verb::Create(args) => create(args),
        Verb::Delete { common, namespace, consent } => delete(common, *namespace, *consent),
        Verb::Attach(args) => {
            let (controller, controllers) = args.open()?;
            controller
                .execute(&AttachNamespace { nsid: args.namespace, controllers: controllers.clone() })?;
            print(args, &controller, "attached to", &controllers)
        }
        Verb::Detach(args) => {
            let (controller, controllers) = args.open()?;
            controller
                .execute(&DetachNamespace { nsid: args.namespace, controllers: controllers.clone() })?;
            print(args, &controller, "detached from", &controllers)
        }
    }
}

fn print(args: &AttachArgs, controller: &Controller, done: &str, to: &[u16]) -> anyhow::Result<Outcome> {
    let ids = to.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("{} {done} controller {ids}", name(args.namespace));
    args.common.print(
        controller.name(),
        &text,
        &[("namespace", args.namespace.into()), ("controllers", json!(to))],
    )
}

/// Returns the namespaces: those that are allocated, or the active ones of a controller that lists no others.
fn namespaces(controller: &Controller) -> anyhow::Result<Vec<(u32, bool)>> {
    let active = controller.namespace_ids()?;
    let allocated = match controller.allocated_namespace_ids() {
        Ok(list) => list,
        Err(error) if error.status().is_some() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut all: Vec<u32> = active.iter().chain(&allocated).copied().collect();
    all.sort_unstable();
    all.dedup();
    // Both lists are ascending.
    Ok(all.into_iter().map(|nsid| (nsid, active.binary_search(&nsid).is_ok())).collect())
}

fn identify(controller: &Controller, nsid: u32, attached: bool) -> anyhow::Result<IdentifyNamespace> {
    let cns = if attached { Cns::NAMESPACE } else { Cns::ALLOCATED_NAMESPACE };
    let query = IdentifyQuery { nsid, ..Default::default() };
    let page = controller.identify_bytes(cns, Csi::NVM, &query)?;
    IdentifyNamespace::read_from_bytes(&page[..]).ok().context("Identify Namespace has another size")
}

/// Returns the bytes of a key value namespace; `None` for any other.
fn key_value_size(controller: &Controller, nsid: u32, attached: bool) -> anyhow::Result<Option<u64>> {
    let cns = if attached { Cns::COMMAND_SET_NAMESPACE } else { Cns::COMMAND_SET_ALLOCATED_NAMESPACE };
    let query = IdentifyQuery { nsid, ..Default::default() };
    match controller.identify_bytes(cns, Csi::KEY_VALUE, &query) {
        // A controller without that command set, or another command set: some answer with zeros.
        Ok(page) => {
            let id = KeyValueNamespace::from_page(&page);
            Ok((id.max_key_length() > 0).then_some(id.size))
        }
        Err(error) if error.status().is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn list(common: &Common) -> anyhow::Result<Outcome> {
    let controller = common.open(Effect::Reads, Consent::default())?;
    let mut rows = Vec::new();
    let mut text = String::new();
    for (nsid, attached) in namespaces(&controller)? {
        if let Some(bytes) = key_value_size(&controller, nsid, attached)? {
            let state = if attached { "attached" } else { "detached" };
            write!(text, "\n  namespace {nsid}: {state}, {} for keys and values", units::bytes(bytes))?;
            rows.push(json!({ "namespace": nsid, "attached": attached, "key_value": true, "bytes": bytes }));
            continue;
        }
        let id = identify(&controller, nsid, attached)?;
        let block = id.block_size().unwrap_or(0);
        let bytes = id.nsze.saturating_mul(block);
        let state = if attached { "attached" } else { "detached" };
        let size = units::bytes(bytes);
        write!(text, "\n  namespace {nsid}: {state}, {size}, {} blocks of {block} bytes", id.nsze)?;
        rows.push(json!({
            "namespace": nsid, "attached": attached, "blocks": id.nsze, "block_size": block, "bytes": bytes,
        }));
    }
    if rows.is_empty() {
        text = "no namespaces".into();
    }
    let free = controller.identify().unallocated_capacity();
    let total = controller.identify().total_capacity();
    if total > 0 {
        write!(text, "\n  {} of {} are free", units::bytes(clamp(free)), units::bytes(clamp(total)))?;
    }
    let mut fields = vec![
        ("namespaces", Value::Array(rows)),
        ("total_capacity", clamp(total).into()),
        ("unallocated_capacity", clamp(free).into()),
    ];
    if common.is_of_nvme_cli() {
        let active = controller.namespace_ids()?;
        fields.push(("nsid_list", active.into_iter().map(|nsid| json!({ "nsid": nsid })).collect()));
    }
    common.print(controller.name(), &text, &fields)
}

fn clamp(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns the index of the first format whose blocks have `size` bytes of data and `metadata` beside them, of those that `id`
/// lists.
pub fn format_of(id: &IdentifyNamespace, size: u64, metadata: u16) -> anyhow::Result<u8> {
    let formats = || (0_u8..).zip(id.lbaf).take(id.format_count());
    let found = formats().find(|(_, format)| format.block_size() == Some(size) && format.ms() == metadata);
    found.map(|(index, _)| index).with_context(|| {
        let sizes = formats().filter_map(|(_, format)| match (format.block_size()?, format.ms()) {
            (size, 0) => Some(size.to_string()),
            (size, metadata) => Some(format!("{size}+{metadata}")),
        });
        let mut sizes: Vec<_> = sizes.collect();
        sizes.dedup();
        let wanted = if metadata == 0 { size.to_string() } else { format!("{size}+{metadata}") };
        format!("no format has blocks of {wanted} bytes (data+metadata); there are {}", sizes.join(", "))
    })
}

fn create(args: &CreateArgs) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Changes, Consent::default())?;
    // The formats, which all namespaces have in common.
    let common = identify(&controller, ALL_NAMESPACES, true);
    let has_keys = Csi(args.csi) == Csi::KEY_VALUE;
    let format = match (args.format, args.block_size) {
        (Some(format), _) => format,
        (None, Some(size)) => format_of(&common?, size, args.metadata)?,
        (None, None) => 0,
    };
    let blocks = match (args.blocks, args.size) {
        (Some(blocks), _) => blocks,
        // Without blocks the size is in bytes.
        (None, size) if has_keys => size.unwrap_or(0),
        (None, size) => {
            let id = identify(&controller, ALL_NAMESPACES, true)?;
            let block = id.lbaf.get(usize::from(format)).and_then(|format| format.block_size());
            let block = block.with_context(|| format!("there is no block format {format}"))?;
            size.unwrap_or(0) / block
        }
    };
    ensure!(blocks > 0, "a namespace has a block at least");
    let command = CreateNamespace {
        size: blocks,
        capacity: args.capacity.unwrap_or(if has_keys { 0 } else { blocks }),
        format,
        extended_metadata: args.extended_metadata,
        protection: args.protection,
        shared: args.shared,
        ana_group: args.ana_group,
        nvm_set: args.nvm_set,
        endurance_group: args.endurance_group,
        storage_tag_mask: 0,
        placement_handles: args.placement_handles.clone(),
        csi: Csi(args.csi),
    };
    signal::check("nothing was created")?;
    signal::say_that_it_waits();
    let nsid = controller.execute(&command)?;
    if args.attach {
        signal::check(&format!("namespace {nsid} was created, and is detached"))?;
        let controllers = vec![controller.identify().cntlid];
        let attached = controller.execute(&AttachNamespace { nsid, controllers });
        attached.with_context(|| format!("namespace {nsid} was created, and is detached"))?;
    }
    let state = if args.attach { "attached" } else { "detached" };
    let unit = if has_keys { "bytes for keys and values" } else { "blocks" };
    let text = format!("created namespace {nsid} of {blocks} {unit}, {state}");
    let fields = [("namespace", nsid.into()), ("blocks", blocks.into()), ("attached", args.attach.into())];
    args.common.print(controller.name(), &text, &fields)
}

fn delete(common: &Common, nsid: u32, consent: Consent) -> anyhow::Result<Outcome> {
    let controller = common.open(Effect::Deletes(nsid), consent)?;
    let all = namespaces(&controller)?;
    if nsid != ALL_NAMESPACES && !all.iter().any(|(known, _)| *known == nsid) {
        let known: Vec<_> = all.iter().map(|(nsid, _)| *nsid).collect();
        bail!("{}: no namespace {nsid}; there are {}", controller.name(), crate::outcome::list(&known));
    }
    signal::check("nothing was deleted")?;
    signal::say_that_it_waits();
    controller.execute(&DeleteNamespace { nsid })?;
    common.print(controller.name(), &format!("deleted {}", name(nsid)), &[("namespace", nsid.into())])
}
