//! `cargo xtask simulate`: plays seeds of the simulation.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::process;

#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  cargo xtask simulate --seeds 10000\n  cargo xtask simulate --seed 1:4711 --trace\n  cargo xtask simulate --help     # all options"
)]
pub struct Args {
    /// Options of the program `simulate`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    // Optimised, and built sooner than a release.
    let run =
        ["run", "--quiet", "--profile", "user", "--package", "upcie-simulation", "--bin", "simulate", "--"];
    let status = process::status(workspace.cargo(&run).args(&args.options))?;
    Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)))
}
