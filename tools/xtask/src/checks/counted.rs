//! The `counted` program of the benches, whose hot path is counted and disassembled, and its build profiles.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cargo::Workspace;

pub const BENCHES: &str = "upcie-benches";
pub const PROGRAM: &str = "counted";
/// Profiles of the hot path: that of the workspace's programs, and cargo's default for a user's program.
pub const PROFILES: [&str; 2] = ["release", "user"];

/// Builds the counted program.
pub fn program(workspace: &Workspace, profile: &str) -> Result<PathBuf> {
    let arguments = ["build", "--quiet", "--package", BENCHES, "--bin", PROGRAM, "--profile", profile];
    let built = workspace.build_optimised(&arguments)?;
    let program = built.into_iter().find(|executable| executable.name == PROGRAM);
    Ok(program.with_context(|| format!("{BENCHES} has no program {PROGRAM}"))?.path)
}
