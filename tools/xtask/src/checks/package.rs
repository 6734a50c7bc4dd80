//! Checks that the libraries can be published: `cargo package` makes their archives, and the content of the
//! archives builds.
//!
//! cargo's own verification is not used. It unpacks the library that the other one depends on into its home
//! directory by version, and does not notice changes within a version.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::process;

/// Libraries in the order of publishing.
const LIBRARIES: [&str; 2] = ["upcie-core", "upcie-nvme"];

pub fn check(workspace: &Workspace) -> Result<()> {
    // The check works on uncommitted changes too.
    let mut command = workspace.cargo(&["package", "--quiet", "--allow-dirty", "--no-verify"]);
    process::run(command.args(LIBRARIES.map(|library| format!("--package={library}"))))?;

    let directory = workspace.target.join("xtask/package");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let (mut members, mut patches) = (String::new(), String::new());
    for library in LIBRARIES {
        let name = format!("{library}-{}", workspace.version(library)?);
        let archive = workspace.target.join(format!("package/{name}.crate"));
        // With the present time (-m): cargo would take the archive's fixed times for unchanged files.
        process::run(Command::new("tar").arg("-xmzf").arg(archive).arg("-C").arg(&directory))?;
        members += &format!("{name:?}, ");
        patches += &format!("{library} = {{ path = {name:?} }}\n");
    }
    let manifest =
        format!("[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[patch.crates-io]\n{patches}");
    fs::write(directory.join("Cargo.toml"), manifest)?;
    fs::copy(workspace.root.join("Cargo.lock"), directory.join("Cargo.lock"))?;
    process::run(workspace.cargo(&["check", "--quiet"]).current_dir(&directory))
}
