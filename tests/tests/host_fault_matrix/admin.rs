//! The same faults at an admin command: the driver ends the call, loses no block, and goes on, or says that it can't.

use super::{BLOCKS, check, open, shown, stamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use upcie_nvme::{
    Controller, Failure, Namespace, Result,
    emu::{Fault, FaultPlan, FaultRule},
    spec::{AdminOpcode, Command, FeatureId, FeatureSelect},
};
use upcie_tests::{
    deadline,
    process::{Directory, within},
};

/// The driver's limit for a call.
const LIMIT: Duration = Duration::from_secs(5);

/// Strikes once, at Get Features, which the driver itself does not send; `None` for faults of the data of I/O commands.
fn plan(fault: Fault) -> Option<FaultPlan> {
    let fault = match fault {
        Fault::Corrupt | Fault::EarlyCompletion(_) => return None,
        // The command names no namespace.
        Fault::RemoveNamespace(_) => Fault::RemoveNamespace(Some(1)),
        Fault::ResizeNamespace { blocks, .. } => Fault::ResizeNamespace { target: Some(1), blocks },
        Fault::ReformatNamespace { block_size, .. } => {
            Fault::ReformatNamespace { target: Some(1), block_size }
        }
        fault => fault,
    };
    let rule = FaultRule::new(fault).queue(0).opcode(AdminOpcode::GET_FEATURES.0).count(1);
    let plan = FaultPlan::new(1).rule(rule);
    Some(if fault == Fault::PowerCut { plan.cache(1 << 20) } else { plan })
}

/// Runs a user through a fault, and a second one on the medium that is left; returns what was seen.
pub fn outcome(fault: Fault, way: &str) -> String {
    let Some(plan) = plan(fault) else { return "-".into() };
    let directory = Directory::new();
    let file = directory.path().join("medium");
    let options = format!("file={},size=1M", file.display());
    let is_emu = way == "emu";
    let mut seen = within(10 * deadline(), move || {
        let (controller, bent) = open(&plan, is_emu, &options, LIMIT);
        let seen = rounds(&controller, fault);
        drop((controller, bent));
        seen
    });
    let allowed: BTreeMap<_, _> = (0..BLOCKS).map(|block| (block, BTreeSet::from([0, 1, 2]))).collect();
    check(&file, &allowed, fault, &mut seen);
    shown(seen)
}

fn rounds(controller: &Controller, fault: Fault) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let namespace = controller.namespace(1).unwrap();
    write(&namespace, 1).unwrap();
    let command = Command::get_features(FeatureId::TEMPERATURE_THRESHOLD, FeatureSelect::CURRENT);
    if let Err(error) = controller.admin(&command, &mut []) {
        seen.insert(match error.failure() {
            Failure::Status { .. } => "status",
            Failure::Timeout { .. } => "late",
            _ => "failure",
        });
    }
    // These two strike at a reset.
    let needs_reset = matches!(fault, Fault::NeverReady | Fault::AlwaysReady);
    if needs_reset && controller.reset().is_err() || write(&namespace, 2).is_err() {
        seen.insert(if again(controller).is_ok() { "reset" } else { "gone" });
    }
    seen
}

/// Resets the controller, and writes with a new handle.
fn again(controller: &Controller) -> Result<()> {
    controller.reset()?;
    write(&controller.namespace(1)?, 2)
}

fn write(namespace: &Namespace, version: u8) -> Result<()> {
    (0..BLOCKS).try_for_each(|block| namespace.write_at(block * 512, &stamp(block, version)))
}
