//! `upcie virt ADDR provide` for a controller of a vfio-user server, whose virtual functions are there already.

use super::{
    common::Common,
    provide::{LOOK, ProvideArgs, Share, open},
};
use crate::{cli, outcome::Outcome, signal};
use anyhow::{anyhow, ensure};
use serde_json::{Value, json};
use std::thread;
use upcie_core::device;
use upcie_nvme::{Address, Controller, spec::SecondaryController};

/// Turns the first secondary controllers on, prints them, and turns them off at the end.
pub fn run(common: &Common, args: &ProvideArgs) -> anyhow::Result<Outcome> {
    let address = &common.target.address;
    ensure!(
        matches!(address, Address::Device(device::Address::VfioUser(_))),
        "{address}: it has no virtual functions for other programs, as PCI functions have and vfio-user servers \
         (`nvme-emu --vfs N`)"
    );
    let primary = open(&common.target, common.timeout)?;
    let mut all = primary.secondary_controllers()?;
    let (wanted, most) = (usize::from(args.functions), all.len());
    ensure!(
        (1..=most).contains(&wanted),
        "--functions {wanted}: {} has {most} secondary controllers",
        primary.name()
    );
    all.truncate(wanted);
    let held = hold(common, &primary, &all, args);
    let offline = all.iter().try_for_each(|one| primary.take_offline(one.secondary_controller_id));
    match (held, offline) {
        (Ok(()), Ok(())) => Ok(Outcome::Done),
        (Ok(()), Err(error)) => Err(error.into()),
        (Err(error), Ok(())) => Err(error),
        (Err(one), Err(other)) => Err(anyhow!("{one:#}; {other:#}")),
    }
}

/// Turns the controllers on, prints them, and waits for Ctrl-C.
fn hold(
    common: &Common,
    primary: &Controller,
    all: &[SecondaryController],
    args: &ProvideArgs,
) -> anyhow::Result<()> {
    let Share { queues, interrupts } = Share::of(primary, args)?;
    for one in all {
        primary.bring_online(one.secondary_controller_id, queues, interrupts)?;
    }
    if common.is_json() {
        let each = all.iter().map(|one| {
            json!({
                "function": one.virtual_function,
                "controller": one.secondary_controller_id,
                "queues": queues,
                "interrupts": interrupts,
            })
        });
        common.print(primary.name(), "", &[("functions", Value::Array(each.collect()))])?;
    } else {
        for one in all {
            let (function, controller) = (one.virtual_function, one.secondary_controller_id);
            let line = format!(
                "virtual function {function}: controller {controller} has {queues} queue pairs and {interrupts} interrupt \
                 vectors\n"
            );
            cli::print(line.as_bytes())?;
        }
        cli::message("Ctrl-C turns them off");
    }
    while !signal::interrupted() {
        thread::sleep(LOOK);
    }
    Ok(())
}
