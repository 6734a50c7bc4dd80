//! `hugepages`: shows huge pages and their users, makes pools and mounts, and removes leftover files.
#![forbid(unsafe_code)]

mod clear;
mod info;
mod mount;
mod persist;
mod place;
mod release;
mod setup;
mod unmount;
mod users;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::process::ExitCode;
use upcie_core::memory::PageSize;
use upcie_tools::{
    cli,
    log::{self, LogArgs},
    units,
};

/// Shows the machine's huge pages and their users, makes pools and mounts, and removes leftover files.
#[derive(Debug, Parser)]
#[command(name = "hugepages", version, after_help = HELP_END, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

const HELP_END: &str = "\
Exit codes:
  0  success
  1  an error, or fewer pages than wanted: the message on stderr says what to do
  2  wrong usage";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show pools, mounts, users of huge pages, and leftover files
    Info(info::InfoArgs),
    /// Set the number of huge pages
    #[command(after_help = setup::EXAMPLES)]
    Setup(setup::SetupArgs),
    /// Return the huge pages of a pool that nobody uses to the system
    #[command(after_help = clear::EXAMPLES)]
    Clear(clear::ClearArgs),
    /// Mount hugetlbfs, for named files of huge pages
    #[command(after_help = mount::EXAMPLES)]
    Mount(mount::MountArgs),
    /// Take a mount of hugetlbfs away that nobody uses
    #[command(after_help = unmount::EXAMPLES)]
    Unmount(unmount::UnmountArgs),
    /// Remove files of ended processes, once their devices can't write to them any more
    #[command(after_help = release::NOTES)]
    Release(release::ReleaseArgs),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  hugepages completions bash > ~/.local/share/bash-completion/completions/hugepages"
    )]
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
    /// Write man pages, of this program and of each command
    #[command(after_help = "Example:\n  hugepages manual ~/.local/share/man/man1")]
    Manual {
        /// Directory
        #[arg(value_name = "DIR")]
        directory: std::path::PathBuf,
    },
}

/// A size of huge pages; also in KiB, as the program of the same name on PyPI takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    /// 2 MiB
    #[value(name = "2M", alias = "2048")]
    Huge2M,
    /// 1 GiB
    #[value(name = "1G", alias = "1048576")]
    Huge1G,
}

impl Size {
    fn page(self) -> PageSize {
        match self {
            Self::Huge2M => PageSize::Huge2M,
            Self::Huge1G => PageSize::Huge1G,
        }
    }

    /// Returns the name on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Huge2M => "2M",
            Self::Huge1G => "1G",
        }
    }
}

fn main() -> ExitCode {
    let cli: Cli = cli::parse(std::env::args_os());
    match log::start(&cli.log).and_then(|()| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            cli::message(&format!("hugepages: {error:#}"));
            // The codes of `upcie`.
            ExitCode::from(if setup::interrupted() { 130 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Info(args) => info::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Clear(args) => clear::run(&args),
        Command::Mount(args) => mount::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Release(args) => release::run(&args),
        Command::Completions { shell } => cli::print_completions(Cli::command(), shell),
        Command::Manual { directory } => cli::write_manual(Cli::command(), &directory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
