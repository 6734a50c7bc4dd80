//! Refuses to overwrite what somebody uses.
//!
//! A function that this process can open is bound to vfio-pci, so the kernel has no disk on it. This is looked at all
//! the same before anything is written: a wrong address must not cost a file system.

use crate::target::Target;
use anyhow::{Context, bail};
use upcie_core::pci::{Bdf, Function};
use upcie_tools::usage::Host;

/// Drivers that only give a function to user space.
const PASSING: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub"];

/// An error if the kernel drives the device, or has its partitions mounted.
pub fn check_writable(target: &Target) -> anyhow::Result<()> {
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
