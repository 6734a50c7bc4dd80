//! `upcie id`: shows what Identify returns.

use super::{
    names,
    nvme_cli::Source,
    output::{Output, Page},
};
use crate::{outcome::Outcome, target::Target};
use clap::Args;
use upcie_nvme::{
    Controller, IdentifyQuery,
    spec::{Cns, Csi, IdentifyInfo},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie id emu ctrl                      the controller; `upcie id ctrl emu` works, too
  upcie id emu ns --namespace 1          a namespace
  upcie id 0000:01:00.0 ns-descs --json
  upcie id-ctrl 0000:01:00.0 -o json     as nvme-cli prints it
  upcie id 0000:01:00.0 csi-ns --csi 2   what the zoned command set adds

Structures: a number (CNS), the specification's name (the beginning is enough), or one of
  ctrl, ns, list-ns, ns-descs, nvmset, csi-ns, csi-ctrl, list-csi-ns, independent-ns,
  ns-lba-format, csi-ns-lba-format, list-allocated-ns, allocated-ns, ns-ctrls, list-ctrl,
  primary-ctrl-caps, list-secondary, ns-granularity, uuid, domain, list-endgrp,
  list-allocated-csi-ns, allocated-csi-ns, cmdset, underlying-ns, ports,
  independent-allocated-ns, state-formats";

/// nvme-cli's names, with and without their `id-`.
const ALIASES: &[(&str, u8)] = &[
    ("ns", 0x00),
    ("id-ns", 0x00),
    ("ctrl", 0x01),
    ("id-ctrl", 0x01),
    ("list-ns", 0x02),
    ("ns-descs", 0x03),
    ("nvmset", 0x04),
    ("id-nvmset", 0x04),
    ("csi-ns", 0x05),
    ("nvm-id-ns", 0x05),
    ("csi-ctrl", 0x06),
    ("nvm-id-ctrl", 0x06),
    ("list-csi-ns", 0x07),
    ("independent-ns", 0x08),
    ("cmdset-ind-id-ns", 0x08),
    ("ns-lba-format", 0x09),
    ("id-ns-lba-format", 0x09),
    ("csi-ns-lba-format", 0x0a),
    ("nvm-id-ns-lba-format", 0x0a),
    ("list-allocated-ns", 0x10),
    ("allocated-ns", 0x11),
    ("ns-ctrls", 0x12),
    ("list-ctrl", 0x13),
    ("primary-ctrl-caps", 0x14),
    ("list-secondary", 0x15),
    ("ns-granularity", 0x16),
    ("id-ns-granularity", 0x16),
    ("uuid", 0x17),
    ("id-uuid", 0x17),
    ("domain", 0x18),
    ("id-domain", 0x18),
    ("list-endgrp", 0x19),
    ("list-allocated-csi-ns", 0x1a),
    ("allocated-csi-ns", 0x1b),
    ("cmdset", 0x1c),
    ("id-iocs", 0x1c),
    ("underlying-ns", 0x1d),
    ("ports", 0x1e),
    ("independent-allocated-ns", 0x1f),
    ("state-formats", 0x20),
];

/// Arguments of `upcie id`.
#[derive(Debug, Args)]
pub struct IdArgs {
    #[command(flatten)]
    target: Target,
    /// Structure, by number (CNS) or name
    #[arg(value_parser = parse_cns, default_value = "ctrl")]
    structure: Cns,
    #[command(flatten)]
    output: Output,
    /// Namespace, or the one after which a list begins; the first active one for structures of a namespace
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = names::parse::<u32>)]
    namespace: Option<u32>,
    /// Controller, or the one at which a list begins
    #[arg(long, short = 'c', alias = "cntid", value_name = "CNTID", value_parser = names::parse::<u16>, default_value = "0")]
    controller: u16,
    /// CNS-specific identifier: an NVM set, a domain, an endurance group, a format index
    #[arg(long, value_name = "N", value_parser = names::parse::<u16>, default_value = "0")]
    specific: u16,
    /// Command set: 0 NVM, 1 key value, 2 zoned
    #[arg(long, short = 'y', value_name = "N", value_parser = names::parse::<u8>, default_value = "0")]
    csi: u8,
    /// UUID index, 7 bits
    #[arg(long, short = 'U', value_name = "N", value_parser = names::parse::<u8>, default_value = "0")]
    uuid_index: u8,
}

/// Returns `true` for nvme-cli's name of a command that shows a structure: short names such as `ctrl` are no commands of it.
pub fn is_structure(name: &str) -> bool {
    let is_command = name.starts_with("id-") || name.starts_with("list-") || name.contains("-id-");
    is_command && ALIASES.iter().any(|alias| alias.0 == name)
        || matches!(name, "ns-descs" | "primary-ctrl-caps")
}

/// Returns `true` for the name or the number of a structure.
pub fn is_cns(text: &str) -> bool {
    parse_cns(text).is_ok()
}

fn parse_cns(text: &str) -> Result<Cns, String> {
    let all: Vec<_> = IdentifyInfo::ALL.iter().map(|info| (info.cns.0, info.title)).collect();
    names::find(text, "structure", ALIASES, &all).map(Cns)
}

/// Returns the namespace that the user named, or the first active one where a namespace is needed.
pub fn namespace(controller: &Controller, wanted: Option<u32>, needed: bool) -> anyhow::Result<u32> {
    match wanted {
        Some(nsid) => Ok(nsid),
        None if needed => Ok(controller.namespace_ids()?.first().copied().unwrap_or(0)),
        None => Ok(0),
    }
}

/// Runs `upcie id`.
pub fn run(args: &IdArgs) -> anyhow::Result<Outcome> {
    let controller = args.output.open(&args.target)?;
    let known = IdentifyInfo::of(args.structure, Csi(args.csi));
    let query = IdentifyQuery {
        nsid: namespace(&controller, args.namespace, known.is_some_and(|known| known.of_namespace))?,
        controller_id: args.controller,
        specific_id: args.specific,
        uuid_index: args.uuid_index,
    };
    let page = controller.identify_bytes(args.structure, Csi(args.csi), &query)?;
    let title = known.map_or_else(
        || args.structure.to_string(),
        |known| format!("{} ({:02X}h)", known.title, known.cns.0),
    );
    args.output.print(Page {
        device: controller.name(),
        title: &title,
        source: Source::Identify(args.structure),
        fields: known.map(|known| (known.fields)(&page)),
        bytes: &page[..],
    })
}
