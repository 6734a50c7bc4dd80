//! VFIO's unsafe no-IOMMU mode: turned on by request, turned off after the last function is restored.

use crate::{Global, module, report, state::State};
use anyhow::{Context, bail};
use std::{fs, path::Path};

/// The kernel's switch for the mode, a parameter of the module vfio that CONFIG_VFIO_NOIOMMU adds.
const PARAMETER: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

/// Warning about the mode, in one line.
const WARNING: &str = "devbind: no-IOMMU mode: the kernel is tainted, and a program that drives the device can make it read and \
                       write all memory of this machine";

/// Turns the mode on, and records the old value.
pub fn enable(global: &Global, state: &State, driver: &str) -> anyhow::Result<()> {
    upcie_tools::cli::message(WARNING);
    module::load(driver, global.dry_run, global.verbose)?;
    let before = match fs::read_to_string(PARAMETER) {
        Ok(text) => text.trim().to_owned(),
        Err(_) if global.dry_run => "N".into(),
        Err(_) if Path::new("/sys/module/vfio").exists() => {
            bail!(
                "this kernel has no no-IOMMU mode ({PARAMETER} is missing): it needs CONFIG_VFIO_NOIOMMU, which \
                   distributions leave out; use uio_pci_generic, or turn the IOMMU on"
            )
        }
        Err(_) => bail!("{PARAMETER} is missing: the module vfio is not loaded"),
    };
    if before == "Y" {
        return Ok(());
    }
    if !global.dry_run {
        state.keep_parameter(&before)?;
    }
    set(global, "Y")
}

/// Restores the old value if this program has changed it and no recorded function is left.
pub fn restore(global: &Global, state: &State) -> anyhow::Result<()> {
    let Some(before) = state.parameter_before()? else { return Ok(()) };
    if global.dry_run || !state.functions()?.is_empty() {
        return Ok(());
    }
    // Without the module the value is gone as well.
    if Path::new(PARAMETER).exists() {
        set(global, &before)?;
    }
    state.forget_parameter()
}

fn set(global: &Global, value: &str) -> anyhow::Result<()> {
    if global.dry_run || global.verbose {
        report(format_args!("{PARAMETER} <- {value}"));
    }
    if global.dry_run {
        return Ok(());
    }
    fs::write(PARAMETER, value).map_err(crate::state::as_root).with_context(|| format!("writing {PARAMETER}"))
}
