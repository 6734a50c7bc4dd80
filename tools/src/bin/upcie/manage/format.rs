//! `upcie format`: gives namespaces another block format.

use super::{
    common::{Common, Effect, name, parse_namespace},
    namespaces::format_of,
    progress::beside,
};
use crate::{
    guard::Consent,
    outcome::{Outcome, list},
    signal,
    structures::parse,
    units,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::time::Duration;
use upcie_nvme::{
    IdentifyQuery,
    spec::{FormatNvm, IdentifyNamespace, SecureErase},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie format emu --block-size 4096
  upcie format emu --metadata 8 --extended-metadata --protection 1
  upcie format 0000:01:00.0 --namespace 1 --format 1 --destructive
  upcie format 0000:01:00.0 --namespace all --erase crypto --destructive --wait 1h

The data of the namespace is lost. `upcie id ADDR ns` lists the formats.";

/// Arguments of `upcie format`.
#[derive(Debug, Args)]
pub struct FormatArgs {
    #[command(flatten)]
    common: Common,
    /// Namespace, or `all`; the first active one by default
    #[arg(long, short, alias = "namespace-id", value_name = "NSID", value_parser = parse_namespace)]
    namespace: Option<u32>,
    /// Bytes of data of a block; the first format that has as many, and the metadata of --metadata. The present ones by default
    #[arg(long, short, value_parser = units::parse_bytes, conflicts_with = "format")]
    block_size: Option<u64>,
    /// Bytes of metadata of a block; none by default
    #[arg(long, value_name = "BYTES", value_parser = parse::<u16>, conflicts_with = "format")]
    metadata: Option<u16>,
    /// Index of the block format
    #[arg(long, short_alias = 'l', alias = "lbaf", value_name = "N", value_parser = parse::<u8>)]
    format: Option<u8>,
    /// Data to erase for good
    #[arg(long, short_alias = 's', alias = "ses", value_enum, default_value = "none")]
    erase: Erase,
    /// Protection information: 0 none, 1 to 3 a type
    #[arg(long, short_alias = 'i', alias = "pi", value_name = "N", value_parser = parse::<u8>, default_value = "0")]
    protection: u8,
    /// Protection information in the first bytes of the metadata
    #[arg(long)]
    protection_first: bool,
    /// Metadata at the end of each block
    #[arg(long)]
    extended_metadata: bool,
    /// Give up if it has not ended after this long
    #[arg(long, value_name = "TIME", default_value = "600", value_parser = units::parse_time)]
    wait: Duration,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Erase {
    /// Nothing beyond the change of format
    #[value(alias = "0")]
    None,
    /// All user data
    #[value(alias = "1")]
    User,
    /// The key of the user data
    #[value(alias = "2")]
    Crypto,
}

/// Runs `upcie format`.
pub fn run(args: &FormatArgs) -> anyhow::Result<Outcome> {
    let nsid = args.namespace.filter(|nsid| *nsid != u32::MAX);
    let controller = args.common.open(Effect::Erases(args.namespace, "format erases"), args.consent)?;
    let ids = controller.namespace_ids()?;
    let first = nsid.or(ids.first().copied()).filter(|nsid| ids.contains(nsid));
    let first = first.with_context(|| {
        let wanted = nsid.map_or("no active namespace".into(), |nsid| format!("no namespace {nsid}"));
        format!("{}: {wanted}; the active ones: {}", controller.name(), list(&ids))
    })?;
    // Zeros for a namespace with keys: it has the one format 0.
    let id = *controller.namespace(first)?.identify();
    let format = match (args.format, args.block_size, args.metadata) {
        (Some(format), ..) => format,
        (None, None, None) => id.format_index() as u8,
        (None, size, metadata) => {
            let size = size.or(id.block_size()).unwrap_or(512);
            format_of(&id, size, metadata.unwrap_or(0))?
        }
    };
    let nsid = args.namespace.unwrap_or(first);
    let command = FormatNvm {
        nsid,
        format,
        extended_metadata: args.extended_metadata,
        protection: args.protection,
        protection_first: args.protection_first,
        erase: match args.erase {
            Erase::None => SecureErase::NONE,
            Erase::User => SecureErase::USER_DATA,
            Erase::Crypto => SecureErase::CRYPTOGRAPHIC,
        },
    };
    signal::check("nothing was formatted")?;
    signal::say_that_it_waits();
    // FPI: bit 7 the controller tells its progress, bits 6:0 the percent that remain.
    let query = IdentifyQuery { nsid: first, ..IdentifyQuery::default() };
    let done = || {
        let fpi = controller.identify_as::<IdentifyNamespace>(&query).ok()?.fpi;
        (fpi & 0x80 != 0).then(|| 100.0 - f64::from(fpi & 0x7f))
    };
    beside("format", || controller.execute_within(&command, args.wait), done)?;
    let namespace = controller.namespace(first)?;
    let (id, keys) = (*namespace.identify(), namespace.keys().ok());
    let block = id.block_size().unwrap_or(0);
    let metadata = id.lba_format().map_or(0, |format| format.ms());
    let mut text = format!("formatted {}: {} blocks of {block} bytes", name(nsid), id.nsze);
    if let Some(keys) = &keys {
        text = format!("formatted {}: {} for keys and values", name(nsid), units::bytes(keys.size()));
    }
    if metadata > 0 {
        let place = if id.metadata_is_extended() { "at the end of each" } else { "apart" };
        text += &format!(" and {metadata} bytes of metadata {place}");
    }
    if id.protection_type() != 0 {
        text += &format!(", protection information of type {}", id.protection_type());
    }
    let fields = [
        ("namespace", nsid.into()),
        ("format", format.into()),
        ("blocks", id.nsze.into()),
        ("block_size", block.into()),
        ("metadata_size", metadata.into()),
        ("metadata_is_extended", id.metadata_is_extended().into()),
        ("protection_type", id.protection_type().into()),
    ];
    args.common.print(controller.name(), &text, &fields)
}
