//! `cargo xtask simulate`: plays seeds of the simulation.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::checks::{planted, simulation};

#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  cargo xtask simulate --seeds 100000\n  cargo xtask simulate --seed 4:4711 --trace\n  cargo xtask simulate --planted          # plant bugs, and see them found\n  cargo xtask simulate --planted phase    # those whose name contains it\n  cargo xtask simulate --help             # all options"
)]
pub struct Args {
    /// Plant bugs in a copy of the sources, and check that the simulation finds each
    #[arg(long)]
    planted: bool,
    /// Options of the program `simulate`; with --planted, words of the bugs' names
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    if args.planted {
        planted::check(&workspace, &args.options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = simulation::play(&workspace, |command| command.args(&args.options))?;
    Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)))
}
