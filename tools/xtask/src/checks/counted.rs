//! The program of the benches whose hot path is counted and disassembled, and the profiles that build it.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cargo::Workspace;

pub const BENCHES: &str = "upcie-benches";
pub const PROGRAM: &str = "counted";
/// How the hot path is built: as the workspace's programs are, and as a program is that changes nothing of cargo's own.
pub const PROFILES: [&str; 2] = ["release", "user"];

/// Builds the counted program.
pub fn program(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--package", BENCHES, "--bin", PROGRAM, "--profile", profile];
    let built = workspace.build_optimised(&arguments)?;
    let program = built.into_iter().find(|executable| executable.name == PROGRAM);
    Ok(program.with_context(|| format!("{BENCHES} has no program {PROGRAM}"))?.path)
}
