//! The guest's kernel and base archives. They are made once, and cached by their inputs.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail};

use crate::lab::cache::Cache;
use crate::lab::debian::{Kernel, Release};
use crate::lab::initrd::Archive;
use crate::process::{self, log};

const SCRIPT: &str = include_str!("../../../../tests/guest/build-modules.sh");
/// Version of the files in the cache; increase it if this file makes them differently.
const LAYOUT: u32 = 2;

/// Files that are ready to boot, and the accelerator.
#[derive(Debug)]
pub struct Lab {
    pub kernel: PathBuf,
    /// Archive with BusyBox and the modules; VFIO's are rebuilt.
    pub base: PathBuf,
    /// Archive with BusyBox and Debian's unchanged modules.
    pub stock: PathBuf,
    /// Accelerator for QEMU.
    pub accelerator: Accelerator,
}

impl Lab {
    /// Describes the files in a directory.
    pub fn new(directory: &Path, accelerator: Accelerator) -> Self {
        Self {
            kernel: directory.join("vmlinuz"),
            base: directory.join("base.cpio"),
            stock: directory.join("base-stock.cpio"),
            accelerator,
        }
    }
}

/// Execution mode of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

/// Finds the directory of this kernel's lab, or makes it.
pub fn directory(release: &Release, kernel: &Kernel, cache: &Cache) -> Result<PathBuf> {
    let directory = cache.path.join(key(release, kernel));
    if !directory.exists() {
        build(release, kernel, cache, &directory)?;
    }
    Ok(directory)
}

fn key(release: &Release, kernel: &Kernel) -> String {
    let mut hasher = DefaultHasher::new();
    (LAYOUT, SCRIPT, release.compiler, release.kernel_packages(kernel)).hash(&mut hasher);
    format!("{}-{:016x}", kernel.release, hasher.finish())
}

/// Builds in a temporary directory and renames it, so that an unfinished lab is never found.
fn build(release: &Release, kernel: &Kernel, cache: &Cache, directory: &Path) -> Result<()> {
    let started = Instant::now();
    let scratch = cache.scratch("unfinished")?;
    let at = |name: &str| scratch.path().join(name);
    let (debs, out) = (at("debs"), at("out"));
    fs::create_dir(&debs)?;
    fs::create_dir(&out)?;

    let packages = release.kernel_packages(kernel);
    log!("preparing the guest once, 30 to 90 s: downloading {} (270 MB)", packages.join(" "));
    let download =
        Command::new("apt-get").args(["download", "-qq"]).args(&packages).current_dir(&debs).output()?;
    if !download.status.success() {
        let names = packages.iter().map(|package| package.split('=').next().unwrap_or(package));
        let have = fs::read_dir(&debs)?.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        let have =
            |name: &str| have.iter().any(|file| file.to_string_lossy().starts_with(&format!("{name}_")));
        let absent = names.filter(|name| !have(name)).collect::<Vec<_>>();
        bail!(
            "{} has no {}: try `apt-get update`; if Debian changed the name, change tools/xtask/src/lab/debian.rs\n{}",
            release.suite,
            absent.join(" "),
            String::from_utf8_lossy(&download.stderr).trim()
        );
    }
    process::check_interrupt()?;

    log!("building the VFIO modules of {} with iommufd and noiommu", kernel.release);
    let log = at("log");
    let file = File::create(&log)?;
    let status = process::status(
        Command::new("sh")
            .args(["-c", SCRIPT, "build-modules.sh", &kernel.release])
            .args([&debs, &out])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file),
    )?;
    if !status.success() {
        bail!(
            "building the modules failed: {status}; the end of its log:\n{}",
            process::last_lines(&process::read(&log), 30)
        );
    }

    let done = at("done");
    fs::create_dir(&done)?;
    for (modules, archive) in [("modules", "base.cpio"), ("stock", "base-stock.cpio")] {
        write_base(&out.join("busybox"), &out.join(modules), &done.join(archive))?;
    }
    fs::copy(out.join("vmlinuz"), done.join("vmlinuz"))?;
    fs::rename(&done, directory)?;
    log!("the guest is ready in {} after {:.0} s", directory.display(), started.elapsed().as_secs_f64());
    Ok(())
}

/// Writes an archive with BusyBox and a set of modules.
fn write_base(busybox: &Path, modules: &Path, archive: &Path) -> Result<()> {
    let mut base = Archive::default();
    base.add_console();
    base.add_file("bin/busybox", true, busybox)?;
    for entry in fs::read_dir(modules)? {
        let entry = entry?;
        base.add_file(&format!("modules/{}", entry.file_name().to_string_lossy()), false, &entry.path())?;
    }
    let mut out = BufWriter::new(File::create(archive)?);
    base.write(&mut out)?;
    Ok(out.flush()?)
}
