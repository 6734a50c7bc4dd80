//! Debian packages that are unpacked into the cache with all that they need, the C library included, and installed nowhere. Root is
//! not needed. The packages come from apt's mirror for this machine's release; only this program reads their list.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::lab::cache::Cache;
use crate::lab::debian::Release;
use crate::lab::install;
use crate::process::{self, log};

/// Path of the loader below the directory, with which its programs start.
pub const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// Path of the libraries below the directory.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Downloads and unpacks packages of the last of some suites in a temporary directory, then renames it.
pub fn unpack(
    release: &Release,
    cache: &Cache,
    suites: &[&str],
    packages: &[&str],
    directory: &Path,
) -> Result<()> {
    let started = Instant::now();
    let scratch = cache.scratch("packages-unfinished")?;
    let at = |name: &str| scratch.path().join(name);
    for name in ["state/lists/partial", "cache/archives/partial", "preferences.d", "root"] {
        fs::create_dir_all(at(name))?;
    }
    // No package is installed in this state, so apt adds everything that the packages need.
    fs::write(at("status"), "")?;
    fs::write(at("preferences"), "")?;
    fs::write(at("sources.list"), install::source(release, suites)?)?;
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
    apt(&["update"])?;
    let suite = suites.last().copied().unwrap_or(release.codename);
    let download = ["install", "-y", "--no-install-recommends", "--download-only", "-t", suite];
    apt(&[&download, packages].concat())
        .with_context(|| format!("{suite} is named in tools/xtask/src/lab/debian.rs"))?;
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
