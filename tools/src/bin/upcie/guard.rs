//! Refuses to overwrite devices that are in use, and data that the user did not give up.
//!
//! The kernel has no disk on a function that is bound to vfio-pci. The check is made in any case before a
//! write: a wrong address must not cost a file system.

use crate::{
    signature,
    target::{self, Target},
    units,
};
use anyhow::{Context, bail, ensure};
use clap::Args;
use upcie_core::pci::{Bdf, Function};
use upcie_nvme::{
    Controller, DmaBuf, Namespace,
    spec::{ALL_NAMESPACES, Csi},
};
use upcie_tools::usage::Host;

/// Drivers that only hand a function to user space.
const PASS_THROUGH: [&str; 4] = ["vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub"];

/// The user's consent to overwrite data.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Consent {
    /// Allow overwriting data on the device; needed for every device except emu without file=
    #[arg(long, visible_alias = "yes")]
    pub destructive: bool,
}

impl Consent {
    /// Checks that the target may be overwritten; the one rule for all commands. `what` names the operation
    /// (`--rw trim empties`). The error says what is lost: the first namespace, the one of this number, or each one with
    /// [`ALL_NAMESPACES`].
    ///
    /// # Errors
    /// The kernel drives the device or has its partitions mounted; or others will see the data and
    /// --destructive is missing.
    pub fn check(self, target: &Target, nsid: Option<u32>, what: &str) -> anyhow::Result<()> {
        check_writable(target)?;
        if self.destructive || target.is_ephemeral() {
            return Ok(());
        }
        let lost = "and its data is lost: use --destructive to allow that";
        if target.has_no_data() {
            bail!("{}: {what} it, {lost}", target.address);
        }
        // The controller is opened for the message only; nothing is written.
        let controller = target.open_to_read(Controller::builder())?;
        if nsid == Some(ALL_NAMESPACES) {
            bail!(
                "{}: {what} every namespace of it, and their data is lost: use --destructive to allow that{}",
                target.address,
                describe_all(&controller)?
            );
        }
        let namespace = target::any_namespace(&controller, nsid)?;
        bail!("{}: {what} {}, {lost}", target.address, describe(&controller, &namespace)?)
    }

    /// Checks that the target may be changed in a way that loses no data: the kernel neither drives the device nor has its
    /// partitions mounted.
    pub fn check_use(self, target: &Target) -> anyhow::Result<()> {
        check_writable(target)
    }

    /// Checks like [`check`](Self::check) for the deletion of a namespace, which may be detached: its data can't be read then.
    ///
    /// # Errors
    /// See [`check`](Self::check).
    pub fn check_deletion(self, target: &Target, nsid: u32, name: &str) -> anyhow::Result<()> {
        let named = !self.destructive && !target.is_ephemeral() && !target.has_no_data();
        if named {
            check_writable(target)?;
            let controller = target.open_to_read(Controller::builder())?;
            if nsid == ALL_NAMESPACES || controller.namespace_ids()?.contains(&nsid) {
                drop(controller);
                return self.check(target, Some(nsid), "ns delete deletes");
            }
        }
        self.check_settings(target, &format!("ns delete deletes {name} of"))
    }

    /// Checks like [`check`](Self::check) for a change that is about no namespace in particular. `what` names it, and ends
    /// before the device (`lockdown changes which commands work on`).
    ///
    /// # Errors
    /// See [`check`](Self::check).
    pub fn check_settings(self, target: &Target, what: &str) -> anyhow::Result<()> {
        check_writable(target)?;
        ensure!(
            self.destructive || target.is_ephemeral(),
            "{}: {what} it: use --destructive to allow that",
            target.address
        );
        Ok(())
    }
}

/// Describes a namespace by its number, its size and its content.
fn describe(controller: &Controller, namespace: &Namespace) -> anyhow::Result<String> {
    let nsid = namespace.nsid();
    if let Ok(keys) = namespace.keys() {
        let (size, used) = (units::bytes(keys.size()), units::bytes(keys.identify().utilization));
        return Ok(format!("namespace {nsid} of {size}, which has {used} of keys and values"));
    }
    namespace.check_usable()?;
    let held = match signatures(namespace, |len| Ok(controller.alloc(len)?)) {
        Ok(found) if found.is_empty() => String::new(),
        Ok(found) => format!(", which contains {}", found.join(" and ")),
        Err(error) => format!(" (its content can't be read: {error:#})"),
    };
    let size = namespace.blocks().saturating_mul(namespace.block_size() as u64);
    Ok(format!("namespace {nsid} of {}{held}", units::bytes(size)))
}

/// Describes each namespace on a line of its own: those that are attached, and those that the controller knows beside them.
fn describe_all(controller: &Controller) -> anyhow::Result<String> {
    let mut text = String::new();
    let active = controller.namespace_ids()?;
    for &nsid in &active {
        let opened = controller.namespace(nsid).map_err(anyhow::Error::from);
        let described = opened.and_then(|namespace| describe(controller, &namespace));
        let line = described
            .unwrap_or_else(|error| format!("namespace {nsid} (its content can't be read: {error:#})"));
        text += &format!("\n  {line}");
    }
    // Only controllers with namespace management know them.
    let detached = controller.allocated_namespace_ids().unwrap_or_default();
    for nsid in detached.into_iter().filter(|nsid| !active.contains(nsid)) {
        text += &format!("\n  namespace {nsid}, which is detached");
    }
    Ok(text)
}

/// Checks that the namespace is not write protected.
pub fn check_unprotected(name: &str, namespace: &Namespace) -> anyhow::Result<()> {
    let protected = namespace.identify().is_write_protected();
    ensure!(!protected, "{name}: namespace {} is write protected; nothing was written", namespace.nsid());
    Ok(())
}

/// Checks that a namespace takes writes in any order: one with zones does not. `what` names the use that needs it.
pub fn check_any_order(name: &str, namespace: &Namespace, what: &str) -> anyhow::Result<()> {
    ensure!(
        namespace.command_set() != Csi::ZONED,
        "{name}: {what} writes in any order, and namespace {} has zones, which are written from their write pointers \
         on: use `upcie zns zone-append`, `upcie write` at a write pointer, or fio with zonemode=zbd",
        namespace.nsid()
    );
    Ok(())
}

/// Finds signatures at both ends of a namespace.
fn signatures(
    namespace: &Namespace,
    alloc: impl Fn(usize) -> anyhow::Result<DmaBuf>,
) -> anyhow::Result<Vec<&'static str>> {
    let block = namespace.block_size() as u64;
    let blocks = namespace.blocks().min(signature::WINDOW as u64 / block);
    let read = |slba| -> anyhow::Result<Vec<u8>> {
        let mut buffer = alloc((blocks * block) as usize)?;
        namespace.read(slba, &mut buffer)?;
        // Without the metadata at the end of each block.
        let (bytes, data) = (buffer.to_vec(), namespace.format().data_size());
        Ok(bytes.chunks_exact(block as usize).flat_map(|block| &block[..data]).copied().collect())
    };
    Ok(signature::find(&read(0)?, &read(namespace.blocks() - blocks)?))
}

/// Checks that the kernel neither drives the device nor has its partitions mounted.
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
        Some(driver) if PASS_THROUGH.contains(&driver) || driver.starts_with("vfio") => Ok(()),
        Some(driver) => bail!("{}", bound(bdf, driver)),
    }
}

fn bound(bdf: Bdf, driver: &str) -> String {
    format!(
        "{bdf}: refusing to write: the kernel's driver {driver} is bound to it. To hand it over, as root: \
         `devbind bind vfio-pci {bdf}`"
    )
}
