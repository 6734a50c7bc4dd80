//! `upcie`: lists, inspects, reads, writes and measures NVMe devices from user space.
#![forbid(unsafe_code)]

mod aliases;
mod contents;
mod files;
mod guard;
mod info;
mod list;
mod manage;
mod outcome;
mod p2p;
mod perf;
mod plot;
mod prinfo;
mod signal;
mod signature;
mod soak;
mod structures;
mod target;
mod transfer;
mod transports;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use outcome::Outcome;
use std::process::ExitCode;
use upcie_tools::{
    cli, input,
    log::{self, LogArgs},
    units,
};

/// Lists, inspects, reads, writes and measures NVMe devices from user space, without a kernel driver.
#[derive(Debug, Parser)]
#[command(name = "upcie", version, after_help = help_end(), max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

fn help_end() -> String {
    format!(
        "{}\n\n{}\n\nStart with `upcie perf emu`; `upcie help perf` has examples.",
        target::ADDRESSES,
        outcome::HELP
    )
}

fn with_addresses(examples: &str) -> String {
    format!("{examples}\n\n{}", target::ADDRESSES)
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the NVMe controllers of this machine, or all PCI functions
    #[command(after_help = with_addresses(list::EXAMPLES))]
    List(list::ListArgs),
    /// Show a controller's identity, limits, namespaces and registers
    #[command(after_help = with_addresses(info::EXAMPLES))]
    Info(info::InfoArgs),
    /// Read a log page: health, errors, firmware, what the controller supports, …
    #[command(after_help = with_addresses(structures::LOG_EXAMPLES))]
    Log(structures::LogPageArgs),
    /// Show what Identify returns: the controller, a namespace, lists
    #[command(after_help = with_addresses(structures::ID_EXAMPLES))]
    Id(structures::IdArgs),
    /// Show or set a feature: its current, default or saved value, what can be done with it
    #[command(after_help = with_addresses(structures::FEATURE_EXAMPLES))]
    Feature(structures::FeatureArgs),
    /// Show or set a register of a controller (a property)
    #[command(after_help = structures::PROPERTY_EXAMPLES)]
    Property(structures::PropertyArgs),
    /// Run an admin command that you build
    #[command(after_help = with_addresses(structures::ADMIN_EXAMPLES))]
    Admin(Box<structures::AdminArgs>),
    /// Run an I/O command that you build
    #[command(after_help = with_addresses(manage::IO_EXAMPLES))]
    Io(Box<manage::IoArgs>),
    /// List, create, delete, attach and detach namespaces
    #[command(after_help = manage::NS_EXAMPLES)]
    Ns(manage::NsArgs),
    /// Give namespaces another block format; their data is lost
    #[command(after_help = with_addresses(manage::FORMAT_EXAMPLES))]
    Format(manage::FormatArgs),
    /// Erase all data of a device for good
    #[command(after_help = with_addresses(manage::SANITIZE_EXAMPLES))]
    Sanitize(manage::SanitizeArgs),
    /// Download firmware, activate it, and show the slots
    #[command(after_help = manage::FIRMWARE_EXAMPLES)]
    Fw(manage::FirmwareArgs),
    /// Let a device test itself
    #[command(after_help = with_addresses(manage::SELF_TEST_EXAMPLES))]
    Selftest(manage::SelfTestArgs),
    /// Reset a controller
    #[command(after_help = with_addresses(manage::RESET_EXAMPLES))]
    Reset(manage::ResetArgs),
    /// Send and receive data of security protocols
    #[command(after_help = manage::SECURITY_EXAMPLES)]
    Security(manage::SecurityArgs),
    /// Use directives, such as streams
    #[command(after_help = manage::DIRECTIVE_EXAMPLES)]
    Directive(manage::DirectiveArgs),
    /// Prohibit commands and features until power is cut, or allow them again
    #[command(after_help = with_addresses(manage::LOCKDOWN_EXAMPLES))]
    Lockdown(manage::LockdownArgs),
    /// Give secondary controllers queues and interrupts, turn them on and off
    #[command(after_help = with_addresses(manage::VIRT_EXAMPLES))]
    Virt(manage::VirtArgs),
    /// Create and delete endurance groups and NVM sets
    #[command(after_help = with_addresses(manage::CAPACITY_EXAMPLES))]
    Capacity(manage::CapacityArgs),
    /// Show which blocks are allocated, or may be unreadable
    #[command(after_help = with_addresses(manage::LBA_STATUS_EXAMPLES))]
    LbaStatus(manage::LbaStatusArgs),
    /// Register hosts, acquire, release and report reservations of a namespace
    #[command(after_help = manage::RESV_EXAMPLES)]
    Resv(manage::ResvArgs),
    /// Report, open, close, finish and reset the zones of a namespace, and append to them
    #[command(after_help = manage::ZNS_EXAMPLES)]
    Zns(manage::ZnsArgs),
    /// Show and use flexible data placement: reclaim units, their handles, events and statistics
    #[command(after_help = manage::FDP_EXAMPLES)]
    Fdp(manage::FdpArgs),
    /// Show boot partitions, and read them
    #[command(after_help = with_addresses(manage::BOOT_EXAMPLES))]
    BootPart(manage::BootArgs),
    /// Store, retrieve, list and delete the keys and values of a namespace
    #[command(after_help = manage::KV_EXAMPLES)]
    Kv(manage::KvArgs),
    /// Read blocks into a file or a pipe
    #[command(after_help = with_addresses(transfer::READ_EXAMPLES))]
    Read(transfer::ReadArgs),
    /// Write blocks from a file or a pipe
    #[command(after_help = with_addresses(transfer::WRITE_EXAMPLES))]
    Write(transfer::WriteArgs),
    /// Make what was written survive a loss of power
    #[command(after_help = with_addresses(manage::FLUSH_EXAMPLES))]
    Flush(manage::FlushArgs),
    /// Deallocate ranges of blocks, or tell how they will be used (Dataset Management)
    #[command(after_help = with_addresses(manage::DSM_EXAMPLES))]
    Dsm(Box<manage::DsmArgs>),
    /// Compare blocks with a file, in the controller
    #[command(after_help = with_addresses(manage::COMPARE_EXAMPLES))]
    Compare(manage::CompareArgs),
    /// Let the controller read and check blocks, without a transfer
    #[command(after_help = with_addresses(manage::VERIFY_EXAMPLES))]
    Verify(manage::VerifyArgs),
    /// Zero blocks, without a transfer
    #[command(after_help = with_addresses(manage::ZEROES_EXAMPLES))]
    WriteZeroes(manage::ZeroesArgs),
    /// Make blocks unreadable until they are written
    #[command(after_help = with_addresses(manage::UNCOR_EXAMPLES))]
    WriteUncor(manage::UncorArgs),
    /// Copy blocks within a namespace, in the controller
    #[command(after_help = with_addresses(manage::COPY_EXAMPLES))]
    Copy(Box<manage::CopyArgs>),
    /// Measure IOPS and latency; check data with --verify
    #[command(after_help = perf::help_end())]
    Perf(Box<perf::PerfArgs>),
    /// Draw the results of `perf --json`: one run, or a comparison of several
    #[command(after_help = plot::EXAMPLES)]
    Plot(plot::PlotArgs),
    /// Copy blocks between two controllers through the memory buffer of one of them
    #[command(after_help = p2p::EXAMPLES)]
    P2p(Box<p2p::P2pArgs>),
    /// Read and write at random for a long time, with kills, and check every block
    #[command(after_help = with_addresses(soak::EXAMPLES))]
    Soak(Box<soak::SoakArgs>),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  upcie completions bash > ~/.local/share/bash-completion/completions/upcie"
    )]
    Completions {
        /// Shell to complete for
        shell: Shell,
    },
    /// Write man pages, of this program and of each command
    #[command(after_help = "Example:\n  upcie manual ~/.local/share/man/man1")]
    Manual {
        /// Directory
        #[arg(value_name = "DIR")]
        directory: std::path::PathBuf,
    },
}

fn main() -> ExitCode {
    let cli: Cli = cli::parse(aliases::expand(std::env::args_os()));
    let start = || {
        log::start(&cli.log)?;
        // Some servers keep a BAR in a file that can't be sealed. If one shrinks it, access fails with an
        // error instead of SIGBUS.
        upcie_core::memory::survive_shrinking()?;
        anyhow::Ok(())
    };
    match start().and_then(|()| run(cli.command)) {
        Ok(Outcome::Interrupted) if signal::wanted_back().is_some() => outcome::ERROR.into(),
        Ok(outcome) => outcome.code().into(),
        Err(error) if cli::is_broken_pipe(&error) => Outcome::Done.code().into(),
        Err(error) => {
            cli::message(&format!("upcie: {error:#}"));
            // The interrupt shortened the deadlines of the device, so an error may follow from it.
            let asked = signal::interrupted() && signal::wanted_back().is_none();
            if asked { outcome::INTERRUPTED.into() } else { outcome::ERROR.into() }
        }
    }
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::List(args) => list::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Log(args) => structures::log(&args),
        Command::Id(args) => structures::identify(&args),
        Command::Feature(args) => structures::feature(&args),
        Command::Property(args) => structures::property(&args),
        Command::Admin(args) => structures::admin(&args),
        Command::Io(args) => manage::io(&args),
        Command::Ns(args) => manage::namespaces(&args),
        Command::Format(args) => manage::format(&args),
        Command::Sanitize(args) => manage::sanitize(&args),
        Command::Fw(args) => manage::firmware(&args),
        Command::Selftest(args) => manage::self_test(&args),
        Command::Reset(args) => manage::reset(&args),
        Command::Security(args) => manage::security(&args),
        Command::Directive(args) => manage::directive(&args),
        Command::Lockdown(args) => manage::lockdown(&args),
        Command::Virt(args) => manage::virtualization(&args),
        Command::Capacity(args) => manage::capacity(&args),
        Command::LbaStatus(args) => manage::lba_status(&args),
        Command::Resv(args) => manage::reservations(&args),
        Command::Zns(args) => manage::zones(&args),
        Command::Fdp(args) => manage::placement(&args),
        Command::BootPart(args) => manage::boot(&args),
        Command::Kv(args) => manage::key_value(&args),
        Command::Read(args) => transfer::read(&args),
        Command::Write(args) => transfer::write(&args),
        Command::Flush(args) => manage::flush(&args),
        Command::Dsm(args) => manage::dsm(&args),
        Command::Compare(args) => manage::compare(&args),
        Command::Verify(args) => manage::verify(&args),
        Command::WriteZeroes(args) => manage::write_zeroes(&args),
        Command::WriteUncor(args) => manage::write_uncor(&args),
        Command::Copy(args) => manage::copy(&args),
        Command::Perf(args) => perf::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::P2p(args) => p2p::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Completions { shell } => {
            cli::print_completions(Cli::command(), shell)?;
            Ok(Outcome::Done)
        }
        Command::Manual { directory } => {
            cli::write_manual(Cli::command(), &directory)?;
            Ok(Outcome::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_texts_fit_the_terminal() {
        // Without a terminal clap breaks lines at 100 columns.
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        }
        assert!(target::ADDRESSES.lines().all(|line| line.chars().count() <= 80), "{}", target::ADDRESSES);
    }
}
