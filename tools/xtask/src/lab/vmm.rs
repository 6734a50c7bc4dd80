//! A QEMU with a vfio-user client (10.1 or newer), which lets other drivers run on controllers of `nvme-emu`.
//!
//! The lab's QEMU may be older. Then the packages of a newer release are unpacked into the cache together
//! with their libraries, and run from there with their own loader. Nothing is installed, and root is not
//! needed. The packages come from apt's mirror for this machine's release; only this program reads their
//! list.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::lab::cache::Cache;
use crate::lab::debian::{QEMU, Release, VMM};
use crate::lab::install;
use crate::process::{self, log};

/// Device that QEMU must support.
const DEVICE: &str = "vfio-user-pci";
/// Program of the lab's QEMU.
const PROGRAM: &str = "qemu-system-x86_64";
/// Version of the files in the cache; increase it if this file makes them differently.
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
        unpack(release, &cache, &directory)?;
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
    modules.push(at("usr/lib/x86_64-linux-gnu/qemu"));
    vec![
        "env".into(),
        // This directory comes first: the modules of this machine belong to another QEMU.
        modules,
        at("usr/lib64/ld-linux-x86-64.so.2"),
        "--library-path".into(),
        at("usr/lib/x86_64-linux-gnu"),
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

/// Downloads and unpacks QEMU in a temporary directory, then renames it.
fn unpack(release: &Release, cache: &Cache, directory: &Path) -> Result<()> {
    let started = Instant::now();
    let scratch = cache.scratch("qemu-unfinished")?;
    let at = |name: &str| scratch.path().join(name);
    for name in ["state/lists/partial", "cache/archives/partial", "preferences.d", "root"] {
        fs::create_dir_all(at(name))?;
    }
    // No package is installed in this state, so apt adds everything that QEMU needs, including the C library.
    fs::write(at("status"), "")?;
    fs::write(at("preferences"), "")?;
    fs::write(at("sources.list"), install::source(release, &[VMM.codename, VMM.suite])?)?;
    let set = |option: &str, value: PathBuf| format!("{option}={}", value.display());
    let options = [
        set("Dir::Etc::sourcelist", at("sources.list")),
        "Dir::Etc::sourceparts=-".to_owned(),
        set("Dir::Etc::preferences", at("preferences")),
        set("Dir::Etc::preferencesparts", at("preferences.d")),
        set("Dir::State", at("state")),
        set("Dir::State::lists", at("state/lists")),
        set("Dir::State::status", at("status")),
        set("Dir::Cache", at("cache")),
        // Downloaded files belong to this user.
        "APT::Sandbox::User=".to_owned(),
    ];
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        options.iter().for_each(|option| {
            command.arg("-o").arg(option);
        });
        process::output(command.arg("-qq").args(words))
    };
    log!("fetching a {QEMU} with {DEVICE} from {} into the cache, once: 50 MB, 30 to 90 s", VMM.suite);
    apt(&["update"])?;
    apt(&["install", "-y", "--no-install-recommends", "--download-only", "-t", VMM.suite, QEMU])
        .with_context(|| format!("{} is named in tools/xtask/src/lab/debian.rs", VMM.suite))?;
    for entry in fs::read_dir(at("cache/archives"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            process::output(Command::new("dpkg-deb").arg("-x").args([&file, &at("root")]))?;
            process::check_interrupt()?;
        }
    }
    fs::rename(at("root"), directory)?;
    log!("unpacked into {} after {:.0} s", directory.display(), started.elapsed().as_secs_f64());
    Ok(())
}
