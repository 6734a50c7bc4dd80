//! Prepares the guest: packages, kernel, base archive, and a check whether it boots with KVM.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Result, bail};

use crate::lab::cache::Cache;
use crate::lab::debian::{ACCELERATOR, Release};
use crate::lab::kernel::{self, Accelerator, Lab};
use crate::lab::{guest, install};
use crate::process::{self, log};

/// Prepares the guest, unless that was done already.
pub fn prepare() -> Result<Lab> {
    let release = Release::detect()?;
    let cache = Cache::lock()?;
    let kernel = install::ensure(release, &cache.path.join("candidate"))?;
    let directory = kernel::directory(release, &kernel, &cache)?;
    let lab = |accelerator| Lab::new(&directory, accelerator);
    let found = accelerator(&directory.join("accelerator"), |accelerator| guest::boots(&lab(accelerator)))?;
    Ok(lab(found))
}

/// Chooses KVM if the lab boots with it, and stores the answer next to the lab. A /dev/kvm on a processor
/// without virtualisation extensions is emulated by another hypervisor. It is not tried, since it may crash
/// the machine.
fn accelerator(answer: &Path, boots: impl Fn(Accelerator) -> bool) -> Result<Accelerator> {
    match std::env::var(ACCELERATOR).ok().as_deref() {
        Some("kvm") => return Ok(Accelerator::Kvm),
        Some("tcg") => return Ok(Accelerator::Tcg),
        Some(other) => bail!("{ACCELERATOR} is kvm or tcg, not {other:?}"),
        None => {}
    }
    let node = File::options().read(true).write(true).open("/dev/kvm");
    if node.is_err() {
        // Don't store this: the node may be missing for this user or this boot only.
        return Ok(Accelerator::Tcg);
    }
    match fs::read_to_string(answer).unwrap_or_default().trim() {
        "kvm" => return Ok(Accelerator::Kvm),
        "tcg" => return Ok(Accelerator::Tcg),
        _ => {}
    }
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let found = if !flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        log!("/dev/kvm exists, but the processor has neither vmx nor svm: the guest runs under emulation");
        Accelerator::Tcg
    } else if boots(Accelerator::Kvm) {
        Accelerator::Kvm
    } else {
        process::check_interrupt()?;
        log!("the guest did not boot with KVM within 15 s: it runs under emulation");
        Accelerator::Tcg
    };
    fs::write(answer, if found == Accelerator::Kvm { "kvm" } else { "tcg" })?;
    Ok(found)
}
