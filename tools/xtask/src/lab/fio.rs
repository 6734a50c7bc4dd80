//! fio, its headers, and the ioengine of `fio-plugin`.
//!
//! An engine works with one version of fio, because it reads fio's structures. Debian's package has no
//! headers, so they come from its source package, and are cached by version. Only this program reads the list
//! of that source, so neither root nor a change of the machine's apt is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::lab::cache::Cache;
use crate::lab::debian::Release;
use crate::lab::install;
use crate::process::{self, log};

/// Variable with the path of fio's headers, for the plugin's build script.
const INCLUDE: &str = "UPCIE_FIO_INCLUDE";
/// Packages that the plugin's build needs besides fio.
const TOOLS: &[&str] = &["gcc", "libc6-dev", "make"];
/// Path of the engine in the guest.
pub const GUEST_ENGINE: &str = "/payload/lib/libupcie_fio.so";
const LIBRARY: &str = "libupcie_fio.so";

/// fio, and an engine that was built for it.
#[derive(Debug, Clone)]
pub struct Built {
    pub fio: PathBuf,
    pub engine: PathBuf,
    pub version: String,
}

/// fio, and its headers.
#[derive(Debug)]
pub struct Found {
    fio: PathBuf,
    headers: PathBuf,
}

/// Uses the fio that was built in a directory.
pub fn built_in(source: &Path) -> Result<Found> {
    let headers = source.canonicalize().with_context(|| source.display().to_string())?;
    Ok(Found { fio: headers.join("fio"), headers })
}

/// Builds the engine for fio.
pub fn build(workspace: &Workspace, found: &Found) -> Result<Built> {
    let Found { fio, headers } = found;
    let version = version_of(headers)?;
    let running = process::output(Command::new(fio).arg("--version"))
        .with_context(|| format!("starting {}, which has to load the engine", fio.display()))?;
    if running.trim() != version {
        bail!(
            "{} is {}, but the headers in {} are of {version}: build fio there, or install it, so that they agree",
            fio.display(),
            running.trim(),
            headers.display()
        );
    }
    log!("building the engine for {version}");
    let mut command = workspace.cargo(&["build", "--quiet", "--release", "--package", "upcie-fio"]);
    process::run(command.env(INCLUDE, headers).stderr(Stdio::inherit()))?;
    // The directory keeps the engine apart from a build without headers, and from one for another fio.
    let directory = workspace.target.join("fio").join(version.replace('/', "-"));
    fs::create_dir_all(&directory)?;
    let engine = directory.join(LIBRARY);
    // Remove the file first: a running fio keeps the old engine.
    let _ = fs::remove_file(&engine);
    fs::copy(workspace.bin(true).join(LIBRARY), &engine)?;
    Ok(Built { fio: fio.clone(), engine, version })
}

/// Reads the version of the headers.
fn version_of(headers: &Path) -> Result<String> {
    let file = headers.join("FIO-VERSION-FILE");
    let text = fs::read_to_string(&file).with_context(|| {
        format!(
            "{}: the directory must be fio's source, in which `./configure` and `make` were run",
            file.display()
        )
    })?;
    let version = text.trim().strip_prefix("FIO_VERSION = ");
    Ok(version.with_context(|| format!("{} has no version", file.display()))?.to_owned())
}

/// Finds Debian's fio with its headers; installs it if there is none.
pub fn installed() -> Result<Found> {
    let release = Release::find().map_err(|(id, version)| {
        anyhow::anyhow!(
            "fio's headers come from Debian's source package, but this is {id} {version}: build fio from its source, and \
             give that by --fio-source DIR"
        )
    })?;
    if which("fio").is_none() {
        install::packages(&["fio"], "installing fio needs")?;
    }
    let missing: Vec<_> =
        if which("cc").is_some() && which("make").is_some() { vec![] } else { TOOLS.to_vec() };
    install::packages(&missing, "building the engine needs")?;
    let fio = which("fio").context("fio was installed but is not on the PATH")?;
    let real = fio.canonicalize()?;
    let owner = [fio.as_path(), real.as_path()].into_iter().find_map(|path| {
        let owner = process::output(Command::new("dpkg-query").arg("-S").arg(path)).ok()?;
        Some(owner.split(':').next()?.to_owned())
    });
    if owner.as_deref() != Some("fio") {
        bail!(
            "{} is not from Debian's package fio, so its headers are unknown: name the directory that it was built in with \
             --fio-source DIR",
            fio.display()
        );
    }
    let version = process::output(Command::new("dpkg-query").args(["-W", "-f=${source:Version}", "fio"]))?;
    let headers = headers(release, version.trim())?;
    Ok(Found { fio, headers })
}

/// Finds a program on the PATH.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Returns the configured source of a version of Debian's package, from the cache or from Debian.
fn headers(release: &Release, version: &str) -> Result<PathBuf> {
    let cache = Cache::lock()?;
    let directory = cache.path.join(format!("fio-{}", version.replace(['/', ':'], "-")));
    if directory.exists() {
        return Ok(directory);
    }
    if which("dpkg-source").is_none() {
        install::packages(&["dpkg-dev"], "unpacking fio's source needs")?;
    }
    let scratch = cache.scratch("fio-unfinished")?;
    let source = download(release, version, scratch.path())?;
    log!("configuring fio's source, 5 s");
    let configured = [&["sh", "./configure"][..], &["make", "FIO-VERSION-FILE"]];
    for line in configured {
        process::output(Command::new(line[0]).args(&line[1..]).current_dir(&source))?;
    }
    fs::rename(&source, &directory)?;
    Ok(directory)
}

/// Downloads and unpacks the source package; returns its directory.
fn download(release: &Release, version: &str, scratch: &Path) -> Result<PathBuf> {
    for directory in ["lists/partial", "archives/partial", "source"] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    let list = scratch.join("sources.list");
    fs::write(&list, sources(release)?)?;
    let options = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={}", scratch.join("lists").display()),
        format!("Dir::Cache={}", scratch.display()),
        // Downloaded files belong to this user.
        "APT::Sandbox::User=".to_owned(),
    ];
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        options.iter().for_each(|option| {
            command.arg("-o").arg(option);
        });
        command.args(["-qq"]).args(words).current_dir(scratch.join("source"));
        process::output(&mut command)
    };
    log!(
        "fio's headers: downloading Debian's list of sources (10 MB, not kept) and the source of fio {version} (6 MB)"
    );
    apt(&["update"])?;
    apt(&["source", "--only-source", &format!("fio={version}")]).with_context(|| {
        format!(
            "{} does not have the source of fio {version}, which is installed: try `apt-get update` and `apt-get install \
             fio`, or build fio yourself and give its directory by --fio-source",
            release.codename
        )
    })?;
    let entries = fs::read_dir(scratch.join("source"))?.flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.is_dir()).context("the source package has no directory")
}

/// Makes a list of the source repositories that match apt's repositories of this release.
fn sources(release: &Release) -> Result<String> {
    let format = "$(RELEASE) $(COMPONENT) $(REPO_URI) $(SIGNED_BY)";
    let targets = ["indextargets", "--format", format, "Created-By: Packages"];
    let targets = process::output(Command::new("apt-get").args(targets))?;
    let mut lines = Vec::new();
    for target in targets.lines() {
        let words: Vec<_> = target.split_whitespace().collect();
        let [suite, "main", uri, ref signed @ ..] = words[..] else { continue };
        if suite.split('-').next() != Some(release.codename) {
            continue;
        }
        let key = signed.first().filter(|key| key.starts_with('/'));
        let option = key.map_or_else(String::new, |key| format!("[signed-by={key}] "));
        let line = format!("deb-src {option}{uri} {suite} main\n");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        bail!("apt has no source for {}: see sources.list(5)", release.codename);
    }
    Ok(lines.concat())
}
