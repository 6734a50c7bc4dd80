//! `upcie flush`: what was written survives a loss of power.

use crate::{
    guard::Consent,
    manage::common::{Common, Effect, parse_namespace},
    outcome::{Outcome, list},
};
use anyhow::{bail, ensure};
use clap::Args;
use serde_json::json;
use upcie_core::Chain;
use upcie_nvme::{Failure, spec::ALL_NAMESPACES};

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
    let (mut flushed, mut failed) = (Vec::new(), None);
    for namespace in &all {
        let result = match namespace.keys() {
            Ok(keys) => keys.flush(),
            Err(_) => namespace.flush(),
        };
        match result {
            Ok(()) => flushed.push(namespace.nsid()),
            Err(error) => {
                // The fault of one namespace keeps no data of the others in the cache.
                let is_of_one =
                    matches!(error.failure(), Failure::Status { .. } | Failure::Unsupported { .. });
                failed = failed.or(Some(error));
                if !is_of_one {
                    break;
                }
            }
        }
    }
    let text = match &flushed[..] {
        [] => "nothing was flushed".to_owned(),
        [nsid] => format!("flushed namespace {nsid}"),
        ids => format!("flushed namespaces {}", list(ids)),
    };
    if let Some(error) = failed {
        bail!("{}; {text}", Chain(&error));
    }
    args.common.print(controller.name(), &text, &[("namespaces", json!(flushed))])
}
