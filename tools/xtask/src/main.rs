//! Tasks of this project: `cargo xtask test`, `guest`, `bench`, `fio`, `simulate`, `fuzz`, `sanitize` and `coverage`.
//!
//! The modules of these names are the tasks. They use `suites` (suites, modes and results), `checks` (steps that start no
//! device) and `lab` (the guest), which use `cargo` and `process`. No module imports one above it, and no two modules import
//! each other.
//!
//! This program prints its messages on stderr, so that stdout has only the output of a guest command.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod checks;
mod coverage;
mod fio;
mod fuzz;
mod guest;
mod lab;
mod process;
mod sanitize;
mod simulate;
mod suites;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Tasks of this project", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything: format, lints, unit tests, suites on this machine and in the guest
    Test(test::Args),
    /// Run a command or a prompt in the guest, which has QEMU's NVMe controllers behind an IOMMU
    Guest(guest::Args),
    /// Run the benches, and write target/bench/summary.json
    Bench(bench::Args),
    /// Build the ioengine for the installed fio, and print the command to run
    Fio(fio::Args),
    /// Play driver, controller and time in one thread, in an order that a seed decides
    Simulate(simulate::Args),
    /// Feed parsers and state machines with mutations of valid inputs
    Fuzz(fuzz::Args),
    /// Run unit tests and suites under AddressSanitizer or ThreadSanitizer (nightly compiler)
    Sanitize(sanitize::Args),
    /// Count the lines of the libraries that unit tests and suites execute (nightly compiler)
    Coverage(coverage::Args),
}

fn main() -> ExitCode {
    if let Err(error) = process::watch_for_interrupt() {
        eprintln!("xtask: can't handle Ctrl-C, which will not clean up: {error}");
    }
    let result = match Cli::parse().task {
        Task::Test(args) => test::main(&args),
        Task::Guest(args) => guest::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::Fio(args) => fio::main(&args),
        Task::Simulate(args) => simulate::main(&args),
        Task::Fuzz(args) => fuzz::main(&args),
        Task::Sanitize(args) => sanitize::main(&args),
        Task::Coverage(args) => coverage::main(&args),
    };
    match result {
        Ok(code) => code,
        Err(_) if process::interrupted() => {
            eprintln!("xtask: interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
