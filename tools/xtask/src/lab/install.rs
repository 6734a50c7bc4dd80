//! Debian packages: finds missing ones, installs them, and finds the suite's kernel.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::lab::debian::{Kernel, QEMU, QEMU_MAJOR, Release, SERIES, TOOLS};
use crate::process::{self, log, quote};

/// Installs missing packages; returns the guest's kernel. The answer is stored in a file until apt's state
/// changes, because asking apt takes seconds.
pub fn ensure(release: &Release, answer: &Path) -> Result<Kernel> {
    let known = fs::read_to_string(answer).unwrap_or_default();
    if let [state, kernel, version] = known.lines().collect::<Vec<_>>()[..]
        && state == apt_state()
    {
        return Ok(Kernel { release: kernel.to_owned(), version: version.to_owned() });
    }
    let kernel = ask(release)?;
    fs::write(answer, format!("{}\n{}\n{}\n", apt_state(), kernel.release, kernel.version))?;
    Ok(kernel)
}

/// Returns the times when apt last changed its sources, lists and packages.
fn apt_state() -> String {
    let paths =
        ["/etc/apt/sources.list", "/etc/apt/sources.list.d", "/var/lib/apt/lists", "/var/lib/dpkg/status"];
    let time =
        |path| Some(fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos());
    paths.map(|path| time(path).unwrap_or_default().to_string()).join(" ")
}

fn ask(release: &Release) -> Result<Kernel> {
    let mut plan = add_suite(release)?;
    let mut missing: Vec<&str> = TOOLS.iter().copied().filter(|package| !installed(package)).collect();
    if !installed(release.compiler) {
        missing.push(release.compiler);
    }
    if qemu_is_old() {
        missing.push(QEMU);
    }
    // A new container has no lists.
    if plan.is_empty() && candidate(release).is_err() {
        plan.push(update());
    }
    if !missing.is_empty() {
        log!("the tests need these Debian packages, about a minute: {}", missing.join(" "));
        plan.push(install(&missing, &["-t", release.suite]));
    }
    as_root(&plan)?;
    if qemu_is_old() {
        bail!("{QEMU} of {} is older than {QEMU_MAJOR}", release.suite);
    }
    let kernel = candidate(release)?;
    if !kernel.release.starts_with(&format!("{SERIES}.")) {
        bail!(
            "{} now has kernel {}, but tests/guest/build-modules.sh knows only the source files of {SERIES}: \
             change it, and SERIES in tools/xtask/src/lab/debian.rs",
            release.suite,
            kernel.release
        );
    }
    Ok(kernel)
}

/// Installs missing packages of this release; `why` begins the message.
pub fn packages(wanted: &[&str], why: &str) -> Result<()> {
    let missing: Vec<_> = wanted.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    log!("{why} these Debian packages: {}", missing.join(" "));
    let mut plan = Vec::new();
    // A new container has no lists.
    let known = |package: &&str| {
        let policy = process::output(Command::new("apt-cache").args(["policy", package])).unwrap_or_default();
        policy.lines().any(|line| line.trim().starts_with("Candidate: ") && !line.contains("(none)"))
    };
    if !missing.iter().all(known) {
        plan.push(update());
    }
    plan.push(install(&missing, &[]));
    as_root(&plan)
}

type Line = Vec<String>;

fn update() -> Line {
    ["apt-get", "update", "-qq"].map(str::to_owned).to_vec()
}

fn install(packages: &[&str], options: &[&str]) -> Line {
    let line = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    line.iter().chain(options).chain(packages).map(|&word| word.to_owned()).collect()
}

/// Finds apt's mirror of a suite.
fn mirror(suite: &str) -> Result<Option<String>> {
    // apt parses its lists in both formats.
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    Ok(targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let found = words.next() == Some(suite) && words.next() == Some("main");
        words.next().filter(|_| found).map(str::to_owned)
    }))
}

/// Makes lines of a sources.list for suites of Debian, with apt's mirror of this release.
pub fn source(release: &Release, suites: &[&str]) -> Result<String> {
    let mirror = mirror(release.codename)?
        .with_context(|| format!("apt has no source for {}: see sources.list(5)", release.codename))?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let option = if Path::new(keyring).exists() { format!("[signed-by={keyring}] ") } else { String::new() };
    Ok(suites.iter().map(|suite| format!("deb {option}{mirror} {suite} main\n")).collect())
}

/// Returns the commands that add the suite to apt in a list of its own; none if apt has the suite.
fn add_suite(release: &Release) -> Result<Vec<Line>> {
    if mirror(release.suite)?.is_some() {
        return Ok(Vec::new());
    }
    let line = source(release, &[release.suite])?.trim_end().to_owned();
    let list = format!("/etc/apt/sources.list.d/{}.list", release.suite);
    log!("QEMU and the guest's kernel come from {}; {list} adds it to apt", release.suite);
    Ok(vec![vec!["sh".to_owned(), "-c".to_owned(), format!("echo {} > {list}", quote(&line))], update()])
}

/// Runs commands as root, with sudo if necessary; prints each first.
fn as_root(plan: &[Line]) -> Result<()> {
    if plan.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> =
        plan.iter().map(|line| line.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")).collect();
    let is_root = process::output(Command::new("id").arg("-u"))?.trim() == "0";
    if !is_root && process::output(Command::new("sudo").arg("-V")).is_err() {
        bail!(
            "this needs root once, and sudo is missing; run as root\n\n    {}\n\nthen try again",
            lines.join("\n    ")
        );
    }
    let sudo: &[&str] = if is_root { &[] } else { &["sudo"] };
    for (line, words) in lines.iter().zip(plan) {
        log!("{}{line}", if is_root { "" } else { "sudo " });
        let environment = ["env", "DEBIAN_FRONTEND=noninteractive"];
        let all: Vec<&str> =
            sudo.iter().copied().chain(environment).chain(words.iter().map(String::as_str)).collect();
        // Hide apt's progress; stdout may belong to a guest command. sudo asks on the terminal.
        let output = Command::new(all[0]).args(&all[1..]).stdin(Stdio::inherit()).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("`{line}` failed: {}\n{}", output.status, text.trim());
        }
        process::check_interrupt()?;
    }
    Ok(())
}

fn installed(package: &str) -> bool {
    let query = ["-W", "-f=${db:Status-Status}", package];
    process::output(Command::new("dpkg-query").args(query)).is_ok_and(|status| status == "installed")
}

/// Returns true if QEMU is missing, or older than the version that the lab was tested with.
fn qemu_is_old() -> bool {
    let text = process::output(Command::new("qemu-system-x86_64").arg("--version")).unwrap_or_default();
    let major = text.split("version ").nth(1).and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    major.is_none_or(|major| major < QEMU_MAJOR)
}

/// Finds the kernel that the suite's linux-image-amd64 depends on.
fn candidate(release: &Release) -> Result<Kernel> {
    let suite = release.suite;
    let image = format!("linux-image-amd64/{suite}");
    let moved = || format!("linux-image-amd64 of {suite} has changed: tools/xtask can't find its kernel");
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
