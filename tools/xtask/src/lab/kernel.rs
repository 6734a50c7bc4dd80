//! The guest's kernel and base archive: made once, kept outside the source tree by their inputs.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::lab::debian::{ACCELERATOR, Kernel, Release};
use crate::lab::initrd::Archive;
use crate::lab::{guest, install};
use crate::process::{self, say};

const SCRIPT: &str = include_str!("../../../../tests/guest/build-modules.sh");
/// Raise it when what this file puts into the cache changes.
const LAYOUT: u32 = 2;

/// What is ready to boot.
#[derive(Debug)]
pub struct Lab {
    pub kernel: PathBuf,
    /// Archive with busybox and the modules, VFIO's built again.
    pub base: PathBuf,
    /// The same with the modules as Debian has them.
    pub stock: PathBuf,
    /// What QEMU is told to run on.
    pub accelerator: Accelerator,
}

/// How QEMU executes the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

/// Prepares the guest, or finds it prepared.
pub fn prepare() -> Result<Lab> {
    let release = Release::detect()?;
    let cache = cache_directory()?;
    fs::create_dir_all(&cache)?;
    let _lock = lock(&cache)?;
    let kernel = install::ensure(release, &cache.join("candidate"))?;
    let directory = cache.join(key(release, &kernel));
    if !directory.exists() {
        build(release, &kernel, &cache, &directory)?;
    }
    let lab = |accelerator| Lab {
        kernel: directory.join("vmlinuz"),
        base: directory.join("base.cpio"),
        stock: directory.join("base-stock.cpio"),
        accelerator,
    };
    let found = accelerator(&directory.join("accelerator"), |accelerator| guest::boots(&lab(accelerator)))?;
    Ok(lab(found))
}

/// Where what takes long to make is kept.
pub fn cache_directory() -> Result<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("upcie-lab"))
}

fn key(release: &Release, kernel: &Kernel) -> String {
    let mut hasher = DefaultHasher::new();
    (LAYOUT, SCRIPT, release.compiler, release.kernel_packages(kernel)).hash(&mut hasher);
    format!("{}-{:016x}", kernel.release, hasher.finish())
}

/// One preparation at a time; the lock goes with the file, or with this process.
pub fn lock(cache: &Path) -> Result<File> {
    let file = File::create(cache.join("lock"))?;
    if file.try_lock().is_err() {
        say!("waiting for another preparation");
        file.lock()?;
    }
    Ok(file)
}

/// Builds beside the final place and renames, so that nothing half-done is ever found.
fn build(release: &Release, kernel: &Kernel, cache: &Path, directory: &Path) -> Result<()> {
    let started = Instant::now();
    let scratch = Scratch(cache.join("unfinished"));
    // Under the lock, whatever is there was left by one that was killed.
    let _ = fs::remove_dir_all(&scratch.0);
    let (debs, out) = (scratch.0.join("debs"), scratch.0.join("out"));
    fs::create_dir_all(&debs)?;
    fs::create_dir_all(&out)?;

    let packages = release.kernel_packages(kernel);
    say!("preparing the guest once, 30 to 90 s: downloading {} (270 MB)", packages.join(" "));
    let download =
        Command::new("apt-get").args(["download", "-qq"]).args(&packages).current_dir(&debs).output()?;
    if !download.status.success() {
        let names = packages.iter().map(|package| package.split('=').next().unwrap_or(package));
        let have = fs::read_dir(&debs)?.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        let have =
            |name: &str| have.iter().any(|file| file.to_string_lossy().starts_with(&format!("{name}_")));
        let absent = names.filter(|name| !have(name)).collect::<Vec<_>>();
        bail!(
            "{} did not give {}: try `apt-get update`; if the name moved, it is in tools/xtask/src/lab/debian.rs\n{}",
            release.suite,
            absent.join(" "),
            String::from_utf8_lossy(&download.stderr).trim()
        );
    }
    process::check_interrupt()?;

    say!("building the VFIO modules of {} with iommufd and noiommu", kernel.release);
    let log = scratch.0.join("log");
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

    let done = scratch.0.join("done");
    fs::create_dir(&done)?;
    for (modules, archive) in [("modules", "base.cpio"), ("stock", "base-stock.cpio")] {
        write_base(&out.join("busybox"), &out.join(modules), &done.join(archive))?;
    }
    fs::copy(out.join("vmlinuz"), done.join("vmlinuz"))?;
    fs::rename(&done, directory)?;
    say!("the guest is ready in {} after {:.0} s", directory.display(), started.elapsed().as_secs_f64());
    Ok(())
}

/// An archive with BusyBox and a set of modules.
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

/// A directory that goes when this does.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
