//! `upcie reset`: resets a controller.

use super::common::{Common, Effect};
use crate::{guard::Consent, outcome::Outcome};
use clap::Args;
use std::time::Instant;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie reset 0000:01:00.0

A controller level reset, by CC.EN. Data stays. Firmware that waits for a reset is activated.";

/// Arguments of `upcie reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    common: Common,
}

/// Runs `upcie reset`.
pub fn run(args: &ResetArgs) -> anyhow::Result<Outcome> {
    let controller = args.common.open(Effect::Changes, Consent::default())?;
    let start = Instant::now();
    controller.reset()?;
    let took = start.elapsed();
    let text = format!("reset, and ready again after {:.0} ms", took.as_secs_f64() * 1e3);
    args.common.print(controller.name(), &text, &[("seconds", took.as_secs_f64().into())])
}
