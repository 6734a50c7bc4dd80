//! Prepares the guest: packages, kernel, base archive, and whether it boots on KVM.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Result, bail};

use crate::lab::cache::Cache;
use crate::lab::debian::{ACCELERATOR, Release};
use crate::lab::kernel::{self, Accelerator, Lab};
use crate::lab::{guest, install};
use crate::process::{self, say};

/// Prepares the guest, or finds it prepared.
pub fn prepare() -> Result<Lab> {
    let release = Release::detect()?;
    let cache = Cache::lock()?;
    let kernel = install::ensure(release, &cache.path.join("candidate"))?;
    let directory = kernel::directory(release, &kernel, &cache)?;
    let lab = |accelerator| Lab::new(&directory, accelerator);
    let found = accelerator(&directory.join("accelerator"), |accelerator| guest::boots(&lab(accelerator)))?;
    Ok(lab(found))
}

/// KVM if the lab really boots on it, remembered beside the lab. A /dev/kvm without the processor's
/// virtualisation extensions is another hypervisor's substitute: it is not worth a try, since
/// it may take the machine down.
fn accelerator(answer: &Path, boots: impl Fn(Accelerator) -> bool) -> Result<Accelerator> {
    match std::env::var(ACCELERATOR).ok().as_deref() {
        Some("kvm") => return Ok(Accelerator::Kvm),
        Some("tcg") => return Ok(Accelerator::Tcg),
        Some(other) => bail!("{ACCELERATOR} is kvm or tcg, not {other:?}"),
        None => {}
    }
    let node = File::options().read(true).write(true).open("/dev/kvm");
    if node.is_err() {
        // Not remembered: it may be only this user, or this boot.
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
        say!(
            "/dev/kvm is there, but the processor shows neither vmx nor svm: the guest runs under emulation"
        );
        Accelerator::Tcg
    } else if boots(Accelerator::Kvm) {
        Accelerator::Kvm
    } else {
        process::check_interrupt()?;
        say!("the guest did not boot under KVM within 15 s: it runs under emulation");
        Accelerator::Tcg
    };
    fs::write(answer, if found == Accelerator::Kvm { "kvm" } else { "tcg" })?;
    Ok(found)
}
