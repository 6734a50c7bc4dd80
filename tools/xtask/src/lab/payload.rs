//! The files of one run in the guest: init, programs, their libraries, jobs.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::lab::devices::{EDU, FUNCTIONS};
use crate::lab::initrd::Archive;
use crate::lab::kernel::Lab;
use crate::lab::qemu::Iommu;
use crate::process::{self, quote};

const INIT: &str = include_str!("../../../../tests/guest/init");
/// Directory of the programs in the guest.
pub const BIN: &str = "/payload/bin";

/// Files that are added to the base archive: init, programs and libraries.
#[derive(Debug)]
pub struct Payload {
    archive: Archive,
}

impl Payload {
    /// Makes the payload of a guest without the lab's controllers, whose kernel drives all devices.
    pub fn plain() -> Self {
        let mut archive = Archive::default();
        archive.add("init", true, INIT);
        archive.add("payload/env", false, "export LAB_USER=root LAB_FUNCTIONS= LAB_DRIVER=\n");
        Self { archive }
    }

    pub fn new(plain_user: bool, iommu: Iommu) -> Self {
        let mut archive = Archive::default();
        archive.add("init", true, INIT);
        let environment = [
            ("LAB_USER", if plain_user { "user" } else { "root" }),
            ("LAB_FUNCTIONS", &FUNCTIONS.join(" ")),
            // Without an IOMMU vfio-pci refuses functions unless the no-IOMMU mode is on.
            ("LAB_DRIVER", if iommu == Iommu::Off { "" } else { "vfio-pci" }),
            ("UPCIE_GUEST", "1"),
            ("UPCIE_BIN", BIN),
            ("UPCIE_TEST_DEVICES", &FUNCTIONS.join(",")),
            ("UPCIE_TEST_EDU", EDU),
            // Tests of a suite share one device, so they run one after the other.
            ("RUST_TEST_THREADS", "1"),
            ("RUST_BACKTRACE", "1"),
        ];
        let lines = environment.map(|(name, value)| format!("export {name}={}\n", quote(value)));
        archive.add("payload/env", false, lines.concat());
        Self { archive }
    }

    pub fn add(&mut self, path: &str, text: &str) {
        self.archive.add(path, false, text);
    }

    /// Adds a script to the guest's programs.
    pub fn add_script(&mut self, name: &str, text: &str) {
        self.archive.add(&format!("{BIN}/{name}"), true, text);
    }

    /// Adds an executable file of this machine without its libraries.
    pub fn add_file(&mut self, path: &str, from: &Path) -> Result<()> {
        self.archive.add_file(path, true, from)
    }

    /// Adds a program of this machine under its own name, with its libraries and without its debug
    /// information.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        let name = program.file_name().context("a program is a file")?.to_string_lossy();
        self.add_program_as(program, &name)
    }

    pub fn add_program_as(&mut self, program: &Path, name: &str) -> Result<()> {
        // Several threads make payloads at the same time.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let stripped = std::env::temp_dir().join(format!("upcie-strip-{}-{number}", std::process::id()));
        let strip = process::output(Command::new("strip").arg("-g").arg(program).arg("-o").arg(&stripped));
        // A script, or a file that strip rejects, is added unchanged.
        let from = if strip.is_ok() { stripped.as_path() } else { program };
        let added = self.archive.add_file(&format!("{BIN}/{name}"), true, from);
        let _ = fs::remove_file(&stripped);
        added?;
        self.add_libraries_of(program)
    }

    /// Adds a library of this machine that programs load by path, with its own libraries.
    pub fn add_library(&mut self, library: &Path, path: &str) -> Result<()> {
        self.archive.add_file(path, true, library)?;
        self.add_libraries_of(library)
    }

    fn add_libraries_of(&mut self, program: &Path) -> Result<()> {
        // ldd fails for a file that is not dynamic.
        let libraries = process::output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            if !self.archive.contains(library) {
                self.archive.add_file(library, true, Path::new(library))?;
            }
        }
        Ok(())
    }

    /// Writes the whole initramfs: the base archive, then this payload.
    pub fn write_initrd(&self, lab: &Lab, stock: bool, path: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        std::io::copy(&mut File::open(if stock { &lab.stock } else { &lab.base })?, &mut out)?;
        self.archive.write(&mut out)?;
        Ok(out.flush()?)
    }
}
