//! `upcie capacity`: endurance groups and NVM sets.

use super::common::{Common, Effect};
use crate::{guard::Consent, outcome::Outcome, structures::parse, units};
use clap::{Args, ValueEnum};
use upcie_nvme::spec::{CapacityManagement, CapacityOperation};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie capacity 0000:01:00.0 create-group --size 1T --destructive
  upcie capacity 0000:01:00.0 delete-set --element 3 --destructive";

/// Arguments of `upcie capacity`.
#[derive(Debug, Args)]
pub struct CapacityArgs {
    #[command(flatten)]
    common: Common,
    /// Operation to run
    #[arg(value_enum)]
    operation: Operation,
    /// Configuration, endurance group or NVM set
    #[arg(long, value_name = "ID", value_parser = parse::<u16>, default_value = "0")]
    element: u16,
    /// Bytes of what is created
    #[arg(long, value_parser = units::parse_bytes, default_value = "0")]
    size: u64,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Select a configuration; all namespaces are deleted
    Select,
    /// Create an endurance group
    CreateGroup,
    /// Delete an endurance group, its NVM sets and namespaces
    DeleteGroup,
    /// Create an NVM set
    CreateSet,
    /// Delete an NVM set and its namespaces
    DeleteSet,
}

/// Runs `upcie capacity`.
pub fn run(args: &CapacityArgs) -> anyhow::Result<Outcome> {
    let effect = Effect::Loses("capacity may delete namespaces of");
    let controller = args.common.open(effect, args.consent)?;
    let operation = match args.operation {
        Operation::Select => CapacityOperation::SELECT_CONFIGURATION,
        Operation::CreateGroup => CapacityOperation::CREATE_ENDURANCE_GROUP,
        Operation::DeleteGroup => CapacityOperation::DELETE_ENDURANCE_GROUP,
        Operation::CreateSet => CapacityOperation::CREATE_NVM_SET,
        Operation::DeleteSet => CapacityOperation::DELETE_NVM_SET,
    };
    let command = CapacityManagement { operation, element: args.element, capacity: args.size };
    let element = controller.execute(&command)?;
    let text = format!("{operation}: element {element}");
    args.common.print(controller.name(), &text, &[("element", element.into())])
}
