//! Plays seeds of the simulation in an optimised build.

use std::process::{Command, ExitStatus};

use anyhow::{Result, bail};

use crate::cargo::Workspace;
use crate::process;

/// Seeds of each run: half a minute on two quiet cores.
const SEEDS: &str = "10000";

/// Plays the seeds of each run; a failure prints its seed and a short trace.
pub fn check(workspace: &Workspace) -> Result<()> {
    let status = play(workspace, |command| command.args(["--seeds", SEEDS]))?;
    if !status.success() {
        bail!("a seed of the simulation fails, see above");
    }
    Ok(())
}

/// Runs the program `simulate`, with the arguments that `with` adds.
pub fn play(workspace: &Workspace, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<ExitStatus> {
    let run =
        ["run", "--quiet", "--profile", "sim", "--package", "upcie-simulation", "--bin", "simulate", "--"];
    process::status(with(&mut workspace.cargo(&run)))
}
