//! `cargo xtask fio`: builds the ioengine for one fio.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::Workspace;
use crate::lab::fio;
use crate::process::quote;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask fio                            # for the installed fio, which is installed if there is none\n  cargo xtask fio --fio-source ~/src/fio     # for a fio that was built there"
)]
pub struct Args {
    /// Build for the fio in this source directory instead of the installed one
    #[arg(long, value_name = "DIR")]
    fio_source: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let found = match &args.fio_source {
        Some(source) => fio::built_in(source)?,
        None => fio::installed()?,
    };
    let built = fio::build(&workspace, &found)?;
    let (fio, engine) = (word(&built.fio), word(&built.engine));
    println!("built for {}: {}", built.version, built.engine.display());
    println!(
        "\nrun, for example\n\n    {fio} --name=try --ioengine=external:{engine} --thread=1 --filename=emu --rw=randread --bs=4k \
         --iodepth=32 --time_based --runtime=3\n\n    UPCIE_ENGINE={engine} UPCIE_FILENAME=emu {fio} {}\n\nand with a \
         controller, --filename=0000.01.00.0 (dots: fio splits names at colons)",
        word(&workspace.root.join("fio-plugin/examples/latency.fio"))
    );
    Ok(ExitCode::SUCCESS)
}

fn word(path: &Path) -> String {
    quote(&path.to_string_lossy())
}
