//! `upcie lockdown`: prohibits commands and features until power is cut.

use super::common::{Common, Effect};
use crate::{guard::Consent, outcome::Outcome, structures::parse};
use clap::{Args, ValueEnum};
use upcie_nvme::spec::{Lockdown, LockdownInterface, LockdownSubject};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie lockdown 0000:01:00.0 --command 0x80 --prohibit --destructive         Format NVM
  upcie lockdown 0000:01:00.0 --feature 0x84 --allow --destructive
  upcie log 0000:01:00.0 lockdown-log                                        what is prohibited";

/// Arguments of `upcie lockdown`.
#[derive(Debug, Args)]
pub struct LockdownArgs {
    #[command(flatten)]
    common: Common,
    /// Opcode of an admin command
    #[arg(long, value_name = "OPCODE", value_parser = parse::<u8>, required_unless_present_any = ["feature", "management"],
        conflicts_with_all = ["feature", "management"])]
    command: Option<u8>,
    /// Feature that can't be set
    #[arg(long, value_name = "FID", value_parser = parse::<u8>, conflicts_with = "management")]
    feature: Option<u8>,
    /// Opcode of an NVMe-MI command
    #[arg(long, value_name = "OPCODE", value_parser = parse::<u8>)]
    management: Option<u8>,
    /// Prohibit it
    #[arg(long, required_unless_present = "allow", conflicts_with = "allow")]
    prohibit: bool,
    /// Allow it again
    #[arg(long)]
    allow: bool,
    /// Interface that it applies to
    #[arg(long, value_enum, default_value = "queue")]
    interface: Interface,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Interface {
    /// On the admin queue
    Queue,
    /// On the admin queue and out of band
    Both,
    /// Out of band
    OutOfBand,
}

/// Runs `upcie lockdown`.
pub fn run(args: &LockdownArgs) -> anyhow::Result<Outcome> {
    let (subject, code) = match (args.command, args.feature, args.management) {
        (_, Some(feature), _) => (LockdownSubject::FEATURE, feature),
        (_, _, Some(opcode)) => (LockdownSubject::MANAGEMENT_COMMAND, opcode),
        (opcode, ..) => (LockdownSubject::ADMIN_COMMAND, opcode.unwrap_or(0)),
    };
    let effect = Effect::Loses("lockdown changes which commands work until power is cut on");
    let controller = args.common.open(effect, args.consent)?;
    controller.execute(&Lockdown {
        subject,
        code,
        prohibit: args.prohibit,
        interface: match args.interface {
            Interface::Queue => LockdownInterface::ADMIN_QUEUE,
            Interface::Both => LockdownInterface::ADMIN_QUEUE_AND_OUT_OF_BAND,
            Interface::OutOfBand => LockdownInterface::OUT_OF_BAND,
        },
        uuid_index: 0,
    })?;
    let state = if args.prohibit { "prohibited" } else { "allowed" };
    let text = format!("{} {code:#04x} is {state}", subject.name().unwrap_or("command"));
    args.common.print(
        controller.name(),
        &text,
        &[("prohibited", args.prohibit.into()), ("code", code.into())],
    )
}
