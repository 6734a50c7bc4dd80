//! `upcie reset`: resets a controller.

use super::common::{Common, Effect};
use crate::{guard::Consent, outcome::Outcome};
use clap::Args;
use std::time::Instant;
use upcie_nvme::ResetKind;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie reset 0000:01:00.0
  upcie reset 0000:01:00.0 --function

A controller level reset, by CC.EN, if nothing else is asked for. Data stays. Firmware that
waits for a reset is activated.";

/// Arguments of `upcie reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    common: Common,
    /// Reset the PCI function instead (a function-level reset, or what the kernel has for this function alone)
    #[arg(long, conflicts_with = "subsystem")]
    function: bool,
    /// Reset the whole NVM subsystem instead (NSSR): all of its controllers, whoever drives them
    #[arg(long)]
    subsystem: bool,
}

/// Runs `upcie reset`.
pub fn run(args: &ResetArgs) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Changes, Consent::default())?;
    let start = Instant::now();
    controller.reset_by(match (args.function, args.subsystem) {
        (true, _) => ResetKind::Function,
        (_, true) => ResetKind::Subsystem,
        _ => ResetKind::Controller,
    })?;
    let took = start.elapsed();
    let text = format!("reset, and ready again after {:.0} ms", took.as_secs_f64() * 1e3);
    args.common.print(controller.name(), &text, &[("seconds", took.as_secs_f64().into())])
}
