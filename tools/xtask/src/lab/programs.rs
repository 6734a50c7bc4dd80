//! Programs for the guest that are not installed on this machine: nvme-cli, jq and the tools of ext4 and xfs. Installing nvme-cli would
//! enable services at boot.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::cache::Cache;
use crate::lab::debian::{PROGRAMS, Release, VMM};
use crate::lab::payload::Payload;
use crate::lab::unpack::{LIBRARIES, LOADER, unpack};
use crate::process::{self, log};

/// Version of the files in the cache; increase it if they are made differently.
const LAYOUT: u32 = 2;
/// Directory of the programs and their libraries in the guest.
const DIRECTORY: &str = "/payload/programs";
/// Names in the guest, and the programs.
const NAMES: &[(&str, &str)] = &[
    ("nvme", "usr/sbin/nvme"),
    ("jq", "usr/bin/jq"),
    ("mkfs.ext4", "usr/sbin/mke2fs"),
    ("e2fsck", "usr/sbin/e2fsck"),
    ("mkfs.xfs", "usr/sbin/mkfs.xfs"),
    ("xfs_repair", "usr/sbin/xfs_repair"),
];

/// Unpacked packages.
#[derive(Debug)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// Unpacks the packages, unless that was done already.
    pub fn prepare() -> Result<Self> {
        let release = Release::detect()?;
        let cache = Cache::lock()?;
        let root = cache.path.join(format!("programs-{}-{LAYOUT}", VMM.codename));
        if !root.exists() {
            log!("fetching {} into the cache, once: 20 MB", PROGRAMS.join(", "));
            unpack(release, &cache, &[VMM.codename], PROGRAMS, &root)?;
        }
        Ok(Self { root })
    }

    /// Adds all programs to a payload, each with a script that starts it with the loader and libraries of its own release.
    pub fn add_to(&self, payload: &mut Payload) -> Result<()> {
        let at = |path: &str| self.root.join(path);
        payload.add_file(&format!("{DIRECTORY}/loader"), &at(LOADER))?;
        for (name, program) in NAMES {
            let file = at(program);
            payload.add_file(&format!("{DIRECTORY}/{name}"), &file)?;
            let mut list = Command::new(at(LOADER));
            list.arg("--library-path").arg(at(LIBRARIES)).arg("--list").arg(&file);
            let listed = process::output(&mut list)?;
            for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
                let library = PathBuf::from(library);
                let base = library.file_name().context("a library is a file")?.to_string_lossy();
                payload.add_file(&format!("{DIRECTORY}/lib/{base}"), &library)?;
            }
            let start = format!("{DIRECTORY}/loader --library-path {DIRECTORY}/lib {DIRECTORY}/{name}");
            payload.add_script(name, &format!("#!/bin/sh\nexec {start} \"$@\"\n"));
        }
        Ok(())
    }
}
