//! C programs over libupcie for the guest: its examples, tests in C, and the contract programs of xNVMe's backend.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::Workspace;
use crate::process;

/// The suites that start them.
pub const SUITES: &[&str] =
    &["guest_c_programs", "guest_errors_c_programs", "guest_noiommu_c_programs", "guest_pt_c_programs"];
/// The package whose library they are linked with.
pub const PACKAGE: &str = "upcie-c";
/// Names in the guest, and the C files. A directory stands for its C files.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("c-hello", &["upcie-c/examples/hello.c"]),
    ("c-batch", &["upcie-c/examples/batch.c"]),
    ("c-event-loop", &["upcie-c/examples/event_loop.c"]),
    ("c-functions", &["upcie-c/tests/c/functions.c"]),
    ("c-huge-pages", &["upcie-c/tests/c/huge_pages.c"]),
    ("c-untranslated", &["upcie-c/tests/c/untranslated.c"]),
    ("c-contract", &["xnvme/tests/contract.c", "xnvme"]),
    ("c-devices", &["xnvme/tests/devices.c", "xnvme"]),
    ("c-sets", &["xnvme/tests/sets.c", "xnvme"]),
];
/// Directories of headers.
const INCLUDE: &[&str] = &["upcie-c/include", "xnvme/tests/include"];
/// Libraries that Rust's standard library needs.
const PRIVATE: &[&str] = &["-lgcc_s", "-lutil", "-lpthread", "-lm", "-ldl"];

/// Compiles the programs with a static libupcie, which cargo has built in one of the `built` directories; returns them.
pub fn build(workspace: &Workspace, built: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let libraries = built.iter().map(|directory| directory.join("libupcie.a"));
    let library = libraries.into_iter().find(|path| path.is_file()).context("cargo built no libupcie.a")?;
    let directory = workspace.target.join("c-programs");
    fs::create_dir_all(&directory)?;
    let mut programs = Vec::new();
    for (name, sources) in PROGRAMS {
        let program = directory.join(name);
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]);
        for include in INCLUDE {
            command.arg("-I").arg(workspace.root.join(include));
        }
        for source in *sources {
            command.args(files(&workspace.root.join(source))?);
        }
        command.arg(&library).args(PRIVATE).arg("-o").arg(&program);
        process::output(&mut command)?;
        programs.push(program);
    }
    Ok(programs)
}

/// Returns a C file, or those in a directory.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "c")).collect())
}
