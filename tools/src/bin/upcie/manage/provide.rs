//! `upcie virt ADDR provide`: virtual functions that can be opened, for as long as this program runs.

use super::common::Common;
use crate::{cli, outcome::Outcome, signal, structures::parse, target::Target};
use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::{fs::File, io::Read as _, thread, time::Duration};
use upcie_core::{
    device::{self, VfToken},
    pci::{Bdf, Binder, Function, is_vfio_driver},
};
use upcie_nvme::{
    Address, Controller, IdentifyQuery,
    spec::{OptionalAdmin, PrimaryController, SecondaryController},
};

/// The time between two looks for Ctrl-C, and at the users of virtual functions.
pub const LOOK: Duration = Duration::from_millis(50);

/// Options of `upcie virt ADDR provide`.
#[derive(Debug, Args)]
pub struct ProvideArgs {
    /// For `provide`: virtual functions to make
    #[arg(long, value_name = "N", value_parser = parse::<u16>, default_value = "1")]
    pub functions: u16,
    /// For `provide`: queue pairs of each, its admin queue's included [default: equal shares]
    #[arg(long, value_name = "N", value_parser = parse::<u16>)]
    pub queues: Option<u16>,
    /// For `provide`: interrupt vectors of each [default: equal shares]
    #[arg(long, value_name = "N", value_parser = parse::<u16>)]
    pub interrupts: Option<u16>,
}

/// A virtual function that can be opened.
struct Provided {
    bdf: Bdf,
    address: device::Address,
    controller: u16,
}

/// Makes virtual functions, turns their controllers on, prints their addresses, and removes them at the end.
pub fn run(common: &Common, args: &ProvideArgs) -> anyhow::Result<Outcome> {
    let address = match &common.target.address {
        Address::Device(address) if address.bdf().is_some() => address,
        other => bail!("{other}: it is no PCI function"),
    };
    let bdf = address.bdf().context("a PCI function")?;
    let function = Function::at(bdf)?;
    let most = function.most_virtual_functions()?;
    ensure!(
        most > 0,
        "{bdf}: it has no virtual functions: the device, or this machine, has no SR-IOV for it"
    );
    ensure!(
        (1..=most).contains(&args.functions),
        "--functions {}: {bdf} can have 1 to {most} virtual functions",
        args.functions
    );
    let present = function.virtual_functions()?;
    ensure!(
        present.is_empty(),
        "{bdf}: it has virtual functions already ({}), and this verb removes what it makes: remove them first, by \
         `echo 0 > /sys/bus/pci/devices/{bdf}/sriov_numvfs`",
        present.iter().map(Bdf::to_string).collect::<Vec<_>>().join(", ")
    );
    let address = shared(address, &function)?;
    let primary = open(&Target { address: address.clone().into() }, common.timeout)?;
    let share = Share::of(&primary, args)?;
    let made = Binder::new().set_virtual_functions(&function, args.functions)?;
    let held = online(&primary, &address, &made, share).and_then(|provided| {
        announce(common, &primary, &provided, share)?;
        wait(&made);
        Ok(provided)
    });
    let ids = held.as_ref().map_or(&[][..], Vec::as_slice);
    let offline = ids.iter().try_for_each(|one| primary.take_offline(one.controller));
    // Before the end of the primary controller: its reset would find them.
    let removed = Binder::new().set_virtual_functions(&function, 0).context("removing the virtual functions");
    drop(primary);
    let failed =
        [held.map(drop), offline.map_err(Into::into), removed.map(drop)].into_iter().filter_map(Result::err);
    match failed.reduce(|one, other| anyhow!("{one:#}; {other:#}")) {
        Some(error) => Err(error),
        None => Ok(Outcome::Done),
    }
}

/// Opens a primary controller, which keeps none of its flexible resources.
pub fn open(target: &Target, timeout: Duration) -> anyhow::Result<Controller> {
    let open = || target.open(Controller::builder().timeout(timeout));
    let primary = open()?;
    let has = primary.identify().optional_admin().contains(OptionalAdmin::VIRTUALIZATION);
    ensure!(has, "{}: it is no primary controller (OACS bit 7 is 0)", primary.name());
    if !primary.release_flexible()? {
        return Ok(primary);
    }
    // Its function is reset when it is opened, by VFIO or by the server: then it has given them up.
    drop(primary);
    open()
}

/// Adds a new token to an address of VFIO that has none, so that the virtual functions can be opened.
fn shared(address: &device::Address, function: &Function) -> anyhow::Result<device::Address> {
    let by_vfio = function.driver.as_deref().is_some_and(is_vfio_driver);
    if address.token().is_some() || !by_vfio {
        return Ok(address.clone());
    }
    let mut bytes = [0; 16];
    let random = "/dev/urandom";
    File::open(random).and_then(|mut file| file.read_exact(&mut bytes)).context(random)?;
    // A random UUID: version 4, variant 10b (RFC 9562, 5.4).
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(address.clone().with_token(VfToken::new(bytes))?)
}

/// The resources of each secondary controller.
#[derive(Clone, Copy)]
pub struct Share {
    pub queues: u16,
    pub interrupts: u16,
}

impl Share {
    /// Takes what the arguments say, else equal shares of what is flexible.
    pub fn of(primary: &Controller, args: &ProvideArgs) -> anyhow::Result<Self> {
        let query = IdentifyQuery { controller_id: primary.identify().cntlid, ..Default::default() };
        let has = primary.identify_as::<PrimaryController>(&query)?;
        let share = |total: u32, most: u16| {
            let share = total / u32::from(args.functions.max(1));
            u16::try_from(share).unwrap_or(u16::MAX).min(most)
        };
        Ok(Self {
            queues: args.queues.unwrap_or_else(|| share(has.vq_flexible_total, has.vq_max_of_secondary)),
            interrupts: args
                .interrupts
                .unwrap_or_else(|| share(has.vi_flexible_total, has.vi_max_of_secondary)),
        })
    }
}

/// Turns the controllers of virtual functions on.
fn online(
    primary: &Controller,
    address: &device::Address,
    made: &[Bdf],
    share: Share,
) -> anyhow::Result<Vec<Provided>> {
    let secondary = primary.secondary_controllers()?;
    let of = |number: usize| -> Option<&SecondaryController> {
        secondary.iter().find(|one| usize::from(one.virtual_function) == number)
    };
    let mut all = Vec::new();
    for (index, &bdf) in made.iter().enumerate() {
        let number = index + 1;
        let Some(one) = of(number) else {
            bail!("{}: no secondary controller belongs to virtual function {number}, {bdf}", primary.name());
        };
        let controller = one.secondary_controller_id;
        primary.bring_online(controller, share.queues, share.interrupts)?;
        all.push(Provided { bdf, address: beside(address, bdf)?, controller });
    }
    Ok(all)
}

/// Returns the address of a virtual function through the transport of its physical one.
fn beside(address: &device::Address, bdf: Bdf) -> anyhow::Result<device::Address> {
    let plain = match address.without_token() {
        device::Address::Vfio(_) => device::Address::Vfio(bdf),
        device::Address::Iommufd(_) => device::Address::Iommufd(bdf),
        device::Address::Noiommu(_) => device::Address::Noiommu(bdf),
        _ => device::Address::Pci(bdf),
    };
    Ok(match address.token() {
        Some(token) => plain.with_token(token)?,
        None => plain,
    })
}

/// Prints what can be opened.
fn announce(common: &Common, primary: &Controller, all: &[Provided], share: Share) -> anyhow::Result<()> {
    if common.is_json() {
        let functions: Vec<Value> = all
            .iter()
            .map(|one| {
                json!({
                    "function": one.bdf.to_string(),
                    "address": one.address.to_string(),
                    "controller": one.controller,
                    "queues": share.queues,
                    "interrupts": share.interrupts,
                })
            })
            .collect();
        return common.print(primary.name(), "", &[("functions", functions.into())]).map(drop);
    }
    for one in all {
        let line = format!(
            "controller {} has {} queue pairs and {} interrupt vectors; its address is {}\n",
            one.controller, share.queues, share.interrupts, one.address
        );
        cli::print(format!("{}: {line}", one.bdf).as_bytes())?;
    }
    cli::message("Ctrl-C removes them");
    Ok(())
}

/// Waits for the end of this program, and then for the users of virtual functions.
fn wait(made: &[Bdf]) {
    while !signal::interrupted() {
        thread::sleep(LOOK);
    }
    let users = || -> Vec<u32> {
        let functions = made.iter().filter_map(|&bdf| Function::at(bdf).ok());
        functions.flat_map(|function| function.users()).collect()
    };
    let mut told = false;
    loop {
        let users = users();
        if users.is_empty() {
            return;
        }
        if !told {
            let list: Vec<String> = users.iter().map(u32::to_string).collect();
            cli::message(&format!(
                "in use by process {}: waiting for its end (Ctrl-C again ends this program at once: the virtual functions \
                 stay, without their controller)",
                list.join(", ")
            ));
            told = true;
        }
        thread::sleep(LOOK);
    }
}
