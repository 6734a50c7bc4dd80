//! The device of a command.

use crate::{cli, signal, transports};
use anyhow::{Context, bail};
use clap::Args;
use std::fs;
use upcie_core::{
    Chain,
    pci::{Bdf, Function},
};
use upcie_nvme::{
    Address, Controller, ControllerBuilder, DmaBuf, Error, Failure, IrqKind, Namespace, queue::SglUse,
};
use upcie_tools::usage::Host;

/// Description of addresses, for `--help`.
pub const ADDRESSES: &str = "\
Addresses:
  0000:01:00.0           a PCI function bound to vfio-pci or uio_pci_generic
                         (`upcie list` shows the transports of each)
  vfio:0000:01:00.0      through its VFIO group
  iommufd:0000:01:00.0   through its VFIO character device and iommufd
  noiommu:0000:01:00.0   through VFIO without an IOMMU (*)
  vfio:0000:01:00.1,token=UUID
                         with the VF token of a virtual function (SR-IOV)
  uio:0000:01:00.0       through uio_pci_generic (*)
  sysfs:0000:01:00.0     without a driver; polling only (*)
  vfio-user:/run/x.sock  a vfio-user server: nvme-emu, SPDK's target, …
  emu                    the embedded controller: no hardware, no root
  emu:size=1G,lba=4096   the same with options: size=, lba=512|4096,
                         file=PATH (keeps the data; size= makes the file),
                         ro=true (write protected), null=true (moves no data),
                         populate=true (allocates all memory at the start),
                         namespaces=, nn= (the most that may be created),
                         latency=50us, mdts=, queues=, depth=,
                         vectors= (MSI-X), msi=, intx=true, wrr=true, sgl=,
                         prps= (the most PRPs), cmb=, pmr=, hmb=, serial=,
                         ms=, pi= (metadata), awun=, nabsn= (atomic writes),
                         version=2.1, ana=STATE (access to the namespaces),
                         boot-partitions=, dbbuf=true (shadow doorbells),
                         faults=PLAN (docs/faults.md),
                         zoned=true (zone-size=, max-open=, zrwa=, …),
                         fdp=true (placement), kv=true (keys and values),
                         vfs= (secondary controllers of virtual functions)
(*) physical addresses: needs root and huge pages, and the device can reach all
    memory of the machine

Sizes in bytes: K, M, G and T are powers of 1024, as in fio (4K = 4KB = 4KiB)";

/// Address argument of a command.
#[derive(Debug, Args)]
pub struct Target {
    /// Device: a PCI address, vfio-user:SOCKET, emu, … (see below)
    #[arg(value_name = "ADDR", value_parser = parse_address)]
    pub address: Address,
}

/// How data is described to a controller: for the verbs that transfer some.
#[derive(Debug, Clone, Copy, Args)]
pub struct Lists {
    /// Describe all data by scatter gather lists (SGLs) in place of PRPs, of which some targets take few; the device must
    /// take them
    #[arg(long)]
    pub sgl: bool,
}

impl Lists {
    /// Returns the options of a controller that transfers data so.
    pub fn builder(self) -> ControllerBuilder {
        Controller::builder().sgl(if self.sgl { SglUse::Always } else { SglUse::default() })
    }
}

/// Parses an address. The error has its cause in its text, because clap prints no causes.
pub fn parse_address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: Error| match error.failure() {
        Failure::Emulator(cause) => Chain(&**cause).to_string(),
        _ => Chain(&error).to_string(),
    })
}

impl Target {
    /// Opens the controller.
    pub fn open(&self, options: ControllerBuilder) -> anyhow::Result<Controller> {
        check_unused(&self.address)?;
        let controller = options.open(&self.address)?;
        warn_if_physical(&controller, controller.name());
        signal::watch(&controller)?;
        Ok(controller)
    }

    /// Opens the controller for reading: an embedded one neither creates nor changes its file, and needs no
    /// write permission.
    pub fn open_to_read(&self, options: ControllerBuilder) -> anyhow::Result<Controller> {
        Self { address: self.to_read() }.open(options)
    }

    /// Returns the address for reading.
    pub fn to_read(&self) -> Address {
        let mut address = self.address.clone();
        if let Address::Emulated(options) = &mut address {
            options.ro |= options.file.is_some();
        }
        address
    }

    /// Returns true for a controller in this process that keeps its data in memory only.
    pub fn is_ephemeral(&self) -> bool {
        matches!(&self.address, Address::Emulated(options) if options.file.is_none())
    }

    /// Returns true for a controller in this process whose file is empty or does not exist yet.
    pub fn has_no_data(&self) -> bool {
        let Address::Emulated(options) = &self.address else { return false };
        options
            .file
            .as_ref()
            .is_some_and(|file| fs::metadata(file).map_or(true, |file| file.is_file() && file.len() == 0))
    }

    /// Returns the PCI function of the address, if it names one.
    pub fn bdf(&self) -> Option<Bdf> {
        self.address.bdf()
    }
}

/// Checks that the kernel does not use disks of the function. Comes first: the driver's own errors advise to
/// take the function from the kernel.
pub fn check_unused(address: &Address) -> anyhow::Result<()> {
    let Some(function) = address.bdf().and_then(|bdf| Function::at(bdf).ok()) else { return Ok(()) };
    let uses = transports::disk_uses(&function, &Host::now().context("reading what is mounted")?);
    if !uses.is_empty() {
        let driver = function.driver.as_deref().unwrap_or("no driver");
        let shown = match address {
            Address::Device(address) => address.without_token().to_string(),
            other => other.to_string(),
        };
        bail!("{shown}: class {:06x}, bound to {driver}, and in use: {uses}", function.class);
    }
    Ok(())
}

/// Returns true for a controller in this process.
pub fn is_embedded(address: &Address) -> bool {
    matches!(address, Address::Emulated(_))
}

/// Returns true for a controller in this process that moves no data.
pub fn moves_no_data(address: &Address) -> bool {
    matches!(address, Address::Emulated(options) if options.null)
}

/// Prints a warning if the controller uses physical addresses. `names` lists the devices of the address
/// space.
pub fn warn_if_physical(controller: &Controller, names: &str) {
    if controller.heap().space().is_physical() {
        cli::message(&format!(
            "{names}: no IOMMU translates: the device can reach all memory of this machine, and an error of the driver or \
             the device can overwrite any of it"
        ));
    }
}

/// Returns the name of an interrupt kind on the command line and in JSON.
pub fn irq_name(kind: IrqKind) -> &'static str {
    match kind {
        IrqKind::Intx => "intx",
        IrqKind::Msi => "msi",
        IrqKind::Msix => "msix",
        IrqKind::Error | IrqKind::Request => "other",
    }
}

/// Opens the wanted namespace, or the first active one, and checks that it can do I/O by block.
pub fn namespace(controller: &Controller, nsid: Option<u32>) -> anyhow::Result<Namespace> {
    let namespace = any_namespace(controller, nsid)?;
    namespace.check_usable()?;
    Ok(namespace)
}

/// Opens the wanted namespace, or the first active one, of any command set.
pub fn any_namespace(controller: &Controller, nsid: Option<u32>) -> anyhow::Result<Namespace> {
    let nsid = match nsid {
        Some(nsid) => nsid,
        None => match controller.namespace_ids()?.first() {
            Some(&first) => first,
            None => bail!("{}: the controller has no active namespace", controller.name()),
        },
    };
    Ok(controller.namespace(nsid)?)
}

/// Opens a namespace like [`namespace`], and checks that blocks are transferred by a data buffer alone.
pub fn data_namespace(controller: &Controller, nsid: Option<u32>) -> anyhow::Result<Namespace> {
    let namespace = namespace(controller, nsid)?;
    let format = namespace.format();
    if format.is_separate() && !format.is_stripped() {
        bail!(
            "{}: namespace {} has blocks of {format}, which this verb has no buffer for. `upcie format` with \
             --extended-metadata puts the metadata at the end of each block, with --metadata 0 it has none",
            controller.name(),
            namespace.nsid()
        );
    }
    Ok(namespace)
}

/// Returns DMA memory with these bytes.
pub fn memory_of(controller: &Controller, bytes: &[u8]) -> anyhow::Result<DmaBuf> {
    let mut memory = controller.alloc(bytes.len())?;
    memory.write_at(0, bytes);
    Ok(memory)
}

/// Checks that a namespace has flexible data placement, and these placement identifiers, if there are some.
pub fn check_placement(namespace: &Namespace, identifiers: &[u16]) -> anyhow::Result<()> {
    if identifiers.is_empty() {
        return Ok(());
    }
    let handles = namespace.placement()?.handles()?;
    let unknown =
        |identifier: &&u16| !handles.iter().any(|handle| handle.placement_identifier == **identifier);
    if let Some(wrong) = identifiers.iter().find(unknown) {
        let known: Vec<String> =
            handles.iter().map(|handle| format!("{:#x}", handle.placement_identifier)).collect();
        bail!(
            "--placement {wrong:#x}: {namespace} has no such placement identifier; it has {}",
            known.join(", ")
        );
    }
    Ok(())
}
