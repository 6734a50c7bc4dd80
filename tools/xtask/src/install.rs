//! Debian packages: what is missing, who may install it, and which kernel the suite offers.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::debian::{Kernel, QEMU, QEMU_MAJOR, Release, SERIES, TOOLS};
use crate::process::{self, say};

/// Installs what is missing and returns the kernel that the guest will have.
pub fn ensure(release: &Release) -> Result<Kernel> {
    add_suite(release)?;
    let kernel = match candidate(release) {
        Ok(kernel) => kernel,
        Err(_) => {
            root(&["apt-get", "update", "-qq"], "fetches the lists of packages")?;
            candidate(release)?
        }
    };
    if !kernel.release.starts_with(&format!("{SERIES}.")) {
        bail!(
            "{} now has kernel {}, and tests/guest/build-modules.sh knows the source files of {SERIES} only: \
             adapt it, and SERIES in tools/xtask/src/debian.rs",
            release.suite,
            kernel.release
        );
    }
    let mut missing: Vec<&str> = TOOLS.iter().copied().filter(|package| !installed(package)).collect();
    if !installed(release.compiler) {
        missing.push(release.compiler);
    }
    if qemu_major().is_none_or(|major| major < QEMU_MAJOR) {
        missing.push(QEMU);
    }
    if missing.is_empty() {
        return Ok(kernel);
    }
    say!("the guest needs these Debian packages, about a minute: {}", missing.join(" "));
    let mut line = vec!["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-t", release.suite];
    line.extend(&missing);
    root(&line, "installs them")?;
    if qemu_major().is_none_or(|major| major < QEMU_MAJOR) {
        bail!("{QEMU} of {} is older than {QEMU_MAJOR}", release.suite);
    }
    Ok(kernel)
}

/// Adds the suite to apt, in a list of its own, if no list has it.
fn add_suite(release: &Release) -> Result<()> {
    // apt's own reading of its lists, whichever of the two formats they are in.
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let mirror = |suite: &str| {
        targets.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let found = words.next() == Some(suite) && words.next() == Some("main");
            words.next().filter(|_| found)
        })
    };
    if mirror(release.suite).is_some() {
        return Ok(());
    }
    let mirror = mirror(release.codename)
        .with_context(|| format!("apt has no source for {}: see sources.list(5)", release.codename))?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let option = if Path::new(keyring).exists() { format!("[signed-by={keyring}] ") } else { String::new() };
    let line = format!("deb {option}{mirror} {} main", release.suite);
    let list = format!("/etc/apt/sources.list.d/{}.list", release.suite);
    say!("QEMU and the guest's kernel come from {}; writing {list}: {line}", release.suite);
    root(&["sh", "-c", r#"echo "$0" > "$1""#, &line, &list], "adds the suite to apt")?;
    root(&["apt-get", "update", "-qq"], "fetches the lists of packages")
}

/// Runs a command as root, through sudo if need be.
fn root(line: &[&str], purpose: &str) -> Result<()> {
    let quoted = line.iter().map(|word| crate::guest::quote(word)).collect::<Vec<_>>().join(" ");
    let is_root = process::output(Command::new("id").arg("-u"))?.trim() == "0";
    let has_sudo = Command::new("sudo")
        .arg("-V")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = if is_root {
        say!("{quoted}   # {purpose}");
        Command::new("env")
    } else if has_sudo {
        say!("sudo {quoted}   # {purpose}");
        let mut command = Command::new("sudo");
        command.arg("env");
        command
    } else {
        bail!("root is needed once, and there is no sudo; as root run\n\n    {quoted}\n\nthen try again");
    };
    // apt's progress is of no interest, and stdout may be a guest command's.
    let output = command.arg("DEBIAN_FRONTEND=noninteractive").args(line).stdin(Stdio::inherit()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("`{quoted}` failed: {}\n{}", output.status, text.trim());
    }
    process::check_interrupt()
}

fn installed(package: &str) -> bool {
    let query = ["-W", "-f=${db:Status-Status}", package];
    process::output(Command::new("dpkg-query").args(query)).is_ok_and(|status| status == "installed")
}

fn qemu_major() -> Option<u32> {
    let text = process::output(Command::new("qemu-system-x86_64").arg("--version")).ok()?;
    text.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

/// Which kernel the suite's linux-image-amd64 stands for.
fn candidate(release: &Release) -> Result<Kernel> {
    let suite = release.suite;
    let image = format!("linux-image-amd64/{suite}");
    let moved = || format!("{suite} no longer has linux-image-amd64 the way tools/xtask expects it");
    let depends = process::output(Command::new("apt-cache").args(["depends", "-t", suite, &image]))
        .with_context(moved)?;
    let kernel = depends
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix("Depends: linux-image-")
                .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        })
        .with_context(moved)?;
    let policy = ["policy", &format!("linux-image-{kernel}")];
    let policy = process::output(Command::new("apt-cache").args(policy))?;
    let version =
        policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).with_context(moved)?;
    Ok(Kernel { release: kernel.to_owned(), version: version.to_owned() })
}
