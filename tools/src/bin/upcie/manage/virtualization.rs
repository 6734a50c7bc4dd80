//! `upcie virt`: resources of secondary controllers.

use super::{
    common::{Common, Effect},
    provide::{self, ProvideArgs},
    provide_served,
};
use crate::{guard::Consent, outcome::Outcome, structures::parse};
use anyhow::Context;
use clap::{Args, ValueEnum};
use upcie_nvme::spec::{VirtualResource, VirtualizationAction, VirtualizationManagement};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie id 0000:01:00.0 list-secondary
  upcie virt 0000:01:00.0 provide --functions 2 --queues 4 --interrupts 3 --destructive
  upcie virt 0000:01:00.0 primary --controller 0 --resource queues --number 0 --destructive

A secondary controller gets queues and interrupts while it is offline, and is turned on then. It
goes offline when its primary controller is reset: by VFIO, when any program ends that drives this.
`provide` does all of it and stays: it makes virtual functions, prints the address of each, and
removes them at Ctrl-C; those of a vfio-user server are there already, on sockets of their own.
vfio-pci makes virtual functions once it is told to, as root:
echo 1 > /sys/module/vfio_pci/parameters/enable_sriov";

/// Arguments of `upcie virt`.
#[derive(Debug, Args)]
pub struct VirtArgs {
    #[command(flatten)]
    common: Common,
    /// Action to take
    #[arg(value_enum)]
    action: Action,
    /// Controller (CNTLID), for all actions but `provide`
    #[arg(long, alias = "cntlid", value_name = "CNTLID", value_parser = parse::<u16>)]
    controller: Option<u16>,
    /// Resource to assign
    #[arg(long, alias = "rt", value_enum, default_value = "queues")]
    resource: Resource,
    /// How many
    #[arg(long, alias = "nr", value_name = "N", value_parser = parse::<u16>, default_value = "0")]
    number: u16,
    #[command(flatten)]
    provide: ProvideArgs,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Set the primary controller's own flexible resources, from the next reset on
    #[value(alias = "1")]
    Primary,
    /// Turn a secondary controller off
    #[value(alias = "7")]
    Offline,
    /// Give a secondary controller resources
    #[value(alias = "8")]
    Assign,
    /// Turn a secondary controller on
    #[value(alias = "9")]
    Online,
    /// Make virtual functions, turn their controllers on, and keep them until Ctrl-C
    Provide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Resource {
    /// Queue pairs
    #[value(alias = "0")]
    Queues,
    /// Interrupt vectors
    #[value(alias = "1")]
    Interrupts,
}

/// Runs `upcie virt`.
pub fn run(args: &VirtArgs) -> anyhow::Result<Outcome> {
    let effect = Effect::Loses("virt moves queues and interrupts between controllers of");
    let action = match args.action {
        Action::Provide => {
            args.common.check(&effect, args.consent)?;
            return match args.common.target.bdf() {
                Some(_) => provide::run(&args.common, &args.provide),
                None => provide_served::run(&args.common, &args.provide),
            };
        }
        Action::Primary => VirtualizationAction::PRIMARY_FLEXIBLE,
        Action::Offline => VirtualizationAction::SECONDARY_OFFLINE,
        Action::Assign => VirtualizationAction::SECONDARY_ASSIGN,
        Action::Online => VirtualizationAction::SECONDARY_ONLINE,
    };
    let resource = match args.resource {
        Resource::Queues => VirtualResource::QUEUES,
        Resource::Interrupts => VirtualResource::INTERRUPTS,
    };
    let id = args
        .controller
        .context("--controller CNTLID is needed: `upcie id ADDR list-secondary` lists them")?;
    let number = args.number;
    let controller = args.common.open(effect, args.consent)?;
    let command = VirtualizationManagement { action, controller: id, resource, number };
    let assigned = controller.execute(&command)?;
    let text = format!("{action}: controller {id}: {assigned} assigned");
    args.common.print(controller.name(), &text, &[("controller", id.into()), ("assigned", assigned.into())])
}
