//! `upcie sanitize`: erases a device for good.

use super::{
    common::{Common, Effect},
    progress::follow,
};
use crate::{cli, guard::Consent, outcome::Outcome, structures::parse};
use clap::{Args, ValueEnum};
use upcie_nvme::{
    Controller,
    spec::{ALL_NAMESPACES, Sanitize, SanitizeAction, SanitizeStatusLog},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie sanitize 0000:01:00.0 --action block --destructive
  upcie sanitize 0000:01:00.0 --action overwrite --passes 3 --pattern 0xa5a5a5a5 --destructive
  upcie sanitize 0000:01:00.0                 wait for the one that is in progress

Erases every namespace of the device and its caches. It can't be stopped, and goes on after Ctrl-C,
a reset and a loss of power. `upcie log ADDR sanitize-log` shows the log page.";

/// Arguments of `upcie sanitize`.
#[derive(Debug, Args)]
pub struct SanitizeArgs {
    #[command(flatten)]
    common: Common,
    /// Action to take; without it, wait for the operation in progress
    #[arg(long, short, alias = "sanact", value_enum)]
    action: Option<Action>,
    /// Return once it has begun
    #[arg(long)]
    no_wait: bool,
    /// Let the device be used again after a failure
    #[arg(long, short, alias = "ause")]
    unrestricted: bool,
    /// Passes of an overwrite, 1 to 16
    #[arg(long, short_alias = 'n', alias = "owpass", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=16))]
    passes: u8,
    /// Pattern of an overwrite, 32 bits
    #[arg(long, short, alias = "ovrpat", value_name = "N", value_parser = parse::<u32>, default_value = "0")]
    pattern: u32,
    /// Invert the pattern between passes
    #[arg(long, short, alias = "oipbp")]
    invert: bool,
    /// Don't deallocate the blocks afterwards
    #[arg(long, short_alias = 'd', aliases = ["nodas", "no-dealloc"])]
    no_deallocate: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Erase all blocks
    #[value(aliases = ["start-block-erase", "2"])]
    Block,
    /// Write a pattern to all blocks
    #[value(aliases = ["start-overwrite", "3"])]
    Overwrite,
    /// Forget the key of the data
    #[value(aliases = ["start-crypto-erase", "4"])]
    Crypto,
    /// Leave the failure mode after an operation that failed
    #[value(aliases = ["exit-failure", "1"])]
    ExitFailure,
}

/// Runs `upcie sanitize`.
pub fn run(args: &SanitizeArgs) -> anyhow::Result<Outcome> {
    let effect = match args.action {
        None => Effect::Reads,
        Some(Action::ExitFailure) => Effect::Changes,
        Some(_) => Effect::Erases(Some(ALL_NAMESPACES), "sanitize erases"),
    };
    let controller = args.common.open(effect, args.consent)?;
    if let Some(action) = args.action {
        let command = Sanitize {
            unrestricted: args.unrestricted,
            passes: args.passes % 16,
            invert: args.invert,
            no_deallocate: args.no_deallocate,
            pattern: args.pattern,
            ..Sanitize::new(match action {
                Action::Block => SanitizeAction::BLOCK_ERASE,
                Action::Overwrite => SanitizeAction::OVERWRITE,
                Action::Crypto => SanitizeAction::CRYPTO_ERASE,
                Action::ExitFailure => SanitizeAction::EXIT_FAILURE,
            })
        };
        controller.execute(&command)?;
    }
    let log = || controller.log::<SanitizeStatusLog>();
    let mut ended = true;
    if !args.no_wait {
        ended = follow("sanitize", || {
            let log = log()?;
            Ok((log.status.operation() == 2).then(|| f64::from(log.progress) / 655.36))
        })?;
    }
    if !ended {
        cli::message("upcie: the sanitize goes on: `upcie sanitize ADDR` waits for its end");
    }
    let log = log()?;
    report(args, &controller, &log)?;
    Ok(match log.status.operation() {
        _ if !ended => Outcome::Interrupted,
        3 => Outcome::Faults,
        _ => Outcome::Done,
    })
}

fn report(args: &SanitizeArgs, controller: &Controller, log: &SanitizeStatusLog) -> anyhow::Result<Outcome> {
    let state = match log.status.operation() {
        0 => "was never sanitized",
        1 => "the sanitize has completed",
        2 => "the sanitize is in progress",
        3 => "the sanitize has failed: see `upcie log ADDR sanitize-log`",
        4 => "the sanitize has completed, and has deallocated blocks against the request",
        _ => "the sanitize has an unknown state",
    };
    let running = log.status.operation() == 2;
    let percent = if running { f64::from(log.progress) / 655.36 } else { 100.0 };
    let text = if running { format!("{state}: {percent:.0} %") } else { state.into() };
    let fields = [
        ("state", log.status.operation().into()),
        ("in_progress", running.into()),
        ("percent", percent.into()),
        ("global_data_erased", log.status.global_data_erased().into()),
    ];
    args.common.print(controller.name(), &text, &fields)
}
