//! `devbind`: lists the drivers of PCI functions, and binds functions to other drivers and back.
#![forbid(unsafe_code)]

mod act;
mod aliases;
mod describe;
mod list;
mod module;
mod named;
mod noiommu;
mod owner;
mod pci_ids;
mod state;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;
use named::Named;
use owner::Owner;
use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use upcie_core::pci::is_vfio_driver;
use upcie_tools::{
    cli,
    log::{self, LogArgs},
    units, usage,
};

/// The longest `--timeout`.
const LONGEST: Duration = Duration::from_secs(3600);

/// Lists the drivers of PCI functions, and binds functions to other drivers: to vfio-pci or uio_pci_generic,
/// so that a program can drive them from user space, and back.
#[derive(Debug, Parser)]
#[command(
    name = "devbind",
    version,
    max_term_width = 110,
    after_help = "A function is domain:bus:device.function (0000:01:00.0); the domain is optional. The kernel's name of\n\
        its disk, controller or interface works as well (/dev/nvme0n1, nvme0, vda), while it has one.\n\n\
        Exit codes:\n  0  success\n  1  an error, or a function could not be changed: messages on stderr\n  \
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
    /// Only print what would be done
    #[arg(long, short_alias = 'n', global = true)]
    dry_run: bool,
    /// Print each write to sysfs; `list` prints more
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Directory of the records of earlier drivers
    #[arg(long, global = true, value_name = "DIR", default_value = state::DIRECTORY)]
    state_dir: PathBuf,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List functions with driver, IOMMU group, NUMA node, model, size and users
    #[command(after_help = list::EXAMPLES)]
    List(list::ListArgs),
    /// Bind functions to a driver, and record the current one for `restore`
    #[command(after_help = "Examples:\n  \
            devbind bind vfio-pci 01:00.0 02:00.0\n  \
            devbind bind vfio-pci nvme0                   the function of that controller\n  \
            devbind bind vfio-pci 01:00.0 --owner alice   alice's programs then need no root\n  \
            devbind bind uio_pci_generic 01:00.0\n  \
            devbind bind nvme 01:00.0 --dry-run")]
    Bind(BindArgs),
    /// Unbind functions from their drivers
    Unbind {
        #[command(flatten)]
        target: Target,
    },
    /// Bind functions to the drivers that they had before the first `bind` or `unbind` [default: all recorded
    /// functions]
    Restore {
        /// Functions to restore
        #[arg(value_name = "FUNCTION", value_parser = named::parse)]
        functions: Vec<Named>,
        #[command(flatten)]
        options: ChangeArgs,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  devbind completions bash > ~/.local/share/bash-completion/completions/devbind"
    )]
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
    /// Write man pages, of this program and of each command
    #[command(after_help = "Example:\n  devbind manual ~/.local/share/man/man1")]
    Manual {
        /// Directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
struct BindArgs {
    /// Driver to bind to: vfio-pci, uio_pci_generic, nvme, …; its module is loaded
    driver: String,
    #[command(flatten)]
    target: Target,
    /// Let VFIO use functions without an IOMMU: they can then access all memory, and the kernel is tainted
    #[arg(long)]
    unsafe_noiommu: bool,
    /// Give the VFIO nodes to this user (name or number), so that programs need no root
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
}

#[derive(Debug, Args)]
struct Target {
    /// Functions to change
    #[arg(required = true, value_name = "FUNCTION", value_parser = named::parse)]
    functions: Vec<Named>,
    #[command(flatten)]
    options: ChangeArgs,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Change functions that are in use: their file systems, swap or users lose them
    #[arg(long)]
    force: bool,
    /// Longest time for the kernel to finish one step: seconds, or with a unit (500ms, 2m), an hour at most
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = parse_timeout)]
    timeout: Duration,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = units::parse_time(text)?;
    if time <= LONGEST { Ok(time) } else { Err("an hour at most".into()) }
}

fn main() -> ExitCode {
    let command = Cli::command();
    let is_verb = |word: &str| command.find_subcommand(word).is_some() || word == "help";
    let cli: Cli = cli::parse(aliases::expand(std::env::args_os(), is_verb));
    match log::start(&cli.global.log).and_then(|()| run(&cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs the command; returns `false` if an error was printed already.
fn run(cli: &Cli) -> anyhow::Result<bool> {
    let global = &cli.global;
    match &cli.command {
        Command::List(args) => list::run(args, global.verbose, &global.state_dir),
        Command::Bind(args) => {
            let is_vfio = is_vfio_driver(&args.driver);
            if !is_vfio && (args.unsafe_noiommu || args.owner.is_some()) {
                let option = if args.unsafe_noiommu { "--unsafe-noiommu" } else { "--owner" };
                let message = format!("{option} needs vfio-pci, not {}", args.driver);
                Cli::command().error(ErrorKind::ArgumentConflict, message).exit();
            }
            let owner = args.owner.as_deref().map(Owner::parse).transpose()?;
            act::bind(global, args, owner.as_ref())
        }
        Command::Unbind { target } => act::unbind(global, target),
        Command::Restore { functions, options } => {
            act::restore(global, &named::addresses(functions), options)
        }
        Command::Completions { shell } => cli::print_completions(Cli::command(), *shell).map(|()| true),
        Command::Manual { directory } => cli::write_manual(Cli::command(), directory).map(|()| true),
    }
}

/// Prints a message on stderr.
fn print_error(message: fmt::Arguments<'_>) {
    // Errors are ignored: there is no place left to report them.
    let _ = writeln!(io::stderr(), "devbind: {message}");
}

/// Prints a line about a change on stdout. A reader that has gone must not stop the changes half way.
fn report(message: fmt::Arguments<'_>) {
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
