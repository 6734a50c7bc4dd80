//! `upcie flush`: what was written survives a loss of power.

use crate::{
    guard::Consent,
    manage::common::{Common, Effect, parse_namespace},
    outcome::{Outcome, list},
};
use anyhow::ensure;
use clap::Args;
use serde_json::json;
use upcie_nvme::spec::ALL_NAMESPACES;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie flush 0000:01:00.0
  upcie flush 0000:01:00.0 --namespace 2 --json

`upcie write` flushes what it has written. A controller flushes its cache at a shutdown, too.";

/// Arguments of `upcie flush`.
#[derive(Debug, Args)]
pub struct FlushArgs {
    #[command(flatten)]
    common: Common,
    /// Namespace, or `all` [default: all that are active]
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = parse_namespace)]
    namespace: Option<u32>,
}

/// Runs `upcie flush`.
pub fn run(args: &FlushArgs) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Changes, Consent::default())?;
    let all = match args.namespace {
        None | Some(ALL_NAMESPACES) => controller.namespaces()?,
        Some(nsid) => vec![controller.namespace(nsid)?],
    };
    ensure!(!all.is_empty(), "{}: the controller has no active namespace", controller.name());
    for namespace in &all {
        match namespace.keys() {
            Ok(keys) => keys.flush()?,
            Err(_) => namespace.flush()?,
        }
    }
    let ids: Vec<u32> = all.iter().map(|namespace| namespace.nsid()).collect();
    let text = match &ids[..] {
        [nsid] => format!("flushed namespace {nsid}"),
        ids => format!("flushed namespaces {}", list(ids)),
    };
    args.common.print(controller.name(), &text, &[("namespaces", json!(ids))])
}
