//! Refuses to overwrite what somebody uses, and what nobody has given up.
//!
//! A function that this process can open is bound to vfio-pci, so the kernel has no disk on it. This is looked at all
//! the same before anything is written: a wrong address must not cost a file system.

use crate::{
    signature,
    target::{self, Target},
    units,
};
use anyhow::{Context, bail, ensure};
use clap::Args;
use upcie_core::pci::{Bdf, Function};
use upcie_nvme::{ControllerOptions, DmaBuf, Namespace};
use upcie_tools::usage::Host;

/// Drivers that only give a function to user space.
const PASSING: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub"];

/// The user's word that data may be lost.
#[derive(Debug, Clone, Copy, Args)]
pub struct Consent {
    /// What is there may be overwritten: needed for every device but emu without file=
    #[arg(long, visible_alias = "yes")]
    pub destructive: bool,
}

impl Consent {
    /// The one rule for all that overwrites: an error if the kernel drives the device or has its partitions mounted, if the
    /// namespace is write protected, or if somebody else will see the data and --destructive is missing. `what` says what
    /// would be done (`--rw trim empties`).
    pub fn check(self, target: &Target, nsid: Option<u32>, what: &str) -> anyhow::Result<()> {
        check_writable(target)?;
        if self.destructive || target.is_ephemeral() {
            return Ok(());
        }
        let lost = "and what is there is lost: add --destructive if that is meant";
        if target.has_no_data() {
            bail!("{}: {what} it, {lost}", target.address);
        }
        // Only to say what it is about. Nothing is written.
        let controller = target.open_to_read(ControllerOptions::default())?;
        let namespace = target::namespace(&controller, nsid)?;
        let held = match signatures(&namespace, |len| Ok(controller.alloc(len)?)) {
            Ok(found) if found.is_empty() => String::new(),
            Ok(found) => format!(", which holds {}", found.join(" and ")),
            Err(error) => format!(" (what it holds can't be read: {error:#})"),
        };
        let size = namespace.blocks().saturating_mul(namespace.block_size() as u64);
        bail!(
            "{}: {what} namespace {} of {}{held}, {lost}",
            target.address,
            namespace.nsid(),
            units::bytes(size)
        )
    }
}

/// An error if the namespace is write protected.
pub fn check_unprotected(name: &str, namespace: &Namespace) -> anyhow::Result<()> {
    let protected = namespace.identify().is_write_protected();
    ensure!(!protected, "{name}: namespace {} is write protected; nothing was written", namespace.nsid());
    Ok(())
}

/// Looks at both ends of a namespace.
fn signatures(
    namespace: &Namespace,
    alloc: impl Fn(usize) -> anyhow::Result<DmaBuf>,
) -> anyhow::Result<Vec<&'static str>> {
    let block = namespace.block_size() as u64;
    let blocks = namespace.blocks().min(signature::WINDOW as u64 / block);
    let read = |slba| -> anyhow::Result<Vec<u8>> {
        let mut buffer = alloc((blocks * block) as usize)?;
        namespace.read(slba, &mut buffer)?;
        Ok(buffer.to_vec())
    };
    Ok(signature::find(&read(0)?, &read(namespace.blocks() - blocks)?))
}

/// An error if the kernel drives the device, or has its partitions mounted.
fn check_writable(target: &Target) -> anyhow::Result<()> {
    let Some(bdf) = target.bdf() else { return Ok(()) };
    let function = Function::at(bdf)?;
    let host = Host::now().context("reading what is mounted")?;
    let uses: Vec<_> = host.disk_uses(&host.blocks(&function.path)).iter().map(ToString::to_string).collect();
    if !uses.is_empty() {
        bail!("{bdf}: refusing to write: {}. Unmount it, and bind the function to vfio-pci", uses.join(", "));
    }
    match function.driver.as_deref() {
        None => Ok(()),
        Some(driver) if PASSING.contains(&driver) || driver.starts_with("vfio") => Ok(()),
        Some(driver) => bail!("{}", bound(bdf, driver)),
    }
}

fn bound(bdf: Bdf, driver: &str) -> String {
    format!(
        "{bdf}: refusing to write: the kernel's driver {driver} is bound to it. To hand it over, as root: \
         `devbind bind vfio-pci {bdf}`"
    )
}
