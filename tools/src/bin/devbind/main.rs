//! `devbind`: shows which drivers PCI functions are bound to, and gives them to others and back.
#![forbid(unsafe_code)]

mod act;
mod describe;
mod list;
mod module;
mod noiommu;
mod owner;
mod pci_ids;
mod state;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;
use owner::Owner;
use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use upcie_core::pci::{Bdf, is_vfio_driver};
use upcie_tools::{
    cli,
    log::{self, LogArgs},
    units, usage,
};

/// Shows which drivers PCI functions are bound to, and binds them to others: to vfio-pci or uio_pci_generic, so that a
/// program drives them from user space, and back.
#[derive(Debug, Parser)]
#[command(
    name = "devbind",
    version,
    max_term_width = 110,
    after_help = "A function is domain:bus:device.function (0000:01:00.0); the domain may be left out.\n\n\
        Exit codes:\n  0  success\n  1  an error, or a function that was refused or failed: messages on stderr\n  \
        2  wrong usage\n\n\
        Start with `devbind list`; `devbind help bind` has examples."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Only say what would be done
    #[arg(long, short = 'n', global = true)]
    dry_run: bool,
    /// Print each write to sysfs; in a list, print more
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Where it is kept what each function was bound to before
    #[arg(long, global = true, value_name = "DIR", default_value = state::DIRECTORY)]
    state_dir: PathBuf,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List functions with driver, IOMMU group, NUMA node, model, size and what uses them
    #[command(after_help = list::EXAMPLES)]
    List(list::ListArgs),
    /// Bind functions to a driver; what they are bound to now is remembered for `restore`
    #[command(after_help = "Examples:\n  \
            devbind bind vfio-pci 01:00.0 02:00.0\n  \
            devbind bind vfio-pci 01:00.0 --owner alice   alice's programs need no root then\n  \
            devbind bind uio_pci_generic 01:00.0\n  \
            devbind bind nvme 01:00.0 --dry-run")]
    Bind(BindArgs),
    /// Take functions from their drivers
    Unbind {
        #[command(flatten)]
        target: Target,
    },
    /// Put functions back to what they were bound to before the first `bind` or `unbind`; all of them if none is named
    Restore {
        /// The functions
        #[arg(value_name = "FUNCTION", value_parser = cli::parse_bdf)]
        functions: Vec<Bdf>,
        #[command(flatten)]
        how: How,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  devbind completions bash > ~/.local/share/bash-completion/completions/devbind"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct BindArgs {
    /// The driver: vfio-pci, uio_pci_generic, nvme, …; its module is loaded
    driver: String,
    #[command(flatten)]
    target: Target,
    /// Let VFIO have functions that no IOMMU translates for: they can reach all memory then, and the kernel is tainted
    #[arg(long)]
    unsafe_noiommu: bool,
    /// Give the nodes of VFIO to this user (or number), so that programs need no root
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
}

#[derive(Debug, Args)]
struct Target {
    /// The functions
    #[arg(required = true, value_name = "FUNCTION", value_parser = cli::parse_bdf)]
    functions: Vec<Bdf>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Even if a function is in use: its file systems, swap or user lose it
    #[arg(long)]
    force: bool,
    /// How long the kernel may take over one step, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl How {
    fn deadline(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match log::start(&cli.global.log).and_then(|()| run(&cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs it; `false` when something that was said already failed.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let global = &cli.global;
    match &cli.command {
        Command::List(args) => list::run(args, global.verbose, &global.state_dir),
        Command::Bind(args) => {
            let is_vfio = is_vfio_driver(&args.driver);
            if !is_vfio && (args.unsafe_noiommu || args.owner.is_some()) {
                let option = if args.unsafe_noiommu { "--unsafe-noiommu" } else { "--owner" };
                let message = format!("{option} is for vfio-pci, not for {}", args.driver);
                Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
            }
            let owner = args.owner.as_deref().map(Owner::parse).transpose()?;
            act::bind(global, args, owner.as_ref())
        }
        Command::Unbind { target } => act::unbind(global, target),
        Command::Restore { functions, how } => act::restore(global, functions, how),
        Command::Completions { shell } => cli::print_completions(Cli::command(), *shell).map(|()| true),
    }
}

/// A message on stderr.
fn complain(message: fmt::Arguments<'_>) {
    // Nobody is there to be told that stderr is closed.
    let _ = writeln!(io::stderr(), "devbind: {message}");
}

/// A line on stdout about what is done. A reader that has gone is no reason to stop half way.
fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
