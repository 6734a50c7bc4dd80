//! The device that a command works on.

use crate::{cli, signal, ways};
use anyhow::{Context, bail};
use clap::Args;
use std::fs;
use upcie_core::pci::{Bdf, Function};
use upcie_nvme::{Address, Controller, ControllerOptions, IrqKind, Namespace, emu};
use upcie_tools::usage::Host;

/// The forms of an address, for `--help`.
pub const ADDRESSES: &str = "\
Addresses:
  0000:01:00.0           a PCI function bound to vfio-pci or uio_pci_generic
                         (`upcie list` shows which of these ways lead to each)
  vfio:0000:01:00.0      through its VFIO group
  iommufd:0000:01:00.0   through its VFIO character device and iommufd
  noiommu:0000:01:00.0   through VFIO without an IOMMU (*)
  uio:0000:01:00.0       through uio_pci_generic (*)
  sysfs:0000:01:00.0     without a driver, polling only (*)
  vfio-user:/run/x.sock  a vfio-user server: nvme-emu, SPDK's target, …
  emu                    the embedded controller: no hardware, no root
  emu:size=1G,lba=4096   the same with options: size=, lba=512|4096,
                         file=PATH (keeps the data; size= makes the file),
                         ro=true (write protected), null=true (moves no data),
                         populate=true (takes all memory at the start),
                         namespaces=, latency=50us, mdts=, queues=, depth=,
                         vectors= (MSI-X), msi=, intx=true, wrr=true, serial=
(*) physical addresses: root and huge pages only, and nothing keeps the device
    off any memory of the machine";

/// An address and a namespace.
#[derive(Debug, Args)]
pub struct Target {
    /// The device: a PCI address, vfio-user:SOCKET, emu, … (see below)
    #[arg(value_name = "ADDR", value_parser = parse_address)]
    pub address: Address,
}

/// Parses an address, and the options of an embedded controller with it: both are the command line's faults.
pub fn parse_address(text: &str) -> anyhow::Result<Address> {
    let address: Address = text.parse()?;
    if let Address::Emulated(options) = &address {
        options.parse::<emu::Options>()?;
    }
    Ok(address)
}

impl Target {
    /// Opens the controller.
    pub fn open(&self, options: ControllerOptions) -> anyhow::Result<Controller> {
        check_unused(&self.address)?;
        let controller = Controller::open_with(&self.address, options)?;
        warn_if_physical(&controller, controller.name());
        signal::watch(&controller)?;
        Ok(controller)
    }

    /// Opens the controller to look at it: an embedded one neither makes nor changes its file, nor needs leave to.
    pub fn open_to_read(&self, options: ControllerOptions) -> anyhow::Result<Controller> {
        Self { address: self.to_read()? }.open(options)
    }

    /// The address by which nothing is written.
    pub fn to_read(&self) -> anyhow::Result<Address> {
        Ok(match &self.address {
            Address::Emulated(text) => {
                let mut emu: emu::Options = text.parse()?;
                emu.ro |= emu.file.is_some();
                Address::Emulated(emu.to_string())
            }
            other => other.clone(),
        })
    }

    /// Whether it is a controller in this process whose data nobody else will ever see.
    pub fn is_ephemeral(&self) -> bool {
        match &self.address {
            Address::Emulated(options) => options.parse().is_ok_and(|o: emu::Options| o.file.is_none()),
            _ => false,
        }
    }

    /// Whether it is a controller in this process whose file does not exist yet, or is empty.
    pub fn has_no_data(&self) -> bool {
        let Address::Emulated(options) = &self.address else { return false };
        let file = options.parse().ok().and_then(|options: emu::Options| options.file);
        file.is_some_and(|file| fs::metadata(file).map_or(true, |file| file.is_file() && file.len() == 0))
    }

    /// The PCI function, where the address names one.
    pub fn bdf(&self) -> Option<Bdf> {
        self.address.bdf()
    }
}

/// Refuses a function whose disks the kernel uses, before any advice on how to take it from the kernel.
pub fn check_unused(address: &Address) -> anyhow::Result<()> {
    let Some(function) = address.bdf().and_then(|bdf| Function::at(bdf).ok()) else { return Ok(()) };
    let uses = ways::disk_uses(&function, &Host::now().context("reading what is mounted")?);
    if !uses.is_empty() {
        let driver = function.driver.as_deref().unwrap_or("no driver");
        bail!("{address}: class {:06x}, bound to {driver}, and in use: {uses}", function.class);
    }
    Ok(())
}

/// Whether it is a controller in this process, with a thread of its own.
pub fn is_embedded(address: &Address) -> bool {
    matches!(address, Address::Emulated(_))
}

/// Whether it is a controller in this process that moves no data.
pub fn moves_no_data(address: &Address) -> bool {
    matches!(address, Address::Emulated(options) if options.parse().is_ok_and(|options: emu::Options| options.null))
}

/// Says in one line what it means that a controller is given physical addresses, if it is. `names` has the address space.
pub fn warn_if_physical(controller: &Controller, names: &str) {
    if controller.heap().space().is_physical() {
        cli::say(&format!(
            "{names}: no IOMMU translates: the device can reach all memory of this machine, and a fault of the driver or \
             the device can overwrite any of it"
        ));
    }
}

/// A kind of interrupts for completions as the command line and JSON spell it.
pub fn irq_name(kind: IrqKind) -> &'static str {
    match kind {
        IrqKind::Intx => "intx",
        IrqKind::Msi => "msi",
        IrqKind::Msix => "msix",
        IrqKind::Error | IrqKind::Request => "other",
    }
}

/// The namespace asked for, or the first active one; fit for I/O.
pub fn namespace(controller: &Controller, nsid: Option<u32>) -> anyhow::Result<Namespace> {
    let nsid = match nsid {
        Some(nsid) => nsid,
        None => match controller.namespaces()?.first() {
            Some(&first) => first,
            None => bail!("{}: the controller has no active namespace", controller.name()),
        },
    };
    let namespace = controller.namespace(nsid)?;
    namespace.usable()?;
    Ok(namespace)
}
