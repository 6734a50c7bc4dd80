//! `cargo xtask fuzz`: runs the fuzz targets for longer than the suites do.

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::process;

/// The packages with targets: those for anybody, and unit tests of private parts with `fuzz` in their names.
const PACKAGES: [&str; 4] = ["upcie-fuzz", "upcie-core", "upcie-nvme", "upcie-tools"];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz --runs 10000000 vfio_user_server\n  cargo xtask fuzz addresses fault_plans"
)]
pub struct Args {
    /// The number of mutations of each target
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Only the targets whose test's name contains one of these words
    targets: Vec<String>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let mut command = workspace.cargo(&["test", "--quiet", "--profile", "sim"]);
    command
        .args(PACKAGES.map(|package| format!("--package={package}")))
        .args(["--lib", "--bins", "--test", "fuzzed"]);
    command.args(["--", "--nocapture"]);
    match args.targets.is_empty() {
        true => command.arg("fuzz"),
        false => command.args(&args.targets),
    };
    command.env("UPCIE_FUZZ_RUNS", args.runs.to_string());
    let status = process::status(&mut command)?;
    Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)))
}
