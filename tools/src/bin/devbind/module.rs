//! Loads the modules of drivers.

use anyhow::{Context, bail};
use std::{
    io::{self, Read},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use upcie_core::deadline::{Backoff, Stopwatch};

/// Deadline of modprobe: some modules probe their devices while they are loaded.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes sure that the kernel has `driver`. A dry run only prints the command, and says if there is no such module.
pub fn load(driver: &str, dry_run: bool, verbose: bool) -> anyhow::Result<()> {
    let path = Path::new("/sys/bus/pci/drivers").join(driver);
    if path.exists() {
        return Ok(());
    }
    if dry_run || verbose {
        crate::report(format_args!("modprobe {driver}"));
    }
    if dry_run {
        if let Err(error) = modprobe(driver, true) {
            crate::print_error(format_args!("{error:#}; without --dry-run, the bind fails"));
        }
        return Ok(());
    }
    modprobe(driver, false)?;
    if !path.exists() {
        bail!("the module {driver} is loaded, but has no PCI driver of that name");
    }
    Ok(())
}

/// Loads a module with modprobe, or only looks for it.
fn modprobe(module: &str, dry_run: bool) -> anyhow::Result<()> {
    let mut command = Command::new("modprobe");
    if dry_run {
        command.arg("--dry-run");
    }
    command.arg("--").arg(module).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!("there is no PCI driver {module} in the kernel, and no modprobe to load it with")
        }
        Err(e) => return Err(e).context("starting modprobe"),
    };
    let mut backoff = Backoff::new(Stopwatch::new(), DEADLINE);
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for modprobe")? {
            break status;
        }
        if !backoff.pause() {
            bail!("modprobe {module} did not end within {DEADLINE:?}");
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).context("reading the output of modprobe")?;
    }
    let said = text.trim().lines().last().unwrap_or("modprobe printed no reason");
    bail!("there is no PCI driver {module} in the kernel, and its module can't be loaded: {said}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_driver_is_named() {
        let error = format!("{:#}", load("no-such-driver", false, false).unwrap_err());
        assert!(error.contains("no PCI driver no-such-driver"), "{error}");
    }
}
