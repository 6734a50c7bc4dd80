//! A QEMU with a vfio-user client (10.1 or newer), which lets other drivers run on controllers of `nvme-emu`.
//!
//! The lab's QEMU may be older. Then the packages of a newer release are unpacked into the cache together
//! with their libraries, and run from there with their own loader. Nothing is installed, and root is not
//! needed. The packages come from apt's mirror for this machine's release; only this program reads their
//! list.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::lab::cache::Cache;
use crate::lab::debian::{QEMU, Release, VMM};
use crate::lab::unpack::{LIBRARIES, LOADER, unpack};
use crate::process::{self, log};

/// Device that QEMU must support.
const DEVICE: &str = "vfio-user-pci";
/// Program of the lab's QEMU.
const PROGRAM: &str = "qemu-system-x86_64";
/// Version of the files in the cache; increase it if they are made differently.
const LAYOUT: u32 = 1;

/// Returns the words of the command that starts QEMU.
pub fn prepare() -> Result<Vec<OsString>> {
    let own = vec![PROGRAM.into()];
    if has_device(&own) {
        return Ok(own);
    }
    let release = Release::detect()?;
    let cache = Cache::lock()?;
    let directory = cache.path.join(format!("{QEMU}-{}-{LAYOUT}", VMM.suite));
    if !directory.exists() {
        log!("fetching a {QEMU} with {DEVICE} from {} into the cache, once: 50 MB, 30 to 90 s", VMM.suite);
        unpack(release, &cache, &[VMM.codename, VMM.suite], &[QEMU], &directory)?;
    }
    let words = words(&directory);
    if !has_device(&words) {
        bail!("{QEMU} of {} has no {DEVICE}: remove {} to try again", VMM.suite, directory.display());
    }
    Ok(words)
}

/// Returns the command for the QEMU in a directory, with the loader from there.
fn words(root: &Path) -> Vec<OsString> {
    let at = |path: &str| root.join(path).into_os_string();
    let mut modules = OsString::from("QEMU_MODULE_DIR=");
    modules.push(at(&format!("{LIBRARIES}/qemu")));
    vec![
        "env".into(),
        // This directory comes first: the modules of this machine belong to another QEMU.
        modules,
        at(LOADER),
        "--library-path".into(),
        at(LIBRARIES),
        at(&format!("usr/bin/{PROGRAM}")),
        "-L".into(),
        at("usr/share/qemu"),
        "-L".into(),
        at("usr/share/seabios"),
    ]
}

fn has_device(words: &[OsString]) -> bool {
    // Ask about this device only: help on all devices would load all modules, including this machine's.
    let help = ["-device", &format!("{DEVICE},help")];
    let text = process::output(Command::new(&words[0]).args(&words[1..]).args(help));
    // QEMU does not fail for an unknown device.
    text.is_ok_and(|text| text.contains(&format!("{DEVICE} options")))
}
